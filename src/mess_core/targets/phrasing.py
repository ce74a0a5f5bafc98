"""Phrasing, as the borders that timbre and harmony make.

* `novelty_curve`: how much what follows differs from what went before, in timbre and harmony, over
  time. Foote (2000, *Automatic audio segmentation using a measure of audio novelty*) compares all
  moments within two seconds either side with each other, and subtracts the similarity across the
  moment from the similarity within the sides: a checkerboard kernel with Gaussian taper along the
  diagonal of the self-similarity matrix. Similarity here is the mean of two cosines, of the timbre
  (MFCC 1 to 12: the form of the spectrum, not its level) and of the chroma. An inner product makes
  the kernel's sum the squared distance between the weighted means of both sides, so that no matrix
  is needed and the cost is linear in the recording's length.

Arches of loudness (Todd 1992) are no count of phrases: counting them ran against analysts' counts.
"""

__all__ = ["novelty", "novelty_curve"]

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve

from mess_core.targets.curves import Float, to_curve
from mess_core.targets.registry import CURVE_FRAMES

#: How far novelty looks to either side, s, and the standard deviation of the taper.
NOVELTY_S = 2.0
NOVELTY_TAPER_S = 1.0

#: At least so much has to lie on either side of a moment, s.
MIN_SIDE_S = 0.5


def novelty_curve(mfcc: npt.NDArray[np.float32], chroma: Float, frame_rate: float) -> Float:
    """Return Foote's novelty over time.

    At least 0 (nothing changes) [shape=(64,)]; 1 where what follows is orthogonal to what went
    before and each side is steady. NaN within half a second of the ends, and without a pitch.
    """
    features = np.hstack([_directions(mfcc[:, 1:]), _directions(chroma)]) / np.sqrt(2)
    if not chroma.any():
        return np.full(CURVE_FRAMES, np.nan)
    return to_curve(novelty(features, frame_rate))


def _directions(vectors: npt.NDArray[np.floating]) -> Float:
    """Return vectors of unit length, zero where they are zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros(vectors.shape), where=norms > 0)
    return np.asarray(unit)


def novelty(features: Float, frame_rate: float, reach_s: float = NOVELTY_S) -> Float:
    """Return the novelty between each frame and the one before it, NaN near the ends.

    It looks ``reach_s`` to either side, with a taper that is as much wider.
    """
    length = round(reach_s * frame_rate)
    taper_s = NOVELTY_TAPER_S * reach_s / NOVELTY_S
    taper = np.exp(-0.5 * ((np.arange(length) + 0.5) / (taper_s * frame_rate)) ** 2)
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
