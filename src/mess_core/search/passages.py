"""The same passage in other recordings of a work, from the rows of an index alone.

A row knows when it starts and ends in its recording and in its work. Times in between are
interpolated: straight lines through the starts and ends of a recording's aligned rows. Rows that
follow each other without a gap make a *stretch*; where a recording plays what others do not, rows
are not aligned, and a new stretch begins.

A row is *the same passage* as another if they are of one work and share more than half of the
shorter one's work time; of the recording itself, if they share any of its time. Windows that start
half a window apart share just half.
"""

__all__ = ["TIME_TOLERANCE_S", "Place", "Span", "is_same", "stretches", "to_recording", "to_work"]

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mess_core.index.index import Row, Rows

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

#: Times closer than this are the same: tables give times to the millisecond.
TIME_TOLERANCE_S = 1e-3

#: Share of the shorter passage that two of a work must have in common to be the same.
_SHARED = 0.5

#: From when to when, s.
Span = tuple[float, float]


class Place(NamedTuple):
    """A passage of a recording in the index."""

    #: The rows that stand for it, and the first of them.
    positions: Ints
    row: Row
    start_s: float
    end_s: float


def stretches(rows: Rows, recording_id: str) -> list[tuple[Doubles, Doubles]]:
    """Return the knots of a recording, s of its own and s of its work, by stretch."""
    table = rows.table[rows.positions(recording_id)]
    table = np.sort(table[~np.isnan(table["work_start_s"])], order="start_s")
    gaps = table["start_s"][1:] - table["end_s"][:-1]
    jumps = np.abs(table["work_start_s"][1:] - table["work_end_s"][:-1]) > TIME_TOLERANCE_S
    # Rows that touch belong together only if they do so in the work too.
    ends = (gaps > TIME_TOLERANCE_S) | ((gaps > -TIME_TOLERANCE_S) & jumps)
    found = []
    for part in np.split(table, np.flatnonzero(ends) + 1) if len(table) else []:
        times, first = np.unique([part["start_s"], part["end_s"]], return_index=True)
        work_times = np.ravel([part["work_start_s"], part["work_end_s"]])[first]
        found.append((times, work_times))
    return found


def to_work(rows: Rows, place: Place) -> Span | None:
    """Return when a passage is in its work; None if no stretch holds all of it."""
    knots = stretches(rows, place.row.recording_id)
    return _between(knots, (place.start_s, place.end_s))


def to_recording(rows: Rows, recording_id: str, work_s: Span) -> Span | None:
    """Return when a recording plays a passage of its work; None if no stretch holds all of it."""
    knots = [(work_times, times) for times, work_times in stretches(rows, recording_id)]
    return _between(knots, work_s)


def _between(stretches: Sequence[tuple[Doubles, Doubles]], span: Span) -> Span | None:
    for knots, others in stretches:
        if knots[0] - TIME_TOLERANCE_S <= span[0] and span[1] <= knots[-1] + TIME_TOLERANCE_S:
            start, end = np.interp(span, knots, others).tolist()
            return start, end
    return None


def is_same(rows: Rows, place: Place, work_s: Span | None, positions: Ints) -> Bools:
    """Return which rows, by position [n], are the same passage as a place at ``work_s``."""
    table = rows.table[positions]
    own = table["recording"] == rows.numbers[place.row.recording_id]
    shared = np.minimum(table["end_s"], place.end_s) - np.maximum(table["start_s"], place.start_s)
    same = own & (shared > TIME_TOLERANCE_S)
    if work_s is None or not place.row.work_id:
        return np.asarray(same)
    start, end = table["work_start_s"], table["work_end_s"]
    shared = np.minimum(end, work_s[1]) - np.maximum(start, work_s[0])
    shortest = np.minimum(end - start, work_s[1] - work_s[0])
    works = rows.recordings["work_id"]
    of_work = [works[number] == place.row.work_id for number in table["recording"].tolist()]
    # NaN, where a row is not aligned, is greater than nothing.
    return np.asarray(
        same
        | (~own & np.array(of_work, np.bool_) & (shared > _SHARED * shortest + TIME_TOLERANCE_S))
    )
