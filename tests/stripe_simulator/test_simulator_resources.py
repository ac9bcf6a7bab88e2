"""Refunds, disputes, credit notes, balances, card sources and schedules: what Stripe has and how it refuses."""

from typing import Any

import pytest
import stripe

from tests.stripe_simulator.simulator_support import Account, Catalogue, advance, items_of
from tests.stripe_simulator.test_simulator_objects import check_keys

DAY = 86_400


def checked(account: Account, path: str) -> Any:
    """The answer to a GET, held to the SDK's types."""
    status, _, body = account.raw("GET", path)
    assert status == 200, body
    check_keys(body)
    return body


def types_since(account: Account, first: int) -> list[str]:
    return [event["type"] for event in account.control("GET", "state?type=event")["data"][first:]]


def event_count(account: Account) -> int:
    return len(account.control("GET", "state?type=event")["data"])


def paid(account: Account, catalogue: Catalogue, **terms: Any) -> tuple[str, Any, Any]:
    """A subscription of 20.00, its invoice and the charge that paid it."""
    params: Any = {
        "customer": catalogue.customer,
        "items": [{"price": catalogue.monthly, "quantity": 2}],
        "expand": ["latest_invoice"],
        **terms,
    }
    sub = account.client.v1.subscriptions.create(params).to_dict()
    charges = checked(account, f"/v1/charges?customer={catalogue.customer}")["data"]
    return sub["id"], sub["latest_invoice"], charges[0] if charges else None


def test_refund_shows_on_the_charge_in_part_and_in_full(account: Account, catalogue: Catalogue) -> None:
    """S7."""
    client = account.client.v1
    _, _, charge = paid(account, catalogue)
    before = event_count(account)
    part = client.refunds.create({"payment_intent": charge["payment_intent"], "amount": 500})
    check_keys(part.to_dict())
    half = checked(account, f"/v1/charges/{charge['id']}")
    assert (half["amount_refunded"], half["refunded"]) == (500, False)
    with pytest.raises(stripe.InvalidRequestError) as over:
        client.refunds.create({"charge": charge["id"], "amount": 1501})
    assert over.value.param == "amount"
    client.refunds.create({"charge": charge["id"], "reason": "requested_by_customer"})
    whole = checked(account, f"/v1/charges/{charge['id']}?expand[]=refunds")
    assert (whole["amount_refunded"], whole["refunded"]) == (2000, True)
    assert [made["amount"] for made in whole["refunds"]["data"]] == [1500, 500]
    with pytest.raises(stripe.InvalidRequestError) as again:
        client.refunds.create({"charge": charge["id"]})
    assert again.value.code == "charge_already_refunded"
    assert len(checked(account, f"/v1/refunds?charge={charge['id']}")["data"]) == 2
    assert types_since(account, before) == ["refund.created", "charge.refunded"] * 2


def test_dispute_marks_its_charge_and_is_won_or_lost(account: Account, catalogue: Catalogue) -> None:
    """S7."""
    _, _, charge = paid(account, catalogue)
    before = event_count(account)
    opened = account.control("POST", "disputes", {"charge": charge["id"]})
    check_keys(opened)
    assert (opened["status"], opened["amount"]) == ("needs_response", 2000)
    assert checked(account, f"/v1/charges/{charge['id']}")["disputed"] is True
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        account.client.v1.refunds.create({"charge": charge["id"]})
    assert refusal.value.code == "charge_disputed"
    for query in (f"charge={charge['id']}", f"payment_intent={charge['payment_intent']}"):
        found = checked(account, f"/v1/disputes?{query}")["data"]
        assert [dispute["id"] for dispute in found] == [opened["id"]]
    won = account.control("POST", "disputes", {"dispute": opened["id"], "status": "won"})
    assert won["status"] == "won"
    assert types_since(account, before) == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ]
    intent = {"payment_intent": charge["payment_intent"], "status": "lost"}
    assert account.control("POST", "disputes", intent)["status"] == "lost"


