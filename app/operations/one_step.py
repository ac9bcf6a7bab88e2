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
from app.errors import BillingError, NotFound
from app.mirror.held_objects import HeldObject, held
from app.operations import store as operations
from app.operations import waiting, waiting_store
from app.operations.attempt_events import event_of
from app.operations.kinds import (
    Answer,
    Ended,
    Ending,
    Params,
    Seen,
    Wait,
    Work,
)
from app.operations.lifecycle import Event, State
from app.operations.rows import Step
from app.operations.sending import (
    is_known,
    may_come_late,
    money_details,
    open_until,
)
from app.operations.verdicts import CHANGED_MEANWHILE, Verdict, params_of, proved_by_events, verdict_of
from app.postgres.database import Connection
from app.stripe.client import Tried
from app.stripe.gateway import Fetched

log = structlog.get_logger(__name__)


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
        return await _create(work)
    async with held(work.context, work.steps.object_kind, object_id) as one:
        found = await one.read()
        facts = await work.steps.facts(work.context, work.operation, work.step, found)
        wanted = work.kind.wanted(Seen(found.snapshot, facts))
        verdict = await verdict_of(work, found.snapshot, wanted)
        if verdict is not None:
            return Ended(await _settle_by_read(work, one, found, verdict))
        params = params_of(wanted)
        step, params = await work.steps.prepared(work.context, work.operation, work.step, found, params)
        return await _send(replace(work, step=step), one, found.snapshot, params)


async def _follow(work: Work) -> Ending:
    """Look at a purchase that waits for its payment. It is never sent again, and a worker looks at it again."""
    async with work.context.database.connection() as connection:
        found = await waiting_store.of_operation(connection, work.operation.id)
    if found is not None:
        await waiting.settle_if_ended(work.context, found)
    return Ending.SETTLED


async def _settle_by_read(work: Work, one: HeldObject, found: Fetched, verdict: Verdict) -> Ending:
    """Settle a step that is not sent again, unless a request of it may still take effect."""
    is_gone = work.steps.is_gone(found.snapshot)
    if work.may_come_late and not is_gone:
        return Ending.OPEN
    async with one.applied(found) as (connection, snapshot):
        if not (verdict.by_events or _still_shows(work, verdict.event, snapshot)):
            # Somebody changed the object after it was read: it is judged again.
            return Ending.OPEN
        await _settle(work, connection, work.step, verdict, snapshot, is_gone=is_gone)
    return Ending.SETTLED


def _still_shows(work: Work, event: Event, snapshot: Snapshot | None) -> bool:
    if event is Event.READ_SHOWS_PENDING_UPDATE:
        return work.steps.awaited(work.context, work.operation, work.step, snapshot, None) is not None
    return event is not Event.READ_SHOWS_EFFECT or work.kind.shows(snapshot)


async def _send(work: Work, one: HeldObject, before: Snapshot | None, params: Params) -> Ended:
    """Send the write of an object whose lease is held, and settle the step by the answer."""
    sent = await _attempt(work, before, params)
    if isinstance(sent, Ending):
        return Ended(sent)
    if sent.tried.error is not None:
        return await _not_accepted(work, sent, one)
    answer = sent.answer
    async with one.applied(answer.fetched) as (connection, snapshot):
        await _settle_by_answer(work, connection, sent.step, snapshot, answer)
    return Ended(Ending.SETTLED, answer)


async def _settle_by_answer(
    work: Work, connection: Connection, sent: Step, snapshot: Snapshot | None, answer: Answer
) -> None:
    awaited = work.steps.awaited(work.context, work.operation, sent, snapshot, answer)
    if awaited is not None:
        # Only its invoice proves the purchase: anybody can edit the quantity.
        verdict = Verdict(Event.ANSWER_SHOWS_PENDING_UPDATE, awaited=awaited)
    elif work.steps.counts_once_made or work.kind.shows(snapshot):
        verdict = Verdict(Event.ANSWER_SHOWS_EFFECT)
    else:
        verdict = Verdict(
            Event.ANSWER_LACKS_EFFECT, "not_found" if work.steps.is_gone(snapshot) else CHANGED_MEANWHILE
        )
    await _settle(work, connection, sent, verdict, snapshot)


