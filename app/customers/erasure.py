"""Erase a person whose customer was deleted at Stripe: their e-mail and name are blanked everywhere here.

A trigger notes the deletion in the statement that applies it, and a worker erases within seconds. What stays, ids,
instants and actions, is listed in SECURITY.md.
"""

from __future__ import annotations

from app.context import Context
from app.customers.store import erasures

_BATCH = 20


async def erase_deleted(context: Context) -> int:
    """Erase a batch of deleted customers, and return their number.

    Raises:
        ServiceUnavailable: The database does not answer.
    """
    async with context.database.transaction() as connection:
        return await erasures.erase(connection, limit=_BATCH)
