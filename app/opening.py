"""What use cases need, opened and closed again: apart from `main`, so that a command needs no web framework."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.cache.database import Database
from app.services.context import Context, Rules
from app.services.rate_budget import RateBudget
from app.settings import Settings
from app.stripe_gateway.billing import BillingCalls
from app.stripe_gateway.client import StripeClient
from app.stripe_gateway.gateway import StripeGateway


@asynccontextmanager
async def open_context(settings: Settings) -> AsyncIterator[Context]:
    """For one event loop: of the API, of the worker or of a command."""
    database = await Database.connect(settings.dsn, pool_size=settings.database_pool_size)
    budget = RateBudget(database, per_second=settings.stripe_rate_limit)
    client = StripeClient(settings.stripe_key, api_base=settings.stripe_api_base, budget=budget)
    gateway = StripeGateway(client, livemode=settings.stripe_livemode)
    try:
        yield Context(database, gateway, BillingCalls(client), Rules.of(settings))
    finally:
        await client.close()
        await budget.close()
        await database.close()
