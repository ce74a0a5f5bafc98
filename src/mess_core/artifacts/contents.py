"""The content files of an artifact: written from an index, and checked before anyone believes them.

========================= ========================================================================
``index.faiss``           the stored vectors, as FAISS writes its index
``rows.npy``              what each vector is: the number of its recording, start, end (`ROW_TYPE`)
``recordings.json``       one list per field of a recording (`mess_core.artifacts.rows.FIELDS`)
``predicted.npy``         every row's predicted value of every aspect, float32 ``[aspects, rows]``
``projection.npz``        the arrays of `mess_core.search.projection.Projection`, not compressed
========================= ========================================================================

None of them can hold Python objects. FAISS reads its file after everything else agreed: for an
exact index (``Flat``) header, size and every vector are checked here. What FAISS compressed cannot
be looked into without it; of such a file the kind, width, number of rows and metric are checked,
and that it is, to the last byte, what the manifest's seal stands for.
"""

__all__ = [
    "FLAT",
    "Contents",
    "check_contents",
    "read_projection",
    "write_contents",
    "write_projection",
]

import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mess_core.artifacts.manifest import expect, json_object
from mess_core.artifacts.rows import FIELDS, ROW_TYPE, Rows
from mess_core.errors import ArtifactError
from mess_core.files import atomic_path, save_array, write_text
from mess_core.search.projection import Projection

Floats = npt.NDArray[np.float32]

#: FAISS's name of the exact index.
FLAT = "Flat"

#: FAISS's header of every index: type, width, count, two unused numbers, trained, metric (0: inner
#: product). A flat index has the number of floats that follow behind it.
_HEADER = struct.Struct("<4siqqqBi")
_COUNT = struct.Struct("<Q")
_FLAT_FOURCC = b"IxFI"
_METRIC_INNER_PRODUCT = 0

#: A general block's length may differ from 1 by float32 rounding of its sum of squares.
_LENGTH_TOLERANCE = 1e-3
#: Rows whose vectors are checked at a time, to keep memory small.
_CHECKED_AT_ONCE = 65536


class Contents(NamedTuple):
    """What was read of an artifact, besides FAISS's file."""

    rows: Rows
    predicted: Floats
    projection: Projection


def write_contents(
    folder: Path,
    vectors_to: Callable[[Path], None],
    rows: Rows,
    predicted: Floats,
    projection: Projection,
) -> None:
    """Write all content files.

    Parameters
    ----------
    folder : Path
        Where to.
    vectors_to : callable
        Writes FAISS's file to the path that it is given.
    rows, predicted, projection
        Of the index.
    """
    with atomic_path(folder / "index.faiss") as path:
        vectors_to(path)
    save_array(folder / "rows.npy", np.asarray(rows.table, ROW_TYPE))
    write_text(folder / "recordings.json", json.dumps(dict(rows.recordings), allow_nan=False))
    save_array(folder / "predicted.npy", predicted)
    write_projection(projection, folder / "projection.npz")


