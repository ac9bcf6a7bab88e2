"""The event of the write protocol that an attempt raises. Pure."""

from __future__ import annotations

from app.operations.lifecycle import Event
from app.stripe.attempts import Attempt, Outcome

_UNDECIDED = {Outcome.NO_ANSWER: Event.NO_ANSWER, Outcome.UNSTORED_ERROR: Event.UNSTORED_ERROR}


def event_of(attempt: Attempt, *, was_unanswered: bool, number: int) -> Event | None:
    """Return the event that an attempt raises; None for an answer, which is applied and raises its own.

    `was_unanswered`: an earlier request of the same key got no answer, however long ago. `number`: the attempt's
    number in the key, which is the number of stored errors before it.
    """
    is_unanswered = attempt.leaves_unanswered(before=was_unanswered)
    match attempt.outcome:
        case Outcome.ACCEPTED | Outcome.REPLAYED:
            return None
        case Outcome.STORED_ERROR:
            return Event.STORED_ERROR_WHILE_OPEN if is_unanswered else Event.STORED_ERROR
        case Outcome.REJECTED:
            return Event.REJECTED_WHILE_OPEN if is_unanswered else Event.REJECTED
        case Outcome.NOT_SENT if is_unanswered:
            return Event.NOT_SENT_WHILE_OPEN
        case Outcome.NOT_SENT:
            return Event.NOT_SENT_AFTER_STORED_ERROR if number else Event.NOT_SENT
        case undecided:
            return _UNDECIDED[undecided]
