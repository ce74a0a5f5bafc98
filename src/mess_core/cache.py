"""The content-addressed store of computed files, and its materialisation as outputs.

A computed file is named by the fingerprint of everything that it depends on (stage version, hashes
of its inputs, settings), so it never goes stale: what is there is right, what is not there is
computed. The name also holds a hash of the content, by which damage is noticed. Outputs are copies.
Therefore one new recording costs one recording, a job killed half way loses at most the recording
in flight, a damaged or deleted output costs a copy, and going back to an earlier configuration
costs nothing. The store grows until someone empties it, which loses nothing but time.

Who computes holds a *claim* on the fingerprint: a lock that no other thread or process gets
meanwhile, and that the operating system frees when its holder dies, however it dies.

::

    if (stored := find(cache, "features", name, ".npy")) is None:
        with claim(cache, "features", name) as mine:
            # Somebody else may have computed it while we waited: look again.
            stored = find(cache, "features", name, ".npy") or compute_and_store(mine)

* Beside every file lies a note, ``{fingerprint}.json``, of when and by which code it was computed:
  an output may be a copy of what another version of this package made
  (`mess_core.workflow.record`).
* ``locks/`` keeps an empty file per fingerprint that was ever claimed. Removing one on release is
  a race that not every file system can decide (who has it open locks a file that has no name any
  more), so they stay. Remove them, or empty the store, only while no job runs.
* Claims keep machines apart where the file system's locks do: NFS does unless it is mounted with
  ``nolock`` or ``local_lock``, Lustre with ``flock`` but not with ``localflock``. Where they do
  not, two machines may compute the same file and one of them may fail, but nothing wrong is stored:
  the folders of claims have names of their own, and files get their place whole, by a rename.
"""

__all__ = ["Claim", "cached", "claim", "find", "is_copy", "materialise", "note_of"]

import filecmp
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from mess_core.errors import StorageError
from mess_core.files import atomic_path, file_sha256, flush, read_json, storage_errors
from mess_core.workflow import software

if TYPE_CHECKING:
    from filelock import FileLock


def find(cache: Path, kind: str, fingerprint: str, suffix: str) -> Path | None:
    """Return a stored file if its content is still what its name says.

    Changes nothing and needs no claim: a damaged file is replaced by the next one that is stored.

    Parameters
    ----------
    cache : Path
        The store's folder.
    kind : str
        What is stored, for example ``features``: a sub-folder.
    fingerprint : str
        Of everything that the content depends on (`mess_core.files.fingerprint`).
    suffix : str
        File name suffix with its dot.

    Returns
    -------
    Path or None
        The stored file; None where it is absent, damaged or cannot be read. Do not write to it.
    """
    stored = sorted(_shelf(cache, kind, fingerprint).glob(f"{fingerprint}.*{suffix}"))
    return next((path for path in stored if _is_intact(path, fingerprint, suffix)), None)


def _shelf(cache: Path, kind: str, fingerprint: str) -> Path:
    return cache / kind / fingerprint[:2]


def _is_intact(path: Path, fingerprint: str, suffix: str) -> bool:
    with suppress(OSError):
        return path.name == _name(fingerprint, path, suffix)
    return False


def _name(fingerprint: str, content: Path, suffix: str) -> str:
    return f"{fingerprint}.{file_sha256(content)[:16]}{suffix}"


def note_of(cache: Path, kind: str, fingerprint: str) -> dict[str, Any] | None:
    """Return when and by which code a stored file was computed.

    Parameters
    ----------
    cache, kind, fingerprint
        As in `find`.

    Returns
    -------
    dict or None
        ``computed`` (ISO 8601, UTC) and ``code`` (`mess_core.workflow.software.code`); None where
        the store was emptied since, or does not say.
    """
    try:
        note = read_json(_note(_shelf(cache, kind, fingerprint), fingerprint))
    except (StorageError, OSError):
        return None
    return note if isinstance(note, dict) and {"computed", "code"} <= note.keys() else None


def _note(shelf: Path, fingerprint: str) -> Path:
    return shelf / f"{fingerprint}.json"


