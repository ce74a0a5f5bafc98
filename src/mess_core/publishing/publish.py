"""Publishing artifacts to a folder or S3, and the versions that lie there.

A *location* is a folder or ``s3://bucket/prefix``. Below ``{location}/{dataset}/{kind}/`` lie
``{version}/{file}``, which never change, and the pointer ``latest.json``, which names the current
version. Publishing

1. reads the pointer;
2. uploads each file that is not there, the manifest last, and checks size and SHA-256 of each where
   it lies;
3. moves the pointer by compare-and-swap.

Whatever stops this, the pointer names a complete version, and running it again completes it.

Functions of a location take a boto3 S3 ``client``, for S3 only; else one is made from the
environment. ``progress`` takes ``(done, total, name)`` in megabytes, as
`mess_core.progress.Progress` does. All raise `ArtifactError` if a request fails.
"""

__all__ = [
    "Version",
    "prune_versions",
    "publish",
    "publish_to_folder",
    "published_datasets",
    "published_version",
    "published_versions",
    "rollback",
    "upload_artifact_to_s3",
    "verify_published",
]

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mess_core.errors import ArtifactError
from mess_core.files import file_sha256
from mess_core.index.artifact import FILES, is_version_id, parse_manifest, verify_artifact
from mess_core.layout import INDEX_KINDS
from mess_core.progress import Report
from mess_core.publishing.stores import (
    Entry,
    FolderStore,
    MissingError,
    S3Store,
    Store,
    meter,
    open_store,
)

POINTER = "latest.json"
*_, CHECKSUMS, MANIFEST = FILES
#: Versions younger than this many seconds are never pruned: they may be on their way.
_YOUNG_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Version:
    """A version as it lies in the store."""

    version_id: str
    #: When its last file was written, in seconds of Unix.
    modified: float
    #: Of all its files, in bytes.
    size: int
    #: Whether its manifest, which is written last, is there.
    complete: bool
    #: Whether the pointer names it.
    latest: bool


