"""Metered usage: meters, what is reported to them, and what it costs at the end of a period. Amounts in cents."""

from typing import Any

import pytest
import stripe

from tests.stripe_simulator.simulator_support import Account, Catalogue
from tests.stripe_simulator.test_simulator_objects import check_keys

DAY = 86_400
NOVEMBER = 1_793_491_200  # 2026-11-01 00:00 UTC, a month of 30 days
MONTH = 30 * DAY
CHARGED = MONTH + 3600


@pytest.fixture
def frozen(account: Account) -> Account:
    account.control("POST", "clock", {"freeze": NOVEMBER})
    return account


def advance(account: Account, seconds: float) -> None:
    account.control("POST", "clock", {"advance": seconds})


def meter(account: Account, formula: str = "sum", name: str = "calls", **given: Any) -> str:
    params: Any = {
        "display_name": "Calls",
        "event_name": name,
        "default_aggregation": {"formula": formula},
        **given,
    }
    return account.client.v1.billing.meters.create(params).id


def metered_price(account: Account, catalogue: Catalogue, meter_id: str, **given: Any) -> str:
    params: Any = {
        "product": catalogue.product,
        "currency": "usd",
        "recurring": {"interval": "month", "usage_type": "metered", "meter": meter_id},
        **({} if "tiers" in given or "unit_amount_decimal" in given else {"unit_amount": 2}),
        **given,
    }
    return account.client.v1.prices.create(params).id


def subscribe(account: Account, catalogue: Catalogue, *items: Any, **given: Any) -> Any:
    params: Any = {"customer": catalogue.customer, "items": list(items), **given}
    return account.client.v1.subscriptions.create(params)


def report(account: Account, customer: str, value: int | str, name: str = "calls", **given: Any) -> Any:
    params: Any = {
        "event_name": name,
        "payload": {"stripe_customer_id": customer, "value": str(value)},
        **given,
    }
    return account.client.v1.billing.meter_events.create(params)


def preview(account: Account, sub: Any, **details: Any) -> Any:
    params: Any = {"subscription": sub.id, **({"subscription_details": details} if details else {})}
    return account.client.v1.invoices.create_preview(params)


def latest(account: Account, sub: Any) -> Any:
    return account.client.v1.invoices.list({"subscription": sub.id, "limit": 1}).data[0]


def rows(invoice: Any) -> list[tuple[int, int]]:
    return [(line.amount, line.quantity) for line in invoice.lines.data]


def item_id(sub: Any, position: int = 0) -> str:
    return str(sub.to_dict()["items"]["data"][position]["id"])


@pytest.mark.parametrize("mode", ["classic", "flexible"])
@pytest.mark.parametrize(
    ("given", "reports", "amount"),
    [
        # 5.00 for each full 1,000 units: 2,999 are two of them; together, not report by report.
        ({"unit_amount": 500, "transform_quantity": {"divide_by": 1000, "round": "down"}}, [2999], 1000),
        ({"unit_amount": 500, "transform_quantity": {"divide_by": 1000, "round": "down"}}, [999, 1], 500),
        ({"unit_amount": 500, "transform_quantity": {"divide_by": 1000, "round": "down"}}, [999], 0),
        ({"unit_amount": 500, "transform_quantity": {"divide_by": 1000, "round": "up"}}, [2001], 1500),
        ({"unit_amount": 500, "transform_quantity": {"divide_by": 1000, "round": "up"}}, [1500, 500], 1000),
        # 0.055 cents each: 10,000 are 550 cents, 10,010 are 550.55 and rounded once.
        ({"unit_amount_decimal": "0.055"}, [10_000], 550),
        ({"unit_amount_decimal": "0.055"}, [10_000, 10], 551),
        ({"unit_amount": 2}, [700, -100], 1200),
        ({"unit_amount": 2}, [100, -101], 0),
        # 100 units at 0.10, 50 more at 0.05.
        ("graduated", [150], 1250),
        # All 150 units at 0.05.
        ("volume", [150], 750),
    ],
)
def test_a_period_is_billed_when_it_has_ended(
    frozen: Account, catalogue: Catalogue, mode: str, given: Any, reports: list[int], amount: int
) -> None:
    if isinstance(given, str):
        tiers = [{"up_to": 100, "unit_amount": 10}, {"up_to": "inf", "unit_amount": 5}]
        given = {"tiers": tiers, "billing_scheme": "tiered", "tiers_mode": given}
    price = metered_price(frozen, catalogue, meter(frozen), **given)
    sub = subscribe(
        frozen,
        catalogue,
        {"price": catalogue.monthly, "quantity": 2},
        {"price": price},
        billing_mode={"type": mode},
    )
    assert latest(frozen, sub).total == 2000
    for value in reports:
        advance(frozen, DAY)
        report(frozen, catalogue.customer, value)
    used = max(0, sum(reports))
    upcoming = preview(frozen, sub)
    assert (upcoming.total, rows(upcoming)) == (2000 + amount, [(2000, 2), (amount, used)])
    advance(frozen, CHARGED - DAY * len(reports))
    renewal = latest(frozen, sub)
    assert (renewal.status, renewal.amount_paid, rows(renewal)) == ("paid", 2000 + amount, rows(upcoming))
    line = renewal.lines.data[1]
    assert (line.period.start, line.period.end) == (NOVEMBER, NOVEMBER + MONTH)
    assert rows(preview(frozen, sub)) == [(2000, 2), (0, 0)]


