"""One step of an operation as a straight line: read, decide, grant, check and record, call, classify, settle.

Stripe offers no compare-and-set, so each write is preceded by a read under the object's lease, and what was read
decides whether anything is sent. A request without an answer is sent again with its key, even if its effect shows:
only then is it certain that it takes effect no later. If it must not be sent again, the step waits until the request
can take effect no more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, cast

import structlog

from app.domain.ids import CustomerId
from app.domain.snapshots import Customer, JsonObject, Snapshot
from app.errors import BillingError
from app.mirror.held_objects import HeldObject, held
from app.operations import store as operations
from app.operations import waiting, waiting_store
from app.operations.attempt_events import event_of
from app.operations.kinds import (
    Answer,
    Done,
    Ended,
    Ending,
    Held,
    Params,
    Refused,
    Seen,
    Send,
    Unchanged,
    Wait,
    Wanted,
    Work,
)
from app.operations.lifecycle import Event, State
from app.operations.rows import Step
from app.operations.sending import (
    changed_by_step,
    changed_despite_5xx,
    is_known,
    may_come_late,
    money_details,
    open_until,
)
from app.postgres.database import Connection
from app.stripe.client import Tried
from app.stripe.gateway import Fetched

log = structlog.get_logger(__name__)

_CHANGED = "changed_meanwhile"
_PENDING = (Event.ANSWER_SHOWS_PENDING_UPDATE, Event.READ_SHOWS_PENDING_UPDATE)


async def carry_out(work: Work) -> Ended:
    """Try one step once.

    Raises:
        BillingError: Before anything was sent by this try, or while its answer was applied. If the step is settled by
            that, `settle_failed` does it.
    """
    if work.step.state is State.AWAITING_PAYMENT:
        return Ended(await _follow(work))
    work = replace(work, step=await work.steps.decided(work.context, work.operation, work.step))
    object_id = work.steps.object_id(work.operation, work.step)
    if object_id is None:
        return Ended(await _create(work))
    async with held(work.context, work.steps.object_kind, object_id) as one:
        found = await one.read()
        facts = await work.steps.facts(work.context, work.operation, work.step, found)
        wanted = work.kind.wanted(Seen(found.snapshot, facts))
        params = await _params(work, wanted)
        if params is None:
            return Ended(await _settle_by_read(work, one, found, wanted))
        step, params = await work.steps.prepared(work.context, work.operation, work.step, found, params)
        return await _send(replace(work, step=step), one, found.snapshot, params)


async def _follow(work: Work) -> Ending:
    """Look at a purchase that waits for its payment. It is never sent again, and a worker looks at it again."""
    async with work.context.database.connection() as connection:
        found = await waiting_store.of_operation(connection, work.operation.id)
    if found is not None:
        await waiting.settle_if_ended(work.context, found)
    return Ending.SETTLED


async def _params(work: Work, wanted: Wanted) -> Params | None:
    """Return what is to be sent; None if what was read settles the step, or something has to be waited for."""
    match work.step.state, wanted:
        case State.EXPIRED, _:
            return None
        case State.IN_FLIGHT, Done(again=params) if params is not None and work.may_come_late:
            return params
        case State.AMBIGUOUS, Send(params):
            return None if await _has_evidence(work, since_5xx=True) else params
        case _, Send(params):
            return params
    return None


async def _has_evidence(work: Work, *, since_5xx: bool) -> bool:
    """Ask Stripe's events for the step's effect, which they show even if somebody has undone it."""
    asked = changed_despite_5xx if since_5xx else changed_by_step
    changes = await asked(work.context, work.operation.id, work.step, work.steps.event_types)
    return work.kind.evidence(changes)


async def _settle_by_read(work: Work, one: HeldObject, found: Fetched, wanted: Wanted) -> Ending:
    """Settle a step that is not sent again, unless a request of it may still take effect."""
    if work.may_come_late and not _is_gone(found.snapshot):
        return Ending.OPEN
    event, code = await _event_of_snapshot(work, wanted)
    async with one.applied(found) as (connection, snapshot):
        is_held = work.steps.awaited(work.context, work.operation, snapshot, None) is not None
        if (event is Event.READ_SHOWS_EFFECT and not work.kind.shows(snapshot)) or (
            event is Event.READ_SHOWS_PENDING_UPDATE and not is_held
        ):
            # Somebody changed the object after it was read: it is judged again.
            return Ending.OPEN
        await _settle(
            work, connection, work.step, event, snapshot, code=code, is_gone=_is_gone(found.snapshot)
        )
    return Ending.SETTLED


async def _event_of_snapshot(work: Work, wanted: Wanted) -> tuple[Event, str | None]:
    match wanted:
        case Done():
            return Event.READ_SHOWS_EFFECT, None
        case Held():
            return Event.READ_SHOWS_PENDING_UPDATE, None
        case Unchanged():
            return Event.NOTHING_TO_DO, None
        case _ if work.step.state is State.EXPIRED:
            was_undone = await _has_evidence(work, since_5xx=False)
            return Event.READ_LACKS_EFFECT, _CHANGED if was_undone else "operation_expired"
        case Refused(code):
            return Event.RULE_REFUSES, code
        case Send():
            return Event.CHANGED_SINCE, _CHANGED


def _is_gone(snapshot: Snapshot | None) -> bool:
    """Return True if no request can change the object any more."""
    return snapshot is None or (isinstance(snapshot, Customer) and snapshot.deleted)


async def _send(work: Work, one: HeldObject, before: Snapshot | None, params: Params) -> Ended:
    """Send the write of an object whose lease is held, and settle the step by the answer."""
    sent = await _attempt(work, before, params)
    if isinstance(sent, Ending):
        return Ended(sent)
    if sent.tried.error is not None:
        return Ended(await _not_accepted(work, sent, one))
    answer = sent.answer
    async with one.applied(answer.fetched) as (connection, snapshot):
        await _settle_by_answer(work, connection, sent.step, snapshot, answer)
    return Ended(Ending.SETTLED, answer)


async def _settle_by_answer(
    work: Work, connection: Connection, sent: Step, snapshot: Snapshot | None, answer: Answer
) -> None:
    if work.steps.awaited(work.context, work.operation, snapshot, answer) is not None:
        # Only its invoice proves the purchase: anybody can edit the quantity.
        await _settle(work, connection, sent, Event.ANSWER_SHOWS_PENDING_UPDATE, snapshot, answer=answer)
    elif work.kind.shows(snapshot):
        await _settle(work, connection, sent, Event.ANSWER_SHOWS_EFFECT, snapshot)
    else:
        code = "not_found" if _is_gone(snapshot) else _CHANGED
        await _settle(work, connection, sent, Event.ANSWER_LACKS_EFFECT, snapshot, code=code)


async def _create(work: Work) -> Ending:
    """Create the step's object, or find the one that an earlier request created."""
    step, found = work.step, None
    if step.was_sent:
        found = await work.steps.created(work.context, work.operation, step)
    if found is None:
        if step.is_expired:
            async with work.context.database.transaction() as connection:
                await _settle(work, connection, step, Event.READ_LACKS_EFFECT, None, code="operation_expired")
            return Ending.SETTLED
        wanted = work.kind.wanted(Seen(None))
        if not isinstance(wanted, Send):
            raise LookupError("a step that creates its object has nothing to send")
        sent = await _attempt(work, None, wanted.params)
        if isinstance(sent, Ending):
            return sent
        if sent.tried.error is not None:
            return await _not_accepted(work, sent, None)
        step, found = sent.step, sent.answer.fetched
    return await _apply_created(work, step, found)


