"""Declined cards and unknown codes: a few are forgiven, more are answered alike until time has passed."""

import asyncio
import secrets
from typing import Any

import httpx

from testkit.company import Person, Who
from testkit.problems import problem
from testkit.service import as_service, as_user
from tests.money.shop import DECLINED, Shop

ADMIN = as_service("admin")
REFUSED_AT_ONCE = "pm_card_chargeDeclined"


async def attach(shop: Shop, who: Who, card: str) -> httpx.Response:
    body = {"payment_method_id": card}
    return await shop.service.send("POST", "/v1/customers/me/payment-methods", who, body)


async def look_up(shop: Shop, who: Who, text: str) -> httpx.Response:
    return await shop.service.get(f"/v1/promotion-codes/{text}", who)


def refused(answer: httpx.Response) -> dict[str, Any]:
    told = problem(answer, 429, "too_many_declines")
    assert 0 < int(answer.headers["retry-after"]) <= 600
    return told


async def ten_minutes_later(shop: Shop, person: Person) -> None:
    await shop.service.fetch(
        "update request_rates set full_at = clock_timestamp() where name like $1",
        f"failure:customer:{person.customer_id}:%",
    )


async def good_code(shop: Shop) -> str:
    text = f"GOOD{secrets.token_hex(4)}".upper()
    coupon = await shop.stripe.post("/v1/coupons", percent_off=10, duration="forever")
    promotion = {"type": "coupon", "coupon": coupon["id"]}
    await shop.stripe.post("/v1/promotion_codes", promotion=promotion, code=text)
    return text


async def test_attempts_are_answered_alike_when_five_cards_were_declined(shop: Shop) -> None:
    """M20: 150 declining cards in 26 s were each answered with a decline code."""
    buyer, card = await shop.buyer()
    price, text = await shop.price(), await good_code(shop)
    made = await shop.bought(buyer.headers, [{"price_id": price, "quantity": 3}], payment_method_id=card)
    [item] = made["items"]
    for _ in range(5):
        problem(await attach(shop, buyer.headers, REFUSED_AT_ONCE), 402, "card_declined")
    acting = {**as_service("write"), "X-Acting-Customer": buyer.customer_id}
    raised = [{"id": item["id"], "quantity": 4}]
    told = [
        refused(answer)["detail"]
        for answer in (
            await attach(shop, buyer.headers, REFUSED_AT_ONCE),
            await attach(shop, buyer.headers, "pm_card_visa"),
            await attach(shop, acting, "pm_card_visa"),
            await look_up(shop, buyer.headers, text),
            await look_up(shop, buyer.headers, "NOSUCHCODE"),
            await shop.add(buyer.headers, [{"price_id": await shop.price()}], payment_method_id=card),
            await shop.change(buyer.headers, made["id"], promotion_code=text),
            await shop.change(buyer.headers, made["id"], items=raised),
        )
    ]
    assert len(set(told)) == 1
    # What costs nothing goes on, and so does everybody else.
    lower = await shop.change(buyer.headers, made["id"], items=[{"id": item["id"], "quantity": 1}])
    assert lower.status_code == 200, lower.text
    ended = await shop.service.send(
        "POST", f"/v1/subscriptions/{made['id']}/cancel", buyer.headers, {"when": "now"}
    )
    assert ended.status_code == 200, ended.text
    other, _ = await shop.buyer(card=None)
    assert (await attach(shop, other.headers, "pm_card_visa")).status_code == 201
    assert (await look_up(shop, ADMIN, text)).status_code == 200
    await ten_minutes_later(shop, buyer)
    assert (await attach(shop, buyer.headers, "pm_card_visa")).status_code == 201


