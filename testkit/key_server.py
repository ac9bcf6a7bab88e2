"""An identity provider's key endpoint on loopback, with the ways in which one fails."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from testkit.serving import serving

Mode = Literal[
    "keys", "error", "html", "hang", "trickle", "redirect", "too_large", "reset", "empty", "not_found"
]


class KeyServer:
    """Serves `keys` in the way `mode` says and counts the requests."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.mode: Mode = "keys"
        self.requests = 0
        self.port = 0
        self.hanging = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/.well-known/jwks.json"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                await self._write(writer, redirected=request.startswith(b"GET /elsewhere "))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The client is done with this connection.
        finally:
            writer.close()

    async def _write(self, writer: asyncio.StreamWriter, *, redirected: bool) -> None:
        body = json.dumps({"keys": self.keys}).encode()
        status = b"200 OK"
        match self.mode:
            case "hang":
                self.hanging.set()
                await asyncio.sleep(3600)
            case "reset":
                writer.transport.abort()
                return
            case "error":
                status = b"500 Internal Server Error"
            case "not_found":
                status = b"404 Not Found"
            case "redirect" if not redirected:
                status = b"302 Found\r\nLocation: /elsewhere"
            case "html":
                body = b"<html>maintenance</html>"
            case "empty":
                body = b'{"keys": []}'
            case "too_large":
                body = json.dumps({"keys": self.keys, "padding": "x" * 1_000_000}).encode()
        writer.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % (status, len(body))
        )
        if self.mode == "trickle":
            for byte in body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.1)
        writer.write(body)
        await writer.drain()


@asynccontextmanager
async def key_server() -> AsyncIterator[KeyServer]:
    """A key server on a free port for the length of the block."""
    served = KeyServer()
    async with serving(served._answer) as served.port:
        yield served
