"""Publishing to a folder or to S3, and opening what was published.

A *location* is a folder or ``s3://bucket/prefix``. What is published there lies in
``{location}/{dataset}/{kind}/``: one folder per version, which never changes, and ``latest.json``,
which names the current one and is replaced last, in one step. A reader sees the old version or the
new one, complete; old versions stay until somebody prunes them.

A service calls `fetch` for a folder of its own and loads that; `published_version` tells it cheaply
whether there is a newer one.
"""

__all__ = [
    "fetch",
    "load_latest",
    "load_published",
    "prune_versions",
    "publish",
    "publish_to_folder",
    "published_datasets",
    "published_version",
    "published_versions",
    "rollback",
    "verify_published",
]

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mess_core.errors import ArtifactError
from mess_core.index.artifact import load_artifact, verify_artifact
from mess_core.index.index import Index
from mess_core.layout import INDEX_KINDS
from mess_core.publishing import fetch as fetching, versions
from mess_core.publishing.pointer import POINTER
from mess_core.publishing.stores import FolderStore, Store
from mess_core.publishing.transfer import Transfer
from mess_core.publishing.versions import Version

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def open_store(
    location: str, *below: str, client: Any = None, transfer: Transfer | None = None
) -> Store:
    """Return the objects of a location, or of a dataset and kind below it.

    Raises
    ------
    ArtifactError
        If the location is neither a folder nor ``s3://bucket/prefix``, or a name below it could
        leave it.
    """
    for name in below:
        _check_name(name, location)
    if "://" not in location:
        return FolderStore(Path(location, *below))
    # boto3 costs half a second, which those who read a folder need not spend.
    from mess_core.publishing.s3 import S3Store

    parts = urlsplit(location)
    if parts.scheme != "s3" or not parts.netloc:
        raise ArtifactError(f"{location!r} is neither a folder nor of the form s3://bucket/prefix")
    prefix = "/".join([parts.path.strip("/"), *below])
    return S3Store(parts.netloc, prefix, client=client, transfer=transfer)


def _check_name(name: object, where: object) -> None:
    if not isinstance(name, str) or not _SAFE_NAME.fullmatch(name):
        raise ArtifactError(
            f"{where}: its dataset or kind is {name!r}; expected a name of letters, digits, "
            "'.', '_', '+' and '-'"
        )


