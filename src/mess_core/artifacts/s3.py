"""Publishing an artifact to S3, and fetching it from there.

Below a prefix (``{destination}/{dataset}/{kind}``) lie ``{version}/{file}``, written once and never
again, and ``latest.json``. Publishing

1. reads the pointer and remembers its ETag;
2. puts each file with ``If-None-Match: *`` and its SHA-256, which the store checks; an object that
   is there already must be equal; then asks the store for size and checksum (or reads the object
   back where the store keeps no checksum), the manifest last;
3. moves the pointer by compare-and-swap on the remembered ETag.

Whatever stops this, the pointer names a complete version, and running it again completes it. Two
builds of the same content differ in the manifest's ``build`` only; the first one published stays.
"""

__all__ = [
    "download_artifact_from_s3",
    "list_folders_in_s3",
    "load_latest_from_s3",
    "upload_artifact_to_s3",
]

import base64
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from mess_core.artifacts.artifact import (
    FILES,
    is_version_id,
    load_artifact,
    parse_checksums,
    parse_manifest,
    settle,
    temporary_folder,
    verify_artifact,
)
from mess_core.artifacts.index import Index
from mess_core.artifacts.pointer import POINTER, Pointer, parse_pointer
from mess_core.errors import ArtifactError
from mess_core.files import atomic_path, file_sha256

#: S3's limit of an object that is put in one request (AWS documentation of PutObject).
LARGEST_PUT_BYTES = 5 * 1024**3
#: No manifest, list of checksums or pointer comes near this; more is not one of ours.
LARGEST_JSON_BYTES = 16 * 1024**2
_CHUNK_BYTES = 1024**2

#: A conditional request that lost: the object is gone (AWS, If-Match), another request is under
#: way, or the condition does not hold. Stores differ in which of them they send.
_LOST = (404, 409, 412)

_HINTS = {
    "AccessDenied": "the key may not do this; check the bucket policy",
    "BadDigest": "the content changed on its way; try again",
    "InvalidAccessKeyId": "the store does not know this access key",
    "NoSuchBucket": "create the bucket, or correct its name",
    "RequestTimeTooSkewed": "set this machine's clock",
    "SignatureDoesNotMatch": "the secret key is wrong",
}


@dataclass(frozen=True, slots=True)
class _Store:
    """A prefix of a bucket, and the few requests that are made there."""

    client: Any
    bucket: str
    prefix: str

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{self.key(name)}"

    @contextmanager
    def explained(self, action: str, name: str) -> Iterator[None]:
        """Turn the client's errors into one that says what was tried and what to do."""
        try:
            yield
        except NoCredentialsError:
            raise ArtifactError(
                f"cannot {action} {self.url(name)}: no credentials; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or a profile in AWS_PROFILE"
            ) from None
        except ClientError as error:
            hint = _HINTS.get(_code(error), "try again, or ask the store's operator")
            raise ArtifactError(f"cannot {action} {self.url(name)}: {error}; {hint}") from error
        except BotoCoreError as error:
            raise ArtifactError(
                f"cannot {action} {self.url(name)}: {error}; check the endpoint and try again"
            ) from error

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Return a small object's content and ETag, or None where it does not exist."""
        with self.explained("read", name):
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=self.key(name))
            except ClientError as error:
                if _code(error) != "NoSuchKey":
                    raise
                return None
            # Not `with answer["Body"]`: that gives the raw stream, without botocore's checks.
            with closing(answer["Body"]) as body:
                self._check_length(name, answer["ContentLength"], LARGEST_JSON_BYTES)
                content: bytes = body.read()
        return content, answer["ETag"]

    def _check_length(self, name: str, found: int, limit: int) -> None:
        if found > limit:
            raise ArtifactError(f"{self.url(name)} has {found} bytes, expected at most {limit}")

    def create(self, name: str, path: Path, sha256: str) -> None:
        """Put a file unless the object exists."""
        with self.explained("write", name), path.open("rb") as file:
            try:
                self.client.put_object(
                    Bucket=self.bucket,
                    Key=self.key(name),
                    Body=file,
                    IfNoneMatch="*",
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=_base64(sha256),
                )
            except ClientError as error:
                if _status(error) not in (409, 412):
                    raise

    def check(self, name: str, *, sha256: str, size: int) -> None:
        """Check the size and SHA-256 of an object as it lies in the store."""
        with self.explained("check", name):
            facts = self.client.head_object(
                Bucket=self.bucket, Key=self.key(name), ChecksumMode="ENABLED"
            )
            stored = facts.get("ChecksumSHA256")
            if facts["ContentLength"] == size and stored is None:
                stored = self._checksum_of_content(name)
        found = (facts["ContentLength"], stored)
        if found != (size, _base64(sha256)):
            raise ArtifactError(
                f"{self.url(name)} has size and SHA-256 (base64) {found}, expected "
                f"{(size, _base64(sha256))}; published objects are never overwritten: delete "
                "this one, if no pointer names its version, and publish again"
            )

    def _checksum_of_content(self, name: str) -> str:
        digest = hashlib.sha256()
        answer = self.client.get_object(Bucket=self.bucket, Key=self.key(name))
        with closing(answer["Body"]) as body:
            for chunk in body.iter_chunks(_CHUNK_BYTES):
                digest.update(chunk)
        return base64.b64encode(digest.digest()).decode()

    def fetch(self, name: str, path: Path, limit: int) -> None:
        """Write an object of at most ``limit`` bytes to a file."""
        with self.explained("read", name), atomic_path(path) as temporary:
            answer = self.client.get_object(Bucket=self.bucket, Key=self.key(name))
            with closing(answer["Body"]) as body, temporary.open("wb") as file:
                self._check_length(name, answer["ContentLength"], limit)
                for chunk in body.iter_chunks(_CHUNK_BYTES):
                    file.write(chunk)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _store(client: Any, bucket: str, prefix: str) -> _Store:
    return _Store(client or boto3.client("s3"), bucket, prefix.strip("/"))


