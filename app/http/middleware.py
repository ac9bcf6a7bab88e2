"""Layers around every request: limits of its body, and headers that may be sent once.

They are plain ASGI, as `request_records` is.
"""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BillingError, DuplicateHeader, FieldError, UnsupportedMediaType
from app.http import problems
from app.http.bodies import Body, refuse, too_large
from app.http.headers import doubled_header, header

API_BODY_BYTES = 64 * 1024


class BodyLimits:
    """Read a body before any other work.

    It must be JSON, within API_BODY_BYTES and within `seconds`.
    """

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the inner application with the whole body, or refuse the body."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        length = header(scope, b"content-length")
        if header(scope, b"transfer-encoding") is None and length in (None, b"0"):
            await self.app(scope, receive, send)
            return
        body = Body(receive)
        try:
            _check_kind(scope, length)
            content = await body.read(limit=API_BODY_BYTES, seconds=self.seconds)
        except BillingError as error:
            await refuse(error, scope, body, send)
        except ClientDisconnect:
            await Response(status_code=400)(scope, receive, send)
        else:
            await self.app(scope, _given(content, receive), send)


def _check_kind(scope: Scope, length: bytes | None) -> None:
    """Check the headers of a body. Raises PayloadTooLarge or UnsupportedMediaType."""
    if length is not None and length.isdigit() and int(length) > API_BODY_BYTES:
        raise too_large(API_BODY_BYTES)
    media_type = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise UnsupportedMediaType("Content-Type must be application/json. Send the body as JSON.")
    if (header(scope, b"content-encoding") or b"identity").lower() != b"identity":
        raise UnsupportedMediaType("Content-Encoding must be absent. Send the body uncompressed.")


def _given(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body in one message.

    After that it gives the connection's own messages.
    """
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return messages.pop() if messages else await receive()

    return give


class SingleHeaders:
    """Refuse a request that sends a deciding header more than once, on every route."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the inner application, or answer 400 `duplicate_header`."""
        name = doubled_header(scope) if scope["type"] == "http" else None
        if name is None:
            await self.app(scope, receive, send)
            return
        detail = f"{name} was sent more than once. Send it once."
        error = DuplicateHeader(detail, errors=[FieldError(f"header/{name}", "duplicate_header", detail)])
        await problems.render(error, Request(scope))(scope, receive, send)
