"""Open and close the context.

It is not part of `main`, so that the worker and commands load no web framework.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from app.context import Context, Rules
from app.postgres.database import Database
from app.settings import Settings
from app.stripe.billing import BillingCalls
from app.stripe.breaker import Breakers
from app.stripe.client import StripeClient
from app.stripe.gateway import StripeGateway
from app.stripe.rate_budget import RateBudget
from app.stripe.waits import StripeWaits


@asynccontextmanager
async def open_context(
    settings: Settings,
    rulebooks: Mapping[str, object] | None = None,
    *,
    reads: int | None = None,
    writes: bool = True,
) -> AsyncIterator[Context]:
    """Open a context for one event loop.

    It is the loop of the API, of the worker or of a command. `rulebooks` is for a process that runs operations, see
    app/operations/kinds.py. `reads`: the number of connections for reads, by default half of them.

    Raises:
        SettingsError: The database or the Stripe key is not configured.
        ServiceUnavailable: `database_unavailable`.
    """
    database = await Database.of(settings, pool_size=settings.database_pool_size, reads=reads)
    watching = asyncio.create_task(database.watch())
    budget = RateBudget(database, per_second=settings.stripe_rate_limit)
    breakers = Breakers()
    client = StripeClient(
        settings.stripe_key,
        api_base=settings.stripe_api_base,
        budget=budget,
        breakers=breakers,
        writes=writes,
    )
    gateway = StripeGateway(client, livemode=settings.stripe_livemode)
    try:
        context = Context(
            database,
            gateway,
            BillingCalls(client),
            Rules.of(settings),
            rulebooks or {},
            breakers=breakers,
            # The other half is for reads that are answered from the cache.
            stripe_waits=StripeWaits(max(1, settings.max_requests // 2)),
        )
        async with context.counts.flushing(database):
            yield context
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await client.close()
        await budget.close()
        await database.close()
