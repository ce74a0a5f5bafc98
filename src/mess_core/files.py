"""Reading and writing files so that a reader never sees half of one.

Everything here writes to a temporary file in the target's own folder, flushes it to the disk and
renames it: a crash leaves the old content or the new, and at most a ``.tmp-*`` file beside it.
"""

__all__ = [
    "atomic_path",
    "file_sha256",
    "fingerprint",
    "read_json",
    "save_array",
    "write_bytes",
    "write_json",
    "write_text",
]

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import StorageError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that becomes ``path`` when the block ends well.

    Parameters
    ----------
    path : Path
        The file to write. Its folder is made when missing.

    Yields
    ------
    Path
        Where to write, with the same suffix. It is removed when the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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

    Raises
    ------
    StorageError
        If the file is missing or is not JSON.
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


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hexadecimal) of ``facts`` in canonical JSON.

    Parameters
    ----------
    facts : mapping
        Builtins only; the order of keys does not matter.

    Returns
    -------
    str
        64 hexadecimal digits. Equal facts give equal fingerprints on every machine.
    """
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
