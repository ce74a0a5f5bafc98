"""From frames of samples to one number or vector per frame: the shared spectral analysis.

The spectrum of every frame is computed once, in blocks that stay in the processor's cache, and
never kept: memory grows by 60 numbers per frame, whatever the recording's length.

* `centroid_and_bandwidth`: magnitude-weighted mean and standard deviation of frequency, as in
  librosa and Klapuri & Davy (2006), *Signal Processing Methods for Music Transcription*.
* `rolloff`: the frequency below which 85 % of the summed magnitude lies (librosa's default).
* `mel_filters`: triangles on O'Shaughnessy's mel scale.
* `chroma`: power of spectral *peaks* by pitch class. Peaks are placed between bins by parabolic
  interpolation (Smith & Serra 1987), which tells semitones apart where the bins alone do not.

Frames are given as magnitudes, so that a full-scale sine has a peak near 1.
"""

__all__ = ["centroid_and_bandwidth", "chroma", "magnitudes", "mel_filters", "rolloff"]

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

#: Share of the magnitude below the rolloff frequency (librosa's default).
ROLLOFF_SHARE = 0.85

#: Pitches that count for chroma, Hz: from C2, below which this window cannot tell semitones apart,
#: to C7, above which a piano has few fundamentals and many partials of other pitch classes.
CHROMA_RANGE_HZ = (65.4, 2093.0)

#: Middle A, Hz (ISO 16).
A4_HZ = 440.0


def magnitudes(frames: Float32) -> Float32:
    """Return Hann-windowed magnitude spectra.

    Parameters
    ----------
    frames : ndarray of float32 [shape=(n, length)]
        Samples.

    Returns
    -------
    ndarray of float32 [shape=(n, length // 2 + 1)]
        A sine of amplitude 1 on a bin gives 1 there.
    """
    result: Float32 = np.abs(scipy.fft.rfft(frames * _window(frames.shape[1]), axis=1))
    return result


@lru_cache(maxsize=8)
def _window(length: int) -> Float32:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return np.asarray(hann * 2 / hann.sum(), np.float32)


def centroid_and_bandwidth(magnitude: Float32, frequencies: Float) -> tuple[Float, Float]:
    """Return the mean and the standard deviation of frequency, weighted by magnitude.

    Parameters
    ----------
    magnitude : ndarray [shape=(n, bins)]
        Spectra.
    frequencies : ndarray [shape=(bins,)]
        Hz.

    Returns
    -------
    tuple of ndarray [shape=(n,)]
        Hz; NaN for a spectrum of zeros.
    """
    # Frequencies around the middle of the band, so that squares lose no digits in float32.
    middle = frequencies.mean()
    offset = (frequencies - middle).astype(np.float32)
    powers = np.stack([np.ones_like(offset), offset, offset**2], axis=1)
    total, first, second = (magnitude @ powers).astype(np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = first / total
        variance = second / total - mean**2
    return mean + middle, np.sqrt(np.maximum(variance, 0.0))


def rolloff(magnitude: Float32, frequencies: Float) -> Float:
    """Return the lowest frequency below which 85 % of the magnitude lies.

    Parameters
    ----------
    magnitude : ndarray [shape=(n, bins)]
        Spectra.
    frequencies : ndarray [shape=(bins,)]
        Hz.

    Returns
    -------
    ndarray [shape=(n,)]
        Hz.
    """
    cumulative = np.cumsum(magnitude, axis=1)
    index = np.argmax(cumulative >= ROLLOFF_SHARE * cumulative[:, -1:], axis=1)
    return np.asarray(frequencies[index])


def mel_filters(frequencies: Float, *, bands: int) -> Float32:
    """Return triangular filters, equally wide in mel, from 0 Hz to the highest frequency.

    Parameters
    ----------
    frequencies : ndarray [shape=(bins,)]
        Hz.
    bands : int
        Number of filters.

    Returns
    -------
    ndarray of float32 [shape=(bins, bands)]
        Peaks of 1.
    """
    mel = 2595 * np.log10(1 + frequencies / 700)
    edges = np.linspace(0, mel[-1], bands + 2)
    rising = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    return np.asarray(np.maximum(np.minimum(rising, falling), 0), np.float32)


def chroma(magnitude: Float32, frequencies: Float) -> Float:
    """Return the power of spectral peaks by pitch class.

    Parameters
    ----------
    magnitude : ndarray [shape=(n, bins)]
        Spectra.
    frequencies : ndarray [shape=(bins,)]
        Hz, equally spaced from 0.

    Returns
    -------
    ndarray [shape=(n, 12)]
        From C to B; not normalised. A peak between two semitones counts for both.
    """
    low, high = np.searchsorted(frequencies, CHROMA_RANGE_HZ)
    left, centre, right = (magnitude[:, low + d : high + d] for d in (-1, 0, 1))
    row, column = np.nonzero((centre > left) & (centre >= right))
    a, b, c = (np.log(m[row, column] + np.float32(1e-12)) for m in (left, centre, right))
    curvature = a - 2 * b + c
    shift = np.where(curvature < 0, 0.5 * (a - c) / np.where(curvature < 0, curvature, 1), 0)
    hertz = (column + low + np.clip(shift, -0.5, 0.5)) * (frequencies[1] - frequencies[0])
    semitone = 12 * np.log2(hertz / A4_HZ) + 9
    floor = np.floor(semitone)
    share = semitone - floor
    power = centre[row, column].astype(np.float64) ** 2
    lower = floor.astype(np.int64) % 12
    cells = np.concatenate([row * 12 + lower, row * 12 + (lower + 1) % 12])
    weights = np.concatenate([power * (1 - share), power * share])
    total: Float = np.bincount(cells, weights, minlength=12 * len(magnitude)).astype(np.float64)
    return total.reshape(-1, 12)
