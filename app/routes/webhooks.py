"""Stripe's deliveries: a plain Starlette endpoint, because every microsecond and every dependency counts here."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from app.routes.dependencies import get_context, get_settings
from app.services import webhooks


async def stripe_webhook(request: Request) -> Response:
    """Answers 200 once the event is durable, 400 for what Stripe did not sign, 503 where it must try again."""
    settings = get_settings(request)
    await webhooks.receive(
        get_context(request),
        body=await request.body(),
        signature=request.headers.get("stripe-signature"),
        secrets=settings.webhook_secrets,
        livemode=settings.stripe_livemode,
    )
    return Response(b'{"received":true}', media_type="application/json")
