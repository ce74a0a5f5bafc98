"""Fetching versions into a cache folder that processes may share, and opening them.

A version is fetched to a temporary folder, verified, and renamed to ``{cache}/{version}``: it is
there whole or not at all. Nothing is removed from a cache; delete versions that nobody uses.

``client`` and ``progress`` are those of `mess_core.publishing.publish`. What opens an index takes
``verify``, as `load_artifact` does. All raise `ArtifactError` if a request fails.
"""

__all__ = [
    "default_cache",
    "download_artifact_from_s3",
    "fetch",
    "load_latest",
    "load_latest_from_s3",
    "load_published",
]

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from mess_core.errors import ArtifactError
from mess_core.files import storage_errors
from mess_core.index.artifact import (
    FILES,
    is_version_id,
    load_artifact,
    place,
    temporary_folder,
    verify_artifact,
)
from mess_core.index.index import Index
from mess_core.progress import Report
from mess_core.publishing.publish import read_description, read_pointer
from mess_core.publishing.stores import FolderStore, MissingError, S3Store, Store, meter, open_store


def default_cache() -> Path:
    """Return the user's cache folder: ``mess/artifacts`` in $XDG_CACHE_HOME or ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "mess" / "artifacts"


def fetch(
    location: str,
    dataset: str,
    kind: str,
    cache_dir: Path,
    *,
    version_id: str | None = None,
    client: Any = None,
    progress: Report | None = None,
) -> Path:
    """Fetch a version into a cache, unless it is there and undamaged; the latest by default.

    Returns the artifact's folder, for `load_artifact`. Raises `ArtifactError` if there is no such
    version or it is damaged, and `StorageError` if the cache cannot be written.

    Parameters
    ----------
    location : str
        A folder, or ``s3://bucket/prefix``.
    dataset, kind : str
        One of `published_datasets`, and ``recordings`` or ``clips``.
    cache_dir : Path
        Where versions are kept, each in a folder named by its id.
    version_id : str, optional
        Another version than the latest.
    """
    store = open_store(location, dataset, kind, client=client)
    if version_id is None:
        return _fetch_latest(store, cache_dir, progress)
    return _fetch_version(store, version_id, cache_dir, progress)


def download_artifact_from_s3(
    bucket: str,
    prefix: str,
    version_id: str,
    cache_dir: Path,
    *,
    client: Any = None,
    progress: Report | None = None,
) -> Path:
    """Fetch a version from below a prefix in S3, as `fetch` does below a dataset and kind.

    Raises `ArtifactError` if there is no such version or it is damaged.
    """
    return _fetch_version(S3Store(bucket, prefix, client=client), version_id, cache_dir, progress)


def _fetch_latest(
    store: Store, cache_dir: Path, progress: Report | None, *, verify: bool = True
) -> Path:
    while True:
        version_id = read_pointer(store)
        try:
            return _fetch_version(store, version_id, cache_dir, progress, verify=verify)
        except MissingError:
            # It may have been pruned since the pointer moved on.
            if read_pointer(store) == version_id:
                raise


def _fetch_version(
    store: Store,
    version_id: str,
    cache_dir: Path,
    progress: Report | None,
    *,
    verify: bool = True,
) -> Path:
    """Fetch a version unless it is there and, with ``verify``, undamaged."""
    target = cache_dir / version_id
    if is_version_id(version_id) and target.is_dir():
        with suppress(ArtifactError):
            if verify:
                verify_artifact(target, version_id=version_id)
            return target
    listed = read_description(store, version_id)
    with storage_errors(target), temporary_folder(cache_dir) as folder:
        sent = meter(progress, sum(entry["size"] for entry in listed.values()))
        for name in FILES:
            store.download(f"{version_id}/{name}", folder / name, sent(name))
        try:
            verify_artifact(folder, version_id=version_id)
        except ArtifactError as error:
            raise ArtifactError(
                f"what came from {store.url(version_id)} is damaged, there or on its way: {error}"
            ) from None
        return place(folder, target)


def load_latest(folder: Path, *, verify: bool = True) -> Index:
    """Load the version that the pointer in a folder of `publish_to_folder` names, where it lies.

    Raises `ArtifactError` if nothing was published there, or it is damaged.
    """
    version_id = read_pointer(FolderStore(folder))
    return load_artifact(folder / version_id, version_id=version_id, verify=verify)


def load_latest_from_s3(
    bucket: str,
    prefix: str,
    cache_dir: Path,
    *,
    client: Any = None,
    progress: Report | None = None,
    verify: bool = True,
) -> Index:
    """Load the latest version below a prefix in S3, as `load_published` does.

    Raises `ArtifactError` if nothing was published there, or it is damaged.
    """
    return _load_latest(S3Store(bucket, prefix, client=client), cache_dir, progress, verify=verify)


def load_published(
    location: str,
    dataset: str,
    kind: str,
    *,
    cache_dir: Path,
    client: Any = None,
    progress: Report | None = None,
    verify: bool = True,
) -> Index:
    """Load the latest index of a dataset from a published location.

    The parameters are those of `fetch`; a folder is read where it is, without a cache. Raises
    `ArtifactError` if nothing was published there, or it is damaged.
    """
    store = open_store(location, dataset, kind, client=client)
    if isinstance(store, FolderStore):
        return load_latest(store.root, verify=verify)
    return _load_latest(store, cache_dir, progress, verify=verify)


def _load_latest(store: Store, cache_dir: Path, progress: Report | None, *, verify: bool) -> Index:
    path = _fetch_latest(store, cache_dir, progress, verify=False)
    try:
        return load_artifact(path, version_id=path.name, verify=verify)
    except ArtifactError:  # What was damaged in the cache is fetched again.
        path = _fetch_version(store, path.name, cache_dir, progress)
        return load_artifact(path, version_id=path.name, verify=verify)
