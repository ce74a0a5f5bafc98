"""Features on disk: ``.npy`` files, one per recording and view (`layout.VIEWS`).

They are float32; ``raw`` may also be float16.
"""

__all__ = [
    "features_exist",
    "features_exist_for_types",
    "load_features",
    "load_selected_features",
    "save_features",
    "segment_times",
]

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mess_core.errors import StorageError, nearest
from mess_core.files import save_array
from mess_core.layout import VIEWS, Layout

_DIMENSIONS = {"raw": 4, "segments": 3, "aggregated": 2}


def features_exist(layout: Layout, recording_id: str, *, view: str = "segments") -> bool:
    """Say whether a recording's features are on disk in one view."""
    return _path(layout, recording_id, view).is_file()


def features_exist_for_types(layout: Layout, recording_id: str, views: Iterable[str]) -> bool:
    """Say whether a recording's features are on disk in all of ``views``."""
    return all(features_exist(layout, recording_id, view=view) for view in views)


def _path(layout: Layout, recording_id: str, view: str) -> Path:
    if view not in VIEWS:
        raise StorageError(f"{view!r} is no view of features; {nearest(view, VIEWS)}")
    return layout.features(view, recording_id)


def load_features(
    layout: Layout, recording_id: str, *, view: str = "aggregated"
) -> npt.NDArray[np.float32]:
    """Load a recording's features.

    Parameters
    ----------
    layout : Layout
        The dataset's paths.
    recording_id : str
        The recording.
    view : str
        ``raw`` [S, L, T, D] (memory-mapped), ``segments`` [S, L, D] or ``aggregated`` [L, D].

    Returns
    -------
    ndarray of float32

    Raises
    ------
    StorageError
        If the file is missing, damaged, or not of the view's form.
    """
    return read_features(_path(layout, recording_id, view), view=view)


def read_features(path: Path, *, view: str) -> npt.NDArray[np.float32]:
    """Read one features file and check its form; see `load_features`."""
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


def load_selected_features(
    layout: Layout,
    recording_ids: Sequence[str],
    *,
    view: str = "aggregated",
    layers: Sequence[int] | None = None,
) -> dict[str, npt.NDArray[np.float32]]:
    """Load several recordings' features, all layers or some.

    Parameters
    ----------
    layout : Layout
        The dataset's paths.
    recording_ids : sequence of str
        The recordings.
    view : str
        As in `load_features`.
    layers : sequence of int, optional
        Layers to keep, in this order; all by default.

    Returns
    -------
    dict of str to ndarray
        In the order of ``recording_ids``.

    Raises
    ------
    StorageError
        As `load_features`, or if a layer does not exist.
    """
    axis = 0 if view == "aggregated" else 1
    return {
        name: _select(load_features(layout, name, view=view), layers, axis)
        for name in recording_ids
    }


def _select(
    features: npt.NDArray[np.float32], layers: Sequence[int] | None, axis: int
) -> npt.NDArray[np.float32]:
    if layers is None:
        return features
    count = features.shape[axis]
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if wrong:
        raise StorageError(f"layers {wrong} do not exist; the features have 0 to {count - 1}")
    return features.take(list(layers), axis=axis)


def save_features(
    layout: Layout, recording_id: str, features: npt.NDArray[np.float32], *, view: str
) -> Path:
    """Write a recording's features in one view, whole or not at all.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    StorageError
        If the array has not the view's number of dimensions, or holds values that are not finite.
    """
    path = _path(layout, recording_id, view)
    if features.ndim != _DIMENSIONS[view] or not np.isfinite(features).all():
        raise StorageError(
            f"{recording_id}: refusing to store {view} features of shape {features.shape}; "
            f"they need {_DIMENSIONS[view]} dimensions and finite values"
        )
    save_array(path, np.asarray(features, np.float32))
    return path


def segment_times(
    n_segments: int, *, duration_s: float, window_s: float, overlap: float
) -> npt.NDArray[np.float64]:
    """Return where a recording's windows start, in seconds, from their number.

    Parameters
    ----------
    n_segments : int
        Number of windows that extraction cut.
    duration_s : float
        Length of the recording.
    window_s, overlap : float
        As in `mess_core.extraction.audio.segment_starts`, whose rule for the tail this follows.

    Returns
    -------
    ndarray of float64 [shape=(n_segments,)]
        Within a millisecond (the recording table's precision) of the extraction's own.
    """
    grid = np.arange(n_segments) * window_s * (1 - overlap)
    return np.asarray(np.minimum(grid, max(duration_s - window_s, 0.0)))
