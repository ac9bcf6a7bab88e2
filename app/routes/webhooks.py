"""Stripe's deliveries, answered before any routing: the way through the framework costs as much as the rest."""

from __future__ import annotations

from types import SimpleNamespace

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import BillingError, PayloadTooLarge
from app.routes import problems
from app.services import webhooks
from app.settings import Settings
from app.stripe_gateway.webhooks import MAXIMUM_BODY_BYTES

PATH = "/webhooks/stripe"
_ROUTE = SimpleNamespace(path=PATH)
"""What logs and metrics call it."""

_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"17")]
_BODY = b'{"received":true}'


class StripeWebhook:
    """Answers 200 once the event is durable, 400 for what Stripe did not sign, 503 where it must try again."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = _ROUTE
        try:
            body, signature = await _read(scope, receive)
            await webhooks.receive(
                scope["app"].state.context,
                body=body,
                signature=signature,
                secrets=self.settings.webhook_secrets,
                livemode=self.settings.stripe_livemode,
            )
        except BillingError as error:
            await problems.render(error, Request(scope))(scope, receive, send)
        except ClientDisconnect:
            await Response(status_code=400)(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": _BODY})


class WebhookFirst:
    """Hands deliveries to the webhook, and everything else on."""

    def __init__(self, app: ASGIApp, webhook: StripeWebhook) -> None:
        self.app = app
        self.webhook = webhook

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_delivery = scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST"
        await (self.webhook if is_delivery else self.app)(scope, receive, send)


async def _read(scope: Scope, receive: Receive) -> tuple[bytes, str | None]:
    """The body, stopped at its limit while it is still arriving, and the signature."""
    signature: str | None = None
    for name, value in scope["headers"]:
        if name == b"stripe-signature":
            signature = value.decode("latin-1")
        elif name == b"content-length" and value.isdigit() and int(value) > MAXIMUM_BODY_BYTES:
            raise _too_large()
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect()
        body += message.get("body", b"")
        if len(body) > MAXIMUM_BODY_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            return body, signature


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {MAXIMUM_BODY_BYTES} bytes.")
