"""A real server: what a socket sees, signals, and clients that do not behave."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from mess_core.service import create_app
from tests.service.made import (
    DURATION_S,
    RATE,
    make_data,
    open_all,
    publish_all,
)

pytestmark = pytest.mark.integration

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
#: The time that a request may take, shortened; then the command line as it is.
START = (
    "import sys; from mess_core.service import server; server._REQUEST_S = 1.5; "
    "from mess_core.cli.main import main; sys.exit(main(sys.argv[1:]))"
)

Start = Callable[..., tuple[Any, str, int]]


@pytest.fixture
def start(made: Path) -> Iterator[Start]:
    """Give a function that starts `mess serve`: its process, and where it listens."""
    running: list[Any] = []

    def run(*options: str, command: str = "serve", **environment: str) -> tuple[Any, str, int]:
        words = [command, "--artifacts", str(made / "published"), "--data", str(made / "data")]
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", START, *words, "--port", "0", *options],
            env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        running.append(process)
        line = process.stdout.readline() if process.stdout else ""
        found = re.match(r"(http://(.+?):(\d+)/) ", line)
        assert found, process.communicate()
        return process, found[1], int(found[3])

    yield run
    for process in running:
        process.kill()
        process.communicate()


def _raw(port: int, request: bytes) -> bytes:
    """Return what is answered to some bytes on a connection that then closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def _stop(process: Any) -> tuple[str, str]:
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    return out, err


def test_every_answer_has_the_headers(start: Start) -> None:
    process, url, _ = start()
    for path, host in (("", ""), ("aspects", ""), ("nothing", ""), ("docs", ""), ("", "evil.x")):
        answer = httpx.get(url + path, headers={"Host": host} if host else {})
        assert answer.headers["content-security-policy"].startswith(POLICY)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert not {"set-cookie", "server", "access-control-allow-origin"} & answer.headers.keys()
    head = httpx.head(f"{url}audio/r0")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(44 + 4 * round(DURATION_S * RATE))
    assert httpx.get(f"{url}audio/r0", headers={"Range": "bytes=-4"}).headers["content-range"]
    assert _stop(process)[1] == ""


def test_it_is_slow_clients_that_wait(start: Start) -> None:
    _, url, port = start()
    begun = time.monotonic()
    slow = [
        (b"GET /healthz HTTP/1.1\r\n", b"A: b\r\n"),
        (b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n", b" "),
        # After a request that was in time.
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET", b" "),
    ]
    connections = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in slow]
    for connection, (head, _) in zip(connections, slow, strict=True):
        connection.sendall(head)
    waiting = set(range(len(slow)))
    while waiting and time.monotonic() - begun < 15:
        assert httpx.get(f"{url}healthz").status_code == 200
        time.sleep(0.1)
        for number in list(waiting):
            try:
                connections[number].sendall(slow[number][1])
            except OSError:
                waiting.discard(number)
    assert not waiting
    # One that says nothing at all.
    with socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
        with suppress(ConnectionResetError):
            assert silent.recv(1) == b""
        assert time.monotonic() - begun < 15
    for connection in connections:
        connection.close()


def test_huge_bodies_are_refused_before_they_are_read(start: Start) -> None:
    _, url, port = start()
    head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    assert b" 413 " in _raw(port, head + b"Content-Length: 70000\r\n\r\n" + b" " * 70_000)[:20]
    chunks = b"Transfer-Encoding: chunked\r\n\r\n" + 9 * (b"4000\r\n" + b" " * 0x4000 + b"\r\n")
    assert b" 413 " in _raw(port, head + chunks)[:20]
    # As much as nobody has, announced only.
    announced = b"Content-Length: 99999999999999\r\n\r\n" + b" " * 70_000
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head + announced)
        assert b" 413 " in connection.recv(100)
    assert httpx.get(f"{url}healthz").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/audio/../app.py",
        "/audio/..%2f..%2fdata%2fr0.wav",
        "/audio//etc/passwd",
        "/docs-files/../app.py",
        "/docs-files/..%2f__init__.py",
        "/%2e%2e/app.py",
        "//app.py",
    ],
)
def test_no_path_leads_out(start: Start, path: str) -> None:
    _, _, port = start()
    head = b"Host: localhost\r\nConnection: close\r\n\r\n"
    answer = _raw(port, f"GET {path} HTTP/1.1\r\n".encode() + head)
    assert b" 404 " in answer[:20]
    assert b"root:" not in answer
    assert b"import" not in answer


