"""Random faults between client and store, races and killed processes.

Whatever happens: at every moment the pointer names a complete version, what was published stays, a
cache holds whole versions only, and once the faults are over everything completes.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mess_core.errors import ArtifactError
from mess_core.index.artifact import CONTENT, FILES, verify_artifact
from mess_core.publishing import stores
from mess_core.publishing.fetch import fetch
from mess_core.publishing.publish import POINTER, publish, published_version, verify_published
from tests.publishing.proxy import Fault, Proxy, Request, Schedule, proxied
from tests.publishing.seaweed import Seaweed

pytestmark = pytest.mark.integration

Save = Callable[[int], list[Path]]
S3 = tuple[Any, str]
Objects = Callable[[], dict[str, bytes]]

KIND = ("planted", "recordings")
#: Schedules in all and per test, so that a failure names some seeds.
SCHEDULES, BATCH = 40, 10


def objects_of(client: Any, bucket: str, prefix: str) -> Objects:
    """Give a function that returns all objects below a prefix."""

    def objects() -> dict[str, bytes]:
        listed = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/").get("Contents", [])
        return {
            entry["Key"].removeprefix(f"{prefix}/"): client.get_object(
                Bucket=bucket, Key=entry["Key"]
            )["Body"].read()
            for entry in listed
        }

    return objects


def check_published(objects: dict[str, bytes], known: dict[str, dict[str, bytes]]) -> str | None:
    """Return which version the pointer names, having compared every byte of it."""
    if POINTER not in objects:
        return None
    version_id = str(json.loads(objects[POINTER])["artifact_version_id"])
    found = {name: objects.get(f"{version_id}/{name}") for name in FILES}
    assert found == known[version_id], f"{version_id} is the latest and not complete"
    return version_id


def check_cache(cache: Path) -> None:
    for path in cache.glob("[!.]*"):
        verify_artifact(path, version_id=path.name)


def contents(artifacts: list[Path]) -> dict[str, dict[str, bytes]]:
    return {a.name: {name: (a / name).read_bytes() for name in FILES} for a in artifacts}


def attempt(operation: Callable[[], Any]) -> Any:
    """Run something up to four times, as whoever sees it fail would; None if it always fails."""
    for _ in range(4):
        with suppress(ArtifactError):
            return operation()
    return None


def run_schedule(
    seed: int,
    proxy: Proxy,
    through: Any,
    location: str,
    cache: Path,
    artifacts: list[Path],
    objects: Objects,
) -> str:
    """Publish and fetch under faults, then without; return how it went under faults."""
    known, (old, new) = contents(artifacts), artifacts
    expected = {None if seed % 2 else old.name, new.name}
    proxy.reset()
    if not seed % 2:
        publish(old, location, client=through)

    def changed() -> None:
        assert check_published(objects(), known) in expected

    proxy.changed, proxy.choose = changed, Schedule(seed)
    receipt = attempt(lambda: publish(new, location, client=through))
    if receipt:
        assert check_published(objects(), known) == new.name
    path = attempt(lambda: fetch(location, *KIND, cache, client=through))
    if path:
        verify_artifact(path)
        assert path.name in expected
    check_cache(cache)
    problems = proxy.problems
    proxy.reset()
    assert problems == []
    publish(new, location, client=through)
    assert check_published(objects(), known) == new.name
    assert fetch(location, *KIND, cache, client=through).name == new.name
    check_cache(cache)
    if not seed % 2:
        path = fetch(location, *KIND, cache, version_id=old.name, client=through)
        assert path.name == old.name
    return "published" if receipt else "failed"


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("first", range(0, SCHEDULES, BATCH))
def test_under_random_faults_nothing_is_lost_or_half_visible(
    first: int, s3: S3, proxy: Proxy, seaweed_server: Seaweed, versions_of: Save, tmp_path: Path
) -> None:
    client, bucket = s3
    saved = versions_of(2)
    outcomes = [
        run_schedule(
            seed,
            proxy,
            seaweed_server.client(url=proxy.url, attempts=3),
            f"s3://{bucket}/{seed}",
            tmp_path / f"cache-{seed}",
            saved,
            objects_of(client, bucket, "/".join([str(seed), *KIND])),
        )
        for seed in range(first, first + BATCH)
    ]
    # The faults neither prevent everything nor nothing.
    assert set(outcomes) == {"published", "failed"}


# --- two at once


class Meeting:
    """Holds the writes of the pointer back until so many have arrived."""

    def __init__(self, parties: int) -> None:
        self._barrier = threading.Barrier(parties)

    def __call__(self, request: Request) -> None:
        if request.method == "PUT" and request.path.endswith(POINTER):
            with suppress(threading.BrokenBarrierError):
                self._barrier.wait(30)


@pytest.mark.parametrize("first", [True, False], ids=["first version", "next version"])
def test_of_two_publishers_at_once_one_wins_and_the_other_says_so(
    first: bool,
    s3: S3,
    proxy: Proxy,
    through: Any,
    versions_of: Save,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The store must decide, not the proxy's lock.
    monkeypatch.setattr(proxy, "forward", proxy._forward)
    location = f"s3://{s3[1]}/x"
    earlier, *rivals = versions_of(3)
    if not first:
        publish(earlier, location, client=through)
    proxy.choose = Meeting(2)

    def run(artifact: Path) -> str:
        try:
            return str(publish(artifact, location, client=through)["pointer_moved"])
        except ArtifactError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(run, rivals))
    proxy.reset()
    assert "True" in said
    winner, loser = rivals if said[0] == "True" else rivals[::-1]
    (problem,) = [text for text in said if text != "True"]
    assert f"another publisher moved {location}" in problem
    assert f"to version {winner.name}" in problem
    assert published_version(location, *KIND, client=through) == winner.name
    # The loser is complete, and wins when it is published again.
    verify_published(location, *KIND, loser.name, client=through)
    assert publish(loser, location, client=through)["pointer_moved"]


def test_two_publishers_of_the_same_version_both_succeed(
    s3: S3, proxy: Proxy, through: Any, artifact: Path
) -> None:
    location = f"s3://{s3[1]}/x"
    proxy.choose = Meeting(2)
    with ThreadPoolExecutor(2) as pool:
        receipts = list(pool.map(lambda a: publish(a, location, client=through), [artifact] * 2))
    assert [r["artifact_version_id"] for r in receipts] == [artifact.name] * 2
    assert published_version(location, *KIND, client=through) == artifact.name


# --- killed processes

_COMMANDS = {
    "publish": "from mess_core.publishing.publish import publish; publish(Path(b), a)",
    "fetch": "from mess_core.publishing.fetch import fetch; "
    "fetch(a, 'planted', 'recordings', Path(b))",
}


def _kill_at(proxy: Proxy, method: str, name: str, what: str, location: str, path: Path) -> None:
    """Run a command in a process of its own, and kill it at a request, which is not answered."""
    arrived, ended = threading.Event(), threading.Event()

    def choose(request: Request) -> Fault | None:
        if request.method == method and request.path.endswith(f"/{name}"):
            arrived.set()
            ended.wait(60)
            return Fault("drop")
        return None

    proxy.choose = choose
    code = f"import sys; from pathlib import Path; a, b = sys.argv[1:]; {_COMMANDS[what]}"
    environment = {**os.environ, "AWS_ENDPOINT_URL_S3": proxy.url}
    command = [sys.executable, "-c", code, location, str(path)]
    with subprocess.Popen(command, env=environment) as process:
        assert arrived.wait(60)
        process.kill()
    ended.set()
    proxy.reset()


@pytest.mark.parametrize("name", [CONTENT[1], FILES[-1], POINTER])
def test_a_publisher_that_is_killed_leaves_the_old_version_and_publishing_again_completes(
    name: str, s3: S3, proxy: Proxy, artifact: Path, other_artifact: Path
) -> None:
    location = f"s3://{s3[1]}/x"
    publish(artifact, location)
    _kill_at(proxy, "PUT", name, "publish", location, other_artifact)
    assert published_version(location, *KIND) == artifact.name
    verify_published(location, *KIND, artifact.name)
    assert publish(other_artifact, location)["pointer_moved"]
    verify_published(location, *KIND, other_artifact.name)


def test_a_process_that_is_killed_while_fetching_leaves_no_version(
    s3: S3, proxy: Proxy, artifact: Path, tmp_path: Path
) -> None:
    location, cache = f"s3://{s3[1]}/x", tmp_path / "cache"
    publish(artifact, location)
    _kill_at(proxy, "GET", CONTENT[1], "fetch", location, cache)
    assert list(cache.glob("[!.]*")) == []
    assert fetch(location, *KIND, cache).name == artifact.name
    check_cache(cache)


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
    own_server: Seaweed,
    large_artifact: Path,
    artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stores, "PART_BYTES", 5 * 1024**2)
    location, client = "s3://bucket", own_server.client()
    client.create_bucket(Bucket="bucket")
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
            publish(large_artifact, location, client=through)
        assert killed.is_set()
        own_server.start()
        assert published_version(location, *KIND, client=client) == artifact.name
        path = fetch(location, *KIND, tmp_path / "cache", client=client)
        assert path.name == artifact.name
        assert publish(large_artifact, location, client=through)["pointer_moved"]
    path = fetch(location, *KIND, tmp_path / "cache", client=client)
    assert path.name == large_artifact.name
    verify_published(location, *KIND, artifact.name, client=client)
