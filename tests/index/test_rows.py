import tracemalloc
from collections.abc import Sequence
from dataclasses import astuple, replace
from math import inf, nan

import numpy as np
import pytest

from mess_core.errors import ArtifactError
from mess_core.index.index import FIELDS, ROW_TYPE, Row, Rows
from mess_core.recordings import Recording
from tests.planted import clip_rows

pytestmark = pytest.mark.unit


def _columns(recordings: int) -> dict[str, Sequence[str]]:
    return {name: [f"{name}{i}" for i in range(recordings)] for name in FIELDS}


def _table(*entries: tuple[int, float, float], work: tuple[float, float] = (nan, nan)) -> Rows:
    """Return rows of the recordings 0 and 1, the last one with times in its work."""
    table = np.array([(*entry, nan, nan) for entry in entries], ROW_TYPE)
    for name, time in zip(("work_start_s", "work_end_s"), work, strict=True):
        table[name][-1:] = time
    return Rows(_columns(2), table)


def test_rows_are_what_they_were_made_of() -> None:
    # Mixed, so that the rows of a recording are not beside each other.
    rows = clip_rows(4, 3)[::2] + clip_rows(4, 3)[1::2]
    rows[5] = replace(rows[5], work_start_s=1.25, work_end_s=7.5)
    table = Rows.of(rows)
    assert list(table) == rows
    assert len(table) == 12
    assert table[-1] == rows[-1]
    assert list(table.recordings) == list(FIELDS)
    assert table.recordings["recording_id"] == list(dict.fromkeys(r.recording_id for r in rows))
    assert {type(value) for value in astuple(table[1])} == {str, float, type(None)}
    for position in (12, -13):
        with pytest.raises(IndexError):
            table[position]


@pytest.mark.parametrize("field", FIELDS)
def test_having_finds_the_rows_of_recordings_with_one_of_the_values(field: str) -> None:
    rows = clip_rows(5, 2)
    table = Rows.of(rows)
    values = {getattr(rows[0], field), getattr(rows[5], field)}
    expected = [getattr(row, field) in values for row in rows]
    assert table.having(field, values).tolist() == expected
    assert not table.having(field, ["nothing has this"]).any()
    assert not table.having(field, []).any()


@pytest.mark.parametrize("field", [name for name in FIELDS if name != "recording_id"])
def test_rows_of_one_recording_that_disagree_are_refused(field: str) -> None:
    first, second = clip_rows(1, 2)
    with pytest.raises(ArtifactError, match=r"recording r0 is described as .* and as .*other"):
        Rows.of([first, replace(second, **{field: "other"})])  # type: ignore[arg-type]


def test_a_row_of_the_recording_table_is_all_of_the_recording() -> None:
    known = {"recording_id": "a", "work_id": "w", "performer": "p", "composer": "c"}
    others = {name: "" for name in Recording.__dataclass_fields__ if name not in known}
    recording = Recording(**{**others, **known, "title": "t", "split": "s", "duration_s": 9.5})  # type: ignore[arg-type]
    assert Row.of(recording) == Row("a", "w", "p", "c", "t", "s", 0.0, 9.5)
    assert Row.of(recording, start_s=2.0, end_s=3.0) == Row("a", "w", "p", "c", "t", "s", 2.0, 3.0)
    aligned = Row.of(recording, start_s=2.0, end_s=3.0, work_s=(4.0, 5.5))
    assert (aligned.work_start_s, aligned.work_end_s) == (4.0, 5.5)


# --- rows that no index can have


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        ((3.0, 2.0), "3.0 to 2.0"),
        ((-1.0, 2.0), "-1.0 to 2.0"),
        ((0.0, np.nan), "0.0 to nan"),
        ((np.nan, 1.0), "nan to 1.0"),
        ((0.0, np.inf), "0.0 to inf"),
    ],
)
def test_times_that_are_no_passage_are_refused_by_name(
    times: tuple[float, float], shown: str
) -> None:
    with pytest.raises(ArtifactError, match=f"recording recording_id1: {shown} s is no passage"):
        _table((0, 0.0, 1.0), (1, *times)).check("clips")


