"""Wishes: percentiles equal their definition, and the smallest of them ranks."""

import argparse
import shlex
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mess_core.cli import search as cli_search
from mess_core.errors import SearchError
from mess_core.index.index import Index, build_index
from mess_core.search.query import Query, command
from mess_core.search.search import search, search_features
from tests.planted import ASPECT_MAP, FACTS, Corpus, clip_rows
from tests.search.reference import Blocks

pytestmark = pytest.mark.unit

RECORDINGS, WINDOWS = 40, 7
CORPUS = Corpus(RECORDINGS * WINDOWS, seed=3)
INDEX = CORPUS.index(clip_rows(RECORDINGS, WINDOWS))
ROWS = list(INDEX.rows)
BLOCKS = Blocks(INDEX.projection, CORPUS.features)
NUMBERS = {name: aspect.number for name, aspect in INDEX.projection.aspects.items()}

MANY = Corpus(1400, seed=8)
PACKED = build_index(
    MANY.features, clip_rows(200, 7), kind="clips", projection=MANY.projection(),
    aspects=ASPECT_MAP, facts=FACTS, exact_up_to=1000,
)  # fmt: skip

WISHES: list[tuple[dict[str, float], ...]] = [
    ({"tempo": -1.0},),
    ({"tempo": -1.0, "dynamics": -0.5},),
    ({"tempo": -0.6, "dynamics": -0.4}, {"legato": 0.3}),
    ({"tempo": 1.0}, {"tempo": -1.0}, {"dynamics": 2.0, "legato": -1.0}),
]


def _percentiles(values: npt.NDArray[Any], rows: list[int]) -> dict[int, float]:
    """Return the share of rows that each is above, counted."""
    return {row: sum(values[row] > values[other] for other in rows) / len(rows) for row in rows}


def _value(index: Index, group: dict[str, float]) -> npt.NDArray[np.float32]:
    parts = [np.float32(w) * index.predicted[NUMBERS[name]] for name, w in group.items()]
    return np.asarray(sum(parts[1:], parts[0]))


def _expected(
    query: Query, rows: list[int], likeness: Any = None, index: Index = INDEX
) -> list[tuple[int, list[float]]]:
    """Return rows, best first, each with its percentiles."""
    criteria = [likeness] * (likeness is not None) + [_value(index, dict(g)) for g in query.wish]
    shares = [_percentiles(values, rows) for values in criteria]
    told = {row: [share[row] for share in shares] for row in rows}

    def key(row: int) -> tuple[float, float, str, float]:
        mean = round(-float(np.mean(told[row])), 9)
        return -min(told[row]), mean, ROWS[row].recording_id, ROWS[row].start_s

    return [(row, told[row]) for row in sorted(rows, key=key)]


def _found(index: Index, query: Query) -> list[tuple[int, list[float]]]:
    places = {(row.recording_id, row.start_s): n for n, row in enumerate(ROWS)}
    hits = search(index, query).hits
    assert all(hit.score == min(hit.percentiles.values()) for hit in hits)
    return [(places[h.recording_id, h.start_s], [*h.percentiles.values()]) for h in hits]


@pytest.mark.parametrize("k", [1, 7, 1000])
@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_alone_equals_its_definition(wish: tuple[dict[str, float], ...], k: int) -> None:
    query = Query(wish=wish, k=k)
    assert _found(INDEX, query) == _expected(query, [*range(len(ROWS))])[:k]
    answer = search(INDEX, query)
    assert answer.predicted == {}
    assert answer.hits[0].contributions == {}
    assert [*answer.hits[0].percentiles] == [f"wish {n}" for n in range(1, len(wish) + 1)]


@pytest.mark.parametrize("wish", WISHES)
def test_likeness_filters_and_what_is_excluded_count_too(
    wish: tuple[dict[str, float], ...],
) -> None:
    query = Query("r4", 2.5, 7.5, like={"contour": 1.0}, wish=wish, exclude="recording", k=500)
    query = replace(query, where={"composer": ("composer0", "composer1")})
    rows = [n for n, r in enumerate(ROWS) if r.composer != "composer2" and r.recording_id != "r4"]
    start = 4 * WINDOWS + 1
    scores = BLOCKS.scores([start], {"contour": 1.0})
    expected, found = dict(_expected(query, rows, scores)), _found(INDEX, query)
    # Scores in float32 may change places with their neighbours.
    for row, shares in found:
        assert shares == pytest.approx(expected[row], abs=2 / len(rows))
    best = [min(shares) for _, shares in _expected(query, rows, scores)]
    assert [min(shares) for _, shares in found] == pytest.approx(best, abs=2 / len(rows))
    hit = search(INDEX, query).hits[0]
    assert hit.contributions["contour"] == pytest.approx(scores[found[0][0]], abs=1e-4)


