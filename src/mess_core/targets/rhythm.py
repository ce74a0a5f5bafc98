"""Rhythm, as heard in the audio.

* `tempo`: the rate at which a listener would tap. The period at which the onset strength repeats
  itself (autocorrelation), weighted by how readily people tap at it: log-normal around 120 BPM with
  a standard deviation of one octave (Ellis 2007, *Beat Tracking by Dynamic Programming*). Metrical
  levels an octave apart are equally right to a listener, and this gives one of them: compare
  tempos modulo octaves unless the recordings play the same work.
* `onset_density`: notes or chords begun per second of the recording.
* `onset_rate_curve`: the same over time.
"""

__all__ = ["onset_density", "onset_rate_curve", "tempo"]

import numpy as np
import numpy.typing as npt
import scipy.fft

from mess_core.targets.registry import CURVE_FRAMES

Float = npt.NDArray[np.float64]

#: What people tap at (Ellis 2007; Moelants 2002 finds 120 BPM).
PREFERRED_BPM = 120.0
PREFERENCE_OCTAVES = 1.0

#: Slowest and fastest tempo considered.
BPM_RANGE = (30.0, 300.0)

#: Onsets are widened (Hann window) by so much, s, because a period is no whole number of frames.
WIDENING_S = 0.15

#: Fewer onsets, or fewer periods within the recording, do not define a pulse.
MIN_ONSETS = 4
MIN_PERIODS = 3

#: Standard deviation of the smoothing of the onset rate, s: a bar or so.
RATE_SMOOTHING_S = 1.0


def tempo(onset_strength: Float, onsets: Float, frame_rate: float) -> float:
    """Return the tempo in BPM.

    Parameters
    ----------
    onset_strength : ndarray [shape=(frames,)]
        How much begins at a frame, at least 0.
    onsets : ndarray [shape=(n,)]
        Times of onsets, s.
    frame_rate : float
        Frames per second.

    Returns
    -------
    float
        30 to 300 BPM; NaN with fewer than 4 onsets, or where fewer than 3 periods fit.
    """
    longest = min(len(onset_strength) // MIN_PERIODS, int(60 * frame_rate / BPM_RANGE[0]))
    shortest = int(np.ceil(60 * frame_rate / BPM_RANGE[1]))
    if len(onsets) < MIN_ONSETS or longest <= shortest + 1:
        return np.nan
    window = np.hanning(round(WIDENING_S * frame_rate) + 2)
    wide = np.convolve(onset_strength, window, mode="same")
    correlation = _autocorrelation(wide - wide.mean())
    lags = np.arange(shortest, longest)
    octaves = np.log2(60 * frame_rate / lags / PREFERRED_BPM) / PREFERENCE_OCTAVES
    lag = int(lags[np.argmax(correlation[lags] * np.exp(-0.5 * octaves**2))])
    return float(60 * frame_rate / _peak(correlation, lag))


def _autocorrelation(series: Float) -> Float:
    """Return the autocorrelation, each lag divided by its number of products."""
    n = len(series)
    size = scipy.fft.next_fast_len(2 * n, real=True)
    spectrum = scipy.fft.rfft(series, size)
    product = scipy.fft.irfft(np.abs(spectrum) ** 2, size)[:n]
    return np.asarray(product / np.arange(n, 0, -1))


def _peak(series: Float, index: int) -> float:
    """Return where a parabola through three neighbours has its top."""
    a, b, c = series[index - 1 : index + 2]
    curvature = a - 2 * b + c
    return index + float(np.clip(0.5 * (a - c) / curvature, -0.5, 0.5)) if curvature < 0 else index


def onset_density(onsets: Float, duration: float, loudness: Float) -> float:
    """Return the onsets per second.

    Parameters
    ----------
    onsets : ndarray [shape=(n,)]
        Times of onsets, s.
    duration : float
        Length of the recording, s.
    loudness : ndarray [shape=(m,)]
        Momentary loudness, NaN where inaudible.

    Returns
    -------
    float
        Per second; 0 for a sustained sound; NaN where nothing is audible.
    """
    return len(onsets) / duration if np.isfinite(loudness).any() else np.nan


def onset_rate_curve(onsets: Float, duration: float, loudness: Float) -> Float:
    """Return the onsets per second over time.

    Parameters
    ----------
    onsets : ndarray [shape=(n,)]
        Times of onsets, s.
    duration : float
        Length of the recording, s.
    loudness : ndarray [shape=(m,)]
        Momentary loudness, NaN where inaudible.

    Returns
    -------
    ndarray [shape=(64,)]
        Gaussian smoothing of 1 s, corrected at the edges; NaN where nothing is ever audible.
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
