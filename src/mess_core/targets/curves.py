"""Curves over time: series of any length to a fixed number of frames, and the curves' parts.

A curve has a level, an extent and a shape, so that recordings can be alike in one and differ in
another: "the same contour, but more restrained".

* `level`: the mean of the curve.
* `extent`: its spread, the standard deviation.
* `shape`: its first four half waves. The curve is standardised (level 0, extent 1), so its cosine
  coefficients say nothing about level and extent; their squares are shares of its variance. The
  first is positive for what falls, the second for what is high at both ends, and so on.

`PARTS` names them. Every curve of the registry that runs over time has all three as targets of
their own; vectors over pitch classes or bins have none, because neither their order nor the mean of
their shares means anything.
"""

__all__ = ["PARTS", "Float", "extent", "level", "mean_of", "shape", "smoothed", "to_curve"]

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mess_core.targets.registry import CURVE_FRAMES, SHAPE_COEFFICIENTS

Float = npt.NDArray[np.float64]

#: Fewer defined cells than this share give no extent and no shape.
MIN_DEFINED = 0.5

#: Spread, relative to the largest absolute value, up to which a curve is constant but for rounding.
CONSTANT = 1e-9


def mean_of(series: Float) -> float:
    """Return the mean of what is defined, NaN where nothing is."""
    defined = series[np.isfinite(series)]
    return float(defined.mean()) if len(defined) else np.nan


def to_curve(series: Float) -> Float:
    """Return the mean of each of `CURVE_FRAMES` equal cells of an equally spaced series.

    NaN in a cell where nothing is defined. A series shorter than the curve gives each of its values
    to several cells.
    """
    if not len(series):
        return np.full(CURVE_FRAMES, np.nan)
    starts = np.arange(CURVE_FRAMES) * len(series) // CURVE_FRAMES
    defined = np.isfinite(series)
    counts = np.add.reduceat(defined.astype(np.float64), starts)
    sums = np.add.reduceat(np.where(defined, series, 0.0), starts)
    undefined = np.full(CURVE_FRAMES, np.nan)
    return np.asarray(np.divide(sums, counts, out=undefined, where=counts > 0))


def smoothed(series: Float, kernel: Float) -> Float:
    """Return the convolution with a kernel, as long as the series, zeros around it."""
    start = (len(kernel) - 1) // 2
    return np.convolve(series, kernel)[start : start + len(series)]


def level(curve: Float) -> float:
    """Return the mean of a curve's defined cells, in its unit; NaN where none is defined."""
    return mean_of(curve)


def extent(curve: Float) -> float:
    """Return the standard deviation of a curve's cells, NaN where less than half are defined."""
    defined = curve[np.isfinite(curve)]
    return float(defined.std()) if len(defined) >= MIN_DEFINED * len(curve) else np.nan


def shape(curve: Float) -> Float:
    """Return the cosine coefficients 1 to 4 of the standardised curve.

    Those of the orthonormal DCT-II over the root of the number of cells: each between -1 and 1, the
    sum of their squares at most 1. Gaps are bridged by straight lines, and levelled at the ends.
    NaN where less than half of the cells are defined, or where nothing moves.
    """
    cells = np.arange(len(curve))
    defined = np.isfinite(curve)
    if defined.sum() < MIN_DEFINED * len(curve):
        return np.full(SHAPE_COEFFICIENTS, np.nan)
    whole = np.interp(cells, cells[defined], curve[defined])
    centred = whole - whole.mean()
    spread = np.sqrt(np.mean(centred**2))
    if spread <= CONSTANT * np.abs(whole).max():
        return np.full(SHAPE_COEFFICIENTS, np.nan)
    return np.asarray(_cosines(len(curve)) @ (centred / spread))


@lru_cache(maxsize=2)
def _cosines(length: int) -> Float:
    orders = np.arange(1, SHAPE_COEFFICIENTS + 1)[:, None]
    angles = np.pi * orders * (np.arange(length) + 0.5) / length
    return np.asarray(np.cos(angles) * np.sqrt(2) / length)


#: The function of each part, by the ending of its target's name.
PARTS: dict[str, Callable[[Float], float | Float]] = {
    "level": level,
    "extent": extent,
    "shape": shape,
}
