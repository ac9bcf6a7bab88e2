"""Quotes: what was quoted is what is charged, an hour later, once, for that change of that plan by that caller."""

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testkit.company import Person
from testkit.problems import pointers, problem
from testkit.service import as_service
from tests.money.shop import Shop

MINUTE, HOUR = 60, 3600
ADMIN = as_service("admin")
SUBSCRIPTIONS, ROUNDS = 20, 10
TIERS = [
    {"up_to": 5, "unit_amount": 990, "flat_amount": 500},
    {"up_to": "inf", "unit_amount_decimal": "649.5"},
]


@dataclass
class Plan:
    """A subscription with what it has now: its items' prices by their ids, and the codes that it took already."""

    who: Person
    id: str
    items: dict[str, str]
    latest_invoice: str
    codes: set[str] = field(default_factory=set)


@dataclass
class Catalogue:
    prices: list[str]
    codes: list[str]


async def stocked(shop: Shop) -> Catalogue:
    monthly = await shop.product()
    prices = [
        await shop.price(monthly, **fields)
        for fields in (
            {"unit_amount": 1000},
            {"unit_amount": 1557},
            {"unit_amount_decimal": "33.335"},
            {"unit_amount": 2500, "transform_quantity": {"divide_by": 5, "round": "up"}},
            {"billing_scheme": "tiered", "tiers_mode": "graduated", "tiers": TIERS},
            {"billing_scheme": "tiered", "tiers_mode": "volume", "tiers": TIERS},
            {"unit_amount": 9999, "recurring": {"interval": "year"}},
            {"unit_amount": 299, "recurring": {"interval": "month", "interval_count": 3}},
        )
    ]
    codes = []
    for code, terms in (
        ("TENTH", {"percent_off": 10, "duration": "forever"}),
        ("THIRD", {"percent_off": 33.3, "duration": "repeating", "duration_in_months": 3}),
        ("FIVER", {"amount_off": 500, "currency": "usd", "duration": "once"}),
    ):
        coupon = await shop.stripe.post("/v1/coupons", **terms)
        promotion = {"type": "coupon", "coupon": coupon["id"]}
        await shop.stripe.post("/v1/promotion_codes", promotion=promotion, code=code)
        codes.append(code)
    return Catalogue(prices, codes)


async def subscribed(shop: Shop, catalogue: Catalogue, chance: random.Random) -> Plan:
    buyer, card = await shop.buyer()
    chosen = chance.sample(catalogue.prices, chance.randint(1, 3))
    rate = await shop.stripe.post("/v1/tax_rates", display_name="VAT", percentage=19, inclusive=False)
    coupon = await shop.stripe.post("/v1/coupons", percent_off=15, duration="forever")
    terms: dict[str, Any] = {"default_tax_rates": [rate["id"]]} if chance.random() < 0.3 else {}
    terms |= {"discounts": [{"coupon": coupon["id"]}]} if chance.random() < 0.3 else {}
    made = await shop.bought(
        ADMIN,
        [{"price_id": price, "quantity": chance.randint(1, 12)} for price in chosen],
        to=buyer.customer_id,
        payment_method_id=card,
        **terms,
    )
    items = {item["id"]: item["price"]["id"] for item in made["items"]}
    return Plan(buyer, made["id"], items, made["latest_invoice_id"])


def random_change(plan: Plan, catalogue: Catalogue, chance: random.Random) -> dict[str, Any]:
    """One to three of: another quantity, another price, an item more, an item less; sometimes a code on top."""
    free = [price for price in catalogue.prices if price not in plan.items.values()]
    chance.shuffle(free)
    items: list[dict[str, Any]] = []
    left = list(plan.items)
    chance.shuffle(left)
    for _ in range(chance.randint(1, 3)):
        kind = chance.choice(["quantity", "quantity", "price", "add", "remove"])
        if kind == "add" and free:
            items.append({"price_id": free.pop(), "quantity": chance.randint(1, 15)})
        elif kind == "price" and free and left:
            switched: dict[str, Any] = {"id": left.pop(), "price_id": free.pop()}
            items.append(
                switched if chance.random() < 0.5 else {**switched, "quantity": chance.randint(1, 9)}
            )
        elif kind == "remove" and len(left) > 1:
            items.append({"id": left.pop(), "deleted": True})
        elif left:
            items.append({"id": left.pop(), "quantity": chance.randint(1, 40)})
    change: dict[str, Any] = {"items": items}
    # A subscription takes one code at a time.
    if not plan.codes and chance.random() < 0.3:
        change["promotion_code"] = chance.choice(catalogue.codes)
    return change


