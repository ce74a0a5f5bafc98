"""Audio that clients send: limits and errors with a made-up encoder, and the whole way with one."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from mess_core.errors import SearchError
from mess_core.extraction import FeatureExtractor
from mess_core.index import save_artifact
from mess_core.index.fitting import fit_projection
from mess_core.index.index import Index, Row, build_index
from mess_core.layout import Layout
from mess_core.publishing.publish import publish
from mess_core.search import Query
from mess_core.search.search import Searcher, search_features
from mess_core.service import create_app, upload as module
from mess_core.service.upload import Uploads
from tests.conftest import WriteTone
from tests.planted import Corpus
from tests.service.made import make_indices


class Fake:
    """Stands in for `embed_elsewhere`: gives features of a planted corpus, and notes its calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.error: str | None = None
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, path: Path, start: Any, end: Any, facts: Any) -> tuple[Any, Any]:
        self.calls.append((path, start, end, facts["dataset"]))
        assert path.is_file()
        self.go_on.wait(20)
        if self.error:
            raise SearchError(f"{path}: {self.error}")
        return Corpus(30).features[len(self.calls) :][:1], {}


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def indices() -> dict[str, Index]:
    return make_indices()


@pytest.fixture
def searchers(indices: dict[str, Index]) -> dict[str, Searcher]:
    return {kind: Searcher(partial(indices.__getitem__, kind)) for kind in indices}


