"""Where published versions lie: named objects below a location, in a folder or in S3.

Publishing (`versions`) and fetching (`fetching`) are written once, on `Store`. A name is a path
with ``/`` below the location. Objects are created once and never changed, but for the pointer,
which is replaced by compare-and-swap.
"""

__all__ = ["LARGEST_JSON_BYTES", "Entry", "FolderStore", "NotThereError", "Store"]

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from mess_core.errors import ArtifactError
from mess_core.files import file_sha256, flush, storage_errors, write_bytes
from mess_core.index.artifact import note_path, temporary_folder
from mess_core.publishing.transfer import Content, locked

#: No manifest, list of checksums or pointer comes near this; more is not one of ours.
LARGEST_JSON_BYTES = 16 * 1024**2
_CHUNK_BYTES = 1024**2
_LOCK = ".lock"


class NotThereError(ArtifactError):
    """An object or a version does not exist, or does not exist any more."""


class Entry(NamedTuple):
    """An object in a listing: its size in bytes and when it was written, in seconds of Unix."""

    size: int
    modified: float


class Store(Protocol):
    """Objects below a location. Every method raises an `ArtifactError` that names the object."""

    def url(self, name: str = "") -> str:
        """Return where an object, or the location, is, for messages."""

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Return a small object's content and its tag, or None where it does not exist."""

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Give an object's content from a byte on; `NotThereError` where it does not exist.

        It may end early or be damaged on its way: compare what came with the SHA-256.
        """

    def check(self, name: str, content: Content) -> bool:
        """Return whether an object is there; raise when it holds something else."""

    def create(self, name: str, path: Path, content: Content, sent: Callable[[int], None]) -> None:
        """Write a file to an object unless that exists; `check` says how it went.

        ``sent`` is told how many bytes went.
        """

    def swap(self, name: str, content: bytes, tag: str | None) -> bool:
        """Write a small object if its tag is still this one (None: if it does not exist).

        Returns whether it holds ``content`` now.
        """

    def delete(self, name: str) -> None:
        """Remove an object, if it exists."""

    def entries(self) -> dict[str, Entry]:
        """Return all objects, sorted by name."""

    def folders(self) -> list[str]:
        """Return the first parts of all names that have several, sorted."""

    def tidy(self, below: str, before: float) -> None:
        """Remove what interrupted calls of `create` left, of names that start with ``below``.

        Only what was begun before a time, in seconds of Unix, and as far as it may be seen.
        """


@dataclass(frozen=True, slots=True)
class FolderStore:
    """A folder of the file system; writers on other machines need locks that work there."""

    root: Path

    def url(self, name: str = "") -> str:
        """Return the path."""
        return str(self.root / name)

    @contextmanager
    def _explained(self, name: str) -> Iterator[Path]:
        path = self.root / name
        try:
            yield path
        except FileNotFoundError:
            raise NotThereError(f"{path} does not exist") from None
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Return a small file's content and its SHA-256, or None where it does not exist."""
        with suppress(NotThereError), self._explained(name) as path:
            size = path.stat().st_size
            if size > LARGEST_JSON_BYTES:
                raise ArtifactError(
                    f"{path} has {size} bytes, expected at most {LARGEST_JSON_BYTES}"
                )
            content = path.read_bytes()
            return content, hashlib.sha256(content).hexdigest()
        return None

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Give a file's content from a byte on."""
        with self._explained(name) as path, path.open("rb") as file:
            file.seek(start)
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def check(self, name: str, content: Content) -> bool:
        """Check the size and SHA-256 of a file."""
        with suppress(NotThereError), self._explained(name) as path:
            found = (path.stat().st_size, file_sha256(path))
            if found != (content.size, content.sha256):
                raise ArtifactError(
                    f"{path} has size and SHA-256 {found}, expected "
                    f"{(content.size, content.sha256)}; published files are never overwritten: "
                    "delete this one, then publish again"
                )
            return True
        return False

    def create(self, name: str, path: Path, content: Content, sent: Callable[[int], None]) -> None:
        """Copy a file to its place, which it gets by a rename, unless there is one."""
        target = self.root / name
        # Not beside its place: what a killed process leaves must not lie in a version.
        with storage_errors(target), temporary_folder(self.root) as folder:
            copy = shutil.copyfile(path, folder / target.name)
            if file_sha256(copy) != content.sha256:
                raise ArtifactError(f"the copy of {path} is damaged; publish again")
            flush(copy)
            with locked(self.root / _LOCK):
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    copy.rename(target)
                    flush(target.parent)
        sent(content.size)

    def swap(self, name: str, content: bytes, tag: str | None) -> bool:
        """Replace a small file, under a lock, if it is still the one with this tag."""
        with locked(self.root / _LOCK):
            before, found = self.read(name) or (None, None)
            if found != tag:
                return before == content
            write_bytes(self.root / name, content)
        return True

    def delete(self, name: str) -> None:
        """Remove a file, and its folder when that is empty then."""
        path = self.root / name
        with storage_errors(path), locked(self.root / _LOCK):
            path.unlink(missing_ok=True)
            with suppress(OSError):
                path.parent.rmdir()
                note_path(path.parent).unlink(missing_ok=True)

    def entries(self) -> dict[str, Entry]:
        """Return all files but hidden ones, sorted by name."""
        found = {}
        with suppress(NotThereError), self._explained(""):
            for path in sorted(self.root.rglob("*")):
                name = path.relative_to(self.root)
                if not name.parts[0].startswith(".") and path.is_file():
                    facts = path.stat()
                    found[name.as_posix()] = Entry(facts.st_size, facts.st_mtime)
        return found

    def folders(self) -> list[str]:
        """Return the names of all folders but hidden ones, sorted."""
        with suppress(NotThereError), self._explained("") as root:
            return sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != ".")
        return []

    def tidy(self, below: str, before: float) -> None:
        """Remove temporary folders of killed processes."""
        if below:  # A temporary folder does not say what it was for.
            return
        for folder in self.root.glob(".tmp-*"):
            with suppress(OSError):
                if folder.stat().st_mtime < before:
                    shutil.rmtree(folder)
