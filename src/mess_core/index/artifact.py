"""An index on disk: a folder named by the hash of its content, which is checked before it is read.

========================= ========================================================================
``index.faiss``           the stored vectors, as FAISS writes its index
``rows.npy``              what each vector is: the number of its recording, times (`ROW_TYPE`)
``recordings.json``       one list per field of a recording (`mess_core.index.index.FIELDS`)
``predicted.npy``         every row's predicted value of every aspect, float32 ``[aspects, rows]``
``projection.npz``        the arrays of `mess_core.index.projection.Projection`
``checksums.json``        SHA-256 and size in bytes of each of these files
``manifest.json``         kind, shape, facts (dataset, licence, encoder, stages), aspect map, build
========================= ========================================================================

``artifact_version_id``, the folder's name, is the SHA-256 of the checksums and the manifest without
``build`` (when and by what it was made): an index that is saved again has the same version. A
folder is written beside its place and renamed: it is whole or it is not there. No file can hold
Python objects. The hashes find damage; they do not say who wrote an artifact.

Vectors are memory-mapped, so a version that a process has open must be deleted, not changed.
"""

__all__ = [
    "CONTENT",
    "FILES",
    "SCHEMA_VERSION",
    "is_version_id",
    "load_artifact",
    "parse_manifest",
    "place",
    "read_projection",
    "save_artifact",
    "temporary_folder",
    "verify_artifact",
    "write_projection",
]

import json
import re
import shutil
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from mess_core.errors import ArtifactError
from mess_core.files import (
    atomic_path,
    file_sha256,
    fingerprint,
    save_array,
    storage_errors,
    write_json,
    write_text,
)
from mess_core.index.index import FIELDS, ROW_TYPE, Index, Rows, check_aspects
from mess_core.index.projection import Projection

#: What an index is made of.
CONTENT = ("index.faiss", "rows.npy", "recordings.json", "predicted.npy", "projection.npz")
#: Every file, in the order of uploading: a version with a manifest is complete.
FILES = (*CONTENT, "checksums.json", "manifest.json")
SCHEMA_VERSION = 5

_REQUIRED = {"kind", "factory", "n_rows", "n_recordings", "width", "facts", "aspects"}
#: Entries that are no part of the version.
_OUTSIDE = ("build", "artifact_version_id", "sha256")
_VERSION_ID = re.compile(r"[0-9a-f]{64}")
_PROJECTION = tuple(entry.name for entry in fields(Projection))
#: Of these, what is written only where there are learned spaces.
_LEARNED = ("learned", "learned_sizes")
#: Seconds after which a temporary folder is what a killed process left.
_ABANDONED_S = 24 * 3600
#: Rows whose vectors are checked at a time, to keep memory small.
_AT_ONCE = 16384
#: Characters of a value that a message shows.
_SHOWN = 200


def is_version_id(text: object) -> bool:
    """Return whether ``text`` has the form of a version id: 64 hexadecimal digits."""
    return isinstance(text, str) and _VERSION_ID.fullmatch(text) is not None


def save_artifact(index: Index, root: Path, *, build: Mapping[str, Any] | None = None) -> Path:
    """Write an index to a folder named by its content's hash.

    Returns the folder, ``root / artifact_version_id``; an undamaged one stays as it is. Raises
    `ArtifactError` if the index could not be loaded again (see `load_artifact`), and `StorageError`
    if the disk is full, read-only or not ours.

    Parameters
    ----------
    index : Index
        From `build_index`.
    root : Path
        Where artifacts of its kind lie. Made when missing.
    build : mapping, optional
        When and by what it was made, of builtins; no part of the version.
    """
    with temporary_folder(root) as folder:
        with atomic_path(folder / "index.faiss") as path:
            faiss.write_index(index.vectors, str(path))
        save_array(folder / "rows.npy", np.asarray(index.rows.table, ROW_TYPE))
        write_text(folder / "recordings.json", json.dumps(dict(index.rows.recordings)))
        save_array(folder / "predicted.npy", np.ascontiguousarray(index.predicted))
        write_projection(index.projection, folder / "projection.npz")
        checksums = {
            name: {"sha256": file_sha256(folder / name), "size": (folder / name).stat().st_size}
            for name in CONTENT
        }
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "kind": index.kind,
            "factory": index.factory,
            "n_rows": len(index.rows),
            "n_recordings": len(index.rows.numbers),
            **index.projection.describe(),
            "facts": dict(index.facts),
            "aspects": dict(index.aspects),
            "build": dict(build or {}),
        }
        version_id = _version_id(manifest, checksums)
        manifest["artifact_version_id"] = version_id
        write_json(folder / "checksums.json", checksums)
        write_json(folder / "manifest.json", {**manifest, "sha256": fingerprint(manifest)})
        load_artifact(folder)
        return place(folder, root / version_id)


