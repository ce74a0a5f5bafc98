"""The content files of an artifact: written from an index, and checked before anyone believes them.

========================= ========================================================================
``index.faiss``           the stored vectors, as FAISS writes its index
``rows.npy``              what each vector is: the number of its recording, start, end (`ROW_TYPE`)
``recordings.json``       one list per field of a recording (`mess_core.index.rows.FIELDS`)
``predicted.npy``         every row's predicted value of every aspect, float32 ``[aspects, rows]``
``projection.npz``        the arrays of `mess_core.index.projection.Projection`, not compressed
========================= ========================================================================

None of them can hold Python objects, and nothing is unpacked. What is read into memory is limited
before it is read; arrays are mapped, and allocated for what the file has, never for what its header
claims.

FAISS reads its file after everything else agreed. Only two kinds are let through
(`mess_core.index.factory`): an exact index (``Flat``), and one that has codes in front of the
exact vectors (``IVF..,PQ..,RFlat``). Of both, headers and every exact vector are checked here; in
the first, FAISS has nothing left to interpret. Codes and the lists that they are in cannot be
looked into without it: of them it is checked that they are, to the last byte, what the manifest's
seal stands for; and once they are open, that the lists hold each row once. Damage is found; but
somebody who makes such a file on purpose, and seals it, gives FAISS codes of his choice, and FAISS
is not made to withstand that (of 1500 files damaged at random, two kept version 1.15 busy without
end). Open compressed indices only of those whose programs you would run.
"""

__all__ = [
    "FLAT",
    "Contents",
    "check_aspects",
    "check_contents",
    "read_projection",
    "write_contents",
    "write_projection",
]

import json
import math
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import fields
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from mess_core.errors import ArtifactError
from mess_core.files import atomic_path, save_array, write_text
from mess_core.index.manifest import expect, json_object, read_limited, shortened
from mess_core.index.projection import Projection
from mess_core.index.rows import FIELDS, ROW_TYPE, Rows

Floats = npt.NDArray[np.float32]

#: FAISS's name of the exact index.
FLAT = "Flat"

#: FAISS's header of every index: type, width, count, two unused numbers, trained, metric (0: inner
#: product). A flat index has the number of floats that follow behind it.
_HEADER = struct.Struct("<4siqqqBi")
_COUNT = struct.Struct("<Q")
_FLAT_FOURCC, _REFINED_FOURCC, _CODED_FOURCC = b"IxFI", b"IxRF", b"IwPf"
#: Behind the exact vectors of an index with codes: how many candidates each hit has.
_FACTOR = struct.Struct("<f")
_LARGEST_FACTOR = 1e6
_METRIC_INNER_PRODUCT = 0

#: Bytes that ``recordings.json`` (a million recordings) and ``projection.npz`` (100 times that of
#: an encoder of 13 layers with 768 numbers) may have.
_LARGEST_RECORDINGS, _LARGEST_PROJECTION = 2**28, 2**28

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
    save_array(folder / "predicted.npy", np.ascontiguousarray(predicted))
    write_projection(projection, folder / "projection.npz")


def write_projection(projection: Projection, path: Path) -> None:
    """Write a projection's arrays, not compressed and without pickle, whole or not at all."""
    # In one order of memory: equal arrays give equal bytes.
    arrays = {
        entry.name: np.ascontiguousarray(getattr(projection, entry.name))
        for entry in fields(Projection)
    }
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
    _check_aspects(folder / "manifest.json", projection, manifest)
    rows = _read_rows(folder, manifest)
    shape = (len(projection.names), len(rows))
    predicted = _mapped_array(folder / "predicted.npy", np.dtype("<f4"), shape)
    _check_header(folder / "index.faiss", manifest)
    contents = Contents(rows, predicted, projection)
    if not believed:
        _check_numbers(folder, manifest, contents)
    return contents


def _check_numbers(folder: Path, manifest: Mapping[str, Any], contents: Contents) -> None:
    rows, predicted, projection = contents
    try:
        rows.check(manifest["kind"])
    except ArtifactError as error:
        raise ArtifactError(f"{folder / 'rows.npy'}: {error}") from None
    _check_predicted(folder / "predicted.npy", predicted, projection)
    _check_vectors(folder / "index.faiss", manifest, projection)


def _check_predicted(path: Path, predicted: Floats, projection: Projection) -> None:
    directed = ~np.isnan(projection.standard_errors)
    for name, values, has_direction in zip(projection.names, predicted, directed, strict=True):
        possible = np.isfinite(values) if has_direction else np.isnan(values)
        if not possible.all():
            row = int(np.argmin(possible))
            raise ArtifactError(
                f"{path}: row {row} has the value {values[row]} of {str(name)!r}, expected a "
                "finite one, or none (NaN) where an aspect has no direction; build the index again"
            )