def test_overlaps_are_left_out_of_a_wish() -> None:
    query = Query(wish=WISHES[1], k=300)
    expected: list[int] = []
    for row, _ in _expected(query, [*range(len(ROWS))]):
        others = [
            ROWS[o].start_s for o in expected if ROWS[o].recording_id == ROWS[row].recording_id
        ]
        if all(abs(ROWS[row].start_s - start) >= 5 for start in others):
            expected.append(row)
    assert [row for row, _ in _found(INDEX, replace(query, dedupe_s=5.0))] == expected
    assert [row for row, _ in _found(INDEX, replace(query, dedupe_s=5.0, k=9))] == expected[:9]


def test_both_in_some_measure_beat_one_in_plenty() -> None:
    predicted = np.zeros_like(INDEX.predicted)
    predicted[:, :] = np.linspace(-1, 1, len(ROWS))
    predicted[NUMBERS["dynamics"]] *= -1
    tempo, dynamics = NUMBERS["tempo"], NUMBERS["dynamics"]
    # The first is first in one and last in the other; the second is good in both.
    predicted[[tempo, dynamics], 100] = 5, -5
    predicted[[tempo, dynamics], 200] = 0.5, 0.5
    index = replace(INDEX, predicted=predicted)
    joined, both = ({"tempo": 1.0, "dynamics": 0.5},), ({"tempo": 1.0}, {"dynamics": 0.5})
    assert _found(index, Query(wish=joined, k=1))[0][0] == 100
    assert _found(index, Query(wish=both, k=1))[0][0] == 200


def test_equal_scores_are_ordered_by_the_mean_percentile() -> None:
    predicted = np.zeros_like(INDEX.predicted)
    predicted[NUMBERS["tempo"], [30, 60]] = 1.0
    predicted[NUMBERS["dynamics"], [60, 9]] = 1.0
    # What is not known counts as the mean.
    predicted[NUMBERS["dynamics"], 30] = np.nan
    index = replace(INDEX, predicted=predicted)
    found = [row for row, _ in _found(index, Query(wish=({"tempo": 1}, {"dynamics": 1}), k=500))]
    assert found[0] == 60
    assert set(found[1:3]) == {30, 9}
    assert sorted(found) == [*range(len(ROWS))]


@pytest.mark.parametrize("seed", range(8))
def test_no_row_is_missed_where_many_are_equal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted = rng.normal(size=INDEX.predicted.shape).astype(np.float32)
    # The better half are equal in one of three, so that the mean decides; of the others few rows
    # have both.
    predicted[NUMBERS["tempo"]] = predicted[NUMBERS["tempo"]] > 0
    predicted[NUMBERS["legato"]] += predicted[NUMBERS["dynamics"]]
    index = replace(INDEX, predicted=predicted)
    query = Query(wish=({"tempo": 1.0}, {"dynamics": 1.0}, {"legato": -1.0}))
    expected = _expected(query, [*range(len(ROWS))], index=index)
    for k in range(1, 9):
        assert _found(index, replace(query, k=k)) == expected[:k]


def test_likeness_in_general_does_not_know_the_wish() -> None:
    wish = Query("r3", 0, 5, wish=({"tempo": -1.0},), k=500)
    ignoring = Query("r3", 0, 5, ignore=("tempo",), k=500)
    scores = {h.clip: h.score for h in search(INDEX, ignoring).hits}
    hits = search(INDEX, wish).hits
    assert all(sum(h.contributions.values()) == pytest.approx(scores[h.clip]) for h in hits)
    more = search(INDEX, replace(wish, more={"legato": 0.5})).hits[0]
    assert more.contributions.keys() == {"general", "legato", "dynamics", "contour"}
    liked = search(INDEX, replace(wish, like={"general": 1.0})).hits
    assert [hit.clip for hit in liked] == [hit.clip for hit in hits]
    # What is liked by its name counts, wished for or not.
    both = {"general": 1.0, "tempo": 1.0}
    asked = {h.clip: h.score for h in search(INDEX, Query("r3", 0, 5, like=both, k=500)).hits}
    liked = search(INDEX, replace(wish, like=both)).hits
    assert all(sum(h.contributions.values()) == pytest.approx(asked[h.clip]) for h in liked)


def test_the_same_passage_is_ranked_by_the_wish_alone() -> None:
    rows = clip_rows(6, 4, works=1)
    rows = [replace(row, work_start_s=row.start_s, work_end_s=row.end_s) for row in rows]
    index = Corpus(24, seed=5).index(rows)
    query = Query("r0", 2.5, 7.5, wish=({"dynamics": -1.0},), same_passage=True)
    values = {f"r{n}": index.predicted[NUMBERS["dynamics"], 4 * n + 1] for n in range(1, 6)}
    hits = search(index, query).hits
    assert [hit.recording_id for hit in hits] == sorted(values, key=lambda name: values[name])
    assert [hit.score for hit in hits] == [0.8, 0.6, 0.4, 0.2, 0.0]
    assert [*hits[0].percentiles] == ["wish 1"]
    assert [*search(index, replace(query, like={"tempo": 1.0})).hits[0].percentiles] == [
        "likeness", "wish 1",
    ]  # fmt: skip


