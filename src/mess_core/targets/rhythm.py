"""Rhythm, as heard in the audio.

* `tempo`: the rate at which a listener would tap: geometric mean of the local tempo. Metrical
  levels an octave (or a factor of three) apart are equally right to a listener, and this gives one
  of them: compare tempos modulo octaves unless the recordings play the same work.
* `tempo_octave_ambiguity`: how near the choice of that level was: the strength with which the best
  other level (a third, a half, twice, three times the rate) is heard, over that of the chosen one.
  0 where only one rate is heard, 1 where another would do as well.
* `local_tempo_curve`: the rate over time, always of the recording's level.
* `onset_density`: notes or chords begun per second of the recording.
* `onset_rate_curve`: the same over time.

Onsets are peaks of the onset strength, the mean rise in dB over mel bands from frame to frame.

The pulse is heard in six seconds of onset strength around every moment (Peeters 2007,
*Template-based estimation of time-varying tempo*). Their Fourier transform is strong at the tempo
and its multiples, their autocorrelation at the tempo and its fractions; the product of both is
strong at the tempo. Summed over the recording and weighted by how readily people tap at a rate
(log-normal around 120 BPM, standard deviation one octave: Ellis 2007, *Beat Tracking by Dynamic
Programming*) it gives the recording's metrical level. From moment to moment the Fourier transform,
the sharper of the two, is tracked within 0.3 octaves of that level by dynamic programming, so that
a local tempo never jumps to another level.
"""

__all__ = [
    "LEVEL_RATIOS",
    "TEMPO_RATE",
    "follow_pulse",
    "local_tempo_curve",
    "onset_density",
    "onset_rate_curve",
    "onset_strength",
    "onset_times",
    "tempo",
    "tempo_octave_ambiguity",
]

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy.signal import find_peaks

from mess_core.targets.curves import Float, smoothed, to_curve
from mess_core.targets.registry import CURVE_FRAMES

#: An onset is a rise of at least this many dB, mean over bands, above the ordinary of the 0.4 s
#: around it, and at least 50 ms away from a stronger one. Measured: see docs/targets.md.
ONSET_RISE_DB = 0.5
ONSET_DISTANCE_S = 0.05
ONSET_CONTEXT_S = 0.4

#: Standard deviation of the smoothing of the onset rate, s: a bar or so.
RATE_SMOOTHING_S = 1.0

#: Local tempos per second.
TEMPO_RATE = 2

#: Length of the Hann window of a local tempo, s: three periods of the slowest.
TEMPO_WINDOW_S = 6.0

#: Slowest and fastest tempo considered, and how finely.
BPM_RANGE = (30.0, 300.0)
STEPS_PER_OCTAVE = 60

#: What people tap at (Ellis 2007; Moelants 2002 finds 120 BPM).
PREFERRED_BPM = 120.0
PREFERENCE_OCTAVES = 1.0

#: Metrical levels that may be taken for the pulse, relative to it.
LEVEL_RATIOS = (1 / 3, 1 / 2, 1.0, 2.0, 3.0)

#: How far a level's strongest rate may lie from its exact ratio, octaves: a step or two.
LEVEL_TOLERANCE = 0.05

#: The local tempo lies within this distance of the recording's, octaves.
TRACKING_OCTAVES = 0.3

#: What a change of tempo by a step in half a second costs, in log strength.
STEP_COST = 0.05

#: Onsets are widened (Hann window) by so much, s, because a period is no whole number of frames.
WIDENING_S = 0.06

#: What exceeds the mean over this time is an onset, s.
LOCAL_MEAN_S = 0.8

#: Fewer onsets within the window define no pulse.
MIN_ONSETS = 4

#: Fewer periods within the recording define no pulse.
MIN_PERIODS = 3

#: Shares of the spectrum below this count alike when the tempo is tracked.
_FLOOR = 1e-3


def tempo(local_tempo: Float) -> float:
    """Return the geometric mean of the local tempo, 30 to 300 BPM, NaN without a pulse."""
    defined = local_tempo[np.isfinite(local_tempo)]
    return float(np.exp(np.log(defined).mean())) if len(defined) else np.nan


def tempo_octave_ambiguity(metrical_levels: Float) -> float:
    """Return how strong the best other level is beside the pulse's, 0 to 1, NaN without a pulse."""
    defined = metrical_levels[np.isfinite(metrical_levels).all(axis=1)]
    strengths = defined.sum(axis=0)
    pulse = strengths[LEVEL_RATIOS.index(1.0)]
    rival = max(np.delete(strengths, LEVEL_RATIOS.index(1.0)))
    return float(min(rival / pulse, 1.0)) if pulse > 0 else np.nan


