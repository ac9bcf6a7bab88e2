"""Every state that one write at Stripe can be in, every event that moves it, and who may raise that event.

A step of an operation is one write. `ROWS` is the table; `docs/explanation/write-protocol.md` shows it as a diagram,
and `verification/model` explores it exhaustively beside a small Stripe. The module is pure:
beside the standard library it needs only the outcome of an attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

KEY_SECONDS = 23 * 3600.0
"""The longest time for which an idempotency key is sent again: Stripe may forget it after 24 hours."""


class State(StrEnum):
    """A state of a step, as its row stores it; `MEANINGS` describes each."""

    PLANNED = "planned"
    IN_FLIGHT = "in_flight"
    AMBIGUOUS = "ambiguous"
    EXPIRED = "expired"
    AWAITING_PAYMENT = "awaiting_payment"
    APPLIED = "applied"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    FAILED = "failed"


NOT_MADE = frozenset({State.REFUSED, State.FAILED})
SETTLED = frozenset({State.APPLIED, State.UNCHANGED}) | NOT_MADE
"""The states that no event leaves."""

MEANINGS: Mapping[State, str] = MappingProxyType(
    {
        State.PLANNED: "Nothing has been sent.",
        State.IN_FLIGHT: "A request was recorded and may have been sent. It may still take effect.",
        State.AMBIGUOUS: "Stripe keeps a 5xx under the key. No request is running, the effect is not known, and the "
        "next request needs a new key.",
        State.EXPIRED: "The key is too old to be sent again. Stripe is read once, and that is the end.",
        State.AWAITING_PAYMENT: "Stripe accepted the change as a pending update. It takes effect when its invoice is "
        "paid.",
        State.APPLIED: "The change took effect.",
        State.UNCHANGED: "Everything was already as asked.",
        State.REFUSED: "A rule of ours refused the change. Nothing took effect, and nothing will.",
        State.FAILED: "The change did not take effect, or somebody changed it since. Nothing more will happen.",
    }
)


class Event(StrEnum):
    """What happened to a step; `ROWS` says which state follows."""

    NOTHING_TO_DO = "nothing_to_do"
    RULE_REFUSES = "rule_refuses"
    CANNOT_BE_SENT = "cannot_be_sent"
    WITHDRAWN = "withdrawn"
    SEND_RECORDED = "send_recorded"
    NOT_SENT = "not_sent"
    NOT_SENT_AFTER_STORED_ERROR = "not_sent_after_stored_error"
    NOT_SENT_WHILE_OPEN = "not_sent_while_open"
    NO_ANSWER = "no_answer"
    UNSTORED_ERROR = "unstored_error"
    STORED_ERROR = "stored_error"
    STORED_ERROR_WHILE_OPEN = "stored_error_while_open"
    REJECTED = "rejected"
    REJECTED_WHILE_OPEN = "rejected_while_open"
    CARDHOLDER_ASKED = "cardholder_asked"
    ANSWER_SHOWS_EFFECT = "answer_shows_effect"
    ANSWER_LACKS_EFFECT = "answer_lacks_effect"
    ANSWER_SHOWS_PENDING_UPDATE = "answer_shows_pending_update"
    READ_SHOWS_EFFECT = "read_shows_effect"
    READ_LACKS_EFFECT = "read_lacks_effect"
    READ_SHOWS_PENDING_UPDATE = "read_shows_pending_update"
    CHANGED_SINCE = "changed_since"
    KEY_EXPIRED = "key_expired"
    INVOICE_PAID = "invoice_paid"
    PAYMENT_ENDED = "payment_ended"
    PAID_WITHOUT_EFFECT = "paid_without_effect"


class Raiser(StrEnum):
    """The part of the service that raises an event."""

    ADMISSION = "admission"
    RUNNER = "runner"
    ATTEMPT = "attempt"
    SNAPSHOT = "applied snapshot"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the table; `target` None: the operation is deleted, as if it had never been asked for.

    `needs_quiet`: only while no request of the step may still take effect (`may_settle`).
    """

    source: State
    event: Event
    target: State | None
    raised_by: Raiser
    when: str
    needs_quiet: bool = False


_RECORDED = "the lease is held and the key is younger than 23 hours"
_LOST = "the actor lost the permission, the seat is gone, or the object does not allow it any more"
_IMPOSSIBLE = "a check before sending fails: a quote that cannot be kept, an unpaid invoice, a missing object"
_LOOKED = "Stripe was read, and neither the object nor its events show the effect"

