"""Work that one process at a time may do: an advisory lock of Postgres, which falls with its holder's connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from app.postgres.database import Database

Name = Literal["fill", "reconcile", "upkeep"]
_KEYS: dict[Name, int] = {"fill": 7_203_911_650, "reconcile": 7_203_911_651, "upkeep": 7_203_911_652}


@asynccontextmanager
async def exclusive(database: Database, name: Name) -> AsyncIterator[bool]:
    """False while another process is at it. Keeps one connection, without a transaction, for the block.

    A holder whose connection breaks goes on until its next write is refused: what it writes is fenced as well.
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
