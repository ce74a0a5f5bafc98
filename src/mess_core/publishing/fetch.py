"""Fetching a version into a cache folder that several processes share.

A cache holds ``{version}/``, whole and verified, ``.{version}.part/`` while it is being fetched,
and ``.{version}.lock``. Who holds the lock fetches; others wait for it and find the version there.
What was interrupted goes on where it stopped. Only what is missing or differs comes from the store:
a file of another cached version that has the same SHA-256 is copied, and a version that was damaged
in the cache keeps its undamaged files.
"""

__all__ = ["default_cache", "fetch_latest", "fetch_version", "is_whole"]

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mess_core.errors import ArtifactError
from mess_core.files import file_sha256, storage_errors, write_bytes
from mess_core.index.artifact import (
    is_version_id,
    parse_checksums,
    settle,
    verify_artifact,
)
from mess_core.publishing.stores import NotThereError, Store
from mess_core.publishing.transfer import Meter, Transfer, locked
from mess_core.publishing.versions import CHECKSUMS, MANIFEST, read_description, read_pointer

_CHUNK_BYTES = 1024**2
#: How often a file is read that arrives damaged or too short, and a pointer whose version is gone.
_TRIES = 3


def default_cache() -> Path:
    """Return the user's cache folder: ``mess/artifacts`` in $XDG_CACHE_HOME or ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "mess" / "artifacts"


def fetch_latest(store: Store, cache_dir: Path, transfer: Transfer) -> Path:
    """Fetch the version that the pointer names.

    Parameters
    ----------
    store : Store
        Where versions of one dataset and kind lie.
    cache_dir : Path
        As in `fetch_version`.
    transfer : Transfer
        Attempts, pauses and progress.

    Returns
    -------
    Path
        As `fetch_version`.

    Raises
    ------
    ArtifactError
        If nothing was published there, or as `fetch_version`.
    """
    failed = 0
    while True:
        pointer = read_pointer(store)
        try:
            return fetch_version(
                store,
                pointer.artifact_version_id,
                cache_dir,
                transfer,
                manifest_sha256=pointer.manifest_sha256,
            )
        except NotThereError:
            # The version may have been pruned after the pointer was read: it names another now.
            failed += 1
            if failed == _TRIES:
                raise
        transfer.pause(failed)


def fetch_version(
    store: Store,
    version_id: str,
    cache_dir: Path,
    transfer: Transfer,
    *,
    manifest_sha256: str | None = None,
) -> Path:
    """Fetch a version, unless it is there and undamaged.

    Parameters
    ----------
    store : Store
        Where versions of one dataset and kind lie.
    version_id : str
        The version to fetch.
    cache_dir : Path
        Where it goes, as ``cache_dir / version_id``, by a rename after all of it was verified.
    transfer : Transfer
        Attempts, pauses and progress.
    manifest_sha256 : str, optional
        What its manifest must hash to, as a pointer says.

    Returns
    -------
    Path
        The artifact's folder.

    Raises
    ------
    NotThereError
        If the version does not exist.
    ArtifactError
        If it is damaged or a request fails.
    StorageError
        If the cache cannot be written; see `mess_core.files.storage_errors`.
    """
    if not is_version_id(version_id):
        raise ArtifactError(f"{version_id!r} is no version id: expected 64 hexadecimal digits")
    target = cache_dir / version_id
    if is_whole(target, manifest_sha256):
        return target
    with locked(cache_dir / f".{version_id}.lock"):
        if is_whole(target, manifest_sha256):
            return target
        part = cache_dir / f".{version_id}.part"
        with storage_errors(part):
            _make_place(part, target)
            _fill(_Filling(store, version_id, part, transfer), manifest_sha256)
            try:
                verify_artifact(part, version_id=version_id, manifest_sha256=manifest_sha256)
            except ArtifactError:
                shutil.rmtree(part)
                raise
            return settle(part, target)


def is_whole(target: Path, manifest_sha256: str | None = None) -> bool:
    """Return whether a version is in the cache and undamaged.

    Raises
    ------
    ArtifactError
        If it is there and may not be read: it may be whole for others.
    """
    if not target.exists():
        return False
    for path in (target, *(target.iterdir() if os.access(target, os.R_OK | os.X_OK) else ())):
        if not os.access(path, os.R_OK):
            raise ArtifactError(
                f"{path} may not be read: make it readable for you, or use another cache folder"
            )
    with suppress(ArtifactError, OSError):
        verify_artifact(target, version_id=target.name, manifest_sha256=manifest_sha256, trust=True)
        return True
    return False


def _make_place(part: Path, target: Path) -> None:
    """Let ``part`` hold plain files only: what a damaged version or an interrupted fetch left."""
    if target.exists():
        shutil.rmtree(part, ignore_errors=True)
        target.rename(part)
    part.mkdir(parents=True, exist_ok=True)
    for path in part.iterdir():
        if path.is_symlink() or not path.is_file():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@dataclass(frozen=True, slots=True)
class _Filling:
    store: Store
    version_id: str
    part: Path
    transfer: Transfer

    def twins(self, name: str, sha256: str) -> Iterator[Path]:
        """Give equal files of other cached versions, as their lists of checksums say."""
        for folder in self.part.parent.iterdir():
            with suppress(ArtifactError, OSError):
                if is_version_id(folder.name):
                    listed = folder / CHECKSUMS
                    checksums = parse_checksums(listed.read_bytes(), listed)
                    if checksums[name]["sha256"] == sha256:
                        yield folder / name


def _fill(filling: _Filling, manifest_sha256: str | None) -> None:
    described = read_description(filling.store, filling.version_id)
    if manifest_sha256 not in (None, described.manifest_sha256):
        raise ArtifactError(
            f"{filling.store.url(f'{filling.version_id}/{MANIFEST}')} has SHA-256 "
            f"{described.manifest_sha256}, the pointer says {manifest_sha256}; publish again"
        )
    small = {CHECKSUMS: described.checksums_bytes, MANIFEST: described.manifest_bytes}
    for path in filling.part.iterdir():
        if path.name not in described.checksums:
            path.unlink()
    meter = Meter(filling.transfer, sum(e["size"] for e in described.checksums.values()))
    for name, expected in described.checksums.items():
        _fill_file(filling, name, expected, meter)
    for name, content in small.items():
        write_bytes(filling.part / name, content)


def _fill_file(filling: _Filling, name: str, expected: dict[str, Any], meter: Meter) -> None:
    path, size, sha256 = filling.part / name, expected["size"], expected["sha256"]
    if not _is(path, size, sha256):
        for twin in filling.twins(name, sha256):
            # Not over a damaged file, which another process may have mapped.
            path.unlink(missing_ok=True)
            with suppress(OSError):
                shutil.copyfile(twin, path)
            if _is(path, size, sha256):
                break
    if _is(path, size, sha256):
        meter(size, name)
        return
    for _ in range(_TRIES):
        if path.exists() and path.stat().st_size >= size:
            path.unlink()
        if _download(filling, path, size, meter) == sha256:
            return
        meter(-path.stat().st_size, name)
    path.unlink()
    raise ArtifactError(
        f"{filling.store.url(f'{filling.version_id}/{name}')} came {_TRIES} times other than its "
        f"{CHECKSUMS} says ({size} bytes, SHA-256 {sha256}); it is damaged, or something between "
        "here and the store is: try again, or publish it again"
    )


def _is(path: Path, size: int, sha256: str) -> bool:
    return path.exists() and path.stat().st_size == size and file_sha256(path) == sha256


def _download(filling: _Filling, path: Path, size: int, meter: Meter) -> str:
    """Append what is missing of a file, never more than its size; return the SHA-256 of it all."""
    digest, position = hashlib.sha256(), 0
    with path.open("a+b") as file:
        file.seek(0)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            position += len(chunk)
        meter(position, path.name)
        for chunk in filling.store.stream(f"{filling.version_id}/{path.name}", position):
            position += len(chunk)
            digest.update(chunk)
            file.write(chunk)
            meter(len(chunk), path.name)
            if position > size:
                break
    return digest.hexdigest()
