"""An index on disk: a folder named by the hash of its content, checked before anything is believed.

`mess_core.index.contents` has the content files, `mess_core.index.manifest` what describes
and seals them. A folder is written beside its final place and renamed: it is whole or it is not
there. Nothing in it is ever unpickled.

*Opening again.* To look at every byte of a large artifact takes longer than to open it. When a
folder that carries its version's name was found whole, what the file system says of its files
(sizes, times of change, inodes) is noted beside it in ``.{version}.verified``. While that holds,
opening it again checks everything but the bytes and the numbers of the large files. Nobody can set
the time of an inode's last change, short of setting the machine's clock, so whatever writes to a
file is noticed; decay of the disk itself is not, and who may write beside the folder may forge the
note. Then what is damaged is found late or never: an exact index is still mapped within its file,
a compressed one is FAISS's to judge. Delete the note, or call `verify_artifact`, to have everything
checked anew.

*While it is open* an artifact's files are mapped. Versions are never written again; a process whose
mapped file is cut short by others is killed by the operating system, as with any mapped file.
"""

__all__ = [
    "CONTENT",
    "FILES",
    "is_version_id",
    "load_artifact",
    "note_path",
    "parse_checksums",
    "parse_manifest",
    "save_artifact",
    "settle",
    "temporary_folder",
    "verify_artifact",
    "verify_kept",
]

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from mess_core.errors import ArtifactError, StorageError
from mess_core.files import file_sha256, storage_errors, write_bytes, write_json
from mess_core.index.contents import Contents, check_contents, write_contents
from mess_core.index.index import Index
from mess_core.index.manifest import (
    CONTENT,
    FILES,
    LARGEST_JSON,
    expect,
    is_version_id,
    parse_checksums,
    parse_manifest,
    read_limited,
    seal,
    version_id_of,
)
from mess_core.workflow import software

#: Files that changed less than this ago may change again within the same tick of the file system's
#: clock (2 s on the coarsest): then no note is taken.
_SETTLED_NS = 2_000_000_000


class _Inspected(NamedTuple):
    folder: Path
    manifest: dict[str, Any]
    contents: Contents


def save_artifact(index: Index, root: Path, *, build: Mapping[str, Any] | None = None) -> Path:
    """Write an index to a folder named by its content's hash.

    Parameters
    ----------
    index : Index
        From `build_index`.
    root : Path
        Where artifacts of its kind lie. Made when missing.
    build : mapping, optional
        What else to say of how it was made, of builtins; no part of the version's hash.

    Returns
    -------
    Path
        ``root / artifact_version_id``. A folder of that name is left untouched.

    Raises
    ------
    ArtifactError
        If the index could not be loaded again, for one of the reasons of `verify_artifact`, or a
        folder of that name exists and is damaged.
    StorageError
        If the disk is full, read-only or not ours.
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
        manifest = seal(_describe(index), checksums, _software() | dict(build or {}))
        write_json(folder / "manifest.json", manifest)
        verify_artifact(folder)
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


def _software() -> dict[str, Any]:
    return {
        "code": software.code(),
        "libraries": {
            "faiss": faiss.__version__,
            "mess-core": software.code()["version"],
            "numpy": np.__version__,
        },
        "machine": software.machine(),
    }


@contextmanager
def temporary_folder(root: Path) -> Iterator[Path]:
    """Give a new hidden folder in ``root`` that is gone after the block, unless it was renamed.

    Raises
    ------
    StorageError
        If none can be made.
    """
    folder = root / f".tmp-{uuid.uuid4().hex}"
    with storage_errors(folder):
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
    folder: Path,
    *,
    version_id: str | None = None,
    manifest_sha256: str | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Check an artifact from its file names to its last vector, without FAISS reading a byte.

    Parameters
    ----------
    folder : Path
        A folder as `save_artifact` writes it, or a link to one.
    version_id : str, optional
        The version that it must be.
    manifest_sha256 : str, optional
        What ``manifest.json`` must hash to, as a pointer says.
    trust : bool
        Whether to believe a note that it was found whole, as `load_artifact` does.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    ArtifactError
        If a file is missing, unknown, a link, not readable, damaged, of another schema, or
        disagrees with the others. The message names the file, what was expected and what was found.
    """
    return _inspect(folder, version_id, manifest_sha256, trust=trust).manifest


