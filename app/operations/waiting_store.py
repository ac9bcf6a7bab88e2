"""Statements about purchases that Stripe accepted and that wait for their payment.

The state of such a step is `awaiting_payment`. The people that the purchase is to seat are not named before it is
paid. Each of them is a number, a row in `reservations` without a customer or an e-mail. It counts only once the
subscription has the seats that the purchase buys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.ids import CustomerId, SubscriptionId
from app.domain.roles import Permission
from app.domain.snapshots import JsonObject
from app.operations import store
from app.operations.endings import Ending
from app.operations.lifecycle import State
from app.operations.rows import StepChanged
from app.operations.step_kinds import StepKind
from app.postgres.database import Connection, UniqueViolation


@dataclass(frozen=True, slots=True)
class Waiting:
    """A step that waits for its payment.

    `kind` is the operation's, `action` the step's. `end_code`: why it is to end, None if nobody has asked for that.
    `is_over`: the payment window has passed by the database's clock. `expires_at`: when Stripe drops the change, Unix
    seconds; None if Stripe does not say. `ends_at`: the earlier of the two.
    """

    operation_id: str
    position: int
    subscription_id: SubscriptionId
    kind: str
    action: str
    principal: str
    actor_id: CustomerId | None
    request: JsonObject
    details: JsonObject
    created_at: datetime
    invoice_id: str
    end_code: str | None
    is_over: bool
    expires_at: int | None
    ends_at: datetime | None

    @property
    def is_first(self) -> bool:
        """Return True for the first purchase of a subscription: its first invoice is what waits."""
        return self.kind == "add_subscription"

    @property
    def needs(self) -> Sequence[str]:
        """Return the permissions that the buyer needed."""
        if self.action == StepKind.BUY_SEATS:
            return (Permission.BUY_SEATS,)
        return tuple(self.details.get("needs", ()))


_COLUMNS = """
    select t.operation_id, t.position, o.subscription_id, o.kind, t.action, o.principal, o.actor_id, o.request,
        t.details, o.created_at, t.invoice_id, t.end_code,
        coalesce(t.payment_until < clock_timestamp(), false) as is_over, t.update_expires_at as expires_at,
        least(t.payment_until, to_timestamp(t.update_expires_at)) as ends_at
    from operation_steps t join operations o on o.id = t.operation_id
    where t.state = 'awaiting_payment' and """

_REFUSE_UNNAMED = """
    with refused as (
        update operation_steps t set state = 'refused', code = $2, settled_at = clock_timestamp()
        where t.operation_id = $1 and t.awaits_seats and t.settled_at is null
        returning t.operation_id, t.position
    )
    update reservations v set released_at = clock_timestamp() from refused r
    where v.operation_id = r.operation_id and v.position = r.position and v.released_at is null"""

_WAKE = "update operations set lease_until = clock_timestamp() where id = $1 and settled_at is null"

_WAKE_ALL = """
    update operations o set lease_until = clock_timestamp() from operation_steps t
    where t.operation_id = o.id and t.subscription_id = $1 and t.state = 'awaiting_payment' and o.settled_at is null"""

# What others than the payer asked for rests on the payer's permission. A purchase whose answer is still missing is
# marked as well, and ends as soon as it is known to wait.
_END_RESTING = """
    with marked as (
        update operation_steps t set end_code = $3
        from operations o
        where o.id = t.operation_id and o.subscription_id = $1 and o.settled_at is null
          and o.actor_id is not null and o.actor_id <> $2 and t.end_code is null
          and t.state in ('awaiting_payment', 'in_flight', 'ambiguous')
          and (t.action = 'buy_seats' or t.details -> 'needs' ?| $4)
        returning t.operation_id
    )
    update operations o set lease_until = clock_timestamp() from marked
    where o.id = marked.operation_id and exists (select from operation_steps t
        where t.operation_id = o.id and t.state = 'awaiting_payment')"""

_ACKNOWLEDGED = """select from audit_events a
    where a.subscription_id = '' and a.operation_id = {operation} and a.action = 'purchase_acknowledged'"""

PAID_WITHOUT_EFFECT = f"""
    t.code = 'paid_without_effect' and t.invoice_id is not null
    and not exists ({_ACKNOWLEDGED.format(operation="t.operation_id")})"""
"""The condition on a step `t` that was paid without effect, and that no operator has acknowledged."""

_ACKNOWLEDGE = f"""
    insert into audit_events (subscription_id, source, operation_id, principal, action, before, after)
    select '', 'api', $1, 'operator', 'purchase_acknowledged', '{{}}', jsonb_build_object('invoice', $2::text)
    where not exists ({_ACKNOWLEDGED.format(operation="$1")})"""


async def is_younger(connection: Connection, operation_id: str, *, seconds: float) -> bool:
    """Return True if the operation was admitted less than so many seconds ago, by the database's clock."""
    return bool(
        await connection.fetchval(
            "select created_at > clock_timestamp() - $2 * interval '1 second' from operations where id = $1",
            operation_id,
            seconds,
        )
    )


