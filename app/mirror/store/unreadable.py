"""Record the objects that cannot be read, each with its reason, until they are read well.

The statements that apply a snapshot, or mark a row absent, end the record of its object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.postgres.database import Connection

FORGET: Final = (
    "delete from unreadable_objects u using {source} where u.kind = '{kind}' and u.id = {source}.id"
)
"""A statement's part that ends the records of the rows of `source`."""

_NOTE_PAGE = """
    with read_well as (
        delete from unreadable_objects where kind = $1 and id = any($2::text[])
    )
    insert into unreadable_objects (kind, id, reason)
    select $1, r.id, r.reason from unnest($3::text[], $4::text[]) as r(id, reason) order by r.id
    on conflict (kind, id) do update set reason = excluded.reason"""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object that cannot be read. `age` is the time in seconds since it was found so."""

    kind: str
    id: str
    reason: str
    age: float


async def note_page(
    connection: Connection, kind: str, *, read_well: Sequence[str], reasons: Mapping[str, str]
) -> None:
    """Record the objects of one kind that cannot be read, by id, and end the records of those that were read well."""
    await connection.execute(_NOTE_PAGE, kind, read_well, list(reasons), list(reasons.values()))


async def note(connection: Connection, kind: str, object_id: str, reason: str) -> None:
    """Record an object that cannot be read."""
    await note_page(connection, kind, read_well=(), reasons={object_id: reason})


async def count(connection: Connection) -> int:
    """Return the number of objects that cannot be read."""
    return int(await connection.fetchval("select count(*) from unreadable_objects"))


async def oldest(connection: Connection, *, limit: int) -> list[Unreadable]:
    """Return up to `limit` objects that cannot be read, the one that was found first in front."""
    rows = await connection.fetch(
        """select kind, id, reason, extract(epoch from clock_timestamp() - since)::float as age
        from unreadable_objects order by since, kind, id limit $1""",
        limit,
    )
    return [Unreadable(**dict(row)) for row in rows]
