"""An index on disk: a folder named by the hash of its content, checked before anything is believed.

========================= ========================================================================
``index.faiss``           the stored vectors, as FAISS writes an `IndexFlatIP`
``rows.json``             what each vector is: one list per field of `Row`
``projection.npz``        ``mean``: the corpus mean of each layer (no pickle)
``checksums.json``        SHA-256 and size of the three files above
``manifest.json``         schema version, kind, metric, counts, layers, dims, aspect map, facts;
                          ``build`` (time, library versions), the version id, and a seal over it all
========================= ========================================================================

``artifact_version_id`` is the SHA-256 of the checksums and of the manifest without ``build``:
saving the same index again, on any day and machine, gives the same id. The manifest's ``sha256``
seals the rest of it. Both JSON files have one canonical form, so that any changed byte is found.

A folder is written beside its final place and renamed: it is whole or it is not there.
"""

__all__ = [
    "CONTENT",
    "FILES",
    "is_version_id",
    "load_artifact",
    "parse_checksums",
    "parse_manifest",
    "save_artifact",
    "settle",
    "temporary_folder",
    "verify_artifact",
    "verify_kept",
]

import json
import re
import shutil
import struct
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from mess_core.artifacts.index import Floats, Index, Row, check_aspects, check_rows
from mess_core.errors import ArtifactError
from mess_core.files import atomic_path, file_sha256, fingerprint, write_json, write_text

SCHEMA_VERSION = 1
METRIC = "inner_product"

CONTENT = ("index.faiss", "rows.json", "projection.npz")
#: Every file, in the order of sending: a version with a manifest is complete.
FILES = (*CONTENT, "checksums.json", "manifest.json")

#: FAISS's header of a flat inner-product index: type, width, count, two unused numbers, trained,
#: metric (0: inner product), number of floats that follow.
_HEADER = struct.Struct("<4siqqqBiQ")
_FOURCC = b"IxFI"
_METRIC_INNER_PRODUCT = 0

#: A stored vector's length may differ from 1 by float32 rounding of its sum of squares.
_LENGTH_TOLERANCE = 1e-3
#: Rows whose vectors are checked at a time, to keep memory small.
_CHECKED_AT_ONCE = 4096

_VERSION_ID = re.compile(r"[0-9a-f]{64}")


class _Contents(NamedTuple):
    manifest: dict[str, Any]
    rows: tuple[Row, ...]
    mean: Floats


def is_version_id(text: str) -> bool:
    """Return whether ``text`` has the form of a version id: 64 hexadecimal digits."""
    return _VERSION_ID.fullmatch(text) is not None


def save_artifact(index: Index, root: Path) -> Path:
    """Write an index to a folder named by its content's hash.

    Parameters
    ----------
    index : Index
        From `build_index`.
    root : Path
        Where artifacts of its kind lie. Made when missing.

    Returns
    -------
    Path
        ``root / artifact_version_id``. A folder of that name is left untouched.

    Raises
    ------
    ArtifactError
        If a folder of that name exists and is damaged.
    """
    with temporary_folder(root) as folder:
        with atomic_path(folder / "index.faiss") as path:
            faiss.write_index(index.flat, str(path))
        write_text(folder / "rows.json", json.dumps(_columns(index.rows), allow_nan=False))
        with atomic_path(folder / "projection.npz") as path:
            np.savez(path, mean=index.mean)
        checksums = {
            name: {"sha256": file_sha256(folder / name), "size": (folder / name).stat().st_size}
            for name in CONTENT
        }
        write_json(folder / "checksums.json", checksums)
        manifest = _seal(_describe(index), checksums)
        write_json(folder / "manifest.json", manifest)
        return settle(folder, root / str(manifest["artifact_version_id"]))


def _columns(rows: tuple[Row, ...]) -> dict[str, list[Any]]:
    return {field.name: [getattr(row, field.name) for row in rows] for field in fields(Row)}


def _describe(index: Index) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": index.kind,
        "metric": METRIC,
        "n_rows": len(index.rows),
        "n_recordings": len(index.positions),
        "layers": list(index.layers),
        "dims": index.mean.shape[1],
        "facts": dict(index.facts),
        "aspects": dict(index.aspects),
    }