def write_projection(projection: Projection, path: Path) -> None:
    """Write a projection's arrays, whole or not at all; equal arrays give equal bytes."""
    names = [name for name in _PROJECTION if projection.learned.size or name not in _LEARNED]
    arrays = {name: np.ascontiguousarray(getattr(projection, name)) for name in names}
    with atomic_path(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


def _version_id(manifest: Mapping[str, Any], checksums: Mapping[str, Any]) -> str:
    described = {key: value for key, value in manifest.items() if key not in _OUTSIDE}
    return fingerprint({"manifest": described, "checksums": checksums})


@contextmanager
def temporary_folder(root: Path) -> Iterator[Path]:
    """Give a new hidden folder in ``root`` that is gone after the block, unless it was renamed.

    Those that killed processes left there a day ago are removed. Raises `StorageError` if none can
    be made.
    """
    folder = root / f".tmp-{uuid.uuid4().hex}"
    with storage_errors(folder):
        folder.mkdir(parents=True)
    for left in root.glob(".tmp-*"):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - _ABANDONED_S:
                shutil.rmtree(left)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def place(folder: Path, target: Path) -> Path:
    """Rename a verified artifact to its place; keep one that is there already and undamaged."""
    with storage_errors(target):
        if target.exists():
            with suppress(ArtifactError):
                verify_artifact(target, version_id=target.name)
                return target
            shutil.rmtree(target)
        try:
            return folder.rename(target)
        except OSError:
            if not target.exists():  # Otherwise another process was faster.
                raise
    return target


def verify_artifact(folder: Path, *, version_id: str | None = None) -> dict[str, Any]:
    """Check the names, sizes and SHA-256 of an artifact's files, and return the manifest.

    ``folder`` and ``version_id`` are as for `load_artifact`. Raises `ArtifactError` if a file is
    missing, unknown, not readable or damaged, or the schema is another. The message names the file,
    what was expected and what was found.
    """
    return _check_files(folder, version_id, verify=True)


def _check_files(folder: Path, version_id: str | None, *, verify: bool) -> dict[str, Any]:
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is not a folder, so there is no artifact in it")
    try:
        # First: files of another schema may have other names.
        if (folder / "manifest.json").is_file():
            _check_schema((folder / "manifest.json").read_bytes(), folder / "manifest.json")
        names = {path.name for path in folder.iterdir()}
        for name in sorted(names.difference(FILES)):
            raise ArtifactError(f"{folder / name} is unknown; expected only {', '.join(FILES)}")
        for name in FILES:
            if not (folder / name).is_file():
                raise ArtifactError(f"{folder / name} is missing; fetch or build it again")
        manifest, checksums = parse_manifest(
            (folder / "manifest.json").read_bytes(),
            (folder / "checksums.json").read_bytes(),
            str(folder),
            version_id=version_id,
        )
        for name, listed in checksums.items():
            path = folder / name
            _expect(path, "size", expected=listed["size"], found=path.stat().st_size)
            if verify:
                _expect(path, "SHA-256", expected=listed["sha256"], found=file_sha256(path))
    except OSError as error:
        raise ArtifactError(
            f"{folder} cannot be read: {error}; check permissions and the disk"
        ) from error
    return manifest


def parse_manifest(
    manifest: bytes, checksums: bytes, where: str, *, version_id: str | None = None
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Read ``manifest.json`` and ``checksums.json``, and check that they make one version.

    ``where`` is the folder that they came from, for messages. Raises `ArtifactError` if one is
    damaged, the schema is another, or it is another version.
    """
    manifest_path, checksums_path = f"{where}/manifest.json", f"{where}/checksums.json"
    described = _check_schema(manifest, manifest_path)
    rest = {key: value for key, value in described.items() if key != "sha256"}
    found = described.get("sha256")
    _expect(manifest_path, "SHA-256", expected=fingerprint(rest), found=found)
    missing = sorted(_REQUIRED.difference(described))
    _expect(manifest_path, "the list of missing entries", expected=[], found=missing)
    own = described.get("artifact_version_id")
    _expect(manifest_path, "the version", expected=version_id or own, found=own)
    listed = _json_object(checksums, checksums_path)
    _expect(checksums_path, "the list of files", expected=sorted(CONTENT), found=sorted(listed))
    _expect(checksums_path, "the version", expected=own, found=_version_id(described, listed))
    return described, listed


def _check_schema(manifest: bytes, path: Path | str) -> dict[str, Any]:
    parsed = _json_object(manifest, path)
    if parsed.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} has schema version {_short(parsed.get('schema_version'))}, this package reads "
            f"{SCHEMA_VERSION}; build the index again, or use the mess-core that wrote it"
        )
    return parsed


def _json_object(content: bytes, path: Path | str) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
        if isinstance(parsed, dict):
            return parsed
        problem = f"it holds a {type(parsed).__name__}"
    except (ValueError, RecursionError) as error:
        problem = _short(error)
    raise ArtifactError(
        f"{path} is damaged: expected a JSON object, but {problem}; fetch or build it again"
    )


def _expect(path: Path | str, what: str, *, expected: object, found: object) -> None:
    if expected != found:
        raise ArtifactError(
            f"{path}: {what} is {_short(found)}, expected {_short(expected)}; the artifact is "
            "damaged or was altered: fetch or build it again"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


def load_artifact(path: Path, *, version_id: str | None = None, verify: bool = True) -> Index:
    """Load an artifact after checking it; nothing is ever unpickled.

    Its vectors are memory-mapped: they are read from the disk as searches need them, and processes
    share them.

    Raises `ArtifactError` as `verify_artifact` does, or if the files disagree with each other, or a
    value is not finite.

    Parameters
    ----------
    path : Path
        A folder as `save_artifact` writes it, or a link to one.
    version_id : str, optional
        The version that it must be; any by default.
    verify : bool
        Whether to compare each file with its SHA-256 and look at every vector. False suits who
        opens gigabytes often and has checked them before; names, sizes and shapes are still
        checked.
    """
    folder = path.resolve()  # Of a link that changes meanwhile, one artifact is read.
    manifest = _check_files(folder, version_id, verify=verify)
    projection = read_projection(folder / "projection.npz")
    for key, found in projection.describe().items():
        _expect(folder / "projection.npz", key, expected=manifest.get(key), found=found)
    rows = _read_rows(folder, manifest)
    predicted = _read_array(
        folder / "predicted.npy", np.dtype(np.float32), (len(projection.names), len(rows))
    )
    index = Index(
        kind=manifest["kind"],
        rows=rows,
        projection=projection,
        predicted=predicted,
        aspects=manifest["aspects"],
        facts=manifest["facts"],
        vectors=_read_vectors(folder / "index.faiss", manifest),
        factory=manifest["factory"],
        version_id=manifest["artifact_version_id"],
    )
    try:
        check_aspects(projection, index.aspects)
        if verify:
            rows.check(index.kind)
            _check_numbers(index)
    except ArtifactError as error:
        raise ArtifactError(f"{folder}: {error}; build the index again") from None
    return index


def read_projection(path: Path) -> Projection:
    """Read what `write_projection` wrote; refuse what is damaged or does not belong together."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = [name for name in _PROJECTION if name in archive or name not in _LEARNED]
            projection = Projection(**{name: archive[name] for name in names})
        projection.check()
    except (
        *(OSError, ValueError, TypeError, EOFError, KeyError, IndexError),
        *(zipfile.BadZipFile, ArtifactError),
    ) as error:
        raise ArtifactError(f"{path} is no projection ({_short(error)}); fit it again") from None
    return projection


def _read_rows(folder: Path, manifest: Mapping[str, Any]) -> Rows:
    path = folder / "recordings.json"
    columns = _json_object(path.read_bytes(), path)
    _expect(path, "columns", expected=list(FIELDS), found=list(columns))
    for name, column in columns.items():
        if not isinstance(column, list) or not all(isinstance(value, str) for value in column):
            raise ArtifactError(f"{path}: {name} is no list of texts; build it again")
        _expect(path, f"number of {name}", expected=manifest["n_recordings"], found=len(column))
    return Rows(columns, _read_array(folder / "rows.npy", ROW_TYPE, (manifest["n_rows"],)))


def _read_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"{path} is no array ({_short(error)}); build it again") from None
    found = (getattr(array, "dtype", None), getattr(array, "shape", None))
    _expect(path, "type and shape", expected=(dtype, shape), found=found)
    return np.asarray(array)


def _read_vectors(path: Path, manifest: Mapping[str, Any]) -> Any:
    try:
        vectors = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (RuntimeError, MemoryError) as error:
        raise ArtifactError(
            f"{path}: FAISS cannot read it ({_short(error)}); build it again"
        ) from None
    _expect(
        path,
        "width, rows and metric",
        expected=(manifest["width"], manifest["n_rows"], faiss.METRIC_INNER_PRODUCT),
        found=(vectors.d, vectors.ntotal, vectors.metric_type),
    )
    return vectors


def _check_numbers(index: Index) -> None:
    """Refuse predictions and vectors that are not finite."""
    directed = ~np.isnan(index.projection.standard_errors)
    for name, values, has_direction in zip(
        index.projection.names, index.predicted, directed, strict=True
    ):
        possible = np.isfinite(values) if has_direction else np.isnan(values)
        if not possible.all():
            row = int(np.argmin(possible))
            raise ArtifactError(
                f"predicted.npy: row {row} has the value {values[row]} of {str(name)!r}, expected "
                "a finite one, or NaN where an aspect has no direction"
            )
    # Not by `Index.stored`, which copies with as many threads as there are cores.
    refined = getattr(index.vectors, "refine_index", index.vectors)
    shape = (len(index.rows), index.projection.width)
    exact: Any = faiss.downcast_index(refined)
    stored = faiss.rev_swig_ptr(exact.get_xb(), shape[0] * shape[1])
    for start in range(0, shape[0], _AT_ONCE):
        finite = np.isfinite(stored.reshape(shape)[start : start + _AT_ONCE]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise ArtifactError(f"index.faiss: the vector of row {row} is not finite")
