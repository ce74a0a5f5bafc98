"""docs/service.md in a fresh environment: the plain install, a published index, the example."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from mess_core.index import save_artifact
from mess_core.index.index import Index
from mess_core.publishing.publish import publish
from mess_core.search import Query
from mess_core.search.search import search
from tests.planted import FACTS, Corpus, clip_rows

pytestmark = [pytest.mark.integration, pytest.mark.exhaustive]

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "librosa", "sklearn", "pandas", "scipy", "snakemake", "soundfile")


def example() -> str:
    found = re.search(r"```python\n(.+?)```", (ROOT / "docs" / "service.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_example_is_short() -> None:
    lines = [line for line in example().splitlines() if line.strip()]
    assert len(lines) <= 20


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the plain install, as `pip install .` makes it."""
    folder = tmp_path_factory.mktemp("plain")
    # A copy, so that building leaves nothing in the checkout.
    source = folder / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return python


def test_the_plain_install_has_nothing_heavy(plain: Path) -> None:
    listed = subprocess.run(
        [str(plain), "-m", "pip", "list", "--format=json"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {entry["name"].lower().replace("-", "_") for entry in json.loads(listed.stdout)}
    assert {"mess_core", "numpy", "faiss_cpu", "boto3"} <= names
    assert not names & {*HEAVY, "scikit_learn"}


def _index(seed: int) -> Index:
    index = Corpus(120, seed=seed).index(clip_rows(20, 6))
    return replace(index, facts={**FACTS, "dataset": "demo"})


class Service:
    """The example, running in the plain environment."""

    def __init__(self, plain: Path, folder: Path, environment: dict[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        script = folder / "service.py"
        script.write_text(example())
        self.log = (folder / "service.log").open("w+")
        self.process = subprocess.Popen(
            [str(plain), "-W", "error", str(script)],
            cwd=folder,
            env={**environment, "PORT": str(self.port)},
            stdout=self.log,
            stderr=self.log,
        )

    def refresh(self) -> int:
        request = Request(f"http://127.0.0.1:{self.port}/refresh", method="PUT")
        with urlopen(request, timeout=60) as answer:
            return int(answer.status)

    def ask(self, question: Any) -> tuple[int, Any]:
        body = question if isinstance(question, bytes) else json.dumps(question).encode()
        for _ in range(600):
            assert self.process.poll() is None, self._said()
            try:
                with urlopen(f"http://127.0.0.1:{self.port}/", body, timeout=60) as answer:
                    return answer.status, json.load(answer)
            except HTTPError as error:
                return error.code, json.load(error)
            except URLError:
                time.sleep(0.1)  # it does not listen yet
        raise AssertionError(self._said())

    def _said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture
def store(s3: tuple[Any, str], tmp_path: Path) -> tuple[str, dict[str, str]]:
    """A published index in S3, and the environment that reaches it."""
    client, bucket = s3
    location = f"s3://{bucket}/published"
    publish(save_artifact(_index(1), tmp_path / "indices"), location, client=client)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return location, {**kept, **aws, "MESS_INDEX": location}


@pytest.fixture
def service(plain: Path, store: tuple[str, dict[str, str]], tmp_path: Path) -> Iterator[Service]:
    running = Service(plain, tmp_path, store[1])
    yield running
    running.stop()


def test_the_example_serves_searches_from_a_published_artifact(
    service: Service, store: tuple[str, dict[str, str]], s3: tuple[Any, str], tmp_path: Path
) -> None:
    question = {"recording_id": "r3", "start_s": 2.5, "end_s": 10, "like": {"tempo": 1}, "k": 4}
    status, answer = service.ask(question)
    assert status == 200
    here = search(_index(1), Query.from_dict(question))
    assert [hit["recording_id"] for hit in answer["hits"]] == [h.recording_id for h in here.hits]
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx([h.score for h in here.hits])
    assert answer["hits"][0]["contributions"] == pytest.approx(here.hits[0].contributions)

    status, answer = service.ask({"recording_id": "nobody"})
    assert status == 400
    assert "recording 'nobody' is not in the index" in answer["error"]
    status, answer = service.ask({**question, "more": {"legato": 99}})
    assert (status, answer["hits"]) == (200, [])
    assert "no row satisfies" in answer["notes"][0]

    for wrong in (
        b"",
        b"{",
        b"[" * 90_000,
        b'{"exclude": null}',
        b'{"start_s": 1%s}' % (b"0" * 400),
    ):
        status, answer = service.ask(wrong)
        assert status == 400
        assert answer["error"]
    assert service.refresh() == 204
    publish(save_artifact(_index(2), tmp_path / "indices"), store[0], client=s3[0])
    assert service.refresh() == 200
    newer = search(_index(2), Query.from_dict(question))
    status, answer = service.ask(question)
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx([h.score for h in newer.hits])


def test_the_example_runs_without_what_the_plain_install_leaves_out(plain: Path) -> None:
    code = (
        "from mess_core import MessError, Query, Searcher, search_features, load_artifact, "
        "upload_artifact_to_s3; import sys; "
        f"print(sorted({set(HEAVY)} & set(sys.modules)))"
    )
    done = subprocess.run([str(plain), "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert sys.executable != str(plain)
