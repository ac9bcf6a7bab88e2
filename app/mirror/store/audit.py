"""Write and read the audit trail. Most entries are written by triggers of the mirrored tables.

See docs/decisions/0028-write-the-audit-trail-by-triggers.md.
"""

from __future__ import annotations

from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import JsonObject
from app.postgres.database import Connection

# Stripe creates the events of a write before its answer settles the step. A later event shows that a process was
# stopped with the request and resumed after the step was settled. Stripe's clock and ours may differ, and more so after
# a step with an effect. Events with a time in our future are of a test clock and prove nothing.
_LATE_EFFECT = """
    insert into audit_events (subscription_id, source, operation_id, principal, actor_id, action, customer_id,
        before, after)
    select coalesce(nullif(o.subscription_id, ''), $6), 'api', o.id, o.principal, o.actor_id, 'late_effect', $7, '{}',
        jsonb_build_object('event', $1::text, 'type', $2::text, 'settled_as', t.state)
    from operation_steps t join operations o on o.id = t.operation_id
    where t.operation_id = $3 and t.position = $4
      and t.settled_at + interval '1 second'
          * case when t.state in ('refused', 'failed') then $8::float else $9::float end < to_timestamp($5::float)
      and to_timestamp($5) < clock_timestamp() + interval '1 minute'
      and not exists (select from audit_events a where a.subscription_id = coalesce(nullif(o.subscription_id, ''), $6)
          and a.action = 'late_effect' and a.after ->> 'event' = $1)
    returning 1"""
_CLOCKS_APART_SECONDS = 10.0


async def record_late_effect(
    connection: Connection,
    *,
    event_id: str,
    event_type: str,
    operation_id: str,
    position: int,
    created: int,
    subscription_id: str,
    customer_id: str | None,
    margin: float,
) -> bool:
    """Record a late effect once for each event; return True if the event is one.

    `created` is the event's Unix second and `margin` is in seconds. `subscription_id` is used if the operation, a
    purchase, does not know its subscription.
    """
    found = await connection.fetchval(
        _LATE_EFFECT,
        event_id,
        event_type,
        operation_id,
        position,
        float(created),
        subscription_id,
        customer_id,
        margin,
        _CLOCKS_APART_SECONDS,
    )
    return found is not None


async def late_effects(connection: Connection, *, days: int, limit: int) -> list[JsonObject]:
    """Return the late effects of the last days, the newest first.

    Each has `subscription_id`, `operation_id`, `customer_id` (None if it is about the subscription), the `type` of its
    event, and what its step was `settled_as`.
    """
    rows = await connection.fetch(
        """select subscription_id, operation_id, customer_id, after ->> 'type' as type,
            after ->> 'settled_as' as settled_as
        from audit_events where action = 'late_effect' and at > clock_timestamp() - make_interval(days => $1)
        order by id desc limit $2""",
        days,
        limit,
    )
    return [dict(row) for row in rows]


async def record(
    connection: Connection,
    *,
    subscription_id: SubscriptionId,
    principal: str,
    actor_id: CustomerId | None,
    action: str,
    before: JsonObject,
    after: JsonObject,
) -> None:
    """Write an entry about something that only this service stores, not Stripe."""
    await connection.execute(
        """insert into audit_events (subscription_id, source, principal, actor_id, action, before, after)
        values ($1, 'api', $2, $3, $4, $5, $6)""",
        subscription_id,
        principal,
        actor_id,
        action,
        before,
        after,
    )


async def page(
    connection: Connection,
    subscription_id: SubscriptionId,
    *,
    with_members: bool,
    before: int | None,
    limit: int,
) -> list[JsonObject]:
    """Return up to `limit` entries older than entry `before`, newest first.

    Without `with_members` only entries about the subscription itself are returned. `is_of_another` tells that the
    operation which caused the entry is one on another subscription.
    """
    rows = await connection.fetch(
        """select a.id, a.at, a.source, a.operation_id, a.principal, a.actor_id, a.action, a.customer_id, a.before,
            a.after, coalesce(o.subscription_id not in ('', a.subscription_id), false) as is_of_another
        from audit_events a left join operations o on o.id = a.operation_id
        where a.subscription_id = $1 and a.id < coalesce($2, 9223372036854775807)
          and ($4 or (a.customer_id is null and a.action not like 'invitation%'))
        order by a.id desc limit $3""",
        subscription_id,
        before,
        limit,
        with_members,
    )
    return [dict(row) for row in rows]
