"""How vectors are held: what is chosen, and that nothing about hits but their search changes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from mess_core.errors import ArtifactError
from mess_core.index import Index, load_artifact, save_artifact
from mess_core.index.factory import (
    EXACT_UP_TO,
    FLAT,
    MEMORY_GB,
    Choice,
    choose_factory,
    flat_index,
    hold,
    search_parameters,
)
from mess_core.search import Query
from mess_core.search.query import clip_id
from mess_core.search.search import search
from mess_core.workflow.config import Settings
from tests.planted import Corpus, clip_rows

pytestmark = pytest.mark.unit

N = 5000
ROWS = clip_rows(25, 200)
INDEX = Corpus(N).index(ROWS)
VECTORS, WIDTH = INDEX.stored(np.arange(N)), INDEX.projection.width
KINDS: dict[str, dict[str, Any]] = {
    "general": {},
    "two aspects": {"like": {"tempo": 0.7, "dynamics": 0.3}},
    "one aspect": {"like": {"contour": 1.0}},
    "unlike": {"like": {"general": 1.0}, "unlike": {"dynamics": 0.5}},
    "more": {"like": {"general": 1.0}, "more": {"legato": 1.0}},
}


def questions(kind: str, count: int, k: int = 10) -> list[Query]:
    chosen = np.random.default_rng(1).integers(N, size=count).tolist()
    clips = [clip_id(ROWS[row].recording_id, ROWS[row].start_s) for row in chosen]
    return [Query(clip=clip, k=k, **KINDS[kind]) for clip in clips]


#: What exact vectors in memory and on the disk are chosen for; of few rows they find everything.
CODED = [
    choose_factory(N, WIDTH, gigabytes * 1e9, exact_up_to=1000)._replace(candidates=candidates)
    for gigabytes, candidates in ((1.0, 1000), (0.001, 200))
]


def held(vectors: npt.NDArray[np.float32], choice: Choice) -> Any:
    exact = flat_index(WIDTH)
    exact.add(vectors)
    return hold(exact, choice)


def index_of(choice: Choice) -> Index:
    return replace(INDEX, vectors=held(VECTORS, choice), factory=choice.factory)


@pytest.fixture(scope="module")
def exact() -> Index:
    return index_of(choose_factory(N, WIDTH))


@pytest.fixture(scope="module", params=CODED, ids=["in memory", "on disk"])
def coded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index with codes, saved and opened."""
    return load_artifact(save_artifact(index_of(request.param), tmp_path_factory.mktemp("coded")))


# --- what is chosen


def test_up_to_the_limit_search_is_exact_whatever_the_memory() -> None:
    for n in (1, 1000, EXACT_UP_TO):
        assert choose_factory(n, WIDTH, 1.0).factory == FLAT
    assert choose_factory(EXACT_UP_TO + 1, WIDTH).factory == f"IVF1024,PQ{WIDTH}x4fsr,RFlat"
    # Less cannot be learned from, whatever is asked for.
    assert choose_factory(1000, WIDTH, exact_up_to=10).factory == FLAT
    assert choose_factory(1001, WIDTH, exact_up_to=10).factory == f"IVF15,PQ{WIDTH}x4fsr,RFlat"


@pytest.mark.parametrize(("width", "code"), [(94, 47), (87, 44)])
def test_the_memory_decides_where_exact_vectors_are(width: int, code: int) -> None:
    n = 2_000_000
    codes, exact = n * (code + 8), n * width * 4
    factory = f"IVF1024,PQ{width}x4fsr,RFlat"
    assert choose_factory(n, width, codes + exact) == (factory, 10_000)
    for memory in (codes, codes + exact - 1):
        assert choose_factory(n, width, memory) == (factory, 4000)
    with pytest.raises(ArtifactError, match=r"codes of 2000000 rows .* raise index\.memory_gb"):
        choose_factory(n, width, codes - 1)


def test_the_defaults_are_those_of_the_configuration() -> None:
    settings = Settings()
    assert (settings.exact_up_to, settings.memory_gb) == (EXACT_UP_TO, MEMORY_GB)


# --- what is found


