"""Check whether this process can do its work.

There is an answer for each part that it depends on.
"""

from __future__ import annotations

import asyncio
import time

from app.context import Context
from app.errors import BillingError
from app.mirror.first_fill import check_account
from app.postgres import schema

_STRIPE_SECONDS = 30.0
_last_stripe: dict[int, tuple[float, str]] = {}
"""When Stripe was last asked (monotonic seconds) and its answer, by the id of the context.

Probes come every few seconds. Without this cache they would use up a part of Stripe's rate budget.
"""


async def check(context: Context) -> dict[str, str]:
    """Return `ok` or the reason for each of `database`, `migrations` and `stripe`."""
    try:
        async with context.database.reading() as connection:
            migrated = await schema.fits(connection)
    except BillingError as error:
        return {"database": error.code, "migrations": "unknown", "stripe": "unknown"}
    if not migrated:
        return {"database": "ok", "migrations": "behind", "stripe": "unknown"}
    return {"database": "ok", "migrations": "ok", "stripe": await _stripe(context)}


async def _stripe(context: Context) -> str:
    asked_at, known = _last_stripe.get(id(context), (0.0, ""))
    if known and time.monotonic() - asked_at < _STRIPE_SECONDS:
        return known
    try:
        async with asyncio.timeout(5):
            await check_account(context)
        found = "ok"
    except BillingError as error:
        found = error.code
    except TimeoutError:
        found = "stripe_unavailable"
    _last_stripe[id(context)] = (time.monotonic(), found)
    return found
