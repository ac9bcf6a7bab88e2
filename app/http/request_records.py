"""Give each request an id, and log and measure it once, by its operation and never by its path.

It is plain ASGI. Starlette's `BaseHTTPMiddleware`, with its request and response objects, takes longer than most of our
routes.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import structlog
from prometheus_client import Counter, Histogram
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import tracing
from app.errors import InternalError
from app.http import problems
from app.http.headers import header
from app.http.route_names import operation_id
from app.identity.principals import EndUser, ServiceKey
from app.identity.refusals import TokenRejected

log = structlog.get_logger("app.requests")

_CLIENT_ID = re.compile(rb"[A-Za-z0-9_.:\-]{8,64}")
QUIET = frozenset(
    {"healthz", "readyz", "metrics", "stripeWebhook", "getSubscription", "getSharedSubscription"}
)
"""Operations that are counted in metrics, but logged at `debug` unless they were refused.

They can come a thousand times a second, and a log line for each would hide the others.
"""

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
"""Headers on every answer. HSTS is missing on purpose: only the proxy that ends TLS knows whether it applies."""

UNMATCHED = "unmatched"
_REFUSED = 400
_SERVER_ERROR = 500

SECONDS = Histogram(
    "coseat_request_seconds",
    "Time to answer, by operation",
    ["operation"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
REQUESTS = Counter("coseat_requests", "Answers, by operation and status", ["operation", "status"])


class RequestRecords:
    """Give each request an id, and log and measure it once.

    If nothing else has sent an answer, it sends a 500. A caller's own `X-Request-Id` is used if it has 8 to 64 harmless
    characters.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

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
            if tracing.is_on():
                await self._traced(scope, receive, send_with_id)
            else:
                await self.app(scope, receive, send_with_id)
        except Exception as error:
            # Starlette raises the exception again after its handler for `Exception` has sent an answer.
            log.error("unexpected_error", request_id=request_id, error=type(error).__name__, exc_info=error)
            if status == 0:
                await problems.render(InternalError(), Request(scope))(scope, receive, send_with_id)
        finally:
            _record(scope, status, time.perf_counter() - started, request_id)

    async def _traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the inner application in a span, below that of the caller if they sent a `traceparent`."""
        given = header(scope, b"traceparent")
        parent = None if given is None else given.decode("latin-1")

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.note(http__response__status_code=message["status"])
            await send(message)

        with tracing.span("request", kind="server", parent=parent) as span:
            try:
                await self.app(scope, receive, send_and_note)
            finally:
                span.name(_operation(scope))


@lru_cache(maxsize=128)
def _seconds(operation: str) -> Histogram:
    """Return the labelled histogram from a cache, which is faster than the library's own look-up."""
    return SECONDS.labels(operation)


@lru_cache(maxsize=1024)
def _requests(operation: str, status: int) -> Counter:
    """Return the labelled counter from a cache. Few combinations exist."""
    return REQUESTS.labels(operation, status)


def count_failures_from_zero(routes: Iterable[BaseRoute]) -> None:
    """Show that these operations, Stripe's deliveries and what no route matched were answered 500 no times yet.

    A counter that appears with its first failure has not risen, so the alert would miss that failure.
    """
    names = [operation_id(route.name) for route in routes if isinstance(route, Route)]
    for operation in (*names, "stripeWebhook", UNMATCHED):
        _requests(operation, _SERVER_ERROR)


def _operation(scope: Scope) -> str:
    """Return the operationId of the request's route.

    A path may hold customer ids, so it is used only if it is that of a route without parameters.
    """
    name = getattr(scope.get("route"), "name", None)
    if name is not None:
        return operation_id(name)
    # A Starlette route has no parameters here. Otherwise no route matched.
    return str(scope["path"]) if "endpoint" in scope else UNMATCHED


def _record(scope: Scope, status: int, seconds: float, request_id: str) -> None:
    operation = _operation(scope)
    _seconds(operation).observe(seconds)
    _requests(operation, status).inc()
    level = "error" if status >= _SERVER_ERROR else "info"
    if operation in QUIET and status < _REFUSED:
        if not log.is_enabled_for(logging.DEBUG):
            return
        level = "debug"
    getattr(log, level)(
        "request",
        request_id=request_id,
        operation=operation,
        status=status,
        milliseconds=round(seconds * 1000, 1),
        **_story(scope),
    )


def _story(scope: Scope) -> dict[str, Any]:
    """Return what is known of the request: its caller's kind, its error's code, the operation that it began.

    `reason` and `claim` say why the credential was refused. Nothing holds a part of the credential.
    """
    state = scope["state"]
    found = {name: state[name] for name in ("code", "operation_id") if name in state}
    principal, refusal = state.get("principal"), state.get("refusal")
    if isinstance(principal, EndUser):
        found["principal"] = "end_user"
    elif isinstance(principal, ServiceKey):
        found["principal"] = "service_key" if principal.acting_customer is None else "acting_service_key"
    elif principal is not None:
        found["principal"] = "anonymous"
    if isinstance(refusal, TokenRejected):
        found["reason"] = refusal.reason
        if refusal.claim is not None:
            found["claim"] = refusal.claim
    return found
