"""What holds for every request: by which names to ask, problem details, headers, limits."""

__all__ = ["Guard", "Impatient", "problem", "read_body"]

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus

import h11
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Bytes of a question, and how long a client may take to send one, s.
LARGEST_BODY, REQUEST_S = 1 << 16, 30.0
#: What the page loads is its own, and nobody frames it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: Swagger UI is started by a script inside its page, which shows nothing from elsewhere.
_DOCS = _HEADERS | {"Content-Security-Policy": _POLICY.replace("f'", "f' 'unsafe-inline'", 1)}


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return problem details (RFC 9457)."""
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(content, status, headers, media_type="application/problem+json")


async def read_body(request: Request, limit: int = LARGEST_BODY) -> bytes:
    """Return a request's body; raises `HTTPException` 413 if it has more bytes than the limit."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise HTTPException(413, f"the body has more than {limit} bytes")
    return bytes(body)


class Guard:
    """Middleware that refuses foreign names of this machine, and completes every answer.

    A page elsewhere can make its own name point here (DNS rebinding) to read what is answered.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = {"localhost", "127.0.0.1", "[::1]", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        begun = scope["type"] != "http"
        app, extra = self._app, _DOCS if scope.get("path") == "/docs" else _HEADERS
        host = "localhost" if begun else Headers(scope=scope).get("host", "")
        if re.sub(r":\d*$", "", host.lower()) not in self._hosts:
            app = problem(421, f"this is not {host!r}; allow it with mess serve --allow-host")

        async def completed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(extra)
            await send(message)

        try:
            await app(scope, receive, completed)
        except Exception:
            if begun:
                raise
            logging.exception("%s %s failed", scope["method"], scope["path"])
            await problem(500, "an error of the service; its log has more")(
                scope, receive, completed
            )


class Impatient(H11Protocol):
    """uvicorn's protocol, with a limit for how long a client may take to send a request."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(REQUEST_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Take some of a request, and stop waiting when it is here as a whole."""
        super().data_received(data)
        whole = self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)
        if whole and self._timer:
            self._timer.cancel()
            self._timer = None
        elif not whole and not self._timer:
            self._timer = self.loop.call_later(REQUEST_S, self.transport.abort)
