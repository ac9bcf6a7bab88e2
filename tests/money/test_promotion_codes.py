"""Promotion codes: whose they are, one at a time on a subscription, and what every read shows of a discount."""

import asyncio
from typing import Any

import pytest

from testkit.company import Person
from testkit.problems import pointers, problem
from testkit.service import as_service
from tests.money.shop import DECLINED, Shop

ADMIN = as_service("admin")
HOUR = 3600
FOREVER: dict[str, Any] = {"percent_off": 30, "duration": "forever"}


async def code(shop: Shop, text: str, *, coupon: dict[str, Any] | None = None, **fields: Any) -> str:
    """The id of a new promotion code, with a coupon of its own."""
    made = await shop.stripe.post("/v1/coupons", **(coupon or FOREVER))
    promotion = {"type": "coupon", "coupon": made["id"]}
    found = await shop.stripe.post("/v1/promotion_codes", promotion=promotion, code=text, **fields)
    return str(found["id"])


async def subscriber(shop: Shop, **more: Any) -> tuple[Person, str]:
    buyer, card = await shop.buyer()
    made = await shop.bought(
        buyer.headers, [{"price_id": await shop.price()}], payment_method_id=card, **more
    )
    return buyer, str(made["id"])


def texts(subscription: dict[str, Any]) -> list[str | None]:
    return [discount["promotion_code"] for discount in subscription["discounts"]]


async def test_code_is_refused_when_another_one_applies(shop: Shop) -> None:
    """M13: three codes by three PATCHes took 70 % off; one code at a time, and the same again changes nothing."""
    for text in ("FIRST30", "SECOND30", "THIRD30"):
        await code(shop, text)
    buyer, mine = await subscriber(shop)
    assert (await shop.change(buyer.headers, mine, promotion_code="FIRST30")).status_code == 200
    writes = await shop.asked("POST", f"/v1/subscriptions/{mine}")
    for text in ("SECOND30", "THIRD30", "NOSUCH"):
        answer = await shop.change(buyer.headers, mine, promotion_code=text)
        problem(answer, 409, "promotion_code_in_use")
        preview = await shop.service.send(
            "POST", f"/v1/subscriptions/{mine}/preview", buyer.headers, {"promotion_code": text}
        )
        problem(preview, 409, "promotion_code_in_use")
    same = await shop.change(buyer.headers, mine, promotion_code="first30")
    assert (same.status_code, texts(same.json()["subscription"])) == (200, ["FIRST30"])
    assert await shop.asked("POST", f"/v1/subscriptions/{mine}") == writes
    assert len((await shop.true(mine))["discounts"]) == 1
    assert (await shop.upcoming(buyer.headers, mine))["total"] == 700
    # With something else to change, the same code does not stand in the way of it.
    [item] = (await shop.subscription(buyer.headers, mine))["items"]
    more = [{"id": item["id"], "quantity": 2}]
    both = await shop.change(buyer.headers, mine, items=more, promotion_code="FIRST30")
    assert (both.status_code, both.json()["subscription"]["items"][0]["quantity"]) == (200, 2)
    assert len((await shop.true(mine))["discounts"]) == 1


async def test_code_is_taken_when_it_was_removed_or_has_ended(shop: Shop) -> None:
    """M13: counted are the codes that still apply at Stripe, whatever the cache says."""
    await code(shop, "GONE")
    await code(shop, "NEXT")
    buyer, mine = await subscriber(shop, promotion_code="GONE")
    # Removed in the Dashboard, and no event of it has come yet.
    await shop.stripe.post(f"/v1/subscriptions/{mine}", discounts="")
    answer = await shop.change(buyer.headers, mine, promotion_code="NEXT")
    assert (answer.status_code, texts(answer.json()["subscription"])) == (200, ["NEXT"])
    once = {"percent_off": 10, "duration": "once"}
    await code(shop, "ONCE", coupon=once)
    other, used = await subscriber(shop, promotion_code="ONCE")
    answer = await shop.change(other.headers, used, promotion_code="NEXT")
    assert (answer.status_code, texts(answer.json()["subscription"])) == (200, ["NEXT"])


