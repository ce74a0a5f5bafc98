"""Phrasing, as arches of loudness.

Players shape a phrase as a rise and a fall of loudness (Todd 1992, *The dynamics of dynamics*). A
boundary is a minimum of the smoothed loudness that lies at least 2 dB below the highest points on
both sides, at least 2 s from the next. Phrases that are marked by time or harmony alone are not
found; the MIDI targets hear time.

* `num_phrases`: how many arches.
* `phrase_regularity`: how equal they are in length: ``1 / (1 + standard deviation / mean)``.
"""

__all__ = ["num_phrases", "phrase_regularity"]

import numpy as np
import numpy.typing as npt
from scipy.signal import find_peaks

from mess_core.targets.sound import LOUDNESS_RATE

Float = npt.NDArray[np.float64]

#: Length of the moving mean that leaves phrases and removes notes, s.
SMOOTHING_S = 2.0

#: A boundary is this much softer than its surroundings, dB.
MIN_DEPTH_DB = 2.0

#: The shortest phrase, s.
MIN_PHRASE_S = 2.0


def num_phrases(loudness: Float) -> float:
    """Return the number of arches of loudness, at least 1, NaN with less than 2 s of sound."""
    lengths = _phrase_lengths(loudness)
    return float(len(lengths)) if len(lengths) else np.nan


def phrase_regularity(loudness: Float) -> float:
    """Return how equal the phrases are (0 to 1, equal), NaN with fewer than two phrases."""
    lengths = _phrase_lengths(loudness)
    return float(1 / (1 + lengths.std() / lengths.mean())) if len(lengths) >= 2 else np.nan


def _phrase_lengths(loudness: Float) -> Float:
    """Return the lengths of the phrases in seconds, from the first sound to the last."""
    audible = np.flatnonzero(np.isfinite(loudness))
    length = round(SMOOTHING_S * LOUDNESS_RATE)
    if len(audible) < length:
        return np.empty(0)
    sounding = loudness[audible[0] : audible[-1] + 1]
    filled = np.where(np.isfinite(sounding), sounding, np.nanmin(sounding))
    padded = np.pad(filled, (length // 2, length - 1 - length // 2), mode="edge")
    smooth = np.convolve(padded, np.full(length, 1 / length), mode="valid")
    distance = round(MIN_PHRASE_S * LOUDNESS_RATE)
    dips, _ = find_peaks(-smooth, prominence=MIN_DEPTH_DB, distance=distance)
    inner = dips[(dips >= distance) & (dips <= len(smooth) - distance)]
    edges = np.concatenate([[0], inner, [len(smooth)]])
    return np.diff(edges) / LOUDNESS_RATE
