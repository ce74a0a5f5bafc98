"""Harmony.

* `harmonic_complexity`: how many pitch classes sound together and how equally: the entropy of the
  chroma of one second, mean over the recording. One pitch class gives 0 bit, a triad in equal parts
  1.58, all twelve 3.58. Partials count as pitches, so one piano note has more than 0; a second of
  scale counts like a cluster. (This is not tension: a triad and a cluster of three are alike here.)
* `chroma_mean`: the share of each pitch class in the whole recording, from C to B.
"""

__all__ = ["chroma_mean", "harmonic_complexity"]

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

#: How long pitches count as sounding together, s.
TOGETHER_S = 1.0


def harmonic_complexity(chroma: Float, frame_rate: float) -> float:
    """Return the mean entropy of the pitch classes within a second.

    Parameters
    ----------
    chroma : ndarray [shape=(frames, 12)]
        Power by pitch class, 0 where inaudible.
    frame_rate : float
        Frames per second.

    Returns
    -------
    float
        0 to 3.58 bit; NaN where nothing has a pitch.
    """
    length = max(1, round(TOGETHER_S * frame_rate))
    starts = np.arange(0, len(chroma), length)
    if not len(starts):
        return np.nan
    seconds = np.add.reduceat(_normalised(chroma), starts, axis=0)
    total = seconds.sum(axis=1)
    entropy = _entropy(seconds[total > 0] / total[total > 0, None])
    return float(np.average(entropy, weights=total[total > 0])) if len(entropy) else np.nan


def _normalised(chroma: Float) -> Float:
    """Return each frame divided by its sum, so that loud frames count like soft ones."""
    total = chroma.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(chroma, total, out=np.zeros_like(chroma), where=total > 0))


def _entropy(shares: Float) -> Float:
    logarithm = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logarithm).sum(axis=1) + 0.0)


def chroma_mean(chroma: Float) -> Float:
    """Return the share of each pitch class.

    Parameters
    ----------
    chroma : ndarray [shape=(frames, 12)]
        Power by pitch class, 0 where inaudible.

    Returns
    -------
    ndarray [shape=(12,)]
        From C to B, sum 1; NaN where nothing has a pitch.
    """
    total = _normalised(chroma).sum(axis=0)
    return total / total.sum() if total.sum() > 0 else np.full(12, np.nan)