async def test_attempts_are_refused_when_purchases_and_changes_were_declined(shop: Shop) -> None:
    """M20: a card that is attached and declines when it is charged counts wherever it is charged."""
    buyer, good = await shop.buyer()
    bad = await shop.card(buyer, DECLINED)
    made = await shop.bought(buyer.headers, [{"price_id": await shop.price()}], payment_method_id=good)
    [item] = made["items"]
    for _ in range(3):
        answer = await shop.add(buyer.headers, [{"price_id": await shop.price()}], payment_method_id=bad)
        problem(answer, 402, "card_declined")
    await shop.stripe.post(f"/v1/subscriptions/{made['id']}", default_payment_method=bad)
    await shop.service.refresh("subscription", made["id"])
    for quantity in (2, 3):
        answer = await shop.change(
            buyer.headers, made["id"], items=[{"id": item["id"], "quantity": quantity}]
        )
        assert answer.status_code == 202, answer.text
        assert answer.json()["payment"]["decline_code"] is not None
    refused(await shop.change(buyer.headers, made["id"], items=[{"id": item["id"], "quantity": 4}]))
    refused(await shop.add(buyer.headers, [{"price_id": await shop.price()}], payment_method_id=good))


async def test_resuming_is_refused_when_it_was_declined_five_times(shop: Shop) -> None:
    """M20: waking a paused subscription charges the card too, so it is no way to try cards."""
    buyer, good = await shop.buyer()
    made = await shop.bought(
        ADMIN,
        [{"price_id": await shop.price()}],
        to=buyer.customer_id,
        payment_method_id=good,
        trial_period_days=3,
    )
    await shop.stripe.post(f"/v1/subscriptions/{made['id']}/pause", type="subscription")
    bad = await shop.card(buyer, DECLINED)
    await shop.stripe.post(f"/v1/subscriptions/{made['id']}", default_payment_method=bad)
    await shop.stripe.advance(5 * 86_400)
    await shop.service.refresh("subscription", made["id"])
    path = f"/v1/subscriptions/{made['id']}/resume"
    for _ in range(5):
        answer = await shop.service.send("POST", path, buyer.headers)
        assert answer.status_code in (200, 402), answer.text
        assert (await shop.true(made["id"]))["status"] == "paused"
    refused(await shop.service.send("POST", path, buyer.headers))


async def test_codes_are_refused_when_five_were_unknown(shop: Shop) -> None:
    """M20: 81 guesses in 10 s; a miss counts by whichever route, and a good code looks like a bad one then."""
    buyer, card = await shop.buyer()
    text = await good_code(shop)
    made = await shop.bought(buyer.headers, [{"price_id": await shop.price()}], payment_method_id=card)
    for _ in range(8):
        assert (await look_up(shop, buyer.headers, text)).status_code == 200
    items = [{"price_id": await shop.price()}]
    guesses = [
        await look_up(shop, buyer.headers, "GUESS1"),
        await shop.change(buyer.headers, made["id"], promotion_code="GUESS2"),
        await shop.service.send(
            "POST", f"/v1/subscriptions/{made['id']}/preview", buyer.headers, {"promotion_code": "GUESS3"}
        ),
        await shop.add(buyer.headers, items, payment_method_id=card, promotion_code="GUESS4"),
        await look_up(shop, buyer.headers, "GUESS5"),
    ]
    assert [answer.status_code for answer in guesses] == [404, 422, 422, 422, 404]
    for again in (text, "GUESS6"):
        refused(await look_up(shop, buyer.headers, again))
        refused(await shop.change(buyer.headers, made["id"], promotion_code=again))


async def test_five_guesses_of_many_are_answered_when_they_race(shop: Shop) -> None:
    """M20: as many at once as there may be, also of a login that has no customer yet."""
    buyer, _ = await shop.buyer(card=None)
    for who in (buyer.headers, as_user(f"nobody-{secrets.token_hex(6)}")):
        answers = await asyncio.gather(*(look_up(shop, who, f"RACE{n}") for n in range(9)))
        assert sorted(answer.status_code for answer in answers) == [404] * 5 + [429] * 4
        refused(await look_up(shop, who, "RACE9"))
