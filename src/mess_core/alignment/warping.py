"""Dynamic time warping of two sequences of feature vectors, row by row in numpy.

`warp` finds the cheapest monotone path within a band; `chain` the stretches in which two sequences
agree, whatever lies between them.
"""

__all__ = ["band_around", "chain", "warp"]

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

#: What a step of one sequence alone costs beside one of both.
ASIDE = 1.25
#: Rows of the cost matrix that are computed at a time.
_ROWS = 64
_FAR = 1e30


def warp(a: Floats32, b: Floats32, first: Ints, stop: Ints) -> Ints:
    """Return the cheapest path of two sequences from their starts to their ends.

    The path [shape=(p, 2)] are pairs of rows of ``a`` [shape=(n, d)] and of ``b`` [shape=(m, d)].
    Each row of ``a`` may be paired with the rows of ``b`` from ``first`` to before ``stop``
    [shape=(n,)], both increasing, as `band_around` makes them. The cost of a pair is the squared
    distance of its vectors; it counts 1.25 times where only one of the sequences moves on to it.
    Time and memory grow with the area of the band.
    """
    moves = np.zeros((len(a), int((stop - first).max())), np.int8)
    squares_a, squares_b = np.square(a).sum(1), np.square(b).sum(1)
    before, before_first = np.zeros(0), 0
    for row in range(len(a)):
        if row % _ROWS == 0:
            last = min(row + _ROWS, len(a))
            left, right = int(first[row]), int(stop[last - 1])
            products = a[row:last] @ b[left:right].T
            costs = squares_a[row:last, None] + squares_b[left:right] - 2 * products
            costs = np.maximum(costs, 0).astype(np.float64)
        begin, end = int(first[row]), int(stop[row])
        cost = costs[row % _ROWS, begin - left : end - left]
        # What came before, from one column further left on: beside each cell, diagonal and above.
        above = np.full(end - begin + 1, _FAR)
        inside = slice(max(begin - 1, before_first), min(end, before_first + len(before)))
        above[inside.start - begin + 1 : inside.stop - begin + 1] = before[
            inside.start - before_first : inside.stop - before_first
        ]
        if row == 0:
            above[0] = 0.0
        both, alone = above[:-1] + cost, above[1:] + ASIDE * cost
        # A run of steps along the row adds up costs: its best start is a running minimum.
        along = np.cumsum(ASIDE * cost)
        reached = np.minimum(both, alone) - along
        best = np.minimum.accumulate(reached)
        move = moves[row, : end - begin]
        move[alone < both] = 1
        move[best < reached] = 2
        before, before_first = best + along, begin
    return _back(moves, first, len(a) - 1, int(stop[-1]) - 1)


def _back(moves: npt.NDArray[np.int8], first: Ints, row: int, column: int) -> Ints:
    """Follow the moves from the end to the start: 0 of both, 1 of ``a`` alone, 2 of ``b`` alone."""
    path = [(row, column)]
    while row or column:
        move = moves[row, column - first[row]] if row else 2
        row -= move != 2
        column -= move != 1
        path.append((row, column))
    return np.array(path[::-1], np.int64)


def band_around(rows: Floats, columns: Floats, n: int, m: int, radius: float) -> tuple[Ints, Ints]:
    """Return the band of `warp` within a radius of a path; it leads from corner to corner.

    ``rows`` and ``columns`` are places on the path, in rows of ``a`` [n] and of ``b`` [m].
    """
    centre = np.interp(np.arange(n), rows, columns)
    first = np.clip(np.floor(centre - radius), 0, m - 1).astype(np.int64)
    stop = np.clip(np.ceil(centre + radius) + 1, 1, m).astype(np.int64)
    first[0], stop[-1] = 0, m
    first = np.minimum.accumulate(first[::-1])[::-1]
    stop = np.maximum.accumulate(stop)
    # Each row begins beside one that the row before can reach.
    first[1:] = np.minimum(first[1:], stop[:-1] - 1)
    return first, stop


def chain(similarity: Floats32, least: float, price: float) -> Ints:
    """Return where two sequences agree, in order, as a path with gaps.

    It is the path of the largest sum of ``similarity - least``, which may begin and end anywhere,
    advance up to three times as fast in one sequence as in the other, and leave out any stretch of
    either at a price, so that no cut and no repeat is warped away (after Smith & Waterman 1981).

    ``similarity`` [shape=(n, m)] is of each row of one with each row of the other; above ``least``
    it speaks for the path. The path [shape=(p, 2)] are pairs of rows, both increasing; empty where
    nothing agrees.
    """
    n, m = similarity.shape
    totals = np.zeros((n + 3, m + 3), np.float32)  # three rows and columns before the first
    moves = np.zeros((n, m), np.int8)
    best = np.zeros(m + 3, np.float32)  # of all rows before, per column
    for row in range(n):
        gain = (similarity[row] - least).astype(np.float32)
        options = [np.zeros(m, np.float32)]
        options += [
            totals[row + 3 - down, 3 - right : m + 3 - right]
            + np.float32((down + right) / 2 - 1) * gain
            for down, right in _STEPS
        ]
        # From the best end of any stretch before, in both sequences.
        np.maximum(best, totals[row + 2], out=best)
        options.append(np.maximum.accumulate(best)[2 : m + 2] - np.float32(price))
        values = np.stack(options)
        moves[row] = values.argmax(0)
        totals[row + 3, 3:] = values.max(0) + gain
    totals = totals[3:, 3:]
    return _stretches(totals, moves)


#: Steps down and to the right.
_STEPS = ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1))


def _stretches(totals: Floats32, moves: npt.NDArray[np.int8]) -> Ints:
    """Follow the moves of a chain back from its best end."""
    path: list[tuple[int, int]] = []
    row, column = map(int, np.unravel_index(int(totals.argmax()), totals.shape))
    while totals[row, column] > 0:
        path.append((row, column))
        move = int(moves[row, column])
        if move == 0:
            break
        if move <= len(_STEPS):
            down, right = _STEPS[move - 1]
            row, column = row - down, column - right
        else:
            before = totals[:row, :column]
            row, column = map(int, np.unravel_index(int(before.argmax()), before.shape))
        if row < 0 or column < 0:
            break
    return np.array(path[::-1], np.int64).reshape(-1, 2)
