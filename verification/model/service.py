"""The service beside that Stripe: one step's row, and a runner that may be killed between any two transactions.

Every change of the row goes through `app.operations.lifecycle`, so the table that is explored is the one that runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from app.operations.attempt_events import event_of
from app.operations.lifecycle import SETTLED, Event, State, may_settle, next_state
from app.stripe.attempts import Attempt, Outcome
from verification.model.stripe import Invoice, Kept, Reply, Stripe, handle
from verification.model.stripe import moves as moves_at_stripe


class Rule(Enum):
    """Which 5xx counts as kept under its key, so that a new key may follow."""

    PROVED = "only a 5xx that is proved to be kept"
    ASSUMED = "every 5xx"


class At(Enum):
    """Where the runner is, between two transactions."""

    AWAY = "nobody runs it"
    LOOKED = "the object and its events were read, and do not show the effect"
    RECORDED = "the sending is recorded, the request has not left"
    ANSWERED = "the attempt is over, its outcome is not recorded"


@dataclass(frozen=True, slots=True)
class Row:
    """What Postgres keeps. `number`: the attempt in the key. `is_unanswered`: a request of the key has no answer;
    `is_open`: it is in its late window.

    `is_reserved`: the seat is promised to nobody else. `deleted`: withdrawn.
    """

    state: State = State.PLANNED
    number: int = 0
    is_unanswered: bool = False
    is_open: bool = False
    is_reserved: bool = True
    deleted: bool = False

    @property
    def has_ended(self) -> bool:
        return self.deleted or self.state in SETTLED


@dataclass(frozen=True, slots=True)
class World:
    """`before`: the row as it was before the sending was recorded. `attempt`: what the runner knows of its own."""

    stripe: Stripe
    crashes: int
    row: Row = Row()
    at: At = At.AWAY
    before: Row | None = None
    attempt: Attempt | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """What may happen to one step.

    `by_payment`: the accepted change waits for its payment. `has_proxy`: a 5xx may come from in front of Stripe, its
    request still running. `keeps_answers`: False for a DELETE. `edits`, `faults`, `crashes`: how many at most.
    """

    rule: Rule = Rule.PROVED
    by_payment: bool = False
    has_proxy: bool = True
    keeps_answers: bool = True
    edits: int = 1
    faults: int = 3
    crashes: int = 1

    def start(self) -> World:
        stripe = Stripe(
            (None,) * (self.faults + 1), self.edits, self.faults, keeps_answers=self.keeps_answers
        )
        return World(stripe, self.crashes)


CASES = {
    "only a proved 5xx is kept": Case(edits=2),
    "a DELETE, whose answers no key keeps": Case(edits=2, keeps_answers=False),
    "every 5xx is taken as kept, and is": Case(rule=Rule.ASSUMED, has_proxy=False),
    "every 5xx is taken as kept, and a proxy answers": Case(rule=Rule.ASSUMED, edits=0, faults=2, crashes=0),
}
"""What is explored, each with a change that takes effect at once and one that waits for its payment."""

FOUND_WRONG = frozenset({"every 5xx is taken as kept, and a proxy answers"})

Move = tuple[str, World]
"""What happened, and the world after it."""

_OUTCOMES = {
    Reply.SUCCESS: Attempt(Outcome.ACCEPTED),
    Reply.REPLAYED_SUCCESS: Attempt(Outcome.REPLAYED, is_replay=True),
    Reply.STORED_5XX: Attempt(Outcome.UNSTORED_ERROR),
    Reply.MARKED_5XX: Attempt(Outcome.STORED_ERROR),
    Reply.REPLAYED_5XX: Attempt(Outcome.STORED_ERROR, is_replay=True),
    Reply.PROXY_5XX: Attempt(Outcome.UNSTORED_ERROR),
    Reply.REJECTION: Attempt(Outcome.REJECTED),
    Reply.REPLAYED_REJECTION: Attempt(Outcome.REJECTED, is_replay=True),
    Reply.TURNED_AWAY: Attempt(Outcome.NOT_SENT),
    Reply.NONE: Attempt(Outcome.NO_ANSWER),
}


def classify(reply: Reply, rule: Rule) -> Attempt:
    attempt = _OUTCOMES[reply]
    if rule is Rule.ASSUMED and attempt.outcome is Outcome.UNSTORED_ERROR:
        return Attempt(Outcome.STORED_ERROR)
    return attempt


def _open_until(world: World) -> float | None:
    """None if no request of the step can take effect any more, also because its object has ended."""
    return 1.0 if world.row.is_open and not world.stripe.is_gone else None


def moved(world: World, event: Event, **more: object) -> World:
    """The world after the event is committed, the runner away. Raises IllegalTransition."""
    row = world.row
    target = next_state(row.state, event, open_until=_open_until(world), now=0.0)
    row = replace(row, deleted=True) if target is None else replace(row, state=target, **more)  # type: ignore[arg-type]
    if row.has_ended:
        row = replace(row, is_reserved=False, is_unanswered=False, is_open=False)
    return World(world.stripe, world.crashes, row)


def moves(world: World, case: Case) -> Iterator[Move]:
    """Yield what may happen next, each with the world after it."""
    for told, stripe in moves_at_stripe(world.stripe, by_payment=case.by_payment):
        yield told, replace(world, stripe=stripe)
    if world.row.has_ended:
        return
    if world.at is not At.AWAY and world.crashes:
        yield "the process is killed", World(world.stripe, world.crashes - 1, world.row)
    yield from _of_runner(world, case)


def progress(world: World, case: Case) -> Iterator[Move]:
    """Yield the moves that come sooner or later by themselves: no fault, no edit, no crash."""
    patient = replace(world, crashes=0, stripe=replace(world.stripe, faults=0, edits=0))
    yield from moves(patient, case)


def _of_runner(world: World, case: Case) -> Iterator[Move]:
    row = world.row
    match world.at:
        case At.RECORDED:
            for reply, stripe in handle(world.stripe, row.number, by_payment=case.by_payment):
                if reply is Reply.PROXY_5XX and not case.has_proxy:
                    continue
                attempt = classify(reply, case.rule)
                yield f"sent: {reply.value}", replace(world, stripe=stripe, at=At.ANSWERED, attempt=attempt)
        case At.ANSWERED:
            yield _record_outcome(world)
            yield from _ask_for_cardholder(world)
        case At.LOOKED:
            yield "a check before sending fails", moved(world, Event.CANNOT_BE_SENT)
            yield "the permission is lost", moved(world, Event.RULE_REFUSES)
            yield from _send(world)
        case At.AWAY:
            yield from _at_rest(world, case)


def _at_rest(world: World, case: Case) -> Iterator[Move]:
    row, stripe = world.row, world.stripe
    if row.is_open and not stripe.running:
        # The bound on late executions: a request that is still running keeps the window open.
        yield "the late window ends", replace(world, row=replace(row, is_open=False))
    match row.state:
        case State.PLANNED:
            yield "withdrawn", moved(world, Event.WITHDRAWN)
            yield "a rule refuses", moved(world, Event.RULE_REFUSES)
            yield "a check before sending fails", moved(world, Event.CANNOT_BE_SENT)
            if stripe.visible:
                yield "it is so already", moved(world, Event.NOTHING_TO_DO)
                yield "somebody did it in the Dashboard", moved(world, Event.READ_SHOWS_EFFECT)
            yield from _send(world)
        case State.IN_FLIGHT:
            yield from _send(world)
            if may_settle(row.state, _open_until(world), 0.0):
                yield from _read(world, case, missing=Event.READ_LACKS_EFFECT)
                yield "the key expires", moved(world, Event.KEY_EXPIRED)
                if not stripe.effects:
                    yield "a rule refuses", moved(world, Event.RULE_REFUSES)
                    yield "a check before sending fails", moved(world, Event.CANNOT_BE_SENT)
        case State.AMBIGUOUS:
            if stripe.effects:
                yield from _read(world, case, missing=Event.CHANGED_SINCE)
            else:
                yield "neither object nor events show it", replace(world, at=At.LOOKED)
        case State.EXPIRED:
            yield from _read(world, case, missing=Event.READ_LACKS_EFFECT)
        case State.AWAITING_PAYMENT:
            yield from _read_invoice(world)


def _send(world: World) -> Iterator[Move]:
    after = moved(world, Event.SEND_RECORDED, is_unanswered=True, is_open=True)
    yield "the sending is recorded", replace(after, at=At.RECORDED, before=world.row)


def _read(world: World, case: Case, *, missing: Event) -> Iterator[Move]:
    """The object, and the events that name the step's keys; a pending update is told apart by its invoice."""
    stripe = world.stripe
    if case.by_payment and stripe.invoice is not None:
        yield "a read shows the pending update", moved(world, Event.READ_SHOWS_PENDING_UPDATE)
    elif stripe.visible:
        yield "a read shows the effect", moved(world, Event.READ_SHOWS_EFFECT)
    else:
        yield "a read lacks the effect", moved(world, missing)


