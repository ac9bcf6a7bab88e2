"""Offers of ownership, and what payers let owners buy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.domain.ids import CustomerId, SubscriptionId
from app.postgres.database import Connection

LIFETIME_DAYS = 14


@dataclass(frozen=True, slots=True)
class Transfer:
    """An offer of ownership. `from_id` is None if nobody was the owner.

    `state`: offered, accepted, declined, withdrawn or expired.
    """

    id: str
    subscription_id: SubscriptionId
    from_id: CustomerId | None
    to_id: CustomerId
    allow_purchases: bool
    keep_me_as: str | None
    state: str
    operation_id: str | None
    created_at: datetime
    expires_at: datetime


_COLUMNS = """id, subscription_id, from_id, to_id, allow_purchases, keep_me_as, operation_id, created_at, expires_at,
    case when state = 'offered' and expires_at <= clock_timestamp() then 'expired' else state end as state"""


async def newest(connection: Connection, subscription_id: SubscriptionId) -> Transfer | None:
    """Return the newest offer of a subscription, or None."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from transfers where subscription_id = $1 order by created_at desc limit 1",
        subscription_id,
    )
    return None if row is None else Transfer(**dict(row))


async def offer(
    connection: Connection,
    transfer_id: str,
    *,
    subscription_id: SubscriptionId,
    from_id: CustomerId | None,
    to_id: CustomerId,
    allow_purchases: bool,
    keep_me_as: str | None,
) -> None:
    """Store a new offer, which replaces an open one."""
    await connection.execute(
        """update transfers set state = 'withdrawn', decided_at = clock_timestamp()
        where subscription_id = $1 and state = 'offered'""",
        subscription_id,
    )
    await connection.execute(
        """insert into transfers (id, subscription_id, from_id, to_id, allow_purchases, keep_me_as, state, expires_at)
        values ($1, $2, $3, $4, $5, $6, 'offered', clock_timestamp() + $7 * interval '1 day')""",
        transfer_id,
        subscription_id,
        from_id,
        to_id,
        allow_purchases,
        keep_me_as,
        LIFETIME_DAYS,
    )


async def decide(
    connection: Connection, transfer_id: str, *, state: str, operation_id: str | None = None
) -> None:
    """Store how an offer ended.

    `operation_id`: the operation that moves the ownership.
    """
    await connection.execute(
        """update transfers set state = $2, operation_id = $3, decided_at = clock_timestamp() where id = $1""",
        transfer_id,
        state,
        operation_id,
    )


async def grant_purchases(
    connection: Connection,
    subscription_id: SubscriptionId,
    *,
    payer_id: CustomerId,
    owner_id: CustomerId,
    allowed: bool,
) -> None:
    """Store whether this owner may buy on the payer's account.

    The permission holds only for this owner; the next one starts without it.
    """
    await connection.execute("delete from purchase_grants where subscription_id = $1", subscription_id)
    if allowed:
        await connection.execute(
            "insert into purchase_grants (subscription_id, payer_id, owner_id) values ($1, $2, $3)",
            subscription_id,
            payer_id,
            owner_id,
        )


async def withdraw_purchases(connection: Connection, subscription_id: SubscriptionId) -> None:
    """End the payer's permission, also in an offer or a transfer that is under way."""
    await connection.execute("delete from purchase_grants where subscription_id = $1", subscription_id)
    await connection.execute(
        "update transfers set allow_purchases = false where subscription_id = $1 and state = 'offered'",
        subscription_id,
    )
    await connection.execute(
        """update operations set request = request || '{"allow_purchases": false}'
        where subscription_id = $1 and kind = 'transfer' and settled_at is null""",
        subscription_id,
    )


async def transfer_allows_purchases(connection: Connection, operation_id: str) -> bool:
    """Return whether the payer still allows the new owner to buy.

    The payer may have withdrawn the permission since the transfer was accepted.
    """
    return (
        await connection.fetchval(
            "select request -> 'allow_purchases' = 'true' from operations where id = $1", operation_id
        )
        is True
    )


# Steps that were never sent cannot take effect once they are settled. Their operations are finished here, unless they
# have other steps; those are judged again when they run.
_ABANDON = """
    with abandoned as (
        update operation_steps t set state = 'refused', code = 'role_required', settled_at = clock_timestamp()
        from operations o
        where o.id = t.operation_id and o.subscription_id = $1 and o.settled_at is null
          and o.actor_id is not null and o.actor_id <> $2
          and t.settled_at is null and t.state = 'planned' and t.attempt = 0
          and (t.action = 'buy_seats' or t.details -> 'needs' ?| $3)
        returning t.operation_id, t.position, t.details
    ), quote as (
        update quotes set used_at = null from abandoned where quotes.id = abandoned.details ->> 'quote_id'
    )
    update operations o set state = 'settled', settled_at = clock_timestamp(), lease_token = null, lease_until = null
    from (select distinct operation_id from abandoned) a
    where o.id = a.operation_id and not exists (
        select from operation_steps t where t.operation_id = o.id and t.settled_at is null
          and not exists (select from abandoned x where x.operation_id = t.operation_id and x.position = t.position))"""


async def abandon_purchases(
    connection: Connection, subscription_id: SubscriptionId, *, payer_id: CustomerId, needs: list[str]
) -> None:
    """Settle unsent steps of others that need one of these rights, as refused.

    What the payer `payer_id` asked for stays.
    """
    await connection.execute(_ABANDON, subscription_id, payer_id, needs)


async def other_owner_is_named(
    connection: Connection, subscription_id: SubscriptionId, owner_id: CustomerId | None
) -> bool:
    """Return True while an unsettled write names another owner of the subscription than this one."""
    return bool(
        await connection.fetchval(
            """select exists (select from operations o
            join operation_steps t on t.operation_id = o.id and t.settled_at is null
            where o.subscription_id = $1 and o.settled_at is null and t.action = 'set_owner'
              and o.request ->> 'to_id' is distinct from $2)""",
            subscription_id,
            owner_id,
        )
    )
