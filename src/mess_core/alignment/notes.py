"""Two performances of a work aligned by their notes, with nothing known of the score.

1. The chords of both, as sets of pitches, are aligned as sequences: a common pitch counts for a
   pair of chords, every other note against it. Skipping a few notes costs their number, skipping
   more a constant (a repeat that one of both takes, a cut, other music).
2. The pairs say roughly where to expect each note of the reference. It is matched with the note of
   its pitch nearest to there, where that is mutual. Twice: the matches say better where to look.
3. A knot is the median time of a chord's matched notes, in both. Matches much later or earlier than
   those around them are dropped, and knots that go back in time. Where one of both plays a lot of
   which nothing is matched, the map breaks off.
"""

__all__ = ["align_notes"]

from bisect import bisect_left

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mess_core.alignment.maps import Alignment
from mess_core.errors import AlignmentError
from mess_core.targets.curves import Float
from mess_core.targets.notes import LONGEST_S, Performance

Int = npt.NDArray[np.int64]

#: What a common pitch of two chords counts, a note without a counterpart, any number of these.
COMMON, ALONE, SKIP = 5, -2, -60

#: How a place of the path is reached: by a pair; by skipping a chord of the reference, one of many,
#: the first of them; by skipping a chord of the other, many of them, those after this one.
PAIR, FALL, BEGIN, LEFT, LEAP, PEAK = 1 << np.arange(6)

#: More pairs of chords (a byte each) are not compared; an hour of piano music, twice, has as many.
MOST_PAIRS = 5 * 10**8

#: How far from where it is expected a note is looked for, first and in the end, s.
REACHES_S = (0.4, 0.2)

#: A match is dropped that is this much later or earlier (s) than the median of so many around it.
MOST_OFF_S, NEIGHBOURS = 0.3, 21

#: A knot's scatter is that of up to so many before and after it, and of all as if they were so many
#: notes; that of all is so much (s, median of ASAP's tuning half) as if so many notes said so.
AROUND, PRIOR_NOTES, SCATTER_S = 8, 4, 0.019

#: The least share of the notes of both that is matched in common music, over ``AROUND`` knots.
LEAST_SHARE = 0.4

#: The map breaks off where so many notes of one of both, for so long (s), are not matched.
BREAK_NOTES, BREAK_S = 10, 1.5

#: The matched share of the notes of both of which nothing is sure, and from which on all is.
OTHER, SAME = 0.35, 0.75


def align_notes(reference: Performance, other: Performance) -> Alignment:
    """Return the map from a performance to the time of another one of its work.

    It has no loudness and no beats. What only one of both plays is outside of the regions; each
    place of what one plays more often is in them once. Where no music is common it has no region,
    and the first onsets of both are its only knot. Raises `AlignmentError` if the performances are
    too long to be compared.
    """
    knots = _knots(reference, other, *_common_notes(reference, other))
    for reach in REACHES_S:
        if knots.size:
            expected = _expected(reference, knots)
            knots = _knots(reference, other, *_nearest(reference, other, expected, reach))
    return _mapped(reference, other, knots)


def _common_notes(reference: Performance, other: Performance) -> tuple[Int, Int]:
    """Return the notes of one pitch in the chords of both that the best path pairs."""
    pairs = _paired_chords(_pitch_sets(reference), _pitch_sets(other))
    notes, keys = [], []
    for performance, paired in zip((reference, other), pairs.T, strict=True):
        place = np.full(performance.chords[-1] + 1, -1)
        place[paired] = np.arange(len(paired))
        place = place[performance.chords]
        notes.append(np.flatnonzero(place >= 0))
        keys.append((128 * place + performance.pitches.astype(np.int64))[place >= 0])
    _, a, b = np.intersect1d(keys[0], keys[1], return_indices=True)
    return notes[0][a], notes[1][b]


def _pitch_sets(performance: Performance) -> Int:
    """Return which pitches each chord has, 1 or 0 [shape=(chords, 128)]."""
    sets = np.zeros((performance.chords[-1] + 1, 128), np.int64)
    sets[performance.chords, performance.pitches.astype(np.int64)] = 1
    return sets


def _paired_chords(a: Int, b: Int) -> Int:
    """Return the chords of both that the best path through them pairs [shape=(pairs, 2)]."""
    if len(a) * len(b) > MOST_PAIRS:
        raise AlignmentError(
            f"performances of {len(a)} and {len(b)} chords are too long to be compared: more than "
            f"{MOST_PAIRS:.0e} pairs; give each movement a work_id of its own"
        )
    having, sizes = np.ascontiguousarray(b.T), b.sum(axis=1)
    alone = ALONE * np.append(0, np.cumsum(sizes))
    steps = np.zeros((len(a) + 1, len(b) + 1), np.uint8)
    best = np.maximum(alone, SKIP)
    skipped = np.full_like(best, np.iinfo(np.int64).min)
    paired = skipped.copy()
    for i, chord in enumerate(a, start=1):
        size, common = chord.sum(), having[chord > 0].sum(axis=0)
        paired[1:] = best[:-1] + (COMMON - 2 * ALONE) * common + ALONE * (size + sizes)
        begins = best + SKIP >= skipped
        skipped = np.maximum(best + SKIP, skipped)
        above = best + ALONE * size
        reached = np.maximum(np.maximum(paired, above), skipped)
        left = np.maximum.accumulate(reached - alone) + alone
        highest = np.maximum.accumulate(reached)
        best = np.maximum(left, highest + SKIP)
        peak = np.diff(highest, prepend=highest[0] - 1) > 0
        flags = (paired == reached, above < reached, begins, left > reached, best > left, peak)
        steps[i] = np.packbits(flags, axis=0, bitorder="little")[0]
    return _walked_back(steps)