def _read_invoice(world: World) -> Iterator[Move]:
    stripe = world.stripe
    match stripe.invoice:
        case Invoice.PAID if stripe.shown:
            # The events show the change, also if somebody edited the object since.
            yield "the invoice is paid", moved(world, Event.INVOICE_PAID)
        case Invoice.PAID:
            yield "paid, and the change never showed", moved(world, Event.PAID_WITHOUT_EFFECT)
        case Invoice.VOID:
            yield "the invoice is void", moved(world, Event.PAYMENT_ENDED)
        case Invoice.OPEN:
            # Another change supersedes the purchase: its invoice is voided under the lease, and read again.
            yield "the invoice is voided", replace(world, stripe=replace(stripe, invoice=Invoice.VOID))


def _record_outcome(world: World) -> Move:
    row, attempt, before = world.row, world.attempt, world.before
    if attempt is None or before is None:
        raise LookupError("an answer without its sending")
    event = event_of(attempt, was_unanswered=before.is_unanswered, number=row.number)
    told = f"recorded: {attempt.outcome.value}"
    match event:
        case None:
            return told, _apply(world)
        case Event.NO_ANSWER | Event.UNSTORED_ERROR:
            return told, moved(world, event)
        case Event.STORED_ERROR:
            return told, moved(world, event, number=row.number + 1, is_unanswered=False, is_open=False)
        case Event.REJECTED:
            quiet = replace(world, row=replace(row, is_open=False))
            return told, moved(quiet, event)
        case _:
            as_before = {"is_unanswered": before.is_unanswered, "is_open": before.is_open}
            return told, moved(world, event, **as_before)


