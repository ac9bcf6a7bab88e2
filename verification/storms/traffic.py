"""Healthy callers of a storm: requests at a steady rate over raw sockets, each answer read to its end and timed."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

IDLE_SECONDS = 2.0
"""How long a connection is kept. The service keeps it longer, so none is used while the service closes it."""
ANSWER_SECONDS = 30.0

Headers = Mapping[str, str]


class Dropped(Exception):
    """Raised if a request was not answered in full: refused, reset, cut short or silent."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer. `document` is its JSON, None without any."""

    status: int
    document: Any
    closes: bool


Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Caller:
    """Sends requests to ports of this machine, each over a connection of its own or over kept ones."""

    kept: dict[int, list[tuple[Pipe, float]]] = field(default_factory=lambda: defaultdict(list))

    async def ask(
        self, port: int, method: str, path: str, who: Headers, body: Any = None, *, keeps: bool = True
    ) -> Answered:
        """Return the answer. Raises Dropped."""
        content = b"" if body is None else json.dumps(body).encode()
        return await self.send(port, built(method, path, who, content, keeps=keeps), keeps=keeps)

    async def send(self, port: int, request: bytes, *, keeps: bool = True) -> Answered:
        """Send the bytes of a request and return the answer. Raises Dropped."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                pipe = await self._pipe(port, keeps=keeps)
                try:
                    pipe[1].write(request)
                    found = await _read(pipe[0])
                except BaseException:
                    pipe[1].transport.abort()
                    raise
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise Dropped(type(error).__name__) from error
        if keeps and not found.closes:
            self.kept[port].append((pipe, time.monotonic()))
        else:
            pipe[1].close()
        return found

    def close(self) -> None:
        """Close every kept connection."""
        for kept in self.kept.values():
            for (_, writer), _ in kept:
                writer.close()
        self.kept.clear()

    async def _pipe(self, port: int, *, keeps: bool) -> Pipe:
        kept = self.kept[port] if keeps else []
        while kept:
            (reader, writer), since = kept.pop()
            if time.monotonic() - since < IDLE_SECONDS and not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", port)


def built(method: str, path: str, who: Headers, content: bytes, *, keeps: bool = True) -> bytes:
    """Return the bytes of a request."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{name}: {value}" for name, value in who.items()),
    ]
    if content and "Content-Type" not in who:
        lines.append("Content-Type: application/json")
    if content:
        lines.append(f"Content-Length: {len(content)}")
    lines += [] if keeps else ["Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def _read(reader: asyncio.StreamReader) -> Answered:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    lines = head.split(b"\r\n")
    status = int(lines[0].split(b" ")[1])
    fields = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
    content = await reader.readexactly(int(fields.get(b"content-length", b"0")))
    document = json.loads(content) if content and b"json" in fields.get(b"content-type", b"") else None
    return Answered(status, document, fields.get(b"connection") == b"close")


@dataclass
class Seen:
    """What became of the requests of one span: `statuses` and drops by name, and the seconds of each answer."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Return the number of requests without a 2xx."""
        return sum(number for name, number in self.statuses.items() if not name.startswith("2"))

    def p99(self) -> float:
        """Return the 99th percentile in seconds, 0 without an answer."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] if ordered else 0.0


Request = tuple[str, str, Headers, Any]
Making = Callable[[int, bool], bytes]
"""Makes the bytes of a request from its number, and whether its connection is kept."""


def asking(requests: Sequence[Request]) -> Making:
    """Return what makes these requests, in rotation."""

    def make(number: int, keeps: bool) -> bytes:
        method, path, who, body = requests[number % len(requests)]
        content = b"" if body is None else json.dumps(body).encode()
        return built(method, path, who, content, keeps=keeps)

    return make


class Traffic:
    """Requests at `rate` a second, whatever becomes of them.

    `ports` returns the ports that are in service. Every other request has a connection of its own if `fresh_half`.
    """

    def __init__(
        self,
        make: Making,
        ports: Callable[[], Sequence[int]],
        *,
        rate: float,
        fresh_half: bool = False,
    ) -> None:
        self._make, self._ports = make, ports
        self._pause, self._fresh_half = 1 / rate, fresh_half
        self._caller = Caller()
        self._number = 0
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float) -> Seen:
        """Send for so many seconds, wait for the last answers, and return what became of all."""
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stop.set)
        return await self.run_until(stop)

    async def run_until(self, stop: asyncio.Event) -> Seen:
        """Send until `stop` is set."""
        seen, due = Seen(), time.monotonic()
        while not stop.is_set():
            task = asyncio.create_task(self._one(seen, self._number))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            self._number += 1
            due += self._pause
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    await stop.wait()
        await asyncio.gather(*self._running)
        return seen

    def close(self) -> None:
        """Close the kept connections."""
        self._caller.close()

    async def _one(self, seen: Seen, number: int) -> None:
        ports = self._ports()
        keeps = not self._fresh_half or number // len(ports) % 2 == 0
        began = time.monotonic()
        try:
            found = await self._caller.send(
                ports[number % len(ports)], self._make(number, keeps), keeps=keeps
            )
        except Dropped as dropped:
            seen.statuses[f"dropped: {dropped}"] += 1
            return
        seen.seconds.append(time.monotonic() - began)
        seen.statuses[str(found.status)] += 1
