"""The same passage in other recordings: times, order, marks and exclusion, from planted maps."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from mess_core.alignment.maps import Alignment
from mess_core.errors import SearchError
from mess_core.index.index import Row, Rows
from mess_core.search.passages import stretches
from mess_core.search.query import Query
from mess_core.search.search import Hit, search, search_features
from tests.planted import HOP_S, WINDOW_S, Corpus, clip_rows

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float64]

#: Recordings of work ``w0``, and one of another with the same times.
RECORDINGS, WINDOWS = 6, 10
KNOTS = np.arange(WINDOWS + 2) * np.float64(HOP_S)
END_S = float(KNOTS[-1])
#: Work times at the knots; the first recording is the reference.
MAPS = {
    "r0": KNOTS,
    **{
        f"r{i}": np.append(0.0, np.random.default_rng(i).uniform(1.5, 3.5, WINDOWS + 1).cumsum())
        for i in range(1, RECORDINGS)
    },
}
#: r2 leaves out 4 s of the work between 12 and 13 s, r3 is aligned from 10 s, r4 nowhere.
REGIONS = {
    **dict.fromkeys(MAPS, np.array([[0.0, END_S]])),
    "r2": np.array([[0.0, 12.0], [13.0, END_S]]),
    "r3": np.array([[10.0, END_S]]),
    "r4": np.empty((0, 2)),
}
#: What windows that lie in one region cover of those that are not aligned as a whole.
ALIGNED = {"r2": [(0.0, 10.0), (15.0, END_S)], "r3": [(10.0, END_S)], "r4": []}
CORPUS = Corpus(RECORDINGS * WINDOWS, seed=1)


def _alignment(name: str) -> Alignment:
    work = MAPS[name] + 4.0 * (KNOTS > 12.5) * (name == "r2")
    nothing = np.empty(0)
    return Alignment(KNOTS, work, np.zeros(len(KNOTS)), REGIONS[name], nothing)


def _windows() -> Floats:
    starts = KNOTS[:WINDOWS]
    return np.column_stack([starts, starts + WINDOW_S])


def _rows() -> list[Row]:
    work_s = {name: _alignment(name).windows_to_work(_windows()) for name in MAPS}
    found = []
    for n, row in enumerate(clip_rows(RECORDINGS, WINDOWS, works=1)):
        start, end = (None if np.isnan(t) else t for t in work_s[row.recording_id][n % WINDOWS])
        work_id = "other" if row.recording_id == "r5" else "w0"
        found.append(replace(row, work_id=work_id, work_start_s=start, work_end_s=end))
    return found


INDEX = CORPUS.index(_rows())


def _same(name: str, start_s: float, end_s: float) -> dict[str, Hit]:
    query = Query(name, start_s, end_s, same_passage=True)
    return {hit.recording_id: hit for hit in search(INDEX, query).hits}


def _true(name: str, start_s: float, end_s: float, of: str = "r0") -> tuple[float, ...]:
    work_s = np.interp([start_s, end_s], KNOTS, _alignment(of).work_times)
    return tuple(np.interp(work_s, _alignment(name).work_times, KNOTS).tolist())


def test_a_window_is_aligned_only_if_one_region_holds_it() -> None:
    found = _alignment("r2").windows_to_work(_windows())
    # 12 to 13 s is in the windows from 7.5, 10 and 12.5 s only.
    assert np.flatnonzero(np.isnan(found).any(axis=1)).tolist() == [3, 4, 5]
    np.testing.assert_array_equal(np.isnan(found[:, 0]), np.isnan(found[:, 1]))
    np.testing.assert_allclose(found[6], MAPS["r2"][[6, 8]] + 4.0)
    borders = replace(_alignment("r0"), regions=np.array([[0.0, 5.0], [5.0, END_S]]))
    assert np.flatnonzero(np.isnan(borders.windows_to_work(_windows())[:, 0])).tolist() == [1]
    assert np.isnan(_alignment("r4").windows_to_work(_windows())).all()
    # Less than half of a window may be before and after, where time goes on alike.
    played = replace(_alignment("r1"), regions=np.array([[2.6, 25.5]]))
    found, whole = (a.windows_to_work(_windows()) for a in (played, _alignment("r1")))
    assert np.flatnonzero(np.isnan(found[:, 0])).tolist() == [0]
    np.testing.assert_allclose(found[2:-1], whole[2:-1])
    begins, ends = np.interp([2.6, 25.5], KNOTS, MAPS["r1"])
    np.testing.assert_allclose(found[[1, -1]].ravel()[[0, -1]], [begins - 0.1, ends + 2.0])


@pytest.mark.parametrize(
    ("start", "end"), [(3.7, 8.2), (2.5, 7.5), (0.0, 5.0), (6.01, 6.02), (16, 21)]
)
def test_the_same_passage_is_found_at_its_own_times(start: float, end: float) -> None:
    found = _same("r0", start, end)
    others = {"r1": [(0.0, END_S)], **ALIGNED}
    times = {name: _true(name, start, end) for name in others}
    held = {n for n, (a, b) in times.items() if any(a >= f and b <= t for f, t in others[n])}
    assert {"r1"} < {*found} == held
    for name, hit in found.items():
        assert (hit.start_s, hit.end_s) == pytest.approx(_true(name, start, end), abs=1e-6)
        assert hit.same_passage
    back = _same("r1", found["r1"].start_s, found["r1"].end_s)
    assert (back["r0"].start_s, back["r0"].end_s) == pytest.approx((start, end), abs=1e-6)


def test_what_comes_after_a_cut_is_found_and_what_holds_it_is_not() -> None:
    late = _same("r2", 15.5, 19.0)
    for name in ("r0", "r3"):
        times = late[name].start_s, late[name].end_s
        assert times == pytest.approx(_true(name, 15.5, 19.0, of="r2"), abs=1e-6)
    message = r"11 to 16 s of recording r2 is not aligned .* aligned: 0 to 10, 15 to 27\.5 s"
    with pytest.raises(SearchError, match=message):
        _same("r2", 11.0, 16.0)
    with pytest.raises(SearchError, match=r"of recording r4 is not aligned .*: nothing s"):
        _same("r4", 5.0, 10.0)


def test_stretches_end_where_time_goes_on_in_one_clock_only() -> None:
    # An insertion from 5 to 10 s, and a cut at 15 s; windows do not overlap.
    spans = [(0, 0), (10, 5), (15, 14), (20, 19)]
    rows = Rows.of(Row("a", "w", "", "", "", "", t, t + 5.0, u, u + 5.0) for t, u in spans)
    found = [(times.tolist(), work.tolist()) for times, work in stretches(rows, "a")]
    assert found == [([0, 5], [0, 5]), ([10, 15], [5, 10]), ([15, 20, 20, 25], [14, 19, 19, 24])]


@pytest.mark.parametrize("like", [{}, {"tempo": 1.0}, {"general": 1.0, "dynamics": 2.0}])
def test_scores_are_those_of_the_passages_the_best_first(like: dict[str, float]) -> None:
    query = Query("r0", 12.6, 21.0, like=like, same_passage=True)
    answer = search(INDEX, query)
    assert len(answer.hits) >= 2
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)
    for hit in answer.hits:
        # The passage as a query of its own, at a distance from this one.
        other = Query(hit.recording_id, hit.start_s, hit.end_s, like=like, same_passage=True)
        back = {h.recording_id: h for h in search(INDEX, other).hits}["r0"]
        assert back.score == pytest.approx(hit.score, abs=1e-5)
        assert sum(hit.contributions.values()) == pytest.approx(hit.score)
        assert search(INDEX, Query(clip=hit.clip, k=1)).hits[0].recording_id == hit.recording_id
    one = search(INDEX, replace(query, k=1))
    assert one.hits == answer.hits[:1]
    assert "raise k to see more" in one.notes
    assert answer.notes == ("not aligned there: r2, r4",)


def test_the_same_passage_is_filtered_and_steered() -> None:
    query = Query("r0", 3.7, 8.2, same_passage=True, where={"performer": ("player1",)})
    assert {hit.recording_id for hit in search(INDEX, query).hits} == {"r1"}
    answer = search(INDEX, replace(query, where={}, more={"legato": 9.0}))
    assert not answer.hits
    assert "no row satisfies: more legato by 9 steps" in answer.notes[0]
    assert "of 2 rows" in answer.notes[0]
    nobody = search(INDEX, replace(query, where={"performer": ("x",)}))
    assert "no row of the index has performer=x and the same passage" in nobody.notes[0]
    relative = search(INDEX, replace(query, where={}, relative="work", like={"tempo": 1.0}))
    assert {hit.recording_id for hit in relative.hits} == {"r1", "r2"}


def test_what_has_no_same_passage_is_refused() -> None:
    bare = CORPUS.index(clip_rows(RECORDINGS, WINDOWS, works=1))
    with pytest.raises(SearchError, match=r"no work times.*snakemake all_alignments.*build"):
        search(bare, Query("r0", 3.7, 8.2, same_passage=True))
    with pytest.raises(SearchError, match=r"no other recording of the work of r5 \(other\)"):
        _same("r5", 5.0, 10.0)
    two = [row for row in INDEX.rows if row.recording_id in ("r0", "r4")]
    with pytest.raises(SearchError, match=r"no other .* has all of the passage; .* there: r4"):
        search(Corpus(2 * WINDOWS).index(two), Query("r0", 3.7, 8.2, same_passage=True))
    with pytest.raises(SearchError, match="give a recording and a start, or a clip"):
        search_features(INDEX, CORPUS.features[0], Query(same_passage=True))
    recordings = CORPUS.index(
        [Row(f"r{i}", "w", "", "", "", "", 0.0, 9.0) for i in range(60)], "recordings"
    )
    with pytest.raises(SearchError, match="passages need an index of clips"):
        search(recordings, Query("r0", 3.0, same_passage=True))
    with pytest.raises(SearchError, match="an index of recordings; exclude 'recording' or 'work'"):
        search(recordings, Query("r0", exclude="passage"))


def _expected_same(start: float, end: float) -> set[tuple[str, float]]:
    """Return the windows that share more than half of the passage, or of themselves, with r0."""
    found = set()
    for row in INDEX.rows:
        shared = min(end, row.end_s) - max(start, row.start_s)
        if row.recording_id != "r0":
            if row.work_start_s is None or row.work_end_s is None or row.work_id != "w0":
                continue
            shared = min(end, row.work_end_s) - max(start, row.work_start_s)
            shared -= 0.5 * min(end - start, row.work_end_s - row.work_start_s)
        if shared > 1e-3:
            found.add((row.recording_id, row.start_s))
    return found


@pytest.mark.parametrize(("start", "end"), [(5.0, 10.0), (3.7, 8.2), (2.5, 20.0), (11.0, 13.0)])
def test_hits_say_that_they_are_the_same_passage_and_are_left_out(start: float, end: float) -> None:
    same = _expected_same(start, end)
    assert {"r0", "r1"} <= {name for name, _ in same} <= {"r0", "r1", "r2", "r3"}
    query = Query("r0", start, end, k=999)
    hits = search(INDEX, query).hits
    assert {(hit.recording_id, hit.start_s) for hit in hits if hit.same_passage} == same
    kept = search(INDEX, replace(query, exclude="passage"))
    assert kept.hits == tuple(hit for hit in hits if not hit.same_passage)
    assert not kept.notes
    few = search(INDEX, replace(query, exclude="passage", k=3)).hits
    assert few == kept.hits[:3]


def test_where_the_passage_is_not_aligned_only_its_own_windows_are_left_out() -> None:
    answer = search(INDEX, Query("r4", 5.0, 10.0, k=999, exclude="passage"))
    gone = {(r.recording_id, r.start_s) for r in INDEX.rows}
    gone -= {(hit.recording_id, hit.start_s) for hit in answer.hits}
    assert gone == {("r4", 2.5), ("r4", 5.0), ("r4", 7.5)}
    assert "recording r4 is not aligned" in answer.notes[0]
    assert "only the recording's own passage" in answer.notes[0]
