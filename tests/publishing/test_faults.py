"""Random faults between client and store, while versions are published and fetched.

Whatever happens: at every moment the pointer names a complete version, what was published stays, a
cache holds whole versions only, and once the faults are over everything completes.
"""

import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto.backends import get_backend

from mess_core.errors import ArtifactError
from mess_core.index.artifact import FILES, verify_artifact
from mess_core.publishing.publish import (
    fetch,
    prune_versions,
    publish,
    published_version,
    published_versions,
    rollback,
    verify_published,
)
from mess_core.publishing.transfer import Transfer
from tests.publishing.fixtures import IMPATIENT, IN_PARTS
from tests.publishing.proxy import AFTER, BEFORE, READING, Proxy, Request, Schedule

pytestmark = pytest.mark.integration

Save = Callable[[int], list[Path]]

KIND = ("planted", "recordings")
SCHEDULES = 200
#: Those that run every time; the others take minutes.
QUICK = 40
#: Schedules per test, so that they can run side by side and a failure names some seeds.
BATCH = 20
ALL_BUT_WRITING = (*BEFORE, *AFTER, *READING)


def objects_of_moto(bucket: str, prefix: str) -> dict[str, bytes]:
    """Return all objects below a prefix, straight out of moto's memory."""
    keys = get_backend("s3")["123456789012"]["aws"].buckets[bucket].keys
    start = prefix + "/"
    return {k.removeprefix(start): v.value for k, v in keys.items() if k.startswith(start)}


def check_published(objects: dict[str, bytes], known: dict[str, dict[str, bytes]]) -> str | None:
    """Return which version the pointer names, having compared every byte of it."""
    if "latest.json" not in objects:
        return None
    version_id = str(json.loads(objects["latest.json"])["artifact_version_id"])
    found = {name: objects.get(f"{version_id}/{name}") for name in FILES}
    assert found == known[version_id], f"{version_id} is the latest and not complete"
    return version_id


def check_cache(cache: Path) -> None:
    for path in cache.glob("*"):
        if path.name[0] != ".":
            verify_artifact(path, version_id=path.name)


def contents(artifacts: list[Path]) -> dict[str, dict[str, bytes]]:
    return {a.name: {name: (a / name).read_bytes() for name in FILES} for a in artifacts}


def attempt(operation: Callable[[], Any], until: int) -> Any:
    """Run something up to so many times, as whoever sees it fail would; None if it always fails."""
    for _ in range(until):
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
    objects: Callable[[], dict[str, bytes]],
    kinds: tuple[str, ...],
    transfer: Transfer = IN_PARTS,
) -> str:
    """Publish and fetch under faults, then without; return how it went under faults."""
    # A client that gives up soon, so that much is left half done.
    known, (old, new), hasty = contents(artifacts), artifacts, replace(transfer, attempts=3)
    expected = {None if seed % 2 else old.name, new.name}
    proxy.reset()
    if not seed % 2:
        publish(old, location, client=through, transfer=transfer)
    proxy.reset()

    def changed() -> None:
        assert check_published(objects(), known) in expected

    schedule = Schedule(seed, kinds, rate=0.25)
    proxy.changed, proxy.choose = changed, schedule
    receipt = attempt(lambda: publish(new, location, client=through, transfer=hasty), 2)
    if receipt:
        assert check_published(objects(), known) == new.name
    path = attempt(lambda: fetch(location, *KIND, cache, client=through, transfer=hasty), 2)
    if path:
        verify_artifact(path)
        assert path.name in expected
    check_cache(cache)
    problems = proxy.problems
    proxy.reset()
    assert problems == []
    publish(new, location, client=through, transfer=transfer)
    assert check_published(objects(), known) == new.name
    assert fetch(location, *KIND, cache, client=through, transfer=transfer).name == new.name
    check_cache(cache)
    if not seed % 2:
        path = fetch(location, *KIND, cache, version_id=old.name, client=through)
        assert path.name == old.name
    return "published" if receipt else "failed"


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    "first",
    [
        pytest.param(first, marks=[pytest.mark.exhaustive] if first >= QUICK else [])
        for first in range(0, SCHEDULES, BATCH)
    ],
)
def test_under_random_faults_nothing_is_lost_or_half_visible(
    first: int,
    s3: tuple[Any, str],
    proxy: Proxy,
    versions_of: Save,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    _, bucket = s3
    through = client_of(proxy.url)
    saved = versions_of(2)
    outcomes = [
        run_schedule(
            seed,
            proxy,
            through,
            f"s3://{bucket}/{seed}",
            tmp_path / f"cache-{seed}",
            saved,
            partial(objects_of_moto, bucket, "/".join([str(seed), *KIND])),
            ALL_BUT_WRITING,
        )
        for seed in range(first, first + BATCH)
    ]
    # The faults neither prevent everything nor nothing.
    assert set(outcomes) == {"published", "failed"}


class Meeting:
    """Holds the writes of the pointer back until so many have arrived."""

    def __init__(self, parties: int) -> None:
        self._barrier = threading.Barrier(parties)

    def __call__(self, request: Request) -> None:
        if request.method == "PUT" and request.path.endswith("latest.json"):
            with suppress(threading.BrokenBarrierError):
                self._barrier.wait(30)


def race(
    proxy: Proxy, through: Any, location: str, artifacts: list[Path], earlier: Path | None
) -> None:
    """Have two publishers reach the pointer together; check that one wins and the other says so."""
    if earlier:
        publish(earlier, location, client=through)
    proxy.choose = Meeting(2)

    def run(artifact: Path) -> str:
        try:
            return str(publish(artifact, location, client=through)["pointer_moved"])
        except ArtifactError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(run, artifacts))
    proxy.reset()
    assert "True" in said
    winner, loser = artifacts if said[0] == "True" else artifacts[::-1]
    (problem,) = [text for text in said if text != "True"]
    assert f"another publisher moved {location}" in problem
    assert f"to version {winner.name}" in problem
    assert published_version(location, *KIND, client=through) == winner.name
    # The loser is complete, and wins when it is published again.
    verify_published(location, *KIND, loser.name, client=through)
    assert publish(loser, location, client=through)["pointer_moved"]


