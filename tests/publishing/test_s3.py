"""Publishing over HTTP to moto's server.

moto honours conditional writes. It checks neither keys nor checksums: it repeats a checksum that
it was sent. Tests of damaged objects therefore read them back.
"""

import argparse
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, NoCredentialsError

from mess_core.cli import search as cli_search
from mess_core.errors import ArtifactError
from mess_core.index.artifact import CONTENT, FILES, save_artifact
from mess_core.index.index import Index
from mess_core.publishing import s3 as module
from mess_core.publishing.publish import load_published, publish, published_datasets
from mess_core.publishing.s3 import (
    download_artifact_from_s3,
    load_latest_from_s3,
    upload_artifact_to_s3,
)
from tests.publishing.fixtures import IMPATIENT

pytestmark = pytest.mark.integration

PREFIX = "mess/planted/recordings"
#: A pointer read; head, put and head for each file, for the manifest with get instead of head; two
#: to read what was published; the pointer's put.
REQUESTS = 1 + 3 * len(FILES) + 2 + 1
#: Fails at the first error.
ONCE = replace(IMPATIENT, attempts=1)


class Meddler:
    """A client that does something else at some requests."""

    def __init__(self, client: Any, meddle: Callable[[str, int, Callable[[], Any], Any], Any]):
        self._client = client
        self._meddle = meddle
        self.requests: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in ("put_object", "get_object", "head_object"):
            return method

        def call(**kwargs: Any) -> Any:
            self.requests.append(name)
            return self._meddle(name, len(self.requests), lambda: method(**kwargs), kwargs)

        return call


def _latest(client: Any, bucket: str, cache: Path) -> str:
    """Return the version that a reader with an empty cache gets whole."""
    load_latest_from_s3(bucket, PREFIX, cache, client=client)
    answer = client.get_object(Bucket=bucket, Key=f"{PREFIX}/latest.json")["Body"].read()
    return str(json.loads(answer)["artifact_version_id"])


def _objects(client: Any, bucket: str) -> dict[str, str]:
    found = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {entry["Key"]: entry["ETag"] for entry in found}


def test_published_is_found_verified_and_equal(
    s3: tuple[Any, str], artifact: Path, tmp_path: Path
) -> None:
    client, bucket = s3
    receipt = upload_artifact_to_s3(artifact, bucket, PREFIX, client=client)
    assert receipt["artifact_version_id"] == artifact.name
    assert receipt["pointer_moved"]
    keys = {f"{PREFIX}/{artifact.name}/{name}" for name in FILES} | {f"{PREFIX}/latest.json"}
    assert set(_objects(client, bucket)) == keys
    path = download_artifact_from_s3(bucket, PREFIX, artifact.name, tmp_path / "c", client=client)
    assert {p.name: p.read_bytes() for p in path.iterdir()} == {
        p.name: p.read_bytes() for p in artifact.iterdir()
    }


def test_every_put_is_conditional_and_carries_its_checksum_and_the_pointer_comes_last(
    s3: tuple[Any, str], artifact: Path
) -> None:
    client, bucket = s3
    puts: list[dict[str, Any]] = []

    def record(name: str, _: int, proceed: Callable[[], Any], kwargs: Any) -> Any:
        if name == "put_object":
            puts.append(kwargs)
        return proceed()

    upload_artifact_to_s3(artifact, bucket, PREFIX, client=Meddler(client, record))
    assert all(put["IfNoneMatch"] == "*" for put in puts)
    assert all(len(put["ChecksumSHA256"]) == 44 for put in puts)
    assert [put["Key"].rsplit("/")[-1] for put in puts] == [*FILES, "latest.json"]
    assert FILES[-1] == "manifest.json"


def test_publishing_again_writes_nothing(s3: tuple[Any, str], artifact: Path) -> None:
    client, bucket = s3
    upload_artifact_to_s3(artifact, bucket, PREFIX, client=client)
    before = _objects(client, bucket)
    assert not upload_artifact_to_s3(artifact, bucket, PREFIX, client=client)["pointer_moved"]
    assert _objects(client, bucket) == before


def test_a_damaged_pointer_is_replaced_by_publishing_again(
    s3: tuple[Any, str], artifact: Path, tmp_path: Path
) -> None:
    client, bucket = s3
    client.put_object(Bucket=bucket, Key=f"{PREFIX}/latest.json", Body=b"{")
    with pytest.raises(ArtifactError, match=r"latest\.json .*publish again"):
        load_latest_from_s3(bucket, PREFIX, tmp_path / "cache", client=client)
    upload_artifact_to_s3(artifact, bucket, PREFIX, client=client)
    assert _latest(client, bucket, tmp_path / "cache") == artifact.name


