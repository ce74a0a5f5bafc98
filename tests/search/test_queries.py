"""Planted groups: layer 0 puts recordings together by letter, layer 2 by number."""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mess_core.artifacts.index import Index, Row, build_index
from mess_core.errors import SearchError
from mess_core.search.queries import (
    Hit,
    find_similar,
    search_by_aspect,
    search_by_aspects,
    search_by_clip,
    search_by_vector,
)

pytestmark = pytest.mark.unit

Array = npt.NDArray[np.float64]

#: float32 leaves 20 * 6e-8 of an offset of 20 (see `_random_features`).
TOLERANCE = 3e-6

LETTERS, NUMBERS = "ABCD", "0123"
WINDOW_S, HOP_S, WINDOWS = 5.0, 2.5, 7
END_S = WINDOW_S + HOP_S * (WINDOWS - 1)


def _aspect(layer: int | None, r2: float | None, reason: str = "") -> dict[str, Any]:
    return {
        "resolved": layer is not None,
        "layer": layer,
        "r2": r2,
        "confidence": None,
        "targets": {},
        "reason": reason,
    }


ASPECTS = {
    "min_r2": 0.3,
    "aspects": {
        "letters": _aspect(0, 0.9),
        "numbers": _aspect(2, 0.8),
        "numbers_too": _aspect(2, 0.5),
        "rubato": _aspect(None, 0.12, "no layer predicts it"),
        "legato": _aspect(None, None, "no MIDI"),
    },
}


def _planted() -> Index:
    rng = np.random.default_rng(1)
    names = [letter + number for letter in LETTERS for number in NUMBERS]
    by_letter = dict(zip(LETTERS, rng.normal(size=(4, 16)), strict=True))
    by_number = dict(zip(NUMBERS, rng.normal(size=(4, 16)), strict=True))
    noise = rng.normal(size=(16, 3, 16)) * 0.1
    features = 100 + noise
    for row, name in enumerate(names):
        features[row, 0] += by_letter[name[0]]
        features[row, 2] += by_number[name[1]]
    rows = [Row(name, name[0], "", "", "", "", 0.0, 10.0) for name in names]
    return build_index(
        features, rows, kind="recordings", layers=[0, 1, 2], aspects=ASPECTS, facts={}
    )


def _random_features(recordings: int = 9) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(2)
    return (rng.normal(size=(recordings * WINDOWS, 4, 8)) + 20).astype(np.float32)


def _clips(recordings: int = 9) -> Index:
    rows = [
        Row(f"r{i}", f"w{i % 3}", "p", "c", "t", "", HOP_S * n, HOP_S * n + WINDOW_S)
        for i in range(recordings)
        for n in range(WINDOWS)
    ]
    return build_index(
        _random_features(recordings),
        rows,
        kind="clips",
        layers=[0, 2, 3],
        aspects=ASPECTS,
        facts={},
    )


def _ids(hits: list[Hit]) -> set[str]:
    return {hit.recording_id for hit in hits}


def test_each_aspect_finds_the_group_that_its_layer_knows() -> None:
    index = _planted()
    assert _ids(search_by_aspect(index, "B2", "letters", k=3)) == {"B0", "B1", "B3"}
    assert _ids(search_by_aspect(index, "B2", "numbers", k=3)) == {"A2", "C2", "D2"}


def test_weights_decide_which_group_comes_first() -> None:
    index = _planted()
    hits = search_by_aspects(index, "B2", {"letters": 0.8, "numbers": 0.2}, k=6)
    assert _ids(hits[:3]) == {"B0", "B1", "B3"}
    hits = search_by_aspects(index, "B2", {"letters": 0.2, "numbers": 0.8}, k=6)
    assert _ids(hits[:3]) == {"A2", "C2", "D2"}


def test_only_ratios_of_weights_matter_and_aspects_of_one_layer_add_up() -> None:
    index = _planted()
    one = search_by_aspects(index, "B2", {"letters": 3, "numbers": 1, "numbers_too": 2}, k=16)
    other = search_by_aspects(index, "B2", {"letters": 0.5, "numbers": 0.5}, k=16)
    assert one == other


