"""A request's body, whole or not at all: within its limit of bytes and within a deadline.

The server has no limit of time for reading, so a client that sends a byte a minute would hold what waits for its body.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from app.errors import BillingError, PayloadTooLarge, RequestTimeout
from app.http import problems

READ_AWAY_BYTES: Final = 1024 * 1024
READ_AWAY_SECONDS: Final = 1.0


class Body:
    """The body of one request as it arrives. `ended`: there is nothing left of it to read."""

    __slots__ = ("_receive", "ended")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.ended = not message.get("more_body", False)
        return message

    async def read(self, *, limit: int, seconds: float) -> bytes:
        """Return all of it. `limit` is in bytes; reading stops there while the body is still arriving.

        Raises PayloadTooLarge, RequestTimeout, and ClientDisconnect if nobody is there to be answered.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._read(limit)
        except TimeoutError:
            raise RequestTimeout(f"The body did not arrive within {seconds:g} seconds.") from None

    async def _read(self, limit: int) -> bytes:
        body = bytearray()
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect()
            body += message.get("body", b"")
            if len(body) > limit:
                raise too_large(limit)
            if self.ended:
                return bytes(body)

    async def read_away(self) -> None:
        """Drop what still arrives, at most READ_AWAY_BYTES and for READ_AWAY_SECONDS."""
        read = 0
        try:
            async with asyncio.timeout(READ_AWAY_SECONDS):
                while not self.ended and read < READ_AWAY_BYTES:
                    read += len((await self.receive()).get("body", b""))
        except TimeoutError:
            return


async def refuse(error: BillingError, scope: Scope, body: Body, send: Send) -> None:
    """Answer `error`; a connection whose body was not read to its end is closed after that.

    The rest of a body would be taken for the next request. If the connection were closed while the rest arrives, the
    client would get a reset instead of this answer, or in place of the answer to its next request. So the answer says
    `Connection: close`, and what arrives is read away before the connection ends.
    """
    response = problems.render(error, Request(scope))
    if body.ended:
        await response(scope, body.receive, send)
        return
    response.headers["Connection"] = "close"
    await send(
        {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
    )
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    await body.read_away()
    await send({"type": "http.response.body", "body": b""})


def too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {limit} bytes.")
