"""What holds for every answer: who may ask, problem details, headers, limits."""

__all__ = ["CONTENT_POLICY", "Guard", "Turns", "problem", "read_body"]

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TypeVar

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Result = TypeVar("Result")

#: Of the page: what it loads is its own, and nobody frames it.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
#: Bytes of a question.
_BODY = 1 << 16
#: How long a question waits for its turn, and how long those are to wait who were sent away, s.
_PATIENCE_S = 3.0
_RETRY_S = 2

_log = logging.getLogger("mess.service")


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return problem details (RFC 9457)."""
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(content, status, headers, media_type="application/problem+json")


class Guard:
    """Middleware that refuses other names than the service's own, and completes every answer.

    A page elsewhere could make its own name point to this machine (DNS rebinding) and then read
    what is answered here; that it came by a foreign name gives it away.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = {*_LOOPBACK, *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def completed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._admitted(scope)(scope, receive, completed)
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if begun:
                raise
            answer = problem(500, "an error of the service; its log has more")
            await answer(scope, receive, completed)

    def _admitted(self, scope: Scope) -> ASGIApp:
        host = Headers(scope=scope).get("host", "")
        if re.sub(r":\d*$", "", host.lower()) in self._hosts:
            return self._app
        return problem(
            421, f"this service is not {host!r}; allow a name with mess serve --allow-host"
        )


class Turns:
    """Lets so many questions be answered at a time, each in a thread."""

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(at_once)

    async def __call__(self, answer: Callable[..., Result], *given: object) -> Result:
        """Return the answer; raises `HTTPException` 503 if no turn comes in time."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._free.acquire()
        except TimeoutError:
            raise HTTPException(
                503, "too many questions at once; ask again", {"Retry-After": str(_RETRY_S)}
            ) from None
        try:
            return await asyncio.to_thread(answer, *given)
        finally:
            self._free.release()


async def read_body(request: Request, limit: int = _BODY) -> bytes:
    """Return a request's body; raises `HTTPException` 413 if it has more bytes than the limit."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise HTTPException(413, f"the body has more than {limit} bytes")
    return bytes(body)
