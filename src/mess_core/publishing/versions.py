"""Publishing, listing, rolling back and pruning versions, on any `Store`.

Below a location (``{destination}/{dataset}/{kind}``) lie ``{version}/{file}``, written once and
never again, and ``latest.json``, the pointer. Publishing

1. reads the pointer and remembers its tag (on S3 its ETag);
2. creates each file unless it is there, the manifest last, and checks size and SHA-256 of each as
   it lies in the store; a file that is there already must be equal;
3. replaces the pointer by compare-and-swap on the remembered tag.

Whatever stops this, the pointer names a complete version, and running it again completes it. Two
builds of the same content differ in the manifest's ``build`` only; the first one published stays.

Pruning first writes into the pointer, by compare-and-swap, which versions are going (`removing`).
From then on nobody makes one of them the latest, and whoever was about to loses the swap and looks
again. So no version is ever removed that the pointer names, at whatever moment others publish.
"""

__all__ = [
    "CHECKSUMS",
    "MANIFEST",
    "Description",
    "Version",
    "list_versions",
    "prune",
    "publish_version",
    "read_description",
    "read_pointer",
    "roll_back",
    "verify_version",
]

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from mess_core.errors import ArtifactError
from mess_core.index.artifact import (
    CONTENT,
    FILES,
    is_version_id,
    parse_checksums,
    parse_manifest,
)
from mess_core.index.manifest import expect, version_id_of
from mess_core.publishing.pointer import POINTER, Pointer, parse_pointer
from mess_core.publishing.stores import Entry, NotThereError, Store
from mess_core.publishing.transfer import Content, Meter, Transfer

MANIFEST = FILES[-1]
(CHECKSUMS,) = set(FILES) - {*CONTENT, MANIFEST}

#: How often a swap of the pointer is tried that lost against a change that does not matter.
_SWAPS = 5
#: Seconds after which what was left unfinished is taken for abandoned.
_ABANDONED_S = 24 * 3600


class Description(NamedTuple):
    """The manifest and the checksums of a version, parsed and as they lie in the store."""

    manifest: dict[str, Any]
    checksums: dict[str, dict[str, Any]]
    manifest_bytes: bytes
    checksums_bytes: bytes

    @property
    def manifest_sha256(self) -> str:
        """Return what a pointer to this version says."""
        return hashlib.sha256(self.manifest_bytes).hexdigest()


@dataclass(frozen=True, slots=True)
class Version:
    """A version as it lies in the store.

    Attributes
    ----------
    version_id : str
        Its folder or key prefix.
    created : str
        When it was built (ISO 8601); where its manifest does not say, when it was written.
    size : int
        Of all its files, in bytes.
    complete : bool
        Whether its manifest, which is written last, is there.
    latest : bool
        Whether the pointer names it.
    modified : float
        When its last file was written, in seconds of Unix.
    """

    version_id: str
    created: str
    size: int
    complete: bool
    latest: bool
    modified: float


class _Pointed(NamedTuple):
    """The pointer, None where it is absent or damaged; its tag, None where it is absent."""

    pointer: Pointer | None
    tag: str | None

    @property
    def version_id(self) -> str | None:
        return self.pointer.artifact_version_id if self.pointer else None

    @property
    def removing(self) -> tuple[str, ...]:
        return self.pointer.removing if self.pointer else ()


def _pointed(store: Store) -> _Pointed:
    answer = store.read(POINTER)
    if answer is None:
        return _Pointed(None, None)
    try:
        return _Pointed(parse_pointer(answer[0], store.url(POINTER)), answer[1])
    except ArtifactError:
        return _Pointed(None, answer[1])


def read_pointer(store: Store) -> Pointer:
    """Read which version is the latest.

    Raises
    ------
    ArtifactError
        If nothing was published there, or the pointer is damaged.
    """
    answer = store.read(POINTER)
    if answer is None:
        raise ArtifactError(f"{store.url(POINTER)} does not exist: nothing was published there")
    return parse_pointer(answer[0], store.url(POINTER))


def read_description(store: Store, version_id: str) -> Description:
    """Read and check a version's manifest and checksums.

    Raises
    ------
    NotThereError
        If there is no such version, or it is not complete.
    ArtifactError
        If one of the two is damaged.
    """
    manifest_url = store.url(f"{version_id}/{MANIFEST}")
    manifest = store.read(f"{version_id}/{MANIFEST}")
    checksums = store.read(f"{version_id}/{CHECKSUMS}")
    if manifest is None or checksums is None:
        raise NotThereError(
            f"there is no version {version_id} at {store.url()}: "
            f"{MANIFEST if manifest is None else CHECKSUMS} does not exist"
        )
    parsed = parse_manifest(manifest[0], manifest_url)
    if parsed["artifact_version_id"] != version_id:
        raise ArtifactError(
            f"{manifest_url} describes version {parsed['artifact_version_id']}, expected "
            f"{version_id}; delete that version, if no pointer names it, and publish again"
        )
    listed = parse_checksums(checksums[0], store.url(f"{version_id}/{CHECKSUMS}"))
    expect(
        store.url(f"{version_id}/{CHECKSUMS}"),
        "the version that it and the manifest make",
        expected=version_id,
        found=version_id_of(parsed, listed),
    )
    return Description(parsed, listed, manifest[0], checksums[0])


