"""Quotes: what a change was said to cost, for a day, once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.cache.database import Connection
from app.domain.ids import SubscriptionId

LIFETIME_HOURS = 24


@dataclass(frozen=True, slots=True)
class Quote:
    """`open`: neither used nor expired. The hashes tell the change and the items that it was made for."""

    change_hash: bytes
    state_hash: bytes
    proration_date: int
    open: bool


async def insert(
    connection: Connection,
    quote_id: str,
    *,
    subscription_id: SubscriptionId,
    principal: str,
    change_hash: bytes,
    state_hash: bytes,
    proration_date: int,
) -> datetime:
    """Returns when it expires, by the database's clock."""
    expires_at: datetime = await connection.fetchval(
        """insert into quotes (id, subscription_id, principal, change_hash, state_hash, proration_date,
            currency, amount_due, credit, credit_forgone, tax, crediting, expires_at)
        values ($1, $2, $3, $4, $5, $6, '', 0, 0, 0, 0, false, clock_timestamp() + $7 * interval '1 hour')
        returning expires_at""",
        quote_id,
        subscription_id,
        principal,
        change_hash,
        state_hash,
        proration_date,
        LIFETIME_HOURS,
    )
    return expires_at


async def find(
    connection: Connection, quote_id: str, *, subscription_id: SubscriptionId, principal: str
) -> Quote | None:
    """Only a quote of this subscription that this principal was given; locked until the transaction ends."""
    row = await connection.fetchrow(
        """select change_hash, state_hash, proration_date,
            used_at is null and expires_at > clock_timestamp() as open
        from quotes where id = $1 and subscription_id = $2 and principal = $3 for update""",
        quote_id,
        subscription_id,
        principal,
    )
    return None if row is None else Quote(**dict(row))


async def use(connection: Connection, quote_id: str) -> None:
    await connection.execute("update quotes set used_at = clock_timestamp() where id = $1", quote_id)