def test_credit_note_lowers_what_is_due_when_its_invoice_is_open(
    account: Account, catalogue: Catalogue
) -> None:
    """S7."""
    client = account.client.v1
    _, invoice, _ = paid(account, catalogue, collection_method="send_invoice", days_until_due=30)
    client.invoices.finalize_invoice(invoice["id"])
    note = client.credit_notes.create({"invoice": invoice["id"], "amount": 500})
    check_keys(note.to_dict())
    assert (note.type, note.pre_payment_amount, note.post_payment_amount) == ("pre_payment", 500, 0)
    lowered = checked(account, f"/v1/invoices/{invoice['id']}")
    assert (lowered["status"], lowered["total"]) == ("open", 2000)
    assert (lowered["amount_due"], lowered["amount_remaining"]) == (1500, 1500)
    assert lowered["pre_payment_credit_notes_amount"] == 500
    client.credit_notes.void_credit_note(note.id)
    assert checked(account, f"/v1/invoices/{invoice['id']}")["amount_remaining"] == 2000
    client.credit_notes.create({"invoice": invoice["id"], "amount": 2000})
    settled = checked(account, f"/v1/invoices/{invoice['id']}")
    assert (settled["status"], settled["amount_remaining"], settled["amount_paid"]) == ("paid", 0, 0)
    with pytest.raises(stripe.InvalidRequestError):
        client.credit_notes.create({"invoice": invoice["id"], "amount": 1})


def test_credit_note_refunds_and_credits_when_its_invoice_is_paid(
    account: Account, catalogue: Catalogue
) -> None:
    """S7."""
    client = account.client.v1
    _, invoice, charge = paid(account, catalogue)
    with pytest.raises(stripe.InvalidRequestError) as unequal:
        client.credit_notes.create({"invoice": invoice["id"], "amount": 800, "refund_amount": 500})
    assert unequal.value.http_status == 400
    line = invoice["lines"]["data"][0]["id"]
    note = client.credit_notes.create(
        {
            "invoice": invoice["id"],
            "lines": [{"type": "invoice_line_item", "invoice_line_item": line, "quantity": 1}],
            "refund_amount": 600,
            "credit_amount": 400,
        }
    ).to_dict()
    check_keys(note)
    assert (note["total"], note["type"], note["post_payment_amount"]) == (1000, "post_payment", 1000)
    assert note["refunds"][0]["amount_refunded"] == 600
    after = checked(account, f"/v1/invoices/{invoice['id']}")
    assert (after["status"], after["post_payment_credit_notes_amount"]) == ("paid", 1000)
    assert checked(account, f"/v1/charges/{charge['id']}")["amount_refunded"] == 600
    assert checked(account, f"/v1/customers/{catalogue.customer}")["balance"] == -400
    listed = checked(account, f"/v1/credit_notes?invoice={invoice['id']}")["data"]
    assert [found["id"] for found in listed] == [note["id"]]
    client.refunds.create({"charge": charge["id"], "amount": 900})
    with pytest.raises(stripe.InvalidRequestError) as over:
        client.credit_notes.create({"invoice": invoice["id"], "amount": 101, "credit_amount": 101})
    assert over.value.param == "amount"


def test_balance_transactions_follow_every_change_of_the_balance(
    account: Account, catalogue: Catalogue
) -> None:
    """S7."""
    client = account.client.v1
    client.customers.balance_transactions.create(
        catalogue.customer, {"amount": -700, "currency": "usd", "description": "sorry"}
    )
    client.customers.update(catalogue.customer, {"balance": -500})
    _, invoice, _ = paid(account, catalogue)
    assert (invoice["starting_balance"], invoice["amount_due"]) == (-500, 1500)
    rows = checked(account, f"/v1/customers/{catalogue.customer}/balance_transactions")["data"]
    assert [(row["type"], row["amount"], row["ending_balance"]) for row in rows] == [
        ("applied_to_invoice", 500, 0),
        ("adjustment", 200, -500),
        ("adjustment", -700, -700),
    ]
    assert rows[0]["invoice"] == invoice["id"]


def test_the_paying_method_is_chosen_in_stripes_order(account: Account, catalogue: Catalogue) -> None:
    """S7: the subscription's method, its source, the customer's method, the customer's source."""
    client = account.client.v1
    customer = client.customers.create({"source": "tok_visa"}).to_dict()
    first = customer["default_source"]
    assert first.startswith("card_")
    second = client.customers.payment_sources.create(customer["id"], {"source": "tok_mastercard"}).to_dict()
    check_keys(second)
    sub: Any = {"customer": customer["id"], "items": [{"price": catalogue.monthly}]}
    own = client.payment_methods.attach("pm_card_amex", {"customer": customer["id"]}).id
    theirs = client.payment_methods.attach("pm_card_discover", {"customer": customer["id"]}).id

    def payer(**terms: Any) -> Any:
        params: Any = {**sub, **terms}
        made = client.subscriptions.create(params)
        check_keys(made.to_dict())
        return checked(account, f"/v1/charges?customer={customer['id']}")["data"][0]["payment_method"]

    assert payer() == first
    assert payer(default_source=second["id"]) == second["id"]
    client.customers.update(customer["id"], {"invoice_settings": {"default_payment_method": theirs}})
    assert payer() == theirs
    assert payer(default_source=second["id"]) == second["id"]
    assert payer(default_source=second["id"], default_payment_method=own) == own
    shown = checked(account, f"/v1/customers/{customer['id']}?expand[]=default_source&expand[]=sources")
    assert (shown["default_source"]["last4"], len(shown["sources"]["data"])) == ("4242", 2)
    methods = checked(account, f"/v1/customers/{customer['id']}/payment_methods")["data"]
    assert {method["id"] for method in methods} == {first, second["id"], own, theirs}