def test_sigterm_finishes_what_runs(start: Start, made: Path) -> None:
    layout = make_data(made / "long")
    # Longer than sockets and the server buffer, as silence of 60 MB.
    rows = layout.table.read_text().splitlines()
    path = made / "long" / "r0.wav"
    soundfile.write(path, np.zeros((15_000_000, 2), np.int16), 48_000, "PCM_16")
    from mess_core.files import file_sha256

    cells = rows[1].split("\t")
    cells[9] = file_sha256(path)
    layout.table.write_text("\n".join([rows[0], "\t".join(cells), *rows[2:]]) + "\n")
    process, url, port = start("--data", str(made / "long"))
    with httpx.stream("GET", f"{url}audio/r0", timeout=20) as answer:
        parts = answer.iter_raw()
        received = len(next(parts))
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        received += sum(map(len, parts))
        assert received == int(answer.headers["content-length"]) == 60_000_044
    _, err = process.communicate(timeout=20)
    assert process.returncode in (0, -signal.SIGTERM)
    assert err == ""


def test_explore_opens_the_page(start: Start, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\necho $1 > {opened}\n")
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    _, url, _ = start(command="explore", BROWSER=str(browser))
    assert httpx.get(url).status_code == 200
    for _ in range(100):
        if opened.exists() and opened.read_text():
            break
        time.sleep(0.1)
    assert opened.read_text() == f"{url}\n"
    opened.unlink()
    _, url, _ = start("--no-browser", command="explore", BROWSER=str(browser))
    assert httpx.get(url).status_code == 200
    assert not opened.exists()


def test_listening_elsewhere_is_warned_of(start: Start) -> None:
    process, url, port = start("--host", "0.0.0.0", "--allow-host", "music.example")
    assert url == f"http://0.0.0.0:{port}/"
    answers = [
        httpx.get(f"http://127.0.0.1:{port}/healthz", headers={"Host": host}).status_code
        for host in ("music.example", "evil.example")
    ]
    assert answers == [200, 400]
    warning = _stop(process)[1]
    assert warning.count("\n") == 1
    assert "no login" in warning
    assert "--allow-host" in warning


def test_what_cannot_be_served_is_said_without_a_trace(made: Path, tmp_path: Path) -> None:
    def said(*words: str, code: str = START) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "nothing is published" in said("serve", "--artifacts", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        place = "--artifacts", str(made / "published")
        assert "in use" in said("serve", *place, "--port", port)
    assert "0 to 65535" in said("serve", *place, "--port", "99999")
    assert "at least 1" in said("serve", *place, "--refresh", "1e-9")
    for name in ("http://x.org", "*foo", "x.org:80", "a..b", "", "ü"):
        assert "is no host name" in said("serve", *place, f"--allow-host={name}")
    assert "is no host name" in said("serve", *place, "--host=")
    without = "import sys; sys.modules['fastapi'] = None; " + START.replace(
        "from mess_core.service import server; server._REQUEST_S = 1.5; ", ""
    )
    assert '".[serve]"' in said("explore", *place, code=without)
    for missing in ("filelock", "torch"):
        hidden = f"from mess_core.cli import serve; serve.find_spec = {missing!r}.__ne__; " + START
        told = said("serve", *place, "--upload", "mess-small", code=hidden)
        assert f"needs {missing}: " in told
        assert '".[serve,extract,analysis]"' in told


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from mess_core.service import create_app; create_app; "
        "print({'torch', 'librosa', 'sklearn', 'scipy', 'transformers'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_index_in_s3_is_served_without_a_data_folder(
    s3: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient

    from mess_core.layout import Layout

    client, bucket = s3
    monkeypatch.chdir(tmp_path)
    publish_all(tmp_path, f"s3://{bucket}/published", client=client)
    searchers = open_all(f"s3://{bucket}/published", client=client)
    app = create_app(searchers, Layout(tmp_path / "nowhere", "made"))
    with TestClient(app, base_url="http://localhost") as asked:
        question = {"recording_id": "r0", "start_s": 0, "end_s": DURATION_S}
        assert len(asked.post("/search", json=question).json()["hits"]) == 10
        assert asked.get("/audio/r0").status_code == 404
