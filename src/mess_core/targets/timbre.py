"""Timbre: means over the audible frames of the usual spectral descriptors.

* `spectral_centroid`: *brightness*, the mean frequency weighted by magnitude.
* `spectral_rolloff`: how high the sound reaches; 85 % of the magnitude lies below.
* `spectral_bandwidth`: how widely the sound spreads around its centroid.
* `zero_crossing_rate`: share of neighbouring samples with a change of sign; twice the frequency of
  a sine over the sample rate; high for noise.
* `brightness_curve`: the centroid over time.

`mess_core.targets.spectrum` defines the frames' values. On one instrument all of them follow
register and loudness as well as touch.
"""

__all__ = [
    "brightness_curve",
    "spectral_bandwidth",
    "spectral_centroid",
    "spectral_rolloff",
    "zero_crossing_rate",
]

import numpy as np
import numpy.typing as npt

from mess_core.targets.curves import mean_of, to_curve

Float = npt.NDArray[np.float64]


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
