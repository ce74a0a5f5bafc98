"""How content goes over a network: sizes of parts, attempts, pauses, progress."""

__all__ = ["MULTIPART_BYTES", "PART_BYTES", "Content", "Meter", "Transfer", "locked"]

import fcntl
import hashlib
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from mess_core.files import storage_errors

#: Larger files are sent in parts, so that a dropped connection costs one part. S3 takes at most
#: 5 GiB in one request (AWS documentation of PutObject).
MULTIPART_BYTES = 64 * 1024**2
#: Length of a part; it is held in memory. S3 takes no less than 5 MiB but for the last part.
PART_BYTES = 64 * 1024**2
#: S3's limit of parts of an object; the parts of larger files are longer.
_MOST_PARTS = 10_000
_CHUNK_BYTES = 1024**2
_MEGABYTE = 10**6

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Transfer:
    """Settings of publishing and fetching; the defaults are for use.

    Attributes
    ----------
    multipart_bytes, part_bytes : int
        Files of more than ``multipart_bytes`` are sent in parts of ``part_bytes``.
    attempts : int
        How often a request is made that fails by throttling, by an error of the store or by a
        dropped connection. Reading a large object counts anew whenever some of it arrived.
    first_pause_s, longest_pause_s : float
        Before attempt n + 1 passes a random time of at most ``first_pause_s`` times 2 to the n-1,
        and of at most ``longest_pause_s``: many clients do not come back at the same moment.
    sleep : callable
        Waits for some seconds.
    progress : callable, optional
        Takes ``(done, total, name)`` in megabytes, as `mess_core.progress.Progress` does.
    """

    multipart_bytes: int = MULTIPART_BYTES
    part_bytes: int = PART_BYTES
    attempts: int = 6
    first_pause_s: float = 0.5
    longest_pause_s: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    progress: Callable[[int, int, str], None] | None = None

    def pause(self, failed: int) -> None:
        """Wait after ``failed`` failures in a row (at least 1)."""
        longest = min(self.longest_pause_s, self.first_pause_s * 2 ** (failed - 1))
        self.sleep(random.uniform(0.0, longest))

    def persist(self, request: Callable[[], _T], passing: Callable[[Exception], bool]) -> _T:
        """Make a request until it succeeds, fails for good, or the attempts are used up."""
        for failed in range(1, self.attempts):
            try:
                return request()
            except Exception as error:
                if not passing(error):
                    raise
            self.pause(failed)
        return request()


@dataclass(frozen=True, slots=True)
class Content:
    """What an object must hold.

    Attributes
    ----------
    size : int
        In bytes.
    sha256 : str
        Hexadecimal.
    parts : tuple of str
        SHA-256 of each part, hexadecimal; empty for what is sent in one request.
    part_bytes : int
        Length of all parts but the last.
    """

    size: int
    sha256: str
    parts: tuple[str, ...] = ()
    part_bytes: int = 0

    @classmethod
    def of(cls, path: Path, transfer: Transfer) -> "Content":
        """Read a file once."""
        size = path.stat().st_size
        if size <= transfer.multipart_bytes:
            with path.open("rb") as file:
                return cls(size, hashlib.file_digest(file, "sha256").hexdigest())
        part_bytes = max(transfer.part_bytes, -(-size // _MOST_PARTS))
        whole, parts = hashlib.sha256(), []
        with path.open("rb") as file:
            for start in range(0, size, part_bytes):
                part = hashlib.sha256()
                for chunk in _chunks(file, min(part_bytes, size - start)):
                    whole.update(chunk)
                    part.update(chunk)
                parts.append(part.hexdigest())
        return cls(size, whole.hexdigest(), tuple(parts), part_bytes)


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (chunk := file.read(min(size, _CHUNK_BYTES))):
        size -= len(chunk)
        yield chunk


class Meter:
    """Counts bytes and reports them in megabytes.

    Parameters
    ----------
    transfer : Transfer
        Whose ``progress`` is told.
    total : int
        How many bytes there will be.
    """

    def __init__(self, transfer: Transfer, total: int) -> None:
        self._progress = transfer.progress
        self._total = -(-total // _MEGABYTE)
        self._bytes = 0
        self._reported = -1

    def __call__(self, n_bytes: int, name: str) -> None:
        """Count bytes that arrived, or negative ones that have to go again."""
        self._bytes += n_bytes
        done = min(-(-self._bytes // _MEGABYTE), self._total)
        if self._progress and done != self._reported:
            self._reported = done
            self._progress(done, self._total, name)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that no other thread or process holds meanwhile.

    Parameters
    ----------
    path : Path
        An empty file that is made when missing and stays: removing it would be a race. The
        operating system frees the lock when its holder dies, however it dies.

    Raises
    ------
    StorageError
        If the file cannot be written; see `mess_core.files.storage_errors`.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        with storage_errors(path):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