def test_a_new_version_becomes_the_latest_and_the_old_one_stays(
    s3: tuple[Any, str], artifact: Path, other_artifact: Path, tmp_path: Path
) -> None:
    client, bucket = s3
    for path in (artifact, other_artifact, artifact):
        upload_artifact_to_s3(path, bucket, PREFIX, client=client)
        assert _latest(client, bucket, tmp_path / "cache") == path.name
    assert len(_objects(client, bucket)) == 2 * len(FILES) + 1


def test_the_same_content_built_elsewhere_keeps_the_manifest_that_was_published(
    s3: tuple[Any, str],
    artifact: Path,
    index: Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, bucket = s3
    upload_artifact_to_s3(artifact, bucket, PREFIX, client=client)
    before = _objects(client, bucket)
    monkeypatch.setattr("faiss.__version__", "99")
    elsewhere = save_artifact(index, tmp_path / "elsewhere")
    upload_artifact_to_s3(elsewhere, bucket, PREFIX, client=client)
    assert _objects(client, bucket) == before


@pytest.mark.parametrize(
    ("first", "arrives"),
    [(True, False), (False, False), (False, True)],
    ids=["first version, request lost", "next version, request lost", "answer lost"],
)
@pytest.mark.parametrize("failing", range(1, REQUESTS + 1))
def test_a_failure_at_any_request_leaves_a_complete_version_and_running_again_completes(
    failing: int,
    arrives: bool,
    first: bool,
    s3: tuple[Any, str],
    artifact: Path,
    other_artifact: Path,
    tmp_path: Path,
) -> None:
    client, bucket = s3
    if not first:
        upload_artifact_to_s3(artifact, bucket, PREFIX, client=client)

    def fail(_: str, n: int, proceed: Callable[[], Any], __: Any) -> Any:
        if n == failing and arrives:
            with suppress(ClientError):  # What is looked for is not there yet.
                proceed()
        if n == failing:
            raise ConnectionClosedError(endpoint_url="http://store")
        return proceed()

    meddler = Meddler(client, fail)
    with pytest.raises(ArtifactError, match="check the endpoint and try again"):
        upload_artifact_to_s3(other_artifact, bucket, PREFIX, client=meddler, transfer=ONCE)
    assert len(meddler.requests) == failing
    if first:
        with pytest.raises(ArtifactError, match="nothing was published there"):
            _latest(client, bucket, tmp_path / "cache")
    else:
        expected = other_artifact if failing == REQUESTS and arrives else artifact
        assert _latest(client, bucket, tmp_path / "cache") == expected.name
    upload_artifact_to_s3(other_artifact, bucket, PREFIX, client=client)
    assert _latest(client, bucket, tmp_path / "cache") == other_artifact.name


def test_the_number_of_requests_is_as_the_failures_above_assume(
    s3: tuple[Any, str], artifact: Path
) -> None:
    client, bucket = s3
    meddler = Meddler(client, lambda _, __, proceed, ___: proceed())
    upload_artifact_to_s3(artifact, bucket, PREFIX, client=meddler)
    assert len(meddler.requests) == REQUESTS


@pytest.mark.parametrize("first", [True, False], ids=["first version", "next version"])
def test_a_lost_swap_is_told_and_does_not_overwrite_the_winner(
    first: bool,
    s3: tuple[Any, str],
    artifact: Path,
    other_artifact: Path,
    index: Index,
    tmp_path: Path,
) -> None:
    client, bucket = s3
    if not first:
        third = replace(index, facts={**index.facts, "licence": "other"})
        upload_artifact_to_s3(
            save_artifact(third, tmp_path / "third"), bucket, PREFIX, client=client
        )

    def overtake(_: str, n: int, proceed: Callable[[], Any], __: Any) -> Any:
        if n == REQUESTS:
            upload_artifact_to_s3(other_artifact, bucket, PREFIX, client=client)
        return proceed()

    with pytest.raises(
        ArtifactError, match=f"another publisher .* to version {other_artifact.name}"
    ):
        upload_artifact_to_s3(artifact, bucket, PREFIX, client=Meddler(client, overtake))
    assert _latest(client, bucket, tmp_path / "cache") == other_artifact.name
    download_artifact_from_s3(bucket, PREFIX, artifact.name, tmp_path / "cache", client=client)


@pytest.mark.parametrize("status", [404, 409, 412])
def test_stores_that_answer_a_lost_swap_otherwise_are_understood(
    status: int, s3: tuple[Any, str], artifact: Path, other_artifact: Path
) -> None:
    client, bucket = s3

    def lose(_: str, n: int, proceed: Callable[[], Any], __: Any) -> Any:
        if n == REQUESTS:
            upload_artifact_to_s3(other_artifact, bucket, PREFIX, client=client)
            answer: Any = {
                "Error": {"Code": "Lost"},
                "ResponseMetadata": {"HTTPStatusCode": status},
            }
            raise ClientError(answer, "PutObject")
        return proceed()

    with pytest.raises(ArtifactError, match=f"moved .* to version {other_artifact.name}"):
        upload_artifact_to_s3(artifact, bucket, PREFIX, client=Meddler(client, lose))


def test_a_store_that_never_lets_the_pointer_move_is_given_up(
    s3: tuple[Any, str], artifact: Path
) -> None:
    client, bucket = s3

    def lose(_: str, __: int, proceed: Callable[[], Any], kwargs: Any) -> Any:
        if kwargs["Key"].endswith("latest.json") and "Body" in kwargs:
            answer: Any = {"Error": {}, "ResponseMetadata": {"HTTPStatusCode": 409}}
            raise ClientError(answer, "PutObject")
        return proceed()

    with pytest.raises(ArtifactError, match="5 times it had changed meanwhile"):
        upload_artifact_to_s3(artifact, bucket, PREFIX, client=Meddler(client, lose))


def test_a_swap_that_was_won_but_is_sent_twice_succeeds(
    s3: tuple[Any, str], artifact: Path, tmp_path: Path
) -> None:
    client, bucket = s3

    def twice(_: str, n: int, proceed: Callable[[], Any], __: Any) -> Any:
        if n == REQUESTS:
            proceed()
        return proceed()

    receipt = upload_artifact_to_s3(artifact, bucket, PREFIX, client=Meddler(client, twice))
    assert receipt["pointer_moved"]
    assert _latest(client, bucket, tmp_path / "cache") == artifact.name


def test_an_object_that_exists_with_other_content_is_never_overwritten(
    s3: tuple[Any, str], artifact: Path
) -> None:
    client, bucket = s3
    for name in FILES:
        key = f"{PREFIX}/{artifact.name}/{name}"
        client.put_object(Bucket=bucket, Key=key, Body=b"mine")
        with pytest.raises(ArtifactError, match=name):
            upload_artifact_to_s3(artifact, bucket, PREFIX, client=client)
        assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"mine"
        client.delete_object(Bucket=bucket, Key=key)
    assert f"{PREFIX}/latest.json" not in _objects(client, bucket)


@pytest.mark.parametrize("has_checksums", [True, False])
def test_an_object_damaged_on_its_way_keeps_the_pointer_where_it_is(
    has_checksums: bool, s3: tuple[Any, str], artifact: Path
) -> None:
    client, bucket = s3

    def damage(name: str, _: int, proceed: Callable[[], Any], kwargs: Any) -> Any:
        if name == "put_object" and kwargs["Key"].endswith(CONTENT[1]):
            body = kwargs["Body"].read()
            kwargs |= {"Body": body[:-1] + b" "}
            if has_checksums:
                del kwargs["ChecksumSHA256"]
        answer = proceed()
        if name == "head_object" and not has_checksums:
            answer.pop("ChecksumSHA256", None)
        return answer

    with pytest.raises(ArtifactError, match=rf"{CONTENT[1]} holds something else than the"):
        upload_artifact_to_s3(artifact, bucket, PREFIX, client=Meddler(client, damage))
    assert f"{PREFIX}/latest.json" not in _objects(client, bucket)


def test_a_store_that_keeps_no_checksums_is_read_back(
    s3: tuple[Any, str], artifact: Path, tmp_path: Path
) -> None:
    client, bucket = s3

    def forget(name: str, _: int, proceed: Callable[[], Any], __: Any) -> Any:
        answer = proceed()
        if name == "head_object":
            answer.pop("ChecksumSHA256", None)
        return answer

    meddler = Meddler(client, forget)
    upload_artifact_to_s3(artifact, bucket, PREFIX, client=meddler)
    assert len(meddler.requests) == REQUESTS + len(FILES) - 1
    assert _latest(client, bucket, tmp_path / "cache") == artifact.name


@pytest.mark.parametrize("name", FILES)
def test_what_is_damaged_in_the_store_is_not_loaded_and_leaves_nothing(
    name: str, s3: tuple[Any, str], artifact: Path, tmp_path: Path
) -> None:
    client, bucket = s3
    upload_artifact_to_s3(artifact, bucket, PREFIX, client=client)
    content = (artifact / name).read_bytes()
    key = f"{PREFIX}/{artifact.name}/{name}"
    cache = tmp_path / "cache"
    for damaged in (content[:-1], content + b"x", b"!" + content[1:]):
        client.put_object(Bucket=bucket, Key=key, Body=damaged)
        with pytest.raises(ArtifactError, match=name):
            load_latest_from_s3(bucket, PREFIX, cache, client=client)
        assert not [path for path in cache.iterdir() if path.name[0] != "."]
    client.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(ArtifactError, match=f"{name} does not exist"):
        load_latest_from_s3(bucket, PREFIX, cache, client=client, transfer=IMPATIENT)
    client.put_object(Bucket=bucket, Key=key, Body=content)
    assert _latest(client, bucket, cache) == artifact.name


def test_a_large_object_in_place_of_a_small_one_is_not_taken_in(
    s3: tuple[Any, str], artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, bucket = s3
    upload_artifact_to_s3(artifact, bucket, PREFIX, client=client)
    monkeypatch.setattr(module, "LARGEST_JSON_BYTES", 1000)
    key = f"{PREFIX}/{artifact.name}/manifest.json"
    client.put_object(Bucket=bucket, Key=key, Body=b" " * 2000)
    with pytest.raises(ArtifactError, match=r"manifest\.json has 2000 bytes, .*most 1000"):
        load_latest_from_s3(bucket, PREFIX, tmp_path / "cache", client=client)
    client.put_object(Bucket=bucket, Key=f"{PREFIX}/latest.json", Body=b" " * 2000)
    with pytest.raises(ArtifactError, match=r"latest\.json has 2000 bytes, .*most 1000"):
        load_latest_from_s3(bucket, PREFIX, tmp_path / "cache", client=client)


@pytest.mark.parametrize("version_id", ["", "../../etc", "0" * 63, "G" * 64])
def test_a_version_id_that_is_none_never_becomes_a_path(
    version_id: str, s3: tuple[Any, str], tmp_path: Path
) -> None:
    client, bucket = s3
    with pytest.raises(ArtifactError, match="64 hexadecimal digits"):
        download_artifact_from_s3(bucket, PREFIX, version_id, tmp_path / "cache", client=client)


def test_missing_things_are_told_apart(s3: tuple[Any, str], artifact: Path, tmp_path: Path) -> None:
    client, bucket = s3
    with pytest.raises(ArtifactError, match=f"no version {artifact.name}"):
        download_artifact_from_s3(bucket, PREFIX, artifact.name, tmp_path, client=client)
    with pytest.raises(ArtifactError, match="nothing was published there"):
        load_latest_from_s3(bucket, PREFIX, tmp_path, client=client)
    with pytest.raises(ArtifactError, match="create the bucket, or correct its name"):
        upload_artifact_to_s3(artifact, "no-such-bucket", PREFIX, client=client)
    with pytest.raises(ArtifactError, match="create the bucket, or correct its name"):
        published_datasets("s3://no-such-bucket/x", client=client)


def test_missing_credentials_and_a_store_that_is_not_there_are_told(artifact: Path) -> None:
    nowhere = boto3.client(
        "s3",
        endpoint_url="http://127.0.0.1:1",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"max_attempts": 0}),
    )
    with pytest.raises(ArtifactError, match="check the endpoint"):
        upload_artifact_to_s3(artifact, "bucket", PREFIX, client=nowhere, transfer=IMPATIENT)

    def nobody(*_: Any) -> Any:
        raise NoCredentialsError

    with pytest.raises(ArtifactError, match="AWS_ACCESS_KEY_ID"):
        upload_artifact_to_s3(artifact, "bucket", PREFIX, client=Meddler(nowhere, nobody))


@pytest.mark.parametrize("prefix", ["", "/mess", "/a/b/"], ids=["none", "one", "two"])
def test_a_location_in_s3_is_published_to_and_searched_by_its_name_alone(
    prefix: str,
    s3: tuple[Any, str],
    artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client, bucket = s3
    location = f"s3://{bucket}{prefix}"
    publish(artifact, location)
    assert not any(key.startswith("/") or "//" in key for key in _objects(client, bucket))
    assert published_datasets(location) == ["planted"]
    index = load_published(location, "planted", "recordings", cache_dir=tmp_path / "c")
    assert len(index.rows) == 6
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    parser = argparse.ArgumentParser()
    cli_search.add_parser(parser.add_subparsers())
    args = ["search", "--recording", "r1", "--json", "--artifacts", location, "-k", "2"]
    assert cli_search.run(parser.parse_args(args)) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert (tmp_path / "home/mess/artifacts" / artifact.name / "manifest.json").exists()
