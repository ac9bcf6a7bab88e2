"""What Stripe documents, and the stand-in's answer: one row for each statement.

A row is a small function that asks the stand-in and returns its answer; `@documented` gives the statement and the
answer that Stripe's documentation calls for. An id T… is one statement, and its parts are T17a, T17b and so on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.stripe_simulator.simulator_support import (
    CARD_FAILS_LATER,
    START,
    Account,
    Catalogue,
    advance,
    items_of,
    subscribe,
    use_card,
)

Ask = Callable[[Account, Catalogue], Any]


@dataclass(frozen=True)
class Row:
    id: str
    statement: str
    answer: Any
    ask: Ask


ROWS: list[Row] = []


def documented(identifier: str, statement: str, answer: Any) -> Callable[[Ask], Ask]:
    def add(ask: Ask) -> Ask:
        ROWS.append(Row(identifier, statement, answer, ask))
        return ask

    return add


def raise_seats(account: Account, sub: Any, quantity: int, **given: Any) -> Any:
    """The subscription after a prorated change of its first item's quantity that is invoiced at once."""
    params: Any = {
        "items": [{"id": items_of(sub)[0]["id"], "quantity": quantity}],
        "proration_behavior": "always_invoice",
        **given,
    }
    return account.client.v1.subscriptions.update(sub.id, params)


# Money and time.


@documented(
    "T3", "a pending update expires at the end of the earliest item period if that is first", 12 * 3600
)
def pending_update_near_a_renewal(account: Account, catalogue: Catalogue) -> Any:
    sub = subscribe(account, catalogue)
    use_card(account, catalogue, CARD_FAILS_LATER)
    now = items_of(sub)[0]["current_period_end"] - 12 * 3600
    advance(account, now - START)
    held = raise_seats(account, sub, 100, payment_behavior="pending_if_incomplete")
    return held.pending_update.expires_at - now


@documented("T3", "a pending update expires at the end of the trial if that is first", 10 * 3600)
def pending_update_near_the_end_of_a_trial(account: Account, catalogue: Catalogue) -> Any:
    sub = subscribe(account, catalogue, trial_end=START + 10 * 3600)
    use_card(account, catalogue, CARD_FAILS_LATER)
    held: Any = account.client.v1.subscriptions.update(
        sub.id, {"trial_end": "now", "payment_behavior": "pending_if_incomplete"}
    )
    return held.pending_update.expires_at - START


@documented("T3", "a pending update expires after 23 hours if nothing ends before", 23 * 3600)
def pending_update_within_a_period(account: Account, catalogue: Catalogue) -> Any:
    sub = subscribe(account, catalogue)
    use_card(account, catalogue, CARD_FAILS_LATER)
    held = raise_seats(account, sub, 100, payment_behavior="pending_if_incomplete")
    return held.pending_update.expires_at - START


# Resources, refusals and ways of paying.


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.id}-{row.ask.__name__}") for row in ROWS])
def test_the_stand_in_answers_as_documented(frozen: Account, catalogue: Catalogue, row: Row) -> None:
    """T1 to T23: the statements of Stripe's documentation that the stand-in once answered otherwise."""
    assert row.ask(frozen, catalogue) == row.answer, row.statement
