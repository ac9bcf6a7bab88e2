"""Subscriptions, their money and their life in time."""

from typing import Any

import pytest
import stripe

from tests.stripe_simulator.simulator_support import (
    CARD_FAILS_LATER,
    DAY,
    START,
    Account,
    Catalogue,
    advance,
    items_of,
    subscribe,
    use_card,
)


def event_types(account: Account) -> list[str]:
    return [event.type for event in account.client.v1.events.list({"limit": 100}).data]


def test_creation_bills_a_whole_period(frozen: Account, catalogue: Catalogue) -> None:
    sub = subscribe(frozen, catalogue, 3)
    assert sub.status == "active"
    invoice = frozen.client.v1.invoices.retrieve(sub.latest_invoice)
    assert (invoice.status, invoice.amount_paid, invoice.billing_reason) == (
        "paid",
        3000,
        "subscription_create",
    )
    assert invoice.parent is not None and invoice.parent.subscription_details is not None
    assert invoice.parent.subscription_details.subscription == sub.id
    assert frozen.client.v1.customers.retrieve(catalogue.customer).currency == "usd"


def test_twenty_items_are_embedded_ten_at_a_time(account: Account, catalogue: Catalogue) -> None:
    client = account.client.v1
    prices = [
        client.prices.create(
            {
                "product": catalogue.product,
                "currency": "usd",
                "unit_amount": n,
                "recurring": {"interval": "month"},
            }
        ).id
        for n in range(100, 121)
    ]
    with pytest.raises(stripe.InvalidRequestError):
        client.subscriptions.create({"customer": catalogue.customer, "items": [{"price": p} for p in prices]})
    sub = client.subscriptions.create(
        {"customer": catalogue.customer, "items": [{"price": p} for p in prices[:20]]}
    ).to_dict()
    assert len(sub["items"]["data"]) == 10 and sub["items"]["has_more"]
    listed = list(client.subscription_items.list({"subscription": sub["id"], "limit": 7}).auto_paging_iter())
    assert [item.price.id for item in listed] == prices[:20]
    with pytest.raises(stripe.InvalidRequestError):
        client.subscription_items.create({"subscription": sub["id"], "price": prices[0]})