def publish_version(
    store: Store,
    artifact_dir: Path,
    manifest: Mapping[str, Any],
    transfer: Transfer,
    *,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Publish a verified artifact and make it the latest.

    Parameters
    ----------
    store : Store
        Where versions of its dataset and kind lie.
    artifact_dir : Path
        A folder as `save_artifact` writes it.
    manifest : mapping
        What `verify_artifact` returned for it.
    transfer : Transfer
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
        If a file exists with other content, a request fails, or another publisher moved the
        pointer meanwhile.
    """
    version_id = str(manifest["artifact_version_id"])
    contents = {name: Content.of(artifact_dir / name, transfer) for name in FILES}

    def send() -> str:
        return _send(store, artifact_dir, version_id, contents, transfer)

    def look() -> str:
        present = {name: store.check(f"{version_id}/{name}", contents[name]) for name in CONTENT}
        with suppress(NotThereError):
            if all(present.values()):
                return read_description(store, version_id).manifest_sha256
        return contents[MANIFEST].sha256

    return _make_latest(store, version_id, look if dry_run else send, dry_run=dry_run)


def _send(
    store: Store, folder: Path, version_id: str, contents: Mapping[str, Content], transfer: Transfer
) -> str:
    """Make a version complete in the store; return the SHA-256 of its manifest there."""
    meter = Meter(transfer, sum(content.size for content in contents.values()))
    for name, content in contents.items():
        _create(store, f"{version_id}/{name}", folder / name, content, transfer, meter)
    if any(content.parts for content in contents.values()):
        store.tidy(f"{version_id}/", time.time())
    return read_description(store, version_id).manifest_sha256


def _create(
    store: Store, key: str, path: Path, content: Content, transfer: Transfer, meter: Meter
) -> None:
    """Create a file unless it is there, and see it there with the right content."""
    tried = 0
    while not _is_there(store, key, content):
        if tried == transfer.attempts:
            raise ArtifactError(f"{store.url(key)} is gone after it was written; publish again")
        if tried:
            transfer.pause(tried)
        store.create(key, path, content, lambda n: meter(n, path.name))
        tried += 1
    if not tried:
        meter(content.size, path.name)


def _is_there(store: Store, key: str, content: Content) -> bool:
    # The manifest of another build of the same content stays; `read_description` checks it.
    if key.endswith(f"/{MANIFEST}"):
        return store.read(key) is not None
    return store.check(key, content)


def verify_version(store: Store, version_id: str) -> Description:
    """Check that every file of a version lies in the store with its size and SHA-256.

    Raises
    ------
    NotThereError
        If there is no such version, or a file of it is missing.
    ArtifactError
        If a file is damaged.
    """
    described = read_description(store, version_id)
    for name, entry in described.checksums.items():
        if not store.check(f"{version_id}/{name}", Content(entry["size"], entry["sha256"])):
            raise NotThereError(
                f"{store.url(f'{version_id}/{name}')} does not exist: the version is not complete; "
                "publish it again"
            )
    return described


def roll_back(store: Store, version_id: str, *, dry_run: bool = False) -> dict[str, Any]:
    """Make an older version the latest, after checking all of it in the store.

    Parameters
    ----------
    store : Store
        Where versions of one dataset and kind lie.
    version_id : str
        A complete version there.
    dry_run : bool
        Check it, but leave the pointer.

    Returns
    -------
    dict
        As `publish_version`.

    Raises
    ------
    ArtifactError
        If the version is missing, damaged or being pruned, a request fails, or another moved the
        pointer meanwhile.
    """
    return _make_latest(
        store,
        version_id,
        lambda: verify_version(store, version_id).manifest_sha256,
        dry_run=dry_run,
    )


def _make_latest(
    store: Store, version_id: str, complete: Callable[[], str], *, dry_run: bool
) -> dict[str, Any]:
    """Move the pointer to a version that ``complete`` makes or finds complete.

    It returns the SHA-256 of the manifest, and is always called after the pointer was read: what
    others do to the version since then, they do after they changed the pointer.
    """
    for _ in range(_SWAPS):
        before = _pointed(store)
        _refuse_removed(store, version_id, before)
        try:
            pointer = Pointer(version_id, complete(), removing=before.removing)
        except NotThereError:
            if _pointed(store).tag == before.tag:
                raise
            continue  # It was pruned under our hands.
        moves = before.pointer != pointer
        if dry_run or not moves or store.swap(POINTER, pointer.to_bytes(), before.tag):
            break
        after = _pointed(store)
        if after.pointer == pointer:
            break
        if after.version_id != before.version_id:
            raise ArtifactError(
                f"another publisher moved {store.url(POINTER)} meanwhile, to version "
                f"{after.version_id}; version {version_id} is complete there but is not the "
                "latest: publish it again if it should be"
            )
    else:
        raise ArtifactError(
            f"cannot move {store.url(POINTER)}: {_SWAPS} times it had changed meanwhile, or the "
            "store said so; try again"
        )
    return {
        "location": store.url().rstrip("/"),
        "artifact_version_id": version_id,
        "manifest_sha256": pointer.manifest_sha256,
        "pointer_moved": moves,
    }


def _refuse_removed(store: Store, version_id: str, pointed: _Pointed) -> None:
    if version_id in pointed.removing:
        raise ArtifactError(
            f"version {version_id} at {store.url()} is being pruned; try again later, or run "
            "`mess artifacts prune` once more if it was interrupted"
        )


def list_versions(store: Store) -> list[Version]:
    """List versions, the newest first.

    Parameters
    ----------
    store : Store
        Where versions of one dataset and kind lie.

    Returns
    -------
    list of Version
        By `created`; those that are not complete come last.

    Raises
    ------
    ArtifactError
        If the location cannot be read.
    """
    latest = _pointed(store).version_id
    files: dict[str, dict[str, Entry]] = {}
    for key, entry in store.entries().items():
        version_id, _, name = key.partition("/")
        if is_version_id(version_id) and name:
            files.setdefault(version_id, {})[name] = entry
    found = [_version(store, version_id, files[version_id], latest) for version_id in files]
    return sorted(found, key=lambda v: (v.complete, v.created, v.modified), reverse=True)


def _version(
    store: Store, version_id: str, files: Mapping[str, Entry], latest: str | None
) -> Version:
    modified = max(entry.modified for entry in files.values())
    manifest = store.read(f"{version_id}/{MANIFEST}") if MANIFEST in files else None
    return Version(
        version_id,
        _created(manifest[0] if manifest else b"", modified),
        sum(entry.size for entry in files.values()),
        manifest is not None,
        version_id == latest,
        modified,
    )


def _created(manifest: bytes, modified: float) -> str:
    # Not by `parse_manifest`: versions of other schemas are listed, too.
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        return datetime.fromisoformat(json.loads(manifest)["build"]["created"]).isoformat()
    return datetime.fromtimestamp(modified, UTC).isoformat(timespec="seconds")


def prune(store: Store, keep: int, *, dry_run: bool = False) -> list[Version]:
    """Remove all but the newest versions, and what was abandoned half-published a day ago.

    Parameters
    ----------
    store : Store
        Where versions of one dataset and kind lie.
    keep : int
        How many complete versions stay, the newest ones. The latest always stays, and counts
        among them if it is one of the newest.
    dry_run : bool
        Only say which ones would go.

    Returns
    -------
    list of Version
        Those that went.

    Raises
    ------
    ArtifactError
        If ``keep`` is less than 1, nothing names a latest version, another moves the pointer again
        and again, or a request fails. What was marked as going is removed by running it again.
    """
    if keep < 1:
        raise ArtifactError(f"cannot keep {keep} versions: expected at least 1")
    for _ in range(_SWAPS):
        before = _pointed(store)
        pointer = before.pointer or read_pointer(store)
        going = _going(list_versions(store), keep, before)
        if dry_run or not (going or before.removing):
            return going
        marked = replace(pointer, removing=tuple(sorted(v.version_id for v in going)))
        if store.swap(POINTER, marked.to_bytes(), before.tag):
            break
    else:
        raise ArtifactError(f"others moved {store.url(POINTER)} {_SWAPS} times; prune again")
    for version in going:
        _remove(store, version.version_id)
    _unmark(store, marked.removing)
    store.tidy("", time.time() - _ABANDONED_S)
    return going


def _going(found: Iterable[Version], keep: int, pointed: _Pointed) -> list[Version]:
    complete = [v for v in found if v.complete]
    too_old = {v.version_id for v in complete[keep:]} | set(pointed.removing)
    abandoned = time.time() - _ABANDONED_S
    return [
        v
        for v in found
        if v.version_id != pointed.version_id
        and (v.version_id in too_old or not (v.complete or v.modified > abandoned))
    ]


def _remove(store: Store, version_id: str) -> None:
    """Remove a marked version, its manifest first: what is left is not taken for complete."""
    pointed = _pointed(store)
    if version_id == pointed.version_id or version_id not in pointed.removing:
        raise ArtifactError(
            f"stopped before removing {version_id}: {store.url(POINTER)} does not mark it any "
            "more, another process prunes; prune again if it should go"
        )
    keys = [key for key in store.entries() if key.startswith(f"{version_id}/")]
    for key in sorted(keys, key=lambda key: not key.endswith(f"/{MANIFEST}")):
        store.delete(key)
    store.tidy(f"{version_id}/", time.time())


def _unmark(store: Store, gone: Collection[str]) -> None:
    for _ in range(_SWAPS):
        pointed = _pointed(store)
        left = tuple(v for v in pointed.removing if v not in gone)
        if pointed.pointer is None or left == pointed.removing:
            return
        if store.swap(POINTER, replace(pointed.pointer, removing=left).to_bytes(), pointed.tag):
            return
