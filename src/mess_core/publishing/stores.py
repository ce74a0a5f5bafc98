"""Where published versions lie: named objects in a folder, or below a prefix in S3.

A name is a path with ``/`` below the location. Files of a version are named by its content, so
uploading one again is harmless. Only the pointer is ever changed, by compare-and-swap.

`S3Store` leaves transfers and retries to boto3. It relies on PutObject with SHA-256 checksums,
``If-None-Match: *`` and ``If-Match``, on GetObject, HeadObject, ListObjectsV2, DeleteObject and
multipart uploads.
"""

__all__ = ["Entry", "FolderStore", "MissingError", "S3Store", "Store", "meter", "open_store"]

import base64
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from mess_core.errors import ArtifactError
from mess_core.files import file_sha256, flush, storage_errors, write_bytes
from mess_core.index.artifact import temporary_folder
from mess_core.progress import Report

#: Is told how many more bytes went; fewer than none when some have to go again.
Sent = Callable[[int], None]

#: Attempts of a request to S3, unless AWS_MAX_ATTEMPTS or the AWS configuration says otherwise.
_ATTEMPTS = 6
#: Seconds. Stores answer contended conditional writes slowly (SeaweedFS: some seconds).
_CONNECT_S, _READ_S = 10, 60
#: Larger files go in parts of this size.
PART_BYTES = 64 * 1024**2
_MEGABYTE = 10**6
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
#: A conditional request that lost: the object is gone, another request is under way, or the
#: condition does not hold. Stores differ in which of them they send.
_LOST = (404, 409, 412)

_NO_PERMISSION = "the key is unknown or may not do this; check the key and the bucket's policy"
_REGION = "set AWS_DEFAULT_REGION to the bucket's region"
_HINTS = {
    "403": _NO_PERMISSION,  # HeadObject has no body that says more.
    "AccessDenied": _NO_PERMISSION,
    "AuthorizationHeaderMalformed": _REGION,
    "ExpiredToken": "the session has ended; sign in again",
    "IllegalLocationConstraintException": _REGION,
    "InvalidAccessKeyId": "the store does not know this access key; check AWS_ACCESS_KEY_ID",
    "InvalidBucketName": "correct the bucket's name",
    "NoSuchBucket": "create the bucket, or correct its name",
    "PermanentRedirect": _REGION,
    "RequestTimeTooSkewed": "this machine's clock differs from the store's; set the clock",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
    "SlowDown": "the store is overloaded; try again later",
}


class MissingError(ArtifactError):
    """An object or a version does not exist, or does not exist any more."""


class Entry(NamedTuple):
    """An object in a listing: its size in bytes and when it was written, in seconds of Unix."""

    size: int
    modified: float