class Claim:
    """The exclusive right to compute one fingerprint, until it is released; see `claim`.

    A context manager that releases at the end of its block. Any thread may use and release it.

    Attributes
    ----------
    folder : Path
        An empty temporary folder inside the store for what is being computed. It goes away on
        release; what a killed process left in its own goes away with the next claim.
    """

    def __init__(self, cache: Path, kind: str, folder: Path, lock: "FileLock") -> None:
        self.folder = folder
        self._cache = cache
        self._kind = kind
        self._lock = lock

    def __enter__(self) -> "Claim":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def store(self, fingerprint: str, content: Path, suffix: str) -> Path:
        """Move a finished file into the store; may be called for several files.

        Parameters
        ----------
        fingerprint : str
            Of the file: the claimed one or another. Files of one fingerprint must always be stored
            under claims of the same one, after `find` gave None for it: others are replaced.
        content : Path
            A file in `folder`, closed.
        suffix : str
            File name suffix with its dot.

        Returns
        -------
        Path
            The stored file. Do not write to it.

        Raises
        ------
        StorageError
            If it cannot be written; see `mess_core.files.storage_errors`.
        """
        shelf = _shelf(self._cache, self._kind, fingerprint)
        with storage_errors(content), storage_errors(shelf):
            shelf.mkdir(parents=True, exist_ok=True)
            flush(content)
            self._write_note(_note(shelf, fingerprint))
            stored = content.replace(shelf / _name(fingerprint, content, suffix))
            flush(shelf)
            for other in shelf.glob(f"{fingerprint}.*{suffix}"):
                if other != stored:
                    other.unlink(missing_ok=True)
        return stored

    def _write_note(self, path: Path) -> None:
        # Not flushed: a note that a power cut leaves empty says nothing, and nothing depends on it.
        temporary = self.folder / path.name
        note = {"computed": software.now(), "code": software.code()}
        temporary.write_text(json.dumps(note))
        temporary.replace(path)

    def materialise(self, stored: Path, output: Path) -> None:
        """Do what `materialise` does, and remove what a killed process left of the same.

        `folder` must not be used any more: it goes away first, so that a process that is killed
        once the output is there, when nobody claims this again, leaves nothing behind.

        Raises
        ------
        StorageError
            If it cannot be written; see `mess_core.files.storage_errors`.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        # No random name, since who comes next must find it; no two claims have the same.
        temporary = output.with_name(f".tmp-{stored.name}")
        with storage_errors(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            try:
                if not is_copy(stored, output):
                    shutil.copyfile(stored, temporary)
                    flush(temporary)
                    temporary.replace(output)
                    flush(output.parent)
            finally:
                temporary.unlink(missing_ok=True)

    def release(self) -> None:
        """Remove `folder` and free the claim; a second time does nothing."""
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            self._lock.release()


@overload
def claim(cache: Path, kind: str, fingerprint: str, *, wait: Literal[True] = ...) -> Claim: ...
@overload
def claim(cache: Path, kind: str, fingerprint: str, *, wait: bool) -> Claim | None: ...
def claim(cache: Path, kind: str, fingerprint: str, *, wait: bool = True) -> Claim | None:
    """Get the exclusive right to compute a fingerprint, across threads and processes.

    Parameters
    ----------
    cache : Path
        The store's folder.
    kind : str
        What is stored: a sub-folder.
    fingerprint : str
        What to compute. A thread that holds it must not ask for it again.
    wait : bool
        Wait for another holder to release it, or to die.

    Returns
    -------
    Claim or None
        None, only without ``wait``, while another thread or process holds it.

    Raises
    ------
    StorageError
        If the store cannot be written; see `mess_core.files.storage_errors`.
    """
    # Only who computes needs it: a search service reads no store, and does without.
    from filelock import FileLock, Timeout

    shelf = _shelf(cache, kind, fingerprint)
    path = cache / "locks" / f"{kind}-{fingerprint}.lock"
    lock = FileLock(path, thread_local=False)
    with storage_errors(path), storage_errors(shelf):
        path.parent.mkdir(parents=True, exist_ok=True)
        shelf.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            return None
        try:
            return Claim(cache, kind, _fresh_folder(shelf, f".tmp-{fingerprint}-"), lock)
        except BaseException:
            lock.release()
            raise


def _fresh_folder(shelf: Path, prefix: str) -> Path:
    """Return a new folder; remove what dead processes left in theirs."""
    for leftover in shelf.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return Path(mkdtemp(prefix=prefix, dir=shelf))


def cached(
    cache: Path, kind: str, fingerprint: str, suffix: str, write: Callable[[Path], None]
) -> Path:
    """Return a stored file, computing it first where it is absent.

    Parameters
    ----------
    cache, kind, fingerprint, suffix
        As in `find`.
    write : callable
        Gets a path to write the content to. Runs at most once at a time per fingerprint, also
        across processes; when it raises nothing is stored.

    Returns
    -------
    Path
        The stored file. Do not write to it.

    Raises
    ------
    StorageError
        If the store cannot be written; see `mess_core.files.storage_errors`.
    """
    if stored := find(cache, kind, fingerprint, suffix):
        return stored
    with claim(cache, kind, fingerprint) as mine:
        if stored := find(cache, kind, fingerprint, suffix):
            return stored
        content = mine.folder / f"content{suffix}"
        with storage_errors(content):
            write(content)
        return mine.store(fingerprint, content, suffix)


def materialise(stored: Path, output: Path) -> bool:
    """Make ``output`` a copy of ``stored``; leave an equal file, and its time, untouched.

    Returns
    -------
    bool
        Whether anything was written.

    Raises
    ------
    StorageError
        If it cannot be written; see `mess_core.files.storage_errors`.
    """
    with storage_errors(output):
        if is_copy(stored, output):
            return False
        with atomic_path(output) as temporary:
            shutil.copyfile(stored, temporary)
    return True


def is_copy(stored: Path, output: Path) -> bool:
    """Say whether ``output`` is there and equal to ``stored``."""
    return output.exists() and filecmp.cmp(stored, output, shallow=False)
