"""Build the ASGI application from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__
from app.catalogue import routes as products
from app.customers.routes import customers, invoices, payment_methods
from app.events.routes import endpoints as webhook_endpoints
from app.events.routes import feed as events
from app.events.routes import streams as event_streams
from app.events.routes import webhooks as event_webhooks
from app.events.sending import WebhookSender
from app.events.streams import Streams
from app.http import documentation, idempotency, middleware, openapi, problems
from app.http.draining import Draining
from app.http.in_flight import WritesInFlight
from app.http.overload import ConcurrencyLimit
from app.http.paths import RawSegments
from app.http.rate_limits import RequestRates
from app.http.request_records import RequestRecords, count_failures_from_zero
from app.http.route_names import operation_id
from app.identity import acts
from app.identity.authenticator import Authenticator
from app.mirror.routes import PATH as WEBHOOK_PATH
from app.mirror.routes import StripeWebhook, WebhookFirst
from app.opening import open_context
from app.operating import routes as health
from app.operating.readiness import Readiness
from app.operations import routes as operations
from app.operations import runner as running_operations
from app.settings import Settings
from app.sharing.routes import invitations, transfers
from app.sharing.routes import members as shared_subscriptions
from app.sharing.rulebooks import RULEBOOKS
from app.subscriptions.routes import changes
from app.subscriptions.routes import reads as direct_reads

_EXPOSED_HEADERS = ["ETag", "Location", "Retry-After", "X-Request-Id", "Idempotency-Replayed"]
_ALLOWED_HEADERS = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "Last-Event-ID",
    "X-Request-Id",
]


class Service(FastAPI):
    """FastAPI with our own layers around it, outside of its own layers of middleware.

    `entry` is the outermost layer. An answer that one of them gives does not pass through FastAPI's layers.
    """

    entry: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a request through `entry`, and any other scope to FastAPI."""
        if scope["type"] == "http":
            scope["app"] = self
            await self.entry(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let FastAPI handle the request: routes, parameters, and handlers of exceptions."""
        await super().__call__(scope, receive, send)


def create_app(settings: Settings) -> Service:
    """Return the API.

    Nothing is opened before its lifespan starts, so it can be built for OpenAPI without any configuration.
    """
    draining = Draining(accepting=settings.drain_seconds)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        authenticator = Authenticator(settings)
        try:
            sender = WebhookSender(live=settings.stripe_livemode, seconds=settings.webhook_timeout)
            async with open_context(settings, RULEBOOKS) as context, sender:
                app.state.sender = sender
                app.state.context = context
                app.state.authenticator = authenticator
                yield
                await running_operations.drain(draining.seconds_left())
                await acts.drain()
                await idempotency.drain()
        finally:
            await authenticator.aclose()

    app = Service(
        title="Coseat",
        version=__version__,
        description="Stripe Billing as shared, per-seat subscriptions.",
        contact=openapi.CONTACT,
        license_info=openapi.LICENCE,
        servers=list(openapi.SERVERS),
        openapi_tags=list(openapi.TAGS),
        lifespan=lifespan,
        generate_unique_id_function=lambda route: operation_id(route.name),
        # FastAPI's own pages load their scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # The service has its own metrics and logs. With FastAPI's telemetry, each request would look for spans.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.draining = draining
    app.state.readiness = Readiness(draining)
    app.state.rates = RequestRates(settings)
    app.state.in_flight = WritesInFlight(settings)
    app.state.streams = Streams(most=settings.streams_per_caller, is_draining=lambda: draining.began)
    webhook = StripeWebhook(settings)
    _add_routes(app, webhook)
    if settings.shows_docs:
        documentation.install(app)
    problems.install(app)
    openapi.install(app)
    app.entry = _layers(app, webhook, settings)
    return app


def _add_routes(app: Service, webhook: StripeWebhook) -> None:
    # Starlette tries the routes in this order at every request, so those that are used most come first. They are
    # included one by one, because a router within a router is matched again at each level.
    parts = (
        direct_reads,
        shared_subscriptions,
        payment_methods,
        customers,
        invoices,
        changes,
        products,
        transfers,
        invitations,
        operations,
        events,
        event_streams,
        webhook_endpoints,
    )
    for part in parts:
        app.include_router(part.router, prefix="/v1")
    count_failures_from_zero(route for part in parts for route in part.router.routes)
    event_webhooks.describe(app.webhooks)
    app.include_router(health.router)
    app.router.routes.append(Route(WEBHOOK_PATH, webhook, methods=["POST"], include_in_schema=False))


def _layers(app: Service, webhook: StripeWebhook, settings: Settings) -> ASGIApp:
    """Return the layers around the routes; the last one built sees a request first."""
    entry: ASGIApp = direct_reads.PlainReadsFirst(RawSegments(app.routed))
    places = ConcurrencyLimit(entry, most=settings.max_requests, waiting=settings.max_waiting_requests)
    app.state.places, app.state.webhook, entry = places, webhook, places
    entry = middleware.SingleHeaders(entry)
    # The body is read outside of that limit, so that a client that sends slowly does not occupy a place.
    entry = middleware.BodyLimits(entry, seconds=settings.request_deadline)
    if settings.cors_origins:
        entry = CORSMiddleware(
            entry,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=_ALLOWED_HEADERS,
            expose_headers=_EXPOSED_HEADERS,
            max_age=600,
        )
    return RequestRecords(WebhookFirst(entry, webhook=webhook))
