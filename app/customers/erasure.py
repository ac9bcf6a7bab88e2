"""Erase a person whose customer was deleted at Stripe: their e-mail and name are blanked everywhere here.

A trigger notes the deletion in the statement that applies it, and a worker erases within seconds. What stays, ids,
instants and actions, is listed in SECURITY.md.
"""

from __future__ import annotations

import structlog

from app.context import Context
from app.customers.store import erasures

log = structlog.get_logger(__name__)

_BATCH = 20


async def erase_deleted(context: Context) -> int:
    """Erase up to 20 deleted customers, each in a transaction of its own, and return their number.

    One that fails is logged and tried again later, so that it holds up no other.

    Raises:
        ServiceUnavailable: The database does not answer.
    """
    async with context.database.connection() as connection:
        due = await erasures.due(connection, limit=_BATCH)
    return sum([await _is_erased(context, customer_id) for customer_id in due])


async def _is_erased(context: Context, customer_id: str) -> bool:
    try:
        async with context.database.transaction() as connection:
            return await erasures.erase(connection, customer_id)
    except Exception as error:  # An error about one customer must not stop the erasure of others.
        log.error("erasure_failed", customer_id=customer_id, error=type(error).__name__, exc_info=error)
    async with context.database.connection() as connection:
        await erasures.postpone(connection, customer_id)
    return False
