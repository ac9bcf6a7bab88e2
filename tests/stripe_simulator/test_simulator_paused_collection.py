"""A subscription whose collection is paused: it goes on, and its invoices are not collected."""

from typing import Any

import pytest

from tests.stripe_simulator.simulator_support import (
    DAY,
    START,
    Account,
    Catalogue,
    advance,
    items_of,
    subscribe,
)

MONTH = 31 * DAY


def pause(account: Account, sub: Any, behavior: str, resumes_at: int | None = None) -> None:
    params: Any = {"behavior": behavior}
    if resumes_at is not None:
        params["resumes_at"] = resumes_at
    account.client.v1.subscriptions.update(sub.id, {"pause_collection": params})


def newest(account: Account, sub: Any) -> Any:
    return account.client.v1.invoices.list({"subscription": sub.id}).data[0]


@pytest.mark.parametrize(
    ("behavior", "after_the_hour"),
    [("void", "void"), ("mark_uncollectible", "uncollectible"), ("keep_as_draft", "draft")],
)
def test_a_renewal_is_not_collected_when_collection_is_paused(
    frozen: Account, catalogue: Catalogue, behavior: str, after_the_hour: str
) -> None:
    """S2: the subscription stays active, and the behaviour says what becomes of the invoice."""
    sub = subscribe(frozen, catalogue)
    pause(frozen, sub, behavior)
    advance(frozen, MONTH)
    renewal = newest(frozen, sub)
    assert (renewal.billing_reason, renewal.status) == ("subscription_cycle", "draft")
    assert renewal.auto_advance == (behavior != "keep_as_draft")
    advance(frozen, 3600)
    renewal = newest(frozen, sub)
    assert (renewal.status, renewal.amount_paid) == (after_the_hour, 0)
    assert frozen.client.v1.subscriptions.retrieve(sub.id).status == "active"


@pytest.mark.parametrize(
    ("behavior", "status"),
    [("void", "void"), ("mark_uncollectible", "uncollectible"), ("keep_as_draft", "draft")],
)
def test_a_change_stands_unpaid_when_collection_is_paused(
    frozen: Account, catalogue: Catalogue, behavior: str, status: str
) -> None:
    """S2: an invoice that a change makes at once was collected in spite of the pause."""
    client = frozen.client.v1
    sub = subscribe(frozen, catalogue)
    pause(frozen, sub, behavior)
    params: Any = {
        "items": [{"id": items_of(sub)[0]["id"], "quantity": 5}],
        "proration_behavior": "always_invoice",
    }
    changed = client.subscriptions.update(sub.id, params)
    assert (changed.status, items_of(changed)[0]["quantity"]) == ("active", 5)
    made = client.invoices.retrieve(str(changed.latest_invoice))
    assert (made.status, made.amount_paid, made.total) == (status, 0, 3000)


def test_a_renewal_is_collected_when_it_comes_after_resumes_at(frozen: Account, catalogue: Catalogue) -> None:
    """S2: only invoices made before `resumes_at` are set aside, and those stay so."""
    sub = subscribe(frozen, catalogue)
    pause(frozen, sub, "void", START + MONTH + 1800)
    advance(frozen, MONTH + 3600)
    first = newest(frozen, sub)
    assert first.status == "void"
    assert frozen.client.v1.subscriptions.retrieve(sub.id).pause_collection is None
    advance(frozen, MONTH)
    second = newest(frozen, sub)
    assert (second.id != first.id, second.status) == (True, "paid")


def test_an_invoice_is_collected_when_it_was_made_before_the_pause(
    frozen: Account, catalogue: Catalogue
) -> None:
    """S2: a draft of before the pause is finalised and charged like any other."""
    sub = subscribe(frozen, catalogue)
    advance(frozen, MONTH)
    pause(frozen, sub, "void")
    advance(frozen, 3600)
    assert newest(frozen, sub).status == "paid"


def test_the_balance_is_kept_when_a_paused_renewal_is_voided(frozen: Account, catalogue: Catalogue) -> None:
    """S2: a credit balance must not pay an invoice that the customer is let off."""
    client = frozen.client.v1
    client.customers.update(catalogue.customer, {"balance": -2500})
    sub = subscribe(frozen, catalogue, 1)
    pause(frozen, sub, "void")
    advance(frozen, MONTH + 3600)
    assert newest(frozen, sub).status == "void"
    assert client.customers.retrieve(catalogue.customer).balance == -1500


def test_the_balance_comes_back_when_an_open_invoice_is_voided(frozen: Account, catalogue: Catalogue) -> None:
    """S2: what a voided invoice took from the balance is unapplied."""
    client = frozen.client.v1
    client.customers.update(catalogue.customer, {"balance": -500})
    sub = subscribe(frozen, catalogue, payment_behavior="default_incomplete")
    assert client.customers.retrieve(catalogue.customer).balance == 0
    assert client.invoices.retrieve(sub.latest_invoice).amount_due == 1500
    client.invoices.void_invoice(sub.latest_invoice)
    assert client.customers.retrieve(catalogue.customer).balance == -500
