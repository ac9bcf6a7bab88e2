"""The payment behaviour of every way of paying, and how far a raise may stand before its payment."""

from dataclasses import replace
from typing import Any

import pytest

from app.customers.ways_of_paying import (
    DELAYED,
    WayOfPaying,
    behavior_of_purchase,
    behavior_of_update,
    charged_method,
    check_raise,
    paid_quantity,
    raise_by,
)
from app.domain.ids import InvoiceId, PriceId, ProductId, SubscriptionItemId
from app.domain.snapshots import Customer, Invoice, Subscription, SubscriptionItem
from app.errors import Conflict
from testkit.snapshots import EVERY_KIND

HELD, ALL_OR_NOTHING, STANDS = "pending_if_incomplete", "error_if_incomplete", "allow_incomplete"
MONTH = (1_000, 2_000)
NOW = 1_500


def one_of(kind: type) -> Any:
    return next(snapshot for snapshot in EVERY_KIND if isinstance(snapshot, kind))


def item(name: str, quantity: int | None) -> SubscriptionItem:
    return SubscriptionItem(
        SubscriptionItemId(name), PriceId("price_1"), ProductId("prod_1"), quantity, quantity is None, *MONTH
    )


SUBSCRIPTION: Subscription = replace(one_of(Subscription), items=[item("si_1", 10), item("si_2", 3)])


def bill(name: str, *lines: tuple[str, int, int], **fields: Any) -> Invoice:
    """An invoice whose lines are item, quantity and amount for the running month."""
    rows = [
        {
            "subscription_item_id": of,
            "quantity": quantity,
            "amount": amount,
            "period_start": MONTH[0],
            "period_end": MONTH[1],
        }
        for of, quantity, amount in lines
    ]
    made: Invoice = one_of(Invoice)
    given = {"status": "paid", "billing_reason": "subscription_cycle", "due_date": None, "amount_due": 100}
    return replace(made, id=InvoiceId(name), lines=rows, **{**given, **fields})


@pytest.mark.parametrize(
    ("collection", "method", "held", "at_once"),
    [
        ("charge_automatically", "card", HELD, ALL_OR_NOTHING),
        ("charge_automatically", "link", HELD, ALL_OR_NOTHING),
        ("charge_automatically", None, HELD, ALL_OR_NOTHING),
        ("charge_automatically", "sepa_debit", STANDS, STANDS),
        ("charge_automatically", "us_bank_account", STANDS, STANDS),
        ("charge_automatically", "paypal", ALL_OR_NOTHING, ALL_OR_NOTHING),
        ("charge_automatically", "not_known_yet", ALL_OR_NOTHING, ALL_OR_NOTHING),
        ("send_invoice", None, STANDS, STANDS),
        ("send_invoice", "card", STANDS, STANDS),
    ],
)
def test_behavior_of_an_update_follows_the_way_of_paying(
    collection: str, method: str | None, held: str, at_once: str
) -> None:
    """M8, T2: Stripe's page "Pending updates"."""
    way = WayOfPaying(collection, method)
    assert behavior_of_update(HELD, way) == held
    assert behavior_of_update(ALL_OR_NOTHING, way) == at_once


def test_behavior_of_a_purchase_follows_its_method() -> None:
    """M8: a bank debit is never paid at once, and without a method the page pays."""
    assert behavior_of_purchase(None) == "default_incomplete"
    assert {behavior_of_purchase(kind) for kind in ("card", "link", "paypal")} == {ALL_OR_NOTHING}
    assert {behavior_of_purchase(kind) for kind in DELAYED} == {STANDS}


def test_charged_method_is_the_first_that_is_set() -> None:
    """M8, M23: the subscription's method, its source, the customer's method, the customer's source."""
    customer: Customer = replace(
        one_of(Customer), default_payment_method_id="pm_customer", default_source_id="card_customer"
    )
    subscription = replace(
        SUBSCRIPTION, default_payment_method_id="pm_subscription", default_source_id="card_subscription"
    )
    assert charged_method(subscription, customer) == "pm_subscription"
    subscription = replace(subscription, default_payment_method_id=None)
    assert charged_method(subscription, customer) == "card_subscription"
    subscription = replace(subscription, default_source_id=None)
    assert charged_method(subscription, customer) == "pm_customer"
    assert charged_method(subscription, None) is None
    customer = replace(customer, default_payment_method_id=None)
    assert charged_method(subscription, customer) == "card_customer"
    assert charged_method(subscription, replace(customer, default_source_id=None)) is None


