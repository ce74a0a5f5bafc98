"""Answers equal the definition, whatever is weighted, moved, left out or filtered."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import faiss
import numpy as np
import pytest

from mess_core.errors import SearchError
from mess_core.index.index import Index, Row, Rows
from mess_core.search.query import Query
from mess_core.search.scoring import Passage, ask
from mess_core.search.search import Answer, Hit, search, search_features
from tests.planted import (
    ASPECTS,
    DIRECTED,
    HOP_S,
    STANDARD_ERROR,
    WINDOW_S,
    Corpus,
    clip_rows,
    recording_rows,
)
from tests.search.reference import Blocks

pytestmark = pytest.mark.unit

RECORDINGS, WINDOWS = 30, 7
END_S = WINDOW_S + HOP_S * (WINDOWS - 1)
CORPUS = Corpus(RECORDINGS * WINDOWS)
INDEX = CORPUS.index(clip_rows(RECORDINGS, WINDOWS))
BLOCKS = Blocks(INDEX.projection, CORPUS.features)
#: float32 leaves 20 * 6e-8 of the features' common offset, times what whitening makes of it.
TOLERANCE = 3e-5

WEIGHTINGS: list[dict[str, float]] = [
    {},
    {"general": 1.0},
    {"tempo": 1.0},
    {"contour": 0.7, "dynamics": 0.3},
    {"general": 2.0, "tempo": 1.0, "legato": 0.5, "dynamics": 3.0, "contour": 0.1},
]


def _places(hits: tuple[Hit, ...]) -> list[tuple[str, float]]:
    return [(hit.recording_id, hit.start_s) for hit in hits]


def _expected(
    query: list[int], weights: dict[str, float], skip: set[int], k: int
) -> list[tuple[str, float, float]]:
    scores = BLOCKS.scores(query, weights or {"general": 1.0})
    kept = [row for row in np.argsort(-scores, kind="stable").tolist() if row not in skip][:k]
    rows = [(INDEX.rows[row], float(scores[row])) for row in kept]
    return [(row.recording_id, row.start_s, score) for row, score in rows]


@pytest.mark.parametrize("k", [1, 5, 20, 1000])
@pytest.mark.parametrize("exclude", ["none", "recording", "work"])
@pytest.mark.parametrize("like", WEIGHTINGS)
def test_search_equals_the_definition(like: dict[str, float], exclude: str, k: int) -> None:
    for recording in ("r0", "r14", "r29"):
        own = INDEX.rows.positions(recording).tolist()
        work = INDEX.rows[own[0]].work_id
        skip = {
            row
            for row, entry in enumerate(INDEX.rows)
            if (exclude == "recording" and entry.recording_id == recording)
            or (exclude == "work" and entry.work_id == work)
        }
        # 3 to 15.5 s holds the windows that start at 5.0, 7.5 and 10.0 s.
        expected = _expected([own[n] for n in (2, 3, 4)], like, skip, k)
        query = Query(recording, 3.0, 15.5, like=like, k=k, exclude=exclude)
        hits = search(INDEX, query).hits
        assert _places(hits) == [e[:2] for e in expected]
        np.testing.assert_allclose(
            [h.score for h in hits], [e[2] for e in expected], atol=TOLERANCE
        )


def test_unlike_asks_for_the_mirror_image_at_a_distance_of_at_least_one() -> None:
    for row in range(0, len(INDEX.rows), 7):
        own = INDEX.rows[row]
        query = Query(own.recording_id, own.start_s, own.end_s, k=9999, like={"tempo": 1.0})
        unlike = replace(query, unlike={"dynamics": 0.5})
        block = BLOCKS.aspects["dynamics"]
        length = np.linalg.norm(block[row])
        target = -block[row] / length * max(length, 1 - length)
        assert np.square(target - block[row]).sum() >= 1 - 1e-6
        similarity = 1 - np.square(block - target).sum(axis=1)
        expected = BLOCKS.scores([row], {"tempo": 1.0}) * 2 / 3 + similarity / 3
        hits = search(INDEX, unlike).hits
        assert max(hit.score for hit in hits) <= 1.0
        found = {(hit.recording_id, hit.start_s): hit.score for hit in hits}
        ordered = [found[r.recording_id, r.start_s] for r in INDEX.rows]
        np.testing.assert_allclose(ordered, expected, atol=TOLERANCE)


@pytest.mark.parametrize("seed", range(20))
def test_the_inner_product_is_the_sum_of_the_contributions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [*INDEX.projection.aspects]
    roles = dict(
        zip(names, rng.choice(["like", "ignore", "unlike", "more", "none"], 4), strict=True)
    )
    if roles["contour"] == "more":
        roles["contour"] = "like"

    def chosen(role: str) -> dict[str, float]:
        return {n: float(rng.uniform(0.1, 2)) for n in names if roles[n] == role}

    like = chosen("like") | ({"general": 0.7} if seed % 2 else {})
    query = Query(
        like=like, ignore=tuple(chosen("ignore")), unlike=chosen("unlike"), more=chosen("more")
    )
    stored = INDEX.stored(np.arange(len(INDEX.rows)))
    start = int(rng.integers(len(stored)))
    passage = Passage(stored[start], INDEX.predicted[:, start].astype(float))
    question = ask(INDEX.projection, query, passage)
    parts = question.contributions(stored)
    np.testing.assert_allclose(
        parts.sum(axis=1), stored @ question.vector + question.constant, atol=1e-5
    )
    assert sum(question.weights.values()) == pytest.approx(1.0)
    assert min(question.weights.values()) > 0


def test_a_clip_finds_itself_first_with_score_one_by_time_and_by_its_id() -> None:
    for like in WEIGHTINGS:
        for n in range(WINDOWS):
            by_time = search(INDEX, Query("r7", HOP_S * n, k=3, like=like)).hits
            assert _places(by_time)[0] == ("r7", HOP_S * n)
            assert by_time[0].score == pytest.approx(1.0, abs=1e-5)
            by_id = search(INDEX, Query(clip=by_time[0].clip, k=3, like=like)).hits
            assert by_id == by_time


def test_two_random_clips_score_zero_on_average() -> None:
    rng = np.random.default_rng(0)
    for like in WEIGHTINGS:
        rows = rng.integers(len(INDEX.rows), size=60).tolist()
        scores = [BLOCKS.scores([row], like or {"general": 1.0}).mean() for row in rows]
        assert np.mean(scores) == pytest.approx(0.0, abs=0.15)


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
    own = INDEX.rows.positions("r1").tolist()
    like = {"general": 1.0, "dynamics": 1.0}
    expected = _expected([own[n] for n in windows], like, set(), 5)
    hits = search(INDEX, Query("r1", start, end, like=like, k=5)).hits
    np.testing.assert_allclose([h.score for h in hits], [e[2] for e in expected], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("start", "end"),
    [(-1.0, 4.0), (0.0, END_S + 0.1), (END_S, None), (500.0, None), (5.0, 5.0), (6.0, 5.0)],
)
def test_times_outside_of_the_recording_are_refused_with_its_range(
    start: float, end: float | None
) -> None:
    with pytest.raises(SearchError, match=r"no passage of recording r1: .* cover 0 to 20 s"):
        search(INDEX, Query("r1", start, end))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(), "nothing to start from"),
        (Query("r111"), "recording 'r111' is not in the index: did you mean 'r11'"),
        (Query(clip="r1@3.3"), r"no clip 'r1@3\.3'; a clip is RECORDING@START .*r0@0\.000"),
        (Query(clip="r1"), "no clip 'r1'"),
        (Query(clip="r999@0"), "recording 'r999' is not in the index"),
        (Query("r1", like={"temp": 1.0}), "aspect 'temp' is unknown: did you mean 'tempo'"),
        (Query("r1", like={"rubato": 1.0}), r"'rubato'.*R2 0\.12.*min_r2 is 0\.3.*no layer.*lower"),
        (Query("r1", ignore=("pedal",)), "'pedal'.*no target of it was measured.*no MIDI"),
        (
            Query("r1", more={"contour": 1.0}),
            "no more or less of 'contour'.*tempo, legato, dynamics",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can(query: Query, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        search(INDEX, query)


def test_an_index_without_aspects_says_so() -> None:
    bare = CORPUS.bare(clip_rows(RECORDINGS, WINDOWS), "clips")
    assert len(search(bare, Query("r0")).hits) == 10
    with pytest.raises(SearchError, match="no aspect map"):
        search(bare, Query("r0", like={"tempo": 1.0}))


def test_what_the_start_does_not_have_is_refused() -> None:
    index = Corpus(20).index(recording_rows(20), "recordings")
    with pytest.raises(SearchError, match="index of recordings; passages need an index of clips"):
        search(index, Query("r0", 0.0))
    for query, said in (
        (Query("r0"), "cannot name a recording or clip too"),
        (Query(exclude="work"), "no work can be excluded"),
    ):
        with pytest.raises(SearchError, match=said):
            search_features(INDEX, CORPUS.features[0], query)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("aspect", DIRECTED)
def test_more_and_less_are_kept_by_every_hit(aspect: str, strength: float, sign: int) -> None:
    others = {name: 1.0 for name in ASPECTS if name != aspect}
    asked: dict[str, Any] = {"more" if sign > 0 else "less": {aspect: strength}, "like": others}
    number = INDEX.projection.aspects[aspect].number
    middle = int(np.argsort(INDEX.predicted[number])[len(INDEX.rows) // 2])
    row = INDEX.rows[middle]
    answer = search(INDEX, Query(row.recording_id, row.start_s, row.end_s, k=20, **asked))
    limit = answer.predicted[aspect] + sign * strength * STANDARD_ERROR
    values = np.array([hit.predicted[aspect] for hit in answer.hits])
    assert len(values)
    assert (sign * values >= sign * limit - 1e-6).all()
    # As much more as was asked, rather than as much as there is.
    furthest = (sign * INDEX.predicted[number]).max()
    assert abs(values[:5].mean() - limit) < abs(furthest - sign * limit)
    # Everything else stays closer than among all rows that meet the condition.
    met = sign * INDEX.predicted[number] >= sign * limit
    for other in sorted({*DIRECTED} - {aspect}):
        place = INDEX.projection.aspects[other].number
        drift = np.abs([hit.predicted[other] - answer.predicted[other] for hit in answer.hits[:5]])
        by_chance = np.abs(INDEX.predicted[place][met] - answer.predicted[other])
        assert drift.mean() < by_chance.mean()


def test_a_query_that_nothing_satisfies_says_what_it_would_need() -> None:
    answer = search(INDEX, Query("r0", 0.0, more={"legato": 50.0}))
    assert answer.hits == ()
    (note,) = answer.notes
    highest = INDEX.predicted[INDEX.projection.aspects["legato"].number].max()
    assert "satisfies: more legato by 50 steps means a value of +2" in note
    assert f"the highest of 210 rows is {highest:+.2f}" in note
    both = search(INDEX, Query("r0", 0.0, more={"legato": 50.0}, less={"tempo": 50.0}))
    assert "at once" in both.notes[0]
    assert "the lowest" in both.notes[0]


def test_filters_and_exclusion_together() -> None:
    query = Query(
        "r0", 0.0, k=999, exclude="work", where={"performer": ("player0",), "split": ("", "x")}
    )
    rows = [r for r in INDEX.rows if r.performer == "player0" and r.work_id != "w0"]
    found = search(INDEX, query).hits
    assert sorted(_places(found)) == sorted((r.recording_id, r.start_s) for r in rows)
    alternatives = replace(query, exclude="none", where={"composer": ("composer1", "composer2")})
    assert len(search(INDEX, alternatives).hits) == 20 * WINDOWS
    own = replace(query, exclude="none", where={"dataset": ("planted",)})
    assert len(search(INDEX, own).hits) == len(INDEX.rows)


def test_filters_that_leave_nothing_are_named() -> None:
    query = Query("r0", 0.0, exclude="work", where={"composer": ("Bach", "Satie")})
    answer = search(INDEX, query)
    assert answer.hits == ()
    asked = "no row of the index has composer=Bach|Satie and another work than the query"
    assert f"{asked}; no composer is 'Bach': " in answer.notes[0]
    assert search(INDEX, Query("r0", where={"dataset": ("other",)})).hits == ()


@pytest.mark.parametrize("apart", [2.5, 5.0, 7.5, 100.0])
@pytest.mark.parametrize("k", [1, 4, 25, 999])
def test_overlapping_hits_are_left_out_but_no_others(apart: float, k: int) -> None:
    everything = search(INDEX, Query("r2", 2.5, k=999)).hits
    kept: list[Hit] = []
    for hit in everything:
        own = [h.start_s for h in kept if h.recording_id == hit.recording_id]
        if all(abs(start_s - hit.start_s) >= apart for start_s in own):
            kept.append(hit)
    assert search(INDEX, Query("r2", 2.5, k=k, dedupe_s=apart)).hits == tuple(kept[:k])


def test_equal_scores_are_ordered_by_recording_and_start_also_at_the_end_of_the_list() -> None:
    corpus = Corpus(40)
    corpus.features[3:37] = corpus.features[3]
    names = np.random.default_rng(5).permutation(40)
    rows = [Row(f"r{n:02d}", "w", "", "", "", "", 0.0, 1.0) for n in names]
    index = corpus.bare(rows, "recordings")
    query = Query(rows[0].recording_id, exclude="recording", k=39)
    complete = search(index, query).hits
    twins = [hit for hit in complete if hit.recording_id in {r.recording_id for r in rows[3:37]}]
    assert len({hit.score for hit in twins}) == 1
    assert twins == sorted(twins, key=lambda hit: hit.recording_id)
    for k in range(1, 41):
        assert search(index, replace(query, k=k)).hits == complete[:k]


def test_an_unknown_work_cannot_be_excluded() -> None:
    rows = INDEX.rows
    blank = Rows({**rows.recordings, "work_id": [""] * RECORDINGS}, rows.table)
    with pytest.raises(SearchError, match="work of recording r0 is not known"):
        search(replace(INDEX, rows=blank), Query("r0", exclude="work"))


@pytest.mark.parametrize("kind", ["recordings", "clips"])
def test_features_made_elsewhere_are_answered_like_stored_ones(kind: str) -> None:
    corpus = Corpus(24)
    rows = recording_rows(24) if kind == "recordings" else clip_rows(6, 4)
    index = corpus.index(rows, kind)
    query = Query(like={"general": 1.0, "legato": 1.0}, k=5)
    features = corpus.features[4]
    if kind == "recordings":  # As the windows of a file, whose mean is the recording.
        features = np.stack(
            [features + 0.5 * corpus.features[5], features - 0.5 * corpus.features[5]]
        )
    hits = search_features(index, features, query).hits
    assert (hits[0].recording_id, hits[0].start_s) == (rows[4].recording_id, rows[4].start_s)
    assert hits[0].score == pytest.approx(1.0, abs=1e-5)
    if kind == "clips":
        several = search_features(index, corpus.features[4:7], query).hits
        passage = search(index, replace(query, recording_id="r1", start_s=0.0, end_s=10.0)).hits
        assert _places(several) == _places(passage)
        np.testing.assert_allclose([h.score for h in several], [h.score for h in passage], 1e-4)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((3, 24), int), "features are int64, expected floats"),
        (np.ones((4, 9)), r"shape \(1, 4, 9\), expected \(\.\.\., layers, 24\)"),
        (np.ones(24), "shape"),
        (np.ones((0, 3, 24)), "shape"),
        (np.ones((2, 24)), "2 layers, but the index uses layer 2"),
        (np.full((3, 24), np.nan), "no direction"),
        (np.full((3, 24), np.inf), "no direction"),
        (INDEX.projection.means, "equal the corpus mean"),
    ],
)
def test_features_that_do_not_fit_are_refused(features: Any, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        search_features(INDEX, features, Query())


def test_ignoring_an_aspect_makes_its_distance_matter_less() -> None:
    """Correlate the scores with how far the ignored aspect truly is, the rest being equal."""
    truth = CORPUS.values["tempo"][:, 0]

    def leak(index: Index, **respects: Any) -> float:
        found = []
        for start in range(0, len(index.rows), 10):
            row = index.rows[start]
            query = Query(row.recording_id, row.start_s, row.end_s, k=999, **respects)
            scores = {(h.recording_id, h.start_s): h.score for h in search(index, query).hits}
            ordered = [scores[r.recording_id, r.start_s] for r in index.rows]
            found.append(np.corrcoef(ordered, -np.abs(truth - truth[start]))[0, 1])
        return float(np.mean(found))

    general = leak(INDEX)
    assert general > 0.1
    assert abs(leak(INDEX, ignore=("tempo",))) < 0.5 * general


def test_more_ties_than_faiss_is_asked_for_at_first_are_ordered_by_recording_and_start() -> None:
    # FAISS orders ties by position, and here the last positions come first.
    rows = [Row(f"r{99 - i // 50}", "w", "", "", "", "", i % 50, i % 50 + 5.0) for i in range(2000)]
    index = Corpus(2000).index(rows)
    equal = faiss.IndexFlatIP(index.projection.width)
    equal.add(np.repeat(index.stored([7]), 2000, axis=0))
    index = replace(index, vectors=equal)
    hits = search(index, Query("r99", 20.0, k=3)).hits
    assert _places(hits) == [("r60", 0.0), ("r60", 1.0), ("r60", 2.0)]
    apart = search(index, Query("r99", 20.0, k=3, dedupe_s=30.0)).hits
    assert _places(apart) == [("r60", 0.0), ("r60", 30.0), ("r61", 0.0)]


def test_threads_get_the_answers_that_one_gets() -> None:
    questions = [
        Query(f"r{i % RECORDINGS}", HOP_S * (i % WINDOWS), exclude="recording", like=like, k=5)
        for i in range(60)
        for like in WEIGHTINGS[:4]
    ]

    def answer(question: Query) -> Answer:
        return search(INDEX, question)

    expected = [answer(question) for question in questions]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(answer, questions)) == expected