def _seal(described: Mapping[str, Any], checksums: Mapping[str, Any]) -> dict[str, Any]:
    unsealed = {
        **described,
        "build": {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "libraries": {"faiss": faiss.__version__, "numpy": np.__version__},
        },
        "artifact_version_id": _version_id(described, checksums),
    }
    return {**unsealed, "sha256": fingerprint(unsealed)}


def _version_id(manifest: Mapping[str, Any], checksums: Mapping[str, Any]) -> str:
    outside = ("build", "artifact_version_id", "sha256")
    described = {key: value for key, value in manifest.items() if key not in outside}
    return fingerprint({"manifest": described, "checksums": checksums})


@contextmanager
def temporary_folder(root: Path) -> Iterator[Path]:
    """Give a new hidden folder in ``root`` that is gone after the block, unless it was renamed."""
    folder = root / f".tmp-{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def settle(folder: Path, target: Path) -> Path:
    """Rename a finished artifact to its place; leave one that is there already as it is.

    Returns
    -------
    Path
        ``target``.

    Raises
    ------
    ArtifactError
        If ``target`` exists and is damaged.
    """
    if not target.exists():
        try:
            return folder.rename(target)
        except OSError:
            if not target.exists():
                raise
    return verify_kept(target)


def verify_kept(target: Path) -> Path:
    """Check a version that is in its place already, since versions are never written again.

    Raises
    ------
    ArtifactError
        If it is damaged or not the version that its name says.
    """
    try:
        verify_artifact(target, version_id=target.name)
    except ArtifactError as error:
        raise ArtifactError(f"{error} (delete {target}, then run this again)") from error
    return target


def verify_artifact(
    folder: Path, *, version_id: str | None = None, manifest_sha256: str | None = None
) -> dict[str, Any]:
    """Check an artifact from its file names to its last vector, without FAISS reading a byte.

    Parameters
    ----------
    folder : Path
        A folder as `save_artifact` writes it.
    version_id : str, optional
        The version that it must be.
    manifest_sha256 : str, optional
        What ``manifest.json`` must hash to, as a pointer says.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    ArtifactError
        If a file is missing, unknown, a link, damaged, of a newer schema, or disagrees with the
        others. The message names the file, what was expected and what was found.
    """
    return _inspect(folder, version_id, manifest_sha256).manifest


def load_artifact(
    path: Path, *, version_id: str | None = None, manifest_sha256: str | None = None
) -> Index:
    """Load an artifact after checking all of it; nothing is ever unpickled.

    Parameters
    ----------
    path : Path
        A folder as `save_artifact` writes it.
    version_id : str, optional
        The version that it must be; without it any that is consistent.
    manifest_sha256 : str, optional
        What ``manifest.json`` must hash to, as a pointer says.

    Returns
    -------
    Index

    Raises
    ------
    ArtifactError
        As `verify_artifact`.
    """
    manifest, rows, mean = _inspect(path, version_id, manifest_sha256)
    return Index(
        kind=manifest["kind"],
        layers=tuple(manifest["layers"]),
        rows=rows,
        mean=mean,
        aspects=manifest["aspects"],
        facts=manifest["facts"],
        flat=faiss.read_index(str(path / "index.faiss")),
    )


def _inspect(folder: Path, version_id: str | None, manifest_sha256: str | None) -> _Contents:
    _check_names(folder)
    manifest_path, checksums_path = folder / "manifest.json", folder / "checksums.json"
    if manifest_sha256 is not None:
        found = file_sha256(manifest_path)
        _expect(manifest_path, "sha256", expected=manifest_sha256, found=found)
    manifest = parse_manifest(manifest_path.read_bytes(), manifest_path)
    checksums = parse_checksums(checksums_path.read_bytes(), checksums_path)
    for name, expected in checksums.items():
        _check_file(folder / name, expected)
    _expect(
        manifest_path,
        "artifact_version_id",
        expected=_version_id(manifest, checksums),
        found=manifest["artifact_version_id"],
    )
    if version_id is not None:
        _expect(folder, "version", expected=version_id, found=manifest["artifact_version_id"])
    rows = _read_rows(folder / "rows.json", manifest)
    mean = _read_mean(folder / "projection.npz", manifest)
    _check_vectors(folder / "index.faiss", manifest)
    return _Contents(manifest, rows, mean)


