"""The pulse that is heard in the onset strength, over time.

Six seconds of onset strength around every moment are analysed twice (Peeters 2007, *Template-based
estimation of time-varying tempo*). Their Fourier transform is strong at the tempo and its
multiples, their autocorrelation at the tempo and its fractions; the product of both is strong at
the tempo. Summed over the recording and weighted by how readily people tap at a rate (log-normal
around 120 BPM, standard deviation one octave: Ellis 2007, *Beat Tracking by Dynamic Programming*)
it gives the recording's metrical level. From moment to moment the Fourier transform, the sharper of
the two, is tracked within 0.3 octaves of that level by dynamic programming, so that a
local tempo never jumps to another level.

* `HeardPulse.tempo`: local tempo, BPM, `TEMPO_RATE` values per second from time 0.
* `HeardPulse.levels`: the strengths, weighted as above, of the metrical levels `LEVEL_RATIOS`
  times as fast as the local tempo: how sure the level is.

Both are NaN where fewer than `MIN_ONSETS` onsets lie within the six seconds, or everywhere when not
even three periods of the fastest tempo fit into the recording.
"""

__all__ = ["LEVEL_RATIOS", "TEMPO_RATE", "TEMPO_WINDOW_S", "HeardPulse", "follow_pulse"]

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.fft

Float = npt.NDArray[np.float64]

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


class HeardPulse(NamedTuple):
    """The pulse over time, see `follow_pulse`."""

    tempo: Float
    levels: Float


def follow_pulse(
    onset_strength: Float, onsets: Float, duration: float, frame_rate: float
) -> HeardPulse:
    """Return the pulse over time.

    Parameters
    ----------
    onset_strength : ndarray [shape=(frames,)]
        How much begins at a frame, at least 0.
    onsets : ndarray [shape=(n,)]
        Times of onsets, s, increasing.
    duration : float
        Length of the recording, s.
    frame_rate : float
        Frames per second.

    Returns
    -------
    HeardPulse
        ``tempo`` [shape=(m,)] in BPM, and ``levels`` [shape=(m, 5)], at least 0, of times
        ``0, 1/2, ...`` s.
    """
    times = np.arange(0, duration, 1 / TEMPO_RATE)
    tempo, levels = np.full(len(times), np.nan), np.full((len(times), len(LEVEL_RATIOS)), np.nan)
    half = TEMPO_WINDOW_S / 2
    near = np.searchsorted(onsets, times + half) - np.searchsorted(onsets, times - half)
    defined = near >= MIN_ONSETS
    bpm = _grid()
    possible = bpm >= 60 * MIN_PERIODS / duration if duration else np.zeros(len(bpm), np.bool_)
    if not defined.any() or not possible.any():
        return HeardPulse(tempo, levels)
    spectra, products = _tempograms(onset_strength, times[defined], frame_rate)
    scores = products * np.where(possible, _preference(bpm), 0)
    level = int(np.argmax(scores.sum(axis=0)))
    reach = round(TRACKING_OCTAVES * STEPS_PER_OCTAVE)
    first, stop = max(level - reach, 0), min(level + reach + 1, len(bpm))
    path = first + _track(np.log(spectra[:, first:stop] + _FLOOR))
    tempo[defined] = bpm[0] * 2 ** (_between_steps(spectra, path) / STEPS_PER_OCTAVE)
    levels[defined] = _level_strengths(scores, path)
    return HeardPulse(tempo, levels)


@lru_cache(maxsize=1)
def _grid() -> Float:
    """Return the tempos considered, BPM, equally spaced in octaves."""
    octaves = np.log2(BPM_RANGE[1] / BPM_RANGE[0])
    steps = np.arange(int(octaves * STEPS_PER_OCTAVE) + 1)
    return np.asarray(BPM_RANGE[0] * 2 ** (steps / STEPS_PER_OCTAVE), np.float64)


def _preference(bpm: Float) -> Float:
    octaves = np.log2(bpm / PREFERRED_BPM) / PREFERENCE_OCTAVES
    return np.asarray(np.exp(-0.5 * octaves**2))


def _tempograms(onset_strength: Float, times: Float, frame_rate: float) -> tuple[Float, Float]:
    """Return the Fourier tempogram, and its product with the autocorrelation [times, tempos]."""
    length = round(TEMPO_WINDOW_S * frame_rate) | 1
    taper = np.hanning(length + 2)[1:-1]
    padded = np.pad(_accents(onset_strength, frame_rate), (length, length))
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


def _accents(onset_strength: Float, frame_rate: float) -> Float:
    """Return what exceeds the local mean of the widened onset strength."""
    hann = np.hanning(round(WIDENING_S * frame_rate) + 2)
    wide = _smoothed(onset_strength, hann / hann.sum())
    length = round(LOCAL_MEAN_S * frame_rate) | 1
    excess = np.maximum(wide - _smoothed(wide, np.full(length, 1 / length)), 0)
    return np.asarray(excess - excess.mean())


def _smoothed(series: Float, kernel: Float) -> Float:
    """Return the convolution, as long as the series, zeros around it."""
    start = (len(kernel) - 1) // 2
    return np.convolve(series, kernel)[start : start + len(series)]


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