@pytest.mark.parametrize("first", [True, False], ids=["first version", "next version"])
def test_of_two_publishers_at_once_one_wins_and_the_other_says_so(
    first: bool, s3: tuple[Any, str], proxy: Proxy, versions_of: Save
) -> None:
    earlier, *rivals = versions_of(3)
    location = f"s3://{s3[1]}/x"
    race(proxy, client_of(proxy.url), location, rivals, None if first else earlier)


def test_two_publishers_of_the_same_version_both_succeed(
    s3: tuple[Any, str], proxy: Proxy, artifact: Path
) -> None:
    through, location = client_of(proxy.url), f"s3://{s3[1]}/x"
    proxy.choose = Meeting(2)
    with ThreadPoolExecutor(2) as pool:
        receipts = list(pool.map(lambda a: publish(a, location, client=through), [artifact] * 2))
    assert [r["artifact_version_id"] for r in receipts] == [artifact.name] * 2


@pytest.mark.parametrize("seed", range(6))
def test_many_that_publish_roll_back_prune_and_fetch_under_faults_agree(
    seed: int,
    s3: tuple[Any, str],
    proxy: Proxy,
    versions_of: Save,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    _, bucket = s3
    through, location = client_of(proxy.url), f"s3://{bucket}/x"
    saved = versions_of(4)
    known = contents(saved)
    publish(saved[0], location, client=through)

    def objects() -> dict[str, bytes]:
        return objects_of_moto(bucket, "/".join(["x", *KIND]))

    def changed() -> None:
        assert check_published(objects(), known) in known

    schedule = Schedule(seed, ALL_BUT_WRITING, rate=0.05)
    schedule.dies_at = None
    proxy.changed, proxy.choose = changed, schedule

    def act(number: int) -> None:
        draw = random.Random(seed * 100 + number)
        for _ in range(6):
            artifact, action = draw.choice(saved), draw.choice(["publish", "back", "prune", "get"])
            with suppress(ArtifactError):
                if action == "publish":
                    publish(artifact, location, client=through, transfer=IMPATIENT)
                elif action == "back":
                    rollback(location, *KIND, artifact.name, client=through)
                elif action == "prune":
                    prune_versions(location, *KIND, keep=1, client=through)
                else:
                    path = fetch(
                        location, *KIND, tmp_path / "cache", client=through, transfer=IMPATIENT
                    )
                    verify_artifact(path, version_id=path.name)

    monkeypatch.setattr("time.sleep", lambda _: None)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(act, range(4)))
    problems = proxy.problems
    proxy.reset()
    assert problems == []
    prune_versions(location, *KIND, keep=1, client=through)
    for artifact in saved:
        publish(artifact, location, client=through)
        assert check_published(objects(), known) == artifact.name
    assert sum(v.complete for v in published_versions(location, *KIND, client=through)) == 4


def client_of(url: str, key: tuple[str, str] = ("testing", "testing")) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=key[0],
        aws_secret_access_key=key[1],
        config=Config(retries={"total_max_attempts": 1}, read_timeout=60),
    )
