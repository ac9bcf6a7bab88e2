"""What Stripe documents, and the stand-in's answer: one row for each statement.

A row is a small function that asks the stand-in and returns its answer; `@documented` gives the statement and the
answer that Stripe's documentation calls for. An id T… is one statement, and its parts are T17a, T17b and so on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
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


@documented("T4", "to void the invoice that a pending update made cancels the update", (None, 2, "void"))
def voiding_the_invoice_of_a_pending_update(account: Account, catalogue: Catalogue) -> Any:
    """S8."""
    client = account.client.v1
    sub = subscribe(account, catalogue)
    use_card(account, catalogue, CARD_FAILS_LATER)
    held = raise_seats(account, sub, 5, payment_behavior="pending_if_incomplete")
    assert held.pending_update is not None
    client.invoices.void_invoice(held.latest_invoice)
    after = client.subscriptions.retrieve(sub.id)
    status = client.invoices.retrieve(held.latest_invoice).status
    return after.pending_update, items_of(after)[0]["quantity"], status


@documented(
    "T5",
    "metadata of a pending update is stored as sent and merged when the update is applied",
    ({"note": "new"}, {"note": "new", "between": "kept"}),
)
def metadata_of_a_pending_update(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub = subscribe(account, catalogue, metadata={"note": "old"})
    use_card(account, catalogue, CARD_FAILS_LATER)
    held = raise_seats(account, sub, 5, payment_behavior="pending_if_incomplete", metadata={"note": "new"})
    client.subscriptions.update(sub.id, {"metadata": {"between": "kept"}})
    use_card(account, catalogue, "pm_card_visa")
    client.invoices.pay(held.latest_invoice)
    after = client.subscriptions.retrieve(sub.id)
    return held.pending_update.metadata.to_dict(), after.metadata.to_dict()


def two_items(account: Account, catalogue: Catalogue, **given: Any) -> Any:
    """3 × 10.00 and 1 × 10.00 a month with 5.00 off the subscription."""
    client = account.client.v1
    other = client.prices.create(
        {
            "product": catalogue.product,
            "currency": "usd",
            "unit_amount": 1000,
            "recurring": {"interval": "month"},
        }
    ).id
    coupon = client.coupons.create({"amount_off": 500, "currency": "usd", "duration": "forever"}).id
    items = [{"price": catalogue.monthly, "quantity": 3}, {"price": other, "quantity": 1}]
    return subscribe(account, catalogue, items=items, discounts=[{"coupon": coupon}], **given)


@documented(
    "T7", "an amount off the subscription is taken once, so all that was paid is credited", (3500, -3500)
)
def amount_off_is_taken_once(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub = two_items(account, catalogue)
    paid = client.invoices.retrieve(sub.latest_invoice).amount_paid
    client.subscriptions.cancel(sub.id, {"prorate": True, "invoice_now": True})
    return paid, client.customers.retrieve(catalogue.customer).balance


def credit_for_the_second_item(account: Account, catalogue: Catalogue, mode: str) -> Any:
    sub = two_items(account, catalogue, billing_mode={"type": mode})
    params: Any = {
        "items": [{"id": items_of(sub)[1]["id"], "deleted": True}],
        "proration_behavior": "always_invoice",
    }
    changed = account.client.v1.subscriptions.update(sub.id, params)
    return account.client.v1.invoices.retrieve(str(changed.latest_invoice)).total


@documented("T7", "flexible billing applies discounts to items in proportion to their amounts", -875)
def amount_off_in_flexible_mode(account: Account, catalogue: Catalogue) -> Any:
    return credit_for_the_second_item(account, catalogue, "flexible")


@documented("T7", "classic billing applies discounts evenly to all items", -750)
def amount_off_in_classic_mode(account: Account, catalogue: Catalogue) -> Any:
    return credit_for_the_second_item(account, catalogue, "classic")


@documented("T7", "an item that is added takes only its share of an amount off", 32)
def amount_off_on_an_added_item(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub = two_items(account, catalogue)
    cheap = client.prices.create(
        {
            "product": catalogue.product,
            "currency": "usd",
            "unit_amount": 38,
            "recurring": {"interval": "month"},
        }
    ).id
    changed = client.subscriptions.update(
        sub.id, {"items": [{"price": cheap}], "proration_behavior": "always_invoice"}
    )
    # 4 cents are its share of the 5.00, and 2 are left over because every share is rounded down.
    return client.invoices.retrieve(str(changed.latest_invoice)).lines.data[-1].amount


@documented("T12", "an incomplete subscription that was never paid gives no credit", (0, "void"))
def cancelling_an_incomplete_subscription(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub = subscribe(account, catalogue, 3, payment_behavior="default_incomplete")
    client.subscriptions.cancel(sub.id, {"prorate": True, "invoice_now": True})
    first = client.invoices.retrieve(sub.latest_invoice).status
    return client.customers.retrieve(catalogue.customer).balance, first


@documented("T14", "a discount is not on a renewal that comes after the discount's end", (5000, 10_000))
def renewal_after_a_discount(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    coupon = client.coupons.create({"percent_off": 50, "duration": "repeating", "duration_in_months": 1}).id
    items = [{"price": catalogue.yearly, "quantity": 1}]
    sub = subscribe(account, catalogue, items=items, discounts=[{"coupon": coupon}])
    first = client.invoices.retrieve(sub.latest_invoice).total
    return first, client.invoices.create_preview({"subscription": sub.id}).total


@documented(
    "T15",
    "the first invoice that is sent is a draft, and is finalised later",
    [("active", "draft"), ("active", "open"), ("trialing", "draft"), ("trialing", "paid")],
)
def first_sent_invoice(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    answers = []
    for trial in ({}, {"trial_period_days": 14}):
        sub = subscribe(account, catalogue, collection_method="send_invoice", days_until_due=30, **trial)
        answers.append((sub.status, client.invoices.retrieve(sub.latest_invoice).status))
        advance(account, 3600)
        status = client.subscriptions.retrieve(sub.id).status
        answers.append((status, client.invoices.retrieve(sub.latest_invoice).status))
    return answers


@documented(
    "T16", "a customer who is exempt or accounts for the tax themselves pays none", [1200, 1000, 1000]
)
def tax_exemption(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    rate = client.tax_rates.create({"display_name": "VAT", "inclusive": False, "percentage": 20}).id
    totals = []
    for exemption in ("none", "exempt", "reverse"):
        client.customers.update(catalogue.customer, {"tax_exempt": exemption})
        sub = subscribe(account, catalogue, 1, default_tax_rates=[rate])
        totals.append(client.invoices.retrieve(sub.latest_invoice).total)
    return totals


@documented("T16", "each tax says why it is 0", ["not_available", "customer_exempt", "reverse_charge"])
def reasons_of_taxes(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    rate = client.tax_rates.create({"display_name": "VAT", "inclusive": True, "percentage": 20}).id
    reasons = []
    for exemption in ("none", "exempt", "reverse"):
        client.customers.update(catalogue.customer, {"tax_exempt": exemption})
        sub = subscribe(account, catalogue, 1, default_tax_rates=[rate])
        invoice = client.invoices.retrieve(sub.latest_invoice).to_dict()
        assert (invoice["total"], invoice["total_taxes"][0]["amount"] == 0) == (1000, exemption != "none")
        reasons.append(invoice["lines"]["data"][0]["taxes"][0]["taxability_reason"])
    return reasons


@documented("T17a", "a coupon is valid while it can still be redeemed", (True, False, False))
def validity_of_a_coupon(account: Account, catalogue: Catalogue) -> Any:
    coupons = account.client.v1.coupons
    once = coupons.create({"percent_off": 10, "duration": "forever", "max_redemptions": 1})
    subscribe(account, catalogue, discounts=[{"coupon": once.id}])
    dated = coupons.create({"percent_off": 10, "duration": "forever", "redeem_by": START + 60}).id
    advance(account, 61)
    return once.valid, coupons.retrieve(once.id).valid, coupons.retrieve(dated).valid


@documented("T17b", "a product's name cannot be unset", ("Team plan", "parameter_invalid_empty"))
def empty_product_name(account: Account, catalogue: Catalogue) -> Any:
    status, _, body = account.raw("POST", f"/v1/products/{catalogue.product}", "name=")
    assert status == 400
    return account.client.v1.products.retrieve(catalogue.product).name, body["error"]["code"]


@documented("T17c", "after the first attempt only automatic ones count", (1, 1, 2))
def attempt_count(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub = subscribe(account, catalogue)
    use_card(account, catalogue, CARD_FAILS_LATER)
    advance(account, items_of(sub)[0]["current_period_end"] + 3600 - START)
    late = client.invoices.list({"subscription": sub.id}).data[0]
    with pytest.raises(stripe.CardError):
        client.invoices.pay(late.id)
    by_hand = client.invoices.retrieve(late.id)
    advance(account, 3 * DAY)
    return late.attempt_count, by_hand.attempt_count, client.invoices.retrieve(late.id).attempt_count


@documented("T17d", "to end a trial that is over changes nothing", START + DAY)
def ending_a_trial_twice(account: Account, catalogue: Catalogue) -> Any:
    sub = subscribe(account, catalogue, trial_end=START + DAY)
    advance(account, 3 * DAY)
    return account.client.v1.subscriptions.update(sub.id, {"trial_end": "now"}).trial_end


@documented("T17e", "a draft of an ended subscription is not finalised by itself", ("draft", None))
def draft_of_an_ended_subscription(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub = subscribe(account, catalogue)
    advance(account, items_of(sub)[0]["current_period_end"] - START)
    client.subscriptions.cancel(sub.id)
    draft = client.invoices.list({"subscription": sub.id}).data[0]
    return draft.status, draft.automatically_finalizes_at


@documented(
    "T19",
    "a change within a flexible trial makes lines like any other change",
    ("paid", [(0, "Free trial for 5 × Team plan")]),
)
def change_within_a_trial(account: Account, catalogue: Catalogue) -> Any:
    sub = subscribe(account, catalogue, trial_period_days=30)
    advance(account, DAY)
    changed = raise_seats(account, sub, 5)
    invoice = account.client.v1.invoices.retrieve(changed.latest_invoice)
    return invoice.status, [(line.amount, line.description) for line in invoice.lines.data]


@documented("T20", "classic: a change from a free to a paid price resets the anchor", START + DAY)
def free_to_paid_in_classic_mode(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    free = client.prices.create(
        {
            "product": catalogue.product,
            "currency": "usd",
            "unit_amount": 0,
            "recurring": {"interval": "month"},
        }
    ).id
    sub = subscribe(account, catalogue, items=[{"price": free}], billing_mode={"type": "classic"})
    advance(account, DAY)
    entry: Any = {"id": items_of(sub)[0]["id"], "price": catalogue.monthly}
    return client.subscriptions.update(sub.id, {"items": [entry]}).billing_cycle_anchor


@documented(
    "T20",
    "classic: an end before the renewal resets the anchor to it, and credits the time after it",
    (START + 10 * DAY, START + 10 * DAY, -1355),
)
def end_before_the_renewal_in_classic_mode(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub = subscribe(account, catalogue, billing_mode={"type": "classic"})
    ended = client.subscriptions.update(sub.id, {"cancel_at": START + 10 * DAY})
    waiting = client.invoice_items.list({"customer": catalogue.customer, "pending": True}).data
    # 21 of the month's 31 days.
    return ended.billing_cycle_anchor, items_of(ended)[0]["current_period_end"], waiting[0].amount


@documented("T20", "flexible: an end before the renewal leaves the anchor", (START, START + 31 * DAY))
def end_before_the_renewal_in_flexible_mode(account: Account, catalogue: Catalogue) -> Any:
    sub = subscribe(account, catalogue)
    ended = account.client.v1.subscriptions.update(sub.id, {"cancel_at": START + 10 * DAY})
    return ended.billing_cycle_anchor, items_of(ended)[0]["current_period_end"]


@documented("T21", "an amount is rounded once, after it was prorated", 12)
def fractions_of_a_cent(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    daily, odd = (
        client.prices.create(
            {
                "product": catalogue.product,
                "currency": "usd",
                "unit_amount_decimal": Decimal(amount),
                "recurring": {"interval": "day"},
            }
        ).id
        for amount in ("100", "12.5")
    )
    sub = subscribe(account, catalogue, items=[{"price": daily}])
    advance(account, 1800)
    added = client.subscriptions.update(
        sub.id, {"items": [{"price": odd}], "proration_behavior": "always_invoice"}
    )
    return client.invoices.retrieve(str(added.latest_invoice)).total


@documented("T22", "a new cycle credits as of the proration date", (-1419, START + 10 * DAY))
def anchor_now_with_a_proration_date(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub = subscribe(account, catalogue)
    advance(account, 10 * DAY)
    changed = client.subscriptions.update(
        sub.id, {"billing_cycle_anchor": {"type": "now"}, "proration_date": START + 9 * DAY}
    )
    lines = client.invoices.retrieve(str(changed.latest_invoice)).lines.data
    # 22 of the month's 31 days.
    return lines[0].amount, items_of(changed)[0]["current_period_start"]


def paused_until(account: Account, catalogue: Catalogue, days: int) -> Any:
    """A subscription of 20.00 a month that was paused at its start without credit and resumes after so many days."""
    sub = subscribe(account, catalogue)
    params: Any = {"bill_for": {"unused_time_from": {"type": "none"}}}
    account.client.v1.subscriptions.pause(sub.id, params)
    advance(account, days * DAY)
    return sub


UNCHANGED: Any = {"billing_cycle_anchor": {"type": "unchanged"}}


def resumed(account: Account, catalogue: Catalogue, **given: Any) -> Any:
    """Status, what is left for the renewal, and the new invoice's status and total, 10 days into the second month."""
    client = account.client.v1
    sub = paused_until(account, catalogue, 41)
    params: Any = {**UNCHANGED, **given}
    after = client.subscriptions.resume(sub.id, params)
    assert after.billing_cycle_anchor == START
    moved = 0 if after.status == "paused" else 31
    assert items_of(after)[0]["current_period_start"] == START + moved * DAY
    pending = client.invoice_items.list({"customer": catalogue.customer, "pending": True}).data
    made = None
    if after.latest_invoice != sub.latest_invoice:
        invoice = client.invoices.retrieve(str(after.latest_invoice))
        made = (invoice.status, invoice.total)
    return after.status, [item.amount for item in pending], made