def test_source_is_cleared_where_it_was_default_when_it_is_deleted(
    account: Account, catalogue: Catalogue
) -> None:
    """S7."""
    client = account.client.v1
    customer = client.customers.create({"source": "tok_visa"}).to_dict()
    other = client.customers.payment_sources.create(customer["id"], {"source": "tok_amex"}).id
    sub = client.subscriptions.create(
        {
            "customer": customer["id"],
            "items": [{"price": catalogue.monthly}],
            "default_source": customer["default_source"],
        }
    )
    before = event_count(account)
    client.customers.payment_sources.delete(customer["id"], customer["default_source"])
    assert types_since(account, before) == [
        "payment_method.detached",
        "customer.source.deleted",
        "customer.updated",
        "customer.subscription.updated",
    ]
    assert checked(account, f"/v1/customers/{customer['id']}")["default_source"] == other
    assert checked(account, f"/v1/subscriptions/{sub.id}")["default_source"] is None
    client.payment_methods.detach(other)
    assert checked(account, f"/v1/customers/{customer['id']}")["default_source"] is None
    with pytest.raises(stripe.InvalidRequestError):
        client.customers.update(customer["id"], {"default_source": other})


def test_detach_updates_the_customer_only_when_the_default_changed(
    account: Account, catalogue: Catalogue
) -> None:
    """S9."""
    client = account.client.v1
    other = client.payment_methods.attach("pm_card_amex", {"customer": catalogue.customer}).id
    before = event_count(account)
    client.payment_methods.detach(other)
    assert types_since(account, before) == ["payment_method.detached"]
    before = event_count(account)
    client.payment_methods.detach(catalogue.method)
    assert types_since(account, before) == ["payment_method.detached", "customer.updated"]


def test_detach_keeps_the_customers_default_when_the_account_is_set_so(
    account: Account, catalogue: Catalogue
) -> None:
    """S9: what Stripe does with an unused default is not documented; both answers can be had."""
    account.control("POST", "settings", {"detach_keeps_default": True})
    before = event_count(account)
    account.client.v1.payment_methods.detach(catalogue.method)
    assert types_since(account, before) == ["payment_method.detached"]
    settings = checked(account, f"/v1/customers/{catalogue.customer}")["invoice_settings"]
    assert settings["default_payment_method"] == catalogue.method


def managed(account: Account, catalogue: Catalogue) -> tuple[str, str]:
    """A subscription and the schedule that manages it."""
    client = account.client.v1
    sub, _, _ = paid(account, catalogue)
    schedule = client.subscription_schedules.create({"from_subscription": sub}).to_dict()
    check_keys(schedule)
    assert (schedule["status"], schedule["subscription"]) == ("active", sub)
    assert client.subscriptions.retrieve(sub).schedule == schedule["id"]
    return sub, schedule["id"]


@pytest.mark.parametrize("change", [{"cancel_at_period_end": True}, {"cancel_at": "min_period_end"}])
def test_end_is_refused_when_a_schedule_manages_the_subscription(
    account: Account, catalogue: Catalogue, change: Any
) -> None:
    """S7."""
    client = account.client.v1
    sub, schedule = managed(account, catalogue)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.subscriptions.update(sub, change)
    assert refusal.value.http_status == 400
    assert f"managed by the subscription schedule `{schedule}`" in str(refusal.value)
    assert client.subscription_schedules.release(schedule).released_subscription == sub
    assert client.subscriptions.retrieve(sub).schedule is None
    assert client.subscriptions.update(sub, change).cancel_at is not None