async def test_code_counts_when_only_a_waiting_update_would_use_it_up(still: Shop) -> None:
    """M13: the invoice of an update that waits uses no code up before it is paid, and leaves it if it becomes void."""
    await code(still, "ONCE", coupon={"percent_off": 10, "duration": "once"})
    await code(still, "NEXT")
    buyer, mine = await subscriber(still)
    assert (await still.change(buyer.headers, mine, promotion_code="ONCE")).status_code == 200
    await still.stripe.advance(HOUR)
    await still.stripe.post(
        f"/v1/subscriptions/{mine}", default_payment_method=await still.card(buyer, DECLINED)
    )
    await still.listen()
    [item] = (await still.subscription(buyer.headers, mine))["items"]
    raised = await still.change(buyer.headers, mine, items=[{"id": item["id"], "quantity": 2}])
    assert raised.json()["payment"]["status"] == "requires_payment_method"
    assert (await still.true(mine))["pending_update"] is not None
    same = await still.change(buyer.headers, mine, promotion_code="ONCE")
    assert (same.status_code, texts(same.json()["subscription"])) == (200, ["ONCE"])
    problem(await still.change(buyer.headers, mine, promotion_code="NEXT"), 409, "promotion_code_in_use")
    assert len((await still.true(mine))["discounts"]) == 1


async def test_operators_coupon_stays_when_a_code_is_added(shop: Shop) -> None:
    """M13: an operator's coupon is no promotion code; an admin's key may add a second code."""
    await code(shop, "BESIDE")
    await code(shop, "ADMINS")
    buyer, mine = await subscriber(shop)
    coupon = await shop.stripe.post("/v1/coupons", percent_off=10, duration="forever", name="Loyal")
    await shop.stripe.post(f"/v1/subscriptions/{mine}", discounts=[{"coupon": coupon["id"]}])
    answer = await shop.change(buyer.headers, mine, promotion_code="BESIDE")
    assert (answer.status_code, texts(answer.json()["subscription"])) == (200, [None, "BESIDE"])
    problem(await shop.change(buyer.headers, mine, promotion_code="ADMINS"), 409, "promotion_code_in_use")
    second = await shop.change(ADMIN, mine, promotion_code="ADMINS")
    assert texts(second.json()["subscription"]) == [None, "BESIDE", "ADMINS"]


@pytest.mark.parametrize("applies", [False, True], ids=["new", "applies already"])
async def test_code_stays_beside_discounts_when_an_admin_names_both(shop: Shop, applies: bool) -> None:
    """One of the two was lost: the code replaced the discounts, or they replaced the code that applied."""
    text = f"BESIDE{applies}"
    await code(shop, text)
    buyer, mine = await subscriber(shop, **({"promotion_code": text} if applies else {}))
    held = (await shop.true(mine))["discounts"]
    coupon = await shop.stripe.post("/v1/coupons", percent_off=10, duration="forever")
    both: dict[str, Any] = {"discounts": [{"coupon": coupon["id"]}], "promotion_code": text}
    preview = await shop.service.send("POST", f"/v1/subscriptions/{mine}/preview", ADMIN, both)
    assert (preview.status_code, preview.json()["next_total"]) == (200, 630)
    answer = await shop.change(ADMIN, mine, **both, quote_id=preview.json()["quote_id"])
    assert (answer.status_code, texts(answer.json()["subscription"])) == (200, [None, text])
    assert (await shop.upcoming(buyer.headers, mine))["total"] == 630
    assert set(held) <= set((await shop.true(mine))["discounts"])
    only = await shop.change(ADMIN, mine, discounts=both["discounts"])
    assert texts(only.json()["subscription"]) == [None]