# 18 of the second month's 28 days are left of 20.00.


@documented(
    "T23", "an unchanged anchor leaves the rest of the period to the renewal", ("active", [1286], None)
)
def resuming_with_an_unchanged_anchor(account: Account, catalogue: Catalogue) -> Any:
    return resumed(account, catalogue)


@documented("T23", "prorations of a resumption can be left out", ("active", [], None))
def resuming_without_prorations(account: Account, catalogue: Catalogue) -> Any:
    return resumed(account, catalogue, proration_behavior="none")


@documented("T23", "prorations of a resumption count from the proration date", ("active", [1357], None))
def resuming_as_of_a_proration_date(account: Account, catalogue: Catalogue) -> Any:
    return resumed(account, catalogue, proration_date=START + 40 * DAY)


@documented(
    "T23",
    "resume_on_payment_attempt, the default, attempts no payment in the request",
    ("paused", [], ("open", 1286)),
)
def resuming_on_an_attempt(account: Account, catalogue: Catalogue) -> Any:
    return resumed(account, catalogue, proration_behavior="always_invoice")


@documented(
    "T23", "resume_on_payment_success attempts payment in the request", ("active", [], ("paid", 1286))
)
def resuming_on_success(account: Account, catalogue: Catalogue) -> Any:
    return resumed(
        account,
        catalogue,
        proration_behavior="always_invoice",
        payment_behavior="resume_on_payment_success",
    )


