"""The server itself: a connection that does not get on is ended, whatever it waits for.

uvicorn ends connections that are idle between requests. It waits without end for a request's first line, and for a client
that reads no answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from shortrun.errors import UserError

REQUEST_SECONDS = 10.0
"""In which a connection has to send a request's headers."""
ANSWER_SECONDS = 150.0
"""In which an answer has to be given and taken: longer than sampling may take."""
MOST_CONNECTIONS = 256
HEADER_BYTES = 16_384


class TimedProtocol(H11Protocol):
    """uvicorn's protocol, with a time for every part of a connection."""

    _end: asyncio.TimerHandle | None = None
    _answering: Any = None
    """The exchange that the time runs for; None while the connection waits for a request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does so only for sockets that name their protocol, which `create_server` does not: without it, each answer
        # waits 40 ms for the client's system to acknowledge its headers
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end:
            self._end.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        """Begins to count anew where another part of the connection has begun."""
        under_way = self.cycle if self.cycle is not None and not self.cycle.response_complete else None
        if self._end and under_way is self._answering:
            return
        if self._end:
            self._end.cancel()
        self._answering = under_way
        self._end = self.loop.call_later(ANSWER_SECONDS if under_way else REQUEST_SECONDS, self.transport.abort)


def listening(host: str, port: int) -> socket.socket:
    """A socket at that address; raises UserError where it can't be had."""
    if not 0 <= port < 2**16:
        raise UserError(f"--port {port} must be at least 0 and below 65,536")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[
            0
        ]  # the address, which Python adds, is said already
        raise UserError(f"{host} port {port} can't be listened at: {reason}; --port 0 takes a free port") from None


def server_of(app: ASGIApp, ready: Callable[[], None]) -> uvicorn.Server:
    """A server that logs nothing, calls `ready` when it answers, and ends on Ctrl-C."""
    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="critical",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
    )
    return _Server(config, ready)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()