def _walked_back(steps: npt.NDArray[np.uint8]) -> Int:
    """Return the pairs on the path that ends with the last chords of both."""
    pairs = []
    i, j = steps.shape[0] - 1, steps.shape[1] - 1
    while i and j:
        if steps[i, j] & LEAP:
            while not steps[i, j] & PEAK:
                j -= 1
        while steps[i, j] & LEFT:
            j -= 1
        if steps[i, j] & PAIR:
            pairs.append((i - 1, j - 1))
            j -= 1
        elif steps[i, j] & FALL:
            while not steps[i, j] & BEGIN:
                i -= 1
        i -= 1
    return np.array(pairs[::-1], np.int64).reshape(-1, 2)


def _nearest(
    reference: Performance, other: Performance, expected: Float, reach: float
) -> tuple[Int, Int]:
    """Return the notes of both that are, among those of their pitch, nearest to each other."""
    # Days apart, pitches do not meet.
    a = expected + LONGEST_S * reference.pitches
    b = other.onsets + LONGEST_S * other.pitches
    to_b, to_a = _closest(a, b), _closest(b, a)
    mutual = to_a[to_b] == np.arange(len(a))
    found = np.flatnonzero(mutual & (np.abs(b[to_b] - a) <= reach))
    return found, to_b[found]


def _closest(values: Float, others: Float) -> Int:
    """Return for each value which of some others is the closest."""
    order = np.argsort(others, kind="stable")
    middles = (others[order][1:] + others[order][:-1]) / 2
    return np.asarray(order[np.searchsorted(middles, values)])


def _knots(reference: Performance, other: Performance, a: Int, b: Int) -> Float:
    """Return when both play chords, with how many matched notes and what error [shape=(4, n)].

    The error is from the scatter, about its chord's mean, of how much later a note is in one.
    """
    if not len(a):
        return np.empty((4, 0))
    late = other.onsets[b] - reference.onsets[a]
    close = np.abs(late - ndimage.median_filter(late, NEIGHBOURS, mode="nearest")) <= MOST_OFF_S
    a, b, late = a[close], b[close], late[close]
    chords, number, sizes = np.unique(reference.chords[a], return_inverse=True, return_counts=True)
    each = number, np.arange(len(chords))
    u, t = (ndimage.median(times, *each) for times in (reference.onsets[a], other.onsets[b]))
    squares, free = sizes * ndimage.variance(late, *each), sizes - 1.0
    whole = squares.sum() + PRIOR_NOTES * SCATTER_S**2, free.sum() + PRIOR_NOTES
    prior = PRIOR_NOTES / (2 * AROUND + 1)
    here, notes = (
        ndimage.uniform_filter1d(x, 2 * AROUND + 1, mode="constant") + prior * total / whole[1]
        for x, total in zip((squares, free), whole, strict=True)
    )
    return np.stack([u, t, sizes, np.sqrt(here / notes / sizes)])[:, _rising(np.asarray(t))]


def _rising(values: Float) -> Int:
    """Return which values make the longest sequence that strictly increases."""
    lowest: list[float] = []  # how low a sequence of each length can end
    lengths = []
    for value in values.tolist():
        length = bisect_left(lowest, value)
        lowest[length : length + 1] = [value]
        lengths.append(length)
    found: list[int] = []
    for i in reversed(range(len(values))):
        longest = lengths[i] == len(lowest) - 1 - len(found)
        if longest and (not found or values[i] < values[found[-1]]):
            found.append(i)
    return np.array(found[::-1], np.int64)


def _expected(reference: Performance, knots: Float) -> Float:
    """Return when the other comes to each note of the reference, s; NaN where one plays alone."""
    u, t = knots[:2]
    breaks = np.flatnonzero(np.abs(np.diff(t - u)) > BREAK_S) + 1
    broken = np.insert(u, breaks, (u[breaks - 1] + u[breaks]) / 2)
    return np.asarray(np.interp(reference.onsets, broken, np.insert(t, breaks, np.nan)))


def _mapped(reference: Performance, other: Performance, knots: Float) -> Alignment:
    """Return the map through those knots that enough is matched around, where it holds."""
    played = [np.searchsorted(reference.onsets, knots[0]), np.searchsorted(other.onsets, knots[1])]
    counts = np.stack([*played, np.cumsum(knots[2]) - knots[2]])
    number = np.arange(counts.shape[1])
    far = np.clip(number + np.array([[-AROUND], [AROUND]]), 0, len(number) - 1)
    kept = _share(np.abs(counts[:, far] - counts[:, None])).max(axis=0) >= LEAST_SHARE
    (u, t, sizes, errors), counts = knots[:, kept], counts[:, kept]
    alone = np.diff(counts[:2]).max(axis=0) - sizes[:-1]
    lasting = np.diff((u, t)).max(axis=0)
    breaks = np.flatnonzero((alone >= BREAK_NOTES) & (lasting >= BREAK_S)) + 1
    runs = [run for run in np.split(np.arange(len(u)), breaks) if len(run) >= AROUND]
    if not runs:
        knot = other.onsets[:1], reference.onsets[:1], np.array([np.inf])
        return Alignment(*knot, np.empty((0, 2)), np.empty(0))
    ends = np.array([run[[0, -1]] for run in runs])
    sure = (_share(np.ptp(counts[:, ends], axis=2)) - OTHER) / (SAME - OTHER)
    inside = np.concatenate(runs)
    return Alignment(t[inside], u[inside], errors[inside], t[ends], np.clip(sure, 0, 1))


def _share(counts: Float) -> Float:
    """Return the matched share of notes of both, from the numbers of either's and of matches."""
    return np.asarray(2 * counts[2] / np.maximum(counts[0] + counts[1], AROUND))
