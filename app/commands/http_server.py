"""The HTTP server: uvicorn, with a deadline for the head of a request.

uvicorn closes an idle connection after an answer. But it waits without limit for the head of a request, and reads a
head of any size. So all open connections are checked once a second.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.settings import Settings

HEAD_BYTES = 128 * 1024
"""Bytes that a connection may send while no request runs: a head, or the rest of a body that was refused."""
KEEP_ALIVE_SECONDS = 5
_TICKS_A_SECOND = 10
_COLLECT_AFTER = 20_000
"""Objects after which the garbage collector runs, instead of Python's 700."""
_START_FAILED = 3


class JoinedWrites(asyncio.Transport):
    """A transport that sends two writes of one turn of the loop together.

    uvicorn writes the head of an answer and its body apart, which costs this process a system call, and both ends of
    the connection a packet. The first write waits for the second one, or for the end of the turn.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hold the data if nothing is held, otherwise send both."""
        if self._held:
            data, self._held = self._held + data, b""
            self._transport.write(data)
        elif data:
            self._held = bytes(data)
            self._loop.call_soon(self._send_held)

    def _send_held(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            self._transport.write(data)

    def close(self) -> None:
        """Send what is held, and close the connection."""
        self._send_held()
        self._transport.close()

    def is_closing(self) -> bool:
        """Return True if the connection is closed or closing."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows of the connection."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Receive no more data until `resume_reading`."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Receive data again."""
        self._transport.resume_reading()


class Connection(HttpToolsProtocol):
    """A connection that closes after HEAD_BYTES without a running request."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._bytes_without_request = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connection. Its answers are sent as `JoinedWrites` does."""
        # uvloop's transports are not registered as asyncio's.
        super().connection_made(JoinedWrites(cast(asyncio.Transport, transport), self.loop))

    def data_received(self, data: bytes) -> None:
        """Parse the data, and count it if no request runs."""
        super().data_received(data)
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._bytes_without_request = 0
            return
        self._bytes_without_request += len(data)
        if self._bytes_without_request > HEAD_BYTES:
            self.transport.close()


class LateHeads:
    """Finds connections without a running request for `seconds`.

    `clock` returns monotonic seconds.
    """

    def __init__(self, *, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._waiting: dict[Any, tuple[Any, float]] = {}

    def close(self, connections: Iterable[Any]) -> int:
        """Close the late ones of all open connections, and return their number."""
        now, waiting, closed = self._clock(), {}, 0
        for connection in connections:
            cycle = connection.cycle
            if cycle is not None and not cycle.response_complete:
                continue
            last, since = self._waiting.get(connection, (cycle, now))
            if last is not cycle:
                since = now
            if now - since >= self._seconds:
                connection.transport.close()
                closed += 1
            else:
                waiting[connection] = (cycle, since)
        self._waiting = waiting
        return closed


class Server(uvicorn.Server):
    """A uvicorn server that closes connections with a late head.

    A head may take `head_seconds`.
    """

    def __init__(self, config: uvicorn.Config, *, head_seconds: float) -> None:
        super().__init__(config)
        self._late = LateHeads(seconds=head_seconds)

    async def on_tick(self, counter: int) -> bool:
        """Check the connections once a second; uvicorn calls this ten times a second."""
        if counter % _TICKS_A_SECOND == 0:
            self._late.close(list(self.server_state.connections))
        return await super().on_tick(counter)


def serve(app: Any, settings: Settings, *, grace_seconds: int) -> None:
    """Serve until SIGTERM or SIGINT.

    If the server cannot start, the process ends with exit code 3.
    """
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # Otherwise the address in X-Forwarded-For would replace the address of a client on this machine.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=grace_seconds,
    )
    # Loaded modules stay in memory, so the collector need not traverse them; and answers leave few cycles to collect.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    server = Server(config, head_seconds=settings.request_deadline)
    server.run()
    if not server.started:
        sys.exit(_START_FAILED)