def check_aspects(projection: Projection, aspects: Mapping[str, Any]) -> None:
    """Refuse an aspect map that is malformed, or of other aspects than the projection.

    Parameters
    ----------
    projection : Projection
        Its aspects must be those that the map has resolved, each on the layer of the map.
    aspects : mapping
        The content of ``aspects.json``; empty when aspects were not probed.

    Raises
    ------
    ArtifactError
        The message names the aspects.
    """
    known = aspects.get("aspects", {})
    if not isinstance(known, dict) or not all(_is_entry(entry) for entry in known.values()):
        raise ArtifactError(
            "the aspect map is malformed: expected aspects, each with resolved (true or false), "
            "layer and r2 (a number or null); resolve the aspects again"
        )
    resolved = {name: entry["layer"] for name, entry in known.items() if entry["resolved"]}
    layers = dict(zip(projection.names.tolist(), projection.aspect_layers.tolist(), strict=True))
    if aspects and resolved != layers:
        raise ArtifactError(
            f"the aspect map has resolved {shortened(resolved)} (aspect and layer), but the "
            f"projection has {shortened(layers)}; fit the projection and build the index again"
        )


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("resolved"), bool)
        and all(entry.get(key, "") is None or _is_number(entry.get(key)) for key in ("layer", "r2"))
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_aspects(path: Path, projection: Projection, manifest: Mapping[str, Any]) -> None:
    try:
        check_aspects(projection, manifest["aspects"])
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None


def _read_header(file: IO[bytes], path: Path | str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and type that the header of a ``.npy`` file claims, and nothing more."""
    try:
        # Of other versions a header may be as long as the file. numpy's parser is given what may
        # be hostile, and raises more than it documents.
        expect(path, "format", expected=(1, 0), found=npy_format.read_magic(file))
        shape, is_fortran, dtype = npy_format.read_array_header_1_0(file)
    except Exception as error:
        raise ArtifactError(
            f"{path} is no plain array: {shortened(error)}; fetch or build the artifact again"
        ) from None
    if is_fortran or min(shape, default=0) < 0 or len(shape) > 2:
        order = "columns" if is_fortran else "rows"
        raise ArtifactError(
            f"{path}: shape {shortened(shape)}, stored by {order}, is not what this package "
            "writes; build it again"
        )
    return shape, dtype


def _mapped_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Map a whole ``.npy`` file of a type and shape that are known."""
    with path.open("rb") as file:
        found, found_dtype = _read_header(file, path)
        offset = file.tell()
    expect(path, "dtype", expected=dtype, found=found_dtype)
    expect(path, "shape", expected=shape, found=found)
    return _mapped(path, dtype, shape, offset)


def _mapped(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int
) -> npt.NDArray[Any]:
    size = offset + math.prod(shape) * dtype.itemsize
    expect(path, f"size in bytes for the shape {shape}", expected=size, found=path.stat().st_size)
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape))


def _read_rows(folder: Path, manifest: Mapping[str, Any]) -> Rows:
    path = folder / "recordings.json"
    columns = json_object(read_limited(path, _LARGEST_RECORDINGS), path)
    expect(path, "columns", expected=list(FIELDS), found=list(columns))
    for name, column in columns.items():
        if not _are_texts(column):
            raise ArtifactError(f"{path}: {name} is no list of texts; build it again")
        expect(path, f"number of {name}", expected=manifest["n_recordings"], found=len(column))
    table = _mapped_array(folder / "rows.npy", ROW_TYPE, (manifest["n_rows"],))
    return Rows(columns, table)