@pytest.mark.parametrize(("formula", "used"), [("sum", 60), ("count", 3), ("last", 20)])
def test_formulas(frozen: Account, catalogue: Catalogue, formula: str, used: int) -> None:
    price = metered_price(frozen, catalogue, meter(frozen, formula))
    sub = subscribe(frozen, catalogue, {"price": price})
    advance(frozen, 2 * DAY)
    report(frozen, catalogue.customer, 20)
    # An hour earlier than the report before it, so it is not the last one.
    report(frozen, catalogue.customer, 30, timestamp=NOVEMBER + 2 * DAY - 3600)
    report(frozen, catalogue.customer, 10, timestamp=NOVEMBER + DAY)
    advance(frozen, CHARGED - 2 * DAY)
    assert rows(latest(frozen, sub)) == [(2 * used, used)]


def test_usage_counts_in_the_period_of_its_timestamp(frozen: Account, catalogue: Catalogue) -> None:
    """From the first second of a period up to, not including, its end; before the subscription nothing counts."""
    price = metered_price(frozen, catalogue, meter(frozen))
    sub = subscribe(frozen, catalogue, {"price": price})
    report(frozen, catalogue.customer, 1, timestamp=NOVEMBER - 1)
    report(frozen, catalogue.customer, 10, timestamp=NOVEMBER)
    advance(frozen, MONTH - 60)
    report(frozen, catalogue.customer, 100, timestamp=NOVEMBER + MONTH - 1)
    report(frozen, catalogue.customer, 1000, timestamp=NOVEMBER + MONTH)
    advance(frozen, 60 + 3600)
    assert rows(latest(frozen, sub)) == [(220, 110)]
    assert rows(preview(frozen, sub)) == [(2000, 1000)]


def test_usage_belongs_to_the_customer_and_the_meter(frozen: Account, catalogue: Catalogue) -> None:
    keys: Any = {
        "customer_mapping": {"type": "by_id", "event_payload_key": "who"},
        "value_settings": {"event_payload_key": "bytes"},
    }
    stored = metered_price(frozen, catalogue, meter(frozen, name="storage", **keys), unit_amount=1)
    called = metered_price(frozen, catalogue, meter(frozen))
    other = frozen.client.v1.customers.create({}).id
    sub = subscribe(frozen, catalogue, {"price": stored}, {"price": called})
    for customer, value in ((catalogue.customer, "40"), (other, "5")):
        frozen.client.v1.billing.meter_events.create(
            {"event_name": "storage", "payload": {"who": customer, "bytes": value}}
        )
        report(frozen, customer, 7)
    assert rows(preview(frozen, sub)) == [(40, 40), (14, 7)]