def upload_artifact_to_s3(
    artifact_dir: Path, bucket: str, prefix: str, *, client: Any = None
) -> dict[str, Any]:
    """Publish an artifact below a prefix and make it the latest.

    Parameters
    ----------
    artifact_dir : Path
        A folder as `save_artifact` writes it; it is verified first.
    bucket, prefix : str
        Where versions of this dataset and kind lie.
    client : boto3 S3 client, optional
        Else one from the environment (``AWS_ENDPOINT_URL_S3`` names another store than AWS).

    Returns
    -------
    dict
        ``location``, ``artifact_version_id``, ``manifest_sha256``, and ``pointer_moved``: False
        when this version was the latest already.

    Raises
    ------
    ArtifactError
        If the artifact is damaged, an object exists with other content, a request fails, or
        another publisher moved the pointer meanwhile.
    """
    manifest = verify_artifact(artifact_dir)
    version_id = str(manifest["artifact_version_id"])
    store = _store(client, bucket, prefix)
    before = store.read(POINTER)
    for name in FILES[:-1]:
        _send(store, artifact_dir / name, f"{version_id}/{name}")
    sha256 = _send_manifest(store, artifact_dir / FILES[-1], version_id)
    pointer = Pointer(version_id, sha256)
    moved = _move(store, pointer, before)
    return {
        "location": store.url("").rstrip("/"),
        "artifact_version_id": version_id,
        "manifest_sha256": sha256,
        "pointer_moved": moved,
    }


def _send(store: _Store, path: Path, name: str) -> None:
    size, sha256 = path.stat().st_size, file_sha256(path)
    if size > LARGEST_PUT_BYTES:
        raise ArtifactError(
            f"{path} has {size} bytes; one request to S3 carries at most {LARGEST_PUT_BYTES}: "
            "index fewer layers or fewer rows"
        )
    store.create(name, path, sha256)
    store.check(name, sha256=sha256, size=size)


def _send_manifest(store: _Store, path: Path, version_id: str) -> str:
    name = f"{version_id}/{path.name}"
    store.create(name, path, file_sha256(path))
    answer = store.read(name)
    if answer is None:
        raise ArtifactError(f"{store.url(name)} is gone after it was written; publish again")
    published = parse_manifest(answer[0], store.url(name))["artifact_version_id"]
    if published != version_id:
        raise ArtifactError(
            f"{store.url(name)} describes version {published}, expected {version_id}; "
            "delete that version, if no pointer names it, and publish again"
        )
    return hashlib.sha256(answer[0]).hexdigest()


