"""Two performances of a work aligned by their notes, with nothing known of the score.

1. The chords of both, as sets of pitches, are aligned as sequences: a common pitch counts for a
   pair of chords, every other note against it. Skipping a few notes costs their number; skipping
   more than that costs a constant (a repeat that one of both takes, a cut, other music).
2. What the path pairs says roughly where each note of the reference is to be expected. Every note
   is matched with the note of its pitch that is nearest to there, where that is mutual; matches
   away from the straight line through those around them are dropped. Twice, the second time from
   where the first found them.
3. A knot is the mean time of the notes of a chord of the reference that have a match, in both.
   Where one of both plays a lot between two knots and nothing of it is matched, the map breaks off.
"""

__all__ = ["align_notes", "shared_music"]

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.alignment.maps import Alignment
from mess_core.errors import AlignmentError
from mess_core.targets.curves import Float
from mess_core.targets.notes import LONGEST_S, Performance

Int = npt.NDArray[np.int64]

#: What a pitch that two chords have in common counts, a note that has no counterpart, and any
#: number of them in a row.
COMMON = 5
ALONE = -2
SKIP = -60

#: How a place of the path is reached: from the pair before, after notes of the reference that are
#: skipped (from here on), after notes of the other, after many of them (from where on).
PAIR, FALL, BEGIN, LEFT, LEAP, PEAK = 1, 2, 4, 8, 16, 32

#: More pairs of chords than this are not kept in memory (one byte each): two hours of piano music.
MOST_PAIRS = 10**9

#: How far from where it is expected a note is looked for, s: first, and once its neighbours are
#: known.
REACHES_S = (0.4, 0.2)

#: The line that a note is held against goes through so many matched notes on either side.
NEIGHBOURS = 12

#: A match further from that line than this many standard deviations, and than this (s), is none.
MOST_DEVIATIONS = 4.0
MOST_OFF_S = 0.08

#: The map breaks off where one of both plays this many notes for this long (s), none of them
#: matched.
BREAK_NOTES = 10
BREAK_S = 1.5

#: Matched notes are music in common where they are this share of the notes of both, over so many
#: knots before or after.
LEAST_SHARE = 0.4
AROUND = 8

#: What is aligned between two breaks has at least so many knots.
LEAST_KNOTS = 8

#: Share of matched notes of other music, and of the same.
OTHER, SAME = 0.35, 0.75


def align_notes(reference: Performance, other: Performance) -> Alignment:
    """Return the map from a performance to the time of another of the same work.

    Parameters
    ----------
    reference : Performance
        Its seconds are the work time.
    other : Performance
        The performance that is mapped. It may lack parts, repeat others, or be of other music: what
        is not common to both is outside of the regions; of a passage that ``other`` plays more
        often than ``reference``, one is inside.

    Returns
    -------
    Alignment
        Without loudness and beats. Without knots and regions where nothing is common.

    Raises
    ------
    AlignmentError
        If the performances are too long to be compared.
    """
    a, b = _common_notes(reference, other)
    knots = _knots(reference, other, *_without_outliers(reference, other, a, b))
    for reach in REACHES_S:
        if not len(knots.u):
            break
        expected = np.interp(reference.onsets, knots.u, knots.t)
        a, b = _nearest(reference, other, expected, reach)
        knots = _knots(reference, other, *_without_outliers(reference, other, a, b))
    return _mapped(reference, other, knots)


def shared_music(alignment: Alignment, reference: Performance, other: Performance) -> float:
    """Return how much of the shorter of two performances is the same music as the other, 0 to 1.

    It is the time from first to last onset that regions cover, each counted as much as is sure of
    it. Performances of a work have 0.5 or more, of different works less.
    """
    spans = np.interp(alignment.regions, alignment.times, alignment.work_times)
    lengths = np.minimum(np.ptp(alignment.regions, axis=1), np.ptp(spans, axis=1))
    whole = min(np.ptp(reference.onsets), np.ptp(other.onsets))
    return float(np.minimum(1, (lengths * alignment.confidence).sum() / max(whole, BREAK_S)))


def _common_notes(reference: Performance, other: Performance) -> tuple[Int, Int]:
    """Return which notes of both are of one pitch and of chords that are paired."""
    pairs = _paired_chords(_pitch_sets(reference), _pitch_sets(other))
    notes, keys = [], []
    for performance, paired in zip((reference, other), pairs.T, strict=True):
        place = np.full(performance.chords.max(initial=0) + 1, -1)
        place[paired] = np.arange(len(paired))
        place = place[performance.chords]
        notes.append(np.flatnonzero(place >= 0))
        keys.append((place * 128 + performance.pitches.astype(np.int64))[place >= 0])
    _, a, b = np.intersect1d(*keys, return_indices=True)
    return notes[0][a], notes[1][b]


