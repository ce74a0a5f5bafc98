"""Relative to works: answers equal the definition, and what cannot be compared is said."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mess_core.errors import SearchError
from mess_core.index.index import Row, build_index
from mess_core.search.query import Query
from mess_core.search.search import search, search_features
from tests.planted import ASPECT_MAP, FACTS, STANDARD_ERROR, Corpus, clip_rows
from tests.search.reference import Blocks

pytestmark = pytest.mark.unit

TOLERANCE = 3e-5
N = 84
CORPUS = Corpus(N, seed=3)


def _rows(kind: str) -> list[Row]:
    """Return rows of 3 works; the last recording is alone in its work, two before it in none."""
    if kind == "clips":
        rows = clip_rows(12, 7)
    else:
        rows = [
            Row(f"r{i:02d}", f"w{i % 3}", "", f"composer{i % 3}", "", "", 0.0, 9.0)
            for i in range(N)
        ]
    names = list(dict.fromkeys(row.recording_id for row in rows))
    others = {names[-1]: "alone", names[-2]: "", names[-3]: ""}
    return [replace(row, work_id=others.get(row.recording_id, row.work_id)) for row in rows]


ROWS = {kind: _rows(kind) for kind in ("clips", "recordings")}
INDEX = {kind: CORPUS.index(rows, kind) for kind, rows in ROWS.items()}
WEIGHTINGS: list[dict[str, float]] = [
    {"general": 1.0},
    {"tempo": 1.0},
    {"general": 2.0, "tempo": 1.0, "legato": 0.5, "dynamics": 3.0, "contour": 0.1},
]


def _reference(kind: str) -> tuple[Blocks, list[int]]:
    works = np.array([row.work_id for row in ROWS[kind]])
    compared = np.isin(works, ["w0", "w1", "w2"])
    with np.errstate(invalid="ignore"):  # of the works with one recording in an index of these
        blocks = Blocks(INDEX[kind].projection, CORPUS.features).relative(works, compared)
    return blocks, np.flatnonzero(compared).tolist()


def _places(hits: Any) -> list[tuple[str, float]]:
    return [(hit.recording_id, hit.start_s) for hit in hits]


@pytest.mark.parametrize("kind", INDEX)
@pytest.mark.parametrize("like", WEIGHTINGS)
@pytest.mark.parametrize(("exclude", "k"), [("none", 5), ("recording", 999), ("work", 20)])
def test_answers_relative_to_the_work_equal_the_definition(
    kind: str, like: dict[str, float], exclude: str, k: int
) -> None:
    index, rows = INDEX[kind], ROWS[kind]
    blocks, compared = _reference(kind)
    for name in (rows[0].recording_id, rows[40].recording_id):
        own = index.rows.positions(name).tolist()
        start_s = None if kind == "recordings" else 3.0  # to 15.5 s: from 5.0, 7.5 and 10.0 s
        scores = blocks.scores(own if kind == "recordings" else own[2:5], like)
        out = {"none": [], "recording": own}.get(exclude)
        if out is None:
            out = [n for n in compared if rows[n].work_id == rows[own[0]].work_id]
        expected = sorted({*compared} - {*out}, key=lambda n: -scores[n])[:k]
        end_s = start_s and 15.5
        query = Query(name, start_s, end_s, like=like, exclude=exclude, k=k, relative="work")
        answer = search(index, query)
        assert _places(answer.hits) == [(rows[n].recording_id, rows[n].start_s) for n in expected]
        np.testing.assert_allclose(
            [hit.score for hit in answer.hits], scores[expected], atol=TOLERANCE
        )
        number = index.projection.aspects["legato"].number
        np.testing.assert_allclose(
            [hit.predicted["legato"] for hit in answer.hits],
            blocks.predicted[expected, number],
            atol=TOLERANCE,
        )
        assert answer.notes == (
            "left out: 3 recordings whose work has no other in the index, or is not known",
        )


@pytest.mark.parametrize("kind", INDEX)
def test_equal_rows_score_one_and_others_zero_on_average(kind: str) -> None:
    index, rows = INDEX[kind], ROWS[kind]
    for like in WEIGHTINGS:
        means = []
        for row in rows[:40:4]:
            start_s = None if kind == "recordings" else row.start_s
            query = Query(row.recording_id, start_s, like=like, k=999, relative="work")
            hits = search(index, query).hits
            assert _places(hits)[0] == (row.recording_id, row.start_s)
            assert hits[0].score == pytest.approx(1.0, abs=1e-5)
            means.append(np.mean([hit.score for hit in hits]))
        assert np.mean(means) == pytest.approx(0.0, abs=0.25)


def test_more_is_counted_from_the_mean_of_each_work() -> None:
    index, (blocks, compared) = INDEX["clips"], _reference("clips")
    number = index.projection.aspects["legato"].number
    query = Query("r0", 5.0, k=999, more={"legato": 0.5}, like={"legato": 1.0}, relative="work")
    answer = search(index, query)
    limit = blocks.predicted[2, number] + 0.5 * STANDARD_ERROR
    met = {n for n in compared if blocks.predicted[n, number] >= limit}
    assert {index.rows.positions(h.recording_id)[0] + h.start_s / 2.5 for h in answer.hits} == met
    # What is asked for has the length that blocks have.
    relative, plain = index.relative_to_work.projection, index.projection
    aspect = plain.aspects["legato"]
    mean = index.stored(np.flatnonzero(index.rows.having("work_id", ["w0"]))).mean(axis=0)
    scaled = index.relative_to_work.stored([2])[0] / (index.stored([2])[0] - mean)
    ratio = relative.steer[aspect.coordinates] / plain.steer[aspect.coordinates]
    np.testing.assert_allclose(ratio, scaled[aspect.stored], rtol=1e-4)


def test_an_index_with_codes_is_as_exact() -> None:
    corpus, rows = Corpus(1050), clip_rows(150, 7)
    common: dict[str, Any] = {"kind": "clips", "aspects": ASPECT_MAP, "facts": FACTS}
    exact, coded = (
        build_index(corpus.features, rows, projection=corpus.projection(), exact_up_to=n, **common)
        for n in (1050, 1000)
    )
    assert not coded.exact
    for like in WEIGHTINGS:
        query = Query("r7", 5.0, like=like, k=50, relative="work", dedupe_s=5.0)
        assert search(coded, query) == search(exact, query)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("r11", r"no other recording of the work of r11 \(alone\) to compare it with"),
        ("r10", r"no other recording of the work of r10 \(not known\) to compare it with"),
    ],
)
def test_who_is_alone_in_a_work_is_refused(name: str, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        search(INDEX["clips"], Query(name, 5.0, relative="work"))


def test_features_of_elsewhere_have_no_work() -> None:
    with pytest.raises(SearchError, match="features are of no work"):
        search_features(INDEX["clips"], CORPUS.features[0], Query(relative="work"))


def test_what_equals_the_mean_of_its_work_is_like_nothing_in_general() -> None:
    corpus = Corpus(12)
    corpus.features[1::2] = corpus.features[1]
    rows = [Row(f"r{i}", f"w{i % 2}", "", "", "", "", 0.0, 9.0) for i in range(12)]
    index = corpus.bare(rows, "recordings")
    scores = {h.recording_id: h.score for h in search(index, Query("r0", relative="work")).hits}
    assert [scores[f"r{i}"] for i in range(1, 12, 2)] == pytest.approx([0.0] * 6, abs=1e-6)
    assert scores["r0"] == pytest.approx(1.0, abs=1e-5)