async def _create(work: Work) -> Ended:
    """Create the step's object, or find the one that an earlier request created."""
    step, found = work.step, None
    if step.was_sent:
        found = await work.steps.created(work.context, work.operation, step)
    if found is None:
        if step.is_expired:
            async with work.context.database.transaction() as connection:
                verdict = Verdict(Event.READ_LACKS_EFFECT, "operation_expired")
                await _settle(work, connection, step, verdict, None)
            return Ended(Ending.SETTLED)
        sent = await _attempt(work, None, params_of(work.kind.wanted(Seen(None))))
        if isinstance(sent, Ending):
            return Ended(sent)
        if sent.tried.error is not None:
            return await _not_accepted(work, sent, None)
        step, found = sent.step, sent.answer
    return await _apply_created(work, step, found)


async def _apply_created(work: Work, step: Step, answer: Answer) -> Ended:
    """Apply what was created. It names the operation, so it is the answer of one of the step's keys."""
    found = answer.fetched
    if found.snapshot is None:
        raise LookupError("a create that was accepted returned no object")
    async with (
        held(work.context, work.steps.object_kind, found.snapshot.id) as one,
        one.applied(found, is_older=True) as (connection, snapshot),
    ):
        awaited = work.steps.awaited(work.context, work.operation, step, snapshot, answer)
        if step.state is State.IN_FLIGHT:
            await _settle_by_answer(work, connection, step, snapshot, answer)
            return Ended(Ending.SETTLED, answer)
        if awaited is not None:
            verdict = Verdict(Event.READ_SHOWS_PENDING_UPDATE, awaited=awaited)
        elif work.steps.counts_once_made or work.kind.shows(snapshot):
            verdict = Verdict(Event.READ_SHOWS_EFFECT)
        else:
            is_ambiguous = step.state is State.AMBIGUOUS
            verdict = Verdict(
                Event.CHANGED_SINCE if is_ambiguous else Event.READ_LACKS_EFFECT, CHANGED_MEANWHILE
            )
        await _settle(work, connection, step, verdict, snapshot)
    return Ended(Ending.SETTLED, answer)


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
                verdict = Verdict(Event.RULE_REFUSES, against.code)
                await _settle(work, connection, step, verdict, None, details=against.details or None)
                return Ending.SETTLED
        sent = await operations.transition(
            connection, work.operation.id, step, Event.SEND_RECORDED, token=work.token
        )
    return Sent(sent, await write.attempt(grant, work.key))


def _open(work: Work, why: str) -> Ending:
    log.info("step_waits", operation_id=work.operation.id, position=work.step.position, why=why)
    return Ending.OPEN


async def _not_accepted(work: Work, sent: Sent, one: HeldObject | None) -> Ended:
    """Record what became of an attempt that was not accepted, and settle the step if that decides it."""
    step, tried, error = work.step, sent.tried, sent.tried.error
    if error is None:
        raise LookupError("the attempt was accepted")
    event = event_of(tried.attempt, was_unanswered=step.unanswered_at is not None, number=step.attempt)
    log.warning(
        "step_open", operation_id=work.operation.id, position=step.position, code=error.code, event_=event
    )
    if event is Event.REJECTED:
        return await _rejected(work, sent.step, error, one)
    if event is None or event in (Event.NO_ANSWER, Event.UNSTORED_ERROR):
        # The sending has been recorded: the step stays in flight, and its late window has begun again.
        return Ended(Ending.OPEN, error=error)
    if event is not Event.STORED_ERROR and tried.attempt.has_open_try:
        return Ended(Ending.OPEN, error=error)
    async with work.context.database.connection() as connection:
        now = await operations.transition(connection, work.operation.id, sent.step, event, before=step)
    if event is Event.STORED_ERROR:
        return Ended(Ending.READABLE, error=error)
    if event is Event.STORED_ERROR_WHILE_OPEN or not is_known(error) or work.may_come_late:
        return Ended(Ending.OPEN, error=error)
    return await _settle_refused_by_stripe(work, now, error, one)


