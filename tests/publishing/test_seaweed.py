"""A real store, which enforces keys, conditional writes and checksums."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mess_core.errors import ArtifactError
from mess_core.index.artifact import FILES, save_artifact, verify_artifact
from mess_core.publishing.publish import (
    fetch,
    prune_versions,
    publish,
    published_datasets,
    published_version,
    published_versions,
    rollback,
    verify_published,
)
from mess_core.publishing.s3 import S3Store
from mess_core.publishing.transfer import Content, Transfer
from tests.planted import Corpus, recording_rows
from tests.publishing import test_faults
from tests.publishing.fixtures import IMPATIENT
from tests.publishing.proxy import AFTER, BEFORE, READING, WRITING, Fault, Request, proxied
from tests.publishing.seaweed import ADMIN, READER, Seaweed

pytestmark = pytest.mark.integration

Save = Callable[[int], list[Path]]

KIND = ("planted", "recordings")
#: SeaweedFS takes no smaller parts, as S3.
FIVE_MIB = 5 * 1024**2
IN_PARTS = Transfer(multipart_bytes=FIVE_MIB, part_bytes=FIVE_MIB, sleep=lambda _: None)


@pytest.fixture
def weed(
    seaweed_server: Seaweed, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[Seaweed, str]:
    """Give the running store and a fresh bucket; the environment names them with the admin key."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweed_server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ADMIN[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ADMIN[1])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"bucket-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:40]}"
    seaweed_server.client().create_bucket(Bucket=bucket)
    return seaweed_server, bucket


