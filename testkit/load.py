"""The load generator: a process of its own that keeps a fixed number of connections busy over raw sockets.

Requests are built before the clock starts; an answer is read as far as its length, its status is checked, and its
latency kept. `python -m testkit.load PLAN` reads a JSON plan and prints one JSON line.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import cast

import orjson
import uvloop

GRACE_SECONDS = 10.0
"""How long the last answers may take."""

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


@dataclass(frozen=True, slots=True)
class Plan:
    """`requests` are (path, bearer token) and are sent in rotation; `seconds` is the measured time."""

    port: int
    connections: int
    seconds: float
    requests: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Measured:
    """Latencies are in milliseconds; `failed` counts answers that are not 2xx."""

    answered: int
    failed: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        return self.answered / self.seconds


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way."""

    def __init__(self, requests: list[bytes], first: int, step: int, until: float) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests, self._next, self._step, self._until = requests, first, step, until
        self._buffer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not registered as asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        request = self._requests[self._next % len(self._requests)]
        self._next += self._step
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.index(_LENGTH) + len(_LENGTH)
        if len(self._buffer) < end + len(_HEAD_END) + int(head[at:].partition(b"\r")[0]):
            return
        now = time.perf_counter()
        self.latencies.append(now - self._sent_at)
        self.failed += not head.startswith(b"http/1.1 2")
        self._buffer = b""
        if now < self._until:
            self._send()
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection"))


def built(request: tuple[str, str], port: int) -> bytes:
    path, token = request
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {token}", "", ""]
    return "\r\n".join(lines).encode()


async def run(plan: Plan) -> Measured:
    requests = [built(request, plan.port) for request in plan.requests]
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    connections: list[Connection] = []
    for first in range(plan.connections):
        _, connection = await loop.create_connection(
            lambda first=first: Connection(requests, first, plan.connections, started + plan.seconds),  # type: ignore[misc]
            "127.0.0.1",
            plan.port,
        )
        connections.append(connection)
    async with asyncio.timeout(plan.seconds + GRACE_SECONDS):
        await asyncio.gather(*(connection.done for connection in connections))
    seconds = time.perf_counter() - started
    latencies = [latency * 1000 for connection in connections for latency in connection.latencies]
    percentiles = quantiles(latencies, n=100) if len(latencies) > 1 else latencies * 99
    failed = sum(connection.failed for connection in connections)
    return Measured(len(latencies), failed, seconds, percentiles[49], percentiles[98])


def main() -> None:
    plan = orjson.loads(Path(sys.argv[1]).read_bytes())
    measured = uvloop.run(run(Plan(**plan)))
    sys.stdout.buffer.write(orjson.dumps(asdict(measured)) + b"\n")


if __name__ == "__main__":
    main()
