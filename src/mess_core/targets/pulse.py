"""The pulse of a performance: when its beats fall, from its notes alone.

Onset times mix three things: note values, the tempo that bends them, and the inaccuracy of single
notes. To measure tempo, note values have to go. So beats are looked for among the onsets, as by a
listener who taps along (Dixon 2001, *Automatic extraction of tempo and beat from expressive
performances*). The best sequence of onsets (dynamic programming, as Ellis 2007 has it for audio)
takes salient onsets, leaves few beats without an onset, and hardly changes its period from one beat
to the next. Ornaments and the notes between the beats need not be understood.

The search runs twice: first with what people in general tap at, then close to the median period
that came out, so that the sequence stays on one metrical level (crotchets or quavers). A lasting
change of tempo by a factor of two is therefore not seen; it takes annotated beats to tell it from a
change of level.
"""

__all__ = ["MIN_ONSETS", "Pulse", "tempo_curve", "track_pulse"]

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mess_core.targets.curves import Float, smoothed

Int = npt.NDArray[np.int64]

#: Fewer onsets show no pulse.
MIN_ONSETS = 8

#: Beat periods that are considered, s (48 to 240 BPM), and their resolution in log units. What is
#: not given a source here was chosen on the demo corpus and on those works of ASAP that have fewer
#: than four performances. Figures in docs/targets.md are of the others, which were looked at, too.
PERIODS_S = (0.25, 1.25)
PERIOD_STEP = 0.04

#: What people tap at, s (120 BPM, Moelants 2002), and how strongly that counts in the first and in
#: the second search: standard deviations in log units.
PREFERRED_S = 0.5
PREFERENCE = 1.1
LEVEL_PREFERENCE = 0.3

#: Change of the log period from one beat to the next (standard deviation).
DRIFT = 0.15

#: Reward of an onset on the beat, to which its salience is added, and cost of a beat without one.
HIT, MISS = 1.5, 3.0

#: Onsets on beats are at most so many beats apart. What is longer is a pause, at this cost.
MAX_BEATS = 4
PAUSE = 20.0


class Pulse(NamedTuple):
    """When beats fall, s, and how many beats they are after the first; each strictly increasing.

    Not every beat needs to be there.
    """

    times: Float
    positions: Float

    @property
    def periods(self) -> Float:
        """Seconds per beat between consecutive times."""
        return np.diff(self.times) / np.diff(self.positions)


def track_pulse(onsets: Float, salience: Float) -> Pulse:
    """Find the beats of a performance among its onsets.

    ``onsets`` are in s, strictly increasing, chords merged, at least `MIN_ONSETS`; ``salience`` is
    how much each stands out from those around it (mean 0, spread about 1). Over a pause beats are
    counted as at the tempo before it.
    """
    times, beats = _best_path(onsets, salience, PREFERRED_S, PREFERENCE)
    level_s = _median_period(times, beats)
    times, beats = _best_path(onsets, salience, level_s, LEVEL_PREFERENCE)
    intervals = np.diff(times)
    for pause in np.flatnonzero(beats == 0):
        before = intervals[pause - 1] / beats[pause - 1] if pause else level_s
        beats[pause] = intervals[pause] / before
    return Pulse(times, np.concatenate([[0.0], np.cumsum(beats)]))


def _median_period(times: Float, beats: Float) -> float:
    """Return the median seconds per beat, every beat counted."""
    known = beats > 0
    if not known.any():
        return PREFERRED_S
    counts = beats[known].astype(np.int64)
    return float(np.median(np.repeat(np.diff(times)[known] / counts, counts)))


