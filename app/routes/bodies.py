"""A request's body, whole or not at all: within its limit of bytes and within a deadline.

The server has no limit of time for reading, so one that sends a byte a minute would hold what waits for its body.
"""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.errors import PayloadTooLarge, RequestTimeout


async def read_body(receive: Receive, *, limit: int, seconds: float) -> bytes:
    """Stops at the limit while the body is still arriving.

    Raises PayloadTooLarge, RequestTimeout, and ClientDisconnect where nobody is there to be answered.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _read(receive, limit)
    except TimeoutError:
        raise RequestTimeout(f"The body did not arrive within {seconds:g} seconds.") from None


async def _read(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect()
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)


def too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {limit} bytes.")
