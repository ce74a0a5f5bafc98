"""The content-addressed cache of computed files. Output files are hard links to it.

A cached file is named by the fingerprint of everything that it depends on (stage number, hashes of
its inputs, settings), so it never goes stale: what is there is right, what is not there is
computed. Its name also holds a hash of its content: a damaged file is noticed and computed again.
So one new recording costs one recording, a killed job loses at most the recording in flight, and
going back to an earlier configuration costs nothing. The cache grows until someone empties it,
which loses nothing but time.

Files get their place whole, by a rename. Two processes that compute the same file at the same time
waste work and do no harm. Cached files are read-only, because a write to a hard link changes the
file under all its names.
"""

__all__ = ["cached", "find", "materialise", "scratch", "store"]

import filecmp
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from mess_core.files import atomic_path, file_sha256, flush, storage_errors

#: Age in seconds from which a folder of unfinished files counts as left by a killed process.
_LEFTOVER_S = 24 * 3600


def find(cache: Path, kind: str, fingerprint: str, suffix: str) -> Path | None:
    """Return a cached file, or None where it is absent, damaged or unreadable. Do not write to it.

    ``kind``, for example ``features``, is the sub-folder of ``cache``, ``fingerprint`` that of
    everything that the content depends on (`mess_core.files.fingerprint`), and ``suffix`` the file
    name's, with its dot.
    """
    found = sorted(_shelf(cache, kind, fingerprint).glob(f"{fingerprint}.*{suffix}"))
    return next((path for path in found if _is_intact(path, fingerprint, suffix)), None)


def _shelf(cache: Path, kind: str, fingerprint: str) -> Path:
    return cache / kind / fingerprint[:2]


def _is_intact(path: Path, fingerprint: str, suffix: str) -> bool:
    with suppress(OSError):
        return path.name == _name(fingerprint, path, suffix)
    return False


def _name(fingerprint: str, content: Path, suffix: str) -> str:
    return f"{fingerprint}.{file_sha256(content)[:16]}{suffix}"


@contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """Give an empty folder on the cache's file system, for files that are not finished yet.

    It is removed at the end of the block. What killed processes left is removed after a day. Raises
    `StorageError` if the cache cannot be written; see `mess_core.files.storage_errors`.
    """
    folder = cache / "tmp"
    with storage_errors(folder / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _LEFTOVER_S:
                    shutil.rmtree(leftover, ignore_errors=True)
        temporary = TemporaryDirectory(dir=folder, ignore_cleanup_errors=True)
    with temporary as name:
        yield Path(name)


def store(cache: Path, kind: str, fingerprint: str, content: Path, suffix: str) -> Path:
    """Move a finished, closed file from a `scratch` folder into the cache, and return it there.

    The other parameters are those of `find`. Raises `StorageError` if it cannot be written; see
    `mess_core.files.storage_errors`.
    """
    shelf = _shelf(cache, kind, fingerprint)
    with storage_errors(content), storage_errors(shelf):
        shelf.mkdir(parents=True, exist_ok=True)
        content.chmod(content.stat().st_mode & ~0o222)
        flush(content)
        stored = content.replace(shelf / _name(fingerprint, content, suffix))
        flush(shelf)
        for other in shelf.glob(f"{fingerprint}.*{suffix}"):
            # An intact one of another machine may be in use.
            if other != stored and not _is_intact(other, fingerprint, suffix):
                other.unlink(missing_ok=True)
    return stored


def cached(
    cache: Path, kind: str, fingerprint: str, suffix: str, write: Callable[[Path], None]
) -> Path:
    """Return a cached file, computing it first where it is absent. Do not write to it.

    ``write`` gets a path to write the content to; when it raises, nothing is cached. The other
    parameters are those of `find`. Raises `StorageError` if the cache cannot be written; see
    `mess_core.files.storage_errors`.
    """
    if found := find(cache, kind, fingerprint, suffix):
        return found
    with scratch(cache) as folder:
        content = folder / f"content{suffix}"
        with storage_errors(content):
            write(content)
        return store(cache, kind, fingerprint, content, suffix)


def materialise(stored: Path, output: Path) -> bool:
    """Make ``output`` a hard link to a cached file, or a copy where that is not possible.

    An output with the same content is left as it is. Another one is replaced, never written to.
    Returns whether anything was written. Raises `StorageError` if it cannot be written; see
    `mess_core.files.storage_errors`.
    """
    with storage_errors(output):
        if output.exists() and (
            output.samefile(stored) or filecmp.cmp(stored, output, shallow=False)
        ):
            return False
        with atomic_path(output) as temporary:
            temporary.unlink()
            try:
                os.link(stored, temporary)
            except OSError:  # another file system, one without links, or another user's file
                shutil.copyfile(stored, temporary)
    return True