def test_items_of_a_managed_subscription_change_unless_the_account_is_set_otherwise(
    account: Account, catalogue: Catalogue
) -> None:
    client = account.client.v1
    sub, _ = managed(account, catalogue)
    item = items_of(client.subscriptions.retrieve(sub))[0]["id"]
    assert (
        items_of(client.subscriptions.update(sub, {"items": [{"id": item, "quantity": 3}]}))[0]["quantity"]
        == 3
    )
    account.control("POST", "settings", {"schedule_refuses": ["items"]})
    with pytest.raises(stripe.InvalidRequestError):
        client.subscriptions.update(sub, {"items": [{"id": item, "quantity": 4}]})


def test_schedule_ends_with_its_subscription_and_is_released_by_itself(
    account: Account, catalogue: Catalogue
) -> None:
    client = account.client.v1
    sub, schedule = managed(account, catalogue)
    client.subscriptions.cancel(sub)
    assert client.subscription_schedules.retrieve(schedule).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError):
        client.subscription_schedules.release(schedule)
    other, later = managed(account, catalogue)
    advance(account, 31 * DAY)
    assert client.subscription_schedules.retrieve(later).status == "released"
    renewed = client.subscriptions.retrieve(other)
    assert (renewed.status, renewed.schedule) == ("active", None)


def test_schedule_that_cancels_ends_the_subscription(account: Account, catalogue: Catalogue) -> None:
    client = account.client.v1
    sub, schedule = managed(account, catalogue)
    client.subscription_schedules.update(schedule, {"end_behavior": "cancel"})
    end = client.subscriptions.retrieve(sub).cancel_at
    assert end is not None
    advance(account, 31 * DAY)
    assert client.subscriptions.retrieve(sub).status == "canceled"
    assert client.subscription_schedules.retrieve(schedule).status == "completed"
    third, other = managed(account, catalogue)
    client.subscription_schedules.cancel(other)
    assert client.subscriptions.retrieve(third).status == "canceled"


def add_item(account: Account, catalogue: Catalogue, amount: int, **given: Any) -> Any:
    """An amount in usd that waits for the customer's, or a subscription's, next invoice."""
    params: Any = {"customer": catalogue.customer, "currency": "usd", "amount": amount, **given}
    item = account.client.v1.invoice_items.create(params)
    check_keys(item.to_dict())
    return item


def test_invoice_items_wait_for_the_next_invoice(frozen: Account, catalogue: Catalogue) -> None:
    """S7: amounts of either sign, on a subscription or on the customer."""
    client = frozen.client.v1
    sub, _, _ = paid(frozen, catalogue)
    other, _, _ = paid(frozen, catalogue)
    own = add_item(frozen, catalogue, 300, subscription=sub, description="Set-up")
    credit = add_item(frozen, catalogue, -120, subscription=sub, metadata={"a": "b"})
    free = add_item(frozen, catalogue, 50)
    elsewhere = client.invoices.create_preview({"subscription": other}).to_dict()
    assert elsewhere["total"] == 2050
    item = items_of(client.subscriptions.retrieve(sub))[0]["id"]
    params: Any = {
        "items": [{"id": item, "quantity": 3}],
        "proration_behavior": "always_invoice",
        "expand": ["latest_invoice"],
    }
    raised = client.subscriptions.update(sub, params).to_dict()
    invoice = raised["latest_invoice"]
    check_keys(invoice)
    by_item = {
        row["parent"]["invoice_item_details"]["invoice_item"]: row
        for row in invoice["lines"]["data"]
        if row["parent"]["type"] == "invoice_item_details"
    }
    assert {key: row["amount"] for key, row in by_item.items()} == {own.id: 300, credit.id: -120, free.id: 50}
    assert by_item[own.id]["description"] == "Set-up"
    assert by_item[own.id]["parent"]["invoice_item_details"]["subscription"] == sub
    assert by_item[free.id]["parent"]["invoice_item_details"]["subscription"] is None
    assert invoice["total"] == 1000 + 230
    assert client.invoice_items.list({"customer": catalogue.customer, "pending": True}).data == []


def test_invoice_item_on_the_customer_joins_the_first_invoice(account: Account, catalogue: Catalogue) -> None:
    client = account.client.v1
    fee = client.prices.create({"product": catalogue.product, "currency": "usd", "unit_amount": 700}).id
    made = client.invoice_items.create(
        {"customer": catalogue.customer, "pricing": {"price": fee}, "quantity": 2}
    )
    assert made.amount == 1400
    new: Any = {"items": [{"price": catalogue.monthly}]}
    shown = client.invoices.create_preview({"customer": catalogue.customer, "subscription_details": new})
    assert shown.total == 2400
    _, invoice, _ = paid(account, catalogue)
    assert invoice["total"] == 3400
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.invoice_items.create({"customer": catalogue.customer, "pricing": {"price": catalogue.monthly}})
    assert refusal.value.param == "pricing[price]"
    with pytest.raises(stripe.InvalidRequestError) as mixed:
        add_item(account, catalogue, 1, currency="eur")
    assert "combine currencies" in str(mixed.value)