def publish(
    artifact_dir: Path,
    destination: str,
    *,
    client: Any = None,
    progress: Report | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Publish an artifact and make it the latest of its dataset and kind.

    Returns ``location``, ``artifact_version_id``, and ``pointer_moved``: False when this version
    was the latest already. Raises `ArtifactError` if the artifact is damaged or names no dataset,
    or another publisher moved the pointer meanwhile.

    Parameters
    ----------
    artifact_dir : Path
        A folder as `save_artifact` writes it; its facts must name the ``dataset``.
    destination : str
        A folder, or ``s3://bucket/prefix``.
    dry_run : bool
        Only look what would be done.
    """
    manifest = verify_artifact(artifact_dir)
    dataset = manifest["facts"].get("dataset")
    store = open_store(destination, dataset, manifest["kind"], client=client)
    return _publish(store, artifact_dir, manifest, progress, dry_run=dry_run)


def publish_to_folder(artifact_dir: Path, folder: Path) -> dict[str, Any]:
    """Publish an artifact in a folder, as `publish` does below a dataset and kind.

    Raises `ArtifactError` as `publish` does.
    """
    return _publish(FolderStore(folder), artifact_dir, verify_artifact(artifact_dir), None)


def upload_artifact_to_s3(
    artifact_dir: Path,
    bucket: str,
    prefix: str,
    *,
    client: Any = None,
    progress: Report | None = None,
) -> dict[str, Any]:
    """Publish an artifact below a prefix in S3, as `publish` does below a dataset and kind.

    Raises `ArtifactError` as `publish` does.
    """
    manifest = verify_artifact(artifact_dir)
    return _publish(S3Store(bucket, prefix, client=client), artifact_dir, manifest, progress)


def _publish(
    store: Store,
    artifact_dir: Path,
    manifest: dict[str, Any],
    progress: Report | None,
    *,
    dry_run: bool = False,
) -> dict[str, Any]:
    version_id = manifest["artifact_version_id"]
    before = store.read(POINTER)
    if not dry_run:
        _upload(store, artifact_dir, version_id, progress)
    return _make_latest(store, version_id, before, dry_run=dry_run)


def _upload(store: Store, folder: Path, version_id: str, progress: Report | None) -> None:
    sent = meter(progress, sum((folder / name).stat().st_size for name in FILES))
    for name in FILES[:-1]:
        path, key = folder / name, f"{version_id}/{name}"
        content = (path.stat().st_size, file_sha256(path), path)
        if store.holds(key, *content):
            sent(name)(content[0])
            continue
        store.upload(path, key, sent(name))
        if not store.holds(key, *content):
            raise ArtifactError(
                f"{store.url(key)} does not hold what was uploaded ({content[0]} bytes, SHA-256 "
                f"{content[1]}); try again, or ask the store's operator"
            )
    try:
        # The manifest of another build of the same content may stay.
        read_description(store, version_id)
    except ArtifactError:
        store.upload(folder / MANIFEST, f"{version_id}/{MANIFEST}", sent(MANIFEST))
        read_description(store, version_id)


def read_description(store: Store, version_id: str) -> dict[str, dict[str, Any]]:
    """Return the size and SHA-256 of each file of a version but the manifest, which is checked.

    Raises `MissingError` if there is no such version, or it is not complete.
    """
    if not is_version_id(version_id):
        raise ArtifactError(f"{version_id!r} is no version id: expected 64 hexadecimal digits")
    found = {name: store.read(f"{version_id}/{name}") for name in (MANIFEST, CHECKSUMS)}
    manifest, checksums = found[MANIFEST], found[CHECKSUMS]
    if manifest is None or checksums is None:
        missing = MANIFEST if manifest is None else CHECKSUMS
        raise MissingError(
            f"there is no version {version_id} at {store.url()}: {missing} does not exist"
        )
    where = store.url(version_id)
    return parse_manifest(manifest[0], checksums[0], where, version_id=version_id)[1]


def _make_latest(
    store: Store, version_id: str, before: tuple[bytes, str] | None, *, dry_run: bool
) -> dict[str, Any]:
    """Move the pointer from what it was before to a version that is complete."""
    moves = before is None or _named(before[0]) != version_id
    if moves and not dry_run:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        pointer = {"artifact_version_id": version_id, "published": now}
        content = (json.dumps(pointer, indent=2) + "\n").encode()
        if not store.swap(POINTER, content, before[1] if before else None):
            after = store.read(POINTER)
            other = _named(after[0]) if after else None
            if other != version_id:
                raise ArtifactError(
                    f"another publisher moved {store.url(POINTER)} meanwhile, to version {other}; "
                    f"version {version_id} is complete there but is not the latest: publish it "
                    "again if it should be"
                )
    if not dry_run and store.read(f"{version_id}/{MANIFEST}") is None:
        raise ArtifactError(
            f"version {version_id} at {store.url()} was pruned meanwhile; publish it again"
        )
    return {
        "location": store.url().rstrip("/"),
        "artifact_version_id": version_id,
        "pointer_moved": moves,
    }


def _named(content: bytes) -> str | None:
    """Return the version that a pointer names, None where it is damaged."""
    try:
        version_id = json.loads(content)["artifact_version_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return str(version_id) if is_version_id(version_id) else None


def read_pointer(store: Store) -> str:
    """Return the version that the pointer names; raise if nothing was published there."""
    answer = store.read(POINTER)
    if answer is None:
        raise ArtifactError(f"{store.url(POINTER)} does not exist: nothing was published there")
    version_id = _named(answer[0])
    if version_id is None:
        raise ArtifactError(
            f"{store.url(POINTER)} names no version by 64 hexadecimal digits; publish again"
        )
    return version_id


def published_datasets(location: str, *, client: Any = None) -> list[str]:
    """Return the names of the datasets at a published location, sorted.

    Raises `ArtifactError` if the location cannot be read.
    """
    store = open_store(location, client=client)
    return [
        name
        for name in store.folders()
        if any(store.read(f"{name}/{kind}/{POINTER}") for kind in INDEX_KINDS)
    ]


def published_version(location: str, dataset: str, kind: str, *, client: Any = None) -> str:
    """Return the latest version's id, by reading the pointer alone.

    Raises `ArtifactError` if nothing was published there.
    """
    return read_pointer(open_store(location, dataset, kind, client=client))


def published_versions(
    location: str, dataset: str, kind: str, *, client: Any = None
) -> list[Version]:
    """List the versions of a dataset and kind, the newest first, those not complete last.

    Raises `ArtifactError` if the location cannot be read.
    """
    store = open_store(location, dataset, kind, client=client)
    pointer = store.read(POINTER)
    latest = _named(pointer[0]) if pointer else None
    files: dict[str, dict[str, Entry]] = {}
    for key, entry in store.entries().items():
        version_id, _, name = key.partition("/")
        if is_version_id(version_id):
            files.setdefault(version_id, {})[name] = entry
    found = [
        Version(
            version_id,
            modified=max(entry.modified for entry in entries.values()),
            size=sum(entry.size for entry in entries.values()),
            complete=MANIFEST in entries,
            latest=version_id == latest,
        )
        for version_id, entries in files.items()
    ]
    return sorted(found, key=lambda version: (version.complete, version.modified), reverse=True)


def verify_published(
    location: str, dataset: str, kind: str, version_id: str, *, client: Any = None
) -> int:
    """Check every file of a version where it lies, and return their size in bytes.

    Raises `ArtifactError` if one is missing or damaged.
    """
    store = open_store(location, dataset, kind, client=client)
    listed = read_description(store, version_id)
    for name, entry in listed.items():
        if not store.holds(f"{version_id}/{name}", entry["size"], entry["sha256"]):
            raise ArtifactError(
                f"{store.url(f'{version_id}/{name}')} is missing or damaged: expected "
                f"{entry['size']} bytes with SHA-256 {entry['sha256']}; publish the version again"
            )
    return sum(entry["size"] for entry in listed.values())


def rollback(
    location: str,
    dataset: str,
    kind: str,
    version_id: str,
    *,
    client: Any = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Make an older version the latest, after checking every file of it where it lies.

    Returns what `publish` returns; raises `ArtifactError` if the version is missing or damaged, or
    another publisher moved the pointer meanwhile.
    """
    store = open_store(location, dataset, kind, client=client)
    before = store.read(POINTER)
    verify_published(location, dataset, kind, version_id, client=client)
    return _make_latest(store, version_id, before, dry_run=dry_run)


def prune_versions(
    location: str, dataset: str, kind: str, *, keep: int, client: Any = None, dry_run: bool = False
) -> list[Version]:
    """Remove old versions: never the latest, nor one of which a file was written within a day.

    The newest ``keep`` complete versions stay. Returns those that went, or would go in a dry run;
    raises `ArtifactError` if ``keep`` is less than 1 or nothing names a latest version.
    """
    if keep < 1:
        raise ArtifactError(f"cannot keep {keep} versions: expected at least 1")
    store = open_store(location, dataset, kind, client=client)
    read_pointer(store)  # Where it says nothing, nobody knows what is used.
    found = published_versions(location, dataset, kind, client=client)
    kept = [version for version in found if version.complete][:keep]
    old = time.time() - _YOUNG_S
    going = [v for v in found if v not in kept and not v.latest and v.modified < old]
    for version in () if dry_run else going:
        if read_pointer(store) != version.version_id:  # Somebody may roll back meanwhile.
            # The manifest first: what an interruption leaves is not taken for complete.
            for name in reversed(FILES):
                store.delete(f"{version.version_id}/{name}")
    return going