async def of_subscription(connection: Connection, subscription_id: SubscriptionId) -> list[Waiting]:
    """Return the purchases of a subscription that wait, oldest first."""
    rows = await connection.fetch(_COLUMNS + "t.subscription_id = $1 order by o.created_at", subscription_id)
    return [Waiting(**dict(row)) for row in rows]


async def of_operation(connection: Connection, operation_id: str) -> Waiting | None:
    """Return the purchase of an operation that waits."""
    row = await connection.fetchrow(_COLUMNS + "t.operation_id = $1", operation_id)
    return None if row is None else Waiting(**dict(row))


async def settle(connection: Connection, waiting: Waiting, ending: Ending) -> bool:
    """Settle a step that waits, and what rests on it; False if it waits no more.

    After a failure it seats nobody. After a success its additions are still to be named and made.
    """
    step = next(
        one for one in await store.steps(connection, waiting.operation_id) if one.position == waiting.position
    )
    if step.state is not State.AWAITING_PAYMENT:
        return False
    try:
        settled = await store.transition(
            connection, waiting.operation_id, step, ending.event, code=ending.code
        )
    except StepChanged:
        return False
    if settled.state is State.FAILED:
        await connection.execute(_REFUSE_UNNAMED, waiting.operation_id, ending.code)
    await store.finish_if_settled(connection, waiting.operation_id)
    return True


async def ask_to_end(connection: Connection, operation_id: str, code: str) -> bool:
    """Note that a purchase is to end; False if it waits no more.

    The next process that looks at it ends it.
    """
    found = await connection.fetchval(
        """update operation_steps set end_code = coalesce(end_code, $2)
        where operation_id = $1 and state = 'awaiting_payment' returning 1""",
        operation_id,
        code,
    )
    return found is not None


async def end_those_resting(
    connection: Connection,
    subscription_id: SubscriptionId,
    *,
    payer_id: CustomerId,
    code: str,
    needs: Sequence[str],
) -> None:
    """Note that purchases that rest on the payer's permission are to end.

    Those are the purchases that others than the payer asked for. A worker ends them.
    """
    await connection.execute(_END_RESTING, subscription_id, payer_id, code, list(needs))


async def wake(connection: Connection, operation_id: str) -> None:
    """Let a worker look at an operation at once."""
    await connection.execute(_WAKE, operation_id)


async def wake_all(connection: Connection, subscription_id: SubscriptionId) -> None:
    """Let a worker look at once at each purchase of a subscription that waits."""
    await connection.execute(_WAKE_ALL, subscription_id)


async def name(
    connection: Connection,
    operation_id: str,
    position: int,
    *,
    customer_id: CustomerId | None,
    email: str | None,
    invitation_id: str | None = None,
) -> bool:
    """Turn the number that an addition reserves into a seat for this person.

    `invitation_id`: the open invitation to them, which the addition ends. It opens its own savepoint. Return False if
    another operation on the subscription has promised the person a seat.
    """
    try:
        async with connection.transaction():
            await connection.execute(
                """update reservations set customer_id = $3, email = lower($4 collate "C"), item_id = null,
                    from_quantity = null, slot = null
                where operation_id = $1 and position = $2 and released_at is null""",
                operation_id,
                position,
                customer_id,
                email,
            )
    except UniqueViolation:
        return False
    await connection.execute(
        """update operation_steps set customer_id = $3, awaits_seats = false,
            invitation_id = coalesce($4, invitation_id)
        where operation_id = $1 and position = $2 and settled_at is null""",
        operation_id,
        position,
        customer_id,
        invitation_id,
    )
    return True


async def paid_without_effect(connection: Connection) -> int:
    """Return the number of purchases that were paid, never took effect, and are not acknowledged."""
    found = await connection.fetchval(f"select count(*) from operation_steps t where {PAID_WITHOUT_EFFECT}")
    return int(found or 0)


async def acknowledge(connection: Connection, operation_id: str) -> bool:
    """Record that an operator made up for a purchase that was paid without effect; False if it is no such purchase.

    It is recorded once. The lock on the step lets calls at the same time record it one after the other.
    """
    invoice_id = await connection.fetchval(
        """select invoice_id from operation_steps
        where operation_id = $1 and code = 'paid_without_effect' and invoice_id is not null for update""",
        operation_id,
    )
    if invoice_id is None:
        return False
    await connection.execute(_ACKNOWLEDGE, operation_id, invoice_id)
    return True
