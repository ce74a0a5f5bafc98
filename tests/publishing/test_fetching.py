"""Fetching into a shared cache, from a folder and through a proxy that misbehaves."""

import io
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.response import StreamingBody

from mess_core.errors import ArtifactError, StorageError
from mess_core.index.artifact import CONTENT, FILES, load_artifact, verify_artifact
from mess_core.publishing.fetch import fetch_latest, fetch_version
from mess_core.publishing.publish import fetch, open_store, publish, published_version
from mess_core.publishing.s3 import S3Store
from mess_core.publishing.stores import FolderStore
from mess_core.publishing.transfer import Transfer
from mess_core.publishing.versions import CHECKSUMS, MANIFEST, read_pointer
from tests.publishing.fixtures import IMPATIENT, IN_PARTS
from tests.publishing.proxy import Fault, Proxy, Request, refusal

Save = Callable[[int], list[Path]]

KIND = ("planted", "recordings")
#: The largest of the files that hold the content.
LARGE = CONTENT[0]


class Counting(FolderStore):
    """A folder that keeps count of the bytes that were read of each file."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        object.__setattr__(self, "sent", Counter())

    sent: Counter[str]
    __slots__ = ("sent",)

    def stream(self, name: str, start: int = 0) -> Any:
        for chunk in super().stream(name, start):
            self.sent[name.rpartition("/")[2]] += len(chunk)
            yield chunk


@pytest.fixture
def location(tmp_path: Path) -> str:
    return str(tmp_path / "published")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _whole(cache: Path) -> list[str]:
    """Return the versions in a cache, having verified each."""
    names = sorted(path.name for path in cache.iterdir() if path.name[0] != ".")
    for name in names:
        verify_artifact(cache / name, version_id=name)
    return names


def _counting(location: str) -> Counting:
    return Counting(Path(location, *KIND))


@pytest.mark.unit
def test_a_fetched_version_is_whole_and_loads(
    location: str, cache: Path, artifact: Path, other_artifact: Path
) -> None:
    publish(artifact, location)
    path = fetch(location, *KIND, cache)
    assert path == cache / artifact.name
    assert load_artifact(path).facts["dataset"] == "planted"
    publish(other_artifact, location)
    assert published_version(location, *KIND) == other_artifact.name
    assert fetch(location, *KIND, cache) == cache / other_artifact.name
    assert fetch(location, *KIND, cache, version_id=artifact.name) == path
    assert _whole(cache) == sorted([artifact.name, other_artifact.name])


@pytest.mark.unit
def test_what_is_in_the_cache_is_not_read_again(location: str, cache: Path, artifact: Path) -> None:
    publish(artifact, location)
    store = _counting(location)
    fetch_latest(store, cache, IMPATIENT)
    assert store.sent == {name: (artifact / name).stat().st_size for name in CONTENT}
    fetch_latest(store, cache, IMPATIENT)
    assert store.sent.total() == sum((artifact / name).stat().st_size for name in CONTENT)


@pytest.mark.unit
@pytest.mark.parametrize("name", FILES)
def test_only_the_damaged_file_of_a_cached_version_is_read_again(
    name: str, location: str, cache: Path, artifact: Path
) -> None:
    publish(artifact, location)
    path = fetch(location, *KIND, cache) / name
    content = path.read_bytes()
    for damaged in (content[:-1] + b"!", content + b"!", b""):
        path.write_bytes(damaged)
        store = _counting(location)
        fetch_latest(store, cache, IMPATIENT)
        assert path.read_bytes() == content
        assert set(store.sent) == {name} & set(CONTENT)
    (path.parent / "something else").mkdir()
    path.unlink()
    path.symlink_to(artifact / name)
    fetch(location, *KIND, cache)
    assert _whole(cache) == [artifact.name]


@pytest.mark.unit
def test_equal_files_of_other_cached_versions_are_copied(
    location: str, cache: Path, versions_of: Save
) -> None:
    old, new = versions_of(2)
    shared = {n for n in CONTENT if (old / n).read_bytes() == (new / n).read_bytes()}
    assert LARGE in shared
    publish(old, location)
    fetch(location, *KIND, cache)
    publish(new, location)
    store = _counting(location)
    path = fetch_latest(store, cache, IMPATIENT)
    assert set(store.sent) == set(CONTENT) - shared
    assert not (path / LARGE).samefile(cache / old.name / LARGE)
    # A copy of what is damaged there is noticed.
    shutil.rmtree(path)
    (cache / old.name / LARGE).write_bytes(b"damaged")
    fetch_latest(store, cache, IMPATIENT)
    assert LARGE in store.sent
    verify_artifact(path)


@pytest.mark.unit
def test_a_fetch_that_was_interrupted_goes_on_where_it_stopped(
    location: str, cache: Path, artifact: Path
) -> None:
    publish(artifact, location)
    store = _counting(location)
    part = cache / f".{artifact.name}.part"
    part.mkdir(parents=True)
    content = (artifact / LARGE).read_bytes()
    (part / LARGE).write_bytes(content[:100])
    (part / "of another schema").write_bytes(b"x")
    fetch_latest(store, cache, IMPATIENT)
    assert store.sent[LARGE] == len(content) - 100
    assert _whole(cache) == [artifact.name]
    assert not part.exists()


@pytest.mark.unit
def test_files_that_agree_with_each_other_but_not_with_the_version_are_refused(
    location: str, cache: Path, artifact: Path, other_artifact: Path
) -> None:
    publish(artifact, location)
    for name in (*CONTENT, CHECKSUMS):
        shutil.copyfile(other_artifact / name, Path(location, *KIND, artifact.name, name))
    with pytest.raises(ArtifactError, match=f"is {other_artifact.name}, expected {artifact.name}"):
        fetch(location, *KIND, cache)
    assert _whole(cache) == []
    assert list((cache / f".{artifact.name}.part").iterdir()) == []


@pytest.mark.unit
@pytest.mark.parametrize("left", [b"!" * 100, b"!" * 100_000])
def test_what_is_no_beginning_of_a_file_is_thrown_away(
    left: bytes, location: str, cache: Path, artifact: Path
) -> None:
    publish(artifact, location)
    part = cache / f".{artifact.name}.part"
    part.mkdir(parents=True)
    (part / LARGE).write_bytes(left)
    fetch(location, *KIND, cache)
    assert _whole(cache) == [artifact.name]


@pytest.mark.unit
def test_a_cache_that_cannot_be_written_is_told(location: str, cache: Path, artifact: Path) -> None:
    publish(artifact, location)
    cache.write_text("a file")
    with pytest.raises(StorageError, match="a file is where a folder is needed"):
        fetch(location, *KIND, cache)


@pytest.mark.unit
@pytest.mark.parametrize("name", ["../other", "", ".hidden", "a/b"])
def test_names_that_leave_the_location_are_refused(name: str, location: str, cache: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a name of letters"):
        fetch(location, name, "clips", cache)


@pytest.mark.unit
def test_what_cannot_be_read_in_a_folder_is_told(
    location: str, cache: Path, artifact: Path
) -> None:
    publish(artifact, location)
    pointer = Path(location, *KIND, "latest.json")
    pointer.unlink()
    pointer.mkdir()
    with pytest.raises(ArtifactError, match=r"cannot read .*latest\.json: Is a directory"):
        fetch(location, *KIND, cache)


def _client(url: str, **config: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"total_max_attempts": 1}, **config),
    )


def _is_read(request: Request, name: str) -> bool:
    return request.method == "GET" and request.path.endswith(f"/{name}")


@pytest.mark.integration
def test_a_dropped_connection_goes_on_by_range(
    s3: tuple[Any, str], proxy: Proxy, artifact: Path, cache: Path
) -> None:
    client, bucket = s3
    publish(artifact, f"s3://{bucket}/x", client=client)
    cuts = iter([0.9, 0.95])

    def choose(request: Request) -> Fault | None:
        where = next(cuts, None) if _is_read(request, LARGE) else None
        return Fault("cut", where) if where else None

    proxy.choose = choose
    path = fetch(f"s3://{bucket}/x", *KIND, cache, client=_client(proxy.url), transfer=IMPATIENT)
    verify_artifact(path)
    ranges = [r.header("range") for r in proxy.requests if _is_read(r, LARGE)]
    assert len(ranges) == 3
    starts = [int(r.removeprefix("bytes=").removesuffix("-") or 0) for r in ranges]
    assert starts[0] == 0 < starts[1] < starts[2]


@pytest.mark.integration
def test_a_process_that_was_killed_while_fetching_leaves_a_part_to_go_on_from(
    s3: tuple[Any, str], proxy: Proxy, artifact: Path, cache: Path
) -> None:
    client, bucket = s3
    publish(artifact, f"s3://{bucket}/x", client=client)
    code = (
        "import sys; from pathlib import Path; from mess_core.publishing.publish import fetch;"
        "print(fetch(sys.argv[1], 'planted', 'recordings', Path(sys.argv[2])).name)"
    )
    command = [sys.executable, "-c", code, f"s3://{bucket}/x", str(cache)]
    environment = {**os.environ, "AWS_ENDPOINT_URL_S3": proxy.url}
    # All but the end of the file arrives, and nothing more until the process is killed.
    arrived, ended = threading.Event(), threading.Event()

    def choose(request: Request) -> Fault | None:
        if _is_read(request, CONTENT[1]):
            arrived.set()
            ended.wait(60)
            return Fault("drop")
        return None

    proxy.choose = choose
    with subprocess.Popen(command, env=environment) as process:
        assert arrived.wait(60)
        process.kill()
    ended.set()
    assert _whole(cache) == []
    assert (cache / f".{artifact.name}.part" / LARGE).stat().st_size > 0
    proxy.reset()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == artifact.name
    assert _whole(cache) == [artifact.name]
    assert not [r for r in proxy.requests if _is_read(r, LARGE)]


@pytest.mark.integration
def test_several_that_fetch_the_same_version_share_the_work(
    s3: tuple[Any, str], proxy: Proxy, artifact: Path, cache: Path
) -> None:
    client, bucket = s3
    publish(artifact, f"s3://{bucket}/x", client=client)
    through = _client(proxy.url)
    proxy.choose = lambda request: Fault("drip") if _is_read(request, LARGE) else None

    def get(_: int) -> Path:
        return fetch(f"s3://{bucket}/x", *KIND, cache, client=through)

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(get, range(6))) == {cache / artifact.name}
    read = Counter(r.path.rpartition("/")[2] for r in proxy.requests)
    assert read == {"latest.json": 6, **dict.fromkeys(FILES, 1)}


@pytest.mark.integration
def test_a_version_that_is_pruned_while_it_is_fetched_gives_way_to_the_latest(
    s3: tuple[Any, str], proxy: Proxy, artifact: Path, other_artifact: Path, cache: Path
) -> None:
    client, bucket = s3
    location = f"s3://{bucket}/x"
    publish(artifact, location, client=client)

    def choose(request: Request) -> None:
        if _is_read(request, LARGE) and artifact.name in request.path:
            publish(other_artifact, location, client=client)
            for name in (MANIFEST, LARGE):  # As pruning does.
                key = "/".join(["x", *KIND, artifact.name, name])
                client.delete_object(Bucket=bucket, Key=key)

    proxy.choose = choose
    path = fetch(location, *KIND, cache, client=_client(proxy.url), transfer=IMPATIENT)
    verify_artifact(path)
    assert path.name == other_artifact.name


@pytest.mark.integration
def test_a_store_that_knows_no_ranges_is_understood(s3: tuple[Any, str], artifact: Path) -> None:
    client, bucket = s3
    key = f"x/{LARGE}"
    content = (artifact / LARGE).read_bytes()
    client.put_object(Bucket=bucket, Key=key, Body=content)

    class Rangeless:
        def get_object(self, **request: Any) -> Any:
            request.pop("Range", None)
            return client.get_object(**request)

    store = S3Store(bucket, "x", client=Rangeless())
    for start in (0, 1, 100, len(content)):
        assert b"".join(store.stream(LARGE, start)) == content[start:]
    assert b"".join(S3Store(bucket, "x", client=client).stream(LARGE, len(content))) == b""


@pytest.mark.integration
def test_an_answer_without_its_length_is_asked_for_again(
    s3: tuple[Any, str], artifact: Path
) -> None:
    client, bucket = s3
    content = (artifact / LARGE).read_bytes()
    client.put_object(Bucket=bucket, Key=LARGE, Body=content)
    answers = []

    class Cutting:
        def get_object(self, **request: Any) -> Any:
            answers.append(client.get_object(**request))
            if len(answers) == 1:
                # As when the connection drops within the head.
                answers[0].pop("ContentLength")
                answers[0].pop("Body").close()
                answers[0]["Body"] = StreamingBody(io.BytesIO(), None)
            return answers[-1]

    store = S3Store(bucket, "", client=Cutting(), transfer=IMPATIENT)
    assert b"".join(store.stream(LARGE)) == content
    answers.clear()
    assert (store.read(LARGE) or (b"", ""))[0] == content
    assert len(answers) == 2


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["garbled", "short"])
def test_what_always_arrives_damaged_is_told_and_leaves_no_trace(
    kind: str, s3: tuple[Any, str], proxy: Proxy, artifact: Path, cache: Path
) -> None:
    client, bucket = s3
    location = f"s3://{bucket}/x"
    publish(artifact, location, client=client)
    through = _client(proxy.url)
    proxy.choose = lambda request: Fault(kind) if _is_read(request, LARGE) else None
    with pytest.raises(ArtifactError, match=f"{LARGE} came 3 times other than"):
        fetch(location, *KIND, cache, client=through, transfer=IMPATIENT)
    assert _whole(cache) == []
    proxy.reset()
    fetch(location, *KIND, cache, client=through, transfer=IMPATIENT)
    assert _whole(cache) == [artifact.name]


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["500", "503", "drop", "cut", "short", "garbled"])
def test_a_pointer_or_manifest_that_fails_twice_is_read_again(
    kind: str, s3: tuple[Any, str], proxy: Proxy, artifact: Path, cache: Path
) -> None:
    client, bucket = s3
    location = f"s3://{bucket}/x"
    publish(artifact, location, client=client)
    seen: Counter[str] = Counter()

    def choose(request: Request) -> Fault | None:
        name = request.path.rpartition("/")[2]
        seen[name] += 1
        small = name in ("latest.json", MANIFEST, CHECKSUMS)
        return Fault(kind, 0.3) if small and seen[name] <= 2 and kind != "short" else None

    proxy.choose = choose
    fetch(location, *KIND, cache, client=_client(proxy.url), transfer=IMPATIENT)
    assert _whole(cache) == [artifact.name]


@pytest.mark.integration
def test_a_pointer_that_is_cut_anywhere_is_read_again(
    s3: tuple[Any, str], proxy: Proxy, artifact: Path
) -> None:
    client, bucket = s3
    publish(artifact, f"s3://{bucket}/x", client=client)
    store = open_store(f"s3://{bucket}/x", *KIND, client=_client(proxy.url), transfer=IMPATIENT)
    pieces = 200
    for piece in range(pieces):
        faults = iter([Fault("cut", piece / pieces)])
        proxy.choose = partial(_next, faults)
        assert read_pointer(store).artifact_version_id == artifact.name
        assert next(faults, None) is None


def _next(faults: Iterator[Fault], _: Request) -> Fault | None:
    return next(faults, None)


@pytest.mark.integration
def test_a_busy_store_is_asked_again_after_growing_pauses_and_given_up_at_last(
    s3: tuple[Any, str], proxy: Proxy, artifact: Path, cache: Path
) -> None:
    client, bucket = s3
    pauses: list[float] = []
    transfer = Transfer(attempts=4, first_pause_s=1.0, sleep=pauses.append)
    proxy.choose = lambda _: Fault("503")
    with pytest.raises(ArtifactError, match=r"SlowDown.*; the store is overloaded; try again"):
        fetch(f"s3://{bucket}/x", *KIND, cache, client=_client(proxy.url), transfer=transfer)
    assert len(proxy.requests) == 4
    assert [pause <= limit for pause, limit in zip(pauses, (1, 2, 4), strict=True)] == [True] * 3
    assert client.meta.endpoint_url != proxy.url
    assert artifact.exists()


@pytest.mark.integration
def test_a_store_that_does_not_answer_is_given_up(
    s3: tuple[Any, str], proxy: Proxy, cache: Path
) -> None:
    ended = threading.Event()

    def choose(_: Request) -> Fault:
        ended.wait(60)
        return Fault("drop")

    proxy.choose = choose
    through = _client(proxy.url, read_timeout=0.05)
    with pytest.raises(ArtifactError, match=r"Read timeout .*; check the endpoint"):
        fetch(
            f"s3://{s3[1]}/x", *KIND, cache, client=through, transfer=replace(IMPATIENT, attempts=2)
        )
    ended.set()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "AccessDenied", "the key may not do this"),
        (403, "RequestTimeTooSkewed", "set the clock"),
        (403, "InvalidAccessKeyId", "does not know this access key"),
        (403, "SignatureDoesNotMatch", "the secret key is wrong"),
        (400, "ExpiredToken", "sign in again"),
        (400, "AuthorizationHeaderMalformed", "the bucket's region"),
        (404, "NoSuchBucket", "create the bucket"),
        (418, "Teapot", "ask the store's operator"),
    ],
)
def test_refusals_say_what_to_do_and_are_not_repeated(
    status: int,
    code: str,
    hint: str,
    s3: tuple[Any, str],
    proxy: Proxy,
    artifact: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proxy, "forward", lambda _: refusal(status, code))
    through, location = _client(proxy.url), f"s3://{s3[1]}/x"
    for attempt in (
        lambda: fetch(location, *KIND, cache, client=through, transfer=IMPATIENT),
        lambda: publish(artifact, location, client=through, transfer=IMPATIENT),
    ):
        proxy.requests.clear()
        with pytest.raises(ArtifactError, match=rf"s3://.*latest\.json: .*{code}.*{hint}"):
            attempt()
        assert len(proxy.requests) == 1


@pytest.mark.integration
def test_an_environment_of_which_no_client_can_be_made_is_told(
    s3: tuple[Any, str], cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    location = f"s3://{s3[1]}/x"
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL_S3", "no url")
        with pytest.raises(ArtifactError, match="check AWS_ENDPOINT_URL_S3"):
            fetch(location, *KIND, cache)
    with monkeypatch.context() as patched:
        patched.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(ArtifactError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
            fetch(location, *KIND, cache)
    with monkeypatch.context() as patched:
        patched.setenv("AWS_PROFILE", "nobody")
        patched.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        with pytest.raises(ArtifactError, match=r"profile \(nobody\) could not be found"):
            fetch(location, *KIND, cache)
    with monkeypatch.context() as patched:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patched.delenv(name)
        patched.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patched.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        with pytest.raises(ArtifactError, match="Unable to locate credentials"):
            fetch(location, *KIND, cache)


@pytest.mark.integration
@pytest.mark.usefixtures("small_parts")
def test_large_files_go_in_parts_that_the_store_keeps_one_object_of(
    s3: tuple[Any, str], artifact: Path, cache: Path
) -> None:
    client, bucket = s3
    location = f"s3://{bucket}/x"
    publish(artifact, location, client=client, transfer=IN_PARTS)
    head = client.head_object(Bucket=bucket, Key="/".join(["x", *KIND, artifact.name, LARGE]))
    assert head["ETag"].strip('"').partition("-")[2] == str(
        -(-(artifact / LARGE).stat().st_size // 200)
    )
    assert not publish(artifact, location, client=client, transfer=IMPATIENT)["pointer_moved"]
    verify_artifact(fetch(location, *KIND, cache, client=client))
    store = S3Store(bucket, "/".join(["x", *KIND]), client=client)
    assert fetch_version(store, artifact.name, cache, IMPATIENT) == cache / artifact.name


@pytest.mark.integration
@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("kind", ["drop", "lost answer"])
def test_an_upload_in_parts_that_fails_is_aborted_or_tidied_away(
    kind: str, s3: tuple[Any, str], proxy: Proxy, artifact: Path
) -> None:
    client, bucket = s3
    location, through = f"s3://{bucket}/x", _client(proxy.url)

    def unfinished() -> list[Any]:
        found: list[Any] = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return found

    # The second part never arrives: the upload is aborted.
    proxy.choose = lambda r: Fault(kind) if "partNumber=2" in r.path else None
    with pytest.raises(ArtifactError, match="cannot write"):
        publish(artifact, location, client=through, transfer=IN_PARTS)
    assert unfinished() == []
    # A process that was killed aborts nothing: what it began stays until the version is whole.
    proxy.reset()
    client.create_multipart_upload(Bucket=bucket, Key="/".join(["x", *KIND, artifact.name, LARGE]))
    assert len(unfinished()) == 1
    publish(artifact, location, client=through, transfer=IN_PARTS)
    assert unfinished() == []