@pytest.mark.parametrize("kind", KINDS)
def test_hits_are_those_of_the_exact_index(kind: str, exact: Index, coded: Index) -> None:
    found, loss = [], []
    for query in questions(kind, 20):
        expected, hits = search(exact, query).hits, search(coded, query).hits
        best = {hit.clip for hit in expected}
        found.append(len(best & {hit.clip for hit in hits}) / len(best))
        loss.append(np.mean([h.score for h in expected]) - np.mean([h.score for h in hits]))
    assert np.mean(found) >= 0.95
    assert np.mean(loss) <= 1e-3


def test_contributions_are_exact_and_sum_to_the_score(exact: Index, coded: Index) -> None:
    np.testing.assert_array_equal(coded.stored([0, 4999, 17]), exact.stored([0, 4999, 17]))
    for kind in KINDS:
        for query in questions(kind, 3, k=50):
            known = {hit.clip: hit for hit in search(exact, replace(query, k=N)).hits}
            for hit in search(coded, query).hits:
                assert hit == known[hit.clip]
                assert sum(hit.contributions.values()) == pytest.approx(hit.score, abs=1e-5)


def test_no_hit_is_one_that_was_left_out(exact: Index, coded: Index) -> None:
    for query in questions("more", 10):
        row = next(iter(search(exact, replace(query, more={})).hits))
        asked = replace(query, exclude="work", where={"composer": ("composer1", "composer2")}, k=20)
        hits, expected = search(coded, asked).hits, search(exact, asked).hits
        assert len(hits) == len(expected)
        assert {hit.composer for hit in hits} <= {"composer1", "composer2"}
        assert row.work_id not in {hit.work_id for hit in hits}
        (name,) = query.more
        least = search(exact, query).predicted[name] + 0.5
        assert all(hit.predicted[name] >= least - 1e-6 for hit in hits)


def test_a_selector_is_exact_however_little_it_leaves(exact: Index, coded: Index) -> None:
    allowed = np.zeros(N, np.bool_)
    allowed[[3, 1000, 4999]] = True
    for index in (exact, coded):
        parameters = search_parameters(index.vectors, 10, allowed)
        _, rows = index.vectors.search(VECTORS[:1], 10, params=parameters)
        assert sorted(rows[0].tolist()) == [-1] * 7 + [3, 1000, 4999]


def test_hits_without_overlaps_are_found_in_codes_too(exact: Index, coded: Index) -> None:
    for query in questions("general", 5):
        asked = replace(query, dedupe_s=1000.0, k=25)
        hits = search(coded, asked).hits
        # 5000 clips are of 25 recordings.
        assert len({hit.recording_id for hit in hits}) == len(hits) == 25
        assert hits == search(exact, asked).hits


# --- how it is built and opened


def test_the_same_vectors_give_the_same_index() -> None:
    first, again = (faiss.serialize_index(held(VECTORS, CODED[0])) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_all_cells_are_looked_into_and_the_settings_are_saved(exact: Index, coded: Index) -> None:
    cells: Any = faiss.extract_index_ivf(coded.vectors)
    assert cells.nprobe == cells.nlist == N // 64
    assert coded.vectors.k_factor * 10 in {1000, 200}
    parameters: Any = search_parameters(coded.vectors, 20)
    assert parameters.k_factor == coded.vectors.k_factor / 2
    # Never fewer candidates than hits.
    assert search_parameters(coded.vectors, N).k_factor == 1
    assert search_parameters(exact.vectors, 10) is None
    assert (exact.exact, coded.exact) == (True, False)


def test_an_index_over_the_limit_is_built_with_codes(tmp_path: Path) -> None:
    from mess_core.index import build_index

    corpus, rows = Corpus(1200), clip_rows(60, 20)
    common: dict[str, Any] = {"kind": "clips", "projection": corpus.projection(), "aspects": {}}
    coded = build_index(corpus.features, rows, **common, facts={}, exact_up_to=1000)
    exact = build_index(corpus.features, rows, **common, facts={}, exact_up_to=1200)
    assert (coded.exact, exact.exact) == (False, True)
    loaded = load_artifact(save_artifact(coded, tmp_path))
    query = Query("r3", 0.0, 10.0, like={"dynamics": 1.0, "general": 1.0}, exclude="recording")
    assert search(loaded, query).hits == search(exact, query).hits
    with pytest.raises(ArtifactError, match=r"index\.memory_gb"):
        build_index(corpus.features, rows, **common, facts={}, exact_up_to=1000, memory_gb=1e-6)
