"""Open what a command or a process works with, after a check of the database's schema."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from app.context import Context
from app.opening import open_context
from app.postgres import schema
from app.postgres.database import Database
from app.settings import Settings


@asynccontextmanager
async def checked_context(
    settings: Settings, rulebooks: Mapping[str, object] | None = None, *, writes: bool = True
) -> AsyncIterator[Context]:
    """Open the context of a command. The arguments are those of `open_context`.

    Raises:
        SchemaRefused: This release cannot run on the database's schema.
        ServiceUnavailable: `database_unavailable`.
    """
    async with open_context(settings, rulebooks, writes=writes) as context:
        async with context.database.reading() as connection:
            await schema.require(connection)
        yield context


@asynccontextmanager
async def checked_database(settings: Settings) -> AsyncIterator[Database]:
    """Open the database with a connection for changes and one for reads. Raises as `checked_context`."""
    database = await Database.of(settings, pool_size=1)
    try:
        # A process starts although no server takes writes: its reads go on, and its writes wait.
        async with database.reading() as connection:
            await schema.require(connection)
        yield database
    finally:
        await database.close()