def test_items_of_different_intervals_have_their_own_periods(frozen: Account, catalogue: Catalogue) -> None:
    """Calls by the week beside a seat by four weeks: each week bills its own calls."""
    four_weeks = frozen.client.v1.prices.create(
        {
            "product": catalogue.product,
            "currency": "usd",
            "unit_amount": 1000,
            "recurring": {"interval": "week", "interval_count": 4},
        }
    ).id
    weekly = metered_price(
        frozen,
        catalogue,
        meter(frozen),
        recurring={
            "interval": "week",
            "usage_type": "metered",
            "meter": frozen.client.v1.billing.meters.list().data[0].id,
        },
    )
    sub = subscribe(frozen, catalogue, {"price": four_weeks}, {"price": weekly})
    report(frozen, catalogue.customer, 100)
    advance(frozen, 7 * DAY)
    report(frozen, catalogue.customer, 300)
    advance(frozen, 3600)
    assert rows(latest(frozen, sub)) == [(200, 100)]
    advance(frozen, 7 * DAY)
    assert rows(latest(frozen, sub)) == [(600, 300)]


def test_discounts_and_taxes_hold_for_usage(frozen: Account, catalogue: Catalogue) -> None:
    """1,000 units at 0.02 are 20.00; less 25 % 15.00; plus 20 % 18.00."""
    client = frozen.client.v1
    coupon = client.coupons.create({"percent_off": 25, "duration": "forever"}).id
    rate = client.tax_rates.create({"display_name": "VAT", "inclusive": False, "percentage": 20}).id
    sub = subscribe(
        frozen,
        catalogue,
        {"price": metered_price(frozen, catalogue, meter(frozen)), "tax_rates": [rate]},
        discounts=[{"coupon": coupon}],
    )
    report(frozen, catalogue.customer, 1000)
    advance(frozen, CHARGED)
    assert (latest(frozen, sub).subtotal, latest(frozen, sub).amount_paid) == (2000, 1800)


def test_a_trial_is_free(frozen: Account, catalogue: Catalogue) -> None:
    price = metered_price(frozen, catalogue, meter(frozen))
    sub = subscribe(frozen, catalogue, {"price": price}, trial_period_days=10)
    report(frozen, catalogue.customer, 500)
    assert preview(frozen, sub, cancel_now=True).total == 0
    advance(frozen, 10 * DAY)
    report(frozen, catalogue.customer, 50)
    assert rows(preview(frozen, sub)) == [(100, 50)]


@pytest.mark.parametrize(("invoice_now", "total"), [(True, 1400), (False, None)])
def test_cancelling_now_bills_usage_when_it_is_asked_to(
    frozen: Account, catalogue: Catalogue, invoice_now: bool, total: int | None
) -> None:
    sub = subscribe(frozen, catalogue, {"price": metered_price(frozen, catalogue, meter(frozen))})
    advance(frozen, 10 * DAY)
    report(frozen, catalogue.customer, 700)
    assert preview(frozen, sub, cancel_now=True).total == 1400
    frozen.client.v1.subscriptions.cancel(sub.id, {"invoice_now": invoice_now})
    invoices = frozen.client.v1.invoices.list({"subscription": sub.id}).data
    assert [invoice.amount_paid for invoice in invoices] == ([] if total is None else [total])
    assert all(line.period.end == NOVEMBER + 10 * DAY for i in invoices for line in i.lines.data)


def test_cancelling_at_the_end_bills_the_last_period(frozen: Account, catalogue: Catalogue) -> None:
    sub = subscribe(frozen, catalogue, {"price": metered_price(frozen, catalogue, meter(frozen))})
    frozen.client.v1.subscriptions.update(sub.id, {"cancel_at_period_end": True})
    advance(frozen, 20 * DAY)
    with pytest.raises(stripe.InvalidRequestError):
        preview(frozen, sub)
    report(frozen, catalogue.customer, 250)
    assert preview(frozen, sub).total == 500
    advance(frozen, CHARGED - 20 * DAY)
    invoice = latest(frozen, sub)
    assert (invoice.amount_paid, rows(invoice)) == (500, [(500, 250)])
    assert (invoice.period_start, invoice.period_end) == (NOVEMBER, NOVEMBER + MONTH)
    assert frozen.client.v1.subscriptions.retrieve(sub.id).status == "canceled"


