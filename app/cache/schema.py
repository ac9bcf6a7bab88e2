"""Which migration the database stands at, and which one this code needs."""

from __future__ import annotations

import asyncpg

from app.cache.database import Connection

HEAD = "0009"
"""The newest migration; a test holds it to the files in migrations/versions."""


async def is_current(connection: Connection) -> bool:
    try:
        return bool(await connection.fetchval("select version_num = $1 from alembic_version", HEAD))
    except asyncpg.UndefinedTableError:
        return False