def test_a_recording_finds_itself_first_with_score_one() -> None:
    index = _planted()
    for row in index.rows:
        first = find_similar(index, row.recording_id, k=1, exclude="none")[0]
        assert first.recording_id == row.recording_id
        assert first.score == pytest.approx(1.0, abs=1e-6)
        assert first.score <= 1.0


def test_hits_carry_their_rows() -> None:
    row = _clips().rows[0]
    hit = search_by_clip(_clips(), "r0", 0.0, k=1)[0]
    assert hit == Hit("r0", "w0", "p", "c", "t", hit.score, row.start_s, row.end_s)


def _reference(
    features: npt.NDArray[np.float32],
    rows: tuple[Row, ...],
    query: list[int],
    weights: Mapping[int, float],
    skip: set[int],
) -> list[tuple[str, float, float]]:
    """Search in float64 by the definition: centre, scale, weigh the cosines, sort."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    unit = centred / np.linalg.norm(centred, axis=2, keepdims=True)
    asked = unit[query].mean(axis=0)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    scores = sum(weight * unit[:, layer] @ asked[layer] for layer, weight in weights.items())
    assert isinstance(scores, np.ndarray)
    kept = [row for row in np.argsort(-scores, kind="stable") if row not in skip]
    return [(rows[row].recording_id, rows[row].start_s, float(scores[row])) for row in kept]


WEIGHTINGS: list[tuple[dict[str, float] | None, dict[int, float]]] = [
    (None, {0: 1 / 3, 2: 1 / 3, 3: 1 / 3}),
    ({"letters": 1.0}, {0: 1.0}),
    ({"letters": 0.7, "numbers": 0.3}, {0: 0.7, 2: 0.3}),
]


@pytest.mark.parametrize("k", [1, 5, 20, 1000])
@pytest.mark.parametrize("exclude", ["none", "recording", "work"])
@pytest.mark.parametrize(("aspects", "weights"), WEIGHTINGS)
def test_search_equals_the_definition(
    aspects: dict[str, float] | None, weights: dict[int, float], exclude: str, k: int
) -> None:
    index = _clips()
    for recording in ("r0", "r4", "r8"):
        own = index.rows[index.positions[recording][0]]
        skip = {
            row
            for row, entry in enumerate(index.rows)
            if (exclude == "recording" and entry.recording_id == recording)
            or (exclude == "work" and entry.work_id == own.work_id)
        }
        # 3 to 15.5 s holds the windows that start at 5.0, 7.5 and 10.0 s.
        query = [index.positions[recording][n] for n in (2, 3, 4)]
        expected = _reference(_random_features(), index.rows, query, weights, skip)[:k]
        hits = search_by_clip(index, recording, 3.0, 15.5, k=k, aspects=aspects, exclude=exclude)
        assert [(h.recording_id, h.start_s) for h in hits] == [e[:2] for e in expected]
        np.testing.assert_allclose(
            [h.score for h in hits], [e[2] for e in expected], atol=TOLERANCE
        )


def test_equal_scores_are_ordered_by_recording_and_start_also_at_the_end_of_the_list() -> None:
    rng = np.random.default_rng(5)
    features = rng.normal(size=(40, 2, 8)).astype(np.float32)
    features[3:37] = features[3]
    names = rng.permutation(40)
    rows = [Row(f"r{n:02d}", "w", "", "", "", "", 0.0, 1.0) for n in names]
    index = build_index(features, rows, kind="recordings", layers=[0, 1], aspects={}, facts={})
    query = rows[0].recording_id
    complete = find_similar(index, query, k=39)
    twins = [hit for hit in complete if hit.recording_id in {r.recording_id for r in rows[3:37]}]
    assert len({hit.score for hit in twins}) == 1
    assert twins == sorted(twins, key=lambda hit: hit.recording_id)
    for k in range(1, 41):
        assert find_similar(index, query, k=k) == complete[:k]


@pytest.mark.parametrize("n", range(WINDOWS))
def test_a_clips_own_audio_comes_first(n: int) -> None:
    index = _clips()
    for aspects in (None, {"numbers": 1.0}):
        for end in (None, HOP_S * n + WINDOW_S):
            hits = search_by_clip(index, "r5", HOP_S * n, end, k=3, aspects=aspects)
            assert (hits[0].recording_id, hits[0].start_s) == ("r5", HOP_S * n)
            assert hits[0].score == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("start", "end", "windows"),
    [
        (0.0, 5.0, [0]),
        (0.0, END_S, list(range(WINDOWS))),
        (2.5, 10.0, [1, 2]),
        (2.4, 10.1, [1, 2]),
        (2.5004, 10.0, [1, 2]),
        (6.0, 9.0, [2]),  # shorter than a window: the one that holds it
        (1.25, 6.25, [0, 1]),  # between two windows: both overlap it by 3.75 s
        (1.0, 6.0, [0]),  # nearer to the first: 4 s against 3.5 s
        (16.0, None, [6]),  # ends with the recording
    ],
)
def test_which_windows_a_passage_covers(
    start: float, end: float | None, windows: list[int]
) -> None:
    index = _clips()
    positions = [index.positions["r1"][n] for n in windows]
    weights = dict.fromkeys([0, 2, 3], 1 / 3)
    expected = _reference(_random_features(), index.rows, positions, weights, set())
    hits = search_by_clip(index, "r1", start, end, k=5)
    np.testing.assert_allclose(
        [h.score for h in hits], [e[2] for e in expected[:5]], atol=TOLERANCE
    )


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (-1.0, 4.0),
        (0.0, END_S + 0.1),
        (END_S, None),
        (500.0, None),
        (5.0, 5.0),
        (6.0, 5.0),
        (math.nan, None),
        (0.0, math.nan),
        (0.0, math.inf),
    ],
)
def test_times_outside_of_the_recording_are_refused_with_its_range(
    start: float, end: float | None
) -> None:
    with pytest.raises(SearchError, match=r"no passage of recording r1: .* cover 0 to 20 s"):
        search_by_clip(_clips(), "r1", start, end)


def test_passages_need_an_index_of_clips() -> None:
    with pytest.raises(SearchError, match="index of recordings; passages need an index of clips"):
        search_by_clip(_planted(), "A0", 0.0)


def test_a_recording_in_an_index_of_clips_is_the_mean_of_its_windows() -> None:
    index = _clips()
    expected = search_by_clip(index, "r2", 0.0, END_S, k=9, exclude="recording")
    assert find_similar(index, "r2", k=9) == expected


def test_exclusion_of_everything_gives_no_hits() -> None:
    index = _planted()
    one_work = replace(index, rows=tuple(replace(row, work_id="w") for row in index.rows))
    assert find_similar(one_work, "A0", exclude="work") == []
    assert len(find_similar(index, "A0", k=99, exclude="work")) == 12
    assert len(find_similar(index, "A0", k=99)) == 15
    assert len(find_similar(index, "A0", k=99, exclude="none")) == 16


def test_an_unknown_work_cannot_be_excluded() -> None:
    index = _planted()
    unknown = replace(index, rows=tuple(replace(row, work_id="") for row in index.rows))
    with pytest.raises(SearchError, match="work of recording A0 is not known"):
        find_similar(unknown, "A0", exclude="work")


@pytest.mark.parametrize("kind", ["recordings", "clips"])
def test_features_made_elsewhere_are_answered_like_stored_ones(kind: str) -> None:
    features, rows = _random_features(), _clips().rows
    if kind == "recordings":
        features, rows = features[::WINDOWS], rows[::WINDOWS]
    index = build_index(features, rows, kind=kind, layers=[3, 0], aspects={}, facts={})
    hits = search_by_vector(index, features[4], k=5)
    own = rows[4]
    assert (hits[0].recording_id, hits[0].start_s) == (own.recording_id, own.start_s)
    assert hits[0].score == pytest.approx(1.0, abs=1e-6)
    if kind == "clips":
        several = search_by_vector(index, features[2:4], k=5)
        passage = search_by_clip(index, "r0", rows[2].start_s, rows[3].end_s, k=5)
        assert [h.recording_id for h in several] == [h.recording_id for h in passage]
        np.testing.assert_allclose([h.score for h in several], [h.score for h in passage], 1e-5)


def test_features_made_elsewhere_can_be_weighted() -> None:
    index = _clips()
    hits = search_by_vector(index, _random_features()[9], k=4, aspects={"numbers": 1.0})
    stored = search_by_clip(index, "r1", 5.0, k=4, aspects={"numbers": 1.0})
    assert [(h.recording_id, h.start_s) for h in hits] == [
        (h.recording_id, h.start_s) for h in stored
    ]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((4, 9)), r"shape \(1, 4, 9\), expected \(\.\.\., layers, 8\)"),
        (np.ones(8), "shape"),
        (np.ones((0, 4, 8)), "shape"),
        (np.ones((3, 8)), "3 layers, but the index uses layer 3"),
        (np.full((4, 8), np.nan), "no direction"),
        (np.full((4, 8), np.inf), "no direction"),
    ],
)
def test_features_that_do_not_fit_are_refused(features: Array, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        search_by_vector(_clips(), features)


def test_a_query_that_equals_the_mean_is_refused() -> None:
    index = _clips()
    features = np.ones((4, 8), dtype=np.float32)
    features[[0, 2, 3]] = index.mean
    with pytest.raises(SearchError, match="equal the corpus mean"):
        search_by_vector(index, features)


def test_unknown_names_are_refused_with_the_nearest_known_one() -> None:
    index = _planted()
    with pytest.raises(SearchError, match="recording 'B22' is not in the index: did you mean 'B2'"):
        find_similar(index, "B22")
    with pytest.raises(SearchError, match="aspect 'leters' is unknown: did you mean 'letters'"):
        search_by_aspect(index, "B2", "leters")
    with pytest.raises(SearchError, match="exclude 'works' is unknown: did you mean 'work'"):
        find_similar(index, "B2", exclude="works")
    for k in (0, -1):
        with pytest.raises(SearchError, match=f"k is {k}, expected at least 1"):
            find_similar(index, "B2", k=k)


def test_unresolved_aspects_are_refused_with_what_they_reached_and_the_limit() -> None:
    index = _planted()
    with pytest.raises(SearchError, match=r"'rubato'.*R2 0\.12.*min_r2 is 0\.3.*no layer.*lower"):
        search_by_aspects(index, "B2", {"letters": 1.0, "rubato": 0.5})
    with pytest.raises(SearchError, match=r"'legato'.*no target of it was probed.*no MIDI"):
        search_by_aspect(index, "B2", "legato")
    with pytest.raises(SearchError, match="no aspect map"):
        search_by_aspect(replace(index, aspects={}), "B2", "letters")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"letters": -1.0}, "weight of letters is -1"),
        ({"letters": math.nan}, "weight of letters is nan"),
        ({"letters": math.inf}, "weight of letters is inf"),
        ({"letters": 0.0}, "no aspect has a weight above 0"),
        ({}, "no aspect has a weight above 0"),
    ],
)
def test_impossible_weights_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        search_by_aspects(_planted(), "B2", weights)


def test_threads_get_the_answers_that_one_gets() -> None:
    index = _clips()
    questions = [(f"r{i % 9}", HOP_S * (i % WINDOWS)) for i in range(200)]

    def ask(question: tuple[str, float]) -> list[Hit]:
        return search_by_clip(index, *question, k=5, exclude="recording")

    expected = [ask(question) for question in questions]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, questions)) == expected