def _expect(path: Path | str, what: str, *, expected: object, found: object) -> None:
    if expected != found:
        raise ArtifactError(
            f"{path}: {what} is {found}, expected {expected}; the artifact is damaged or was "
            "altered: fetch or build it again"
        )


def _check_names(folder: Path) -> None:
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is not a folder, so there is no artifact to load")
    found = {path.name: path for path in folder.iterdir()}
    for name in FILES:
        if name not in found:
            raise ArtifactError(f"{folder}: {name} is missing; expected {', '.join(FILES)}")
    for name, path in found.items():
        if name not in FILES:
            raise ArtifactError(
                f"{folder}: unknown file {name!r}; expected {', '.join(FILES)} only"
            )
        if path.is_symlink() or not path.is_file():
            raise ArtifactError(f"{path} is a link or no regular file; copy the file itself")


def _json_object(content: bytes, path: Path | str) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: it is not JSON ({error})") from None
    if not isinstance(parsed, dict):
        raise ArtifactError(f"{path} holds a {type(parsed).__name__}, expected an object")
    return parsed


def _canonical(content: bytes, path: Path | str) -> dict[str, Any]:
    parsed = _json_object(content, path)
    # As `files.write_json` writes it.
    if (json.dumps(parsed, indent=2) + "\n").encode() != content:
        raise ArtifactError(f"{path} is damaged: it is not in the form that save_artifact writes")
    return parsed


def parse_manifest(content: bytes, path: Path | str) -> dict[str, Any]:
    """Read a manifest and check its seal and the form of its entries.

    Parameters
    ----------
    content : bytes
        The content of ``manifest.json``.
    path : Path or str
        Where it came from, for messages.

    Raises
    ------
    ArtifactError
        If it is damaged, of another schema version, or describes an impossible index.
    """
    manifest = _canonical(content, path)
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} has schema version {version!r}, this package reads {SCHEMA_VERSION}; "
            "use the version of mess-core that wrote it, or a newer one"
        )
    unsealed = {key: value for key, value in manifest.items() if key != "sha256"}
    _expect(path, "sha256", expected=fingerprint(unsealed), found=manifest.get("sha256"))
    problem = _manifest_problem(manifest)
    if problem:
        raise ArtifactError(f"{path}: {problem}")
    return manifest


def _manifest_problem(manifest: Mapping[str, Any]) -> str | None:
    layers = manifest.get("layers")
    if manifest.get("metric") != METRIC:
        return f"metric is {manifest.get('metric')!r}, expected {METRIC!r}"
    if not isinstance(layers, list) or not layers or not all(type(x) is int for x in layers):
        return f"layers is {layers!r}, expected a list of at least one integer"
    if len(set(layers)) != len(layers) or min(layers) < 0:
        return f"layers is {layers!r}, expected distinct numbers from 0"
    for key in ("n_rows", "n_recordings", "dims"):
        if type(manifest.get(key)) is not int or manifest[key] < 1:
            return f"{key} is {manifest.get(key)!r}, expected a positive integer"
    for key in ("facts", "aspects", "build"):
        if not isinstance(manifest.get(key), dict):
            return f"{key} is {manifest.get(key)!r}, expected a mapping"
    if not is_version_id(str(manifest.get("artifact_version_id"))):
        return f"artifact_version_id is {manifest.get('artifact_version_id')!r}, expected 64 digits"
    return None


def parse_checksums(content: bytes, path: Path | str) -> dict[str, dict[str, Any]]:
    """Read ``checksums.json``: SHA-256 and size in bytes of each file of `CONTENT`.

    Parameters
    ----------
    content : bytes
        The content of ``checksums.json``.
    path : Path or str
        Where it came from, for messages.

    Raises
    ------
    ArtifactError
        If it is damaged or names other files than `CONTENT`.
    """
    checksums = _canonical(content, path)
    if set(checksums) != set(CONTENT):
        raise ArtifactError(f"{path} lists {sorted(checksums)}, expected {sorted(CONTENT)}")
    for name, entry in checksums.items():
        if (
            not isinstance(entry, dict)
            or set(entry) != {"sha256", "size"}
            or not isinstance(entry["sha256"], str)
            or type(entry["size"]) is not int
        ):
            raise ArtifactError(f"{path}: the entry of {name} is {entry!r}, expected sha256, size")
    return checksums


