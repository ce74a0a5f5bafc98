"""Random faults between client and store, while versions are published and fetched.

Whatever happens: at every moment the pointer names a complete version, what was published stays, a
cache holds whole versions only, and once the faults are over everything completes.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID

from mess_core.artifacts.artifact import FILES, verify_artifact
from mess_core.artifacts.publishing import fetch, publish
from mess_core.errors import ArtifactError
from tests.artifacts.conftest import IN_PARTS
from tests.artifacts.proxy import AFTER, BEFORE, READING, Proxy, Schedule

pytestmark = pytest.mark.integration

Save = Callable[[int], list[Path]]

KIND = ("planted", "recordings")
SCHEDULES = 200
#: Schedules per test, so that they can run side by side and a failure names some seeds.
BATCH = 20
ALL_BUT_WRITING = (*BEFORE, *AFTER, *READING)
#: A client that gives up soon, so that much is left half done.
HASTY = replace(IN_PARTS, attempts=3)


def objects_of_moto(bucket: str, prefix: str) -> dict[str, bytes]:
    """Return all objects below a prefix, straight out of moto's memory."""
    keys = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"].buckets[bucket].keys
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
) -> str:
    """Publish and fetch under faults, then without; return how it went under faults."""
    known, (old, new) = contents(artifacts), artifacts
    expected = {None if seed % 2 else old.name, new.name}
    proxy.reset()
    if not seed % 2:
        publish(old, location, client=through, transfer=IN_PARTS)
    proxy.reset()

    def changed() -> None:
        assert check_published(objects(), known) in expected

    schedule = Schedule(seed, kinds, rate=0.25)
    proxy.changed, proxy.choose = changed, schedule
    receipt = attempt(lambda: publish(new, location, client=through, transfer=HASTY), 2)
    if receipt:
        assert check_published(objects(), known) == new.name
    path = attempt(lambda: fetch(location, *KIND, cache, client=through, transfer=HASTY), 2)
    if path:
        verify_artifact(path)
        assert path.name in expected
    check_cache(cache)
    problems = proxy.problems
    proxy.reset()
    assert problems == []
    publish(new, location, client=through, transfer=IN_PARTS)
    assert check_published(objects(), known) == new.name
    assert fetch(location, *KIND, cache, client=through, transfer=IN_PARTS).name == new.name
    check_cache(cache)
    if not seed % 2:
        path = fetch(location, *KIND, cache, version_id=old.name, client=through)
        assert path.name == old.name
    return "published" if receipt else "failed"


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("first", range(0, SCHEDULES, BATCH))
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
            lambda seed=seed: objects_of_moto(bucket, "/".join([str(seed), *KIND])),
            ALL_BUT_WRITING,
        )
        for seed in range(first, first + BATCH)
    ]
    # The faults neither prevent everything nor nothing.
    assert set(outcomes) == {"published", "failed"}


def client_of(url: str, key: tuple[str, str] = ("testing", "testing")) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=key[0],
        aws_secret_access_key=key[1],
        config=Config(retries={"total_max_attempts": 1}, read_timeout=60),
    )
