"""What is left to pay is read from Stripe's intent, and each way of paying is changed as Stripe allows it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.billing.shop import DECLINED, Shop
from tests.support.company import Person
from tests.support.problems import problem

UPDATE = {"method": "POST", "path": "/v1/subscriptions/{id}"}


@pytest.fixture(autouse=True)
async def _no_faults_left(shop: Shop) -> AsyncIterator[None]:
    yield
    await shop.stripe.clear_faults()


async def team(shop: Shop, quantity: int = 4, **price: Any) -> tuple[Person, dict[str, Any]]:
    """A buyer with a working card, who owns a shareable subscription of so many seats."""
    buyer, card = await shop.buyer()
    price_id = await shop.price(await shop.product(shared=True), **price)
    items = [{"price_id": price_id, "quantity": quantity}]
    return buyer, await shop.bought(buyer.headers, items, payment_method_id=card)


async def pay_by(shop: Shop, buyer: Person, subscription_id: str, card: str) -> str:
    """The subscription's own payment method, set as in the Dashboard."""
    method = await shop.card(buyer, card)
    await shop.stripe.post(f"/v1/subscriptions/{subscription_id}", default_payment_method=method)
    await shop.service.refresh("subscription", subscription_id)
    return method


async def test_payment_is_the_open_invoice_when_a_setup_intent_is_left_over(shop: Shop) -> None:
    """M6: a free subscription bought without a card leaves a SetupIntent; the dearer price waits for its invoice."""
    buyer, _ = await shop.buyer(card=None)
    free, paid = await shop.price(unit_amount=0), await shop.price(unit_amount=1900)
    answer = await shop.add(buyer.headers, [{"price_id": free}])
    assert answer.status_code == 201, answer.text
    made, setup = answer.json()["subscription"], answer.json()["payment"]
    assert (made["status"], setup["kind"], setup["status"]) == ("active", "setup", "requires_payment_method")
    switch = [{"id": made["items"][0]["id"], "price_id": paid}]
    answer = await shop.change(buyer.headers, made["id"], items=switch)
    assert answer.status_code == 200, answer.text
    payment = answer.json()["payment"]
    invoice = await shop.stripe.get(f"/v1/invoices/{(await shop.true(made['id']))['latest_invoice']}")
    assert payment == {
        "status": "requires_payment_method",
        "kind": "payment",
        "client_secret": payment["client_secret"],
        "payment_method_id": None,
        "decline_code": None,
        "hosted_invoice_url": invoice["hosted_invoice_url"],
    }
    await shop.stripe.control("POST", "confirm", client_secret=payment["client_secret"])
    await shop.listen()
    now = await shop.subscription(buyer.headers, made["id"])
    assert [item["price"]["id"] for item in now["items"]] == [paid]
    # The set-up is still open, and nothing waits for it any more once the invoice is paid.
    assert (await shop.stripe.get(f"/v1/invoices/{invoice['id']}"))["status"] == "paid"


async def test_payment_tells_the_decline_when_a_card_refuses_more_seats(shop: Shop) -> None:
    """M7: after a decline the intent waits for another payment method, and the answer says so."""
    buyer, made = await team(shop)
    declining = await pay_by(shop, buyer, made["id"], DECLINED)
    path = f"/v1/shared-subscriptions/{made['id']}/seats"
    answer = await shop.service.send("PUT", path, buyer.headers, {"total": 9})
    assert answer.status_code == 200, answer.text
    payment = answer.json()["payment"]
    assert (payment["kind"], payment["status"]) == ("payment", "requires_payment_method")
    assert (payment["decline_code"], payment["payment_method_id"]) == ("generic_decline", declining)
    assert answer.json()["subscription"]["shared"]["seats"]["total"] == 4
    # The member change that buys seats tells the same step.
    body = {"add": [{"email": f"more-{n}@example.com"} for n in range(5)], "over_capacity": "add_seats"}
    path = f"/v1/shared-subscriptions/{made['id']}/users"
    answer = await shop.service.send("PATCH", path, buyer.headers, body)
    assert answer.status_code == 202, answer.text
    payment = answer.json()["payment"]
    assert (payment["status"], payment["decline_code"]) == ("requires_payment_method", "generic_decline")