@pytest.fixture
def client(
    fake: Fake, searchers: dict[str, Searcher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """Give a client; what it leaves among the temporary files fails the test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    app = create_app(searchers, Layout(tmp_path / "nowhere", "made"), uploads=Uploads(fake))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client
    assert list(folder.iterdir()) == []


@pytest.fixture
def tone(write_tone: WriteTone) -> bytes:
    return write_tone("tone.wav").read_bytes()


def _problem(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    return str(answer.json()["detail"])


@pytest.mark.unit
@pytest.mark.parametrize("passage", [False, True])
def test_what_was_sent_is_searched_with(
    client: TestClient, fake: Fake, indices: dict[str, Index], tone: bytes, passage: bool
) -> None:
    times = {"from": 1, "to": 5.5} if passage else {}
    sent = client.post("/embed", content=tone, params=times).json()
    assert sent["duration_s"] == pytest.approx(6)
    assert fake.calls[0][1:] == (*((1.0, 5.5) if passage else (None, None)), "made")
    index = indices["clips" if passage else "recordings"]
    expected = search_features(index, Corpus(30).features[1:2], Query(k=3, like={"tempo": 1}))
    question = {"embedded": sent["embedded"], "k": 3, "like": {"tempo": 1}}
    for _ in range(2):
        answer = client.post("/search", json=question).json()
        assert [hit["clip"] for hit in answer["hits"]] == [hit.clip for hit in expected.hits]
        assert answer["hits"][0]["score"] == pytest.approx(expected.hits[0].score)
        assert answer["kind"] == index.kind
        assert answer["command"] == (
            "mess search --dataset made --like tempo -k 3 --audio FILE"
            + passage * " --from 1.0 --to 5.5"
        )
    named = client.post("/search", json={**question, "recording_id": "r0"})
    assert "cannot name a recording" in _problem(named, 400)
    assert client.post("/search", json={"recording_id": "r0"}).status_code == 200


@pytest.mark.unit
def test_what_is_no_good_audio_is_refused(
    client: TestClient,
    fake: Fake,
    tone: bytes,
    write_tone: WriteTone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LARGEST", 400_000)
    monkeypatch.setattr(module, "_LONGEST_S", 8)
    flac = write_tone("long.flac", seconds=9).read_bytes()
    silence = write_tone("silence.wav", level=0.0).read_bytes()
    for content, status, message in [
        (b"", 422, "^audio: is empty"),
        (b"<html>", 422, "^audio: is not audio that libsndfile can read"),
        (tone[:-1000], 422, "^audio: has 287044 of the 288044 bytes"),
        (silence, 422, "^audio: is silent"),
        (flac, 422, "^audio: is longer than 8 s"),
        (tone + bytes(200_000), 413, "more than 400000 bytes"),
    ]:
        detail = _problem(client.post("/embed", content=content), status)
        assert re.search(message, detail), detail
        assert "/" not in detail.replace("44/", "")
    for name, value in (("from", "-1"), ("to", "nan"), ("from", "x")):
        assert name in _problem(client.post("/embed", content=tone, params={name: value}), 422)
    assert not fake.calls
    fake.error = "its features took more than 300 s"
    assert _problem(client.post("/embed", content=tone), 422) == f"audio: {fake.error}"


@pytest.mark.unit
def test_one_upload_at_a_time_is_taken(client: TestClient, fake: Fake, tone: bytes) -> None:
    fake.go_on.clear()
    answers: list[Any] = []
    first = threading.Thread(target=lambda: answers.append(client.post("/embed", content=tone)))
    first.start()
    while not fake.calls:
        time.sleep(0.01)
    refused = client.post("/embed", content=tone)
    assert "another upload" in _problem(refused, 503)
    assert int(refused.headers["retry-after"]) > 0
    # Others are answered meanwhile.
    assert client.post("/search", json={"recording_id": "r0"}).status_code == 200
    fake.go_on.set()
    first.join(20)
    assert answers[0].status_code == 200


@pytest.mark.unit
def test_the_oldest_goes_first_and_all_with_the_encoder(
    client: TestClient,
    indices: dict[str, Index],
    searchers: dict[str, Searcher],
    tone: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_KEPT", 2)

    def send() -> str:
        return str(client.post("/embed", content=tone).json()["embedded"])

    def status(token: str) -> int:
        return client.post("/search", json={"embedded": token}).status_code

    one, two = send(), send()
    assert status(one) == 200
    three = send()
    assert [status(token) for token in (one, two, three)] == [404, 200, 200]
    assert status("never") == 404
    other = {**indices["clips"].facts, "encoder": {"name": "another"}}
    searchers["clips"] = Searcher(lambda: replace(indices["clips"], facts=other))
    assert status(three) == 404


@pytest.mark.unit
def test_without_uploads_there_is_no_such_address(
    searchers: dict[str, Searcher], tone: bytes
) -> None:
    client = TestClient(create_app(searchers, Layout(Path("nowhere"), "made")), "http://localhost")
    assert client.post("/embed", content=tone).status_code in (404, 405)
    assert "no 'embedded'" in _problem(client.post("/search", json={"embedded": "x"}), 400)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write recordings of 20 s whose notes and gaps differ from second to second."""
    folder = tmp_path_factory.mktemp("audio")
    rng, rate = np.random.default_rng(5), 24_000
    times = np.arange(rate) / rate
    paths = []
    for number in range(4):
        notes = [
            np.exp(-rng.uniform(1, 8) * times)
            * sum(np.sin(2 * np.pi * f * times) / 6 for f in rng.uniform(100, 3000, size=3))
            for _ in range(20)
        ]
        paths.append(folder / f"r{number}.wav")
        soundfile.write(paths[-1], np.concatenate(notes), rate)
    return paths


@pytest.fixture(scope="module")
def served(
    audio: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int, Path]]:
    """Serve their descriptors, with uploads: the address, the port, where temporary files are."""
    folder = tmp_path_factory.mktemp("served")
    extractor = FeatureExtractor("descriptors")
    made = [extractor.extract_file(path) for path in audio]
    facts: dict[str, Any] = {"dataset": "made", "encoder": extractor.encoder.facts()}
    facts |= {"window_s": 5.0, "overlap": 0.5}
    clips, whole = list[Row](), list[Row]()
    for number, found in enumerate(made):
        names = (f"r{number}", f"w{number}", "", "", "", "")
        clips += [Row(*names, start, start + 5) for start in found.starts_s]
        whole.append(Row(*names, 0.0, 20.0))
    windows = np.concatenate([found.segments for found in made])
    layers = range(windows.shape[1])
    projection = fit_projection(lambda layer: windows[:, layer], layers)
    recordings = np.stack([found.aggregated for found in made])
    for kind, features, rows in (("clips", windows, clips), ("recordings", recordings, whole)):
        index = build_index(
            features, rows, kind=kind, projection=projection, aspects={}, facts=facts
        )
        publish(save_artifact(index, folder / kind), str(folder / "published"))
    (folder / "temporary").mkdir()
    command = [*(sys.executable, "-W", "error", "-m", "mess_core.cli.main", "serve", "--upload")]
    command += ["--port", "0", "--artifacts", str(folder / "published"), "--data", str(folder)]
    environment = {**os.environ, "TMPDIR": str(folder / "temporary")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            found_url = re.match(r"http://127.0.0.1:(\d+)/", server.stdout.readline())  # type: ignore[union-attr]
            assert found_url
            yield found_url[0], int(found_url[1]), folder / "temporary"
        finally:
            server.terminate()


@pytest.mark.integration
@pytest.mark.parametrize("times", [{}, {"from": 7.5, "to": 12.5}])
def test_the_audio_of_a_recording_finds_that_recording_first(
    served: tuple[str, int, Path], audio: list[Path], times: dict[str, Any]
) -> None:
    url, _, temporary = served
    sent = httpx.post(f"{url}embed", content=audio[2].read_bytes(), params=times, timeout=60)
    assert sent.json()["duration_s"] == pytest.approx(20)
    assert 0 < sent.json()["seconds"] < 60
    question = {"embedded": sent.json()["embedded"], "k": 3}
    first = httpx.post(f"{url}search", json=question).json()["hits"][0]
    assert (first["recording_id"], first["score"]) == ("r2", pytest.approx(1, abs=1e-4))
    assert first["start_s"] == times.get("from", 0.0)
    late = httpx.post(
        f"{url}embed", content=audio[2].read_bytes(), params={"from": 50, "to": 70}, timeout=60
    )
    assert "50 to 70 s is no passage of its 20.00 s" in _problem(late, 422)
    assert list(temporary.iterdir()) == []


@pytest.mark.integration
def test_a_client_that_goes_leaves_nothing_and_the_next_one_is_served(
    served: tuple[str, int, Path], audio: list[Path]
) -> None:
    url, port, temporary = served
    content = audio[0].read_bytes()
    head = b"POST /embed?from=0&to=5 HTTP/1.1\r\nHost: localhost\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        promised = b"Content-Length: %d\r\n\r\n" % len(content)
        connection.sendall(head + promised + content[: len(content) // 2])
        _until(lambda: list(temporary.iterdir()) != [])
        assert httpx.post(f"{url}embed", content=content).status_code == 503
    _until(lambda: list(temporary.iterdir()) == [])
    sent = httpx.post(f"{url}embed?from=0&to=5", content=content, timeout=60)
    assert sent.status_code == 200
    assert list(temporary.iterdir()) == []


def _until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")
