"""Timbre: means over the audible frames of the usual spectral descriptors.

* `spectral_centroid`: *brightness*, the mean frequency weighted by magnitude.
* `spectral_rolloff`: how high the sound reaches; 85 % of the magnitude lies below.
* `spectral_bandwidth`: how widely the sound spreads around its centroid.
* `zero_crossing_rate`: share of neighbouring samples with a change of sign; twice the frequency of
  a sine over the sample rate; high for noise.
* `brightness_curve`: the centroid over time.

Centroid, bandwidth and rolloff of a frame are those of librosa and of Klapuri & Davy (2006),
*Signal Processing Methods for Music Transcription*. On one instrument all of them follow register
and loudness as well as touch.
"""

__all__ = [
    "brightness_curve",
    "centroid_and_bandwidth",
    "rolloff_frequency",
    "spectral_bandwidth",
    "spectral_centroid",
    "spectral_rolloff",
    "zero_crossing_rate",
]

import numpy as np
import numpy.typing as npt

from mess_core.targets.curves import Float, mean_of, to_curve

#: Share of the magnitude below the rolloff frequency (librosa's default).
ROLLOFF_SHARE = 0.85


def spectral_centroid(centroid: Float) -> float:
    """Return the mean spectral centroid in Hz, NaN where nothing is audible."""
    return mean_of(centroid)


def spectral_rolloff(rolloff: Float) -> float:
    """Return the mean 85 % rolloff frequency in Hz, NaN where nothing is audible."""
    return mean_of(rolloff)


def spectral_bandwidth(bandwidth: Float) -> float:
    """Return the mean spectral bandwidth in Hz, NaN where nothing is audible."""
    return mean_of(bandwidth)


def zero_crossing_rate(zero_crossings: Float) -> float:
    """Return the mean share of sign changes (0 to 1), NaN where nothing is audible."""
    return mean_of(zero_crossings)


def brightness_curve(centroid: Float) -> Float:
    """Return the spectral centroid over time, Hz [shape=(64,)], NaN where nothing is audible."""
    return to_curve(centroid)


def centroid_and_bandwidth(
    magnitude: npt.NDArray[np.float32], frequencies: Float
) -> tuple[Float, Float]:
    """Return each spectrum's mean and standard deviation of frequency, weighted by magnitude.

    Of spectra [shape=(n, bins)] two arrays in Hz [shape=(n,)]; NaN for a spectrum of zeros.
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


def rolloff_frequency(magnitude: npt.NDArray[np.float32], frequencies: Float) -> Float:
    """Return the lowest frequency below which 85 % of each spectrum lies, Hz [shape=(n,)]."""
    cumulative = np.cumsum(magnitude, axis=1)
    index = np.argmax(cumulative >= ROLLOFF_SHARE * cumulative[:, -1:], axis=1)
    return np.asarray(frequencies[index])