async def test_one_code_of_two_is_taken_when_both_are_sent_at_once(shop: Shop) -> None:
    """M13: two changes that race leave one code."""
    await code(shop, "RACEA")
    await code(shop, "RACEB")
    buyer, mine = await subscriber(shop)
    answers = await asyncio.gather(
        *(shop.change(buyer.headers, mine, promotion_code=text) for text in ("RACEA", "RACEB"))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert len((await shop.true(mine))["discounts"]) == 1


async def test_discounts_are_shown_when_they_apply(shop: Shop) -> None:
    """M25: every read of a subscription shows what is taken off, and until when."""
    coupon = {"percent_off": 12.5, "duration": "repeating", "duration_in_months": 3, "name": "Spring"}
    await code(shop, "SPRING", coupon=coupon)
    buyer, mine = await subscriber(shop, promotion_code="SPRING")
    fixed = await shop.stripe.post(
        "/v1/coupons",
        amount_off=200,
        currency="eur",
        duration="forever",
        currency_options={"usd": {"amount_off": 250}},
    )
    kept = [{"discount": (await shop.true(mine))["discounts"][0]}, {"coupon": fixed["id"]}]
    await shop.stripe.post(f"/v1/subscriptions/{mine}", discounts=kept)
    await shop.listen()
    end = (await shop.stripe.get(f"/v1/subscriptions/{mine}", expand=["discounts"]))["discounts"][0]["end"]
    shown = (await shop.subscription(buyer.headers, mine))["discounts"]
    assert [discount.pop("ends_at") is None for discount in shown] == [False, True]
    assert shown == [
        {
            "promotion_code": "SPRING",
            "name": "Spring",
            "percent_off": 12.5,
            "amount_off": None,
            "currency": None,
        },
        {"promotion_code": None, "name": None, "percent_off": None, "amount_off": 250, "currency": "usd"},
    ]
    listed = (await shop.service.get("/v1/customers/me/subscriptions", buyer.headers)).json()["data"]
    assert [len(entry["discounts"]) for entry in listed] == [2]
    await shop.cache_is_true()
    await shop.stripe.post(f"/v1/subscriptions/{mine}", discounts="")
    await shop.cache_is_true()
    assert (await shop.subscription(buyer.headers, mine))["discounts"] == []
    assert end is not None


async def test_discount_is_shown_when_its_coupon_was_deleted(shop: Shop) -> None:
    """M25: the discount goes on, and so do reads, refreshes and further changes."""
    made = await shop.stripe.post("/v1/coupons", percent_off=10, duration="forever")
    promotion = {"type": "coupon", "coupon": made["id"]}
    await shop.stripe.post("/v1/promotion_codes", promotion=promotion, code="VANISHES")
    buyer, mine = await subscriber(shop, promotion_code="VANISHES")
    await shop.stripe.delete(f"/v1/coupons/{made['id']}")
    await shop.service.refresh("subscription", mine)
    assert texts(await shop.subscription(buyer.headers, mine)) == ["VANISHES"]
    [item] = (await shop.subscription(buyer.headers, mine))["items"]
    more = await shop.change(buyer.headers, mine, items=[{"id": item["id"], "quantity": 2}])
    assert more.status_code == 200, more.text
    await shop.cache_is_true()
    problem(await shop.service.get("/v1/promotion-codes/VANISHES", buyer.headers), 404, "not_found")


async def test_discounts_are_hidden_when_the_reader_sees_no_amounts(shop: Shop) -> None:
    """M25: a member sees the subscription, and nothing of what it costs."""
    company = await shop.service.company()
    coupon = await shop.stripe.post("/v1/coupons", percent_off=10, duration="forever")
    await shop.stripe.post(
        f"/v1/subscriptions/{company.subscription_id}", discounts=[{"coupon": coupon["id"]}]
    )
    await shop.service.refresh("subscription", company.subscription_id)
    seen = [
        (await shop.subscription(person.headers, company.subscription_id))["discounts"]
        for person in (company.owner, company.user)
    ]
    assert [None if found is None else [one["percent_off"] for one in found] for found in seen] == [
        [10],
        None,
    ]


async def test_code_of_another_customer_is_unknown_when_it_is_asked_for(shop: Shop) -> None:
    """M12: one text, a code for each of two customers and one for nobody else's; each finds its own."""
    (anna, card), (bert, _), (cleo, other) = [await shop.buyer() for _ in range(3)]
    await code(shop, "MINE", coupon={"percent_off": 10, "duration": "forever"}, customer=anna.customer_id)
    await code(shop, "MINE", coupon={"percent_off": 20, "duration": "forever"}, customer=bert.customer_id)
    path = "/v1/promotion-codes/mine"
    shown = [(await shop.service.get(path, who.headers)) for who in (anna, bert)]
    assert [answer.json()["promotion_code"]["percent_off"] for answer in shown] == [10, 20]
    problem(await shop.service.get(path, cleo.headers), 404, "not_found")
    problem(await shop.service.get(path, ADMIN), 404, "not_found")
    items = [{"price_id": await shop.price()}]
    refused = await shop.add(cleo.headers, items, payment_method_id=other, promotion_code="MINE")
    assert pointers(problem(refused, 422, "invalid_request")) == ["/promotion_code"]
    made = await shop.bought(anna.headers, items, payment_method_id=card, promotion_code="MINE")
    assert [discount["percent_off"] for discount in made["discounts"]] == [10]
    # A code that is restricted to nobody is found by whoever has no code of that text.
    await code(shop, "MINE", coupon={"percent_off": 5, "duration": "forever"})
    shown = [await shop.service.get(path, who) for who in (anna.headers, cleo.headers, ADMIN)]
    assert [answer.json()["promotion_code"]["percent_off"] for answer in shown] == [10, 5, 5]


async def test_code_is_refused_by_name_when_stripe_refuses_it(shop: Shop) -> None:
    """T8: what only Stripe judges, here a minimum amount, is 422 naming the code at purchase, change and preview."""
    big = {"restrictions": {"minimum_amount": 50_000, "minimum_amount_currency": "usd"}}
    await code(shop, "BIGONLY", **big)
    buyer, mine = await subscriber(shop)
    shown = await shop.service.get("/v1/promotion-codes/BIGONLY", buyer.headers)
    told = shown.json()["promotion_code"]
    assert (told["minimum_amount"], told["minimum_amount_currency"]) == (50_000, "usd")
    newcomer, card = await shop.buyer()
    answers = [
        await shop.add(
            newcomer.headers,
            [{"price_id": await shop.price()}],
            payment_method_id=card,
            promotion_code="BIGONLY",
        ),
        await shop.change(buyer.headers, mine, promotion_code="BIGONLY"),
        await shop.service.send(
            "POST", f"/v1/subscriptions/{mine}/preview", buyer.headers, {"promotion_code": "BIGONLY"}
        ),
    ]
    for answer in answers:
        refused = problem(answer, 422, "invalid_request")
        assert pointers(refused) == ["/promotion_code"], refused
    assert await shop.all_of(newcomer) == []
    assert (await shop.true(mine))["discounts"] == []
    dear = await shop.price(unit_amount=60_000)
    made = await shop.bought(
        newcomer.headers, [{"price_id": dear}], payment_method_id=card, promotion_code="BIGONLY"
    )
    assert texts(made) == ["BIGONLY"]


@pytest.mark.parametrize(
    ("text", "terms", "coupon"),
    [
        ("OVER", {"expires_at": 1}, None),
        ("SPENT", {"max_redemptions": 1}, None),
        ("FULL", {}, {**FOREVER, "max_redemptions": 1}),
        ("NEWCOMERS", {"restrictions": {"first_time_transaction": True}}, None),
    ],
)
async def test_code_is_unknown_when_it_cannot_be_redeemed(
    shop: Shop, text: str, terms: dict[str, Any], coupon: dict[str, Any] | None
) -> None:
    """M12: over, used up, or for first purchases only: not shown as good and then refused."""
    buyer, mine = await subscriber(shop)
    await shop.listen()
    late = terms.pop("expires_at", None)
    now = int((await shop.stripe.control("GET", "clock"))["now"])
    fields = {**terms, **({} if late is None else {"expires_at": now + 1})}
    made = await code(shop, text, coupon=coupon, **fields)
    if late is not None:
        await asyncio.sleep(2)
    if "restrictions" not in terms and late is None:
        other, _ = await subscriber(shop)
        await shop.stripe.post(
            f"/v1/subscriptions/{(await shop.all_of(other))[0]['id']}", discounts=[{"promotion_code": made}]
        )
    problem(await shop.service.get(f"/v1/promotion-codes/{text}", buyer.headers), 404, "not_found")
    answer = await shop.change(buyer.headers, mine, promotion_code=text)
    assert pointers(problem(answer, 422, "invalid_request")) == ["/promotion_code"]


async def test_code_is_refused_when_its_amount_is_in_another_currency(shop: Shop) -> None:
    """T6: an amount in euros takes nothing off a bill in dollars."""
    euros = {"amount_off": 500, "currency": "eur", "duration": "forever"}
    await code(shop, "EUROS", coupon=euros)
    buyer, mine = await subscriber(shop)
    answers = [
        await shop.change(buyer.headers, mine, promotion_code="EUROS"),
        await shop.service.send(
            "POST", f"/v1/subscriptions/{mine}/preview", buyer.headers, {"promotion_code": "EUROS"}
        ),
        await shop.add(buyer.headers, [{"price_id": await shop.price()}], promotion_code="EUROS"),
    ]
    for answer in answers:
        assert pointers(problem(answer, 422, "currency_mismatch")) == ["/promotion_code"]
    both = {**euros, "currency_options": {"usd": {"amount_off": 400}}}
    await code(shop, "BOTH", coupon=both)
    answer = await shop.change(buyer.headers, mine, promotion_code="BOTH")
    [discount] = answer.json()["subscription"]["discounts"]
    assert (discount["amount_off"], discount["currency"]) == (400, "usd")
