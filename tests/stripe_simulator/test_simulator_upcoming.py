"""The upcoming invoice read after a change is the renewal that is billed then: what was used up is not on it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.stripe_simulator.simulator_support import (
    CARD_FAILS_LATER,
    DAY,
    Account,
    Catalogue,
    advance,
    items_of,
    subscribe,
    use_card,
)

Change = Callable[[Account, Catalogue, Any], object]


def once(account: Account, **amount: Any) -> Any:
    params: Any = {"duration": "once", **(amount or {"percent_off": 50})}
    return [{"coupon": account.client.v1.coupons.create(params).id}]


def update(account: Account, sub: Any, **given: Any) -> Any:
    params: Any = given
    return account.client.v1.subscriptions.update(sub.id, params)


def seats(sub: Any, quantity: int, **given: Any) -> list[dict[str, Any]]:
    return [{"id": items_of(sub)[0]["id"], "quantity": quantity, **given}]


def nothing_more(account: Account, catalogue: Catalogue, sub: Any) -> None:
    del account, catalogue, sub


def invoiced_raise(account: Account, catalogue: Catalogue, sub: Any) -> None:
    del catalogue
    update(account, sub, items=seats(sub, 5), proration_behavior="always_invoice")


def invoiced_cut(account: Account, catalogue: Catalogue, sub: Any) -> None:
    del catalogue
    update(account, sub, items=seats(sub, 1), proration_behavior="always_invoice")


def pending_raise(account: Account, catalogue: Catalogue, sub: Any) -> None:
    del catalogue
    update(account, sub, items=seats(sub, 5))


def collected_raise(account: Account, catalogue: Catalogue, sub: Any) -> None:
    pending_raise(account, catalogue, sub)
    update(account, sub, items=seats(sub, 6), proration_behavior="always_invoice")


def another_interval(account: Account, catalogue: Catalogue, sub: Any) -> None:
    update(account, sub, items=seats(sub, 1, price=catalogue.yearly))


def new_cycle(account: Account, catalogue: Catalogue, sub: Any) -> None:
    del catalogue
    update(account, sub, billing_cycle_anchor={"type": "now"})


def item_discount(account: Account, catalogue: Catalogue, sub: Any) -> None:
    del catalogue
    given = seats(sub, 5, discounts=once(account, amount_off=300, currency="usd"))
    update(account, sub, items=given, proration_behavior="always_invoice")


def held_raise_that_is_paid(account: Account, catalogue: Catalogue, sub: Any) -> None:
    use_card(account, catalogue, CARD_FAILS_LATER)
    held = update(
        account,
        sub,
        items=seats(sub, 50),
        proration_behavior="always_invoice",
        payment_behavior="pending_if_incomplete",
    )
    use_card(account, catalogue, "pm_card_visa")
    account.client.v1.invoices.pay(held.latest_invoice)


CHANGES: list[tuple[Change, int]] = [
    (nothing_more, 1000),
    (invoiced_raise, 5000),
    (invoiced_cut, 1000),
    (collected_raise, 6000),
    (another_interval, 10_000),
    (new_cycle, 2000),
    (item_discount, 5000),
    (held_raise_that_is_paid, 50_000),
]


@pytest.mark.parametrize(("change", "total"), [pytest.param(*row, id=row[0].__name__) for row in CHANGES])
def test_the_upcoming_invoice_is_billed_as_previewed_when_a_discount_counts_once(
    frozen: Account, catalogue: Catalogue, change: Change, total: int
) -> None:
    """M4: a discount for one invoice is on the next one only if no invoice used it."""
    client = frozen.client.v1
    sub = subscribe(frozen, catalogue)
    update(frozen, sub, discounts=once(frozen))
    advance(frozen, DAY)
    change(frozen, catalogue, sub)
    upcoming = client.invoices.create_preview({"subscription": sub.id})
    assert upcoming.total == total
    end = min(item["current_period_end"] for item in items_of(client.subscriptions.retrieve(sub.id)))
    advance(frozen, end - frozen.control("GET", "clock")["now"] + 3600)
    billed = client.invoices.list({"subscription": sub.id}).data[0]
    assert billed.billing_reason == "subscription_cycle"
    assert (billed.total, billed.amount_due) == (upcoming.total, upcoming.amount_due)
    assert [line.amount for line in billed.lines.data] == [line.amount for line in upcoming.lines.data]
    after = client.invoices.create_preview({"subscription": sub.id})
    assert all(entry.amount == 0 for entry in after.total_discount_amounts or [])


def test_a_pending_raise_keeps_the_discount_when_no_invoice_used_it(
    frozen: Account, catalogue: Catalogue
) -> None:
    """M4: prorations that wait use nothing up; the renewal that collects them does."""
    client = frozen.client.v1
    sub = subscribe(frozen, catalogue)
    update(frozen, sub, discounts=once(frozen))
    advance(frozen, DAY)
    pending_raise(frozen, catalogue, sub)
    upcoming = client.invoices.create_preview({"subscription": sub.id})
    waiting = client.invoice_items.list({"customer": catalogue.customer, "pending": True}).data
    assert upcoming.total == 2500 + sum(item.amount for item in waiting)
    advance(frozen, 30 * DAY + 3600)
    assert client.invoices.list({"subscription": sub.id}).data[0].total == upcoming.total
    assert client.invoices.create_preview({"subscription": sub.id}).total == 5000
