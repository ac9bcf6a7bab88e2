"""Compare the schema of the database with the one that this release needs.

A schema has the number of its newest migration. See docs/decisions/0015-squash-migrations-before-the-first-release.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg

from app.errors import SchemaRefused
from app.postgres.database import Connection

HEAD = "0026"
"""The newest migration, which is the schema that this release needs. A test compares it with the files."""


@dataclass(frozen=True, slots=True)
class SchemaState:
    """The state of the database's schema.

    `number` is that of its newest migration, or None if it has no schema. `floor` is the number of the oldest release
    that may run on it.
    """

    number: int | None
    floor: int

    def refusal(self) -> str | None:
        """Return None if this release can run on the schema, otherwise a text that says what to do."""
        needed = int(HEAD)
        if self.number is None:
            return "The database has no schema yet. Run `coseat migrate`, then start this process again."
        if self.number < needed:
            return (
                f"The database is at schema {self.number:04} and this release needs {needed:04}. "
                "Run `coseat migrate`, then start this process again."
            )
        if self.floor > needed:
            return (
                f"The database is at schema {self.number:04}, which only releases from schema {self.floor:04} on can "
                f"use, and this release is at {needed:04}. Start a newer release."
            )
        return None


async def read_schema_state(connection: Connection) -> SchemaState:
    """Return the state of the database's schema, which may be missing or newer than this release."""
    version = await _value(connection, "select version_num from alembic_version")
    floor = await _value(connection, "select number from schema_floor")
    return SchemaState(
        int(version) if version is not None and version.isdecimal() else None, 0 if floor is None else floor
    )


async def require(connection: Connection) -> None:
    """Check that this release can run on the database's schema. Raises SchemaRefused."""
    if (refusal := (await read_schema_state(connection)).refusal()) is not None:
        raise SchemaRefused(refusal)


async def fits(connection: Connection) -> bool:
    """Return True if this release can run on the database's schema."""
    return (await read_schema_state(connection)).refusal() is None


async def _value(connection: Connection, query: str) -> Any:
    try:
        return await connection.fetchval(query)
    except asyncpg.UndefinedTableError:
        return None