def local_tempo_curve(local_tempo: Float) -> Float:
    """Return the rate of the pulse over time, BPM [shape=(64,)], NaN where there is no pulse."""
    return to_curve(local_tempo)


def onset_density(onsets: Float, duration: float, loudness: Float) -> float:
    """Return the onsets per second: 0 for a sustained sound, NaN where nothing is audible."""
    return len(onsets) / duration if np.isfinite(loudness).any() else np.nan


def onset_rate_curve(onsets: Float, duration: float, loudness: Float) -> Float:
    """Return the onsets per second over time.

    Smoothed by a Gaussian of 1 s, corrected at the edges [shape=(64,)]; NaN where nothing is ever
    audible.
    """
    if not np.isfinite(loudness).any():
        return np.full(CURVE_FRAMES, np.nan)
    times = (np.arange(CURVE_FRAMES) + 0.5) * duration / CURVE_FRAMES
    density = _gaussian(times[:, None] - onsets).sum(axis=1)
    grid = np.arange(0.0, duration, RATE_SMOOTHING_S / 10)
    inside = _gaussian(times[:, None] - grid).sum(axis=1) * RATE_SMOOTHING_S / 10
    return np.asarray(density / inside)


def _gaussian(distance: Float) -> Float:
    scale = RATE_SMOOTHING_S * np.sqrt(2 * np.pi)
    return np.asarray(np.exp(-0.5 * (distance / RATE_SMOOTHING_S) ** 2) / scale)


def onset_strength(mel_level: npt.NDArray[np.float32]) -> Float:
    """Return the mean rise of the bands from frame to frame, dB [shape=(frames,)], at least 0."""
    rise = np.maximum(np.diff(mel_level, axis=0, prepend=mel_level[:1]), 0)
    return np.asarray(rise.mean(axis=1, dtype=np.float64))


def onset_times(strength: Float, *, frame_rate: float, frame_s: float) -> Float:
    """Return when notes or chords begin, s, from the onset strength of frames of ``frame_s``."""
    if not len(strength):
        return np.empty(0)
    context = round(ONSET_CONTEXT_S * frame_rate) | 1
    excess = strength - smoothed(strength, np.full(context, 1 / context))
    distance = max(1, round(ONSET_DISTANCE_S * frame_rate))
    peaks, _ = find_peaks(excess, height=ONSET_RISE_DB, distance=distance)
    # A rise is seen when the new sound reaches the middle of the frame.
    return np.asarray(peaks / frame_rate + frame_s / 2, np.float64)


def follow_pulse(
    strength: Float, onsets: Float, duration: float, frame_rate: float
) -> tuple[Float, Float]:
    """Return the pulse over time, `TEMPO_RATE` values per second from time 0.

    That is the local tempo, BPM [shape=(m,)], and how strongly the metrical levels `LEVEL_RATIOS`
    times as fast are heard [shape=(m, 5)]. Both are NaN where fewer than `MIN_ONSETS` onsets lie
    within the six seconds, or everywhere when not even three periods of the fastest tempo fit into
    the recording.
    """
    times = np.arange(0, duration, 1 / TEMPO_RATE)
    tempo, levels = np.full(len(times), np.nan), np.full((len(times), len(LEVEL_RATIOS)), np.nan)
    half = TEMPO_WINDOW_S / 2
    near = np.searchsorted(onsets, times + half) - np.searchsorted(onsets, times - half)
    defined = near >= MIN_ONSETS
    bpm = _grid()
    possible = bpm >= 60 * MIN_PERIODS / duration if duration else np.zeros(len(bpm), np.bool_)
    if not defined.any() or not possible.any():
        return tempo, levels
    spectra, products = _tempograms(strength, times[defined], frame_rate)
    preference = np.exp(-0.5 * (np.log2(bpm / PREFERRED_BPM) / PREFERENCE_OCTAVES) ** 2)
    scores = products * np.where(possible, preference, 0)
    level = int(np.argmax(scores.sum(axis=0)))
    reach = round(TRACKING_OCTAVES * STEPS_PER_OCTAVE)
    first, stop = max(level - reach, 0), min(level + reach + 1, len(bpm))
    path = first + _track(np.log(spectra[:, first:stop] + _FLOOR))
    tempo[defined] = bpm[0] * 2 ** (_between_steps(spectra, path) / STEPS_PER_OCTAVE)
    levels[defined] = _level_strengths(scores, path)
    return tempo, levels


@lru_cache(maxsize=1)
def _grid() -> Float:
    """Return the tempos considered, BPM, equally spaced in octaves."""
    octaves = np.log2(BPM_RANGE[1] / BPM_RANGE[0])
    steps = np.arange(int(octaves * STEPS_PER_OCTAVE) + 1)
    return np.asarray(BPM_RANGE[0] * 2 ** (steps / STEPS_PER_OCTAVE), np.float64)


