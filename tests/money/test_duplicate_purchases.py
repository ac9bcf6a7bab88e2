"""Buying the same again: once only unless it is meant, and an unpaid purchase gives way to the next one."""

import asyncio

from testkit.problems import pointers, problem
from testkit.service import as_service
from tests.money.shop import UNSETTLED, VISA, Shop

ADMIN = as_service("admin")


async def test_purchase_is_refused_when_a_live_subscription_has_the_price(shop: Shop) -> None:
    """M17: two identical purchases without Idempotency-Key charged twice."""
    buyer, card = await shop.buyer()
    price, other = await shop.price(), await shop.price()
    made = await shop.bought(buyer.headers, [{"price_id": price}], payment_method_id=card)
    for who, to in ((buyer.headers, "me"), (ADMIN, buyer.customer_id)):
        again = await shop.add(who, [{"price_id": other}, {"price_id": price}], to=to, payment_method_id=card)
        refused = problem(again, 409, "already_subscribed")
        assert (refused["subscription_id"], pointers(refused)) == (made["id"], ["/items/1/price_id"])
    assert [sub["id"] for sub in await shop.all_of(buyer)] == [made["id"]]
    twice = await shop.bought(buyer.headers, [{"price_id": price}], payment_method_id=card)
    assert twice["id"] != made["id"]
    for sub in (made, twice):
        ended = await shop.service.send(
            "POST", f"/v1/subscriptions/{sub['id']}/cancel", buyer.headers, {"when": "now"}
        )
        assert ended.status_code == 200, ended.text
    # What has ended stands in nobody's way, nor does somebody else's subscription.
    assert (await shop.add(buyer.headers, [{"price_id": price}], payment_method_id=card)).status_code == 201
    wrong = await shop.add(buyer.headers, [{"price_id": price}], allow_duplicate="yes")
    assert pointers(problem(wrong, 422, "invalid_request")) == ["/allow_duplicate"]


async def test_one_purchase_of_many_is_charged_when_they_race(shop: Shop) -> None:
    """M17: a double click buys once, whichever arrives first."""
    buyer, card = await shop.buyer()
    price = await shop.price()
    answers = await asyncio.gather(
        *(shop.add(buyer.headers, [{"price_id": price}], payment_method_id=card) for _ in range(4))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    for answer in answers:
        if answer.status_code == 409:
            problem(answer, 409, "already_subscribed")
    assert len(await shop.all_of(buyer)) == 1


async def test_unpaid_subscription_is_ended_when_its_price_is_bought_again(shop: Shop) -> None:
    """M17: an abandoned purchase gives way, whole, and cannot be paid any more."""
    buyer, _ = await shop.buyer(card=None)
    price, other = await shop.price(), await shop.price()
    first = await shop.unpaid(buyer.headers, [{"price_id": price}, {"price_id": other}])
    kept = (await shop.unpaid(buyer.headers, [{"price_id": await shop.price()}])).subscription
    card = await shop.card(buyer)
    second = await shop.bought(
        buyer.headers, [{"price_id": price}], payment_method_id=card, allow_duplicate=False
    )
    assert second["status"] == "active"
    statuses = {sub["id"]: sub["status"] for sub in await shop.all_of(buyer)}
    assert statuses.pop(first.subscription["id"]) in ("incomplete_expired", "canceled")
    assert statuses == {second["id"]: "active", kept["id"]: "incomplete"}
    invoice = (await shop.stripe.get("/v1/invoices", subscription=first.subscription["id"]))["data"]
    assert [entry["status"] for entry in invoice] == ["void"]
    await shop.cache_is_true()
    assert first.payment["client_secret"]


async def test_purchase_is_refused_when_the_unpaid_one_was_paid_meanwhile(shop: Shop) -> None:
    """M17: the payment came first, and no event of it has arrived: nothing is ended, nothing is bought twice."""
    buyer, _ = await shop.buyer(card=None)
    price = await shop.price()
    first = await shop.unpaid(buyer.headers, [{"price_id": price}])
    secret = first.payment["client_secret"]
    await shop.stripe.control("POST", "confirm", client_secret=secret, payment_method=VISA)
    again = await shop.add(buyer.headers, [{"price_id": price}], key="second-try")
    assert problem(again, 409, "already_subscribed")["subscription_id"] == first.subscription["id"]
    [only] = await shop.all_of(buyer)
    assert only["status"] == "active"
    # What was read at Stripe is in the cache now.
    shown = await shop.subscription(buyer.headers, only["id"])
    assert shown["status"] == "active"
    assert await shop.service.fetch(UNSETTLED) == []


async def test_purchase_is_refused_when_too_many_are_unpaid(shop: Shop) -> None:
    """M21: 55 purchases without a card left 55 open subscriptions."""
    buyer, _ = await shop.buyer(card=None)
    made = [
        (await shop.unpaid(buyer.headers, [{"price_id": await shop.price()}])).subscription for _ in range(3)
    ]
    price = await shop.price()
    for twice in (False, True):
        refused = await shop.add(buyer.headers, [{"price_id": price}], allow_duplicate=twice)
        told = problem(refused, 429, "too_many_in_flight")
        assert set(told["subscription_ids"]) == {sub["id"] for sub in made}
        assert "cancel" in told["detail"] and int(refused.headers["retry-after"]) > 0
    assert len(await shop.all_of(buyer)) == 3
    # The same price again takes the place of the unpaid one.
    again = made[0]["items"][0]["price"]["id"]
    assert (await shop.add(buyer.headers, [{"price_id": again}])).status_code == 202
    ended = await shop.service.send(
        "POST", f"/v1/subscriptions/{made[1]['id']}/cancel", buyer.headers, {"when": "now"}
    )
    assert ended.status_code == 200, ended.text
    assert (await shop.add(buyer.headers, [{"price_id": price}])).status_code == 202


async def test_unpaid_purchases_are_bounded_when_they_race(shop: Shop) -> None:
    """M21: as many at once as there may be."""
    buyer, _ = await shop.buyer(card=None)
    prices = [await shop.price() for _ in range(6)]
    answers = await asyncio.gather(*(shop.add(buyer.headers, [{"price_id": price}]) for price in prices))
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 3
    assert len(await shop.all_of(buyer)) == 3
