"""Timbre: how much of the sound lies high.

* `spectral_centroid`: *brightness*, the mean frequency weighted by magnitude.
* `spectral_rolloff`: how high the sound reaches; 85 % of the magnitude lies below.
* `brightness_curve`: the centroid over time.

Only what stands above the recording's noise counts, by 12 dB in its frequency bin: otherwise a soft
passage is as bright as its noise. Without noise centroid and rolloff of a frame are those of
librosa and of Klapuri & Davy (2006), *Signal Processing Methods for Music Transcription*. On one
instrument all of them follow register and loudness as well as touch.
"""

__all__ = [
    "brightness_curve",
    "mean_frequency",
    "noise_gate",
    "rolloff_frequency",
    "spectral_centroid",
    "spectral_rolloff",
]

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter

from mess_core.targets.curves import Float, mean_of, to_curve

Float32 = npt.NDArray[np.float32]

#: Share of the magnitude below the rolloff frequency (librosa's default).
ROLLOFF_SHARE = 0.85

#: A bin's noise is what it has in this share of the frames. The power of noise is distributed
#: exponentially, so that this quantile lies ``-log(1 - share)`` below its mean.
QUIET_SHARE = 0.1

#: The noise is the median over so many bins (600 Hz: partials are narrower), and sound is what
#: exceeds its mean by so much (noise itself does so once in ten million times), dB.
SURROUNDING_BINS = 51
GATE_DB = 12.0

#: What is at most so much below the loudest partial of the recording is no noise, dB.
LEAST_RANGE_DB = 30.0


def spectral_centroid(centroid: Float) -> float:
    """Return the mean spectral centroid in Hz, NaN where nothing is audible."""
    return mean_of(centroid)


def spectral_rolloff(rolloff: Float) -> float:
    """Return the mean 85 % rolloff frequency in Hz, NaN where nothing is audible."""
    return mean_of(rolloff)


def brightness_curve(centroid: Float) -> Float:
    """Return the spectral centroid over time, Hz [shape=(64,)], NaN where nothing is audible."""
    return to_curve(centroid)


def noise_gate(power: Float32) -> Float32:
    """Return the power in each frequency bin above which sound stands out of a recording's noise.

    ``power`` [shape=(frames, bins)] is that of audible frames from all over the recording. Noise is
    what each bin has at least nearly always, smoothed over its surroundings, so that held partials
    are none. What is within `LEAST_RANGE_DB` of the loudest partial always counts: a steady sound
    is no noise.
    """
    if not len(power):
        return np.zeros(power.shape[1], np.float32)
    rank = int(QUIET_SHARE * (len(power) - 1))
    quiet = np.partition(power, rank, axis=0)[rank] / -np.log1p(-QUIET_SHARE)
    noise = median_filter(quiet, SURROUNDING_BINS)
    highest = power.max() * 10 ** (-LEAST_RANGE_DB / 10)
    return np.asarray(np.minimum(noise * 10 ** (GATE_DB / 10), highest), np.float32)


def mean_frequency(magnitude: Float32, frequencies: Float) -> Float:
    """Return each spectrum's mean frequency, weighted by magnitude, Hz; NaN for one of zeros."""
    weights = np.stack([np.ones_like(frequencies), frequencies], axis=1).astype(np.float32)
    total, first = (magnitude @ weights).astype(np.float64).T
    return np.asarray(first / np.where(total > 0, total, np.nan))


def rolloff_frequency(magnitude: Float32, frequencies: Float) -> Float:
    """Return the lowest frequency below which 85 % of each spectrum lies, Hz [shape=(n,)]."""
    cumulative = np.cumsum(magnitude, axis=1)
    index = np.argmax(cumulative >= ROLLOFF_SHARE * cumulative[:, -1:], axis=1)
    return np.asarray(frequencies[index])