@documented("T23", "what was paid and not credited is not charged again", ("active", []))
def resuming_within_the_paid_period(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub = paused_until(account, catalogue, 10)
    after = client.subscriptions.resume(sub.id, UNCHANGED)
    pending = client.invoice_items.list({"customer": catalogue.customer, "pending": True}).data
    return after.status, pending


@documented("T23", "what the pause credited is charged again for the rest of the period", [-2000, 1355])
def resuming_within_the_credited_period(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub = subscribe(account, catalogue)
    client.subscriptions.pause(sub.id)
    advance(account, 10 * DAY)
    client.subscriptions.resume(sub.id, UNCHANGED)
    pending = client.invoice_items.list({"customer": catalogue.customer, "pending": True}).data
    # 21 of the month's 31 days.
    return sorted(item.amount for item in pending)


def resuming_unpaid(account: Account, catalogue: Catalogue, behavior: str) -> tuple[Any, str]:
    """A subscription whose resumption invoice waits to be paid, with a card that fails, and that invoice."""
    sub = paused_until(account, catalogue, 41)
    use_card(account, catalogue, CARD_FAILS_LATER)
    params: Any = {"payment_behavior": behavior}
    after = account.client.v1.subscriptions.resume(sub.id, params)
    assert after.status == "paused"
    return sub, str(after.latest_invoice)


@documented("T23", "a failed attempt makes it past due, and is not repeated", ("past_due", None))
def failed_resumption_on_an_attempt(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub, invoice = resuming_unpaid(account, catalogue, "resume_on_payment_attempt")
    with pytest.raises(stripe.CardError):
        client.invoices.pay(invoice)
    retry = client.invoices.retrieve(invoice).next_payment_attempt
    return client.subscriptions.retrieve(sub.id).status, retry


@documented("T23", "it stays paused until a repeated attempt succeeds", ("paused", "active"))
def failed_resumption_on_success(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub, _ = resuming_unpaid(account, catalogue, "resume_on_payment_success")
    before = client.subscriptions.retrieve(sub.id).status
    use_card(account, catalogue, "pm_card_visa")
    advance(account, 3 * DAY)
    return before, client.subscriptions.retrieve(sub.id).status


@documented("T23", "without an attempt within 23 hours it stays paused, its invoice void", ("paused", "void"))
def resumption_without_an_attempt(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub, invoice = resuming_unpaid(account, catalogue, "resume_on_payment_attempt")
    advance(account, 23 * 3600)
    return client.subscriptions.retrieve(sub.id).status, client.invoices.retrieve(invoice).status


@documented("T23", "to resume again replaces the invoice that waits", ("paused", "void", 2000))
def resuming_twice(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub, first = resuming_unpaid(account, catalogue, "resume_on_payment_attempt")
    again = client.subscriptions.resume(sub.id)
    second = client.invoices.retrieve(str(again.latest_invoice))
    return again.status, client.invoices.retrieve(first).status, second.amount_due


@documented(
    "T23", "paid or marked uncollectible, the resumption invoice makes it active", ["active", "active"]
)
def settled_resumption(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    statuses = []
    for settle in (client.invoices.mark_uncollectible, client.invoices.pay):
        use_card(account, catalogue, "pm_card_visa")
        sub, invoice = resuming_unpaid(account, catalogue, "resume_on_payment_attempt")
        use_card(account, catalogue, "pm_card_visa")
        settle(invoice)
        statuses.append(client.subscriptions.retrieve(sub.id).status)
    return statuses


# Resources, refusals and ways of paying.


def refusal(act: Callable[[], Any]) -> tuple[int | None, str | None, str | None]:
    """Status, code and parameter of the error that a request is answered with."""
    with pytest.raises(stripe.StripeError) as failure:
        act()
    error = failure.value
    return error.http_status, error.code, getattr(error, "param", None)


@documented("T2", "pending updates need charge_automatically", (400, None, "payment_behavior"))
def pending_update_of_a_sent_invoice(account: Account, catalogue: Catalogue) -> Any:
    sub = subscribe(account, catalogue, collection_method="send_invoice", days_until_due=30)
    return refusal(lambda: raise_seats(account, sub, 5, payment_behavior="pending_if_incomplete"))


@documented("T2", "pending updates do not work with bank debits", (400, None, "payment_behavior"))
def pending_update_of_a_debit(account: Account, catalogue: Catalogue) -> Any:
    use_card(account, catalogue, "pm_sepaDebit")
    sub = subscribe(account, catalogue)
    return refusal(lambda: raise_seats(account, sub, 5, payment_behavior="pending_if_incomplete"))


@documented(
    "T1",
    "every interval is a multiple of the shortest",
    {"day+week": 200, "month+year": 200, "2 month+year": 200}
    | {"week+month": 400, "day+month": 400, "week+year": 400, "2 month+3 month": 400, "2 week+3 week": 400},
)
def mixed_intervals(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1

    def price(interval: str) -> str:
        count, _, unit = interval.rpartition(" ")
        recurring: Any = {"interval": unit, "interval_count": int(count or 1)}
        return client.prices.create(
            {"product": catalogue.product, "currency": "usd", "unit_amount": 700, "recurring": recurring}
        ).id

    def status(*intervals: str) -> int | None:
        params: Any = {
            "customer": catalogue.customer,
            "items": [{"price": price(interval)} for interval in intervals],
        }
        try:
            client.subscriptions.create(params)
        except stripe.InvalidRequestError as refused:
            return refused.http_status
        return 200

    pairs = ["day+week", "month+year", "2 month+year", "week+month", "day+month", "week+year"]
    pairs += ["2 month+3 month", "2 week+3 week"]
    return {pair: status(*pair.split("+")) for pair in pairs}


@documented("T1", "a change to such a mix is refused", (400, None, "items"))
def weekly_item_on_a_monthly_plan(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    weekly = client.prices.create(
        {
            "product": catalogue.product,
            "currency": "usd",
            "unit_amount": 300,
            "recurring": {"interval": "week"},
        }
    ).id
    sub = subscribe(account, catalogue)
    return refusal(lambda: client.subscriptions.update(sub.id, {"items": [{"price": weekly}]}))


@documented("T6", "an amount off in another currency is refused", (400, None, "discounts[0][coupon]"))
def amount_off_in_euro_on_dollars(account: Account, catalogue: Catalogue) -> Any:
    coupon: Any = {"amount_off": 500, "currency": "eur", "duration": "forever"}
    made = account.client.v1.coupons.create(coupon).id
    return refusal(lambda: subscribe(account, catalogue, discounts=[{"coupon": made}], trial_period_days=7))


def promotion(account: Account, code: str, **terms: Any) -> str:
    client = account.client.v1
    coupon = client.coupons.create({"percent_off": 10, "duration": "forever"}).id
    params: Any = {"promotion": {"type": "coupon", "coupon": coupon}, "code": code, **terms}
    return client.promotion_codes.create(params).id


@documented(
    "T8", "a code for first purchases needs a new customer", (400, None, "discounts[0][promotion_code]")
)
def code_for_first_purchases(account: Account, catalogue: Catalogue) -> Any:
    code = promotion(account, "FIRST", restrictions={"first_time_transaction": True})
    subscribe(account, catalogue)
    return refusal(lambda: subscribe(account, catalogue, discounts=[{"promotion_code": code}]))


@documented(
    "T9", "a code is unique, regardless of case, among the active ones for each customer", [2, (400, "code")]
)
def code_of_two_customers(account: Account, catalogue: Catalogue) -> Any:
    promotion(account, "Spring")
    promotion(account, "SPRING", customer=catalogue.customer)
    status, _, param = refusal(lambda: promotion(account, "spring"))
    found = account.client.v1.promotion_codes.list({"code": "spring"}).data
    return [len(found), (status, param)]


def month_and_year(account: Account, catalogue: Catalogue) -> tuple[Any, int, int]:
    """A subscription of a monthly and a yearly item, and the two ends of their periods."""
    items: Any = [{"price": catalogue.monthly}, {"price": catalogue.yearly}]
    sub: Any = account.client.v1.subscriptions.create({"customer": catalogue.customer, "items": items})
    ends = sorted(item["current_period_end"] for item in items_of(sub))
    return sub, ends[0], ends[1]


@documented("T10", "cancel_at_period_end resolves to the earliest item period end", [True, "earliest"])
def end_of_items_with_different_periods(account: Account, catalogue: Catalogue) -> Any:
    sub, earliest, _ = month_and_year(account, catalogue)
    ended = account.client.v1.subscriptions.update(sub.id, {"cancel_at_period_end": True})
    return [ended.cancel_at_period_end, "earliest" if ended.cancel_at == earliest else ended.cancel_at]


@documented("T10", "cancel_at_period_end follows changes", "latest")
def end_after_the_earliest_item_is_gone(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub, _, latest = month_and_year(account, catalogue)
    client.subscriptions.update(sub.id, {"cancel_at_period_end": True})
    monthly = next(item["id"] for item in items_of(sub) if item["price"]["id"] == catalogue.monthly)
    after = client.subscriptions.update(sub.id, {"items": [{"id": monthly, "deleted": True}]})
    return "latest" if after.cancel_at == latest else after.cancel_at


@documented("T10", "min_period_end and max_period_end are fixed when set", [True, True, False])
def end_named_by_a_word(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    sub, earliest, latest = month_and_year(account, catalogue)
    last: Any = client.subscriptions.update(sub.id, {"cancel_at": "max_period_end"})
    first: Any = client.subscriptions.update(sub.id, {"cancel_at": "min_period_end"})
    monthly = next(item["id"] for item in items_of(sub) if item["price"]["id"] == catalogue.monthly)
    after = client.subscriptions.update(sub.id, {"items": [{"id": monthly, "deleted": True}]})
    return [last.cancel_at == latest, after.cancel_at == earliest, first.cancel_at_period_end]


@documented(
    "T11",
    "an incomplete subscription can only have metadata and default_source updated",
    {"metadata": 200, "default_source": 200}
    | dict.fromkeys(("default_payment_method", "cancel_at_period_end", "description", "items"), 400),
)
def updates_of_an_incomplete_subscription(account: Account, catalogue: Catalogue) -> Any:
    client = account.client.v1
    source = client.customers.payment_sources.create(catalogue.customer, {"source": "tok_visa"}).id
    sub = subscribe(account, catalogue, payment_behavior="default_incomplete")
    changes: dict[str, Any] = {
        "metadata": {"a": "b"},
        "default_source": source,
        "default_payment_method": catalogue.method,
        "cancel_at_period_end": True,
        "description": "x",
        "items": [{"id": items_of(sub)[0]["id"], "quantity": 9}],
    }
    answers: dict[str, int | None] = {}
    for name, value in changes.items():
        change: Any = {name: value}
        try:
            client.subscriptions.update(sub.id, change)
            answers[name] = 200
        except stripe.InvalidRequestError as refused:
            answers[name] = refused.http_status
    return answers


@documented("T13", "a sent invoice can be paid outside of the normal schedule", "paid")
def payment_of_a_sent_invoice(account: Account, catalogue: Catalogue) -> Any:
    sub = subscribe(account, catalogue, collection_method="send_invoice", days_until_due=30)
    invoice = account.client.v1.invoices.list({"subscription": sub.id}).data[0].id
    return account.client.v1.invoices.pay(invoice).status


@documented(
    "T18",
    "a payment method in the wrong state has the code of Stripe's list",
    (400, "payment_method_unexpected_state", "payment_method"),
)
def detaching_twice(account: Account, catalogue: Catalogue) -> Any:
    account.client.v1.payment_methods.detach(catalogue.method)
    return refusal(lambda: account.client.v1.payment_methods.detach(catalogue.method))


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.id}-{row.ask.__name__}") for row in ROWS])
def test_the_stand_in_answers_as_documented(frozen: Account, catalogue: Catalogue, row: Row) -> None:
    """T1 to T23: the statements of Stripe's documentation that the stand-in once answered otherwise."""
    assert row.ask(frozen, catalogue) == row.answer, row.statement
