"""Which Stripe account this database mirrors, and whether it was filled from it."""

from __future__ import annotations

from app.postgres.database import Connection


async def remember_account(connection: Connection, account_id: str, *, livemode: bool) -> tuple[str, bool]:
    """Stores the account where none is stored yet; returns the one that is."""
    await connection.execute(
        "insert into account (id, livemode) values ($1, $2) on conflict do nothing", account_id, livemode
    )
    row = await connection.fetchrow("select id, livemode from account")
    if row is None:
        raise LookupError("the account row vanished")
    return row["id"], row["livemode"]


async def is_filled(connection: Connection) -> bool:
    return bool(await connection.fetchval("select exists (select from account where filled_at is not null)"))


async def note_filled(connection: Connection) -> None:
    await connection.execute("update account set filled_at = coalesce(filled_at, clock_timestamp())")
