"""Layers around every request: its id, log and metrics, and its body's limits.

They are plain ASGI. Starlette's `BaseHTTPMiddleware`, with its request and response objects, takes longer than most of
our routes.
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

from app.errors import BillingError, DuplicateHeader, FieldError, InternalError, UnsupportedMediaType
from app.http import problems
from app.http.bodies import Body, refuse, too_large
from app.http.headers import doubled_header, header
from app.identity.refusals import TokenRejected

log = structlog.get_logger("app.requests")

API_BODY_BYTES = 64 * 1024
_CLIENT_ID = re.compile(rb"[A-Za-z0-9_.:\-]{8,64}")
_QUIET = frozenset({"/healthz", "/readyz", "/metrics", "/webhooks/stripe"})
"""Paths that are counted in metrics, but logged at `debug` unless they were refused.

They can come a thousand times a second, and a log line for each would hide the others.
"""

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
"""Headers on every answer. HSTS is missing on purpose: only the proxy that ends TLS knows whether it applies."""

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
    """Give each request an id, and log and measure it once.

    If nothing else has sent an answer, it sends a 500. A caller's own `X-Request-Id` is used if it has 8 to 64 harmless
    characters.
    """

    def __init__(self, app: ASGIApp, *, quiet: frozenset[str] = frozenset()) -> None:
        self.app = app
        self._quiet = _QUIET | quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the inner application with an id, and record the outcome."""
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
            # Starlette raises the exception again after its handler for `Exception` has sent an answer.
            log.error("unexpected_error", request_id=request_id, error=type(error).__name__, exc_info=error)
            if status == 0:
                await problems.render(InternalError(), Request(scope))(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            _record(scope, status, seconds, request_id, quiet=self._quiet)


@lru_cache(maxsize=1024)
def _duration(method: str, route: str, status: int) -> Histogram:
    """Return the labelled histogram from a cache.

    The cache is faster than the library's own look-up. Few combinations exist: templates and statuses are few, and
    unknown methods count as `other`.
    """
    return DURATION.labels(method if method in _METHODS else "other", route, status)


def _record(scope: Scope, status: int, seconds: float, request_id: str, *, quiet: frozenset[str]) -> None:
    """Log and measure a request by its route's template.

    Its path may hold customer ids, so it is not recorded.
    """
    route = getattr(scope.get("route"), "path", None)
    if route is None:
        # A Starlette route has no parameters here, so its path is its template. Otherwise no route matched.
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
        **_refusal(scope),
    )


def _refusal(scope: Scope) -> dict[str, str]:
    """Return why the credential was refused, and the claim at fault. It holds no part of the credential."""
    refusal = scope["state"].get("refusal")
    if not isinstance(refusal, TokenRejected):
        return {}
    return {"reason": refusal.reason} | ({} if refusal.claim is None else {"claim": refusal.claim})


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
