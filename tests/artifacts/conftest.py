"""An index with known content, and an S3 server on loopback."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.config import Config
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from mess_core.artifacts.artifact import save_artifact
from mess_core.artifacts.index import Index, Row, build_index

FACTS = {
    "dataset": "planted",
    "encoder": {"name": "small", "weights_sha256": "0" * 64, "trained": False},
    "licence": "CC0-1.0",
}
ASPECTS = {
    "dataset": "planted",
    "stage": 1,
    "min_r2": 0.3,
    "encoder": {"name": "small"},
    "aspects": {
        "tempo": {
            "resolved": True,
            "layer": 1,
            "r2": 0.7,
            "confidence": "medium",
            "targets": {},
            "reason": "",
        }
    },
}


def _index(*, seed: int = 0, n: int = 6) -> Index:
    features = np.random.default_rng(seed).normal(size=(n, 3, 5)) + 10.0
    rows = [Row(f"r{i}", f"w{i % 2}", "", "", "", "", 0.0, 10.0 + i) for i in range(n)]
    return build_index(
        features, rows, kind="recordings", layers=[0, 1, 2], aspects=ASPECTS, facts=FACTS
    )


@pytest.fixture
def index() -> Index:
    return _index()


@pytest.fixture
def artifact(tmp_path: Path, index: Index) -> Path:
    return save_artifact(index, tmp_path / "indices")


@pytest.fixture
def other_artifact(tmp_path: Path) -> Path:
    return save_artifact(_index(seed=1), tmp_path / "indices")


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