@pytest.fixture(scope="session")
def large_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save an artifact whose largest file takes two parts."""
    n = 60_000
    index = Corpus(n).index(recording_rows(n), "recordings")
    return save_artifact(index, tmp_path_factory.mktemp("large"))


def _largest(artifact: Path) -> Path:
    return max(artifact.iterdir(), key=lambda path: path.stat().st_size)


def test_versions_are_published_fetched_listed_rolled_back_and_pruned(
    weed: tuple[Seaweed, str], versions_of: Save, tmp_path: Path
) -> None:
    location = f"s3://{weed[1]}/some/prefix"
    old, new = versions_of(2)
    for artifact in (old, new):
        assert publish(artifact, location)["pointer_moved"]
        assert not publish(artifact, location)["pointer_moved"]
    assert published_datasets(location) == ["planted"]
    path = fetch(location, *KIND, tmp_path / "cache")
    assert path.name == new.name
    assert {p.name: p.read_bytes() for p in path.iterdir()} == {
        p.name: p.read_bytes() for p in new.iterdir()
    }
    assert rollback(location, *KIND, old.name)["pointer_moved"]
    assert published_version(location, *KIND) == old.name
    listed = {v.version_id: v for v in published_versions(location, *KIND)}
    assert listed[old.name].latest
    assert not listed[new.name].latest
    assert all(v.complete for v in listed.values())
    publish(new, location)
    went = prune_versions(location, *KIND, keep=1)
    assert published_version(location, *KIND) == new.name
    left = {v.version_id for v in published_versions(location, *KIND)}
    assert left == {old.name, new.name} - {v.version_id for v in went}
    assert new.name in left


def test_a_large_file_goes_in_parts_and_is_checked_by_the_hash_of_their_hashes(
    weed: tuple[Seaweed, str], large_artifact: Path, tmp_path: Path
) -> None:
    server, bucket = weed
    location, client = f"s3://{bucket}", server.client()
    name = _largest(large_artifact).name
    with proxied(server.url) as proxy:
        through = server.client(url=proxy.url)
        assert publish(large_artifact, location, client=through, transfer=IN_PARTS)["pointer_moved"]
        # Nothing large is read back, since the store keeps the checksum.
        assert not [r for r in proxy.requests if r.method == "GET" and r.path.endswith(name)]
        completing = [r for r in proxy.requests if r.method == "POST" and "uploadId=" in r.path]
        assert [r.header("if-none-match") for r in completing] == ["*"]
    key = "/".join([*KIND, large_artifact.name, name])
    head = client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    content = Content.of(large_artifact / name, IN_PARTS)
    assert len(content.parts) >= 2
    assert head["ChecksumSHA256"].endswith(f"-{len(content.parts)}")
    # Another size of parts gives another checksum, so the object is read back.
    assert not publish(large_artifact, location, transfer=IMPATIENT)["pointer_moved"]
    assert verify_published(location, *KIND, large_artifact.name) > content.size
    verify_artifact(fetch(location, *KIND, tmp_path / "cache"))


def test_an_upload_in_parts_never_replaces_an_object(
    weed: tuple[Seaweed, str], large_artifact: Path
) -> None:
    server, bucket = weed
    path = _largest(large_artifact)
    client = server.client()
    store = S3Store(bucket, "", client=client)
    client.put_object(Bucket=bucket, Key=path.name, Body=b"mine")
    store.create(path.name, path, Content.of(path, IN_PARTS), lambda _: None)
    assert client.get_object(Bucket=bucket, Key=path.name)["Body"].read() == b"mine"
    assert client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


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
    weed: tuple[Seaweed, str],
    artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    location = f"s3://{weed[1]}"
    publish(artifact, location)
    monkeypatch.setenv(variable, "wrong")
    for attempt in (
        lambda: publish(artifact, location, transfer=IMPATIENT),
        lambda: fetch(location, *KIND, tmp_path / "cache", transfer=IMPATIENT),
        lambda: published_versions(location, *KIND),
        lambda: prune_versions(location, *KIND, keep=1),
    ):
        with pytest.raises(ArtifactError, match=hint):
            attempt()


def test_a_reader_reads_and_cannot_write(
    weed: tuple[Seaweed, str], artifact: Path, other_artifact: Path, tmp_path: Path
) -> None:
    server, bucket = weed
    location, reader = f"s3://{bucket}", server.client(READER)
    publish(artifact, location)
    assert fetch(location, *KIND, tmp_path / "cache", client=reader).name == artifact.name
    assert len(published_versions(location, *KIND, client=reader)) == 1
    assert not publish(artifact, location, client=reader)["pointer_moved"]
    with pytest.raises(ArtifactError, match=r"cannot write s3://.*AccessDenied.*may not do this"):
        publish(other_artifact, location, client=reader, transfer=IMPATIENT)
    publish(other_artifact, location)
    with pytest.raises(ArtifactError, match=r"cannot write s3://.*latest\.json.*AccessDenied"):
        rollback(location, *KIND, artifact.name, client=reader)
    with pytest.raises(ArtifactError, match="AccessDenied"):
        S3Store(bucket, "", client=reader).delete("x")
    assert published_version(location, *KIND) == other_artifact.name


def test_a_bucket_that_does_not_exist_is_told(
    weed: tuple[Seaweed, str], artifact: Path, tmp_path: Path
) -> None:
    assert weed[1]
    for attempt in (
        lambda: publish(artifact, "s3://no-such-bucket/x"),
        lambda: fetch("s3://no-such-bucket/x", *KIND, tmp_path / "cache"),
        lambda: published_datasets("s3://no-such-bucket/x"),
    ):
        with pytest.raises(ArtifactError, match="create the bucket, or correct its name"):
            attempt()


def test_a_lost_swap_is_told_from_a_won_one(weed: tuple[Seaweed, str]) -> None:
    server, bucket = weed
    store = S3Store(bucket, "", client=server.client())
    assert store.swap("latest.json", b"1", None)
    assert not store.swap("latest.json", b"2", None)
    _, tag = store.read("latest.json") or (b"", "")
    assert store.swap("latest.json", b"3", tag)
    assert not store.swap("latest.json", b"4", tag)
    assert store.swap("latest.json", b"3", tag)  # What is there already.
    store.delete("latest.json")
    assert not store.swap("latest.json", b"5", tag)
    assert store.read("latest.json") is None


@pytest.mark.parametrize("first", [True, False], ids=["first version", "next version"])
def test_of_two_publishers_at_once_one_wins_and_the_other_says_so(
    first: bool,
    weed: tuple[Seaweed, str],
    versions_of: Save,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, bucket = weed
    earlier, *rivals = versions_of(3)
    with proxied(server.url) as proxy:
        through = server.client(url=proxy.url)
        # The store must decide, not the proxy's lock.
        monkeypatch.setattr(proxy, "forward", proxy._forward)
        test_faults.race(proxy, through, f"s3://{bucket}", rivals, None if first else earlier)


def test_the_store_refuses_content_that_does_not_have_its_checksum(
    weed: tuple[Seaweed, str], artifact: Path
) -> None:
    server, bucket = weed
    path = artifact / FILES[0]
    store = S3Store(bucket, "", client=server.client(), transfer=IMPATIENT)
    wrong = Content(path.stat().st_size, hashlib.sha256(b"other").hexdigest())
    with pytest.raises(ArtifactError, match=r"BadDigest.*the content changed on its way"):
        store.create("x", path, wrong, lambda _: None)
    assert not store.check("x", wrong)


def test_content_that_is_damaged_on_its_way_is_sent_again(
    weed: tuple[Seaweed, str], large_artifact: Path, tmp_path: Path
) -> None:
    server, bucket = weed
    location, damaged = f"s3://{bucket}", set()

    def choose(request: Request) -> Fault | None:
        if request.method == "PUT" and request.path not in damaged:
            damaged.add(request.path)
            return Fault("garbled request")
        return None

    with proxied(server.url) as proxy:
        proxy.choose = choose
        through = server.client(url=proxy.url)
        assert publish(large_artifact, location, client=through, transfer=IN_PARTS)["pointer_moved"]
    parts = [len(Content.of(large_artifact / name, IN_PARTS).parts) or 1 for name in FILES]
    assert len(damaged) == sum(parts) + 1  # And the pointer.
    verify_artifact(fetch(location, *KIND, tmp_path / "cache"))


def test_an_object_of_other_content_is_noticed(
    weed: tuple[Seaweed, str], artifact: Path, tmp_path: Path
) -> None:
    server, bucket = weed
    location, client = f"s3://{bucket}", server.client()
    publish(artifact, location)
    for name in FILES:
        key = "/".join([*KIND, artifact.name, name])
        content = (artifact / name).read_bytes()
        client.put_object(Bucket=bucket, Key=key, Body=content[:-1] + b"!")
        with pytest.raises(ArtifactError, match=name):
            verify_published(location, *KIND, artifact.name)
        with pytest.raises(ArtifactError, match=name):
            fetch(location, *KIND, tmp_path / "cache", transfer=IMPATIENT)
        client.put_object(Bucket=bucket, Key=key, Body=content)
    verify_published(location, *KIND, artifact.name)


@pytest.mark.parametrize("seed", range(6))
def test_under_random_faults_nothing_is_lost_or_half_visible(
    seed: int, weed: tuple[Seaweed, str], versions_of: Save, tmp_path: Path
) -> None:
    """As in `test_faults`, with damage to what is sent as well, which this store notices."""
    server, bucket = weed
    client, prefix = server.client(), "/".join([str(seed), *KIND])

    def objects() -> dict[str, bytes]:
        listed = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/").get("Contents", [])
        return {
            entry["Key"].removeprefix(f"{prefix}/"): client.get_object(
                Bucket=bucket, Key=entry["Key"]
            )["Body"].read()
            for entry in listed
        }

    with proxied(server.url) as proxy:
        test_faults.run_schedule(
            seed,
            proxy,
            server.client(url=proxy.url),
            f"s3://{bucket}/{seed}",
            tmp_path / "cache",
            versions_of(2),
            objects,
            (*BEFORE, *AFTER, *READING, *WRITING),
            IN_PARTS,
        )


@pytest.fixture
def own_server(seaweed_server: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Give a store that a test may kill."""
    server = Seaweed(seaweed_server.weed, tmp_path_factory.mktemp("own"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


def test_a_store_that_is_killed_during_a_publication_keeps_the_old_version(
    own_server: Seaweed, large_artifact: Path, artifact: Path, tmp_path: Path
) -> None:
    bucket = "bucket"
    location, client = f"s3://{bucket}", own_server.client()
    client.create_bucket(Bucket=bucket)
    publish(artifact, location, client=client)
    killed = threading.Event()

    def choose(request: Request) -> None:
        if "partNumber=2" in request.path and not killed.is_set():
            killed.set()
            own_server.kill()

    with proxied(own_server.url) as proxy:
        proxy.choose = choose
        through = own_server.client(url=proxy.url)
        with pytest.raises(ArtifactError, match="cannot write s3://"):
            publish(large_artifact, location, client=through, transfer=IN_PARTS)
        assert killed.is_set()
        own_server.start()
        assert published_version(location, *KIND, client=client) == artifact.name
        path = fetch(location, *KIND, tmp_path / "cache", client=client)
        assert path.name == artifact.name
        assert publish(large_artifact, location, client=through, transfer=IN_PARTS)["pointer_moved"]
    assert client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    path = fetch(location, *KIND, tmp_path / "cache", client=client)
    assert path.name == large_artifact.name
    verify_published(location, *KIND, artifact.name, client=client)
