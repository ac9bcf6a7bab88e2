"""How far the first fill has come, and which Stripe account this database mirrors."""

from __future__ import annotations

from dataclasses import dataclass

from app.cache.database import Connection


@dataclass(frozen=True, slots=True)
class Cursor:
    """`objects` counts all that was seen of a kind, over every run."""

    last_id: str | None
    objects: int
    finished: bool


async def remember_account(connection: Connection, account_id: str, *, livemode: bool) -> tuple[str, bool]:
    """Stores the account where none is stored yet; returns the one that is."""
    await connection.execute(
        "insert into account (id, livemode) values ($1, $2) on conflict do nothing", account_id, livemode
    )
    row = await connection.fetchrow("select id, livemode from account")
    if row is None:
        raise LookupError("the account row vanished")
    return row["id"], row["livemode"]


async def known_account(connection: Connection) -> tuple[str, bool] | None:
    row = await connection.fetchrow("select id, livemode from account")
    return None if row is None else (row["id"], row["livemode"])


async def is_filled(connection: Connection) -> bool:
    return bool(await connection.fetchval("select exists (select from account where filled_at is not null)"))


async def note_filled(connection: Connection) -> None:
    await connection.execute("update account set filled_at = coalesce(filled_at, clock_timestamp())")


async def cursor(connection: Connection, kind: str) -> Cursor:
    row = await connection.fetchrow(
        "select last_id, objects, finished_at is not null as finished from fill_cursors where kind = $1", kind
    )
    return Cursor(None, 0, finished=False) if row is None else Cursor(**dict(row))


async def start_over(connection: Connection, kind: str) -> None:
    """Stripe no longer knows the object at which the last page ended."""
    await connection.execute("update fill_cursors set last_id = null where kind = $1", kind)


async def advance(
    connection: Connection, kind: str, *, last_id: str | None, objects: int, finished: bool
) -> Cursor:
    """In the transaction that wrote the page, so that a killed run repeats at most the page it was at."""
    row = await connection.fetchrow(
        """insert into fill_cursors as f (kind, last_id, objects, finished_at)
        values ($1, $2, $3, case when $4 then clock_timestamp() end)
        on conflict (kind) do update set last_id = coalesce(excluded.last_id, f.last_id),
            objects = f.objects + excluded.objects, finished_at = excluded.finished_at
        returning last_id, objects, finished_at is not null as finished""",
        kind,
        last_id,
        objects,
        finished,
    )
    if row is None:
        raise LookupError("an upsert that always answers one row answered none")
    return Cursor(**dict(row))