def test_relative_wishes_compare_within_the_work() -> None:
    works = np.array([row.work_id for row in ROWS])
    values = INDEX.predicted[NUMBERS["tempo"]].astype(np.float64)
    centred = values - np.array([values[works == work].mean() for work in works])
    best = ROWS[int(np.argmin(centred))]
    hit = search(INDEX, Query(wish=({"tempo": -1.0},), relative="work", k=1)).hits[0]
    assert (hit.recording_id, hit.start_s) == (best.recording_id, best.start_s)


def test_a_compressed_index_ranks_alike() -> None:
    exact = MANY.index(clip_rows(200, 7))
    assert not PACKED.exact
    for query in (
        Query("r7", 0, 5, wish=({"tempo": 1.0},)),
        Query("r7", 0, 5, wish=({"tempo": 1.0},), exclude="recording", where={"split": ("",)}),
    ):
        one, other = search(exact, query).hits, search(PACKED, query).hits
        assert [hit.score for hit in one] == pytest.approx([h.score for h in other], abs=2e-3)


def test_a_compressed_index_says_where_others_might_be_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mess_core.search.search._MOST_ALIKE", 50)
    query = Query("r7", 0, 5, wish=({"tempo": 1.0},), k=3)
    wide = search(PACKED, replace(query, wish=({"tempo": 1.0}, {"tempo": -1.0})))
    assert wide.notes == (
        "likeness was compared for the 50 rows most alike; others might be better",
    )
    assert not search(PACKED, Query(wish=({"tempo": 1.0},))).notes


def test_features_from_elsewhere_may_have_a_wish() -> None:
    answer = search_features(INDEX, CORPUS.features[10], Query(wish=({"tempo": 1.0},), k=3))
    assert [*answer.hits[0].percentiles] == ["likeness", "wish 1"]


def test_what_the_index_does_not_know_is_said() -> None:
    answer = search(INDEX, Query(wish=({"tempo": 1.0, "rubato": 1.0}, {"pedal": -1.0}), k=5))
    assert answer.hits == search(INDEX, Query(wish=({"tempo": 1.0},), k=5)).hits
    assert "does not know rubato, pedal" in answer.notes[0]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(wish=({"rubato": 1.0},)), "does not know rubato .* nothing else; wish for tempo"),
        (Query(wish=({"temp": 1.0},)), "'temp' of the wish is unknown: did you mean 'tempo'"),
        (Query(wish=({"contour": 1.0},)), "more or less of 'contour': it is a shape"),
        (Query(wish=({"phrasing": 1.0},)), "more or less of 'phrasing'"),
        (Query(wish=({"tempo": 1.0},), exclude="work"), "names no recording or clip"),
        (Query(wish=({"tempo": 1.0},), like={"tempo": 1.0}), "names no recording or clip"),
        (Query(wish=({"tempo": 1.0},), more={"tempo": 1.0}), "names no recording or clip"),
        (Query(start_s=1.0, wish=({"tempo": 1.0},)), "a start or end is of a recording"),
        (Query(), "nothing to start from"),
    ],
)
def test_wishes_that_cannot_be_answered_are_refused(query: Query, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        search(INDEX, query)


def test_nothing_left_is_said_in_words() -> None:
    answer = search(INDEX, Query(wish=({"tempo": 1.0},), where={"composer": ("Bach",)}))
    assert not answer.hits
    assert "no composer is 'Bach'" in answer.notes[0]


@pytest.mark.parametrize(
    "query",
    [
        Query("r 1"),
        Query("-r'1", 0.1 + 0.2, 7.123456789, k=3),
        Query(clip="r1@2.500", exclude="passage", dedupe_s=2.5),
        Query("r1", 1.0, same_passage=True, wish=({"tempo": -0.25, "pedal": 1e-7}, {"rubato": 1})),
        Query(wish=({"tempo": -1.0},), where={"composer": ("A = B", "C"), "split": ("",)}),
        Query(
            "r1", 30.0, 35.5, like={"phrasing": 1.0, "general": 0.1, "tempo": 0.0}, k=77,
            ignore=("dynamics", "pedal"), unlike={"tension": 1 / 3}, more={"articulation": 2.0},
            less={"rubato": 1.0}, exclude="work", relative="work", dedupe_s=1e-3,
        ),
    ],
)  # fmt: skip
def test_the_command_line_asks_the_same(query: Query) -> None:
    parser = argparse.ArgumentParser()
    cli_search.add_parser(parser.add_subparsers())
    words = shlex.split(command(query, "demo"))
    args = parser.parse_args(words[1:])
    assert args.dataset == "demo"
    # Whole recordings exclude themselves unless told otherwise.
    assert cli_search._query(args) == query
