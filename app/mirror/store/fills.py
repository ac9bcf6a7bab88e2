"""Store which Stripe account this database mirrors, and whether the mirror was filled."""

from __future__ import annotations

from app.postgres.database import Connection


async def remember_account(connection: Connection, account_id: str, *, livemode: bool) -> tuple[str, bool]:
    """Store the account unless one is stored; return the id and mode of the stored one.

    Raises:
        LookupError: the stored row was deleted in between, which no code does.
    """
    await connection.execute(
        "insert into account (id, livemode) values ($1, $2) on conflict do nothing", account_id, livemode
    )
    row = await connection.fetchrow("select id, livemode from account")
    if row is None:
        raise LookupError("the account row vanished")
    return row["id"], row["livemode"]


async def stored_account(connection: Connection) -> tuple[str, bool] | None:
    """Return the id of the account that this database mirrors and True for live mode, None before it is known."""
    row = await connection.fetchrow("select id, livemode from account")
    return None if row is None else (row["id"], row["livemode"])


async def is_filled(connection: Connection) -> bool:
    """Return True if the first fill has finished."""
    return bool(await connection.fetchval("select exists (select from account where filled_at is not null)"))


async def filled_second(connection: Connection) -> int | None:
    """Return the Unix second at which the first fill finished, None before that."""
    found: int | None = await connection.fetchval(
        "select floor(extract(epoch from filled_at))::bigint from account"
    )
    return found


async def note_filled(connection: Connection) -> None:
    """Store that the first fill has finished."""
    await connection.execute("update account set filled_at = coalesce(filled_at, clock_timestamp())")