async def _apply_created(work: Work, step: Step, found: Fetched) -> Ending:
    """Apply what was created. It names the operation, so it is the answer of one of the step's keys."""
    if found.snapshot is None:
        raise LookupError("a create that was accepted returned no object")
    async with (
        held(work.context, work.steps.object_kind, found.snapshot.id) as one,
        one.applied(found, is_older=True) as (connection, snapshot),
    ):
        if step.state is State.IN_FLIGHT:
            await _settle_by_answer(work, connection, step, snapshot, found)
        elif work.kind.shows(snapshot):
            await _settle(work, connection, step, Event.READ_SHOWS_EFFECT, snapshot)
        else:
            lacks = Event.CHANGED_SINCE if step.state is State.AMBIGUOUS else Event.READ_LACKS_EFFECT
            await _settle(work, connection, step, lacks, snapshot, code=_CHANGED)
    return Ending.SETTLED


class Sent(NamedTuple):
    """A step as its sending was recorded, and what became of the attempt."""

    step: Step
    tried: Tried[Any]

    @property
    def answer(self) -> Answer:
        """What Stripe answered to a write that was accepted."""
        if self.tried.result is None:
            raise LookupError("a write that was accepted has no result")
        return cast("Answer", self.tried.result)


async def _attempt(work: Work, before: Snapshot | None, params: Params) -> Ending | Sent:
    """Take the grant, check and record in one transaction, and call. Returns the ending if nothing was sent."""
    write = work.steps.write(work.context, work.operation, work.step, params)
    grant = await write.grant()
    step = work.step
    async with work.context.database.transaction() as connection:
        if step.customer_id is not None and await operations.is_open_elsewhere(
            connection, step.customer_id, work.operation.id, params
        ):
            return _open(work, "an earlier change of this customer may still take effect")
        if not step.has_sent_key:
            judged = work.steps.judged(work.operation, step, before)
            against = await work.rules.check(work.context, connection, work.operation, judged)
            if isinstance(against, Wait):
                return _open(work, against.why)
            if against is not None:
                details = against.details or None
                await _settle(
                    work, connection, step, Event.RULE_REFUSES, None, code=against.code, details=details
                )
                return Ending.SETTLED
        sent = await operations.transition(
            connection, work.operation.id, step, Event.SEND_RECORDED, token=work.token
        )
    return Sent(sent, await write.attempt(grant, work.key))


def _open(work: Work, why: str) -> Ending:
    log.info("step_waits", operation_id=work.operation.id, position=work.step.position, why=why)
    return Ending.OPEN