@pytest.mark.parametrize(
    ("mode", "proration", "pending"),
    [
        ("flexible", "create_prorations", [200]),
        ("flexible", "none", []),
        ("classic", "create_prorations", []),
    ],
)
def test_a_replaced_price_bills_what_it_was_used_for(
    frozen: Account, catalogue: Catalogue, mode: str, proration: Any, pending: list[int]
) -> None:
    """100 units at 0.02 before the change; 50 at 0.10 after it."""
    counter = meter(frozen)
    old = metered_price(frozen, catalogue, counter)
    new = metered_price(frozen, catalogue, counter, unit_amount=10)
    sub = subscribe(frozen, catalogue, {"price": old}, billing_mode={"type": mode})
    advance(frozen, DAY)
    report(frozen, catalogue.customer, 100)
    advance(frozen, DAY)
    frozen.client.v1.subscriptions.update(
        sub.id, {"items": [{"id": item_id(sub), "price": new}], "proration_behavior": proration}
    )
    report(frozen, catalogue.customer, 50)
    waiting = frozen.client.v1.invoice_items.list({"customer": catalogue.customer, "pending": True}).data
    assert [item.amount for item in waiting] == pending
    advance(frozen, CHARGED - 2 * DAY)
    assert [line.amount for line in latest(frozen, sub).lines.data] == [*pending, 500]


def test_a_removed_item_is_billed_at_once_on_request(frozen: Account, catalogue: Catalogue) -> None:
    price = metered_price(frozen, catalogue, meter(frozen))
    sub = subscribe(frozen, catalogue, {"price": catalogue.monthly}, {"price": price})
    advance(frozen, DAY)
    report(frozen, catalogue.customer, 100)
    change: Any = {
        "items": [{"id": item_id(sub, 1), "deleted": True}],
        "proration_behavior": "always_invoice",
    }
    assert preview(frozen, sub, **change).total == 200
    changed = frozen.client.v1.subscriptions.update(sub.id, change)
    assert changed.latest_invoice == latest(frozen, sub).id
    assert (latest(frozen, sub).amount_paid, rows(latest(frozen, sub))) == (200, [(200, 100)])
    advance(frozen, CHARGED - DAY)
    assert rows(latest(frozen, sub)) == [(1000, 1)]


def test_an_added_item_counts_from_then_on(frozen: Account, catalogue: Catalogue) -> None:
    price = metered_price(frozen, catalogue, meter(frozen))
    sub = subscribe(frozen, catalogue, {"price": catalogue.monthly})
    report(frozen, catalogue.customer, 1000)
    advance(frozen, DAY)
    frozen.client.v1.subscription_items.create({"subscription": sub.id, "price": price})
    report(frozen, catalogue.customer, 30)
    assert sorted(rows(preview(frozen, sub))) == [(60, 30), (1000, 1)]
    advance(frozen, CHARGED - DAY)
    line = next(line for line in latest(frozen, sub).lines.data if line.amount == 60)
    assert (line.period.start, line.period.end) == (NOVEMBER + DAY, NOVEMBER + MONTH)


@pytest.mark.parametrize("mode", ["classic", "flexible"])
def test_a_new_cycle_bills_the_one_it_cuts_short(frozen: Account, catalogue: Catalogue, mode: str) -> None:
    price = metered_price(frozen, catalogue, meter(frozen))
    sub = subscribe(frozen, catalogue, {"price": price}, billing_mode={"type": mode})
    advance(frozen, 10 * DAY)
    report(frozen, catalogue.customer, 100, timestamp=NOVEMBER + 10 * DAY - 1)
    report(frozen, catalogue.customer, 7)
    change: Any = {"billing_cycle_anchor": {"type": "now"}, "proration_behavior": "always_invoice"}
    frozen.client.v1.subscriptions.update(sub.id, change)
    assert (latest(frozen, sub).amount_paid, rows(latest(frozen, sub))) == (200, [(200, 100)])
    assert rows(preview(frozen, sub)) == [(14, 7)]


def test_a_pause_bills_usage_once(frozen: Account, catalogue: Catalogue) -> None:
    sub = subscribe(frozen, catalogue, {"price": metered_price(frozen, catalogue, meter(frozen))})
    report(frozen, catalogue.customer, 100)
    advance(frozen, DAY)
    frozen.client.v1.subscriptions.pause(sub.id, {"invoicing_behavior": "invoice"})
    assert latest(frozen, sub).amount_paid == 200
    frozen.client.v1.subscriptions.resume(sub.id, {"billing_cycle_anchor": {"type": "unchanged"}})
    advance(frozen, DAY)
    report(frozen, catalogue.customer, 9)
    advance(frozen, CHARGED - 2 * DAY)
    assert rows(latest(frozen, sub)) == [(18, 9)]


