"""Harmony.

* `harmonic_complexity`: how many pitch classes sound together and how equally: the entropy of the
  chroma of one second, mean over the recording. One pitch class gives 0 bit, a triad in equal parts
  1.58, all twelve 3.58. Partials count as pitches, so one piano note has more than 0; a second of
  scale counts like a cluster. (This is not tension: a triad and a cluster of three are alike here.)
* `chroma_mean`: the share of each pitch class in the whole recording, from C to B.
* `tension_curve`: how dissonant what sounds together is, over time. In the Tonal Interval Space of
  Bernardes et al. (2016, *A multi-level tonal interval space for modelling pitch similarity and
  musical consonance*) a chroma, divided by its sum, is the vector of its Fourier coefficients 1 to
  6, each with a weight. The vector's norm is *consonance*: a single pitch class has the largest,
  the norm of the weights, and all twelve in equal parts have 0. Tension is 1 minus the norm over
  that largest one, from 0 to 1: a cluster is tenser than a triad, a triad tenser than a note.

The chroma of a frame is the power of its spectral *peaks* by pitch class. Peaks are placed between
bins by parabolic interpolation (Smith & Serra 1987), which tells semitones apart where the bins
alone do not.
"""

__all__ = [
    *("chroma_mean", "chroma_of_peaks", "harmonic_complexity", "tension_curve", "tension_series"),
]

import numpy as np
import numpy.typing as npt

from mess_core.targets.curves import Float, to_curve
from mess_core.targets.registry import PITCH_CLASSES

#: Weights of the Fourier coefficients for chroma from audio (Bernardes et al. 2017, *A hierarchical
#: harmonic mixing method*; those of 2016 are for chroma from symbols).
INTERVAL_WEIGHTS = np.array([3.0, 8.0, 11.5, 15.0, 14.5, 7.5])

#: Over how long the chroma of tension is averaged, s: a chord, with the decay of what went before.
CHORD_S = 0.5

#: How long pitches count as sounding together, s.
TOGETHER_S = 1.0

#: Pitches that count for chroma, Hz: from C2, below which this window cannot tell semitones apart,
#: to C7, above which a piano has few fundamentals and many partials of other pitch classes.
CHROMA_RANGE_HZ = (65.4, 2093.0)

#: Middle A, Hz (ISO 16).
A4_HZ = 440.0

#: Rounding of a difference of sums of shares.
_SILENT = 1e-9


def harmonic_complexity(chroma: Float, frame_rate: float) -> float:
    """Return the mean entropy of a second's pitch classes, 0 to 3.58 bit, NaN without a pitch."""
    length = max(1, round(TOGETHER_S * frame_rate))
    starts = np.arange(0, len(chroma), length)
    if not len(starts):
        return np.nan
    seconds = np.add.reduceat(_normalised(chroma), starts, axis=0)
    total = seconds.sum(axis=1)
    shares = seconds[total > 0] / total[total > 0, None]
    logarithm = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy = -(shares * logarithm).sum(axis=1) + 0.0
    return float(np.average(entropy, weights=total[total > 0])) if len(entropy) else np.nan


def _normalised(chroma: Float) -> Float:
    """Return each frame divided by its sum, so that loud frames count like soft ones."""
    total = chroma.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(chroma, total, out=np.zeros_like(chroma), where=total > 0))


def chroma_mean(chroma: Float) -> Float:
    """Return the share of each pitch class from C to B [shape=(12,)], NaN without a pitch."""
    total = _normalised(chroma).sum(axis=0)
    return total / total.sum() if total.sum() > 0 else np.full(PITCH_CLASSES, np.nan)


def tension_curve(chroma: Float, frame_rate: float) -> Float:
    """Return the tension over time, 0 to 1 [shape=(64,)], NaN where nothing has a pitch."""
    return to_curve(tension_series(chroma, frame_rate))


def tension_series(chroma: Float, frame_rate: float) -> Float:
    """Return the tension of each frame's half second, 0 to 1, NaN where nothing has a pitch."""
    length = max(1, round(CHORD_S * frame_rate))
    edges = np.arange(len(chroma))[:, None] + np.array([-(length // 2), length - length // 2])
    first, stop = np.clip(edges, 0, len(chroma)).T
    cumulative = np.concatenate([np.zeros((1, 12)), np.cumsum(_normalised(chroma), axis=0)])
    return _tension(cumulative[stop] - cumulative[first])


def _tension(chroma: Float) -> Float:
    """Return 1 minus the consonance of each chroma, NaN for zeros."""
    total = chroma.sum(axis=1, keepdims=True)
    shares = np.divide(chroma, total, out=np.full_like(chroma, np.nan), where=total > _SILENT)
    coefficients = np.abs(np.fft.rfft(shares, axis=1)[:, 1:]) * INTERVAL_WEIGHTS
    norm = np.sqrt(np.square(coefficients).sum(axis=1)) / np.linalg.norm(INTERVAL_WEIGHTS)
    return np.asarray(1 - np.minimum(norm, 1))


def chroma_of_peaks(magnitude: npt.NDArray[np.float32], frequencies: Float) -> Float:
    """Return the power of the peaks of spectra [shape=(n, bins)] by pitch class [shape=(n, 12)].

    ``frequencies`` are in Hz, equally spaced from 0. A peak between two semitones counts for both.
    """
    low, high = np.searchsorted(frequencies, CHROMA_RANGE_HZ)
    left, centre, right = (magnitude[:, low + d : high + d] for d in (-1, 0, 1))
    # Places in one dimension are found and read in half the time.
    row, column = np.divmod(np.flatnonzero((centre > left) & (centre >= right)), high - low)
    flat, place = magnitude.ravel(), row * magnitude.shape[1] + low + column
    a, b, c = (np.log(flat[place + d] + np.float32(1e-12)) for d in (-1, 0, 1))
    curvature = a - 2 * b + c
    shift = np.where(curvature < 0, 0.5 * (a - c) / np.where(curvature < 0, curvature, 1), 0)
    hertz = (column + low + np.clip(shift, -0.5, 0.5)) * (frequencies[1] - frequencies[0])
    semitone = 12 * np.log2(hertz / A4_HZ) + 9
    floor = np.floor(semitone)
    share = semitone - floor
    power = flat[place].astype(np.float64) ** 2
    lower = floor.astype(np.int64) % 12
    cells = np.concatenate([row * 12 + lower, row * 12 + (lower + 1) % 12])
    weights = np.concatenate([power * (1 - share), power * share])
    total: Float = np.bincount(cells, weights, minlength=12 * len(magnitude)).astype(np.float64)
    return total.reshape(-1, 12)