def meter(report: Report | None, total: int) -> Callable[[str], Sent]:
    """Return a function from a file's name to what counts its bytes, and reports megabytes.

    ``total`` is the number of bytes of all files.
    """
    done, reported = 0, -1

    def count(name: str, n_bytes: int) -> None:
        nonlocal done, reported
        done += n_bytes
        megabytes = -(-done // _MEGABYTE)
        if report and megabytes != reported:
            reported = megabytes
            report(megabytes, -(-total // _MEGABYTE), name)

    return lambda name: partial(count, name)


def open_store(location: str, *below: str, client: Any = None) -> "Store":
    """Return the objects of a location, or of a dataset and kind ``below`` it.

    Raises `ArtifactError` if the location is neither a folder nor ``s3://bucket/prefix``, or a name
    below could leave it.
    """
    for name in below:
        if not isinstance(name, str) or not _SAFE_NAME.fullmatch(name):
            raise ArtifactError(
                f"{location}: its dataset or kind is {name!r}; expected a name of letters, digits, "
                "'.', '_', '+' and '-'"
            )
    scheme, separator, rest = location.partition("://")
    if not separator:
        return FolderStore(Path(location, *below))
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ArtifactError(f"{location!r} is neither a folder nor of the form s3://bucket/prefix")
    return S3Store(bucket, "/".join([prefix.strip("/"), *below]), client=client)


class FolderStore:
    """Objects in a folder; writers on several machines need a file system with locks.

    Every method raises an `ArtifactError` that names the object, here and in `S3Store`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def url(self, name: str = "") -> str:
        """Return the path."""
        return str(self.root / name)

    @contextmanager
    def _explained(self, name: str) -> Iterator[Path]:
        path = self.root / name
        try:
            yield path
        except FileNotFoundError:
            raise MissingError(f"{path} does not exist") from None
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other writers out; the operating system frees the lock of a killed process."""
        path = self.root / ".lock"
        with storage_errors(path):
            self.root.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        with file:
            with storage_errors(path):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Return a small object's content and a tag of it, or None where it does not exist."""
        with suppress(MissingError), self._explained(name) as path:
            content = path.read_bytes()
            return content, hashlib.sha256(content).hexdigest()
        return None

    def upload(self, path: Path, name: str, sent: Sent) -> None:
        """Write a file to an object, and tell how many bytes went."""
        target = self.root / name
        # Not beside its place: what a killed process leaves must not lie in a version.
        with storage_errors(target), temporary_folder(self.root) as folder:
            copy = shutil.copyfile(path, folder / target.name)
            flush(copy)
            target.parent.mkdir(parents=True, exist_ok=True)
            copy.replace(target)
            flush(target.parent)
        sent(target.stat().st_size)

    def download(self, name: str, path: Path, sent: Sent) -> None:
        """Write an object to a file; `MissingError` where it does not exist."""
        with self._explained(name) as source:
            shutil.copyfile(source, path)
        sent(path.stat().st_size)

    def holds(self, name: str, size: int, sha256: str, _: Path | None = None) -> bool:
        """Return whether an object is there with this content."""
        with suppress(MissingError), self._explained(name) as found:
            return found.stat().st_size == size and file_sha256(found) == sha256
        return False

    def swap(self, name: str, content: bytes, tag: str | None) -> bool:
        """Write a small object if its tag is still this one (None: if it does not exist).

        Returns whether it holds ``content`` now.
        """
        with self._locked():
            before, found = self.read(name) or (None, None)
            if found != tag:
                return before == content
            write_bytes(self.root / name, content)
        return True

    def delete(self, name: str) -> None:
        """Remove an object, if it exists."""
        path = self.root / name
        with storage_errors(path):
            path.unlink(missing_ok=True)
            with suppress(OSError):
                path.parent.rmdir()

    def entries(self) -> dict[str, Entry]:
        """Return all objects by name."""
        found = {}
        with suppress(MissingError), self._explained(""):
            for path in self.root.rglob("*"):
                name = path.relative_to(self.root)
                if not name.parts[0].startswith(".") and path.is_file():
                    facts = path.stat()
                    found[name.as_posix()] = Entry(facts.st_size, facts.st_mtime)
        return found

    def folders(self) -> list[str]:
        """Return the first parts of all names that have several, sorted."""
        with suppress(MissingError), self._explained("") as root:
            return sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != ".")
        return []


class S3Store:
    """Objects below a prefix of a bucket.

    The prefix is taken as it is written, without slashes at its ends. Without a boto3 ``client``,
    one is made from the environment (``AWS_ENDPOINT_URL_S3`` names another store than AWS). Raises
    `ArtifactError` if no client can be made, or the prefix has empty parts or characters that
    listings cannot hold.
    """

    def __init__(self, bucket: str, prefix: str, *, client: Any = None) -> None:
        prefix = prefix.strip("/")
        parts = prefix.split("/") if prefix else []
        if any(part in ("", ".", "..") for part in parts) or not prefix.isprintable():
            raise ArtifactError(
                f"{prefix!r} cannot be a prefix in bucket {bucket}: expected printable characters "
                "and no part between slashes that is empty, '.' or '..'"
            )
        self._bucket, self._prefix = bucket, "".join(f"{part}/" for part in parts)
        with self._explained("reach", ""):
            self._client = client or _client(tuple(sorted(os.environ.items())))

    def url(self, name: str = "") -> str:
        """Return ``s3://bucket/key``."""
        return f"s3://{self._bucket}/{self._prefix}{name}".rstrip("/")

    @contextmanager
    def _explained(self, action: str, name: str) -> Iterator[None]:
        """Turn what boto3 raises into an error that says what was tried and what to do.

        boto3 makes a KeyError or ValueError of an answer that was cut off, and a RecursionError of
        redirects without end. So only its own calls belong in the block.
        """
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            yield
        except (
            *(BotoCoreError, ClientError, Boto3Error),
            *(ResponseParserError, KeyError, ValueError, RecursionError),
        ) as error:
            # The managed transfer hides the answer in the context of its own error.
            told = error.__context__ if error.__context__ and _code(error.__context__) else error
            raise ArtifactError(
                f"cannot {action} {self.url(name)}: {told}; {_hint(told)}"
            ) from error

    def _object(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{name}"}

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Return a small object's content and ETag, or None where it does not exist."""
        from botocore.exceptions import ClientError

        with self._explained("read", name):
            try:
                answer = self._client.get_object(**self._object(name))
            except ClientError as error:
                if _code(error) != "NoSuchKey":
                    raise
                return None
            content, tag = answer["Body"].read(), answer.get("ETag")
        if not tag:
            raise ArtifactError(f"cannot read {self.url(name)}: the answer has no ETag; try again")
        return content, tag

    def upload(self, path: Path, name: str, sent: Sent) -> None:
        """Upload a file, in parts if it is large; the store compares what arrives."""
        with self._explained("write", name):
            self._client.upload_file(
                str(path),
                **self._object(name),
                ExtraArgs={"ChecksumAlgorithm": "SHA256"},
                Callback=sent,
                Config=_transfer(),
            )

    def download(self, name: str, path: Path, sent: Sent) -> None:
        """Download an object to a file."""
        from botocore.exceptions import ClientError

        with self._explained("read", name):
            try:
                self._client.download_file(
                    **self._object(name), Filename=str(path), Callback=sent, Config=_transfer()
                )
            except ClientError as error:
                if _status(error) != 404:
                    raise
                raise MissingError(f"{self.url(name)} does not exist") from None

    def holds(self, name: str, size: int, sha256: str, path: Path | None = None) -> bool:
        """Compare size and SHA-256 with what the store says; read back what it does not say.

        ``path`` is a file with the content, if there is one: it saves reading back what was
        uploaded in parts.
        """
        from botocore.exceptions import ClientError

        with self._explained("check", name):
            try:
                facts = self._client.head_object(**self._object(name), ChecksumMode="ENABLED")
            except ClientError as error:
                if _status(error) != 404:
                    raise
                return False
        if facts.get("ContentLength") != size:
            return False
        said = facts.get("ChecksumSHA256", "")
        if said == base64.b64encode(bytes.fromhex(sha256)).decode():
            return True
        if path and size >= PART_BYTES and said == _checksum_of_parts(path):
            return True
        found = hashlib.sha256()
        with self._explained("read", name):
            for chunk in self._client.get_object(**self._object(name))["Body"].iter_chunks(2**20):
                found.update(chunk)
        return found.hexdigest() == sha256

    def swap(self, name: str, content: bytes, tag: str | None) -> bool:
        """Put a small object if its ETag is still ``tag``; return whether it has this content."""
        from botocore.exceptions import ClientError

        # Proxies weaken ETags, which then match nothing, and some stores want them unquoted.
        strong = tag.removeprefix("W/") if tag else ""
        for form in dict.fromkeys((strong, strong.strip('"'))):
            condition = {"IfMatch": form} if form else {"IfNoneMatch": "*"}
            with self._explained("write", name):
                try:
                    self._client.put_object(
                        **self._object(name),
                        Body=content,
                        ContentType="application/json",
                        CacheControl="no-cache",
                        ChecksumAlgorithm="SHA256",
                        **condition,
                    )
                    return True
                except ClientError as error:
                    if _status(error) not in _LOST or _code(error) == "NoSuchBucket":
                        raise
            # A put that won but whose answer was lost is made again and then fails its condition.
            found, now = self.read(name) or (None, None)
            if found == content:
                return True
            if now != tag:
                return False
        raise ArtifactError(
            f"cannot replace {self.url(name)}: the store refuses, though its ETag is still {tag}; "
            "publish to a store that honours If-Match, without a proxy that rewrites ETags"
        )

    def delete(self, name: str) -> None:
        """Remove an object, if it exists."""
        with self._explained("delete", name):
            self._client.delete_object(**self._object(name))

    def _pages(self, **options: str) -> list[dict[str, Any]]:
        with self._explained("list", ""):
            pages = self._client.get_paginator("list_objects_v2")
            return list(pages.paginate(Bucket=self._bucket, Prefix=self._prefix, **options))

    def entries(self) -> dict[str, Entry]:
        """Return all objects below the prefix."""
        return {
            entry["Key"].removeprefix(self._prefix): Entry(
                entry["Size"], entry["LastModified"].timestamp()
            )
            for page in self._pages()
            for entry in page.get("Contents", [])
        }

    def folders(self) -> list[str]:
        """Return the names that follow the prefix up to the next slash, sorted."""
        return sorted(
            common["Prefix"].removeprefix(self._prefix).rstrip("/")
            for page in self._pages(Delimiter="/")
            for common in page.get("CommonPrefixes", [])
        )


Store = FolderStore | S3Store


@lru_cache(maxsize=4)
def _client(_: tuple[tuple[str, str], ...]) -> Any:
    """Make a client, once for each state of the environment: it takes a tenth of a second."""
    import boto3
    import botocore.session
    from botocore.config import Config

    session = botocore.session.get_session()
    attempts = session.get_config_variable("max_attempts") or _ATTEMPTS
    config = Config(
        retries={"mode": "standard", "total_max_attempts": int(attempts)},
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        response_checksum_validation="when_required",  # What is fetched is verified anyway.
    )
    # Not boto3's own session: that one is no matter for several threads, and keeps the first keys.
    return boto3.session.Session(botocore_session=session).client("s3", config=config)


def _transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)


def _checksum_of_parts(path: Path) -> str:
    """Return what S3 keeps of a file in parts: the hash of their hashes, and their number."""
    hashes = []
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            hashes.append(hashlib.sha256(part).digest())
    return f"{base64.b64encode(hashlib.sha256(b''.join(hashes)).digest()).decode()}-{len(hashes)}"


def _code(error: BaseException | None) -> str:
    answer = getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _hint(error: BaseException) -> str:
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in AWS_PROFILE"
    if "maximum recursion depth" in str(error):  # Botocore may have wrapped the RecursionError.
        return f"the store redirects without end; {_REGION}, and check AWS_ENDPOINT_URL_S3"
    code = _code(error)
    if code:
        return _HINTS.get(code, "try again, or ask the store's operator")
    return "check the network and AWS_ENDPOINT_URL_S3, then try again"
