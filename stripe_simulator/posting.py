"""Posting webhooks over plain HTTP with connections that are kept open.

A full HTTP client spends more on a local delivery than its receiver does, which would distort what is measured of the
receiver. Addresses with TLS go through httpx.
"""

import asyncio
from collections import deque
from urllib.parse import urlsplit

import httpx

MAX_IDLE = 64
MAX_ANSWER_BYTES = 1_000_000

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
FAILURES = (OSError, TimeoutError, EOFError, ValueError, asyncio.LimitOverrunError, httpx.HTTPError)
"""What a post can fail with."""


class Poster:
    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._idle: dict[tuple[str, int], deque[_Connection]] = {}
        self._secure: httpx.AsyncClient | None = None

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """The status of the answer. Raises one of ``FAILURES`` when there is none in time."""
        parts = urlsplit(url)
        if parts.scheme == "https":
            return await self._post_securely(url, body, headers)
        place = (parts.hostname or "", parts.port or 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"POST {target} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        message = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
        async with asyncio.timeout(self._timeout):
            kept = self._take(place)
            if kept is not None:
                try:
                    return await self._exchange(place, kept, message)
                except (OSError, EOFError):
                    # The receiver had closed the kept connection meanwhile; deliveries may repeat anyway.
                    kept[1].close()
            return await self._exchange(place, await asyncio.open_connection(*place), message)

    def _take(self, place: tuple[str, int]) -> _Connection | None:
        waiting = self._idle.get(place)
        while waiting:
            connection = waiting.pop()
            if not connection[1].is_closing() and not connection[0].at_eof():
                return connection
            connection[1].close()
        return None

    async def _exchange(self, place: tuple[str, int], connection: _Connection, message: bytes) -> int:
        reader, writer = connection
        reusable = False
        try:
            writer.write(message)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = int(head.split(" ", 2)[1])
            reusable = await _skip_body(reader, status, head.lower())
        finally:
            idle = self._idle.setdefault(place, deque())
            if reusable and len(idle) < MAX_IDLE:
                idle.append(connection)
            else:
                writer.close()
        return status

    async def _post_securely(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        if self._secure is None:
            self._secure = httpx.AsyncClient(timeout=self._timeout, trust_env=False)
        return (await self._secure.post(url, content=body, headers=headers)).status_code

    async def close(self) -> None:
        for waiting in self._idle.values():
            for _, writer in waiting:
                writer.close()
        self._idle.clear()
        if self._secure is not None:
            await self._secure.aclose()


async def _skip_body(reader: asyncio.StreamReader, status: int, head: str) -> bool:
    """Reads the answer's body away; whether the connection can carry another request."""
    keep = "connection: close" not in head and head.startswith("http/1.1")
    if status in (204, 304):
        return keep
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name == "content-length":
            size = int(value)
            if size > MAX_ANSWER_BYTES:
                return False
            await reader.readexactly(size)
            return keep
    # A chunked answer, or one that ends with the connection, is not worth reading for its status.
    return False
