"""Series of any length to curves of a fixed number of frames."""

__all__ = ["mean_of", "to_curve"]

import numpy as np
import numpy.typing as npt

from mess_core.targets.registry import CURVE_FRAMES

Float = npt.NDArray[np.float64]


def mean_of(series: Float) -> float:
    """Return the mean of what is defined, NaN where nothing is."""
    defined = series[np.isfinite(series)]
    return float(defined.mean()) if len(defined) else np.nan


def to_curve(series: Float) -> Float:
    """Return the mean of each of `CURVE_FRAMES` equal cells.

    Parameters
    ----------
    series : ndarray [shape=(n,)]
        Equally spaced values, NaN where undefined.

    Returns
    -------
    ndarray [shape=(CURVE_FRAMES,)]
        NaN in a cell where nothing is defined. A series shorter than the curve gives each of its
        values to several cells.
    """
    edges = np.linspace(0, len(series), CURVE_FRAMES + 1)
    starts = np.floor(edges[:-1]).astype(np.int64)
    stops = np.maximum(np.floor(edges[1:]).astype(np.int64), starts + 1)
    cells = [mean_of(series[a:b]) for a, b in zip(starts, stops, strict=True)]
    return np.array(cells, np.float64)