async def _not_accepted(work: Work, sent: Sent, one: HeldObject | None) -> Ending:
    """Record what became of an attempt that was not accepted, and settle the step if that decides it."""
    step, tried, error = work.step, sent.tried, sent.tried.error
    if error is None:
        raise LookupError("the attempt was accepted")
    event = event_of(tried.attempt, was_unanswered=step.unanswered_at is not None, number=step.attempt)
    log.warning(
        "step_open", operation_id=work.operation.id, position=step.position, code=error.code, event_=event
    )
    if event is None or event in (Event.NO_ANSWER, Event.UNSTORED_ERROR):
        # The sending has been recorded: the step stays in flight, and its late window has begun again.
        return Ending.OPEN
    if event is Event.REJECTED:
        async with work.context.database.connection() as connection:
            details = money_details(error.members)
            await _settle(
                work, connection, sent.step, event, None, code=work.steps.code_of(error), details=details
            )
        return Ending.SETTLED
    if event is not Event.STORED_ERROR and tried.attempt.has_open_try:
        return Ending.OPEN
    async with work.context.database.connection() as connection:
        now = await operations.transition(connection, work.operation.id, sent.step, event, before=step)
    if event is Event.STORED_ERROR:
        return Ending.READABLE
    if event is Event.STORED_ERROR_WHILE_OPEN or not is_known(error) or work.may_come_late:
        return Ending.OPEN
    return await _settle_refused_by_stripe(work, now, error, one)


async def _settle_refused_by_stripe(
    work: Work, now: Step, error: BillingError, one: HeldObject | None
) -> Ending:
    """Settle a step whose last request was refused, and whose earlier ones can take effect no more.

    An earlier request whose answer was lost may have taken effect, so Stripe is read before a failure is reported.
    """
    if now.state is not State.IN_FLIGHT:
        async with work.context.database.connection() as connection:
            await _settle(work, connection, now, Event.CANNOT_BE_SENT, None, code=work.steps.code_of(error))
        return Ending.SETTLED
    if one is None:
        found = await work.steps.created(work.context, work.operation, work.step)
        if found is not None:
            return await _apply_created(work, now, found)
        async with work.context.database.connection() as connection:
            await _settle(
                work, connection, now, Event.READ_LACKS_EFFECT, None, code=work.steps.code_of(error)
            )
        return Ending.SETTLED
    found = await one.read()
    was_made = not work.kind.shows(found.snapshot) and await _has_evidence(work, since_5xx=False)
    async with one.applied(found) as (connection, snapshot):
        if work.kind.shows(snapshot):
            await _settle(work, connection, now, Event.READ_SHOWS_EFFECT, snapshot)
        elif was_made and work.steps.awaited(work.context, work.operation, snapshot, None) is not None:
            await _settle(work, connection, now, Event.READ_SHOWS_PENDING_UPDATE, snapshot)
        else:
            code = _CHANGED if was_made else work.steps.code_of(error)
            await _settle(work, connection, now, Event.READ_LACKS_EFFECT, snapshot, code=code)
    return Ending.SETTLED


async def settle_failed(work: Work, error: BillingError) -> bool:
    """Settle a step that cannot be sent, by an error from before its sending. Returns False if it stays open."""
    async with work.context.database.connection() as connection:
        found = await operations.steps(connection, work.operation.id)
        now = next(one for one in found if one.position == work.step.position)
        if now.is_settled:
            return True
        is_awaiting = now.state is State.AWAITING_PAYMENT
        if is_awaiting or not is_known(error) or may_come_late(work.context.rules, now):
            return False
        event = Event.READ_LACKS_EFFECT if now.state is State.EXPIRED else Event.CANNOT_BE_SENT
        details = money_details(error.members)
        await _settle(work, connection, now, event, None, code=error.code, details=details)
    log.warning("step_failed", operation_id=work.operation.id, position=now.position, code=error.code)
    return True


async def _settle(
    work: Work,
    connection: Connection,
    step: Step,
    event: Event,
    snapshot: Snapshot | None,
    *,
    code: str | None = None,
    details: JsonObject | None = None,
    is_gone: bool = False,
    answer: Answer | None = None,
) -> None:
    """Settle a step or let it wait for its payment, and record what follows from its object, in one transaction.

    `is_gone`: the object does not exist any more, so no request can change it.
    """
    is_applied = event in (Event.ANSWER_SHOWS_EFFECT, Event.READ_SHOWS_EFFECT)
    created = work.steps.object_id(work.operation, step) is None
    await operations.transition(
        connection,
        work.operation.id,
        step,
        event,
        code=code,
        details=details,
        customer_id=CustomerId(snapshot.id) if is_applied and created and snapshot is not None else None,
        awaited=work.steps.awaited(work.context, work.operation, snapshot, answer),
        open_until=None if is_gone else open_until(work.context.rules, step),
    )
    if event not in _PENDING and (snapshot is not None or is_applied):
        await work.steps.record(connection, work.operation, step, snapshot, applied=is_applied)
