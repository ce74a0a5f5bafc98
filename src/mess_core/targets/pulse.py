"""The local pulse of a performance: score positions and tempo, from onset times alone.

Onset times mix three things: note values, the tempo that bends them, and the inaccuracy of single
notes. To measure tempo, note values have to go. They are found by a hidden Markov model in which
each onset (chords merged) has a position within a beat (0, 1/4, 1/3, 1/2, 2/3 or 3/4) and a beat
period that may drift. The most probable path (Viterbi) says how many beats lie between two onsets.
Positions, rather than ratios of inter-onset intervals alone, keep the path on the grid: after a
triplet the next onset is on the beat again.

The beat's level (crotchet or quaver) does not matter: the tempo is used in logarithms, relative to
itself. The search runs for several beat periods side by side, each with a band of tempo around it
that is too narrow for the pulse to jump to another level, and the most probable one is taken.

A model after Raphael (2001), *Automated Rhythm Transcription*, and Cemgil & Kappen (2003), *Monte
Carlo Methods for Tempo Tracking and Rhythm Quantization*.
"""

__all__ = ["MIN_ONSETS", "beats_between", "tempo_curve"]

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

#: Fewer onsets show no pulse.
MIN_ONSETS = 8

#: Positions within a beat, in twelfths, and the cost (in nats) of an onset there.
POSITIONS = np.array([0, 3, 4, 6, 8, 9])
POSITION_COSTS = np.array([0.0, 2.0, 2.0, 1.0, 2.0, 2.0])

#: Onsets are at most this many beats apart; what is longer is a pause, and tells nothing.
MAX_BEATS = 4

#: Beat periods that are tried, s (50 to 240 BPM), this far apart, in log units.
PERIODS_S = (0.25, 1.2)
PERIOD_SPACING = 0.2

#: Half-width and step of the band of tempo around each, in log units (up to 68 % slower; 4 %).
TEMPO_BAND = 0.52
TEMPO_STEP = 0.04

#: Drift of log tempo in a beat (standard deviation). This, the spreads and the costs were chosen on
#: generated performances of known tempo: see docs/targets.md.
DRIFT = 0.06

#: Standard deviation of an inter-onset interval: a share of itself, and seconds (melody lead is 20
#: to 30 ms, Goebl 2001).
SPREAD_SHARE = 0.03
SPREAD_S = 0.02

#: Highest cost (nats) of one interval, so that a fermata does not bend the path.
MAX_COST = 8.0

#: How far from its local period an interval is not believed, in log units.
MAX_DEVIATION = 0.25

#: Standard deviation of the tempo around the middle of the band, in log units.
BAND_SPREAD = 0.5


class _Steps(NamedTuple):
    """For each position (row) the ways to come to it (columns)."""

    origin: npt.NDArray[np.int64]
    beats: Float


def _steps() -> _Steps:
    count = len(POSITIONS)
    origin = np.repeat(np.arange(count), MAX_BEATS)
    twelfths = (POSITIONS[:, None] - POSITIONS[origin][None]) % 12
    twelfths = np.where(twelfths == 0, 12, twelfths)
    beats = (twelfths + 12 * np.tile(np.arange(MAX_BEATS), count)) / 12
    return _Steps(np.tile(origin, (count, 1)), beats)


_STEPS = _steps()


def beats_between(intervals: Float) -> Float:
    """Return how many beats lie between consecutive onsets.

    Parameters
    ----------
    intervals : ndarray [shape=(n,)]
        Inter-onset intervals in seconds, above 0, chords merged.

    Returns
    -------
    ndarray [shape=(n,)]
        Beats of a level that is the same throughout. Where an interval fits no note value it is
        counted as long as it is at the local tempo, so that it does not bend the tempo.
    """
    low, high = np.log(PERIODS_S)
    centres = np.arange(low, high + PERIOD_SPACING / 2, PERIOD_SPACING)
    band = np.arange(-TEMPO_BAND, TEMPO_BAND + TEMPO_STEP / 2, TEMPO_STEP)
    beats, log_period = _most_probable(intervals, centres[:, None] + band, band)
    deviation = np.abs(np.log(intervals / beats) - log_period)
    return np.where(deviation <= MAX_DEVIATION, beats, intervals / np.exp(log_period))


def _most_probable(intervals: Float, log_periods: Float, band: Float) -> tuple[Float, Float]:
    """Return the beats and the log beat period of every interval on the best path (Viterbi).

    ``log_periods`` has the shape [centres, band]; the costs below [centres, positions, band].
    """
    stay = 0.5 * (band / BAND_SPREAD) ** 2
    period = np.exp(log_periods.mean(axis=1))[:, None, None, None]
    jump = 0.5 * (band[:, None] - band) ** 2 / DRIFT**2 * period
    spread = np.hypot(SPREAD_SHARE, SPREAD_S / intervals)
    log_beats = np.log(_STEPS.beats)[None, :, :, None]
    shape = (len(log_periods), len(POSITIONS), len(band))
    cost = np.broadcast_to(POSITION_COSTS[:, None] + stay, shape)
    from_tempo = np.zeros((len(intervals), *shape), np.uint8)
    from_step = np.zeros((len(intervals), *shape), np.uint8)
    for i, interval in enumerate(intervals):
        moved = cost[:, :, :, None] + jump / interval
        from_tempo[i] = moved.argmin(axis=2)
        arrived = moved.min(axis=2)
        error = np.log(interval) - log_periods[:, None, None, :] - log_beats
        misfit = np.minimum(0.5 * (error / spread[i]) ** 2, MAX_COST)
        ways = arrived[:, _STEPS.origin] + misfit
        from_step[i] = ways.argmin(axis=2)
        cost = ways.min(axis=2) + POSITION_COSTS[:, None] + stay
    return _traced(cost, from_tempo, from_step, log_periods)


def _traced(
    cost: Float,
    from_tempo: npt.NDArray[np.uint8],
    from_step: npt.NDArray[np.uint8],
    log_periods: Float,
) -> tuple[Float, Float]:
    """Follow the best path back from its end."""
    centre, position, tempo = np.unravel_index(int(cost.argmin()), cost.shape)
    beats, log_period = np.empty(len(from_step)), np.empty(len(from_step))
    for i in range(len(from_step) - 1, -1, -1):
        step = from_step[i, centre, position, tempo]
        beats[i] = _STEPS.beats[position, step]
        log_period[i] = log_periods[centre, tempo]
        position = _STEPS.origin[position, step]
        tempo = from_tempo[i, centre, position, tempo]
    return beats, log_period


def tempo_curve(times: Float, beats: Float, *, smoothing: float, rate: float) -> Float:
    """Return the log local tempo, equally spaced in time.

    Parameters
    ----------
    times : ndarray [shape=(n,)]
        Onset times, s, strictly increasing.
    beats : ndarray [shape=(n,)]
        Their positions in the score, in beats.
    smoothing : float
        Standard deviation of the Gaussian that averages the beats per second, s.
    rate : float
        Values per second.

    Returns
    -------
    ndarray [shape=(m,)]
        Natural logarithm of beats per second, from the first onset to the last.
    """
    grid = np.linspace(times[0], times[-1], max(2, round((times[-1] - times[0]) * rate)) + 1)
    speed = np.diff(np.interp(grid, times, beats)) / np.diff(grid)
    reach = int(np.ceil(4 * smoothing * rate))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (smoothing * rate)) ** 2)
    inside = np.convolve(np.ones_like(speed), kernel)[reach : reach + len(speed)]
    smooth = np.convolve(speed, kernel)[reach : reach + len(speed)] / inside
    return np.asarray(np.log(smooth))
