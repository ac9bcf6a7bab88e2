"""Statements about operations, their steps and the seats that they reserve.

An operation is stored at its admission, and settled only by a known outcome.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from app import tracing
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import JsonObject
from app.operations.lifecycle import KEY_SECONDS, SETTLED, Event, IllegalTransition, State, next_state
from app.operations.rows import AwaitedInvoice, Operation, Step, StepChanged
from app.postgres.database import Connection, Record

_INSERT = """
    insert into operations (id, subscription_id, kind, state, principal, actor_id, source, request,
        lease_token, lease_until, seat_total, trace_context)
    values ($1, $2, $3::text::operation_kind, 'running', $4, $5, $6, $7, $8,
        clock_timestamp() + $9 * interval '1 second', $10, $11)"""

_INSERT_STEPS = """
    insert into operation_steps (operation_id, position, subscription_id, action, customer_id, email, role,
        role_before, state, code, details, awaits_seats, invitation_id, settled_at)
    select $1, r.position, $2, r.action, r.customer_id, r.email, r.role, r.role_before, r.state, r.code, r.details,
        coalesce(r.awaits_seats, false), r.invitation_id, case when r.state <> 'planned' then clock_timestamp() end
    from jsonb_populate_recordset(null::operation_steps, $3) r"""

# A step keeps an e-mail as it was typed, for display. A reservation has it as it is compared.
#
# A role change writes the whole membership, so it may seat a member again who is moved away while it runs. Its
# reservation counts no second seat while the member has one. While a seat moves, the reservation of its new member
# makes both members count as one, until the old one is removed.
_INSERT_RESERVATIONS = """
    insert into reservations (operation_id, position, subscription_id, customer_id, email, item_id, from_quantity,
        moves_from)
    select operation_id, position, subscription_id, case when not awaits_seats then customer_id end,
        case when not awaits_seats then lower(email collate "C") end, case when awaits_seats then $2 end,
        case when awaits_seats then $3::bigint end, case when action = 'add' then $4::text end
    from operation_steps where operation_id = $1 and state = 'planned'
      and (action = 'update' or (action = 'add' and invitation_id is null))
    order by coalesce(customer_id, lower(email collate "C"))"""

# An addition of an invited person fills the seat of the invitation, which is reserved already. A member who is raised
# by an invitation keeps their own seat, and that of the invitation is freed once they are raised.
_TAKE_INVITED_SEATS = """
    update reservations r set operation_id = t.operation_id, position = t.position, customer_id = t.customer_id,
        email = lower(t.email collate "C")
    from operation_steps t
    where t.operation_id = $1 and t.action = 'add' and t.state = 'planned' and r.invitation_id = t.invitation_id
      and r.operation_id is null and r.released_at is null"""

_COLUMNS = """t.position, t.action, t.customer_id, t.email, t.role, t.role_before, t.state, t.code, t.details,
        t.attempt, t.sent_at, t.unanswered_at, t.invoice_id, t.awaits_seats, t.invitation_id, t.writes,
        extract(epoch from clock_timestamp() - t.unanswered_at)::float as unanswered_for"""

_STEPS = f"select {_COLUMNS} from operation_steps t where t.operation_id = $1 order by t.position"

_AS_READ = (
    """t.operation_id = $1 and t.position = $2 and t.state = $3 and t.attempt = $4 and t.settled_at is null"""
)

# A process that lost the operation's lease begins nothing, and a key that Stripe may forget soon is not sent again.
_RECORD_SENDING = f"""
    update operation_steps t set state = $5, sent_at = coalesce(t.sent_at, clock_timestamp()),
        unanswered_at = clock_timestamp()
    from operations o
    where {_AS_READ} and (t.sent_at is null or t.sent_at > clock_timestamp() - $7 * interval '1 second')
      and o.id = $1 and o.lease_token = $6
    returning {_COLUMNS}"""

_MOVE = f"""
    update operation_steps t set state = $5, attempt = $6, sent_at = $7, unanswered_at = $8
    where {_AS_READ}
    returning {_COLUMNS}"""

_AWAIT = f"""
    update operation_steps t set state = $5, invoice_id = $6, subscription_id = $7, update_expires_at = $8,
        payment_until = clock_timestamp() + $9 * interval '1 second', unanswered_at = null
    where {_AS_READ}
    returning {_COLUMNS}"""

# The outcome of a step, the end of its reservation, and its quote, which another change may use if it failed. The seat
# of an invitation goes back to the invitation if it was not filled, and nobody has accepted it then. The seat is locked
# before the invitation, as everywhere.
_SETTLE = f"""
    with step as (
        update operation_steps t set state = $5, attempt = $6, sent_at = $7, unanswered_at = $8, code = $9,
            customer_id = coalesce($10, t.customer_id), details = t.details || $11, settled_at = clock_timestamp()
        where {_AS_READ}
        returning {_COLUMNS}
    ), quote as (
        update quotes set used_at = null from step
        where quotes.id = step.details ->> 'quote_id' and step.state in ('refused', 'failed')
    ), reservation as (
        update reservations r set
            released_at = case when filled or r.invitation_id is null then clock_timestamp() end,
            operation_id = case when filled or r.invitation_id is null then r.operation_id end,
            position = case when filled or r.invitation_id is null then r.position end,
            customer_id = case when filled or r.invitation_id is null then r.customer_id end,
            email = case when filled or r.invitation_id is null then r.email end,
            slot = case when filled or r.invitation_id is null then r.slot end
        from (select action, state, state in ('applied', 'unchanged') as filled from step) settled
        where r.operation_id = $1 and r.released_at is null
          and case when r.moves_from is null then r.position = $2
              else settled.action = 'remove' or settled.state in ('refused', 'failed') end
        returning r.id
    ), acceptance as (
        update invitations i set acceptor_id = null, operation_id = null
        from step cross join (select count(*) from reservation) seat_first
        where i.id = step.invitation_id and i.operation_id = $1 and step.state in ('refused', 'failed')
    )
    select * from step"""

_FINISH = """
    update operations set state = 'settled', settled_at = clock_timestamp(), lease_token = null, lease_until = null
    where id = $1 and settled_at is null
      and not exists (select from operation_steps t where t.operation_id = $1 and t.settled_at is null)"""

# What never left is as if it had not been asked: the request is told so, and may come again under the same id.
_DISCARD = """
    with gone as (
        delete from operations o where o.id = $1 and o.lease_token = $2 and o.settled_at is null
          and not exists (select from operation_steps t
              where t.operation_id = o.id and (t.state <> 'planned' or t.attempt > 0))
        returning o.id
    ), steps as (
        delete from operation_steps t using gone where t.operation_id = gone.id returning t.details
    ), quote as (
        update quotes set used_at = null from steps where quotes.id = steps.details ->> 'quote_id'
    )
    select 1 from gone"""


async def insert(
    connection: Connection,
    *,
    operation_id: str,
    subscription_id: SubscriptionId,
    kind: str,
    principal: str,
    actor_id: CustomerId | None,
    source: str,
    request: JsonObject,
    steps: Sequence[JsonObject],
    lease_token: UUID,
    lease_seconds: float,
    seat_total: int | None = None,
    bought: tuple[str, int] | None = None,
    moves_from: CustomerId | None = None,
) -> None:
    """Store an operation, its steps, and a reservation for each seat that it fills or may fill again.

    `seat_total`: the seats after it; no admission goes above them until it is settled. `bought`: the item whose
    quantity the operation raises first, and the quantity. An addition that awaits these seats reserves one of them by
    number, and one of an invited person takes the seat of the invitation. `moves_from`: the member whose seat the
    addition gets; that member is removed by the operation's last step.

    Raises:
        UniqueViolation: another operation has promised one of these people a seat.
    """
    await connection.execute(
        _INSERT,
        operation_id,
        subscription_id,
        kind,
        principal,
        actor_id,
        source,
        request,
        lease_token,
        lease_seconds,
        seat_total,
        tracing.current(),
    )
    await connection.execute(_INSERT_STEPS, operation_id, subscription_id, list(steps))
    await connection.execute(_INSERT_RESERVATIONS, operation_id, *(bought or (None, None)), moves_from)
    if any(step.get("invitation_id") is not None for step in steps):
        await connection.execute(_TAKE_INVITED_SEATS, operation_id)


async def operation(connection: Connection, operation_id: str) -> Operation | None:
    """Return an operation, or None."""
    row = await connection.fetchrow(
        """select id, subscription_id, kind::text, state, principal, actor_id, request, created_at, settled_at
        from operations where id = $1""",
        operation_id,
    )
    return None if row is None else Operation(**dict(row))


async def steps(connection: Connection, operation_id: str) -> list[Step]:
    """Return the steps of an operation by position."""
    return [_step(row) for row in await connection.fetch(_STEPS, operation_id)]


async def transition(
    connection: Connection,
    operation_id: str,
    step: Step,
    event: Event,
    *,
    token: UUID | None = None,
    before: Step | None = None,
    open_until: float | None = None,
    code: str | None = None,
    customer_id: CustomerId | None = None,
    details: JsonObject | None = None,
    awaited: AwaitedInvoice | None = None,
) -> Step:
    """Move a step by an event, and return its row as it is now.

    One statement, which finds the row only in the state and attempt in which it was read. An event that settles the
    step ends its reservation too, so it belongs into the transaction in which the object's row shows the outcome.
    `token`: the lease of the operation, for a sending that is recorded. `before`: the step before the sending whose
    attempt raises the event. `open_until`: the end of the late window of the step's last request without an answer, in
    seconds from when the step was read; None if there is none. `details`: numbers for the caller.
    `awaited`: what a step waits for whose change Stripe holds back.

    Raises:
        IllegalTransition: The table has no such row, or a request of the step may still take effect.
        StepChanged: The row is not as it was read, or the sending may not be recorded.
    """
    is_quiet = open_until is None or event is Event.REJECTED
    target = next_state(step.state, event, open_until=None if is_quiet else open_until, now=0.0)
    if target is None:
        raise IllegalTransition(f"{event} is `discard`")
    as_read = (operation_id, step.position, step.state.value, step.attempt, target.value)
    moved = _moved(step, event, before)
    if event is Event.SEND_RECORDED:
        row = await connection.fetchrow(_RECORD_SENDING, *as_read, token, KEY_SECONDS)
    elif target is State.AWAITING_PAYMENT:
        row = await connection.fetchrow(_AWAIT, *as_read, *_columns_of(awaited))
    elif target in SETTLED:
        row = await connection.fetchrow(_SETTLE, *as_read, *moved, code, customer_id, details or {})
    else:
        row = await connection.fetchrow(_MOVE, *as_read, *moved)
    if row is None:
        raise StepChanged()
    return _step(row)


def _columns_of(awaited: AwaitedInvoice | None) -> tuple[str, SubscriptionId, int | None, float | None]:
    if awaited is None:
        raise LookupError("a step that waits for its payment has no invoice")
    return awaited.invoice_id, awaited.subscription_id, awaited.expires_at, awaited.window_seconds


def _moved(step: Step, event: Event, before: Step | None) -> tuple[int, datetime | None, datetime | None]:
    """Return the attempt, its first sending, and its last sending without an answer, as they are after the event."""
    match event:
        case Event.STORED_ERROR | Event.CARDHOLDER_ASKED:
            return step.attempt + 1, None, None
        case Event.REJECTED:
            return step.attempt, step.sent_at, None
        case Event.NOT_SENT | Event.NOT_SENT_AFTER_STORED_ERROR | Event.NOT_SENT_WHILE_OPEN if (
            before is not None
        ):
            return step.attempt, before.sent_at, before.unanswered_at
        case Event.REJECTED_WHILE_OPEN | Event.STORED_ERROR_WHILE_OPEN if before is not None:
            return step.attempt, step.sent_at, before.unanswered_at
        case _:
            return step.attempt, step.sent_at, step.unanswered_at


def _step(row: Record) -> Step:
    return Step(**{**dict(row), "state": State(row["state"])})


async def answered(connection: Connection, operation_id: str, step: Step) -> None:
    """Record that nothing of the step is without an answer any more; the rejection settles it next."""
    await connection.execute(
        """update operation_steps set unanswered_at = null
        where operation_id = $1 and position = $2 and attempt = $3 and settled_at is null""",
        operation_id,
        step.position,
        step.attempt,
    )


async def is_open_elsewhere(
    connection: Connection, customer_id: CustomerId, operation_id: str, keys: Iterable[str]
) -> bool:
    """Return True if another operation has sent a write of one of these metadata keys of the customer.

    Its outcome is not known yet.
    """
    return bool(
        await connection.fetchval(
            """select exists (select from operation_steps
            where customer_id = $1 and operation_id <> $2 and settled_at is null and state = 'in_flight'
              and (writes is null or writes ?| $3))""",
            customer_id,
            operation_id,
            list(keys),
        )
    )


async def subscription_change_runs(
    connection: Connection, subscription_id: SubscriptionId, *, beside_payment: bool = False
) -> bool:
    """Return True while a write of the subscription itself is unsettled.

    Another one might be undone by it when it is sent again. `beside_payment`: a purchase that was accepted and waits
    for its payment does not count, because it is never sent again.
    """
    return bool(
        await connection.fetchval(
            """select exists (select from operations o
            join operation_steps t on t.operation_id = o.id and t.settled_at is null
            where o.subscription_id = $1 and o.settled_at is null
              and t.action not in ('add', 'remove', 'update')
              and not ($2 and t.state = 'awaiting_payment'))""",
            subscription_id,
            beside_payment,
        )
    )


async def name_subscription(
    connection: Connection, operation_id: str, subscription_id: SubscriptionId
) -> None:
    """Store the id of the subscription that a purchase created."""
    await connection.execute(
        "update operations set subscription_id = $2 where id = $1", operation_id, subscription_id
    )


async def add_details(connection: Connection, operation_id: str, position: int, details: JsonObject) -> None:
    """Store what was decided about a step before its first sending."""
    await connection.execute(
        """update operation_steps set details = details || $3::jsonb
        where operation_id = $1 and position = $2 and settled_at is null""",
        operation_id,
        position,
        details,
    )


async def retire_old_keys(
    connection: Connection, operation_id: str, *, late_seconds: float, key_seconds: float = KEY_SECONDS
) -> None:
    """Expire the steps in flight whose key is older than `key_seconds`: Stripe may forget it soon.

    They are read once, and sent no more. No step expires before `late_seconds` have passed since its last sending,
    which may take effect until then.
    """
    await connection.execute(
        """update operation_steps set attempt = attempt + 1, state = $4, sent_at = null, unanswered_at = null
        where operation_id = $1 and state = $3 and settled_at is null
          and sent_at < clock_timestamp() - $5 * interval '1 second'
          and coalesce(unanswered_at < clock_timestamp() - $2 * interval '1 second', true)""",
        operation_id,
        late_seconds,
        State.IN_FLIGHT.value,
        State.EXPIRED.value,
        key_seconds,
    )


async def last_applied(connection: Connection, subscription_id: SubscriptionId, kind: str) -> str | None:
    """Return the id of the newest operation of this kind that changed the subscription."""
    found: str | None = await connection.fetchval(
        """select id from operations o where subscription_id = $1 and kind = $2 and exists (
            select from operation_steps t where t.operation_id = o.id and t.state = 'applied')
        order by created_at desc limit 1""",
        subscription_id,
        kind,
    )
    return found


async def discard(connection: Connection, operation_id: str, token: UUID) -> bool:
    """Withdraw an operation of which nothing was sent.

    Return False if something was sent, or if the lease is lost. Runs in a transaction: a sending that is recorded at
    the same moment is waited for, and the statement after that sees it.
    """
    await connection.execute(
        "select from operation_steps where operation_id = $1 order by position for update", operation_id
    )
    return await connection.fetchval(_DISCARD, operation_id, token) is not None


async def finish_if_settled(connection: Connection, operation_id: str) -> None:
    """Settle the operation if all its steps are settled."""
    await connection.execute(_FINISH, operation_id)
