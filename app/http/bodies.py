"""Read a request's body completely, within a limit of bytes and a deadline.

uvicorn sets no deadline for a body. Without one, a client that sends a byte a minute would keep its request open and
hold everything that waits for the body.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from app.errors import BillingError, PayloadTooLarge, RequestTimeout
from app.http import problems

DRAIN_BYTES: Final = 1024 * 1024
DRAIN_SECONDS: Final = 1.0


class Body:
    """The body of one request as it arrives.

    `ended` is True once the last part was received.
    """

    __slots__ = ("_receive", "ended")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def receive(self) -> Message:
        """Return the next ASGI message, and note whether it ends the body."""
        message = await self._receive()
        self.ended = not message.get("more_body", False)
        return message

    async def read(self, *, limit: int, seconds: float) -> bytes:
        """Return the whole body.

        `limit` is in bytes. Reading stops as soon as more has arrived, even if the client is still sending.

        Raises:
            PayloadTooLarge: The body is longer than `limit`.
            RequestTimeout: The body did not arrive within `seconds`.
            ClientDisconnect: The client closed the connection, so no answer can reach it.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._read(limit)
        except TimeoutError:
            raise RequestTimeout(
                f"The body did not arrive within {seconds:g} seconds. Send the request again."
            ) from None

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

    async def drain(self) -> None:
        """Receive and discard the rest of the body.

        It stops after DRAIN_BYTES or DRAIN_SECONDS.
        """
        read = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self.ended and read < DRAIN_BYTES:
                    read += len((await self.receive()).get("body", b""))
        except TimeoutError:
            return


async def refuse(error: BillingError, scope: Scope, body: Body, send: Send) -> None:
    """Answer `error`, and close the connection if the body was not read to its end.

    The server would read the rest of the body as the next request, so the connection has to close. If it closed while
    the client still sends, the client would see a reset instead of this answer. So the answer says
    `Connection: close`, and the rest is drained before the connection closes.
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
    await body.drain()
    await send({"type": "http.response.body", "body": b""})


def too_large(limit: int) -> PayloadTooLarge:
    """Return the error for a body of more than `limit` bytes."""
    return PayloadTooLarge(
        f"The body is larger than {limit} bytes, the most that this route takes. Send less."
    )