def test_the_first_invoice_of_classic_billing_has_an_empty_line(
    frozen: Account, catalogue: Catalogue
) -> None:
    price = metered_price(frozen, catalogue, meter(frozen))
    classic = subscribe(frozen, catalogue, {"price": price}, billing_mode={"type": "classic"})
    assert rows(latest(frozen, classic)) == [(0, 0)]
    assert subscribe(frozen, catalogue, {"price": price}).latest_invoice is None


def test_reports_are_checked(frozen: Account, catalogue: Catalogue) -> None:
    meter_id = meter(frozen)
    customer = catalogue.customer
    report(frozen, customer, 5, identifier="once")
    for wrong in (
        {"value": 5, "identifier": "once"},
        {"value": "1.5"},
        {"value": ""},
        {"value": 1, "timestamp": NOVEMBER - 35 * DAY - 1},
        {"value": 1, "timestamp": NOVEMBER + 301},
        {"value": 1, "name": "unknown"},
        {"value": 1, "customer": "cus_none"},
    ):
        with pytest.raises(stripe.InvalidRequestError):
            report(frozen, **{"customer": customer, **wrong})  # type: ignore[arg-type]
    advance(frozen, DAY)
    report(frozen, customer, 3, identifier="once")
    sums = frozen.client.v1.billing.meters.event_summaries.list(
        meter_id, {"customer": customer, "start_time": NOVEMBER, "end_time": NOVEMBER + 2 * DAY}
    )
    assert [summary.aggregated_value for summary in sums.data] == [8.0]


def test_a_report_can_be_taken_back_for_a_day(frozen: Account, catalogue: Catalogue) -> None:
    sub = subscribe(frozen, catalogue, {"price": metered_price(frozen, catalogue, meter(frozen))})
    report(frozen, catalogue.customer, 5, identifier="wrong")
    report(frozen, catalogue.customer, 6, identifier="right")
    cancel: Any = {"event_name": "calls", "type": "cancel", "cancel": {"identifier": "wrong"}}
    frozen.client.v1.billing.meter_event_adjustments.create(cancel)
    assert rows(preview(frozen, sub)) == [(12, 6)]
    advance(frozen, DAY)
    cancel["cancel"] = {"identifier": "right"}
    with pytest.raises(stripe.InvalidRequestError):
        frozen.client.v1.billing.meter_event_adjustments.create(cancel)


def test_meters_have_a_life_and_the_keys_of_the_sdks_classes(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1.billing
    made = meter(frozen)
    with pytest.raises(stripe.InvalidRequestError):
        meter(frozen)
    assert client.meters.update(made, {"display_name": "API calls"}).display_name == "API calls"
    event = report(frozen, catalogue.customer, 1)
    adjusted = client.meter_event_adjustments.create(
        {"event_name": "calls", "type": "cancel", "cancel": {"identifier": event.identifier}}
    )
    summary = client.meters.event_summaries.list(
        made, {"customer": catalogue.customer, "start_time": NOVEMBER, "end_time": NOVEMBER + 60}
    ).data[0]
    answers = [client.meters.retrieve(made), event, adjusted, summary]
    kinds = [check_keys(answer.to_dict()) for answer in answers]
    assert set().union(*kinds) == {
        "billing.meter",
        "billing.meter_event",
        "billing.meter_event_adjustment",
        "billing.meter_event_summary",
    }
    assert client.meters.deactivate(made).status == "inactive"
    for refused in (
        lambda: report(frozen, catalogue.customer, 1),
        lambda: metered_price(frozen, catalogue, made),
    ):
        with pytest.raises(stripe.InvalidRequestError):
            refused()
    assert client.meters.reactivate(made).status == "active"
    assert [found.id for found in client.meters.list({"status": "active"}).data] == [made]


def test_prices_need_a_meter_that_exists(account: Account, catalogue: Catalogue) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        metered_price(account, catalogue, "mtr_none")
    licensed: Any = {"interval": "month", "meter": meter(account)}
    with pytest.raises(stripe.InvalidRequestError):
        metered_price(account, catalogue, "", recurring=licensed)
    sub = subscribe(account, catalogue, {"price": catalogue.monthly})
    price = metered_price(account, catalogue, licensed["meter"])
    with pytest.raises(stripe.InvalidRequestError):
        account.client.v1.subscription_items.create({"subscription": sub.id, "price": price, "quantity": 1})
