"""Phrasing, as arches of loudness, and the borders that timbre and harmony make.

Players shape a phrase as a rise and a fall of loudness (Todd 1992, *The dynamics of dynamics*). A
boundary is a minimum of the smoothed loudness that lies at least 2 dB below the highest points on
both sides, at least 2 s from the next. Phrases that are marked by time or harmony alone are not
found by loudness; the MIDI targets hear time.

* `num_phrases`: how many arches.
* `phrase_regularity`: how equal they are in length: ``1 / (1 + standard deviation / mean)``.
* `novelty_curve`: how much what follows differs from what went before, in timbre and harmony, over
  time. Foote (2000, *Automatic audio segmentation using a measure of audio novelty*) compares all
  moments within two seconds either side with each other, and subtracts the similarity across the
  moment from the similarity within the sides: a checkerboard kernel with Gaussian taper along the
  diagonal of the self-similarity matrix. Similarity here is the mean of two cosines, of the timbre
  (MFCC 1 to 12: the form of the spectrum, not its level) and of the chroma. An inner product makes
  the kernel's sum the squared distance between the weighted means of both sides, so that no matrix
  is needed and the cost is linear in the recording's length.

The first two need a recording: five seconds hold one phrase or less.
"""

__all__ = ["novelty_curve", "num_phrases", "phrase_regularity"]

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve, find_peaks

from mess_core.targets.curves import Float, to_curve
from mess_core.targets.registry import CURVE_FRAMES
from mess_core.targets.sound import LOUDNESS_RATE

#: Length of the moving mean that leaves phrases and removes notes, s.
SMOOTHING_S = 2.0

#: A boundary is this much softer than its surroundings, dB.
MIN_DEPTH_DB = 2.0

#: The shortest phrase, s.
MIN_PHRASE_S = 2.0

#: How far novelty looks to either side, s, and the standard deviation of the taper.
NOVELTY_S = 2.0
NOVELTY_TAPER_S = 1.0

#: At least so much has to lie on either side of a moment, s.
MIN_SIDE_S = 0.5


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


def novelty_curve(mfcc: npt.NDArray[np.float32], chroma: Float, frame_rate: float) -> Float:
    """Return Foote's novelty over time.

    At least 0 (nothing changes) [shape=(64,)]; 1 where what follows is orthogonal to what went
    before and each side is steady. NaN within half a second of the ends, and without a pitch.
    """
    features = np.hstack([_directions(mfcc[:, 1:]), _directions(chroma)]) / np.sqrt(2)
    if not chroma.any():
        return np.full(CURVE_FRAMES, np.nan)
    return to_curve(_novelty(features, frame_rate))


def _directions(vectors: npt.NDArray[np.floating]) -> Float:
    """Return vectors of unit length, zero where they are zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros(vectors.shape), where=norms > 0)
    return np.asarray(unit)


def _novelty(features: Float, frame_rate: float) -> Float:
    """Return the novelty between each frame and the one before it, NaN near the ends."""
    length = round(NOVELTY_S * frame_rate)
    taper = np.exp(-0.5 * ((np.arange(length) + 0.5) / (NOVELTY_TAPER_S * frame_rate)) ** 2)
    present = np.hstack([features, np.ones((len(features), 1))])
    # Frame i ends up with the sum over what precedes it; the other way round for what follows.
    before = np.roll(_sums(present, taper), 1, axis=0)
    after = _sums(present[::-1], taper)[::-1]
    side = np.arange(len(features))
    near = np.minimum(side, len(features) - side) < MIN_SIDE_S * frame_rate
    weights = np.where(near, np.nan, 1.0)[:, None]
    difference = (before[:, :-1] / before[:, -1:] - after[:, :-1] / after[:, -1:]) * weights
    return np.asarray(np.square(difference).sum(axis=1))


def _sums(series: Float, taper: Float) -> Float:
    """Return each frame's weighted sum over itself and what precedes it."""
    return np.asarray(fftconvolve(series, taper[:, None], axes=0)[: len(series)])
