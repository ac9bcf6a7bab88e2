"""The table of the write protocol: complete, drawn in the docs, and explored exhaustively beside a small Stripe."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest

from app.operations import lifecycle
from app.operations.attempt_events import event_of
from app.operations.lifecycle import (
    MEANINGS,
    ROWS,
    SETTLED,
    TRANSITIONS,
    Event,
    IllegalTransition,
    State,
    Transition,
    may_settle,
    next_state,
)
from app.stripe.attempts import Attempt, Outcome
from verification.model import service
from verification.model.diagram import PAGE, with_generated
from verification.model.explore import explore
from verification.model.service import CASES, FOUND_WRONG, Case, Rule

FEWEST_STATES = {False: 6_000, True: 12_000}


EXPLORED = [(name, False) for name in sorted(CASES)] + [
    (name, True) for name, case in sorted(CASES.items()) if case.keeps_answers
]
"""A DELETE waits for no payment."""


@pytest.mark.parametrize(("name", "by_payment"), EXPLORED)
def test_model_breaks_an_invariant_only_when_every_5xx_is_taken_as_kept(name: str, by_payment: bool) -> None:
    """W1: the rule before is found wrong by the same model."""
    case = replace(CASES[name], by_payment=by_payment)
    found = explore(case)
    if name in FOUND_WRONG:
        expected = {"at most one effect", "nothing is reported as failed that may still take effect"}
        assert expected <= found.violations.keys()
        return
    assert found.violations == {}
    if case.rule is Rule.PROVED and case.keeps_answers:
        assert found.states >= FEWEST_STATES[by_payment] and found.transitions > 2 * found.states


def test_model_uses_every_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    used: Counter[tuple[State, Event]] = Counter()

    def counting(state: State, event: Event, *, open_until: float | None, now: float) -> State | None:
        used[state, event] += 1
        return next_state(state, event, open_until=open_until, now=now)

    monkeypatch.setattr(service, "next_state", counting)
    for by_payment in (False, True):
        explore(Case(by_payment=by_payment))
    assert TRANSITIONS.keys() - used.keys() == set()


def broken_table(source: State, event: Event, **change: object) -> Mapping[tuple[State, Event], Transition]:
    rows = {(row.source, row.event): row for row in ROWS}
    rows[source, event] = replace(rows[source, event], **change)  # type: ignore[arg-type]
    return rows


SLIPS = [
    (State.IN_FLIGHT, Event.UNSTORED_ERROR, {"target": State.AMBIGUOUS}),
    (State.IN_FLIGHT, Event.NO_ANSWER, {"target": State.PLANNED}),
    (State.IN_FLIGHT, Event.REJECTED_WHILE_OPEN, {"target": State.FAILED}),
    (State.IN_FLIGHT, Event.NOT_SENT_WHILE_OPEN, {"target": State.PLANNED}),
    (State.IN_FLIGHT, Event.STORED_ERROR, {"target": State.PLANNED}),
    (State.IN_FLIGHT, Event.ANSWER_SHOWS_EFFECT, {"target": State.FAILED}),
    (State.IN_FLIGHT, Event.READ_SHOWS_EFFECT, {"target": State.FAILED}),
    (State.AMBIGUOUS, Event.READ_SHOWS_EFFECT, {"target": State.FAILED}),
    (State.EXPIRED, Event.READ_SHOWS_EFFECT, {"target": State.FAILED}),
    (State.AWAITING_PAYMENT, Event.INVOICE_PAID, {"target": State.FAILED}),
    (State.IN_FLIGHT, Event.ANSWER_SHOWS_PENDING_UPDATE, {"target": State.FAILED}),
    (State.AWAITING_PAYMENT, Event.PAYMENT_ENDED, {"target": State.AWAITING_PAYMENT}),
]


@pytest.mark.parametrize(
    ("source", "event", "change"), SLIPS, ids=[f"{source} {event}" for source, event, _ in SLIPS]
)
def test_model_notices_a_slip_in_the_table(
    monkeypatch: pytest.MonkeyPatch, source: State, event: Event, change: dict[str, object]
) -> None:
    monkeypatch.setattr(lifecycle, "_BY_KEY", broken_table(source, event, **change))
    small = Case(faults=2)
    assert explore(small).violations or explore(replace(small, by_payment=True)).violations


def test_model_notices_when_the_late_window_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lifecycle, service):
        monkeypatch.setattr(module, "may_settle", lambda *_: True)
    found = explore(Case())
    assert "nothing is reported as failed that may still take effect" in found.violations


def test_table_leaves_every_state_but_the_settled_ones() -> None:
    assert {row.source for row in ROWS} == set(State) - SETTLED
    assert {row.event for row in ROWS} == set(Event)
    assert set(MEANINGS) == set(State)
    assert len(TRANSITIONS) == len(ROWS)


def test_table_denies_what_was_sent_only_while_nothing_can_take_effect() -> None:
    sent = {State.IN_FLIGHT, State.AMBIGUOUS, State.EXPIRED}
    denied = [row for row in ROWS if row.source in sent and row.target in (State.REFUSED, State.FAILED)]
    assert {row.event for row in denied if not row.needs_quiet} == {Event.ANSWER_LACKS_EFFECT}


@pytest.mark.parametrize("state", sorted(SETTLED))
def test_next_state_raises_when_the_step_is_settled(state: State) -> None:
    for event in Event:
        with pytest.raises(IllegalTransition):
            next_state(state, event, open_until=None, now=0.0)


def test_step_is_not_settled_as_failed_when_a_request_is_in_its_late_window() -> None:
    assert not may_settle(State.IN_FLIGHT, 10.0, 10.0) and may_settle(State.IN_FLIGHT, 10.0, 10.1)
    assert may_settle(State.PLANNED, None, 0.0) and not may_settle(State.APPLIED, None, 0.0)
    with pytest.raises(IllegalTransition):
        next_state(State.IN_FLIGHT, Event.READ_LACKS_EFFECT, open_until=10.0, now=9.0)


REJECTED, REPLAYED_REJECTION = Attempt(Outcome.REJECTED), Attempt(Outcome.REJECTED, is_replay=True)
STORED, REPLAYED_ERROR = Attempt(Outcome.STORED_ERROR), Attempt(Outcome.STORED_ERROR, is_replay=True)


@pytest.mark.parametrize(
    ("attempt", "was_unanswered", "number", "event"),
    [
        (Attempt(Outcome.ACCEPTED), True, 0, None),
        (Attempt(Outcome.REPLAYED, is_replay=True), True, 0, None),
        (Attempt(Outcome.NO_ANSWER), False, 0, Event.NO_ANSWER),
        (Attempt(Outcome.UNSTORED_ERROR), False, 0, Event.UNSTORED_ERROR),
        (STORED, False, 0, Event.STORED_ERROR),
        (STORED, True, 0, Event.STORED_ERROR_WHILE_OPEN),
        (REPLAYED_ERROR, True, 0, Event.STORED_ERROR),
        (REJECTED, False, 0, Event.REJECTED),
        (REJECTED, True, 0, Event.REJECTED_WHILE_OPEN),
        (replace(REJECTED, has_open_try=True), False, 0, Event.REJECTED_WHILE_OPEN),
        (REPLAYED_REJECTION, True, 0, Event.REJECTED),
        (Attempt(Outcome.NOT_SENT), False, 0, Event.NOT_SENT),
        (Attempt(Outcome.NOT_SENT), False, 1, Event.NOT_SENT_AFTER_STORED_ERROR),
        (Attempt(Outcome.NOT_SENT), True, 1, Event.NOT_SENT_WHILE_OPEN),
        (Attempt(Outcome.NOT_SENT, has_open_try=True), False, 0, Event.NOT_SENT_WHILE_OPEN),
    ],
)
def test_event_of_an_attempt_follows_from_its_outcome_and_what_was_open(
    attempt: Attempt, was_unanswered: bool, number: int, event: Event | None
) -> None:
    assert event_of(attempt, was_unanswered=was_unanswered, number=number) is event


def test_page_shows_the_table_as_it_is() -> None:
    """`python -m verification.model --write-docs` makes the generated part again."""
    page = PAGE.read_text()
    assert with_generated(page) == page
