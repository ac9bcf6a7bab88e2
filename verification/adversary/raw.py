"""Requests as bytes, for what no HTTP library agrees to send."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg
import orjson

Header = tuple[str, bytes]


@dataclass(frozen=True)
class RawAnswer:
    """`status` 0: the connection was closed without an answer."""

    status: int
    body: bytes

    @property
    def code(self) -> str | None:
        try:
            found = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None
        return found.get("code") if isinstance(found, dict) else None


def head(method: str, path: str, headers: Sequence[Header]) -> bytes:
    """The request's head as it is given; whatever a header holds is sent."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: 127.0.0.1"]
    lines += [name.encode() + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def exchange(
    base_url: str,
    method: str,
    path: str,
    headers: Sequence[Header],
    body: bytes | None = None,
    *,
    seconds: float = 30.0,
) -> RawAnswer:
    """One request on a connection of its own. Raises TimeoutError."""
    length = [] if body is None else [("Content-Length", str(len(body)).encode())]
    request = head(method, path, [*headers, *length, ("Connection", b"close")]) + (body or b"")
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(base_url))
        try:
            writer.write(request)
            received = await _everything(reader)
        finally:
            writer.close()
    return parsed(received)


async def _everything(reader: asyncio.StreamReader) -> bytes:
    """What comes before the connection ends, also if it is reset because we were still sending."""
    received = b""
    try:
        while some := await reader.read(65_536):
            received += some
    except ConnectionError:
        pass
    return received


def parsed(received: bytes) -> RawAnswer:
    first, _, rest = received.partition(b"\r\n")
    words = first.split(b" ")
    if len(words) < 2 or not words[1].isdigit():
        return RawAnswer(0, b"")
    return RawAnswer(int(words[1]), rest.partition(b"\r\n\r\n")[2])


def port_of(base_url: str) -> int:
    port = urlsplit(base_url).port
    assert port is not None
    return port


async def row_counts(database_url: str) -> dict[str, int]:
    """Rows of every table, but for those that count requests and refused deliveries."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
        counters = {"request_rates", "rate_grants", "rate_slowdown", "installation_counts"}
        names = sorted({row["tablename"] for row in tables} - counters)
        counts = " union all ".join(
            f"select '{name}' as name, count(*) as number from \"{name}\"" for name in names
        )
        return {row["name"]: int(row["number"]) for row in await connection.fetch(counts)}
    finally:
        await connection.close()
