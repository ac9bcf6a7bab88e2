"""Hold a lease for work that only one process may do at a time.

It is a row and no advisory lock: behind a pooler, a lock of the session would stay with the pooler's session when its
holder is gone. See docs/decisions/0048-work-behind-a-pooler-in-transaction-mode.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal
from uuid import UUID, uuid4

from app.postgres.database import Connection, Database
from app.postgres.leases import renewing_lease

Name = Literal["fill", "reconcile", "upkeep"]

LEASE_SECONDS = 9.0
_RENEWED_WITHIN = LEASE_SECONDS / 3 + 1
"""Seconds within which a holder that runs has renewed its lease."""

_TAKE = """
    insert into exclusive_work as w (name, lease_token, lease_until)
    values ($1, $2, clock_timestamp() + $3 * interval '1 second')
    on conflict (name) do update set lease_token = excluded.lease_token, lease_until = excluded.lease_until
    where w.lease_until < clock_timestamp()
    returning 1"""
_RENEW = """
    update exclusive_work set lease_until = clock_timestamp() + $3 * interval '1 second'
    where name = $1 and lease_token = $2"""
_RELEASE = "delete from exclusive_work where name = $1 and lease_token = $2"
_HELD_UNTIL = "select lease_until from exclusive_work where name = $1"


@asynccontextmanager
async def exclusive(database: Database, name: Name) -> AsyncIterator[bool]:
    """Take the lease `name` for the block; yields False if another process holds it.

    The block keeps no connection. If a holder was killed, its lease ends after LEASE_SECONDS, and this waits for it.
    If a holder is stopped for longer than that, it goes on without the lease. So the holder's writes need a fence of
    their own, as list scans have.

    Raises:
        ServiceUnavailable: the database does not answer.
    """
    token = uuid4()
    if not await _took(database, name, token):
        yield False
        return

    async def renew(connection: Connection) -> None:
        await connection.execute(_RENEW, name, token, LEASE_SECONDS)

    try:
        async with renewing_lease(database, LEASE_SECONDS, renew):
            yield True
    finally:
        async with database.connection() as connection:
            await connection.execute(_RELEASE, name, token)


async def _took(database: Database, name: Name, token: UUID) -> bool:
    """Take the lease if it is free, or once it has ended. Returns False if its holder has renewed or released it."""
    held: datetime | None = None
    while True:
        async with database.connection() as connection:
            until: datetime | None = await connection.fetchval(_HELD_UNTIL, name)
            if held is not None and until != held:
                return False
            if await connection.fetchval(_TAKE, name, token, LEASE_SECONDS) is not None:
                return True
        if until is not None:
            held = until
            await asyncio.sleep(_RENEWED_WITHIN)
