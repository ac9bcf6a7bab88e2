"""What surrounds every request: its id, its record in log and metrics, and the limits of its body.

Plain ASGI: a middleware that wraps request and response objects would cost more than most routes do.
"""

from __future__ import annotations

import re
import secrets
import time
from functools import lru_cache

import structlog
from prometheus_client import Histogram
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BillingError, InternalError, UnsupportedMediaType
from app.http import problems
from app.http.bodies import Body, refuse, too_large
from app.http.headers import header

log = structlog.get_logger("app.requests")

API_BODY_BYTES = 64 * 1024
_CLIENT_ID = re.compile(rb"[A-Za-z0-9_.:\-]{8,64}")
_QUIET = frozenset({"/healthz", "/readyz", "/metrics", "/webhooks/stripe"})
"""Counted in metrics, and logged at `debug` unless refused: at a thousand a second a line for each is noise."""

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
"""On every answer. Whether the address is for TLS alone (HSTS) is for the TLS front to say, which knows it."""

_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_REFUSED = 400
_SERVER_ERROR = 500

DURATION = Histogram(
    "coseat_request_seconds",
    "Time to answer, by route template and status",
    ["method", "route", "status"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


class RequestRecords:
    """Gives each request its id (the caller's own `X-Request-Id` where it is harmless), answers it, and logs once."""

    def __init__(self, app: ASGIApp, *, quiet: frozenset[str] = frozenset()) -> None:
        self.app = app
        self._quiet = _QUIET | quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = header(scope, b"x-request-id")
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
                message["headers"] = [*message["headers"], id_header, *SECURITY_HEADERS]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            # The framework raises again what its last handler has answered.
            log.error("unexpected_error", request_id=request_id, error=type(error).__name__, exc_info=error)
            if status == 0:
                await problems.render(InternalError(), Request(scope))(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            _record(scope, status, seconds, request_id, quiet=self._quiet)


@lru_cache(maxsize=1024)
def _duration(method: str, route: str, status: int) -> Histogram:
    """Found again without the library's own look-up; templates and statuses are few, and methods are made so."""
    return DURATION.labels(method if method in _METHODS else "other", route, status)


def _record(scope: Scope, status: int, seconds: float, request_id: str, *, quiet: frozenset[str]) -> None:
    """The route's template, never the path: ids of customers stay out of logs and metrics."""
    route = getattr(scope.get("route"), "path", None)
    if route is None:
        # A plain route has no parameters, so its path is its template; anything else was matched by nothing.
        route = scope["path"] if "endpoint" in scope else "unmatched"
    _duration(scope["method"], route, status).observe(seconds)
    level = "error" if status >= _SERVER_ERROR else "info"
    if route in quiet and status < _REFUSED:
        level = "debug"
    getattr(log, level)(
        "request",
        request_id=request_id,
        method=scope["method"],
        route=route,
        status=status,
        milliseconds=round(seconds * 1000, 1),
    )


class BodyLimits:
    """Reads a body before anything is done for it: within its limit, within its time, and only JSON."""

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
    """Raises PayloadTooLarge and UnsupportedMediaType from what the head alone says."""
    if length is not None and length.isdigit() and int(length) > API_BODY_BYTES:
        raise too_large(API_BODY_BYTES)
    media_type = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise UnsupportedMediaType()
    if (header(scope, b"content-encoding") or b"identity").lower() != b"identity":
        raise UnsupportedMediaType("The body must not be compressed.")


def _given(body: bytes, receive: Receive) -> Receive:
    """The body in one message, and then what the connection says."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return messages.pop() if messages else await receive()

    return give
