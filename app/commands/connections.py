"""The connections of the HTTP server: one request at a time, with deadlines for what a client sends and takes.

uvicorn closes an idle connection after an answer. But it waits without limit for the head of a request and for a client
that does not read its answer, reads a head of any size, and starts the requests that were sent together one after
another. So all open connections are checked once a second.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.http.draining import Draining

_RESET = struct.pack("ii", 1, 0)
"""The kernel discards what it holds when the connection is closed. Otherwise it would offer it to the client on."""
HEAD_BYTES = 128 * 1024
"""Bytes that a connection may send while no request runs: a head, or the rest of a body that was refused."""


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

    def abort(self) -> None:
        """Discard what is not sent yet, also what the kernel holds, and reset the connection."""
        self._held = b""
        if (connection := self._transport.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that the client has not taken, apart from those in the kernel."""
        return len(self._held) + self._transport.get_write_buffer_size()

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


class State(ServerState):
    """What the connections of a server share."""

    def __init__(self, draining: Draining) -> None:
        super().__init__()
        self.draining = draining


class Connection(HttpToolsProtocol):
    """A connection that runs one request at a time and closes after HEAD_BYTES without one.

    If a request arrives before the answer to the last one was handed over, that answer says `Connection: close`, and
    the later request is not run.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._bytes_without_request = 0
        self._was_pipelined = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connection. Its answers are sent as `JoinedWrites` does."""
        # uvloop's transports are not registered as asyncio's.
        super().connection_made(JoinedWrites(cast(asyncio.Transport, transport), self.loop))

    def data_received(self, data: bytes) -> None:
        """Parse the data, and count it if no request runs."""
        if self._was_pipelined:
            # It is read and discarded: if it stayed unread, closing the connection would reset it, and the client might
            # never see the answer.
            return
        super().data_received(data)
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._bytes_without_request = 0
            return
        self._bytes_without_request += len(data)
        if self._bytes_without_request > HEAD_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        """Begin a request, unless another one still runs."""
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._was_pipelined = True
            cycle.keep_alive = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start a request. While the process drains, its answer is the connection's last one."""
        if self._was_pipelined:
            return
        super().on_headers_complete()
        if cast(State, self.server_state).draining.began:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a part of the running request's body."""
        if not self._was_pipelined:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the running request's body has ended."""
        if not self._was_pipelined:
            super().on_message_complete()

    def let_go(self) -> None:
        """Close the connection after the answer of the running request, if one runs."""
        if self.cycle is not None:
            self.cycle.keep_alive = False


class Deadlines:
    """Finds connections whose client sends or reads too slowly.

    One without a running request is closed after `seconds`. One whose client has not taken its answers for as long is
    aborted: closing would wait for the client. `clock` returns monotonic seconds.
    """

    def __init__(self, *, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._waiting: dict[Any, tuple[Any, float]] = {}
        self._unread: dict[Any, float] = {}

    def enforce(self, connections: Iterable[Any]) -> int:
        """End the late ones of all open connections, and return their number."""
        now, ended = self._clock(), 0
        waiting: dict[Any, tuple[Any, float]] = {}
        unread: dict[Any, float] = {}
        for connection in connections:
            cycle = connection.cycle
            if connection.transport.get_write_buffer_size():
                unread[connection] = since = self._unread.get(connection, now)
                if now - since >= self._seconds:
                    connection.transport.abort()
                    ended += 1
            elif cycle is None or cycle.response_complete:
                last, since = self._waiting.get(connection, (cycle, now))
                waiting[connection] = (cycle, since if last is cycle else now)
                if last is cycle and now - since >= self._seconds:
                    connection.transport.close()
                    ended += 1
        self._waiting, self._unread = waiting, unread
        return ended
