"""The HTTP server: uvicorn, with deadlines for slow clients and an end that drops no request."""

from __future__ import annotations

import errno
import gc
import signal
import socket
import sys
from types import FrameType
from typing import Any

import structlog
import uvicorn

from app.commands.connections import Connection, Deadlines, State
from app.errors import StartRefused
from app.http.draining import Draining
from app.settings import Settings

KEEP_ALIVE_SECONDS = 5
_REQUEST_SECONDS = 15
"""Of the seconds that accepted work has, those that requests may take. The others are for operations that go on."""
_TICKS_A_SECOND = 10
_COLLECT_AFTER = 20_000
"""Objects after which the garbage collector runs, instead of Python's 700."""
_START_FAILED = 3
_UNREAD_BYTES = 128 * 1024
"""Bytes of answers that the kernel keeps for a client, who may not read them. By itself it would keep up to 4 MB."""
_BACKLOG = 2048
"""Connections that the kernel completes before the process accepts them."""

_log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """A uvicorn server that enforces deadlines and drains before it ends.

    A head, and the reading of an answer, may take `slow_seconds`.
    """

    def __init__(self, config: uvicorn.Config, *, slow_seconds: float, draining: Draining) -> None:
        super().__init__(config)
        self.server_state: State = State(draining)
        self._deadlines = Deadlines(seconds=slow_seconds)
        self._draining = draining

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at SIGTERM; stop accepting at once at SIGINT, which a person sends.

        uvicorn would raise the signal again at the end, so that the exit code would be that of a failure.
        """
        if sig == signal.SIGINT and self.should_exit:
            self.force_exit = True
        self._draining.begin(at_once=sig == signal.SIGINT)

    async def on_tick(self, counter: int) -> bool:
        """Check the connections once a second; uvicorn calls this ten times a second."""
        connections: list[Any] = list(self.server_state.connections)
        if counter % _TICKS_A_SECOND == 0:
            self._deadlines.enforce(connections)
        if self._draining.began:
            for connection in connections:
                connection.let_go()
        self.should_exit = self.should_exit or not self._draining.accepts
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and log the address as soon as requests are accepted."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            _log.info("ready", host=host, port=port)


def listen(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on all addresses of `host`; with port 0 on the first one, at any free port.

    Raises:
        StartRefused: The address cannot be used. The message says what to do.
    """
    found: list[socket.socket] = []
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(addresses if port else addresses[:1]):
            made = socket.socket(family, socket.SOCK_STREAM)
            found.append(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD_BYTES)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
            made.listen(_BACKLOG)
    except OSError as error:
        for made in found:
            made.close()
        raise StartRefused(_not_listening(error, host, port)) from error
    return found


def _not_listening(error: OSError, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"Port {port} of {host} is in use. Stop the process that listens there, or set PORT to another one."
        case errno.EACCES:
            return f"This user may not listen on port {port}. Set PORT to a number above 1023."
        case _:
            return (
                f"{host} is no address of this machine. Set HOST to 127.0.0.1, or to 0.0.0.0 for all of them."
            )


def serve(app: Any, settings: Settings, *, draining: Draining) -> None:
    """Serve until SIGTERM or SIGINT.

    If the application cannot start, the process ends with exit code 3.

    Raises:
        StartRefused: The configured address cannot be used.
    """
    sockets = listen(settings.host, settings.port)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # Otherwise the address in X-Forwarded-For would replace the address of a client on this machine.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_REQUEST_SECONDS,
    )
    # Loaded modules stay in memory, so the collector need not traverse them; and answers leave few cycles to collect.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    server = Server(config, slow_seconds=settings.request_deadline, draining=draining)
    server.run(sockets)
    if not server.started:
        sys.exit(_START_FAILED)