@pytest.mark.parametrize(
    ("items", "more"),
    [
        ([], 0),
        ([{"id": "si_1", "quantity": 12}], 2),
        ([{"id": "si_1", "quantity": 9}], 0),
        ([{"id": "si_1", "quantity": 12}, {"id": "si_2", "quantity": 1}], 2),
        ([{"price": "price_2", "quantity": 4}], 4),
        ([{"price": "price_metered"}], 0),
        ([{"id": "si_1", "deleted": True}], 0),
        ([{"id": "si_1", "deleted": True}, {"price": "price_2", "quantity": 12}], 2),
        ([{"id": "si_1", "deleted": True}, {"id": "si_2", "quantity": 4}], 1),
        ([{"id": "si_1", "price": "price_2", "quantity": 10}], 0),
    ],
)
def test_raise_counts_the_units_that_are_added(items: list[dict[str, Any]], more: int) -> None:
    """Readings Money 6: what is lowered does not set off what is raised."""
    assert raise_by(SUBSCRIPTION, items) == more


def test_paid_quantity_is_that_of_the_newest_paid_charge() -> None:
    """Readings Money 6: of the running period, and of paid lines alone."""
    renewal = bill("in_1", ("si_1", 8, 800), ("si_2", 3, 30), created=10)
    raised = bill("in_2", ("si_1", 8, -400), ("si_1", 10, 500), created=20)
    unpaid = bill("in_3", ("si_1", 50, 4_000), created=30, status="open")
    gone = bill("in_4", ("si_9", 70, 4_000), created=30)
    assert paid_quantity(SUBSCRIPTION, [raised, unpaid, gone, renewal], NOW) == 13
    assert paid_quantity(SUBSCRIPTION, [renewal], MONTH[1]) == 0


@pytest.mark.parametrize(
    ("invoice", "code"),
    [
        ({"status": "open", "billing_reason": "subscription_update"}, "invoice_unpaid"),
        ({"status": "open", "billing_reason": "subscription_update", "amount_due": 0}, None),
        ({"status": "open", "billing_reason": "subscription_cycle", "due_date": NOW}, None),
        ({"status": "open", "billing_reason": "subscription_cycle", "due_date": NOW - 1}, "invoice_unpaid"),
        ({"status": "open", "billing_reason": "subscription_create", "due_date": NOW - 1}, "invoice_unpaid"),
        ({"status": "paid", "billing_reason": "subscription_update", "due_date": NOW - 1}, None),
        ({"status": "void", "billing_reason": "subscription_update", "due_date": NOW - 1}, None),
    ],
)
def test_raise_is_refused_by_an_invoice_that_is_owed(invoice: dict[str, Any], code: str | None) -> None:
    """Readings Money 6: an earlier raise that is unpaid, or any invoice that is overdue."""
    owed = [bill("in_1", **invoice)]
    if code is None:
        check_raise(SUBSCRIPTION, 1, owed, at=NOW, percent=20)
        return
    with pytest.raises(Conflict) as refused:
        check_raise(SUBSCRIPTION, 1, owed, at=NOW, percent=20)
    assert (refused.value.code, refused.value.members["invoice_id"]) == (code, "in_1")


@pytest.mark.parametrize(
    ("paid", "percent", "allowed"),
    [(0, 20, 5), (10, 20, 5), (29, 20, 5), (30, 20, 6), (50, 0, 5), (4, 500, 20)],
)
def test_raise_is_bounded_by_the_paid_quantity(paid: int, percent: float, allowed: int) -> None:
    """Readings Money 6: `UNSECURED_RAISE_MAX` percent of it, rounded down, and at least 5."""
    bills = [bill("in_1", ("si_1", paid, 100))] if paid else []
    check_raise(SUBSCRIPTION, allowed, bills, at=NOW, percent=percent)
    with pytest.raises(Conflict) as refused:
        check_raise(SUBSCRIPTION, allowed + 1, bills, at=NOW, percent=percent)
    assert (refused.value.code, refused.value.members) == ("unsecured_raise_limit", {"allowed": allowed})