def _best_path(
    onsets: Float, salience: Float, preferred_s: float, preference_spread: float
) -> tuple[Float, Float]:
    """Return the onsets that are beats, and how many beats lie between them (0 for a pause).

    ``score[i, b]`` is that of the best sequence of beats that ends with onset i and period b.
    """
    log_periods = np.arange(np.log(PERIODS_S[0]), np.log(PERIODS_S[1]), PERIOD_STEP)
    preference = -0.5 * ((log_periods - np.log(preferred_s)) / preference_spread) ** 2
    drift = -0.5 * ((log_periods[:, None] - log_periods) / DRIFT) ** 2
    ways = _ways(onsets, log_periods)
    gain = ways.beats * preference[ways.period] - MISS * (ways.beats - 1)
    score = np.empty((len(onsets), len(log_periods)))
    moved = np.empty_like(score)
    period_before = np.zeros(score.shape, np.int64)
    way_taken = np.full(score.shape, -1)
    starts = np.searchsorted(ways.to, np.arange(len(onsets) + 1))
    for i, onset in enumerate(onsets):
        begins = onset <= onsets[0] + PERIODS_S[1]
        score[i] = preference + (0.0 if begins else score[i - 1].max() - PAUSE)
        here = slice(starts[i], starts[i + 1])
        origin, period = ways.origin[here], ways.period[here]
        reached = moved[origin, period] + gain[here]
        # Of several values for one place the last one stays: the best.
        order = np.argsort(reached, kind="stable")
        order = order[reached[order] > score[i, period[order]]]
        score[i, period[order]] = reached[order]
        way_taken[i, period[order]] = starts[i] + order
        score[i] += HIT + salience[i]
        arrived = score[i][:, None] + drift
        period_before[i] = arrived.argmax(axis=0)
        moved[i] = arrived.max(axis=0)
    chosen, beats = _traced(onsets, score, period_before, way_taken, ways)
    return onsets[chosen], beats


class _Ways(NamedTuple):
    """Ways to come from one beat to the next, ordered by the onset that they lead to."""

    to: Int
    origin: Int
    beats: Int
    period: Int


def _ways(onsets: Float, log_periods: Float) -> _Ways:
    """Return all pairs of onsets that may lie a number of beats apart."""
    first = np.searchsorted(onsets, onsets - MAX_BEATS * PERIODS_S[1])
    pairs = np.arange(len(onsets)) - first
    to = np.repeat(np.arange(len(onsets)), pairs)
    origin = np.arange(len(to)) - np.repeat(np.cumsum(pairs) - pairs - first, pairs)
    counts = np.arange(1, MAX_BEATS + 1)
    log_period = np.log((onsets[to] - onsets[origin])[:, None] / counts)
    period = np.round((log_period - log_periods[0]) / PERIOD_STEP).astype(np.int64)
    pair, count = np.nonzero((period >= 0) & (period < len(log_periods)))
    return _Ways(to[pair], origin[pair], counts[count], period[pair, count])


def _traced(
    onsets: Float, score: Float, period_before: Int, way_taken: Int, ways: _Ways
) -> tuple[Int, Float]:
    """Follow the best path back from its end."""
    ends = np.flatnonzero(onsets >= onsets[-1] - PERIODS_S[1])
    onset = int(ends[score[ends].max(axis=1).argmax()])
    period = int(score[onset].argmax())
    chosen, beats = [onset], []
    while (way := way_taken[onset, period]) >= 0 or onsets[onset] > onsets[0] + PERIODS_S[1]:
        if way >= 0:
            onset = int(ways.origin[way])
            period = int(period_before[onset, period])
            beats.append(float(ways.beats[way]))
        else:
            onset -= 1
            period = int(score[onset].argmax())
            beats.append(0.0)
        chosen.append(onset)
    return np.array(chosen[::-1]), np.array(beats[::-1])


def tempo_curve(times: Float, beats: Float, *, smoothing: float, rate: float) -> Float:
    """Return the natural log of beats per second, ``rate`` values per second from first to last.

    ``beats`` are the positions of ``times`` (s) in the score; ``smoothing`` is the standard
    deviation of the Gaussian that averages the beats per second, s.
    """
    grid = np.linspace(times[0], times[-1], max(2, round((times[-1] - times[0]) * rate)) + 1)
    speed = np.diff(np.interp(grid, times, beats)) / np.diff(grid)
    reach = int(np.ceil(4 * smoothing * rate))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (smoothing * rate)) ** 2)
    inside = smoothed(np.ones_like(speed), kernel)
    return np.asarray(np.log(smoothed(speed, kernel) / inside))
