"""The same passage in other recordings of a work, from the rows of an index alone.

Aligned rows know when they start and end in their recording and in its work; times in between are
interpolated. Rows that follow each other without a gap make a *stretch*; where a recording plays
what others do not, rows are not aligned, and a new stretch begins.

A row is *the same passage* as another if they are of one work and share more than half of the
shorter one's work time; of the recording itself, if they share any of its time. Windows that start
half a window apart share just half.
"""

__all__ = ["TIME_TOLERANCE_S", "Place", "Span", "same_rows", "stretches", "to_recording", "to_work"]

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mess_core.index.index import Row, Rows

Doubles = npt.NDArray[np.float64]
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
    span: Span


def stretches(rows: Rows, recording_id: str) -> list[Doubles]:
    """Return a recording's stretches: times and work times [2, n] of their knots, s."""
    table = rows.table[rows.positions(recording_id)]
    table = np.sort(table[~np.isnan(table["work_start_s"])], order="start_s")
    starts, ends = (np.stack([table[name], table[f"work_{name}"]]) for name in ("start_s", "end_s"))
    # Rows that touch belong together only if they do so in the work too.
    gaps = (starts[:, 1:] - ends[:, :-1]).max(axis=0) > TIME_TOLERANCE_S
    borders = np.flatnonzero(gaps) + 1
    parts = np.split(np.stack([starts, ends], axis=2), borders, axis=1)
    return [np.sort(part.reshape(2, -1), axis=1) for part in parts if part.size]


def to_work(rows: Rows, place: Place) -> Span | None:
    """Return when a passage is in its work; None if no stretch holds all of it."""
    return _between(stretches(rows, place.row.recording_id), place.span)


def to_recording(rows: Rows, recording_id: str, work_s: Span) -> Span | None:
    """Return when a recording plays a passage of its work; None if no stretch holds all of it."""
    return _between([knots[::-1] for knots in stretches(rows, recording_id)], work_s)


def _between(stretches: Sequence[Doubles], span: Span) -> Span | None:
    for knots, others in stretches:
        if knots[0] - TIME_TOLERANCE_S <= span[0] and span[1] <= knots[-1] + TIME_TOLERANCE_S:
            start, end = np.interp(span, knots, others).tolist()
            return start, end
    return None


def same_rows(rows: Rows, place: Place) -> Ints:
    """Return the rows that are the same passage as a place."""
    own = rows.positions(place.row.recording_id)
    same: Ints = own[_shared(rows.table[own], "", place.span) > TIME_TOLERANCE_S]
    work_s = to_work(rows, place)
    if work_s is None:
        return same
    others = np.setdiff1d(np.flatnonzero(rows.having("work_id", [place.row.work_id])), own)
    table = rows.table[others]
    shortest = np.minimum(table["work_end_s"] - table["work_start_s"], work_s[1] - work_s[0])
    # NaN, where a row is not aligned, is greater than nothing.
    alike = _shared(table, "work_", work_s) > _SHARED * shortest + TIME_TOLERANCE_S
    return np.append(same, others[alike])


def _shared(table: npt.NDArray[np.void], clock: str, span: Span) -> Any:
    """Return how much of a span rows share, s; less than 0 if they are apart."""
    starts, ends = table[f"{clock}start_s"], table[f"{clock}end_s"]
    return np.minimum(ends, span[1]) - np.maximum(starts, span[0])