async def _rejected(work: Work, sent: Step, error: BillingError, one: HeldObject | None) -> Ended:
    """Settle a step that Stripe refused while no other request of it may take effect, unless it is sent otherwise."""
    other = work.steps.instead(sent, error)
    if other is not None:
        async with work.context.database.transaction() as connection:
            await operations.add_details(connection, work.operation.id, sent.position, other)
            await operations.transition(connection, work.operation.id, sent, Event.CARDHOLDER_ASKED)
        return Ended(Ending.READABLE, error=error)
    if isinstance(error, NotFound) and one is not None:
        # It was read a moment ago, so it has ended since: what the step wanted may be so.
        async with work.context.database.connection() as connection:
            await operations.answered(connection, work.operation.id, sent)
        now = replace(sent, unanswered_at=None, unanswered_for=None)
        return await _settle_refused_by_stripe(work, now, error, one)
    async with work.context.database.connection() as connection:
        verdict, details = Verdict(Event.REJECTED, work.steps.code_of(error)), money_details(error.members)
        await _settle(work, connection, sent, verdict, None, details=details)
    return Ended(Ending.SETTLED, error=error)


async def _settle_refused_by_stripe(
    work: Work, now: Step, error: BillingError, one: HeldObject | None
) -> Ended:
    """Settle a step whose last request was refused, and whose earlier ones can take effect no more.

    An earlier request whose answer was lost may have taken effect, so Stripe is read before a failure is reported.
    """
    details = money_details(error.members)
    if now.state is not State.IN_FLIGHT:
        async with work.context.database.connection() as connection:
            verdict = Verdict(Event.CANNOT_BE_SENT, work.steps.code_of(error))
            await _settle(work, connection, now, verdict, None, details=details)
        return Ended(Ending.SETTLED, error=error)
    lacks = Verdict(Event.READ_LACKS_EFFECT, work.steps.code_of(error))
    if one is None:
        created = await work.steps.created(work.context, work.operation, work.step)
        if created is not None:
            return await _apply_created(work, now, created)
        async with work.context.database.connection() as connection:
            await _settle(work, connection, now, lacks, None, details=details)
        return Ended(Ending.SETTLED, error=error)
    found = await one.read()
    proved = None
    if not work.kind.shows(found.snapshot):
        proved = await proved_by_events(replace(work, step=now), found.snapshot)
    async with one.applied(found) as (connection, snapshot):
        if work.kind.shows(snapshot):
            await _settle(work, connection, now, Verdict(Event.READ_SHOWS_EFFECT), snapshot)
            return Ended(Ending.SETTLED)
        if proved is None:
            await _settle(work, connection, now, lacks, snapshot, details=details)
            return Ended(Ending.SETTLED, error=error)
        await _settle(work, connection, now, proved, snapshot)
    return Ended(Ending.SETTLED)


async def settle_failed(work: Work, error: BillingError) -> Ended:
    """Settle a step that cannot be sent, by an error from before its sending, unless it has to stay open."""
    async with work.context.database.connection() as connection:
        found = await operations.steps(connection, work.operation.id)
        now = next(one for one in found if one.position == work.step.position)
        if now.is_settled:
            return Ended(Ending.SETTLED)
        is_awaiting = now.state is State.AWAITING_PAYMENT
        if is_awaiting or not is_known(error) or may_come_late(work.context.rules, now):
            return Ended(Ending.OPEN, error=error)
        event = Event.READ_LACKS_EFFECT if now.state is State.EXPIRED else Event.CANNOT_BE_SENT
        details = money_details(error.members)
        await _settle(work, connection, now, Verdict(event, error.code), None, details=details)
    log.warning("step_failed", operation_id=work.operation.id, position=now.position, code=error.code)
    return Ended(Ending.SETTLED, error=error)


async def _settle(
    work: Work,
    connection: Connection,
    step: Step,
    verdict: Verdict,
    snapshot: Snapshot | None,
    *,
    details: JsonObject | None = None,
    is_gone: bool = False,
) -> None:
    """Settle a step or let it wait for its payment, and record what follows from its object, in one transaction.

    `is_gone`: the object does not exist any more, so no request can change it.
    """
    is_applied = verdict.event in (Event.ANSWER_SHOWS_EFFECT, Event.READ_SHOWS_EFFECT)
    person = CustomerId(snapshot.id) if is_applied and isinstance(snapshot, Customer) else None
    awaited = verdict.awaited or work.steps.awaited(work.context, work.operation, step, snapshot, None)
    await operations.transition(
        connection,
        work.operation.id,
        step,
        verdict.event,
        code=verdict.code,
        details=details,
        customer_id=person,
        awaited=awaited,
        open_until=None if is_gone else open_until(work.context.rules, step),
    )
    if snapshot is not None or is_applied:
        await work.steps.record(connection, work.operation, step, snapshot, applied=is_applied)
