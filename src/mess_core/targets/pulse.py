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

__all__ = ["MIN_ONSETS", "Pulse", "tempo_curve", "track_levels", "track_pulse"]

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

#: Metrical levels that the extent of rubato is measured at: preferred periods, s. Slower ones do
#: not follow a tempo that bends far.
LEVELS_S = np.geomspace(0.3, 0.85, 6)

#: Change of the log period from one beat to the next (standard deviation).
DRIFT = 0.15

#: Reward of an onset on the beat, to which its salience is added, and cost of a beat without one.
HIT, MISS = 1.5, 3.0

#: Onsets on beats are at most so many beats apart. What is longer is a pause, at this cost.
MAX_BEATS = 4
PAUSE = 20.0


class Pulse(NamedTuple):
    """Beats and where in the score they are.

    Attributes
    ----------
    times : ndarray [shape=(n,)]
        When beats fall, s, strictly increasing. Not every beat needs to be there.
    positions : ndarray [shape=(n,)]
        How many beats they are after the first, strictly increasing.
    """

    times: Float
    positions: Float

    @property
    def periods(self) -> Float:
        """Seconds per beat between consecutive times."""
        return np.diff(self.times) / np.diff(self.positions)

    @property
    def middles(self) -> Float:
        """Times half way between consecutive times."""
        return (self.times[1:] + self.times[:-1]) / 2


def track_pulse(onsets: Float, salience: Float) -> Pulse:
    """Find the beats of a performance among its onsets.

    ``onsets`` are in s, strictly increasing, chords merged, at least `MIN_ONSETS`; ``salience`` is
    how much each stands out from those around it (mean 0, spread about 1). Over a pause beats are
    counted as at the tempo before it.
    """
    (first,) = _best_paths(onsets, salience, np.array([PREFERRED_S]), PREFERENCE)
    level_s = np.array([_median_period(*first)])
    (path,) = _best_paths(onsets, salience, level_s, LEVEL_PREFERENCE)
    return _pulse(*path, float(level_s[0]))


def track_levels(onsets: Float, salience: Float) -> tuple[Pulse, ...]:
    """Find the beats as `track_pulse` does, close to each of `LEVELS_S`."""
    paths = _best_paths(onsets, salience, LEVELS_S, LEVEL_PREFERENCE)
    return tuple(_pulse(*path, level) for path, level in zip(paths, LEVELS_S, strict=True))


def _pulse(times: Float, beats: Float, level_s: float) -> Pulse:
    """Return the beats at ``times``, pauses counted as at the tempo before."""
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


def _best_paths(
    onsets: Float, salience: Float, preferred_s: Float, preference_spread: float
) -> list[tuple[Float, Float]]:
    """Return the onsets that are beats, and how many beats lie between them (0 for a pause).

    That for each of the preferred periods. ``score[i, k, b]`` is that of the best sequence of beats
    that ends with onset i and period b, near the k-th of them.
    """
    log_periods = np.arange(np.log(PERIODS_S[0]), np.log(PERIODS_S[1]), PERIOD_STEP)
    distance = log_periods - np.log(preferred_s)[:, None]
    ways = _ways(onsets, log_periods)
    search = _Search(
        onsets,
        ways=ways,
        preference=-0.5 * (distance / preference_spread) ** 2,
        starts=np.searchsorted(ways.to, np.arange(len(onsets) + 1)),
        drift=-0.5 * ((log_periods[:, None] - log_periods) / DRIFT) ** 2,
        score=np.empty((len(onsets), *distance.shape)),
        moved=np.empty((len(onsets), *distance.shape)),
    )
    new_period = np.diff(ways.to * len(log_periods) + ways.period, prepend=-1) > 0
    for i in range(len(onsets)):
        here = search.ways_to(i)
        score = search.score[i]
        score[:] = search.beginning(i)
        if here.start < here.stop:
            groups = np.flatnonzero(new_period[here])
            reached = np.maximum.reduceat(search.reached(here), groups)
            period = ways.period[here][groups]
            score[:, period] = np.maximum(score[:, period], reached.T)
        score += HIT + salience[i]
        search.moved[i] = (score[:, :, None] + search.drift).max(axis=1)
    return [search.path(level) for level in range(len(preferred_s))]


class _Ways(NamedTuple):
    """Ways to come from one beat to the next, ordered by the onset that they lead to and period."""

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
    ways = _Ways(to[pair], origin[pair], counts[count], period[pair, count])
    order = np.lexsort((ways.period, ways.to))
    return _Ways(*(column[order] for column in ways))


class _Search(NamedTuple):
    """The scores of all sequences of beats, for several preferred periods."""

    onsets: Float
    ways: _Ways
    starts: Int
    preference: Float
    drift: Float
    score: Float
    moved: Float

    def ways_to(self, onset: int) -> slice:
        return slice(self.starts[onset], self.starts[onset + 1])

    def beginning(self, onset: int) -> Float:
        """Return the score of a sequence that begins, or goes on after a pause, with an onset."""
        if self.onsets[onset] <= self.onsets[0] + PERIODS_S[1]:
            return self.preference
        before = self.score[onset - 1].max(axis=1, keepdims=True)
        return np.asarray(self.preference + before - PAUSE)

    def reached(self, ways: slice | Int) -> Float:
        """Return the score to which each of the ways leads [shape=(ways, preferred periods)]."""
        _, origin, beats, period = (column[ways] for column in self.ways)
        came = self.moved[origin, :, period]
        near = self.preference[:, period]
        return np.asarray(came + (beats * near - MISS * (beats - 1)).T)

    def path(self, level: int) -> tuple[Float, Float]:
        """Follow the best path of one preferred period back from its end."""
        onsets, score = self.onsets, self.score[:, level]
        ends = np.flatnonzero(onsets >= onsets[-1] - PERIODS_S[1])
        onset = int(ends[score[ends].max(axis=1).argmax()])
        period = int(score[onset].argmax())
        chosen, beats = [onset], []
        while True:
            here = self.ways_to(onset)
            here = here.start + np.flatnonzero(self.ways.period[here] == period)
            reached = self.reached(here)[:, level]
            if len(reached) and reached.max() > self.beginning(onset)[level, period]:
                way = here[reached.argmax()]
                onset = int(self.ways.origin[way])
                period = int((score[onset] + self.drift[:, period]).argmax())
                beats.append(float(self.ways.beats[way]))
            elif onsets[onset] > onsets[0] + PERIODS_S[1]:
                onset -= 1
                period = int(score[onset].argmax())
                beats.append(0.0)
            else:
                return onsets[chosen[::-1]], np.array(beats[::-1])
            chosen.append(onset)


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
