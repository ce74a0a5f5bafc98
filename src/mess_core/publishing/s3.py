"""Publishing to S3 and fetching from there, over boto3.

`S3Store` makes the few requests that `versions` and `fetching` need, and makes them again when the
store is busy or the connection drops. Stores differ: what is relied on is PutObject, GetObject
(with Range), HeadObject, ListObjectsV2, DeleteObject and multipart uploads, ``If-None-Match: *``
and ``If-Match`` of writes, and SHA-256 checksums where the store keeps them; where it does not,
objects are read back.
"""

__all__ = [
    "S3Store",
    "download_artifact_from_s3",
    "load_latest_from_s3",
    "upload_artifact_to_s3",
]

import base64
import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError as BotoConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from mess_core.errors import ArtifactError
from mess_core.index.artifact import load_artifact, verify_artifact
from mess_core.index.index import Index
from mess_core.publishing import fetch as fetching, versions
from mess_core.publishing.stores import LARGEST_JSON_BYTES, Entry, NotThereError
from mess_core.publishing.transfer import Content, Transfer

_CHUNK_BYTES = 1024**2
#: Seconds. Stores answer contended conditional writes slowly (SeaweedFS: some seconds).
_CONNECT_S, _READ_S = 10, 60

#: A conditional request that lost: the object is gone (AWS, If-Match), another request is under
#: way, or the condition does not hold. Stores differ in which of them they send.
_LOST = (404, 409, 412)
_BUSY = ("SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestLimitExceeded")
#: The body was damaged or cut off on its way to the store.
_GARBLED = ("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch")

_NO_PERMISSION = "the key is unknown or may not do this; check the key and the bucket's policy"
_HINTS = {
    "403": _NO_PERMISSION,  # HeadObject has no body that says more.
    "AccessDenied": "the key may not do this; check the bucket's policy",
    "AuthorizationHeaderMalformed": "set AWS_DEFAULT_REGION to the bucket's region",
    "BadDigest": "the content changed on its way; try again",
    "ExpiredToken": "the session has ended; sign in again",
    "Forbidden": _NO_PERMISSION,
    "InvalidAccessKeyId": "the store does not know this access key; check AWS_ACCESS_KEY_ID",
    "NoSuchBucket": "create the bucket, or correct its name",
    "PermanentRedirect": "set AWS_DEFAULT_REGION to the bucket's region",
    "RequestTimeTooSkewed": "this machine's clock differs from the store's; set the clock",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
    "SlowDown": "the store is overloaded; try again later",
}


