"""Answer Stripe's webhook deliveries before any routing, which would take as long as the rest of the work."""

from __future__ import annotations

from types import SimpleNamespace

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.context import Context
from app.errors import BillingError, InvalidWebhook, Overloaded
from app.http.bodies import Body, refuse, too_large
from app.http.headers import doubled_header
from app.mirror import webhooks
from app.mirror.ingest import Ingest
from app.mirror.refused_deliveries import RefusedDeliveries
from app.settings import Settings
from app.stripe.webhooks import MAXIMUM_BODY_BYTES

PATH = "/webhooks/stripe"
_ROUTE = SimpleNamespace(name="stripe_webhook")
"""The name of the route in logs and metrics."""

_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"17"),
    (b"cache-control", b"no-store"),
]
_BODY = b'{"received":true}'
_RETRY_AFTER = 5


class StripeWebhook:
    """Answer 200 when the event is durable, 400 if Stripe did not sign it, and 503 if Stripe has to send it again.

    More than `MAX_WAITING_DELIVERIES` at the same time are refused. Stripe sends them again for up to three days.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.working = 0
        self._ingest = Ingest()
        self._refused = RefusedDeliveries()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one delivery."""
        scope["route"] = _ROUTE
        body = Body(receive)
        try:
            signature = _signature(scope)
            content = await body.read(limit=MAXIMUM_BODY_BYTES, seconds=self.settings.request_deadline)
            await self._take(scope["app"].state.context, content, signature)
        except BillingError as error:
            self._refused.note(error, scope["app"].state.context.counts)
            await refuse(error, scope, body, send)
        except ClientDisconnect:
            await Response(status_code=400)(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": _BODY})

    async def _take(self, context: Context, body: bytes, signature: str | None) -> None:
        if self.working >= self.settings.max_waiting_deliveries:
            raise Overloaded(retry_after=_RETRY_AFTER)
        self.working += 1
        try:
            await webhooks.receive(
                context,
                self._ingest,
                body=body,
                signature=signature,
                secrets=self.settings.webhook_secrets,
                livemode=self.settings.stripe_livemode,
            )
        finally:
            self.working -= 1


class WebhookFirst:
    """Pass deliveries to the webhook, and all other requests to the application."""

    def __init__(self, app: ASGIApp, webhook: StripeWebhook) -> None:
        self.app = app
        self.webhook = webhook

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_delivery = scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST"
        await (self.webhook if is_delivery else self.app)(scope, receive, send)


def _signature(scope: Scope) -> str | None:
    """Return the signature header.

    Raises:
        InvalidWebhook: a header that may be sent once was sent more than once.
        PayloadTooLarge: the declared length is too large.
    """
    if doubled_header(scope) is not None:
        raise InvalidWebhook("malformed")
    signature: str | None = None
    for name, value in scope["headers"]:
        if name == b"stripe-signature":
            signature = value.decode("latin-1")
        elif name == b"content-length" and value.isdigit() and int(value) > MAXIMUM_BODY_BYTES:
            raise too_large(MAXIMUM_BODY_BYTES)
    return signature