def test_pending_item_made_by_hand_stays_when_the_subscription_is_cancelled(
    account: Account, catalogue: Catalogue
) -> None:
    client = account.client.v1
    sub, _, _ = paid(account, catalogue)
    kept = add_item(account, catalogue, 300, subscription=sub).id
    gone = add_item(account, catalogue, 300).id
    client.invoice_items.delete(gone)
    client.subscriptions.cancel(sub)
    assert [found.id for found in client.invoice_items.list({"pending": True}).data] == [kept]


def test_draft_is_settled_with_the_balance_of_its_finalisation(frozen: Account, catalogue: Catalogue) -> None:
    """A balance edited within the renewal's hour as a draft counts, and is not spent twice."""
    client = frozen.client.v1
    sub, _, _ = paid(frozen, catalogue)
    advance(frozen, 31 * DAY + 60)
    client.customers.update(catalogue.customer, {"balance": -500})
    advance(frozen, 3600)
    invoice = client.invoices.list({"subscription": sub, "limit": 1}).data[0]
    assert (invoice.starting_balance, invoice.amount_due, invoice.status) == (-500, 1500, "paid")
    assert client.customers.retrieve(catalogue.customer).balance == 0


def test_currency_of_a_customer_is_free_when_nothing_is_billed_in_it(
    account: Account, catalogue: Catalogue
) -> None:
    """S4: an active subscription or a waiting invoice item fixes the currency, an ended one does not."""
    client = account.client.v1
    euro = client.prices.create(
        {
            "product": catalogue.product,
            "currency": "eur",
            "unit_amount": 900,
            "recurring": {"interval": "month"},
        }
    ).id
    sub, _, _ = paid(account, catalogue)
    buy: Any = {"customer": catalogue.customer, "items": [{"price": euro}]}
    with pytest.raises(stripe.InvalidRequestError) as mixed:
        client.subscriptions.create(buy)
    assert "combine currencies" in str(mixed.value)
    client.customers.update(catalogue.customer, {"balance": -300})
    client.subscriptions.cancel(sub)
    waiting = add_item(account, catalogue, 100)
    with pytest.raises(stripe.InvalidRequestError):
        client.subscriptions.create(buy)
    client.invoice_items.delete(waiting.id)
    buy["expand"] = ["latest_invoice"]
    made = client.subscriptions.create(buy).to_dict()
    assert (made["currency"], made["latest_invoice"]["amount_due"]) == ("eur", 900)
    customer = client.customers.retrieve(catalogue.customer)
    assert (customer.currency, customer.balance) == ("eur", 0)
    client.subscriptions.cancel(made["id"])
    _, invoice, _ = paid(account, catalogue, currency="usd")
    assert (invoice["starting_balance"], invoice["amount_due"]) == (-300, 1700)


def test_change_beyond_the_tenth_item_sends_an_event(account: Account, catalogue: Catalogue) -> None:
    """S1: the event shows the first ten items only, and the change is none of them."""
    client = account.client.v1
    prices = [
        client.prices.create(
            {
                "product": catalogue.product,
                "currency": "usd",
                "unit_amount": 100 + n,
                "recurring": {"interval": "month"},
            }
        ).id
        for n in range(12)
    ]
    params: Any = {"customer": catalogue.customer, "items": [{"price": price} for price in prices]}
    sub = client.subscriptions.create(params)
    last = client.subscription_items.list({"subscription": sub.id, "limit": 100}).data[-1].id
    for change in ({"quantity": 4}, {"metadata": {"a": "b"}}, {"deleted": True}):
        before = event_count(account)
        update: Any = {"items": [{"id": last, **change}], "proration_behavior": "none"}
        client.subscriptions.update(sub.id, update)
        assert types_since(account, before) == ["customer.subscription.updated"]
        event = account.control("GET", "state?type=event")["data"][-1]
        assert len(event["data"]["object"]["items"]["data"]) == 10
    before = event_count(account)
    client.subscriptions.update(sub.id, {"metadata": {}})
    assert types_since(account, before) == []