class S3Store:
    """A `mess_core.publishing.stores.Store` below a prefix of a bucket.

    Parameters
    ----------
    bucket, prefix : str
        Where the objects lie.
    client : boto3 S3 client, optional
        Else one from the environment (``AWS_ENDPOINT_URL_S3`` names another store than AWS). One
        that is given should not repeat requests by itself.
    transfer : Transfer, optional
        Sizes of parts, attempts and pauses.

    Raises
    ------
    ArtifactError
        If no client can be made of what the environment says.
    """

    def __init__(
        self, bucket: str, prefix: str, *, client: Any = None, transfer: Transfer | None = None
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/".lstrip("/")
        self._transfer = transfer or Transfer()
        with self._explained("reach", ""):
            self._client = client or _client(tuple(sorted(os.environ.items())))

    def url(self, name: str = "") -> str:
        """Return ``s3://bucket/key``."""
        return f"s3://{self._bucket}/{self._prefix}{name}".rstrip("/")

    @contextmanager
    def _explained(self, action: str, name: str) -> Iterator[None]:
        """Turn the client's errors into one that says what was tried and what to do."""
        failed = f"cannot {action} {self.url(name)}"
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise ArtifactError(
                f"{failed}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a "
                "profile in AWS_PROFILE"
            ) from None
        except ClientError as error:
            hint = _HINTS.get(_code(error), "try again, or ask the store's operator")
            raise ArtifactError(f"{failed}: {error}; {hint}") from error
        except BotoCoreError as error:
            raise ArtifactError(f"{failed}: {error}; check the endpoint and try again") from error
        except ResponseParserError as error:
            raise ArtifactError(f"{failed}: the answer is not S3's ({error})") from error
        except KeyError as error:
            raise ArtifactError(f"{failed}: the answer lacks {error}; try again") from error
        except ValueError as error:  # botocore: "Invalid endpoint: ..."
            raise ArtifactError(f"{failed}: {error}; check AWS_ENDPOINT_URL_S3") from error

    def _ask(
        self,
        action: str,
        name: str,
        request: Callable[[], Any],
        *,
        expected: Collection[int] = (),
    ) -> Any:
        """Make a request; return None where its status is an expected one."""
        with self._explained(action, name):
            try:
                return self._transfer.persist(request, _is_passing)
            except ClientError as error:
                if _status(error) in expected and _code(error) != "NoSuchBucket":
                    return None
                raise

    def _object(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{name}"}

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Return a small object's content and ETag, or None where it does not exist."""

        def request() -> tuple[bytes, str]:
            answer = self._client.get_object(**self._object(name), ChecksumMode="ENABLED")
            # Not `with answer["Body"]`: that gives the raw stream, without botocore's checks.
            with closing(answer["Body"]) as body:
                if (size := answer["ContentLength"]) > LARGEST_JSON_BYTES:
                    raise ArtifactError(
                        f"{self.url(name)} has {size} bytes, expected at most {LARGEST_JSON_BYTES}"
                    )
                return body.read(), answer["ETag"]

        answer: tuple[bytes, str] | None = self._ask("read", name, request, expected=(404,))
        return answer

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Give an object's content from a byte on; go on by Range where a connection drops."""
        position, failed = start, 0
        with self._explained("read", name):
            while True:
                try:
                    for chunk in self._body(name, position):
                        yield chunk
                        position, failed = position + len(chunk), 0
                    return
                except Exception as error:
                    failed += 1
                    if failed >= self._transfer.attempts or not _is_passing(error):
                        raise
                self._transfer.pause(failed)

    def _body(self, name: str, start: int) -> Iterator[bytes]:
        span = {"Range": f"bytes={start}-"} if start else {}
        try:
            answer = self._client.get_object(**self._object(name), **span)
        except ClientError as error:
            if _code(error) == "NoSuchKey":
                raise NotThereError(f"{self.url(name)} does not exist") from None
            if _code(error) == "InvalidRange":  # Nothing follows.
                return
            raise
        # A store that knows no ranges sends all of it.
        unwanted = 0 if "ContentRange" in answer else start
        with closing(answer["Body"]) as body, suppress(FlexibleChecksumError):
            _ = answer["ContentLength"]  # Without it nobody would notice that the end is missing.
            for chunk in body.iter_chunks(_CHUNK_BYTES):
                wanted = chunk[unwanted:]
                unwanted -= len(chunk) - len(wanted)
                if wanted:
                    yield wanted

    def check(self, name: str, content: Content) -> bool:
        """Check the size and SHA-256 of an object as it lies in the store."""
        facts = self._ask(
            "check",
            name,
            lambda: self._client.head_object(**self._object(name), ChecksumMode="ENABLED"),
            expected=(404,),
        )
        if facts is None:
            return False
        said = (facts.get("ContentLength"), facts.get("ChecksumSHA256"))
        # What a store does not say, or what looks wrong, is read back: twice if need be, since it
        # may be damaged on its way here only.
        if said in _stored_forms(content) or any(self._holds(name, content) for _ in range(2)):
            return True
        raise ArtifactError(
            f"{self.url(name)} holds something else than the {content.size} bytes with SHA-256 "
            f"{content.sha256} that belong there (size and checksum {said}); published objects are "
            "never overwritten: delete this one, if no pointer names its version, and publish again"
        )

    def _holds(self, name: str, content: Content) -> bool:
        digest, size = hashlib.sha256(), 0
        for chunk in self.stream(name):
            digest.update(chunk)
            size += len(chunk)
            if size > content.size:
                break
        return digest.hexdigest() == content.sha256

    def create(self, name: str, path: Path, content: Content, sent: Callable[[int], None]) -> None:
        """Put a file unless the object exists: in one request, or in parts if `content` has any."""
        if content.parts:
            self._create_in_parts(name, path, content, sent)
            return

        def request() -> Any:
            file.seek(0)
            return self._client.put_object(
                **self._object(name), Body=file, IfNoneMatch="*", **_checksum(content.sha256)
            )

        with path.open("rb") as file:
            self._ask("write", name, request, expected=(409, 412))
        sent(content.size)

    def _create_in_parts(
        self, name: str, path: Path, content: Content, sent: Callable[[int], None]
    ) -> None:
        started = self._ask(
            "write",
            name,
            lambda: self._client.create_multipart_upload(
                **self._object(name), ChecksumAlgorithm="SHA256"
            )["UploadId"],
        )
        upload = {**self._object(name), "UploadId": started}
        completed = None
        try:
            parts = list(self._send_parts(name, upload, path, content, sent))
            completed = self._ask(
                "write",
                name,
                lambda: self._client.complete_multipart_upload(
                    **upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
                ),
                expected=_LOST,
            )
        finally:
            if completed is None:
                self._abort(upload)

    def _send_parts(
        self,
        name: str,
        upload: dict[str, Any],
        path: Path,
        content: Content,
        sent: Callable[[int], None],
    ) -> Iterator[dict[str, Any]]:
        with path.open("rb") as file:
            for number, sha256 in enumerate(content.parts, start=1):
                body, part = file.read(content.part_bytes), {**upload, "PartNumber": number}
                etag = self._ask("write", name, partial(self._send_part, body, part, sha256))
                sent(len(body))
                yield {"PartNumber": number, "ETag": etag, "ChecksumSHA256": _base64(sha256)}

    def _send_part(self, body: bytes, part: dict[str, Any], sha256: str) -> str:
        answer = self._client.upload_part(Body=body, **part, **_checksum(sha256))
        return str(answer["ETag"])

    def _abort(self, upload: dict[str, Any]) -> None:
        # The store may be unreachable, or another may have aborted or completed it.
        with suppress(ClientError, BotoCoreError, ResponseParserError):
            self._client.abort_multipart_upload(**upload)

    def swap(self, name: str, content: bytes, tag: str | None) -> bool:
        """Put a small object if its ETag is still ``tag``; return whether it has this content."""
        condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        won = self._ask(
            "write",
            name,
            lambda: self._client.put_object(
                **self._object(name),
                Body=content,
                ContentType="application/json",
                CacheControl="no-cache",
                **_checksum(hashlib.sha256(content).hexdigest()),
                **condition,
            ),
            expected=_LOST,
        )
        if won:
            return True
        # A put that won but whose answer was lost is made again and then fails its condition.
        found = self.read(name)
        return found is not None and found[0] == content

    def delete(self, name: str) -> None:
        """Remove an object, if it exists."""
        self._ask("delete", name, lambda: self._client.delete_object(**self._object(name)))

    def entries(self) -> dict[str, Entry]:
        """Return all objects below the prefix, sorted by name."""
        found = {
            entry["Key"].removeprefix(self._prefix): Entry(
                entry["Size"], entry["LastModified"].timestamp()
            )
            for page in self._pages("list_objects_v2", "")
            for entry in page.get("Contents", [])
        }
        return dict(sorted(found.items()))  # Not every store sorts by bytes.

    def _pages(self, operation: str, below: str, **options: str) -> list[dict[str, Any]]:
        pages = self._client.get_paginator(operation).paginate(
            Bucket=self._bucket, Prefix=self._prefix + below, **options
        )
        found: list[dict[str, Any]] = self._ask("list", below, lambda: list(pages))
        return found

    def folders(self) -> list[str]:
        """Return the names that follow the prefix up to the next slash, sorted."""
        return sorted(
            common["Prefix"].removeprefix(self._prefix).rstrip("/")
            for page in self._pages("list_objects_v2", "", Delimiter="/")
            for common in page.get("CommonPrefixes", [])
        )

    def tidy(self, below: str, before: float) -> None:
        """Abort unfinished multipart uploads below a name, as far as the key may list them."""
        with suppress(ArtifactError):
            for page in self._pages("list_multipart_uploads", below):
                for upload in page.get("Uploads", []):
                    begun = upload.get("Initiated")
                    if begun is None or begun.timestamp() < before:
                        key, number = upload["Key"], upload["UploadId"]
                        self._abort({"Bucket": self._bucket, "Key": key, "UploadId": number})


@lru_cache(maxsize=4)
def _client(_: tuple[tuple[str, str], ...]) -> Any:
    """Make a client, once for each state of the environment: it takes a tenth of a second."""
    # `Transfer` makes requests again; what is fetched is checked by its SHA-256 anyway.
    config = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        response_checksum_validation="when_required",
    )
    # Not boto3's own session: that one is no matter for several threads, and keeps the first keys.
    return boto3.session.Session().client("s3", config=config)


def _is_passing(error: Exception) -> bool:
    """Whether a request that failed so may succeed when it is made again.

    An answer whose head was cut off lacks keys (`KeyError`), or has half a date or no number where
    botocore expects them (`ValueError`).
    """
    if isinstance(error, ClientError):
        status = _status(error)
        return status >= 500 or status == 429 or _code(error) in _BUSY + _GARBLED
    return isinstance(
        error,
        BotoConnectionError
        | HTTPClientError
        | IncompleteReadError
        | FlexibleChecksumError
        | ResponseParserError
        | KeyError
        | ValueError,
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _checksum(sha256: str) -> dict[str, str]:
    return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": _base64(sha256)}


def _stored_forms(content: Content) -> list[tuple[int, str]]:
    """Return the size and SHA-256 that a store may give for an object with this content.

    For one that was sent in parts that is the hash of the parts' hashes, and their number.
    """
    joined = b"".join(bytes.fromhex(part) for part in content.parts)
    of_parts = base64.b64encode(hashlib.sha256(joined).digest()).decode()
    sums = (_base64(content.sha256), f"{of_parts}-{len(content.parts)}")
    return [(content.size, checksum) for checksum in sums]


def upload_artifact_to_s3(
    artifact_dir: Path,
    bucket: str,
    prefix: str,
    *,
    client: Any = None,
    transfer: Transfer | None = None,
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
    transfer : Transfer, optional
        Sizes of parts, attempts, pauses and progress.

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
    manifest, transfer = verify_artifact(artifact_dir), transfer or Transfer()
    store = S3Store(bucket, prefix, client=client, transfer=transfer)
    return versions.publish_version(store, artifact_dir, manifest, transfer)


def download_artifact_from_s3(
    bucket: str,
    prefix: str,
    version_id: str,
    cache_dir: Path,
    *,
    client: Any = None,
    transfer: Transfer | None = None,
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
    transfer : Transfer, optional
        Attempts, pauses and progress.

    Returns
    -------
    Path
        The artifact's folder.

    Raises
    ------
    ArtifactError
        If the version does not exist, is damaged, or a request fails.
    """
    transfer = transfer or Transfer()
    store = S3Store(bucket, prefix, client=client, transfer=transfer)
    return fetching.fetch_version(store, version_id, cache_dir, transfer)


def load_latest_from_s3(
    bucket: str,
    prefix: str,
    cache_dir: Path,
    *,
    client: Any = None,
    transfer: Transfer | None = None,
) -> Index:
    """Load the version that the pointer names.

    Parameters
    ----------
    bucket, prefix : str
        As for `upload_artifact_to_s3`.
    cache_dir : Path
        Where versions are kept after they were fetched.
    client : boto3 S3 client, optional
        Else one from the environment.
    transfer : Transfer, optional
        Attempts, pauses and progress.

    Returns
    -------
    Index

    Raises
    ------
    ArtifactError
        If nothing was published there, what was is damaged, or a request fails.
    """
    transfer = transfer or Transfer()
    store = S3Store(bucket, prefix, client=client, transfer=transfer)
    path = fetching.fetch_latest(store, cache_dir, transfer)
    return load_artifact(path, version_id=path.name)