async def test_payment_is_read_after_the_change_stands_when_stripe_falls_silent(shop: Shop) -> None:
    """M7: the change is known and settled; only its payment could not be read, so the answer is 202."""
    buyer, made = await team(shop)
    await pay_by(shop, buyer, made["id"], DECLINED)
    await shop.stripe.add_fault(method="GET", path="/v1/invoices/{id}", status=500, times=0)
    path = f"/v1/shared-subscriptions/{made['id']}/seats"
    answer = await shop.service.send("PUT", path, buyer.headers, {"total": 9})
    assert answer.status_code == 202, answer.text
    assert [result["outcome"] for result in answer.json()["results"]] == ["applied"]
    await shop.stripe.clear_faults()
    invoices = await shop.stripe.get("/v1/invoices", subscription=made["id"])
    assert [invoice["status"] for invoice in invoices["data"]] == ["open", "paid"]


async def test_item_prices_are_in_the_subscriptions_currency_when_bought_in_an_option(shop: Shop) -> None:
    """M9: a price of 12.00 USD with an option of 11.00 EUR, bought in EUR, costs 11.00 EUR on every read."""
    buyer, card = await shop.buyer()
    product = await shop.product(shared=True)
    plain = await shop.price(product, unit_amount=1200, currency_options={"eur": {"unit_amount": 1100}})
    ladder = [{"up_to": 5, "unit_amount": 900}, {"up_to": "inf", "unit_amount_decimal": "649.5"}]
    in_euros = [{"up_to": 5, "unit_amount": 800, "flat_amount": 100}, {"up_to": "inf", "unit_amount": 600}]
    tiered = await shop.price(
        billing_scheme="tiered",
        tiers_mode="graduated",
        tiers=ladder,
        currency_options={"eur": {"tiers": in_euros}},
    )
    items = [{"price_id": plain, "quantity": 3}, {"price_id": tiered, "quantity": 7}]
    made = await shop.bought(buyer.headers, items, payment_method_id=card, currency="eur")
    path = f"/v1/subscriptions/{made['id']}"
    listed = (await shop.service.get("/v1/customers/me/subscriptions", buyer.headers)).json()["data"]
    shared = await shop.service.get(f"/v1/shared-subscriptions/{made['id']}", buyer.headers)
    read = (await shop.service.get(path, buyer.headers)).json()["subscription"]
    for shown in (made, read, listed[0], shared.json()["subscription"]):
        first, second = (item["price"] for item in shown["items"])
        assert (first["currency"], first["unit_amount"], first["unit_amount_decimal"]) == (
            "eur",
            1100,
            "1100",
        )
        assert (second["currency"], second["unit_amount"]) == ("eur", None)
        assert [(t["up_to"], t["unit_amount"], t["flat_amount"]) for t in second["tiers"]] == [
            (5, 800, 100),
            (None, 600, None),
        ]
    # In the price's own currency nothing changes.
    other, other_card = await shop.buyer()
    dollars = await shop.bought(other.headers, items[:1], payment_method_id=other_card)
    price = dollars["items"][0]["price"]
    assert (price["currency"], price["unit_amount"]) == ("usd", 1200)


async def test_upgrade_says_what_is_missing_when_there_is_a_code_and_no_card(shop: Shop) -> None:
    """M11: Stripe's resource_missing is about the payment method; the subscription is found all the time."""
    buyer, _ = await shop.buyer(card=None)
    free, paid = await shop.price(unit_amount=0), await shop.price(unit_amount=1900)
    made = await shop.bought(buyer.headers, [{"price_id": free}])
    coupon = await shop.stripe.post("/v1/coupons", percent_off=10, duration="forever")
    promotion = {"type": "coupon", "coupon": coupon["id"]}
    await shop.stripe.post("/v1/promotion_codes", promotion=promotion, code="NOCARD")
    before = await shop.true(made["id"])
    switch = [{"id": made["items"][0]["id"], "price_id": paid}]
    answer = await shop.change(buyer.headers, made["id"], items=switch, promotion_code="NOCARD")
    refused = problem(answer, 422, "invalid_request")
    assert [(error["pointer"], error["code"]) for error in refused["errors"]] == [
        ("/payment_method_id", "missing")
    ]
    assert "payment_method_id" in refused["detail"]
    assert await shop.true(made["id"]) == before
    unsettled = "select id from operations where settled_at is null and subscription_id = $1"
    assert await shop.service.fetch(unsettled, made["id"]) == []