def write_projection(projection: Projection, path: Path) -> None:
    """Write a projection's arrays, not compressed and without pickle, whole or not at all."""
    arrays = {entry.name: getattr(projection, entry.name) for entry in fields(Projection)}
    with atomic_path(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


def check_contents(folder: Path, manifest: Mapping[str, Any], *, believed: bool) -> Contents:
    """Read all content files but FAISS's, and check them against the manifest.

    Parameters
    ----------
    folder : Path
        Of the artifact.
    manifest : mapping
        Its manifest.
    believed : bool
        Whether every number was looked at before, and need not be looked at again.

    Raises
    ------
    ArtifactError
        The message names the file, what was expected and what was found.
    """
    projection = _read_projection(folder / "projection.npz", manifest)
    rows = _read_rows(folder, manifest)
    predicted = _array(folder / "predicted.npy", np.dtype("<f4"))
    shape = (len(projection.names), len(rows))
    expect(folder / "predicted.npy", "shape", expected=shape, found=predicted.shape)
    if not believed:
        _check_numbers(folder, manifest, Contents(rows, predicted, projection))
    _check_header(folder / "index.faiss", manifest)
    return Contents(rows, predicted, projection)


def _check_numbers(folder: Path, manifest: Mapping[str, Any], contents: Contents) -> None:
    rows, predicted, projection = contents
    try:
        rows.check(manifest["kind"])
    except ArtifactError as error:
        raise ArtifactError(f"{folder / 'rows.npy'}: {error}") from None
    directed = ~np.isnan(projection.standard_errors)
    if not (np.isfinite(predicted[directed]).all() and np.isnan(predicted[~directed]).all()):
        raise ArtifactError(
            f"{folder / 'predicted.npy'} holds values that are not finite, or values of an aspect "
            "without a direction; build it again"
        )
    if manifest["factory"] == FLAT:
        _check_vectors(folder / "index.faiss", projection, len(rows))


def _array(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Map a whole ``.npy`` file of one type."""
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise ArtifactError(f"{path} is no plain array: {error}; fetch or build it again") from None
    expect(path, "dtype", expected=dtype, found=array.dtype)
    behind = path.stat().st_size - getattr(array, "offset", 0) - array.nbytes
    expect(path, "bytes behind the array", expected=0, found=behind)
    return np.asarray(array)


def _read_rows(folder: Path, manifest: Mapping[str, Any]) -> Rows:
    path = folder / "recordings.json"
    columns = json_object(path.read_bytes(), path)
    expect(path, "columns", expected=list(FIELDS), found=list(columns))
    count = manifest["n_recordings"]
    for name, column in columns.items():
        if not isinstance(column, list) or not all(type(value) is str for value in column):
            raise ArtifactError(f"{path}: {name} is no list of texts; build it again")
        expect(path, f"number of {name}", expected=count, found=len(column))
    table = _array(folder / "rows.npy", ROW_TYPE)
    expect(folder / "rows.npy", "shape", expected=(manifest["n_rows"],), found=table.shape)
    return Rows(columns, table)


def read_projection(path: Path) -> Projection:
    """Read what `write_projection` wrote.

    Raises
    ------
    ArtifactError
        If it is damaged, or its arrays do not belong together.
    """
    names = [entry.name for entry in fields(Projection)]
    try:
        with zipfile.ZipFile(path) as archive:
            members = [(m.filename, m.compress_type) for m in archive.infolist()]
        # Stored members only: what is not compressed cannot swell.
        stored = [(f"{name}.npy", zipfile.ZIP_STORED) for name in names]
        expect(path, "members", expected=stored, found=members)
        with np.load(path, allow_pickle=False) as archive:
            projection = Projection(**{name: archive[name] for name in names})
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, SyntaxError) as error:
        raise ArtifactError(f"{path} is no archive of plain arrays: {error}") from None
    try:
        projection.check()
    except (ArtifactError, IndexError, TypeError) as error:
        raise ArtifactError(f"{path}: {error}; build it again") from None
    return projection


def _read_projection(path: Path, manifest: Mapping[str, Any]) -> Projection:
    projection = read_projection(path)
    described = {key: manifest[key] for key in ("layers", "dims", "width", "general", "blocks")}
    expect(path, "its description", expected=described, found=projection.describe())
    return projection


def _check_header(path: Path, manifest: Mapping[str, Any]) -> None:
    n_rows, width = manifest["n_rows"], manifest["width"]
    with path.open("rb") as file:
        header = file.read(_HEADER.size + _COUNT.size)
    if len(header) < _HEADER.size + _COUNT.size:
        raise ArtifactError(f"{path} has {len(header)} bytes, too few for any index")
    kind, d, n, _, _, trained, metric = _HEADER.unpack_from(header)
    expect(
        path,
        "FAISS header (width, rows, trained, metric)",
        expected=(width, n_rows, 1, _METRIC_INNER_PRODUCT),
        found=(d, n, trained, metric),
    )
    expect(
        path,
        f"exactness of the kind {kind!r}",
        expected=manifest["factory"] == FLAT,
        found=kind == _FLAT_FOURCC,
    )
    if kind == _FLAT_FOURCC:
        (floats,) = _COUNT.unpack_from(header, _HEADER.size)
        expect(path, "number of floats", expected=n_rows * width, found=floats)
        size = len(header) + floats * np.dtype(np.float32).itemsize
        expect(path, f"size in bytes for {n_rows} rows", expected=size, found=path.stat().st_size)


def _check_vectors(path: Path, projection: Projection, n_rows: int) -> None:
    offset = _HEADER.size + _COUNT.size
    shape = (n_rows, projection.width)
    expected = offset + n_rows * projection.width * 4
    expect(path, "size in bytes", expected=expected, found=path.stat().st_size)
    stored = np.memmap(path, dtype="<f4", mode="r", offset=offset, shape=shape)
    for start in range(0, n_rows, _CHECKED_AT_ONCE):
        vectors = np.asarray(stored[start : start + _CHECKED_AT_ONCE])
        wrong = ~_plausible(vectors, projection)
        if wrong.any():
            raise ArtifactError(
                f"{path}: the vector of row {start + int(np.argmax(wrong))} is not finite, or its "
                "general block has not the length 1, or its squared lengths are not those of its "
                "blocks: build the index again"
            )


def _plausible(vectors: Floats, projection: Projection) -> npt.NDArray[np.bool_]:
    general = vectors[:, : projection.general]
    lengths = np.einsum("ij,ij->i", general, general)
    fine = np.abs(lengths - 1.0) <= _LENGTH_TOLERANCE
    fine &= np.isfinite(vectors).all(axis=1)
    for aspect in projection.aspects.values():
        block, norm = vectors[:, aspect.stored], vectors[:, aspect.norm]
        squares = np.einsum("ij,ij->i", block, block)
        fine &= np.abs(squares - norm) <= _LENGTH_TOLERANCE * (1.0 + np.abs(norm))
    return np.asarray(fine)
