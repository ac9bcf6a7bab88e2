"""A port of a worker: `/healthz` and the metrics of its own process, without a web framework."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.errors import StartRefused
from app.operating import process
from app.postgres.database import Database

_HEAD_BYTES = 8192
_SECONDS = 5.0
_AUTHORIZATION = b"authorization:"


class WorkerPort:
    """Answers one GET a connection. With `token`, `/metrics` needs it as a bearer."""

    def __init__(self, database: Database, *, token: str | None) -> None:
        self._database = database
        self._token = token

    @asynccontextmanager
    async def open(self, host: str, port: int) -> AsyncIterator[int]:
        """Listen during the block, and yield the port. Raises StartRefused if the address cannot be used."""
        try:
            listening = await asyncio.start_server(self._serve, host, port, limit=_HEAD_BYTES)
        except OSError as error:
            raise StartRefused(f"WORKER_PORT {port} of {host} cannot be used. Set another one.") from error
        async with listening as server:
            found: int = server.sockets[0].getsockname()[1]
            yield found

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = self._answer(head)
                writer.write(
                    f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
                    "cache-control: no-store\r\nconnection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # A client that is slow or sends something else gets no answer.
            writer.transport.abort()
        finally:
            writer.close()

    def _answer(self, head: bytes) -> tuple[str, str, bytes]:
        line, *headers = head.split(b"\r\n")
        if line.split(b" ")[:2] == [b"GET", b"/healthz"]:
            return "200 OK", "application/json", b'{"status":"ok"}'
        if line.split(b" ")[:2] != [b"GET", b"/metrics"]:
            return "404 Not Found", "text/plain", b"Only /healthz and /metrics are here."
        if not process.may_read_metrics(_authorization(headers), self._token):
            return "401 Unauthorized", "text/plain", b"Send METRICS_TOKEN as the bearer."
        process.show_connections(self._database)
        return "200 OK", CONTENT_TYPE_LATEST, generate_latest()


def _authorization(headers: list[bytes]) -> bytes:
    found = (one[len(_AUTHORIZATION) :].strip() for one in headers if one.lower().startswith(_AUTHORIZATION))
    return next(found, b"")
