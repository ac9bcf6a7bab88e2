"""The HTTP server: uvicorn, and an end to connections on which no request comes about.

uvicorn ends an idle connection after an answer, but waits without end for a request's head, and reads one of any size.
The times are watched from outside: once a second the open connections are looked through.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.settings import Settings

HEAD_BYTES = 128 * 1024
"""Received outside of a request at work: a head, or the rest of a body that was refused."""
KEEP_ALIVE_SECONDS = 5
_TICKS_A_SECOND = 10
_COLLECT_AFTER = 20_000
"""Containers made and not freed since the last collection, instead of 700."""
_START_FAILED = 3


class Connection(HttpToolsProtocol):
    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._bytes_in_vain = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._bytes_in_vain = 0
            return
        self._bytes_in_vain += len(data)
        if self._bytes_in_vain > HEAD_BYTES:
            self.transport.close()


class LateHeads:
    """Which connections have had no request at work for `seconds`. `clock` returns seconds that never go back."""

    def __init__(self, *, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._waiting: dict[Any, tuple[Any, float]] = {}

    def close(self, connections: Iterable[Any]) -> int:
        """Looks through all open connections of the server; the number that was closed."""
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
    def __init__(self, config: uvicorn.Config, *, head_seconds: float) -> None:
        super().__init__(config)
        self._late = LateHeads(seconds=head_seconds)

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_A_SECOND == 0:
            self._late.close(list(self.server_state.connections))
        return await super().on_tick(counter)


def serve(app: Any, settings: Settings, *, grace_seconds: int) -> None:
    """Until SIGTERM or SIGINT. Ends the process with exit code 3 where the server cannot start."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # Else an address from X-Forwarded-For would stand for that of a neighbour on this machine.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=grace_seconds,
    )
    # What was loaded stays: no collection has to look through it again, and an answer's own objects hardly need one.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    server = Server(config, head_seconds=settings.request_deadline)
    server.run()
    if not server.started:
        sys.exit(_START_FAILED)
