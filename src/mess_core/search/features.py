"""An index to search from what lies on disk: an artifact, or a folder of aggregated features."""

__all__ = ["load_features"]

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import SearchError, nearest
from mess_core.index.artifact import load_artifact
from mess_core.index.fitting import fit_projection
from mess_core.index.index import Floats, Index, Row, build_index
from mess_core.recordings import read_recordings


def load_features(
    source: Path, *, layers: Sequence[int] | None = None, table: Path | None = None
) -> Index:
    """Load an artifact, or index a folder of aggregated features in memory.

    Raises `SearchError` if features or the table do not fit, and `ArtifactError` if an artifact is
    damaged or features cannot be indexed.

    Parameters
    ----------
    source : Path
        An artifact's folder, or a folder of ``{recording_id}.npy`` of shape (layers, dims). The
        latter gives an index without an aspect map.
    layers : sequence of int, optional
        For a folder of features: the layers to keep; all of them when not given.
    table : Path, optional
        For a folder of features: the recording table, which gives works, performers and titles.
    """
    if (source / "manifest.json").exists():
        if layers is not None or table is not None:
            raise SearchError(f"{source} is an artifact: it has its own layers and rows, give none")
        return load_artifact(source)
    paths = sorted(source.glob("*.npy"))
    if not paths:
        raise SearchError(f"{source} holds neither an artifact nor .npy files of features")
    features = _stack(paths)
    chosen = range(features.shape[1]) if layers is None else layers
    for layer in chosen:
        if not 0 <= layer < features.shape[1]:
            raise SearchError(
                f"layer {layer} does not exist; the features have 0-{features.shape[1] - 1}"
            )
    return build_index(
        features,
        _rows([path.stem for path in paths], table),
        kind="recordings",
        projection=fit_projection(lambda layer: features[:, layer], chosen),
        aspects={},
        facts={},
    )


def _stack(paths: Sequence[Path]) -> Floats:
    first = _read(paths[0])
    features = np.empty((len(paths), *first.shape), np.float32)
    for place, path in enumerate(paths):
        array = _read(path)
        if array.shape != first.shape:
            raise SearchError(
                f"{path} has shape {array.shape}, but {paths[0].name} has {first.shape}; "
                "extract both with the same encoder"
            )
        features[place] = array
    return features


def _read(path: Path) -> npt.NDArray[np.floating[Any]]:
    try:
        array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SearchError(f"{path} is no array file ({error}); extract it again") from None
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
        raise SearchError(
            f"{path} holds {array.dtype} of shape {array.shape}, expected floats (layers, dims): "
            "give the folder of aggregated features"
        )
    return array


def _rows(recording_ids: Sequence[str], table: Path | None) -> list[Row]:
    if table is None:
        return [Row(name, "", "", "", "", "", 0.0, 0.0) for name in recording_ids]
    known = {recording.recording_id: recording for recording in read_recordings(table)}
    for name in recording_ids:
        if name not in known:
            raise SearchError(f"recording {name!r} is not in {table}: {nearest(name, known)}")
    return [Row.of(known[name]) for name in recording_ids]
