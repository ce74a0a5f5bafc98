"""Reading and writing files so that a reader never sees half of one.

Everything here writes to a temporary file in the target's own folder, flushes it to the disk and
renames it: a crash leaves the old content or the new, and at most a ``.tmp-*`` file beside it.
A disk that is full, read-only or not ours is a `mess_core.errors.StorageError`.
"""

__all__ = [
    "ArrayWriter",
    "atomic_path",
    "check_writable",
    "file_sha256",
    "fingerprint",
    "flush",
    "read_json",
    "save_array",
    "storage_errors",
    "write_bytes",
    "write_json",
    "write_text",
]

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from mess_core.errors import StorageError

_AGAIN = "free some space and run again: what is finished is kept"
_ALLOW = "make the folder writable for you, or choose another one"
_MOVE = "rename that file, or choose another folder"
_LOCKS = "the file system gives no locks", "put the data folder on one that does"
#: Why writing failed, and what to do about it.
_REMEDIES = {
    errno.ENOSPC: ("the file system has too little space left", _AGAIN),
    errno.EDQUOT: ("your quota on the file system is used up", _AGAIN),
    errno.EFBIG: ("files may not be that large here (file system, ulimit -f)", "raise the limit"),
    errno.EROFS: ("the file system is read-only", "make it writable, or choose another folder"),
    errno.EACCES: ("no permission", _ALLOW),
    errno.EPERM: ("no permission", _ALLOW),
    errno.ENOTDIR: ("a file is where a folder is needed", _MOVE),
    errno.EEXIST: ("a file is where a folder is needed", _MOVE),
    errno.EISDIR: ("it is a folder", "rename that folder"),
    errno.ENOENT: ("it or its folder vanished meanwhile", "run again"),
    errno.ENAMETOOLONG: ("the path is too long", "choose a shorter one"),
    errno.EIO: ("the disk reports an input/output error", "check the disk, then run again"),
    errno.ENOLCK: _LOCKS,
    errno.EOPNOTSUPP: _LOCKS,
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the errors of writing ``path``, a file or folder, in the block into a `StorageError`.

    Raises `StorageError` if the disk is full, read-only, not ours and the like: says which, where,
    and what to do. An `OSError` that names a file elsewhere (a source that cannot be read) stays as
    it is.
    """
    try:
        yield
    except OSError as error:
        # numpy's tofile reports a short write by this text, without a number.
        short = error.errno is None and "requested and" in str(error)
        number = errno.ENOSPC if short else error.errno
        named = [Path(os.fsdecode(x)).absolute() for x in (error.filename, error.filename2) if x]
        folder = path.absolute().parent
        if number not in _REMEDIES or not _concern(named, folder):
            raise
        cause, remedy = _REMEDIES[number]
        free = _free_space(folder) if number == errno.ENOSPC else ""
        # Not the name of a temporary file beside it.
        where = f" ({named[-1]})" if named and named[-1].parent != folder else ""
        raise StorageError(f"cannot write {path}: {cause}{free}{where}; {remedy}") from error


def _concern(named: list[Path], folder: Path) -> bool:
    """Whether an error names no file, one in or below the folder, or a parent of the folder."""
    return not named or any(x.is_relative_to(folder) or folder.is_relative_to(x) for x in named)


def _free_space(folder: Path) -> str:
    space = os.statvfs(next(x for x in (folder, *folder.parents) if x.exists()))
    inodes = " but no inodes" if space.f_files and not space.f_favail else ""
    return f" ({space.f_bavail * space.f_frsize:,} bytes{inodes} free)"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that becomes ``path`` when the block ends well.

    It has the same suffix, and is removed when the block raises. The folder is made when missing.
    Raises `StorageError` if the file cannot be written, also by the block; see `storage_errors`.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{secrets.token_hex(8)}{path.suffix}")
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            flush(temporary)
            temporary.replace(path)
            flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Make sure that a file could be written to ``path``, whose folder is made when missing.

    Raises `StorageError` if it could not; see `storage_errors`.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path.parent).close()


def flush(path: Path) -> None:
    """Have the operating system put a file, or the names in a folder, on the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 ``content`` to ``path``, whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as readable, strict JSON (no NaN), whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises `StorageError` if the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise StorageError(f"{path} does not exist; run the rule that makes it") from None
    except ValueError as error:
        raise StorageError(f"{path} is not JSON ({error}); delete it and make it again") from None


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write ``array`` as ``.npy`` without pickle, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


class ArrayWriter:
    """Write an ``.npy`` file of floats row by row in constant memory, whole or not at all.

    A context manager: the file is there once the block has ended well, and nothing is left of it
    when the block raises. Raises `StorageError` if ``dtype`` is no floating-point type; at the end
    of the block if no row was appended, or if the file cannot be written (see `storage_errors`).
    """

    _file: BinaryIO

    def __init__(self, path: Path, dtype: npt.DTypeLike = np.float32) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        if self.dtype.kind != "f":
            raise StorageError(f"{path}: cannot write rows of {self.dtype}, only of floats")
        self._count = 0
        self._row_shape: tuple[int, ...] | None = None
        self._block = self._write()

    def __enter__(self) -> "ArrayWriter":
        self._block.__enter__()
        return self

    def __exit__(self, *raised: Any) -> bool | None:
        return self._block.__exit__(*raised)

    @contextmanager
    def _write(self) -> Iterator[None]:
        with atomic_path(self.path) as temporary, temporary.open("wb") as self._file:
            yield
            if not self._count:
                raise StorageError(f"{self.path}: no rows were appended; it would be empty")
            self._file.seek(0)
            self._write_header()

    def _write_header(self) -> None:
        # numpy pads the header so that its length does not depend on the number of rows.
        header = {
            "descr": npy_format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self._count, *(self._row_shape or ())),
        }
        npy_format.write_array_header_1_0(self._file, header)

    def append(self, rows: npt.ArrayLike) -> None:
        """Write any number of rows [shape=(k, ...)] after those that are there.

        Raises `StorageError` if their shape is not that of the rows before, or if a value is not
        finite, also once it is converted to `dtype`.
        """
        rows = np.asarray(rows)
        if rows.ndim == 0 or self._row_shape not in (None, rows.shape[1:]):
            sizes = ["..."] if self._row_shape is None else map(str, self._row_shape)
            raise StorageError(
                f"{self.path}: cannot append an array of shape {rows.shape}; "
                f"it must be [{', '.join(['k', *sizes])}]"
            )
        with np.errstate(over="ignore"):
            converted = np.ascontiguousarray(rows, self.dtype)
        if not np.isfinite(converted).all():
            raise StorageError(f"{self.path}: {_what_is_not_finite(rows, self.dtype)}")
        if self._row_shape is None:
            self._row_shape = rows.shape[1:]
            self._write_header()
        # Counted first: should writing fail half way, no header can make the file look whole.
        self._count += len(converted)
        self._file.write(converted.data)


def _what_is_not_finite(rows: npt.NDArray[Any], dtype: np.dtype[Any]) -> str:
    if not np.isfinite(rows).all():
        return f"refusing to write {dtype} values that are not finite (NaN or infinity)"
    return (
        f"values up to {np.abs(rows).max():.6g} are too large for {dtype} "
        f"(at most {np.finfo(dtype).max:.6g}); use float32"
    )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return a hash of ``facts``, which hold builtins only, as 64 hexadecimal digits.

    Equal facts give equal fingerprints on every machine, whatever the order of keys.
    """
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
