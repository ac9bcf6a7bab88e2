"""The lease of an operation: one process runs it, and another one goes on once the lease has run out."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from app.postgres.database import Connection

# A tenant is the subscription, or for a purchase the customer who buys.
_ORPHANED = """
    with turns as (
        select id, tenant, created_at,
            row_number() over (partition by tenant order by created_at)
                + coalesce(($5::jsonb ->> tenant)::int, 0) as turn
        from (select id, created_at, coalesce(nullif(subscription_id, ''), actor_id, principal) as tenant
            from operations where settled_at is null and lease_until < clock_timestamp()) due
    ), chosen as (
        select o.id, t.tenant from operations o join turns t on t.id = o.id
        where t.turn <= $4 and o.settled_at is null and o.lease_until < clock_timestamp()
        order by t.turn, t.created_at limit $1 for update of o skip locked
    )
    update operations o set lease_token = $2, lease_until = clock_timestamp() + $3 * interval '1 second'
    from chosen where o.id = chosen.id
    returning o.id, chosen.tenant"""


async def renew(connection: Connection, operation_id: str, token: UUID, *, lease_seconds: float) -> bool:
    """Make the lease last longer. Returns False if it was lost: another process finishes the operation."""
    return (
        await connection.fetchval(
            """update operations set lease_until = clock_timestamp() + $3 * interval '1 second'
            where id = $1 and lease_token = $2 and settled_at is null returning 1""",
            operation_id,
            token,
            lease_seconds,
        )
        is not None
    )


async def take(connection: Connection, operation_id: str, *, lease_token: UUID, lease_seconds: float) -> bool:
    """Take the lease of one unsettled operation. Returns False while its runner holds it."""
    return (
        await connection.fetchval(
            """update operations set lease_token = $2, lease_until = clock_timestamp() + $3 * interval '1 second'
            where id = $1 and settled_at is null and lease_until < clock_timestamp() returning 1""",
            operation_id,
            lease_token,
            lease_seconds,
        )
        is not None
    )


async def hand_over(
    connection: Connection,
    operation_id: str,
    token: UUID,
    *,
    longest_seconds: float,
    payment_seconds: float,
) -> None:
    """Let a worker take the operation up after 1 s, and later after a quarter of its age.

    `longest_seconds`: the longest pause; `payment_seconds` is that of an operation that waits for a payment.
    """
    await connection.execute(
        """update operations o set lease_until = clock_timestamp() + interval '1 second' * least(
            case when exists (select from operation_steps t where t.operation_id = o.id
                and t.state = 'awaiting_payment') then $4::float else $3::float end,
            greatest(1, extract(epoch from clock_timestamp() - created_at)::float / 4))
        where id = $1 and lease_token = $2 and settled_at is null""",
        operation_id,
        token,
        longest_seconds,
        payment_seconds,
    )


async def take_orphaned(
    connection: Connection,
    *,
    limit: int,
    lease_token: UUID,
    lease_seconds: float,
    per_tenant: int | None = None,
    busy: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """Take the leases of unsettled operations whose runner is gone, and return the tenant of each by its id.

    Tenants get their turns. None gets more than `per_tenant` leases, of which `busy` counts those that it has.
    """
    rows = await connection.fetch(
        _ORPHANED, limit, lease_token, lease_seconds, per_tenant or limit, dict(busy or {})
    )
    return {row["id"]: row["tenant"] for row in rows}


async def trace_context(connection: Connection, operation_id: str) -> str | None:
    """Return the trace of the request that began the operation, None if it was not traced."""
    found: str | None = await connection.fetchval(
        "select trace_context from operations where id = $1", operation_id
    )
    return found