ROWS: tuple[Transition, ...] = (
    Transition(State.PLANNED, Event.NOTHING_TO_DO, State.UNCHANGED, Raiser.ADMISSION, "it is so already"),
    Transition(State.PLANNED, Event.RULE_REFUSES, State.REFUSED, Raiser.RUNNER, _LOST),
    Transition(State.PLANNED, Event.CANNOT_BE_SENT, State.FAILED, Raiser.RUNNER, _IMPOSSIBLE),
    Transition(
        State.PLANNED,
        Event.WITHDRAWN,
        None,
        Raiser.RUNNER,
        "the request never left, and its caller learns that",
    ),
    Transition(
        State.PLANNED,
        Event.READ_SHOWS_EFFECT,
        State.APPLIED,
        Raiser.SNAPSHOT,
        "somebody did it in the Dashboard",
    ),
    Transition(State.PLANNED, Event.SEND_RECORDED, State.IN_FLIGHT, Raiser.RUNNER, _RECORDED),
    Transition(
        State.IN_FLIGHT, Event.SEND_RECORDED, State.IN_FLIGHT, Raiser.RUNNER, f"the same key; {_RECORDED}"
    ),
    Transition(
        State.IN_FLIGHT, Event.NOT_SENT, State.PLANNED, Raiser.ATTEMPT, "no connection, 401, 403, 409 or 429"
    ),
    Transition(
        State.IN_FLIGHT,
        Event.NOT_SENT_AFTER_STORED_ERROR,
        State.AMBIGUOUS,
        Raiser.ATTEMPT,
        "the same, for a later key",
    ),
    Transition(
        State.IN_FLIGHT,
        Event.NOT_SENT_WHILE_OPEN,
        State.IN_FLIGHT,
        Raiser.ATTEMPT,
        "the same, while an older request is open",
    ),
    Transition(
        State.IN_FLIGHT,
        Event.NO_ANSWER,
        State.IN_FLIGHT,
        Raiser.ATTEMPT,
        "the same key is sent again; the late window restarts",
    ),
    Transition(
        State.IN_FLIGHT,
        Event.UNSTORED_ERROR,
        State.IN_FLIGHT,
        Raiser.ATTEMPT,
        "a 5xx that nothing proves to be kept, as a proxy's 504: as without an answer",
    ),
    Transition(
        State.IN_FLIGHT,
        Event.STORED_ERROR,
        State.AMBIGUOUS,
        Raiser.ATTEMPT,
        "a 5xx that was replayed, or `Stripe-Should-Retry: false`: the next attempt has a new key",
    ),
    Transition(
        State.IN_FLIGHT,
        Event.STORED_ERROR_WHILE_OPEN,
        State.IN_FLIGHT,
        Raiser.ATTEMPT,
        "the same without a replay, while an earlier request of the key is without an answer: the same key is sent "
        "again",
    ),
    Transition(
        State.IN_FLIGHT,
        Event.REJECTED,
        State.FAILED,
        Raiser.ATTEMPT,
        "a 4xx about this request, the first of its key, or replayed",
        needs_quiet=True,
    ),
    Transition(
        State.IN_FLIGHT,
        Event.REJECTED_WHILE_OPEN,
        State.IN_FLIGHT,
        Raiser.ATTEMPT,
        "a 4xx without a replay, while an earlier request of the key is without an answer: once the late window is "
        "over, a read decides",
    ),
    Transition(
        State.IN_FLIGHT,
        Event.CARDHOLDER_ASKED,
        State.AMBIGUOUS,
        Raiser.ATTEMPT,
        "such a 4xx of a purchase whose bank asks for the cardholder: it is sent once more, under a new key, so "
        "that its subscription waits",
        needs_quiet=True,
    ),
    Transition(
        State.IN_FLIGHT,
        Event.ANSWER_SHOWS_EFFECT,
        State.APPLIED,
        Raiser.SNAPSHOT,
        "the key's answer was applied",
    ),
    Transition(
        State.IN_FLIGHT,
        Event.ANSWER_LACKS_EFFECT,
        State.FAILED,
        Raiser.SNAPSHOT,
        "`changed_meanwhile`: somebody undid it",
    ),
    Transition(
        State.IN_FLIGHT,
        Event.ANSWER_SHOWS_PENDING_UPDATE,
        State.AWAITING_PAYMENT,
        Raiser.SNAPSHOT,
        "the invoice's id is kept",
    ),
    Transition(
        State.IN_FLIGHT,
        Event.READ_SHOWS_EFFECT,
        State.APPLIED,
        Raiser.SNAPSHOT,
        "the late window is over",
        needs_quiet=True,
    ),
    Transition(
        State.IN_FLIGHT,
        Event.READ_LACKS_EFFECT,
        State.FAILED,
        Raiser.SNAPSHOT,
        "the late window is over. `changed_meanwhile`: it must not be sent again; or the code of a rejection",
        needs_quiet=True,
    ),
    Transition(
        State.IN_FLIGHT,
        Event.READ_SHOWS_PENDING_UPDATE,
        State.AWAITING_PAYMENT,
        Raiser.SNAPSHOT,
        "the late window is over",
        needs_quiet=True,
    ),
    Transition(
        State.IN_FLIGHT,
        Event.RULE_REFUSES,
        State.REFUSED,
        Raiser.RUNNER,
        f"{_LOOKED}; {_LOST}; late window over",
        needs_quiet=True,
    ),
    Transition(
        State.IN_FLIGHT,
        Event.CANNOT_BE_SENT,
        State.FAILED,
        Raiser.RUNNER,
        f"{_IMPOSSIBLE}; late window over",
        needs_quiet=True,
    ),
    Transition(
        State.IN_FLIGHT,
        Event.KEY_EXPIRED,
        State.EXPIRED,
        Raiser.WORKER,
        "the key is 23 hours old, and the late window is over",
        needs_quiet=True,
    ),
    Transition(
        State.AMBIGUOUS,
        Event.READ_SHOWS_EFFECT,
        State.APPLIED,
        Raiser.SNAPSHOT,
        "the object or its events show it",
        needs_quiet=True,
    ),
    Transition(
        State.AMBIGUOUS,
        Event.READ_SHOWS_PENDING_UPDATE,
        State.AWAITING_PAYMENT,
        Raiser.SNAPSHOT,
        "the object or its events show it",
        needs_quiet=True,
    ),
    Transition(
        State.AMBIGUOUS,
        Event.CHANGED_SINCE,
        State.FAILED,
        Raiser.SNAPSHOT,
        "`changed_meanwhile`: events show it, the object does not any more",
        needs_quiet=True,
    ),
    Transition(
        State.AMBIGUOUS,
        Event.SEND_RECORDED,
        State.IN_FLIGHT,
        Raiser.RUNNER,
        f"a new key; {_LOOKED}; {_RECORDED}",
    ),
    Transition(
        State.AMBIGUOUS,
        Event.RULE_REFUSES,
        State.REFUSED,
        Raiser.RUNNER,
        f"{_LOOKED}; {_LOST}",
        needs_quiet=True,
    ),
    Transition(
        State.AMBIGUOUS,
        Event.CANNOT_BE_SENT,
        State.FAILED,
        Raiser.RUNNER,
        f"{_LOOKED}; {_IMPOSSIBLE}",
        needs_quiet=True,
    ),
    Transition(
        State.EXPIRED, Event.READ_SHOWS_EFFECT, State.APPLIED, Raiser.SNAPSHOT, "read once", needs_quiet=True
    ),
    Transition(
        State.EXPIRED,
        Event.READ_SHOWS_PENDING_UPDATE,
        State.AWAITING_PAYMENT,
        Raiser.SNAPSHOT,
        "read once",
        needs_quiet=True,
    ),
    Transition(
        State.EXPIRED,
        Event.READ_LACKS_EFFECT,
        State.FAILED,
        Raiser.SNAPSHOT,
        "`operation_expired`: read once",
        needs_quiet=True,
    ),
    Transition(
        State.AWAITING_PAYMENT,
        Event.INVOICE_PAID,
        State.APPLIED,
        Raiser.SNAPSHOT,
        "also if a later edit hides the effect; a first purchase also while a bank debits its first invoice, because "
        "Stripe runs the subscription from then on",
    ),
    Transition(
        State.AWAITING_PAYMENT,
        Event.PAYMENT_ENDED,
        State.FAILED,
        Raiser.SNAPSHOT,
        "`payment_abandoned`, `payment_action_required` or `update_expired`: the invoice is void, or uncollectible "
        "with the pending update gone",
    ),
    Transition(
        State.AWAITING_PAYMENT,
        Event.PAID_WITHOUT_EFFECT,
        State.FAILED,
        Raiser.SNAPSHOT,
        "`paid_without_effect`: the invoice is paid, and neither the subscription nor its events ever showed it",
    ),
)
"""The protocol: every state of a step, each event that moves it, and who may raise that event."""
TRANSITIONS: Mapping[tuple[State, Event], State | None] = MappingProxyType(
    {(row.source, row.event): row.target for row in ROWS}
)
_BY_KEY = {(row.source, row.event): row for row in ROWS}


class IllegalTransition(Exception):
    """The table does not allow this event in this state, or a request may still take effect."""


def may_settle(state: State, open_until: float | None, now: float) -> bool:
    """Return True if the step may be reported as failed or refused: no request of it can take effect any more.

    `open_until`: the end of the late window of its last open request, None if there is none; `now`: the same clock,
    in seconds.
    """
    return state not in SETTLED and (open_until is None or open_until < now)


def next_state(state: State, event: Event, *, open_until: float | None, now: float) -> State | None:
    """Return the state after the event; None if the operation is deleted.

    Raises:
        IllegalTransition: The table has no such row, or the row needs that no request may take effect any more.
    """
    row = _BY_KEY.get((state, event))
    if row is None:
        raise IllegalTransition(f"{event} does not leave {state}")
    if row.needs_quiet and not may_settle(state, open_until, now):
        raise IllegalTransition(f"{event} in {state}: a request may still take effect")
    return row.target