def test_a_preview_is_what_the_change_then_costs(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1
    sub = subscribe(frozen, catalogue, 2)
    item = items_of(sub)[0]["id"]
    advance(frozen, 7 * DAY + 12_345)
    when = START + 7 * DAY + 12_345
    change: Any = {
        "items": [{"id": item, "quantity": 7}],
        "proration_behavior": "always_invoice",
        "proration_date": when,
    }
    preview = client.invoices.create_preview({"subscription": sub.id, "subscription_details": change})
    assert preview.amount_due > 0
    assert frozen.client.v1.subscriptions.retrieve(sub.id).to_dict()["items"]["data"][0]["quantity"] == 2
    advance(frozen, 60)
    changed = client.subscriptions.update(sub.id, change)
    invoice = client.invoices.retrieve(str(changed.latest_invoice))
    assert (invoice.amount_due, invoice.status) == (preview.amount_due, "paid")
    amounts = [line.amount for line in invoice.lines.data]
    assert amounts == [line.amount for line in preview.lines.data]
    assert amounts[0] < 0 < amounts[1]


def test_prorations_wait_for_the_next_invoice(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1
    sub = subscribe(frozen, catalogue, 2)
    item = items_of(sub)[0]["id"]
    advance(frozen, 10 * DAY)
    client.subscriptions.update(sub.id, {"items": [{"id": item, "quantity": 4}]})
    assert len(client.invoices.list({"subscription": sub.id}).data) == 1
    pending = client.invoice_items.list({"customer": catalogue.customer, "pending": True}).data
    assert len(pending) == 2
    expected = client.invoices.create_preview({"subscription": sub.id}).amount_due
    advance(frozen, 31 * DAY)
    cycle = client.invoices.list({"subscription": sub.id}).data[0]
    assert (cycle.billing_reason, cycle.status, cycle.amount_paid) == ("subscription_cycle", "paid", expected)
    assert cycle.amount_paid == 4000 + sum(entry.amount for entry in pending)


def test_proration_none_bills_nothing_extra(frozen: Account, catalogue: Catalogue) -> None:
    sub = subscribe(frozen, catalogue, 2)
    frozen.client.v1.subscription_items.update(
        items_of(sub)[0]["id"], {"quantity": 9, "proration_behavior": "none"}
    )
    assert frozen.client.v1.invoices.create_preview({"subscription": sub.id}).amount_due == 9000


def test_changing_the_interval_starts_a_new_period_at_once(frozen: Account, catalogue: Catalogue) -> None:
    sub = subscribe(frozen, catalogue, 2)
    advance(frozen, 15 * DAY)
    changed = frozen.client.v1.subscriptions.update(
        sub.id, {"items": [{"id": items_of(sub)[0]["id"], "price": catalogue.yearly, "quantity": 2}]}
    )
    item = items_of(changed)[0]
    assert item["current_period_start"] == START + 15 * DAY
    assert item["current_period_end"] - item["current_period_start"] == 365 * DAY
    invoice = frozen.client.v1.invoices.retrieve(str(changed.latest_invoice))
    assert invoice.billing_reason == "subscription_update"
    assert 18_000 < invoice.amount_due < 20_000


def test_a_price_change_without_quantity_resets_it_to_one(frozen: Account, catalogue: Catalogue) -> None:
    sub = subscribe(frozen, catalogue, 5)
    changed = frozen.client.v1.subscriptions.update(
        sub.id, {"items": [{"id": items_of(sub)[0]["id"], "price": catalogue.yearly}]}
    )
    assert items_of(changed)[0]["quantity"] == 1


def test_payment_in_the_browser_activates(frozen: Account, catalogue: Catalogue) -> None:
    sub = subscribe(
        frozen,
        catalogue,
        payment_behavior="default_incomplete",
        payment_settings={"save_default_payment_method": "on_subscription"},
        expand=["latest_invoice.confirmation_secret"],
    ).to_dict()
    assert sub["status"] == "incomplete"
    secret = sub["latest_invoice"]["confirmation_secret"]
    assert secret["type"] == "payment_intent"
    intent = frozen.control("POST", "confirm", {"client_secret": secret["client_secret"]})
    assert intent["status"] == "succeeded"
    paid = frozen.client.v1.subscriptions.retrieve(sub["id"])
    assert paid.status == "active"
    assert paid.default_payment_method == intent["payment_method"]


def test_an_unpaid_start_expires_after_23_hours(frozen: Account, catalogue: Catalogue) -> None:
    sub = subscribe(frozen, catalogue, payment_behavior="default_incomplete")
    advance(frozen, 23 * 3600 - 1)
    assert frozen.client.v1.subscriptions.retrieve(sub.id).status == "incomplete"
    advance(frozen, 1)
    assert frozen.client.v1.subscriptions.retrieve(sub.id).status == "incomplete_expired"
    assert frozen.client.v1.invoices.retrieve(sub.latest_invoice).status == "void"


def test_declined_starts(frozen: Account, catalogue: Catalogue) -> None:
    use_card(frozen, catalogue, CARD_FAILS_LATER)
    with pytest.raises(stripe.CardError) as declined:
        subscribe(frozen, catalogue, payment_behavior="error_if_incomplete")
    assert declined.value.error is not None
    assert declined.value.error.code == "card_declined"
    assert frozen.client.v1.subscriptions.list({"status": "all"}).data == []
    assert subscribe(frozen, catalogue).status == "incomplete"
    use_card(frozen, catalogue, "pm_card_authenticationRequired")
    with pytest.raises(stripe.CardError) as action:
        subscribe(frozen, catalogue, payment_behavior="error_if_incomplete")
    assert action.value.error is not None
    assert action.value.error.code == "subscription_payment_intent_requires_action"


def test_a_pending_update_applies_when_paid(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1
    sub = subscribe(frozen, catalogue, 2)
    use_card(frozen, catalogue, CARD_FAILS_LATER)
    changed = client.subscriptions.update(
        sub.id,
        {
            "items": [{"id": items_of(sub)[0]["id"], "quantity": 6}],
            "payment_behavior": "pending_if_incomplete",
            "proration_behavior": "always_invoice",
            "expand": ["latest_invoice.confirmation_secret"],
        },
    ).to_dict()
    assert changed["items"]["data"][0]["quantity"] == 2
    assert changed["pending_update"]["subscription_items"][0]["quantity"] == 6
    secret = changed["latest_invoice"]["confirmation_secret"]["client_secret"]
    frozen.control("POST", "confirm", {"client_secret": secret, "payment_method": "pm_card_visa"})
    after = client.subscriptions.retrieve(sub.id)
    assert items_of(after)[0]["quantity"] == 6
    assert after.pending_update is None
    assert "customer.subscription.pending_update_applied" in event_types(frozen)


def test_a_pending_update_expires(frozen: Account, catalogue: Catalogue) -> None:
    sub = subscribe(frozen, catalogue, 2)
    use_card(frozen, catalogue, CARD_FAILS_LATER)
    frozen.client.v1.subscriptions.update(
        sub.id,
        {
            "items": [{"id": items_of(sub)[0]["id"], "quantity": 6}],
            "payment_behavior": "pending_if_incomplete",
            "proration_behavior": "always_invoice",
        },
    )
    advance(frozen, 23 * 3600)
    after = frozen.client.v1.subscriptions.retrieve(sub.id)
    assert (after.pending_update, items_of(after)[0]["quantity"], after.status) == (None, 2, "active")


def test_a_trial_bills_at_its_end(frozen: Account, catalogue: Catalogue) -> None:
    sub = subscribe(frozen, catalogue, 2, trial_period_days=14)
    assert (sub.status, sub.trial_end) == ("trialing", START + 14 * DAY)
    assert items_of(sub)[0]["current_period_end"] == sub.trial_end
    advance(frozen, 11 * DAY)
    assert "customer.subscription.trial_will_end" in event_types(frozen)
    advance(frozen, 3 * DAY)
    after = frozen.client.v1.subscriptions.retrieve(sub.id)
    assert (after.status, after.billing_cycle_anchor) == ("active", sub.trial_end)
    assert frozen.client.v1.invoices.retrieve(str(after.latest_invoice)).status == "draft"
    advance(frozen, 3600)
    invoice = frozen.client.v1.invoices.retrieve(str(after.latest_invoice))
    assert (invoice.status, invoice.amount_paid) == ("paid", 2000)


@pytest.mark.parametrize(("behavior", "status"), [("cancel", "canceled"), ("pause", "paused")])
def test_a_trial_without_a_card(frozen: Account, catalogue: Catalogue, behavior: str, status: str) -> None:
    client = frozen.client.v1
    customer = client.customers.create({}).id
    sub = client.subscriptions.create(
        {
            "customer": customer,
            "items": [{"price": catalogue.monthly}],
            "trial_period_days": 7,
            "trial_settings": {"end_behavior": {"missing_payment_method": behavior}},
            "expand": ["pending_setup_intent"],
        }
    ).to_dict()
    assert sub["pending_setup_intent"]["status"] == "requires_payment_method"
    advance(frozen, 7 * DAY)
    after = client.subscriptions.retrieve(sub["id"])
    assert after.status == status
    if status == "paused":
        frozen.control("POST", "confirm", {"client_secret": sub["pending_setup_intent"]["client_secret"]})
        given: Any = {
            "billing_cycle_anchor": {"type": "now"},
            "payment_behavior": "resume_on_payment_success",
        }
        resumed = client.subscriptions.resume(sub["id"], given)
        assert resumed.status == "active"


def test_cancelling_at_the_periods_end(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1.subscriptions
    sub = subscribe(frozen, catalogue)
    marked = client.update(sub.id, {"cancel_at_period_end": True})
    end = items_of(sub)[0]["current_period_end"]
    assert (marked.status, marked.cancel_at, marked.canceled_at) == ("active", end, START)
    undone = client.update(sub.id, {"cancel_at_period_end": False})
    assert undone.cancel_at is None
    client.update(sub.id, {"cancel_at": "max_period_end"})
    advance(frozen, end - START)
    assert client.retrieve(sub.id).status == "canceled"
    assert client.list({"customer": catalogue.customer}).data == []
    assert [s.id for s in client.list({"customer": catalogue.customer, "status": "all"}).data] == [sub.id]
    with pytest.raises(stripe.InvalidRequestError):
        client.cancel(sub.id)


def test_cancelling_now_can_credit_the_unused_time(frozen: Account, catalogue: Catalogue) -> None:
    sub = subscribe(frozen, catalogue, 2)
    advance(frozen, 10 * DAY)
    frozen.client.v1.subscriptions.cancel(sub.id, {"prorate": True, "invoice_now": True})
    assert -2000 < frozen.client.v1.customers.retrieve(catalogue.customer).balance < -1000  # type: ignore[operator]


def test_dunning_runs_to_past_due_and_to_the_end(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1
    sub = subscribe(frozen, catalogue)
    use_card(frozen, catalogue, CARD_FAILS_LATER)
    end = items_of(sub)[0]["current_period_end"]
    advance(frozen, end - START + 3600)
    late = client.subscriptions.retrieve(sub.id)
    assert late.status == "past_due"
    assert client.customers.retrieve(catalogue.customer).delinquent
    use_card(frozen, catalogue, "pm_card_visa")
    paid = client.invoices.pay(str(late.latest_invoice))
    assert paid.status == "paid"
    assert client.subscriptions.retrieve(sub.id).status == "active"
    use_card(frozen, catalogue, CARD_FAILS_LATER)
    frozen.control("POST", "settings", {"dunning": {"retry_days": [1], "final": "unpaid"}})
    advance(frozen, 31 * DAY + 3600)
    assert client.subscriptions.retrieve(sub.id).status == "unpaid"


def test_discounts_and_taxes_reach_the_invoice(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1
    coupon = client.coupons.create({"percent_off": 50, "duration": "once"}).id
    rate = client.tax_rates.create({"display_name": "VAT", "inclusive": False, "percentage": 20}).id
    sub = subscribe(frozen, catalogue, 2, discounts=[{"coupon": coupon}], default_tax_rates=[rate])
    first = client.invoices.retrieve(str(sub.latest_invoice))
    assert (first.subtotal, first.total_excluding_tax, first.total) == (2000, 1000, 1200)
    assert client.subscriptions.retrieve(sub.id).discounts == []
    assert client.invoices.create_preview({"subscription": sub.id}).total == 2400


def test_a_preview_of_a_new_subscription(frozen: Account, catalogue: Catalogue) -> None:
    preview = frozen.client.v1.invoices.create_preview(
        {
            "customer": catalogue.customer,
            "subscription_details": {"items": [{"price": catalogue.monthly, "quantity": 4}]},
        }
    )
    assert (preview.amount_due, preview.lines.data[0].quantity) == (4000, 4)
    assert frozen.client.v1.subscriptions.list({"status": "all"}).data == []
    assert len(frozen.control("GET", "state?type=invoice")["data"]) == 0


def test_amounts_below_the_minimum_go_to_the_balance(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1
    cheap = client.prices.create(
        {
            "product": catalogue.product,
            "currency": "usd",
            "unit_amount": 30,
            "recurring": {"interval": "month"},
        }
    ).id
    sub = client.subscriptions.create({"customer": catalogue.customer, "items": [{"price": cheap}]})
    invoice = client.invoices.retrieve(str(sub.latest_invoice))
    assert (invoice.status, invoice.total, invoice.amount_due) == ("paid", 30, 0)
    assert client.customers.retrieve(catalogue.customer).balance == 30


def test_one_currency_and_one_interval_in_classic(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1
    euro = client.prices.create(
        {
            "product": catalogue.product,
            "currency": "eur",
            "unit_amount": 900,
            "recurring": {"interval": "month"},
        }
    ).id
    subscribe(frozen, catalogue)
    with pytest.raises(stripe.InvalidRequestError):
        client.subscriptions.create({"customer": catalogue.customer, "items": [{"price": euro}]})
    both: Any = [{"price": catalogue.monthly}, {"price": catalogue.yearly}]
    with pytest.raises(stripe.InvalidRequestError):
        client.subscriptions.create(
            {"customer": catalogue.customer, "items": both, "billing_mode": {"type": "classic"}}
        )
    mixed = client.subscriptions.create({"customer": catalogue.customer, "items": both})
    ends = [item["current_period_end"] for item in items_of(mixed)]
    assert ends[1] - ends[0] > 300 * DAY
    advance(frozen, 40 * DAY)
    cycle = client.invoices.list({"subscription": mixed.id}).data[0]
    assert (cycle.billing_reason, cycle.amount_paid) == ("subscription_cycle", 1000)


def test_pause_resume_and_migrate(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1.subscriptions
    classic = subscribe(frozen, catalogue, billing_mode={"type": "classic"})
    with pytest.raises(stripe.InvalidRequestError):
        client.pause(classic.id)
    client.migrate(classic.id, {"billing_mode": {"type": "flexible"}})
    paused = client.pause(classic.id)
    assert paused.status == "paused"
    assert paused.to_dict()["status_details"]["paused"]["subscription"]["type"] == "pause_requested"
    advance(frozen, 40 * DAY)
    assert len(frozen.client.v1.invoices.list({"subscription": classic.id}).data) == 1
    resumed = client.resume(classic.id, {"billing_cycle_anchor": {"type": "now"}})
    assert (resumed.status, items_of(resumed)[0]["current_period_start"]) == ("active", START + 40 * DAY)
    types = event_types(frozen)
    assert "customer.subscription.paused" in types and "customer.subscription.resumed" in types


def test_limits_per_subscription(frozen: Account, catalogue: Catalogue) -> None:
    frozen.control("POST", "settings", {"subscription_limits": True})
    sub = subscribe(frozen, catalogue, 1)
    item = items_of(sub)[0]["id"]

    def buy(quantity: int) -> None:
        frozen.client.v1.subscriptions.update(
            sub.id, {"items": [{"id": item, "quantity": quantity}], "proration_behavior": "always_invoice"}
        )

    for quantity in range(2, 11):
        buy(quantity)
    with pytest.raises(stripe.RateLimitError):
        buy(11)
    assert len(frozen.client.v1.invoices.list({"subscription": sub.id, "limit": 100}).data) == 10


def test_a_cut_in_seats_becomes_credit_for_the_next_invoice(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1
    sub = subscribe(frozen, catalogue, 10)
    advance(frozen, 15 * DAY)
    changed = client.subscriptions.update(
        sub.id,
        {"items": [{"id": items_of(sub)[0]["id"], "quantity": 2}], "proration_behavior": "always_invoice"},
    )
    invoice = client.invoices.retrieve(str(changed.latest_invoice))
    balance = client.customers.retrieve(catalogue.customer).balance
    assert (invoice.status, invoice.amount_due, invoice.total) == ("paid", 0, balance)
    assert balance is not None and balance < -3000
    preview = client.invoices.create_preview({"subscription": sub.id})
    assert (preview.total, preview.starting_balance, preview.amount_due) == (2000, balance, 0)
    advance(frozen, 17 * DAY)
    assert client.customers.retrieve(catalogue.customer).balance == balance + 2000


def test_the_anchor_now_bills_a_new_period(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1
    sub = subscribe(frozen, catalogue, 2)
    advance(frozen, 12 * DAY)
    changed = client.subscriptions.update(sub.id, {"billing_cycle_anchor": {"type": "now"}})
    assert changed.billing_cycle_anchor == START + 12 * DAY
    assert items_of(changed)[0]["current_period_start"] == START + 12 * DAY
    amounts = [line.amount for line in client.invoices.retrieve(str(changed.latest_invoice)).lines.data]
    assert max(amounts) == 2000
    assert min(amounts) < 0
    status, _, body = frozen.raw("POST", f"/v1/subscriptions/{sub.id}", "billing_cycle_anchor=now")
    assert (status, body["error"]["param"]) == (400, "billing_cycle_anchor")


def test_an_anchor_ahead_bills_the_part_before_it(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1
    anchor = START + 10 * DAY
    sub = subscribe(frozen, catalogue, 3, billing_cycle_anchor=anchor)
    assert items_of(sub)[0]["current_period_end"] == anchor
    assert 0 < client.invoices.retrieve(str(sub.latest_invoice)).amount_due < 1100
    advance(frozen, 10 * DAY + 3600)
    assert client.invoices.list({"subscription": sub.id}).data[0].amount_paid == 3000


def test_ending_a_trial_early_charges_at_once(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1
    sub = subscribe(frozen, catalogue, 4, trial_period_days=30)
    advance(frozen, 2 * DAY)
    started = client.subscriptions.update(sub.id, {"trial_end": "now"})
    assert started.status == "active"
    assert client.invoices.retrieve(str(started.latest_invoice)).amount_paid == 4000
    assert items_of(started)[0]["current_period_start"] == START + 2 * DAY


def test_a_proration_date_outside_the_period_is_refused(frozen: Account, catalogue: Catalogue) -> None:
    sub = subscribe(frozen, catalogue)
    with pytest.raises(stripe.InvalidRequestError) as wrong:
        frozen.client.v1.subscription_items.update(
            items_of(sub)[0]["id"], {"quantity": 5, "proration_date": START - DAY}
        )
    assert wrong.value.param == "proration_date"


def test_changing_a_default_payment_method(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1
    sub = subscribe(frozen, catalogue)
    other = client.payment_methods.attach("pm_card_mastercard", {"customer": catalogue.customer}).id
    assert (
        client.subscriptions.update(sub.id, {"default_payment_method": other}).default_payment_method == other
    )
    assert client.subscriptions.update(sub.id, {"default_payment_method": ""}).default_payment_method is None
    stranger = client.customers.create({}).id
    foreign = client.payment_methods.attach("pm_card_visa", {"customer": stranger}).id
    with pytest.raises(stripe.InvalidRequestError):
        client.subscriptions.update(sub.id, {"default_payment_method": foreign})


def test_a_setup_intent_saves_a_card(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1.setup_intents
    intent = client.create({"customer": catalogue.customer})
    with pytest.raises(stripe.CardError):
        client.confirm(intent.id, {"payment_method": "pm_card_chargeDeclined"})
    error = client.retrieve(intent.id).last_setup_error
    assert error is not None
    assert error.code == "card_declined"
    done = frozen.control(
        "POST",
        "confirm",
        {"client_secret": intent.client_secret, "payment_method": "pm_card_threeDSecure2Required"},
    )
    assert done["status"] == "succeeded"
    listed = frozen.client.v1.customers.payment_methods.list(catalogue.customer).data
    assert done["payment_method"] in [method.id for method in listed]


def test_bulk_subscriptions_and_an_idle_renewal(frozen: Account, catalogue: Catalogue) -> None:
    made = frozen.control(
        "POST",
        "bulk",
        {
            "customers": 20,
            "ids": True,
            "subscription": {
                "items": [{"price": catalogue.monthly, "quantity": 3}],
                "trial_period_days": 5,
                "metadata": {"owner": "{customer}"},
            },
        },
    )
    sub = frozen.client.v1.subscriptions.retrieve(made["subscriptions"][0])
    assert sub.metadata.to_dict() == {"owner": made["ids"][0]}
    advance(frozen, 6 * DAY)
    rows = frozen.control("GET", "state?type=subscription")["data"]
    assert {row["status"] for row in rows} == {"past_due"}
