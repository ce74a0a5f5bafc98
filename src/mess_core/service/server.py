"""What holds for every request and answer: headers, problem details, limits."""

__all__ = ["HEADERS", "Impatient", "by_names", "problem", "read_body"]

import asyncio
import re
from collections.abc import Mapping, Set
from http import HTTPStatus

import h11
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Bytes of a question, and how long a client may take to send one, s.
_LARGEST_BODY, _REQUEST_S = 1 << 16, 30.0
#: Of every answer. What the page loads is its own, and nobody frames it.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; media-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return problem details (RFC 9457)."""
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(content, status, headers, media_type="application/problem+json")


async def read_body(request: Request, limit: int = _LARGEST_BODY) -> bytes:
    """Return a request's body; raises `HTTPException` 413 if it has more bytes than the limit."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise HTTPException(413, f"the body has more than {limit} bytes")
    return bytes(body)


def by_names(app: ASGIApp, names: Set[str]) -> ASGIApp:
    """Let through what asks by these names: a page can point its own here (DNS rebinding)."""

    async def check(scope: Scope, receive: Receive, send: Send) -> None:
        host = dict(scope.get("headers", ())).get(b"host", b"").decode("latin-1")
        known = scope["type"] != "http" or re.sub(r":\d*$", "", host).lower() in names
        await (app if known else problem(400, f"{host!r} needs --allow-host"))(scope, receive, send)

    return check


class Impatient(H11Protocol):
    """uvicorn's protocol, with a limit for how long a client may take to send a request."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(_REQUEST_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Take some of a request, and stop waiting when it is here as a whole."""
        super().data_received(data)
        whole = self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)
        if whole and self._timer:
            self._timer.cancel()
            self._timer = None
        elif not whole and not self._timer:
            self._timer = self.loop.call_later(_REQUEST_S, self.transport.abort)
