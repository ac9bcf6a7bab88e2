"""What surrounds every request: its id, its record in log and metrics, and the limits of its body.

Plain ASGI: a middleware that wraps request and response objects would cost more than most routes do.
"""

from __future__ import annotations

import re
import secrets
import time

import structlog
from fastapi import HTTPException
from prometheus_client import Histogram
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BillingError, InternalError, PayloadTooLarge, UnsupportedMediaType
from app.routes import problems
from app.stripe_gateway.webhooks import MAXIMUM_BODY_BYTES as WEBHOOK_BODY_BYTES

log = structlog.get_logger("app.requests")

API_BODY_BYTES = 64 * 1024
_CLIENT_ID = re.compile(rb"[A-Za-z0-9_.:\-]{8,64}")
_UNLOGGED = frozenset({"/healthz", "/readyz", "/metrics", "/webhooks/stripe"})
"""Counted in metrics, and logged only when refused: at a thousand deliveries a second a line for each is noise."""

_REFUSED = 400
_SERVER_ERROR = 500

DURATION = Histogram(
    "coseat_request_seconds",
    "Time to answer, by route template and status",
    ["method", "route", "status"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


def _header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


class RequestRecords:
    """Gives each request its id (the caller's own `X-Request-Id` where it is harmless), answers it, and logs once."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = _header(scope, b"x-request-id")
        if given is not None and _CLIENT_ID.fullmatch(given):
            request_id = given.decode()
        else:
            request_id = f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})["request_id"] = request_id
        id_header = (b"x-request-id", request_id.encode())
        status = 0
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], id_header, (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            # Starlette raises again what its last handler has answered; here it has been answered and logged.
            if status == 0:
                log.error(
                    "unanswered_error", request_id=request_id, error=type(error).__name__, exc_info=error
                )
                await problems.render(InternalError(), Request(scope))(scope, receive, send_with_id)
        finally:
            _record(scope, status, time.perf_counter() - started, request_id)


def _record(scope: Scope, status: int, seconds: float, request_id: str) -> None:
    """The route's template, never the path: ids of customers stay out of logs and metrics."""
    route = getattr(scope.get("route"), "path", None)
    if route is None:
        # A plain route has no parameters, so its path is its template; anything else was matched by nothing.
        route = scope["path"] if "endpoint" in scope else "unmatched"
    DURATION.labels(scope["method"], route, status).observe(seconds)
    if route in _UNLOGGED and status < _REFUSED:
        return
    write = log.error if status >= _SERVER_ERROR else log.info
    write(
        "request",
        request_id=request_id,
        method=scope["method"],
        route=route,
        status=status,
        milliseconds=round(seconds * 1000, 1),
    )


class BodyLimits:
    """Stops a body at its limit while it is still arriving, and refuses one that is not JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        is_webhook = scope["path"].startswith("/webhooks/")
        limit = WEBHOOK_BODY_BYTES if is_webhook else API_BODY_BYTES
        refusal = _refusal(scope, limit, is_webhook=is_webhook)
        if refusal is not None:
            await problems.render(refusal, Request(scope))(scope, receive, send)
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > limit:
                    # FastAPI turns whatever else fails while a body is read into a 400.
                    raise HTTPException(PayloadTooLarge.status)
            return message

        await self.app(scope, limited, send)


def _refusal(scope: Scope, limit: int, *, is_webhook: bool) -> BillingError | None:
    length = _header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > limit:
        return PayloadTooLarge(f"The body is larger than {limit} bytes.")
    has_body = _header(scope, b"transfer-encoding") is not None or (length is not None and length != b"0")
    if has_body and not is_webhook:
        media_type = (_header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
        if media_type != b"application/json":
            return UnsupportedMediaType()
    return None
