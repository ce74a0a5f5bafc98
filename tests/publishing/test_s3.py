"""Publishing to a real S3 store, which enforces keys, conditional writes and checksums."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from mess_core.errors import ArtifactError
from mess_core.index.artifact import CONTENT, FILES, verify_artifact
from mess_core.publishing import stores
from mess_core.publishing.fetch import (
    download_artifact_from_s3,
    fetch,
    load_latest_from_s3,
    load_published,
)
from mess_core.publishing.publish import (
    POINTER,
    prune_versions,
    publish,
    published_datasets,
    published_version,
    published_versions,
    rollback,
    upload_artifact_to_s3,
    verify_published,
)
from mess_core.publishing.stores import S3Store, open_store
from tests.publishing.proxy import Fault, Proxy, refusal
from tests.publishing.seaweed import ADMIN, READER, Seaweed

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("hurry")]

Save = Callable[[int], list[Path]]
S3 = tuple[Any, str]
Meddle = Callable[[Callable[[], Any], dict[str, Any]], Any]

KIND = ("planted", "recordings")
FIVE_MIB = 5 * 1024**2


class Meddler:
    """A client that does something else at some requests.

    Parameters
    ----------
    client : boto3 S3 client
    meddle : callable
        By the name of a method: takes a function that makes the request, and its arguments.
    """

    def __init__(self, client: Any, **meddle: Meddle) -> None:
        self._client, self._meddle = client, meddle
        self.requests: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in self._meddle:
            return method

        def call(**arguments: Any) -> Any:
            self.requests.append(name)
            return self._meddle[name](lambda: method(**arguments), arguments)

        return call


def _refused(status: int, code: str = "Refused") -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutObject")


def _keys(client: Any, bucket: str) -> dict[str, str]:
    found = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {entry["Key"]: entry["ETag"] for entry in found}


def test_versions_are_published_fetched_listed_rolled_back_and_pruned(
    s3: S3, versions_of: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, bucket = s3
    location = f"s3://{bucket}/some/prefix"
    old, new = versions_of(2)
    for artifact in (old, new):
        assert publish(artifact, location)["pointer_moved"]
        before = _keys(client, bucket)
        assert not publish(artifact, location)["pointer_moved"]
        assert _keys(client, bucket) == before
    base = "/".join(["some/prefix", *KIND])
    names = {f"{base}/{a.name}/{name}" for a in (old, new) for name in FILES}
    assert set(before) == names | {f"{base}/{POINTER}"}
    assert published_datasets(location) == ["planted"]
    path = fetch(location, *KIND, tmp_path / "cache")
    assert path.name == new.name
    assert {p.name: p.read_bytes() for p in path.iterdir()} == {
        p.name: p.read_bytes() for p in new.iterdir()
    }
    assert rollback(location, *KIND, old.name)["pointer_moved"]
    assert published_version(location, *KIND) == old.name
    listed = {v.version_id: v for v in published_versions(location, *KIND)}
    assert {name: v.latest for name, v in listed.items()} == {old.name: True, new.name: False}
    assert all(v.complete for v in listed.values())
    publish(new, location)
    assert prune_versions(location, *KIND, keep=1) == []  # They are of today.
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * 86400)
    went = {v.version_id for v in prune_versions(location, *KIND, keep=1)}
    left = {v.version_id for v in published_versions(location, *KIND)}
    assert new.name in left == {old.name, new.name} - went


def test_the_functions_of_a_bucket_and_prefix(s3: S3, artifact: Path, tmp_path: Path) -> None:
    client, bucket = s3
    receipt = upload_artifact_to_s3(artifact, bucket, "a/b", client=client)
    assert receipt["location"] == f"s3://{bucket}/a/b"
    path = download_artifact_from_s3(bucket, "a/b", artifact.name, tmp_path, client=client)
    assert path == tmp_path / artifact.name
    index = load_latest_from_s3(bucket, "a/b", tmp_path, client=client, verify=False)
    assert index.version_id == artifact.name
    with pytest.raises(ArtifactError, match="there is no version 0000"):
        download_artifact_from_s3(bucket, "a/b", "0" * 64, tmp_path, client=client)


# --- keys, tags and swaps


@pytest.mark.parametrize(
    "prefix",
    [
        *("", "/", "/x", "/a/b/", "/a#b", "/a?b", "/a b", "/100%", "/%41", "/a+b", "/naïve-日本"),
        *("/a&b=c", "/it's", "/a:b@c"),
    ],
)
def test_a_prefix_is_taken_as_it_is_written(
    prefix: str, s3: S3, artifact: Path, tmp_path: Path
) -> None:
    location = f"s3://{s3[1]}{prefix}"
    publish(artifact, location)
    first = f"{prefix.strip('/')}/planted/".lstrip("/")
    assert all(key.startswith(first) for key in _keys(*s3))
    assert published_datasets(location) == ["planted"]
    assert [v.latest for v in published_versions(location, *KIND)] == [True]
    assert len(load_published(location, *KIND, cache_dir=tmp_path).rows) == 6
    assert published_datasets(f"s3://{s3[1]}/other") == []
    if len(prefix) > 2:
        assert published_datasets(f"s3://{s3[1]}{prefix[:2]}") == []


@pytest.mark.parametrize("prefix", ["a//b", "a/../b", "./a", "a\nb", "a/\u2028"])
def test_a_prefix_that_stores_change_or_cannot_list_is_refused(prefix: str) -> None:
    with pytest.raises(ArtifactError, match="cannot be a prefix in bucket bucket: expected"):
        open_store(f"s3://bucket/{prefix}")


def test_a_lost_swap_is_told_from_a_won_one(s3: S3) -> None:
    client, bucket = s3
    store = S3Store(bucket, "", client=client)
    assert store.swap(POINTER, b"1", None)
    assert not store.swap(POINTER, b"2", None)
    _, tag = store.read(POINTER) or (b"", "")
    assert store.swap(POINTER, b"3", tag)
    assert not store.swap(POINTER, b"4", tag)
    assert store.swap(POINTER, b"3", tag)  # What is there already.
    store.delete(POINTER)
    assert not store.swap(POINTER, b"5", tag)
    assert store.read(POINTER) is None


@pytest.mark.parametrize("status", [404, 409, 412])
def test_stores_that_answer_a_lost_swap_otherwise_are_understood(status: int, s3: S3) -> None:
    client, bucket = s3
    S3Store(bucket, "", client=client).swap(POINTER, b"1", None)

    def lose(_: Callable[[], Any], arguments: dict[str, Any]) -> Any:
        client.put_object(**{**arguments, "Body": b"another's", "IfMatch": tag})
        raise _refused(status)

    store = S3Store(bucket, "", client=Meddler(client, put_object=lose))
    _, tag = store.read(POINTER) or (b"", "")
    assert not store.swap(POINTER, b"2", tag)


def test_a_swap_that_was_won_but_is_sent_twice_succeeds(s3: S3) -> None:
    client, bucket = s3

    def twice(request: Callable[[], Any], _: dict[str, Any]) -> Any:
        request()
        return request()

    store = S3Store(bucket, "", client=Meddler(client, put_object=twice))
    assert store.swap(POINTER, b"1", None)
    assert store.swap(POINTER, b"2", (store.read(POINTER) or (b"", ""))[1])


def _weak(request: Callable[[], Any], _: dict[str, Any]) -> Any:
    answer = request()
    return {**answer, "ETag": f"W/{answer['ETag']}"}


def _no_quotes(request: Callable[[], Any], arguments: dict[str, Any]) -> Any:
    if '"' in arguments.get("IfMatch", ""):
        raise _refused(412)
    return request()


@pytest.mark.parametrize(
    "meddle", [{"get_object": _weak}, {"put_object": _no_quotes}], ids=["weak", "no quotes"]
)
def test_the_pointer_moves_whatever_form_of_etag_a_store_has(
    meddle: dict[str, Meddle], s3: S3, versions_of: Save
) -> None:
    client, location = Meddler(s3[0], **meddle), f"s3://{s3[1]}"
    for artifact in versions_of(2):
        assert publish(artifact, location, client=client)["pointer_moved"]
        assert published_version(location, *KIND, client=client) == artifact.name


def test_a_store_that_never_lets_the_pointer_move_is_told(s3: S3, versions_of: Save) -> None:
    old, new = versions_of(2)

    def refuse(_: Callable[[], Any], __: dict[str, Any]) -> Any:
        raise _refused(412)

    location = f"s3://{s3[1]}"
    publish(old, location, client=s3[0])
    client = Meddler(s3[0], put_object=refuse)
    with pytest.raises(ArtifactError, match=r"refuses, though its ETag is still .* honours If-M"):
        publish(new, location, client=client)
    assert client.requests == ["put_object"] * 2


# --- what lies there


def test_a_large_file_goes_in_parts_and_is_checked_without_reading_it_back(
    s3: S3,
    proxy: Proxy,
    through: Any,
    large_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stores, "PART_BYTES", FIVE_MIB)
    client, bucket = s3
    location = f"s3://{bucket}"
    for moved in (True, False):
        assert publish(large_artifact, location, client=through)["pointer_moved"] == moved
    large = CONTENT[0]
    requests = [r for r in proxy.requests if r.path.partition("?")[0].endswith(large)]
    assert not [r for r in requests if r.method == "GET"]
    parts = [r for r in requests if r.method == "PUT"]
    assert len(parts) == -(-(large_artifact / large).stat().st_size // FIVE_MIB) >= 2
    assert all(r.header("x-amz-checksum-sha256") for r in parts)
    head = client.head_object(
        Bucket=bucket, Key="/".join([*KIND, large_artifact.name, large]), ChecksumMode="ENABLED"
    )
    assert head["ChecksumSHA256"].endswith(f"-{len(parts)}")
    # Without the local file it is read back.
    assert verify_published(location, *KIND, large_artifact.name, client=client) > FIVE_MIB
    verify_artifact(fetch(location, *KIND, tmp_path / "cache", client=client))


@pytest.mark.parametrize("name", FILES)
def test_an_object_of_other_content_is_noticed_and_mended_by_publishing_again(
    name: str, s3: S3, artifact: Path, tmp_path: Path
) -> None:
    client, bucket = s3
    location = f"s3://{bucket}"
    publish(artifact, location, client=client)
    key = "/".join([*KIND, artifact.name, name])
    content = (artifact / name).read_bytes()
    client.put_object(Bucket=bucket, Key=key, Body=content[:-9] + b"!" * 9)
    for attempt in (
        lambda: verify_published(location, *KIND, artifact.name, client=client),
        lambda: fetch(location, *KIND, tmp_path / "cache", client=client),
    ):
        with pytest.raises(ArtifactError, match=name):
            attempt()
    publish(artifact, location, client=client)
    verify_published(location, *KIND, artifact.name, client=client)


def test_a_store_that_keeps_no_checksums_is_read_back(s3: S3, artifact: Path) -> None:
    client, bucket = s3

    def forget(request: Callable[[], Any], _: dict[str, Any]) -> Any:
        return {**request(), "ChecksumSHA256": ""}

    meddler = Meddler(client, head_object=forget)
    assert publish(artifact, f"s3://{bucket}", client=meddler)["pointer_moved"]
    key = "/".join([*KIND, artifact.name, CONTENT[1]])
    content = (artifact / CONTENT[1]).read_bytes()
    client.put_object(Bucket=bucket, Key=key, Body=content[:-1] + b"!")
    with pytest.raises(ArtifactError, match=f"{CONTENT[1]} is missing or damaged"):
        verify_published(f"s3://{bucket}", *KIND, artifact.name, client=meddler)


def test_content_that_is_damaged_on_its_way_is_refused_by_the_store(
    s3: S3, proxy: Proxy, through: Any, artifact: Path
) -> None:
    location = f"s3://{s3[1]}"
    proxy.choose = lambda r: Fault("garbled request") if r.method == "PUT" else None
    with pytest.raises(ArtifactError, match=rf"cannot write s3://.*{CONTENT[0]}.*BadDigest"):
        publish(artifact, location, client=through)
    assert _keys(*s3) == {}
    proxy.reset()
    assert publish(artifact, location, client=through)["pointer_moved"]


# --- refusals


def test_missing_things_are_told_apart(s3: S3, artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nothing was published there"):
        fetch(f"s3://{s3[1]}/x", *KIND, tmp_path)
    for attempt in (
        lambda: publish(artifact, "s3://no-such-bucket/x"),
        lambda: fetch("s3://no-such-bucket/x", *KIND, tmp_path),
        lambda: published_datasets("s3://no-such-bucket/x"),
    ):
        with pytest.raises(ArtifactError, match="create the bucket, or correct its name"):
            attempt()
    with pytest.raises(ArtifactError, match="Invalid bucket name"):
        publish(artifact, "s3://no bucket/x")


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("AWS_ACCESS_KEY_ID", "does not know this access key"),
        ("AWS_SECRET_ACCESS_KEY", "the secret key is wrong"),
    ],
)
def test_wrong_credentials_are_refused(
    variable: str,
    hint: str,
    s3: S3,
    artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    location = f"s3://{s3[1]}"
    publish(artifact, location)
    monkeypatch.setenv(variable, "wrong")
    for attempt in (
        lambda: publish(artifact, location),
        lambda: fetch(location, *KIND, tmp_path / "cache"),
        lambda: published_versions(location, *KIND),
        lambda: prune_versions(location, *KIND, keep=1),
    ):
        with pytest.raises(ArtifactError, match=hint):
            attempt()


def test_a_reader_reads_and_cannot_write(
    s3: S3, seaweed_server: Seaweed, artifact: Path, other_artifact: Path, tmp_path: Path
) -> None:
    location, reader = f"s3://{s3[1]}", seaweed_server.client(READER)
    publish(artifact, location)
    assert fetch(location, *KIND, tmp_path / "cache", client=reader).name == artifact.name
    assert len(published_versions(location, *KIND, client=reader)) == 1
    assert not publish(artifact, location, client=reader)["pointer_moved"]
    with pytest.raises(ArtifactError, match=r"cannot write s3://.*AccessDenied.*may not do this"):
        publish(other_artifact, location, client=reader)
    publish(other_artifact, location)
    with pytest.raises(ArtifactError, match=r"cannot write s3://.*latest\.json.*AccessDenied"):
        rollback(location, *KIND, artifact.name, client=reader)
    with pytest.raises(ArtifactError, match="AccessDenied"):
        S3Store(s3[1], "", client=reader).delete("x")
    assert published_version(location, *KIND) == other_artifact.name


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (301, "PermanentRedirect", "the bucket's region"),  # boto3 follows it without end.
        (403, "AccessDenied", "may not do this"),
        (403, "RequestTimeTooSkewed", "set the clock"),
        (400, "ExpiredToken", "sign in again"),
        (400, "AuthorizationHeaderMalformed", "the bucket's region"),
        (418, "Teapot", "ask the store's operator"),
    ],
)
def test_refusals_say_what_to_do_and_are_not_repeated(
    status: int,
    code: str,
    hint: str,
    s3: S3,
    proxy: Proxy,
    seaweed_server: Seaweed,
    artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proxy, "forward", lambda _: refusal(status, code))
    through = seaweed_server.client(url=proxy.url, attempts=4)
    said = "recursion" if status == 301 else code
    with pytest.raises(ArtifactError, match=rf"s3://.*latest\.json: .*{said}.*{hint}"):
        publish(artifact, f"s3://{s3[1]}/x", client=through)
    assert status == 301 or len([r for r in proxy.requests if r.path.endswith(POINTER)]) == 1


def test_a_mistake_of_the_program_is_not_tried_again(s3: S3) -> None:
    def mistaken(_: Callable[[], Any], __: dict[str, Any]) -> Any:
        raise ValueError("a mistake")

    client = Meddler(s3[0], get_object=mistaken)
    with pytest.raises(ArtifactError, match="a mistake"):
        S3Store(s3[1], "", client=client).read(POINTER)
    assert client.requests == ["get_object"]


def test_a_busy_store_is_asked_as_often_as_the_environment_says(
    s3: S3, proxy: Proxy, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    faults = iter([Fault("503"), Fault("500"), Fault("drop")])
    proxy.choose = lambda _: next(faults, None)
    assert publish(artifact, f"s3://{s3[1]}")["pointer_moved"]
    proxy.choose = lambda _: Fault("503")
    for setting, attempts in (("", 6), ("3", 3)):
        if setting:
            monkeypatch.setenv("AWS_MAX_ATTEMPTS", setting)
        proxy.requests.clear()
        with pytest.raises(ArtifactError, match=r"SlowDown.*; the store is overloaded; try again"):
            published_version(f"s3://{s3[1]}", *KIND)
        assert len(proxy.requests) == attempts


def test_a_store_that_cannot_be_reached_or_does_not_answer_is_told(
    s3: S3, proxy: Proxy, tmp_path: Path
) -> None:
    def client(url: str) -> Any:
        config = Config(retries={"total_max_attempts": 1}, read_timeout=0.05)
        key = {"aws_access_key_id": ADMIN[0], "aws_secret_access_key": ADMIN[1]}
        return boto3.client("s3", endpoint_url=url, region_name="us-east-1", config=config, **key)

    def wait(_: object) -> Fault:
        time.sleep(0.2)
        return Fault("drop")

    proxy.choose = wait
    for url, said in (("http://127.0.0.1:1", "Could not connect"), (proxy.url, "Read timeout")):
        with pytest.raises(ArtifactError, match=f"{said}.*check the network and AWS_ENDPOINT"):
            fetch(f"s3://{s3[1]}", *KIND, tmp_path, client=client(url))


def test_an_environment_of_which_no_client_can_be_made_is_told(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(match: str, *missing: str, **settings: str) -> None:
        with monkeypatch.context() as patched:
            for name in missing:
                patched.delenv(name)
            for name, value in settings.items():
                patched.setenv(name, value)
            with pytest.raises(ArtifactError, match=match):
                fetch(f"s3://{s3[1]}/x", *KIND, tmp_path)

    check("check the network and AWS_ENDPOINT_URL_S3", AWS_ENDPOINT_URL_S3="no url")
    check("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY")
    nowhere = str(tmp_path / "none")
    check(r"profile \(nobody\) could not", AWS_PROFILE="nobody", AWS_CONFIG_FILE=nowhere)
    check(
        "Unable to locate credentials",
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        AWS_EC2_METADATA_DISABLED="true",
        AWS_SHARED_CREDENTIALS_FILE=nowhere,
    )