def _are_texts(column: object) -> bool:
    if not isinstance(column, list) or not all(type(value) is str for value in column):
        return False
    try:
        # JSON can hold halves of characters, which nobody could print.
        "".join(column).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_projection(path: Path) -> Projection:
    """Read what `write_projection` wrote.

    Raises
    ------
    ArtifactError
        If it is damaged, or its arrays do not belong together.
    """
    members = _unpack(read_limited(path, _LARGEST_PROJECTION), path)
    names = [entry.name for entry in fields(Projection)]
    expect(path, "members", expected=[f"{name}.npy" for name in names], found=list(members))
    arrays = {name: _parse(members[f"{name}.npy"], f"{path}: {name}") for name in names}
    try:
        projection = Projection(**arrays)
        projection.check()
    except (ArtifactError, IndexError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: {error}; build it again") from None
    return projection


def _unpack(content: bytes, path: Path) -> dict[str, bytes]:
    """Return the members of an archive that is not compressed."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            members = archive.infolist()
            # What is stored cannot swell, unless its members share bytes.
            if any(
                member.compress_type != zipfile.ZIP_STORED
                or member.compress_size != member.file_size
                for member in members
            ):
                raise ValueError("its members are compressed")
            if sum(member.file_size for member in members) > len(content):
                raise ValueError("its members are larger than itself")
            return {member.filename: archive.read(member) for member in members}
    except Exception as error:  # zipfile is given what may be hostile, too.
        raise ArtifactError(
            f"{path} is no archive of plain arrays: {shortened(error)}; fetch or build the "
            "artifact again"
        ) from None


def _parse(content: bytes, what: str) -> npt.NDArray[Any]:
    file = BytesIO(content)
    shape, dtype = _read_header(file, what)
    # Numbers and texts: no objects, and nothing of no size.
    if dtype.kind not in "fiU" or not dtype.itemsize or dtype != dtype.newbyteorder("<"):
        raise ArtifactError(f"{what} has the type {shortened(dtype)}; build it again")
    size = file.tell() + math.prod(shape) * dtype.itemsize
    expect(what, f"size in bytes for the shape {shape}", expected=size, found=len(content))
    array = np.frombuffer(content, dtype, offset=file.tell())
    if dtype.kind == "U" and not _are_characters(array.view("<u4")):
        raise ArtifactError(f"{what} holds characters that do not exist; build it again")
    return array.reshape(shape).copy()


def _are_characters(codes: npt.NDArray[np.uint32]) -> bool:
    # Python breaks off with a SystemError at what is beyond, and cannot print halves of characters.
    surrogates = codes >> 11 == 0xD800 >> 11
    return not (surrogates | (codes > sys.maxunicode)).any()


def _read_projection(path: Path, manifest: Mapping[str, Any]) -> Projection:
    projection = read_projection(path)
    found = projection.describe()
    described = {key: manifest[key] for key in found}
    expect(path, "its description", expected=described, found=found)
    return projection


def _check_header(path: Path, manifest: Mapping[str, Any]) -> None:
    """Check what FAISS's file says of itself, and of the exact vectors in it."""
    exact = manifest["factory"] == FLAT
    offset = _vectors_offset(path, manifest)
    with path.open("rb") as file:
        outer, coded = file.read(_HEADER.size), file.read(len(_CODED_FOURCC))
        file.seek(offset - _HEADER.size - _COUNT.size)
        inner, count = file.read(_HEADER.size), file.read(_COUNT.size)
        file.seek(-_FACTOR.size, SEEK_END)
        (factor,) = _FACTOR.unpack(file.read(_FACTOR.size))
    _check_one(path, outer, _FLAT_FOURCC if exact else _REFINED_FOURCC, manifest)
    _check_one(path, inner, _FLAT_FOURCC, manifest)
    floats = manifest["n_rows"] * manifest["width"]
    expect(path, "number of floats", expected=floats, found=_COUNT.unpack(count)[0])
    if exact:
        return
    expect(path, "kind of what finds candidates", expected=_CODED_FOURCC, found=coded)
    if not 1 <= factor <= _LARGEST_FACTOR:
        raise ArtifactError(
            f"{path}: FAISS's k_factor is {factor}, expected 1 to {_LARGEST_FACTOR}; build it again"
        )


def _check_one(path: Path, header: bytes, fourcc: bytes, manifest: Mapping[str, Any]) -> None:
    kind, d, n, _, _, trained, metric = _HEADER.unpack(header)
    expect(
        path,
        "FAISS header (kind, width, rows, trained, metric)",
        expected=(fourcc, manifest["width"], manifest["n_rows"], 1, _METRIC_INNER_PRODUCT),
        found=(kind, d, n, trained, metric),
    )


def _vectors_offset(path: Path, manifest: Mapping[str, Any]) -> int:
    """Return where the exact vectors begin."""
    headers = _HEADER.size + _COUNT.size
    bytes_of: int = manifest["n_rows"] * manifest["width"] * np.dtype(np.float32).itemsize
    size = path.stat().st_size
    if manifest["factory"] == FLAT:
        rows = f"size in bytes for {manifest['n_rows']} rows"
        expect(path, rows, expected=headers + bytes_of, found=size)
        return headers
    offset: int = size - _FACTOR.size - bytes_of
    if offset < 2 * headers:
        raise ArtifactError(
            f"{path} has {size} bytes, too few for {manifest['n_rows']} rows; the artifact is "
            "damaged or was altered: fetch or build it again"
        )
    return offset


def _check_vectors(path: Path, manifest: Mapping[str, Any], projection: Projection) -> None:
    n_rows, offset = manifest["n_rows"], _vectors_offset(path, manifest)
    shape = (n_rows, projection.width)
    stored = np.memmap(path, dtype="<f4", mode="r", offset=offset, shape=shape)
    for start in range(0, n_rows, _CHECKED_AT_ONCE):
        vectors = np.asarray(stored[start : start + _CHECKED_AT_ONCE])
        with np.errstate(all="ignore"):
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