def _pitch_sets(performance: Performance) -> npt.NDArray[np.int32]:
    """Return for each chord which pitches it has, 1 or 0 [shape=(chords, 128)]."""
    chords = performance.chords
    sets = np.zeros((chords.max(initial=-1) + 1, 128), np.int32)
    sets[chords, performance.pitches.astype(np.int64)] = 1
    return sets


def _paired_chords(a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> Int:
    """Return which chords the best path through both sequences pairs [shape=(pairs, 2)]."""
    if len(a) * len(b) > MOST_PAIRS:
        raise AlignmentError(
            f"performances of {len(a)} and {len(b)} chords make more than {MOST_PAIRS:.0e} pairs "
            "to compare; give the movements of a work a work_id each"
        )
    alone_b = ALONE * np.append(0, np.cumsum(b.sum(axis=1)))
    has, sizes = np.ascontiguousarray(b.T), b.sum(axis=1)
    steps = np.zeros((len(a) + 1, len(b) + 1), np.uint8)
    best = np.maximum(alone_b, SKIP)
    skipped = np.full_like(best, 2 * SKIP - 10**8)
    for i, chord in enumerate(a, start=1):
        common, size = has[chord > 0].sum(axis=0), chord.sum()
        paired = np.full_like(best, -(10**9))
        paired[1:] = best[:-1] + (COMMON - 2 * ALONE) * common + ALONE * (size + sizes)
        opened = best + SKIP
        begins = opened >= skipped
        skipped = np.maximum(opened, skipped)
        above = best + ALONE * size
        reached = np.maximum(np.maximum(paired, above), skipped)
        highest = np.maximum.accumulate(reached)
        left = np.maximum.accumulate(reached - alone_b) + alone_b
        best = np.maximum(left, highest + SKIP)
        peak = np.diff(highest, prepend=highest[0] - 1) > 0
        flags = (paired == reached, above < reached, begins, left > reached, best > left, peak)
        steps[i] = np.packbits(flags, axis=0, bitorder="little")[0]
    return _walked_back(steps)


def _walked_back(steps: npt.NDArray[np.uint8]) -> Int:
    """Return the pairs of the path that ends at the last chords of both."""
    pairs = []
    i, j = steps.shape[0] - 1, steps.shape[1] - 1
    while i and j:
        if steps[i, j] & LEAP:
            while not steps[i, j] & PEAK:
                j -= 1
        else:
            while steps[i, j] & LEFT:
                j -= 1
        if steps[i, j] & PAIR:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif steps[i, j] & FALL:
            while not steps[i, j] & BEGIN:
                i -= 1
            i -= 1
        else:
            i -= 1
    return np.array(pairs[::-1], np.int64).reshape(-1, 2)


def _nearest(
    reference: Performance, other: Performance, expected: Float, reach: float
) -> tuple[Int, Int]:
    """Return the notes of both that are mutually nearest in time among those of their pitch."""
    # A day apart, pitches do not meet.
    a = expected + LONGEST_S * reference.pitches
    b = other.onsets + LONGEST_S * other.pitches
    to_b, to_a = _closest(a, b), _closest(b, a)
    found = np.flatnonzero((to_a[to_b] == np.arange(len(a))) & (np.abs(b[to_b] - a) <= reach))
    return found, to_b[found]


def _closest(a: Float, b: Float) -> Int:
    """Return for each of some values the index of the closest among others."""
    order = np.argsort(b, kind="stable")
    middles = (b[order][1:] + b[order][:-1]) / 2
    return np.asarray(order[np.searchsorted(middles, a)])


def _without_outliers(
    reference: Performance, other: Performance, a: Int, b: Int
) -> tuple[Int, Int]:
    """Return the matches that lie on the line through those before them, or those after."""
    u, t = reference.onsets[a], other.onsets[b]
    kept = np.zeros(len(a), bool)
    for side in (-1, 1):
        around = np.arange(len(a))[:, None] + side * np.arange(NEIGHBOURS + 1)
        inside = (around >= 0) & (around < len(a))
        around = np.clip(around, 0, len(a) - 1)
        off, spread = _off_the_line(u[around] - u[:, None], t[around] - t[:, None], inside)
        kept |= np.abs(off) <= np.maximum(MOST_OFF_S, MOST_DEVIATIONS * spread)
    return a[kept], b[kept]


def _off_the_line(u: Float, t: Float, inside: npt.NDArray[np.bool_]) -> tuple[Float, Float]:
    """Return how far 0, 0 lies from a robust line through each row of points, and their spread."""
    weight = inside.astype(float)
    for _ in range(4):
        total = weight.sum(axis=1, keepdims=True)
        mean_u, mean_t = ((weight * x).sum(axis=1, keepdims=True) / total for x in (u, t))
        slope = (weight * (u - mean_u) * (t - mean_t)).sum(axis=1, keepdims=True)
        slope /= (weight * (u - mean_u) ** 2).sum(axis=1, keepdims=True) + 1e-6
        missed = t - mean_t - slope * (u - mean_u)
        spread = 1.48 * np.nanmedian(
            np.where(inside, np.abs(missed), np.nan), axis=1, keepdims=True
        )
        spread = np.maximum(spread, 0.005)
        weight = inside * np.maximum(1 - (missed / (4 * spread)) ** 2, 1e-6) ** 2
    return missed[:, 0], spread[:, 0]


@dataclass(frozen=True)
class _Knots:
    """Chords of the reference and what is matched of them, in both."""

    u: Float
    t: Float
    sizes: Int
    squares: Float

    def __getitem__(self, which: Any) -> "_Knots":
        return _Knots(self.u[which], self.t[which], self.sizes[which], self.squares[which])


def _knots(reference: Performance, other: Performance, a: Int, b: Int) -> _Knots:
    """Return the mean times of the matched notes of each chord of the reference, increasing."""
    _, number, sizes = np.unique(reference.chords[a], return_inverse=True, return_counts=True)
    u, t = (_medians(p.onsets[notes], number) for p, notes in ((reference, a), (other, b)))
    apart = other.onsets[b] - reference.onsets[a] - (t - u)[number]
    return _Knots(u, t, sizes, np.bincount(number, apart**2))[_rising(t)]


def _medians(values: Float, group: Int) -> Float:
    """Return the median of the values of each group."""
    sizes = np.bincount(group)
    ordered = values[np.lexsort((values, group))]
    first = np.cumsum(sizes) - sizes
    return np.asarray((ordered[first + (sizes - 1) // 2] + ordered[first + sizes // 2]) / 2)


def _rising(values: Float) -> Int:
    """Return which values make the longest strictly increasing sequence."""
    lowest: list[float] = []  # the lowest end of a sequence of each length
    length = np.empty(len(values), np.int64)
    for i, value in enumerate(values.tolist()):
        length[i] = place = bisect_left(lowest, value)
        lowest[place : place + 1] = [value]
    found = []
    for i in range(len(values) - 1, -1, -1):
        if length[i] == len(lowest) - 1 - len(found) and (
            not found or values[i] < values[found[-1]]
        ):
            found.append(i)
    return np.array(found[::-1], np.int64)


def _mapped(reference: Performance, other: Performance, knots: _Knots) -> Alignment:
    """Return the map through knots, without those that little around them supports."""
    knots = knots[_supported(reference, other, knots)]
    notes = [np.searchsorted(p.onsets, x) for p, x in ((reference, knots.u), (other, knots.t))]
    alone = np.max([np.diff(n) for n in notes], axis=0) - knots.sizes[1:]
    lasting = np.maximum(np.diff(knots.u), np.diff(knots.t))
    broken = np.flatnonzero((alone >= BREAK_NOTES) & (lasting >= BREAK_S)) + 1
    runs = np.split(np.arange(len(knots.u)), broken)
    runs = [run for run in runs if len(run) >= LEAST_KNOTS]
    if not runs:
        nothing = np.empty((0, 2))
        return Alignment(
            other.onsets[:1], reference.onsets[:1], np.array([np.inf]), nothing, np.empty(0)
        )
    regions = np.array([knots.t[run[[0, -1]]] for run in runs])
    shares = np.array(
        [2 * knots.sizes[run[1:]].sum() / sum(np.ptp(n[run]) for n in notes) for run in runs]
    )
    confidence = np.clip((shares - OTHER) / (SAME - OTHER), 0, 1)
    kept = np.concatenate(runs)
    errors = _standard_errors(knots)
    return Alignment(knots.t[kept], knots.u[kept], errors[kept], regions, confidence)


def _supported(reference: Performance, other: Performance, knots: _Knots) -> npt.NDArray[np.bool_]:
    """Return at which knots enough notes are matched on either side."""
    matched = np.cumsum(knots.sizes)
    notes = sum(
        np.searchsorted(p.onsets, x, side="right")
        for p, x in ((reference, knots.u), (other, knots.t))
    )
    number = np.arange(len(matched))
    best = np.zeros(len(matched))
    for side in (-AROUND, AROUND):
        far = np.clip(number + side, 0, max(len(matched) - 1, 0))
        pairs, of = np.abs(matched[far] - matched), np.abs(notes[far] - notes)
        best = np.maximum(best, 2 * pairs / np.maximum(of, AROUND))
    return best >= LEAST_SHARE


def _standard_errors(knots: _Knots) -> Float:
    """Return the standard errors of the knots, s."""
    width = np.ones(min(2 * AROUND + 1, len(knots.u)))
    squares, free = (np.convolve(x, width, mode="same") for x in (knots.squares, knots.sizes - 1.0))
    mean = knots.squares.sum() / max((knots.sizes - 1).sum(), 1)
    variance = (squares + 4 * mean) / (free + 4)
    return np.sqrt(variance / knots.sizes)