def load_artifact(
    path: Path, *, version_id: str | None = None, manifest_sha256: str | None = None
) -> Index:
    """Load an artifact after checking all of it; nothing is ever unpickled.

    Its vectors are memory-mapped: they are read from the disk as searches need them, and processes
    share them.

    Parameters
    ----------
    path : Path
        A folder as `save_artifact` writes it, or a link to one.
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
    folder, manifest, contents = _inspect(path, version_id, manifest_sha256, trust=True)
    return Index(
        kind=manifest["kind"],
        rows=contents.rows,
        projection=contents.projection,
        predicted=contents.predicted,
        aspects=manifest["aspects"],
        facts=manifest["facts"],
        vectors=_read_vectors(folder / "index.faiss", manifest),
        factory=manifest["factory"],
        version_id=manifest["artifact_version_id"],
    )


def _read_vectors(path: Path, manifest: Mapping[str, Any]) -> Any:
    try:
        vectors = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (RuntimeError, MemoryError) as error:
        raise ArtifactError(f"{path}: FAISS cannot read it ({error}); build it again") from None
    expect(
        path,
        "width, rows and metric",
        expected=(manifest["width"], manifest["n_rows"], faiss.METRIC_INNER_PRODUCT),
        found=(vectors.d, vectors.ntotal, vectors.metric_type),
    )
    _check_ids(path, vectors)
    return vectors


def _check_ids(path: Path, vectors: Any) -> None:
    """Refuse inverted lists that do not hold each row once; other kinds of index have no ids."""
    inverted: Any = faiss.try_extract_index_ivf(vectors)
    if inverted is None:
        return
    lists, seen, entries = inverted.invlists, np.zeros(vectors.ntotal, np.bool_), 0
    for number in range(lists.nlist):
        if size := lists.list_size(number):
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            seen[ids[(ids >= 0) & (ids < len(seen))]] = True
            entries += size
    expect(
        path,
        "number of rows and entries in its lists",
        expected=(len(seen), len(seen)),
        found=(int(seen.sum()), entries),
    )


def _inspect(
    path: Path, version_id: str | None, manifest_sha256: str | None, *, trust: bool
) -> _Inspected:
    try:
        if not path.is_dir():
            raise ArtifactError(f"{path} is not a folder, so there is no artifact to load")
        # A link to a version may be changed at any time; one artifact is looked at throughout.
        folder = path.resolve()
        manifest = _read_manifest(folder, version_id, manifest_sha256)
        return _inspect_content(folder, manifest, trust=trust)
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}; check permissions and the disk, or fetch it again"
        ) from error


def _read_manifest(
    folder: Path, version_id: str | None, manifest_sha256: str | None
) -> dict[str, Any]:
    # First: of another schema the files may have other names.
    path = folder / "manifest.json"
    _check_regular(path)
    content = read_limited(path, LARGEST_JSON)
    if manifest_sha256 is not None:
        found = hashlib.sha256(content).hexdigest()
        expect(path, "sha256", expected=manifest_sha256, found=found)
    manifest = parse_manifest(content, path)
    if version_id is not None:
        expect(folder, "version", expected=version_id, found=manifest["artifact_version_id"])
    return manifest


def _inspect_content(folder: Path, manifest: dict[str, Any], *, trust: bool) -> _Inspected:
    _check_names(folder)
    checksums_path = folder / "checksums.json"
    checksums = parse_checksums(read_limited(checksums_path, LARGEST_JSON), checksums_path)
    found = version_id_of(manifest, checksums)
    expect(
        checksums_path,
        "what it lists together with what manifest.json describes",
        expected=manifest["artifact_version_id"],
        found=found,
    )
    seen, settled = _seen(folder), _settled(folder)
    believed = trust and _is_noted(folder, seen)
    if not believed:
        _forget(folder)
    for name, listed in checksums.items():
        _check_file(folder / name, listed, believed=believed)
    contents = check_contents(folder, manifest, believed=believed)
    if settled and not believed:
        _note(folder, seen)
    return _Inspected(folder, manifest, contents)


def _check_names(folder: Path) -> None:
    found = {path.name for path in folder.iterdir()}
    for name in sorted(found.difference(FILES)):
        raise ArtifactError(f"{folder}: unknown file {name!r}; expected {', '.join(FILES)} only")
    for name in FILES:
        _check_regular(folder / name)


def _check_regular(path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        problem = (
            "is a link or no regular file" if path.is_symlink() or path.exists() else "is missing"
        )
        raise ArtifactError(f"{path} {problem}; expected the regular files {', '.join(FILES)}")


def _check_file(path: Path, listed: Mapping[str, Any], *, believed: bool) -> None:
    where = "(listed in checksums.json)"
    expect(path, f"size {where}", expected=listed["size"], found=path.stat().st_size)
    if not believed:
        expect(path, f"sha256 {where}", expected=listed["sha256"], found=file_sha256(path))


def _seen(folder: Path) -> bytes:
    """Return what the file system says of the files, which changes when they do."""
    stats = {name: (folder / name).stat() for name in FILES}
    facts = {name: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for name, s in stats.items()}
    return json.dumps(facts).encode()


def _settled(folder: Path) -> bool:
    """Return whether writing to a file now would give it another time of change."""
    newest = max((folder / name).stat().st_ctime_ns for name in FILES)
    return newest < time.time_ns() - _SETTLED_NS


def note_path(folder: Path) -> Path:
    """Return where it is noted that an artifact's folder was found whole."""
    return folder.parent / f".{folder.name}.verified"


def _is_noted(folder: Path, seen: bytes) -> bool:
    note = note_path(folder)
    try:
        # Where no versions lie there are no notes of ours, neither to read nor to write.
        return (
            is_version_id(folder.name) and note.is_file() and read_limited(note, len(seen)) == seen
        )
    except (OSError, ArtifactError):
        return False


def _note(folder: Path, seen: bytes) -> None:
    # Where one may not write, everything is checked each time.
    if is_version_id(folder.name):
        with suppress(StorageError, OSError):
            write_bytes(note_path(folder), seen)


def _forget(folder: Path) -> None:
    if is_version_id(folder.name):
        with suppress(OSError):
            note_path(folder).unlink(missing_ok=True)