def _check_file(path: Path, expected: Mapping[str, Any]) -> None:
    listed = "(listed in checksums.json)"
    _expect(path, f"size {listed}", expected=expected["size"], found=path.stat().st_size)
    _expect(path, f"sha256 {listed}", expected=expected["sha256"], found=file_sha256(path))


def _read_rows(path: Path, manifest: Mapping[str, Any]) -> tuple[Row, ...]:
    columns = _json_object(path.read_bytes(), path)
    names = [field.name for field in fields(Row)]
    if list(columns) != names or not all(isinstance(c, list) for c in columns.values()):
        raise ArtifactError(f"{path} has the columns {list(columns)}, expected lists of {names}")
    lengths = {name: len(column) for name, column in columns.items()}
    _expect(path, "rows", expected=dict.fromkeys(names, manifest["n_rows"]), found=lengths)
    for field in fields(Row):
        kinds = (float, int) if field.type is float else (str,)
        if not all(type(value) in kinds for value in columns[field.name]):
            raise ArtifactError(f"{path}: {field.name} holds a value that is not {field.type}")
    rows = tuple(Row(*values) for values in zip(*columns.values(), strict=True))
    try:
        check_rows(rows, manifest["kind"])
        check_aspects(manifest["aspects"], manifest["layers"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path.parent}: the aspect map is malformed: {error!r}") from None
    n_recordings = len({row.recording_id for row in rows})
    _expect(path, "recordings", expected=manifest["n_recordings"], found=n_recordings)
    return rows


def _read_mean(path: Path, manifest: Mapping[str, Any]) -> Floats:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [(m.filename, m.compress_type) for m in archive.infolist()]
        # Stored members only: what is not compressed cannot swell.
        _expect(path, "members", expected=[("mean.npy", zipfile.ZIP_STORED)], found=members)
        with np.load(path, allow_pickle=False) as archive:
            mean: Floats = archive["mean"]
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise ArtifactError(f"{path} is no archive of plain arrays: {error}") from None
    _expect(path, "dtype", expected="float32", found=str(mean.dtype))
    _expect(path, "shape", expected=(len(manifest["layers"]), manifest["dims"]), found=mean.shape)
    if not np.isfinite(mean).all():
        raise ArtifactError(f"{path}: mean holds values that are not finite; build it again")
    return mean


def _check_vectors(path: Path, manifest: Mapping[str, Any]) -> None:
    n_rows, width = manifest["n_rows"], len(manifest["layers"]) * manifest["dims"]
    n_floats = n_rows * width
    _expect(
        path,
        f"size in bytes for {n_rows} rows of {width} numbers",
        expected=_HEADER.size + n_floats * np.dtype(np.float32).itemsize,
        found=path.stat().st_size,
    )
    with path.open("rb") as file:
        kind, d, n, _, _, trained, metric, floats = _HEADER.unpack(file.read(_HEADER.size))
    _expect(
        path,
        "FAISS header (type, width, rows, trained, metric, floats)",
        expected=(_FOURCC, width, n_rows, 1, _METRIC_INNER_PRODUCT, n_floats),
        found=(kind, d, n, trained, metric, floats),
    )
    stored = np.memmap(path, dtype="<f4", mode="r", offset=_HEADER.size, shape=(n_rows, width))
    for start in range(0, n_rows, _CHECKED_AT_ONCE):
        vectors = stored[start : start + _CHECKED_AT_ONCE]
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        wrong = ~(np.abs(lengths - 1.0) <= _LENGTH_TOLERANCE)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ArtifactError(
                f"{path}: the vector of row {start + row} has length {lengths[row]}, expected 1; "
                "it is not finite or not normalised: build the index again"
            )