def _ask_for_cardholder(world: World) -> Iterator[Move]:
    """A refusal that Stripe keeps may be the bank's wish to see the cardholder."""
    row, attempt, before = world.row, world.attempt, world.before
    if attempt is None or before is None or world.stripe.keys[row.number] is not Kept.REJECTION:
        return
    event = event_of(attempt, was_unanswered=before.is_unanswered, number=row.number)
    if event is Event.REJECTED and row.number + 1 < len(world.stripe.keys):
        quiet = replace(world, row=replace(row, is_open=False))
        more = {"number": row.number + 1, "is_unanswered": False}
        yield "recorded: the cardholder is asked for", moved(quiet, Event.CARDHOLDER_ASKED, **more)


def _apply(world: World) -> World:
    """The answer is applied, or the object is read in its place if the answer is from the past."""
    stripe = world.stripe
    quiet = replace(world, row=replace(world.row, is_open=False))
    if stripe.invoice is not None:
        return moved(quiet, Event.ANSWER_SHOWS_PENDING_UPDATE)
    return moved(quiet, Event.ANSWER_SHOWS_EFFECT if stripe.visible else Event.ANSWER_LACKS_EFFECT)


def broken(before: World, after: World, case: Case) -> Iterator[str]:
    """Yield the invariants that a move breaks."""
    stripe, row = after.stripe, after.row
    if stripe.effects > 1:
        yield "at most one effect"
    is_denied = row.deleted or row.state in (State.REFUSED, State.FAILED)
    if is_denied and (stripe.may_take_effect or stripe.invoice is Invoice.OPEN):
        yield "nothing is reported as failed that may still take effect"
    was_edited = stripe.edits < case.edits
    if is_denied and not before.row.has_ended and stripe.effects and stripe.visible and not was_edited:
        yield "nothing is reported as failed that took effect"
    if not row.is_reserved and (not row.has_ended or stripe.may_take_effect):
        yield "a reservation lives until nothing can take effect any more"
    if case.keeps_answers and row.number and stripe.keys[row.number - 1] is None:
        yield "a new key follows only a kept answer"
