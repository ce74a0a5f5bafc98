"""Features on disk: ``.npy`` files, one per recording and view (`layout.VIEWS`).

They are float32; ``raw`` may also be float16.
"""

__all__ = ["load_features", "segment_times"]

import numpy as np
import numpy.typing as npt

from mess_core.errors import StorageError, nearest
from mess_core.layout import VIEWS, Layout

_DIMENSIONS = {"raw": 4, "segments": 3, "aggregated": 2}


def load_features(
    layout: Layout, recording_id: str, *, view: str = "aggregated"
) -> npt.NDArray[np.float32]:
    """Load a recording's features.

    ``view`` is ``raw`` [S, L, T, D] (memory-mapped), ``segments`` [S, L, D] or ``aggregated``
    [L, D]. Another view, and a file that is missing, damaged or not of the view's form, are a
    StorageError.
    """
    if view not in VIEWS:
        raise StorageError(f"{view!r} is no view of features; {nearest(view, VIEWS)}")
    path = layout.features(view, recording_id)
    again = "delete it and run snakemake again"
    try:
        array = np.load(path, mmap_mode="r" if view == "raw" else None, allow_pickle=False)
    except FileNotFoundError:
        raise StorageError(f"{path} does not exist; run snakemake to make it") from None
    except (ValueError, EOFError, OSError) as error:
        raise StorageError(f"{path} is damaged ({error}); {again}") from None
    dtypes = ("float32", "float16") if view == "raw" else ("float32",)
    if array.ndim != _DIMENSIONS[view] or array.dtype.name not in dtypes or 0 in array.shape:
        raise StorageError(
            f"{path} holds {array.dtype} {array.shape}, {view} features are "
            f"{' or '.join(dtypes)} with {_DIMENSIONS[view]} dimensions; {again}"
        )
    if view != "raw" and not np.isfinite(array).all():
        raise StorageError(f"{path} holds values that are not finite; {again}")
    return np.asarray(array) if view != "raw" else array


def segment_times(
    n_segments: int, *, duration_s: float, window_s: float, overlap: float
) -> npt.NDArray[np.float64]:
    """Return where a recording's windows start, in seconds [shape=(n_segments,)].

    Follows `mess_core.extraction.audio.segment_starts`, within a millisecond (the recording table's
    precision of ``duration_s``).
    """
    grid = np.arange(n_segments) * window_s * (1 - overlap)
    return np.asarray(np.minimum(grid, max(duration_s - window_s, 0.0)))
