"""The benchmark's corpus is what it says, and the benchmark runs."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search import BEGIN, END, PARTS, write_section
from benchmarks.search_corpus import ASPECTS, CLIPS_PER_RECORDING, KINDS, Corpus, questions
from benchmarks.search_jobs import CONDITIONS, train_index
from mess_core.index.factory import choose_factory
from mess_core.index.index import Index
from mess_core.search.search import search

CORPUS = Corpus(70_000)


@pytest.fixture(scope="module")
def index() -> Index:
    vectors, predicted = CORPUS.make()
    held = train_index(vectors, choose_factory(*vectors.shape))
    return Index("clips", CORPUS.rows, CORPUS.projection, predicted, {}, {}, held)


@pytest.mark.unit
def test_stored_vectors_are_what_projections_make(index: Index) -> None:
    CORPUS.projection.check()
    CORPUS.rows.check("clips")
    stored = index.stored(np.arange(CORPUS.n))
    general = stored[:, : CORPUS.projection.general]
    np.testing.assert_allclose(np.linalg.norm(general, axis=1), 1.0, atol=1e-5)
    for aspect in CORPUS.projection.aspects.values():
        block = stored[:, aspect.stored]
        np.testing.assert_allclose(np.square(block).sum(axis=1), stored[:, aspect.norm], atol=1e-5)
        assert block.var(axis=0).sum() == pytest.approx(0.5, rel=0.1)


@pytest.mark.unit
def test_clips_are_alike_within_recordings_and_works(index: Index) -> None:
    (aspect,) = [a for a in CORPUS.projection.aspects.values() if a.name == "phrasing"]
    stored = index.stored(np.arange(CORPUS.n))[:, aspect.stored]
    clips = stored.reshape(-1, CLIPS_PER_RECORDING, stored.shape[1])

    def apart(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.square(one - other).sum(axis=-1).mean())

    following = apart(clips[:, 1:], clips[:, :-1])
    same_recording = apart(clips[:, 20:], clips[:, :-20])
    same_work = apart(clips[0::5], clips[1::5])
    others = apart(clips[5:], clips[:-5])
    distances = [following, same_recording, same_work, others]
    assert all(nearer < further - 0.05 for nearer, further in pairwise(distances))
    assert others == pytest.approx(1.0, rel=0.1)


@pytest.mark.unit
@pytest.mark.parametrize("kind", KINDS)
def test_questions_can_be_asked(kind: str, index: Index) -> None:
    asked = questions(index.rows, kind, 3)
    assert asked == questions(index.rows, kind, 3)
    for query in asked:
        (best, *_) = search(index, query).hits
        if kind not in ("unlike", "more"):
            assert best.clip == query.clip
        if kind == "more":
            (name,) = query.more
            own = search(index, query).predicted[name]
            assert best.predicted[name] >= own + 0.5 - 1e-6
            assert name in ASPECTS


@pytest.mark.unit
def test_the_section_is_replaced_between_its_markers(tmp_path: Path) -> None:
    path = tmp_path / "search.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for text in ("first", "second"):
        write_section(path, text)
        assert path.read_text() == f"before\n{BEGIN}\n\n{text}\n\n{END}\nafter\n"
    path.write_text("nothing")
    with pytest.raises(ValueError, match="needs one line"):
        write_section(path, "text")


@pytest.mark.slow
def test_every_part_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.search", "--quick", "--json"]
    done = subprocess.run(
        [*command, str(tmp_path / "facts.json")], check=True, capture_output=True, text=True
    )
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert set(PARTS) < set(facts)
    for part in ("million", "codes"):
        asked = facts[part]["asked"]["conditions"]
        assert list(asked) == [name for name, _, _ in CONDITIONS]
    # What FAISS says with the same vector and filter is what `search` says.
    for name, found in facts["million"]["asked"]["conditions"].items():
        assert name == "without overlaps" or set(found["same"]) == {1.0}
    assert "ratio to FAISS" in done.stdout
