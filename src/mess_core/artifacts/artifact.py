"""An index on disk: a folder named by the hash of its content, checked before anything is believed.

`mess_core.artifacts.contents` has the content files, `mess_core.artifacts.manifest` what describes
and seals them. A folder is written beside its final place and renamed: it is whole or it is not
there. Nothing in it is ever unpickled.

*Opening again.* To look at every byte of a large artifact takes longer than to open it. When a
folder that carries its version's name was found whole, what the file system says of its files
(sizes, times of change, inodes) is noted beside it in ``.{version}.verified``. While that holds,
opening it again checks everything but the bytes of the large files. The time of an inode's last
change cannot be set back, so whatever writes to a file is noticed; decay of the disk itself is not.
Delete the note, or call `verify_artifact`, to have everything checked anew.
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

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from mess_core.artifacts.contents import Contents, check_contents, write_contents
from mess_core.artifacts.index import Index
from mess_core.artifacts.manifest import (
    CONTENT,
    FILES,
    expect,
    is_version_id,
    parse_checksums,
    parse_manifest,
    seal,
    version_id_of,
)
from mess_core.errors import ArtifactError, StorageError
from mess_core.files import file_sha256, read_json, write_json


class _Inspected(NamedTuple):
    manifest: dict[str, Any]
    contents: Contents


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
        write_contents(
            folder,
            lambda path: faiss.write_index(index.vectors, str(path)),
            index.rows,
            index.predicted,
            index.projection,
        )
        checksums = {
            name: {"sha256": file_sha256(folder / name), "size": (folder / name).stat().st_size}
            for name in CONTENT
        }
        write_json(folder / "checksums.json", checksums)
        manifest = seal(_describe(index), checksums, _libraries())
        write_json(folder / "manifest.json", manifest)
        return settle(folder, root / str(manifest["artifact_version_id"]))


def _describe(index: Index) -> dict[str, Any]:
    return {
        "kind": index.kind,
        "factory": index.factory,
        "n_rows": len(index.rows),
        "n_recordings": len(index.rows.numbers),
        **index.projection.describe(),
        "facts": dict(index.facts),
        "aspects": dict(index.aspects),
    }


def _libraries() -> dict[str, str]:
    return {
        "faiss": faiss.__version__,
        "mess-core": version("mess-core"),
        "numpy": np.__version__,
    }


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
    return _inspect(folder, version_id, manifest_sha256, trust=False).manifest


def load_artifact(
    path: Path, *, version_id: str | None = None, manifest_sha256: str | None = None
) -> Index:
    """Load an artifact after checking all of it; nothing is ever unpickled.

    Its vectors are memory-mapped: they are read from the disk as searches need them, and processes
    share them.

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
    manifest, contents = _inspect(path, version_id, manifest_sha256, trust=True)
    return Index(
        kind=manifest["kind"],
        rows=contents.rows,
        projection=contents.projection,
        predicted=contents.predicted,
        aspects=manifest["aspects"],
        facts=manifest["facts"],
        vectors=_read_vectors(path / "index.faiss", manifest),
        factory=manifest["factory"],
        version_id=manifest["artifact_version_id"],
    )


def _read_vectors(path: Path, manifest: Mapping[str, Any]) -> Any:
    try:
        vectors = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise ArtifactError(f"{path}: FAISS cannot read it ({error}); build it again") from None
    described = (manifest["width"], manifest["n_rows"])
    expect(path, "width and rows", expected=described, found=(vectors.d, vectors.ntotal))
    return vectors


def _inspect(
    folder: Path, version_id: str | None, manifest_sha256: str | None, *, trust: bool
) -> _Inspected:
    _check_names(folder)
    manifest_path, checksums_path = folder / "manifest.json", folder / "checksums.json"
    if manifest_sha256 is not None:
        found = file_sha256(manifest_path)
        expect(manifest_path, "sha256", expected=manifest_sha256, found=found)
    manifest = parse_manifest(manifest_path.read_bytes(), manifest_path)
    checksums = parse_checksums(checksums_path.read_bytes(), checksums_path)
    expect(
        manifest_path,
        "artifact_version_id",
        expected=version_id_of(manifest, checksums),
        found=manifest["artifact_version_id"],
    )
    if version_id is not None:
        expect(folder, "version", expected=version_id, found=manifest["artifact_version_id"])
    seen = _seen(folder)
    believed = trust and _noted(folder) == seen
    for name, listed in checksums.items():
        _check_file(folder / name, listed, believed=believed)
    contents = check_contents(folder, manifest, believed=believed)
    if not believed:
        _note(folder, seen)
    return _Inspected(manifest, contents)


def _check_file(path: Path, listed: Mapping[str, Any], *, believed: bool) -> None:
    where = "(listed in checksums.json)"
    expect(path, f"size {where}", expected=listed["size"], found=path.stat().st_size)
    if not believed:
        expect(path, f"sha256 {where}", expected=listed["sha256"], found=file_sha256(path))


def _seen(folder: Path) -> dict[str, list[int]]:
    """Return what the file system says of the files, which changes when they do."""
    stats = {name: (folder / name).stat() for name in FILES}
    return {name: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for name, s in stats.items()}


def _note_path(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.verified"


def _noted(folder: Path) -> Any:
    try:
        return read_json(_note_path(folder))
    except StorageError:
        return None


def _note(folder: Path, seen: Mapping[str, Any]) -> None:
    # Only where versions lie, and where one may write: without a note everything is checked again.
    if is_version_id(folder.name):
        with suppress(StorageError, OSError):
            write_json(_note_path(folder), dict(seen))


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