@pytest.mark.parametrize("work", [(3.0, 2.0), (nan, 2.0), (0.0, nan), (0.0, inf), (-inf, 1.0)])
def test_times_that_are_no_passage_of_a_work_are_refused_by_name(work: tuple[float, float]) -> None:
    times = " to ".join(str(None if time != time else time) for time in work)
    match = f"recording recording_id1: .* or {times} s of its work is none"
    with pytest.raises(ArtifactError, match=match):
        _table((0, 0.0, 1.0), (1, 0.0, 1.0), work=work).check("clips")


@pytest.mark.parametrize("number", [-1, 2, 2**40, -(2**63)])
def test_rows_of_recordings_that_do_not_exist_are_refused(number: int) -> None:
    with pytest.raises(ArtifactError, match=rf"{number}.* but there are 2, counted from 0"):
        _table((0, 0.0, 1.0), (1, 0.0, 1.0), (number, 0.0, 1.0)).check("clips")


def test_other_impossible_rows_are_refused() -> None:
    _table((1, 0.0, 5.0), (0, 2.5, 2.5), (1, 2.5, 7.5), work=(-1.0, 4.0)).check("clips")
    _table((1, 0.0, 5.0), (0, 0.0, 2.5)).check("recordings")
    with pytest.raises(ArtifactError, match="'songs' is none of recordings, clips"):
        _table((0, 0.0, 1.0), (1, 0.0, 1.0)).check("songs")
    with pytest.raises(ArtifactError, match="at least one row, got none"):
        _table().check("clips")
    with pytest.raises(ArtifactError, match="recording recording_id1 has no row"):
        _table((0, 0.0, 1.0)).check("clips")
    with pytest.raises(ArtifactError, match="recording_id0 occurs twice in an index of recordings"):
        _table((0, 0.0, 1.0), (1, 0.0, 1.0), (0, 0.0, 1.0)).check("recordings")


@pytest.mark.parametrize("ids", [["a", "a"], ["a", ""]])
def test_recordings_need_ids_of_their_own(ids: list[str]) -> None:
    rows = Rows({**_columns(2), "recording_id": ids}, _table((0, 0, 1), (1, 0, 1)).table)
    with pytest.raises(ArtifactError, match="empty or repeated"):
        rows.check("clips")


# --- many rows


def _million(recordings: int = 1000, windows: int = 1000) -> Rows:
    table = np.zeros(recordings * windows, ROW_TYPE)
    table["recording"] = np.tile(np.arange(recordings), windows)
    table["start_s"] = np.repeat(np.arange(windows) * 2.5, recordings)
    table["end_s"] = table["start_s"] + 5.0
    table["work_start_s"] = table["work_end_s"] = nan
    return Rows(_columns(recordings), table)


def test_a_million_rows_are_checked_and_asked_in_little_memory() -> None:
    rows = _million()
    tracemalloc.start()
    try:
        rows.check("clips")
        found = rows.positions("recording_id7")
        chosen = rows.having("composer", ["composer7", "composer9"])
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.tolist() == list(range(7, 1_000_000, 1000))
    assert np.flatnonzero(chosen)[:4].tolist() == [7, 9, 1007, 1009]
    # The order of rows by recording stays (8 MB); the table itself has 40 MB.
    assert held < 12e6
    assert most < 60e6
    assert rows[7007] == Row(
        "recording_id7", "work_id7", "performer7", "composer7", "title7", "split7", 17.5, 22.5
    )


@pytest.mark.parametrize("order", [[0, 0, 1, 1, 2], [2, 0, 1, 0, 1]])
def test_rows_are_found_in_whatever_order_they_lie(order: list[int]) -> None:
    names = ["a", "b", "c"]
    columns = {name: [""] * 3 for name in FIELDS} | {
        "recording_id": names,
        "composer": ["x", "y", "x"],
    }
    table = np.zeros(5, ROW_TYPE)
    table["recording"] = order
    rows = Rows(columns, table)
    for number, name in enumerate(names):
        np.testing.assert_array_equal(
            rows.positions(name), np.flatnonzero(table["recording"] == number)
        )
    with pytest.raises(KeyError):
        rows.positions("d")
    expected = np.isin(order, [0, 2])
    np.testing.assert_array_equal(rows.having("composer", ["x", "z"]), expected)
    assert not rows.having("composer", ["z"]).any()
