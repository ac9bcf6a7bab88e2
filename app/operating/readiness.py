"""May this process be sent work: one answer for each part that it depends on."""

from __future__ import annotations

import asyncio
import time

from app.context import Context
from app.errors import BillingError
from app.mirror.first_fill import check_account
from app.postgres import schema

_STRIPE_SECONDS = 30.0
_last_stripe: dict[int, tuple[float, str]] = {}
"""Stripe's answer is kept for half a minute a process: probes come every few seconds and must not eat the budget."""


async def check(context: Context) -> dict[str, str]:
    """`ok` or the reason, for `database`, `migrations` and `stripe`."""
    try:
        async with context.database.connection() as connection:
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
