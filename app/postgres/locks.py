"""Hold an advisory lock of PostgreSQL for work that only one process may do at a time.

The lock ends with its holder's connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from app.postgres.database import Database

Name = Literal["fill", "reconcile", "upkeep"]
_KEYS: dict[Name, int] = {"fill": 7_203_911_650, "reconcile": 7_203_911_651, "upkeep": 7_203_911_652}


@asynccontextmanager
async def exclusive(database: Database, name: Name) -> AsyncIterator[bool]:
    """Take the lock `name` for the block; yields False if another process holds it.

    The block keeps one connection without a transaction. If that connection breaks, the lock is free although the
    holder still runs. So the holder's writes need a fence of their own, as list scans have.

    Raises:
        ServiceUnavailable: the database does not answer.
    """
    async with database.connection() as connection:
        if not await connection.fetchval("select pg_try_advisory_lock($1)", _KEYS[name]):
            yield False
            return
        try:
            yield True
        finally:
            if not connection.is_closed():
                await connection.execute("select pg_advisory_unlock($1)", _KEYS[name])
