"""Quotes: what a change was said to cost, for one use."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime

from app.domain.ids import SubscriptionId
from app.postgres.database import Connection, Record

LIFETIME_SECONDS = 86_400
CREDITING_SECONDS = 600
"""A change that credits is dated by its quote, so an old quote would credit time that has passed since."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What a quote promises for one change at one date. Amounts are minor units of `currency`.

    The hashes stand for the change and for the items that it was made for. `quoted_at` and `proration_date`: Unix
    seconds by Stripe's clock; the latter is 0 where nothing is prorated.
    `amount_due` is after the balance; `tax` includes inclusive taxes.
    """

    change_hash: bytes
    state_hash: bytes
    quoted_at: int
    proration_date: int
    currency: str
    amount_due: int
    credit: int
    credit_forgone: int
    tax: int
    crediting: bool

    @property
    def lifetime(self) -> int:
        """Return how long the quote is valid, in seconds."""
        return CREDITING_SECONDS if self.crediting else LIFETIME_SECONDS


@dataclass(frozen=True, slots=True)
class Quote:
    """`open`: neither used nor expired by the database's clock."""

    promise: Promise
    open: bool


_PROMISED = tuple(entry.name for entry in fields(Promise))


async def insert(
    connection: Connection,
    quote_id: str,
    promise: Promise,
    *,
    subscription_id: SubscriptionId,
    principal: str,
) -> datetime:
    """Store a quote. Returns when it expires, by the database's clock."""
    places = ", ".join(f"${number}" for number in range(5, 5 + len(_PROMISED)))
    expires_at: datetime = await connection.fetchval(
        f"""insert into quotes (id, subscription_id, principal, expires_at, {", ".join(_PROMISED)})
        values ($1, $2, $3, clock_timestamp() + $4 * interval '1 second', {places})
        returning expires_at""",
        quote_id,
        subscription_id,
        principal,
        promise.lifetime,
        *(getattr(promise, name) for name in _PROMISED),
    )
    return expires_at


async def find(
    connection: Connection, quote_id: str, *, subscription_id: SubscriptionId, principal: str
) -> Quote | None:
    """Return a quote of this subscription and principal, or None.

    It is locked until the transaction ends.
    """
    row = await connection.fetchrow(
        f"""select {", ".join(_PROMISED)}, used_at is null and expires_at > clock_timestamp() as open
        from quotes where id = $1 and subscription_id = $2 and principal = $3 for update""",
        quote_id,
        subscription_id,
        principal,
    )
    return None if row is None else Quote(_promise(row), row["open"])


async def promised(connection: Connection, quote_id: str) -> Promise | None:
    """Return what a quote promised that its operation has used."""
    row = await connection.fetchrow(f"select {', '.join(_PROMISED)} from quotes where id = $1", quote_id)
    return None if row is None else _promise(row)


def _promise(row: Record) -> Promise:
    return Promise(**{name: row[name] for name in _PROMISED})


async def use(connection: Connection, quote_id: str) -> None:
    """Mark a quote as used."""
    await connection.execute("update quotes set used_at = clock_timestamp() where id = $1", quote_id)