def _tempograms(strength: Float, times: Float, frame_rate: float) -> tuple[Float, Float]:
    """Return the Fourier tempogram, and its product with the autocorrelation [times, tempos]."""
    length = round(TEMPO_WINDOW_S * frame_rate) | 1
    taper = np.hanning(length + 2)[1:-1]
    padded = np.pad(_accents(strength, frame_rate), (length, length))
    centres = np.round(times * frame_rate).astype(np.int64) + length
    centres = np.minimum(centres, len(padded) - 1 - length // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, length)[centres - length // 2]
    size = scipy.fft.next_fast_len(2 * length, real=True)
    at_tempo, at_lag = _transforms(length, size, frame_rate)
    tapered = windows * taper
    power = np.abs(scipy.fft.rfft(tapered, size, axis=1)) ** 2
    energy = np.maximum(power.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    real, imaginary = np.split(tapered @ at_tempo, 2, axis=1)
    fourier = np.hypot(real, imaginary) / np.sqrt(energy)
    autocorrelation = np.maximum(power @ at_lag / energy, 0)
    return fourier, fourier * autocorrelation


@lru_cache(maxsize=4)
def _transforms(length: int, size: int, frame_rate: float) -> tuple[Float, Float]:
    """Return matrices to the Fourier transform at the tempos and the autocorrelation at their lags.

    The one, cosines beside sines, takes a window; the other takes a window's power spectrum.
    """
    hertz = _grid() / 60
    frames = np.arange(length) - length // 2
    angles = 2 * np.pi * frames[:, None] * hertz / frame_rate
    lags = frame_rate / hertz
    frequencies = np.arange(size // 2 + 1) / size
    at_lag = np.cos(2 * np.pi * frequencies[:, None] * lags)
    # A lag of half the window leaves little of the taper's product with itself.
    taper = np.hanning(length + 2)[1:-1]
    products = np.correlate(taper, taper, "full")[length - 1 :]
    share = np.interp(lags, np.arange(length), products / products[0])
    return np.hstack([np.cos(angles), np.sin(angles)]), np.asarray(at_lag / np.maximum(share, 0.1))


def _accents(strength: Float, frame_rate: float) -> Float:
    """Return what exceeds the local mean of the widened onset strength."""
    hann = np.hanning(round(WIDENING_S * frame_rate) + 2)
    wide = smoothed(strength, hann / hann.sum())
    length = round(LOCAL_MEAN_S * frame_rate) | 1
    excess = np.maximum(wide - smoothed(wide, np.full(length, 1 / length)), 0)
    return np.asarray(excess - excess.mean())


def _track(strength: Float) -> npt.NDArray[np.int64]:
    """Return the path of the largest sum of strengths, less the cost of its steps."""
    columns = np.arange(strength.shape[1])
    cost = STEP_COST * np.abs(columns[:, None] - columns)
    best, came_from = strength[0], np.empty(strength.shape, np.int64)
    for row in range(1, len(strength)):
        totals = best - cost
        came_from[row] = totals.argmax(axis=1)
        best = totals[columns, came_from[row]] + strength[row]
    path = np.empty(len(strength), np.int64)
    path[-1] = best.argmax()
    for row in range(len(strength) - 1, 0, -1):
        path[row - 1] = came_from[row, path[row]]
    return path


def _between_steps(strength: Float, path: npt.NDArray[np.int64]) -> Float:
    """Return where parabolas through the path and its neighbours have their tops, in steps."""
    middle = np.clip(path, 1, strength.shape[1] - 2)
    rows = np.arange(len(path))
    left, centre, right = (strength[rows, middle + d] for d in (-1, 0, 1))
    curvature = left - 2 * centre + right
    shift = 0.5 * (left - right) / np.where(curvature < 0, curvature, -np.inf)
    return np.asarray(path + np.where(middle == path, np.clip(shift, -0.5, 0.5), 0))


def _level_strengths(scores: Float, path: npt.NDArray[np.int64]) -> Float:
    """Return the largest score near each ratio to the path; 0 beyond the tempos considered."""
    tolerance = round(LEVEL_TOLERANCE * STEPS_PER_OCTAVE)
    steps = np.round(np.log2(LEVEL_RATIOS) * STEPS_PER_OCTAVE).astype(np.int64)
    reach = int(steps.max()) + tolerance
    padded = np.pad(scores, ((0, 0), (reach, reach)))
    around = np.arange(-tolerance, tolerance + 1)
    columns = path[:, None, None] + reach + steps[:, None] + around
    rows = np.arange(len(path))[:, None, None]
    return np.asarray(padded[rows, columns].max(axis=2))
