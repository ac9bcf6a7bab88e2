"""Who set the end that a subscription has now, by its operations and audit trail."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.ids import SubscriptionId
from app.postgres.database import Connection

# The end in force began when `cancel_at` was last set from nothing. What was asked before that has been taken back.
# An operation of the payer that found the end as it asked for it is settled as `unchanged`, and counts like one that
# set it. One of any other party takes nobody's right to take the end back, see `ending.confirm`.
_SETTERS = """
    with began as (
        select max(at) as at from audit_events
        where subscription_id = $1 and action = 'subscription_changed'
          and before ? 'cancel_at' and before ->> 'cancel_at' is null and after ->> 'cancel_at' is not null)
    select began.at is null or exists (
            select from audit_events a where a.subscription_id = $1 and a.at >= began.at and a.source <> 'api'
              and (a.after ? 'cancel_at' or a.after ? 'cancel_at_period_end')) as elsewhere,
        array(select distinct t.details ->> 'end_by'
            from operations o join operation_steps t on t.operation_id = o.id
            where o.subscription_id = $1 and t.details ? 'end_by'
              and (t.state = 'applied' or t.state = 'unchanged' and t.details ->> 'end_by' = 'payer')
              and t.settled_at >= began.at) as parties
    from began"""


@dataclass(frozen=True, slots=True)
class EndSetters:
    """The parties that set the end in force, see `EndBy`.

    `elsewhere`: it was set in the Dashboard or by Stripe, or before there was an audit trail.
    """

    elsewhere: bool
    parties: frozenset[str]


async def setters(connection: Connection, subscription_id: SubscriptionId) -> EndSetters:
    """Return everybody who has set, moved or confirmed the end in force."""
    row = await connection.fetchrow(_SETTERS, subscription_id)
    if row is None:
        raise LookupError("a statement that always returns one row returned none")
    return EndSetters(row["elsewhere"], frozenset(row["parties"]))


async def change_runs(connection: Connection, subscription_id: SubscriptionId) -> bool:
    """Return True while an operation that sets an end or takes one back is unsettled."""
    return bool(
        await connection.fetchval(
            """select exists (select from operations where subscription_id = $1 and settled_at is null
            and (kind in ('cancel_subscription', 'resume_subscription')
                or request -> 'params' ?| array['cancel_at', 'cancel_at_period_end']))""",
            subscription_id,
        )
    )


async def is_past(connection: Connection, moment: int) -> bool:
    """Return True if a Unix second is over by the database's clock."""
    return bool(await connection.fetchval("select to_timestamp($1) <= clock_timestamp()", moment))