def publish(
    artifact_dir: Path,
    destination: str,
    *,
    client: Any = None,
    transfer: Transfer | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Publish an artifact and make it the latest of its dataset and kind.

    Parameters
    ----------
    artifact_dir : Path
        A folder as `save_artifact` writes it; its facts must name the ``dataset``.
    destination : str
        A folder, or ``s3://bucket/prefix``.
    client : boto3 S3 client, optional
        For S3 only; else one from the environment.
    transfer : Transfer, optional
        Sizes of parts, attempts, pauses and progress.
    dry_run : bool
        Only look what would be done.

    Returns
    -------
    dict
        ``location``, ``artifact_version_id``, ``manifest_sha256``, and ``pointer_moved``: False
        when this version was the latest already.

    Raises
    ------
    ArtifactError
        If the artifact is damaged or names no dataset, a file is there already with other content,
        another publisher moved the pointer meanwhile, or a request fails.
    """
    manifest = verify_artifact(artifact_dir)
    dataset = manifest["facts"].get("dataset")
    _check_name(dataset, artifact_dir)
    transfer = transfer or Transfer()
    store = open_store(destination, dataset, manifest["kind"], client=client, transfer=transfer)
    return versions.publish_version(store, artifact_dir, manifest, transfer, dry_run=dry_run)


def publish_to_folder(artifact_dir: Path, folder: Path) -> dict[str, Any]:
    """Copy an artifact into a folder of versions and make it the latest.

    Parameters
    ----------
    artifact_dir : Path
        A folder as `save_artifact` writes it.
    folder : Path
        Where versions of this dataset and kind lie. Made when missing.

    Returns
    -------
    dict
        As `publish`.

    Raises
    ------
    ArtifactError
        If the artifact, its copy, or a version that is there already is damaged.
    """
    manifest = verify_artifact(artifact_dir)
    return versions.publish_version(FolderStore(folder), artifact_dir, manifest, Transfer())


def fetch(
    location: str,
    dataset: str,
    kind: str,
    cache_dir: Path,
    *,
    version_id: str | None = None,
    client: Any = None,
    transfer: Transfer | None = None,
) -> Path:
    """Fetch a version into a cache that several processes may share; the latest one by default.

    Only files that the cache has not are read from the store. A fetch that was interrupted goes on
    where it stopped, and two processes that fetch the same version share the work.

    Parameters
    ----------
    location : str
        A folder, or ``s3://bucket/prefix``.
    dataset : str
        One of `published_datasets`.
    kind : str
        ``recordings`` or ``clips``.
    cache_dir : Path
        Where it goes, as ``cache_dir / version_id``, once it is whole and verified.
    version_id : str, optional
        Another version than the latest.
    client : boto3 S3 client, optional
        For S3 only; else one from the environment.
    transfer : Transfer, optional
        Attempts, pauses and progress.

    Returns
    -------
    Path
        The artifact's folder, for `load_artifact`.

    Raises
    ------
    ArtifactError
        If nothing was published there, or what was is damaged, or a request fails.
    StorageError
        If the cache cannot be written.
    """
    transfer = transfer or Transfer()
    store = open_store(location, dataset, kind, client=client, transfer=transfer)
    if version_id is None:
        return fetching.fetch_latest(store, cache_dir, transfer)
    return fetching.fetch_version(store, version_id, cache_dir, transfer)


def load_latest(folder: Path) -> Index:
    """Load the version that a folder's pointer names, where it lies.

    Parameters
    ----------
    folder : Path
        As for `publish_to_folder`.

    Returns
    -------
    Index

    Raises
    ------
    ArtifactError
        If nothing was published there, or what was is damaged.
    """
    pointer = versions.read_pointer(FolderStore(folder))
    return load_artifact(
        folder / pointer.artifact_version_id,
        version_id=pointer.artifact_version_id,
        manifest_sha256=pointer.manifest_sha256,
    )


def load_published(
    location: str,
    dataset: str,
    kind: str,
    *,
    cache_dir: Path,
    client: Any = None,
    transfer: Transfer | None = None,
) -> Index:
    """Load the latest index of a dataset from a published location.

    Parameters
    ----------
    location : str
        A folder, which is read where it is, or ``s3://bucket/prefix``.
    dataset : str
        One of `published_datasets`.
    kind : str
        ``recordings`` or ``clips``.
    cache_dir : Path
        Where versions from S3 are kept.
    client : boto3 S3 client, optional
        For S3 only; else one from the environment.
    transfer : Transfer, optional
        Attempts, pauses and progress.

    Returns
    -------
    Index

    Raises
    ------
    ArtifactError
        If nothing was published there, or what was is damaged.
    """
    if "://" not in location:
        _check_name(dataset, location)
        return load_latest(Path(location) / dataset / kind)
    path = fetch(location, dataset, kind, cache_dir, client=client, transfer=transfer)
    return load_artifact(path, version_id=path.name)


def published_datasets(location: str, *, client: Any = None) -> list[str]:
    """Return the names of the datasets at a published location, sorted.

    Raises
    ------
    ArtifactError
        If the location cannot be read.
    """
    store = open_store(location, client=client)
    return [
        name
        for name in store.folders()
        if any(store.read(f"{name}/{kind}/{POINTER}") for kind in INDEX_KINDS)
    ]


def published_version(location: str, dataset: str, kind: str, *, client: Any = None) -> str:
    """Return the latest version's id, by reading the pointer alone.

    Raises
    ------
    ArtifactError
        If nothing was published there, or the location cannot be read.
    """
    store = open_store(location, dataset, kind, client=client)
    return versions.read_pointer(store).artifact_version_id


def published_versions(
    location: str, dataset: str, kind: str, *, client: Any = None
) -> list[Version]:
    """List the versions of a dataset and kind, the newest first; see `versions.list_versions`."""
    return versions.list_versions(open_store(location, dataset, kind, client=client))


def rollback(
    location: str,
    dataset: str,
    kind: str,
    version_id: str,
    *,
    client: Any = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Make an older version the latest, once it is verified; see `versions.roll_back`."""
    store = open_store(location, dataset, kind, client=client)
    return versions.roll_back(store, version_id, dry_run=dry_run)


def prune_versions(
    location: str, dataset: str, kind: str, *, keep: int, client: Any = None, dry_run: bool = False
) -> list[Version]:
    """Remove all but the newest versions, never the latest; see `versions.prune`."""
    store = open_store(location, dataset, kind, client=client)
    return versions.prune(store, keep, dry_run=dry_run)


def verify_published(
    location: str, dataset: str, kind: str, version_id: str, *, client: Any = None
) -> int:
    """Check every file of a version in the store, and return their size in bytes.

    Raises
    ------
    ArtifactError
        If a file is missing or damaged, or a request fails.
    """
    store = open_store(location, dataset, kind, client=client)
    described = versions.verify_version(store, version_id)
    return sum(entry["size"] for entry in described.checksums.values())