async def test_two_hundred_random_changes_are_charged_as_they_were_quoted(still: Shop) -> None:
    chance = random.Random(20261122)
    catalogue = await stocked(still)
    plans = [await subscribed(still, catalogue, chance) for _ in range(SUBSCRIPTIONS)]
    for _ in range(ROUNDS):
        changes = [random_change(plan, catalogue, chance) for plan in plans]
        quotes = await asyncio.gather(
            *(
                still.preview(plan.who.headers, plan.id, **change)
                for plan, change in zip(plans, changes, strict=True)
            )
        )
        # A quote of a change that credits is good for ten minutes.
        await still.stripe.advance(9 * MINUTE)
        await asyncio.gather(
            *(
                _charged_as_quoted(still, plan, change, quote)
                for plan, change, quote in zip(plans, changes, quotes, strict=True)
            )
        )


async def _charged_as_quoted(shop: Shop, plan: Plan, change: dict[str, Any], quote: dict[str, Any]) -> None:
    answer = await shop.change(plan.who.headers, plan.id, **change, quote_id=quote["quote_id"])
    assert answer.status_code == 200, (change, answer.text)
    made = answer.json()["subscription"]
    assert answer.json()["payment"] is None
    plan.items = {item["id"]: item["price"]["id"] for item in made["items"]}
    if "promotion_code" in change:
        plan.codes.add(change["promotion_code"])
    told = (change, quote)
    before, plan.latest_invoice = plan.latest_invoice, made["latest_invoice_id"]
    if plan.latest_invoice == before:
        assert (quote["amount_due_now"], quote["credit"]) == (0, 0), told
    else:
        invoice = await shop.stripe.get(f"/v1/invoices/{plan.latest_invoice}")
        lines = invoice["lines"]
        if lines["has_more"]:
            lines = await shop.stripe.get(f"/v1/invoices/{invoice['id']}/lines", limit=100)
        assert invoice["status"] == "paid", told
        assert invoice["amount_paid"] == quote["amount_due_now"], told
        assert max(0, -invoice["total"]) == quote["credit"], told
        assert [line["amount"] for line in lines["data"]] == [line["amount"] for line in quote["lines"]], told
    if "FIVER" not in plan.codes:
        # A code for one invoice may be used up by the change itself.
        upcoming = await shop.upcoming(plan.who.headers, plan.id)
        assert upcoming["total"] == quote["next_total"], f"{told}\n\n{upcoming}\n\n{made}"


