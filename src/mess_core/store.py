"""The content-addressed store of computed files, and its materialisation as outputs.

A computed file is named by the fingerprint of everything that it depends on (stage version, hashes
of its inputs, settings), so it never goes stale: what is there is right, what is not there is
computed. The name also holds a hash of the content, by which damage is noticed. Outputs are copies.
Therefore one new recording costs one recording, a job killed half way loses at most the recording
in flight, a damaged or deleted output costs a copy, and going back to an earlier configuration
costs nothing. The store grows until someone empties it, which loses nothing but time.
"""

__all__ = ["cached", "materialise"]

import filecmp
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from mess_core.files import atomic_path, file_sha256


def cached(
    cache: Path, kind: str, fingerprint: str, suffix: str, write: Callable[[Path], None]
) -> Path:
    """Return a stored file, computing it first where it is absent.

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
    write : callable
        Gets a path to write the content to. Runs at most once at a time per fingerprint, also
        across processes; when it raises nothing is stored.

    Returns
    -------
    Path
        The stored file. Do not write to it.
    """
    folder = cache / kind / fingerprint[:2]
    locks = cache / "locks"
    for needed in (folder, locks):
        needed.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{kind}-{fingerprint}.lock"):
        return _intact(folder, fingerprint, suffix) or _compute(folder, fingerprint, suffix, write)


def _intact(folder: Path, fingerprint: str, suffix: str) -> Path | None:
    """Return the stored file if its content is still what its name says; remove it if not."""
    for path in folder.glob(f"{fingerprint}.*{suffix}"):
        if path.name == _name(fingerprint, path, suffix):
            return path
        path.unlink()
    return None


def _compute(folder: Path, fingerprint: str, suffix: str, write: Callable[[Path], None]) -> Path:
    with TemporaryDirectory(prefix=".tmp-", dir=folder) as work:
        fresh = Path(work) / f"content{suffix}"
        write(fresh)
        path = folder / _name(fingerprint, fresh, suffix)
        with atomic_path(path) as temporary:
            fresh.replace(temporary)
    return path


def _name(fingerprint: str, content: Path, suffix: str) -> str:
    return f"{fingerprint}.{file_sha256(content)[:16]}{suffix}"


def materialise(stored: Path, output: Path) -> bool:
    """Make ``output`` a copy of ``stored``; leave an equal file, and its time, untouched.

    Returns
    -------
    bool
        Whether anything was written.
    """
    if output.exists() and filecmp.cmp(stored, output, shallow=False):
        return False
    with atomic_path(output) as temporary:
        shutil.copyfile(stored, temporary)
    return True
