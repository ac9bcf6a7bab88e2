"""What a read of a step's object, and Stripe's events, say of a step before anything is sent."""

from __future__ import annotations

from typing import Final, NamedTuple

from app.domain.snapshots import Snapshot
from app.operations.kinds import Done, Held, Params, Refused, Send, Unchanged, Wanted, Work
from app.operations.lifecycle import Event, State
from app.operations.rows import AwaitedInvoice
from app.operations.sending import changed_by_step

CHANGED_MEANWHILE: Final = "changed_meanwhile"


class Verdict(NamedTuple):
    """What settles a step without a further request.

    `awaited`: the invoice for which Stripe held the change back. `by_events`: Stripe's events prove it, so the object
    need not show it.
    """

    event: Event
    code: str | None = None
    awaited: AwaitedInvoice | None = None
    by_events: bool = False


async def verdict_of(work: Work, snapshot: Snapshot | None, wanted: Wanted) -> Verdict | None:
    """Return what settles the step by what was read; None: its write is to be sent."""
    match work.step.state, wanted:
        case State.IN_FLIGHT, Done(again=params) if params is not None and work.may_come_late:
            return None
        case State.AMBIGUOUS, Send():
            return await proved_by_events(work, snapshot)
        case ((State.IN_FLIGHT | State.AMBIGUOUS), Refused(code)) if not work.may_come_late:
            # What was read may rest on a change that came after the step's own.
            return await proved_by_events(work, snapshot) or Verdict(Event.RULE_REFUSES, code)
        case State.EXPIRED, Send() | Refused():
            return await proved_by_events(work, snapshot) or Verdict(
                Event.READ_LACKS_EFFECT, "operation_expired"
            )
        case _, Done():
            return Verdict(Event.READ_SHOWS_EFFECT)
        case _, Held():
            awaited = await work.steps.held_back(work.context, work.operation, work.step, snapshot)
            return Verdict(Event.READ_SHOWS_PENDING_UPDATE, awaited=awaited, by_events=awaited is not None)
        case _, Unchanged():
            return Verdict(Event.NOTHING_TO_DO)
        case _, Refused(code):
            return Verdict(Event.RULE_REFUSES, code)
    return None


def params_of(wanted: Wanted) -> Params:
    """Return the parameters of the write that is to be sent."""
    params = wanted.params if isinstance(wanted, Send) else None
    if isinstance(wanted, Done):
        params = wanted.again
    if params is None:
        raise LookupError("a step without parameters cannot be sent")
    return params


async def proved_by_events(work: Work, snapshot: Snapshot | None) -> Verdict | None:
    """Ask Stripe's events for the effect, which they show even if somebody has undone it; None: there is none."""
    step = work.step
    changes = await changed_by_step(work.context, work.operation.id, step, work.steps.event_types)
    if not work.kind.evidence(changes):
        return None
    awaited = await work.steps.held_back(work.context, work.operation, step, snapshot)
    if awaited is None and not work.steps.counts_once_made and not work.kind.shows(snapshot):
        lacks = Event.CHANGED_SINCE if step.state is State.AMBIGUOUS else Event.READ_LACKS_EFFECT
        return Verdict(lacks, CHANGED_MEANWHILE, by_events=True)
    event = Event.READ_SHOWS_EFFECT if awaited is None else Event.READ_SHOWS_PENDING_UPDATE
    return Verdict(event, awaited=awaited, by_events=True)