async def quoted(shop: Shop) -> tuple[Person, dict[str, Any], list[dict[str, Any]], str]:
    """A buyer of two seats, his subscription, a change to five, and its quote."""
    buyer, card = await shop.buyer()
    items = [{"price_id": await shop.price(), "quantity": 2}]
    made = await shop.bought(buyer.headers, items, payment_method_id=card)
    change = [{"id": made["items"][0]["id"], "quantity": 5}]
    quote = await shop.preview(buyer.headers, made["id"], items=change)
    assert (quote["amount_due_now"], quote["next_total"]) == (3000, 5000)
    expires = datetime.fromisoformat(quote["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=58) < expires <= timedelta(hours=24, minutes=1)
    return buyer, made, change, quote["quote_id"]


async def test_a_quote_is_good_for_one_use(still: Shop) -> None:
    buyer, made, change, quote = await quoted(still)
    first = await still.change(buyer.headers, made["id"], key="once", items=change, quote_id=quote)
    assert first.status_code == 200, first.text
    again = await still.change(buyer.headers, made["id"], items=change, quote_id=quote)
    problem(again, 409, "quote_expired")
    replayed = await still.change(buyer.headers, made["id"], key="once", items=change, quote_id=quote)
    assert (replayed.content, replayed.headers["idempotency-replayed"]) == (first.content, "true")
    invoices = await still.invoices(buyer.headers, made["id"])
    assert sorted(invoice["total"] for invoice in invoices) == [2000, 3000]


async def test_a_quote_is_good_for_a_day(still: Shop) -> None:
    buyer, made, change, quote = await quoted(still)
    await still.service.fetch(
        "update quotes set expires_at = expires_at - interval '24 hours 1 second' where id = $1", quote
    )
    late = await still.change(buyer.headers, made["id"], items=change, quote_id=quote)
    problem(late, 409, "quote_expired")
    assert (await still.true(made["id"]))["items"]["data"][0]["quantity"] == 2


async def test_a_quote_is_for_one_change_of_one_plan_by_one_caller(still: Shop) -> None:
    buyer, made, change, quote = await quoted(still)
    items = [{"price_id": await still.price(), "quantity": 2}]
    other = (await still.unpaid(buyer.headers, items)).subscription
    item = change[0]["id"]
    service_key = as_service("write", acting_for=buyer.customer_id)
    wrong: list[tuple[Any, str, dict[str, Any]]] = [
        (buyer.headers, made["id"], {"items": [{"id": item, "quantity": 6}]}),
        (buyer.headers, made["id"], {"items": [*change, {"price_id": await still.price()}]}),
        (buyer.headers, made["id"], {"items": change, "cancel_at_period_end": True}),
        (ADMIN, made["id"], {"items": change, "trial_end": "now"}),
        (ADMIN, made["id"], {"items": change}),
        (service_key, made["id"], {"items": change}),
        (buyer.headers, made["id"], {"items": change, "quote_id": "qt_" + "0" * 32}),
    ]
    for who, subscription_id, body in wrong:
        asked: dict[str, Any] = {"quote_id": quote, **body}
        answer = await still.change(who, subscription_id, **asked)
        assert pointers(problem(answer, 422, "invalid_request")) == ["/quote_id"], asked
    elsewhere = [{"id": other["items"][0]["id"], "quantity": 5}]
    answer = await still.change(buyer.headers, other["id"], items=elsewhere, quote_id=quote)
    assert answer.status_code in (409, 422), answer.text
    assert (await still.true(made["id"]))["items"]["data"][0]["quantity"] == 2
    # Nothing of that used it up.
    answer = await still.change(buyer.headers, made["id"], items=change, quote_id=quote)
    assert answer.status_code == 200, answer.text


async def test_a_quote_ends_when_the_plan_changes(still: Shop) -> None:
    buyer, made, change, quote = await quoted(still)
    item = change[0]["id"]
    answer = await still.change(buyer.headers, made["id"], items=[{"id": item, "quantity": 3}])
    assert answer.status_code == 200, answer.text
    answer = await still.change(buyer.headers, made["id"], items=change, quote_id=quote)
    problem(answer, 409, "quote_expired")


@pytest.mark.parametrize("edit", ["dashboard", "renewal"])
async def test_a_quote_ends_when_the_plan_changes_elsewhere(still: Shop, edit: str) -> None:
    buyer, made, change, quote = await quoted(still)
    if edit == "dashboard":
        await still.stripe.post(f"/v1/subscription_items/{change[0]['id']}", quantity=4)
    else:
        await still.stripe.advance(32 * 24 * HOUR)
    await still.listen()
    answer = await still.change(buyer.headers, made["id"], items=change, quote_id=quote)
    problem(answer, 409, "quote_expired")


async def test_changes_that_cost_nothing_now_are_quoted_so(still: Shop) -> None:
    """An unchanged quantity, an end, a code for later: nothing is due, and nothing is charged by executing it."""
    buyer, made, _, _ = await quoted(still)
    item, total = made["items"][0]["id"], 2000
    coupon = await still.stripe.post("/v1/coupons", percent_off=10, duration="forever")
    promotion = {"type": "coupon", "coupon": coupon["id"]}
    await still.stripe.post("/v1/promotion_codes", promotion=promotion, code="LATER")
    for body, next_total in (
        ({"items": [{"id": item, "quantity": 2}]}, total),
        ({"promotion_code": "LATER"}, 1800),
        ({"cancel_at_period_end": True}, None),
        ({"cancel_at_period_end": False}, 1800),
    ):
        quote = await still.preview(buyer.headers, made["id"], **body)
        told = (body, quote)
        assert (quote["amount_due_now"], quote["credit"], quote["next_total"]) == (0, 0, next_total), told
        await still.stripe.advance(HOUR)
        answer = await still.change(buyer.headers, made["id"], **body, quote_id=quote["quote_id"])
        assert answer.status_code == 200, (told, answer.text)
    assert [i["total"] for i in await still.invoices(buyer.headers, made["id"])] == [total]


async def test_a_trial_that_ends_now_is_charged_as_quoted(still: Shop) -> None:
    buyer, card = await still.buyer()
    items = [{"price_id": await still.price(), "quantity": 3}]
    made = await still.bought(
        ADMIN, items, to=buyer.customer_id, payment_method_id=card, trial_period_days=14
    )
    quote = await still.preview(ADMIN, made["id"], trial_end="now")
    assert (quote["amount_due_now"], quote["next_total"]) == (3000, 3000)
    await still.stripe.advance(HOUR)
    answer = await still.change(ADMIN, made["id"], trial_end="now", quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    assert answer.json()["subscription"]["status"] == "active"
    invoices = await still.invoices(buyer.headers, made["id"])
    assert [invoice["amount_paid"] for invoice in invoices] == [3000, 0]


async def test_a_trial_costs_nothing_before_it_ends(still: Shop) -> None:
    buyer, card = await still.buyer()
    items = [{"price_id": await still.price(), "quantity": 3}]
    made = await still.bought(
        ADMIN, items, to=buyer.customer_id, payment_method_id=card, trial_period_days=14
    )
    change = [{"id": made["items"][0]["id"], "quantity": 5}]
    quote = await still.preview(buyer.headers, made["id"], items=change)
    assert (quote["amount_due_now"], quote["credit"], quote["next_total"]) == (0, 0, 5000)
    answer = await still.change(buyer.headers, made["id"], items=change, quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    assert answer.json()["subscription"]["status"] == "trialing"