def _move(store: _Store, pointer: Pointer, before: tuple[bytes, str] | None) -> bool:
    if before and pointer.is_said_by(before[0]):
        return False
    content = pointer.to_bytes()
    condition = {"IfMatch": before[1]} if before else {"IfNoneMatch": "*"}
    with store.explained("write", POINTER):
        try:
            store.client.put_object(
                Bucket=store.bucket,
                Key=store.key(POINTER),
                Body=content,
                ContentType="application/json",
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=_base64(hashlib.sha256(content).hexdigest()),
                **condition,
            )
            return True
        except ClientError as error:
            if _status(error) not in _LOST or _code(error) == "NoSuchBucket":
                raise
    _judge_lost_swap(store, pointer)
    return True


def _judge_lost_swap(store: _Store, pointer: Pointer) -> None:
    # A put that won but whose answer was lost is sent again by boto3 and then fails its condition.
    after = store.read(POINTER)
    if not (after and pointer.is_said_by(after[0])):
        found = parse_pointer(after[0], store.url(POINTER)).artifact_version_id if after else "none"
        raise ArtifactError(
            f"another publisher moved {store.url(POINTER)} meanwhile, to version {found}; version "
            f"{pointer.artifact_version_id} is complete there but is not the latest: publish it "
            "again if it should be"
        )


def download_artifact_from_s3(
    bucket: str, prefix: str, version_id: str, cache_dir: Path, *, client: Any = None
) -> Path:
    """Fetch a version into a cache folder, unless it is there and undamaged.

    Parameters
    ----------
    bucket, prefix : str
        As for `upload_artifact_to_s3`.
    version_id : str
        The version to fetch.
    cache_dir : Path
        Where it goes, as ``cache_dir / version_id``, after all of it was verified.
    client : boto3 S3 client, optional
        Else one from the environment.

    Returns
    -------
    Path
        The artifact's folder.

    Raises
    ------
    ArtifactError
        If the version does not exist, is damaged, or a request fails.
    """
    return _download(_store(client, bucket, prefix), version_id, cache_dir)


def _download(
    store: _Store, version_id: str, cache_dir: Path, manifest_sha256: str | None = None
) -> Path:
    if not is_version_id(version_id):
        raise ArtifactError(f"{version_id!r} is no version id: expected 64 hexadecimal digits")
    target = cache_dir / version_id
    if target.exists():
        try:
            verify_artifact(target, version_id=version_id, manifest_sha256=manifest_sha256)
        except ArtifactError:
            shutil.rmtree(target)
        else:
            return target
    with temporary_folder(cache_dir) as folder:
        _fetch_version(store, version_id, folder)
        verify_artifact(folder, version_id=version_id, manifest_sha256=manifest_sha256)
        return settle(folder, target)


def _fetch_version(store: _Store, version_id: str, folder: Path) -> None:
    listed = store.read(f"{version_id}/checksums.json")
    if listed is None:
        raise ArtifactError(f"there is no version {version_id} at {store.url('')}")
    checksums = parse_checksums(listed[0], store.url(f"{version_id}/checksums.json"))
    for name in FILES:
        limit = checksums[name]["size"] if name in checksums else LARGEST_JSON_BYTES
        store.fetch(f"{version_id}/{name}", folder / name, limit)


def load_latest_from_s3(bucket: str, prefix: str, cache_dir: Path, *, client: Any = None) -> Index:
    """Load the version that the pointer names.

    Parameters
    ----------
    bucket, prefix : str
        As for `upload_artifact_to_s3`.
    cache_dir : Path
        Where versions are kept after they were fetched.
    client : boto3 S3 client, optional
        Else one from the environment.

    Returns
    -------
    Index

    Raises
    ------
    ArtifactError
        If nothing was published there, what was is damaged, or a request fails.
    """
    store = _store(client, bucket, prefix)
    answer = store.read(POINTER)
    if answer is None:
        raise ArtifactError(f"{store.url(POINTER)} does not exist: nothing was published there")
    pointer = parse_pointer(answer[0], store.url(POINTER))
    path = _download(store, pointer.artifact_version_id, cache_dir, pointer.manifest_sha256)
    return load_artifact(path, version_id=pointer.artifact_version_id)


def list_folders_in_s3(bucket: str, prefix: str, *, client: Any = None) -> list[str]:
    """Return the names that follow a prefix up to the next slash, sorted.

    Raises
    ------
    ArtifactError
        If the bucket cannot be listed.
    """
    store = _store(client, bucket, prefix)
    start = store.key("")
    with store.explained("list", ""):
        pages = store.client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=start, Delimiter="/"
        )
        found = [p["Prefix"] for page in pages for p in page.get("CommonPrefixes", [])]
    return sorted(name.removeprefix(start).rstrip("/") for name in found)
