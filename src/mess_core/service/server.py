"""The server: uvicorn, with limits for clients that are slow to send or to take."""

__all__ = ["Server", "make_server"]

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

#: How long a client may take to send a request, and to take anything of an answer, s.
REQUEST_S = 15.0
STALLED_S = 60.0
#: How long requests may go on after SIGTERM, s.
SHUTDOWN_S = 10


class _Impatient(H11Protocol):
    """Ends connections whose client takes too long; uvicorn has no limits for these."""

    _asking: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def _watch(self) -> None:
        """Give a request that is not here as a whole a limit, which more of it does not extend."""
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            if self._asking is None:
                self._asking = self.loop.call_later(REQUEST_S, self.transport.abort)
        elif self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taking = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._taking is not None:
            self._taking.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._asking, self._taking):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """Says where it is once it can be asked."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[int], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then call ``announce`` with the port."""
        await super().startup(sockets)
        self._announce(self.servers[0].sockets[0].getsockname()[1])


def make_server(app: Any, host: str, port: int, announce: Callable[[int], None]) -> Server:
    """Return a server; its ``run`` ends after SIGINT or SIGTERM, when what runs has finished."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Impatient,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    return Server(config, announce)
