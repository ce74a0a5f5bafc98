"""A proxy between an S3 client and a store that misbehaves on purpose.

It reads one request per connection, asks what to do with it, and closes the connection.
"""

import random
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPResponse
from urllib.parse import urlsplit

#: The faults; see `_Handler`. Answers are short or garbled where something is read.
FAULTS = (
    *("drop", "500", "503", "half request", "lost answer", "cut"),
    *("short", "garbled", "garbled request"),
)

_ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>on purpose</Message></Error>'


@dataclass(frozen=True)
class Request:
    """What a client sent: the head as it was, and the body."""

    head: bytes
    body: bytes

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    def header(self, name: str) -> str:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return ""


@dataclass(frozen=True)
class Answer:
    head: bytes
    body: bytes


@dataclass
class Fault:
    """What to do to a request: one of the names above, and a number that says where."""

    kind: str
    where: float = 0.5


class Proxy(socketserver.ThreadingTCPServer):
    """Stands before a store."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        parts = urlsplit(target)
        self.target = (str(parts.hostname), int(parts.port or 80))
        self._lock = threading.Lock()
        self.reset()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reset(self) -> None:
        """Be a plain proxy again, and forget all requests."""
        #: Gets each request and returns the fault that it meets, or None.
        self.choose: Callable[[Request], Fault | None] = lambda _: None
        #: Is called after each request that may have changed the store, before its answer.
        self.changed: Callable[[], None] = lambda: None
        #: In the order of arrival, also those that were dropped; and what `changed` raised.
        self.requests: list[Request] = []
        self.problems: list[BaseException] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up, too."""

    def forward(self, request: Request) -> Answer:
        """Make the request of the store, one writing request at a time."""
        writes = request.method not in ("GET", "HEAD")
        if not writes:
            return self._forward(request)
        with self._lock:
            answer = self._forward(request)
            try:
                self.changed()
            except BaseException as problem:  # The test raises it.
                self.problems.append(problem)
            return answer

    def _forward(self, request: Request) -> Answer:
        head = _without(request.head, b"connection", b"expect")
        with socket.create_connection(self.target, timeout=60) as upstream:
            upstream.sendall(head + b"\r\nConnection: close\r\n\r\n" + request.body)
            response = HTTPResponse(upstream, method=request.method)
            response.begin()
            content = response.read()
        lines = [f"HTTP/1.1 {response.status} {response.reason}"]
        lines += [f"{name}: {value}" for name, value in response.getheaders()]
        answer = _without("\r\n".join(lines).encode("latin-1"), b"connection", b"transfer-encoding")
        if b"content-length:" not in answer.lower():
            answer += b"\r\nContent-Length: %d" % len(content)
        return Answer(answer, content)


def _without(head: bytes, *names: bytes) -> bytes:
    lines = head.split(b"\r\n")
    return b"\r\n".join(x for x in lines if x.lower().partition(b":")[0] not in names)


class _Handler(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        self.request.settimeout(60)
        request = self._read()
        if request is None:
            return
        fault = self.server.choose(request)
        self.server.requests.append(request)
        kind = fault.kind if fault else ""
        where = fault.where if fault else 0.0
        if kind == "drop":
            return
        length = int(request.header("content-length") or 0)
        if kind == "half request":
            self._body(int(length * where))
            return
        request = replace(request, body=self._body(length))
        if kind in ("500", "503"):
            self._send(refusal(int(kind), {"500": "InternalError", "503": "SlowDown"}[kind]))
            return
        if kind == "garbled request" and request.body:
            request = replace(request, body=_garbled(request.body, where))
        answer = self.server.forward(request)
        if kind == "lost answer":
            return
        if request.method == "GET" and answer.body:
            answer = _misread(kind, where, answer)
        if request.method == "HEAD":
            answer = Answer(answer.head, b"")
        self._send(answer, where if kind == "cut" else 1.0)

    def _read(self) -> Request | None:
        received = b""
        while b"\r\n\r\n" not in received:
            if not (more := self.request.recv(65536)):
                return None
            received += more
        head, _, self._rest = received.partition(b"\r\n\r\n")
        return Request(head, b"")

    def _body(self, length: int) -> bytes:
        if length and not self._rest:
            # botocore sends the body of a put once it is told to.
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._rest
        while len(body) < length and (more := self.request.recv(65536)):
            body += more
        return body[:length]

    def _send(self, answer: Answer, share: float = 1.0) -> None:
        sent = answer.head + b"\r\nConnection: close\r\n\r\n" + answer.body
        self.request.sendall(sent[: int(len(sent) * share)])


def refusal(status: int, code: str) -> Answer:
    """Return an error as S3 says it."""
    body = _ERROR.format(code).encode()
    head = b"HTTP/1.1 %d Refused\r\nContent-Type: application/xml\r\nContent-Length: %d"
    return Answer(head % (status, len(body)), body)


def _misread(kind: str, where: float, answer: Answer) -> Answer:
    if kind == "short":
        body = answer.body[: int(len(answer.body) * where)]
        head = _without(answer.head, b"content-length")
        return Answer(head + b"\r\nContent-Length: %d" % len(body), body)
    return Answer(answer.head, _garbled(answer.body, where)) if kind == "garbled" else answer


def _garbled(body: bytes, where: float) -> bytes:
    at = int(len(body) * where)
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


class Schedule:
    """Faults at a fifth of the requests, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        #: From this request on the client is cut off, as if it had died.
        self.dies_at = self._random.choice([None, self._random.randrange(1, 40)])
        self._seen = 0

    def __call__(self, _: Request) -> Fault | None:
        self._seen += 1
        if self.dies_at is not None and self._seen >= self.dies_at:
            return Fault("drop")
        kind, where = self._random.choice(FAULTS), self._random.random()
        return Fault(kind, where) if self._random.random() < 0.2 else None


@contextmanager
def proxied(target: str) -> Iterator[Proxy]:
    """Run a proxy before a store."""
    with Proxy(target) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
