"""Buying: each refusal has its code and leaves nothing half done; what is made carries what Stripe should know."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from testkit.company import Person
from testkit.problems import pointers, problem
from testkit.service import as_service
from testkit.simulator import SimulatorError
from tests.money.shop import CHALLENGED, DECLINED, UNSETTLED, Shop, at

ADMIN = as_service("admin")
DAY = 86_400
CREATE = {"method": "POST", "path": "/v1/subscriptions"}


@pytest.fixture(autouse=True)
async def _no_faults_left(shop: Shop) -> AsyncIterator[None]:
    yield
    await shop.stripe.clear_faults()


async def nothing_of(shop: Shop, person: Person) -> None:
    """No subscription and no invoice in the stand-in, nothing in the cache, no operation left open."""
    assert await shop.all_of(person) == []
    assert (await shop.stripe.get("/v1/invoices", customer=person.customer_id))["data"] == []
    answer = await shop.service.get("/v1/customers/me/subscriptions", person.headers)
    assert answer.json()["data"] == []
    assert await shop.service.fetch(UNSETTLED) == []


async def test_a_declined_card_leaves_nothing_behind(shop: Shop) -> None:
    buyer, card = await shop.buyer(card=DECLINED)
    answer = await shop.add(buyer.headers, [{"price_id": await shop.price()}], payment_method_id=card)
    refused = problem(answer, 402, "card_declined")
    assert refused["decline_code"] == "generic_decline"
    await shop.listen()
    await nothing_of(shop, buyer)
    # Another card, another try.
    good = await shop.card(buyer)
    made = await shop.bought(buyer.headers, [{"price_id": await shop.price()}], payment_method_id=good)
    assert (made["status"], made["default_payment_method_id"]) == ("active", good)


async def test_a_card_whose_bank_asks_its_holder(shop: Shop) -> None:
    buyer, card = await shop.buyer(card=CHALLENGED)
    _, payment, made = await shop.unpaid(
        buyer.headers, [{"price_id": await shop.price()}], payment_method_id=card
    )
    assert made["status"] == "incomplete"
    assert (payment["kind"], payment["status"]) == ("payment", "requires_action")
    assert [sub["id"] for sub in await shop.all_of(buyer)] == [made["id"]]
    await shop.stripe.control("POST", "confirm", client_secret=payment["client_secret"], payment_method=card)
    await shop.listen()
    assert (await shop.subscription(buyer.headers, made["id"]))["status"] == "active"
    [invoice] = await shop.invoices(buyer.headers, made["id"])
    assert (invoice["status"], invoice["amount_paid"]) == ("paid", 1000)


async def test_without_a_card_the_page_completes_the_payment(shop: Shop) -> None:
    buyer, _ = await shop.buyer(card=None)
    _, payment, made = await shop.unpaid(buyer.headers, [{"price_id": await shop.price()}])
    assert made["status"] == "incomplete"
    assert (payment["kind"], payment["status"]) == ("payment", "requires_payment_method")
    secret = payment["client_secret"]
    with pytest.raises(SimulatorError):
        await shop.stripe.control("POST", "confirm", client_secret=secret, payment_method=DECLINED)
    await shop.listen()
    assert (await shop.subscription(buyer.headers, made["id"]))["status"] == "incomplete"
    await shop.stripe.control("POST", "confirm", client_secret=secret, payment_method="pm_card_visa")
    await shop.listen()
    active = await shop.subscription(buyer.headers, made["id"])
    assert active["status"] == "active"
    # The card that paid is kept for the renewals.
    methods = (await shop.service.get("/v1/customers/me/payment-methods", buyer.headers)).json()["data"]
    assert active["default_payment_method_id"] in [method["id"] for method in methods]


async def test_a_trial_without_a_card_asks_for_its_set_up(shop: Shop) -> None:
    buyer, _ = await shop.buyer(card=None)
    items = [{"price_id": await shop.price(), "quantity": 2}]
    answer = await shop.add(ADMIN, items, to=buyer.customer_id, trial_period_days=14)
    assert answer.status_code == 201, answer.text
    made, payment = answer.json()["subscription"], answer.json()["payment"]
    assert (made["status"], payment["kind"]) == ("trialing", "setup")
    assert at(made["trial_end"]) - at(made["trial_start"]) == 14 * DAY
    await shop.stripe.control("POST", "confirm", client_secret=payment["client_secret"])
    await shop.listen()
    shown = await shop.subscription(buyer.headers, made["id"])
    assert (shown["status"], shown["default_payment_method_id"] is not None) == ("trialing", True)


async def test_a_trial_with_a_card_asks_for_nothing(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    clock = await shop.stripe.control("GET", "clock")
    end = int(clock["now"]) + 10 * DAY
    answer = await shop.add(
        ADMIN,
        [{"price_id": await shop.price()}],
        to=buyer.customer_id,
        payment_method_id=card,
        trial_end=f"{_instant(end)}",
    )
    assert answer.status_code == 201, answer.text
    made = answer.json()["subscription"]
    assert (made["status"], answer.json()["payment"], at(made["trial_end"])) == ("trialing", None, end)
    assert [i["total"] for i in await shop.invoices(buyer.headers, made["id"])] == [0]


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def test_prices_that_are_not_on_offer(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    good = await shop.price()
    inactive = await shop.price()
    await shop.stripe.post(f"/v1/prices/{inactive}", active=False)
    await shop.service.refresh("price", inactive)
    withdrawn = await shop.product()
    of_withdrawn = await shop.price(withdrawn)
    await shop.stripe.post(f"/v1/products/{withdrawn}", active=False)
    await shop.service.refresh("product", withdrawn)
    unlisted = await shop.price(await shop.product(listed=False))
    once = await shop.stripe.post(
        "/v1/prices", product=await shop.product(), currency="usd", unit_amount=1000
    )
    await shop.service.refresh("price", once["id"])
    before = await shop.service.row_counts()
    for bad in ("price_1unknown", inactive, of_withdrawn, unlisted, once["id"]):
        answer = await shop.add(
            buyer.headers, [{"price_id": good}, {"price_id": bad}], payment_method_id=card
        )
        refused = problem(answer, 422, "price_not_available")
        assert pointers(refused) == ["/items/1/price_id"]
        assert "/items/1" in refused["detail"]
    assert await shop.service.row_counts() == before
    await nothing_of(shop, buyer)
    # An operator sells what is not listed, but not what is withdrawn.
    answer = await shop.add(ADMIN, [{"price_id": unlisted}], to=buyer.customer_id, payment_method_id=card)
    assert answer.status_code == 201, answer.text
    for bad in (inactive, of_withdrawn, once["id"]):
        answer = await shop.add(ADMIN, [{"price_id": bad}], to=buyer.customer_id, payment_method_id=card)
        problem(answer, 422, "price_not_available")


async def test_a_key_without_admin_buys_what_is_listed_only(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    unlisted = await shop.price(await shop.product(listed=False))
    for who, to in (
        (as_service("write"), buyer.customer_id),
        (as_service("admin", acting_for=buyer.customer_id), "me"),
    ):
        answer = await shop.add(who, [{"price_id": unlisted}], to=to, payment_method_id=card)
        problem(answer, 422, "price_not_available")
    await nothing_of(shop, buyer)


async def test_another_customers_payment_method(shop: Shop) -> None:
    buyer, _ = await shop.buyer()
    _, foreign = await shop.buyer()
    price = await shop.price()
    for card in (foreign, "pm_1unknown"):
        answer = await shop.add(buyer.headers, [{"price_id": price}], payment_method_id=card)
        problem(answer, 404, "not_found")
    await nothing_of(shop, buyer)


async def test_another_customers_account(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    other, _ = await shop.buyer()
    answer = await shop.add(
        other.headers, [{"price_id": await shop.price()}], to=buyer.customer_id, payment_method_id=card
    )
    problem(answer, 404, "not_found")
    await nothing_of(shop, buyer)


async def test_mixed_currencies(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    dollars, euros = await shop.price(), await shop.price(currency="eur")
    both = await shop.price(currency_options={"eur": {"unit_amount": 900}})
    for items, more in (
        ([dollars, euros], {}),
        ([dollars], {"currency": "eur"}),
        ([both, dollars], {"currency": "eur"}),
    ):
        answer = await shop.add(
            buyer.headers, [{"price_id": price} for price in items], payment_method_id=card, **more
        )
        problem(answer, 422, "currency_mismatch")
    await nothing_of(shop, buyer)
    # Together they are bought in what they share; the first price's own currency is no option here.
    made = await shop.bought(buyer.headers, [{"price_id": both}, {"price_id": euros}], payment_method_id=card)
    assert made["currency"] == "eur"
    await shop.listen()
    for more in ({}, {"currency": "usd"}):
        answer = await shop.add(buyer.headers, [{"price_id": dollars}], payment_method_id=card, **more)
        problem(answer, 422, "currency_mismatch")
    answer = await shop.change(buyer.headers, made["id"], items=[{"price_id": dollars}])
    assert pointers(problem(answer, 422, "currency_mismatch")) == ["/items/0/price_id"]
    assert len(await shop.all_of(buyer)) == 1


async def test_a_currency_that_stripe_finds_fixed_is_reported_as_mismatch(shop: Shop) -> None:
    """M10: what else fixes a currency (an invoice item, a quote) is known to Stripe alone."""
    buyer, card = await shop.buyer()
    await shop.stripe.post(
        "/v1/subscriptions", customer=buyer.customer_id, items=[{"price": await shop.price()}]
    )
    euros = await shop.price(currency="eur")
    answer = await shop.add(buyer.headers, [{"price_id": euros}], payment_method_id=card)
    refused = problem(answer, 422, "currency_mismatch")
    assert refused["errors"][0]["pointer"] == "/currency"
    assert "usd" in refused["detail"]


async def test_quantities_that_cannot_be(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    meter = await shop.stripe.post(
        "/v1/billing/meters",
        display_name="Runs",
        event_name="runs",
        default_aggregation={"formula": "count"},
    )
    metered = await shop.price(
        recurring={"interval": "month", "usage_type": "metered", "meter": meter["id"]}, unit_amount=5
    )
    licensed = await shop.price()
    before = await shop.service.row_counts()
    impossible: list[list[dict[str, Any]]] = [
        [{"price_id": licensed}, {"price_id": metered, "quantity": 1}],
        [{"price_id": licensed}, {"price_id": metered, "quantity": 0}],
        [{"price_id": metered}, {"price_id": licensed, "quantity": 0}],
        [{"price_id": metered}, {"price_id": licensed, "quantity": -1}],
        [{"price_id": metered}, {"price_id": licensed, "quantity": 1.5}],
        [{"price_id": metered}, {"price_id": licensed, "quantity": "2"}],
        [{"price_id": metered}, {"price_id": licensed, "quantity": True}],
        [{"price_id": metered}, {"price_id": licensed, "quantity": 1_000_001}],
    ]
    for items in impossible:
        answer = await shop.add(buyer.headers, items, payment_method_id=card)
        assert pointers(problem(answer, 422, "invalid_request")) == ["/items/1/quantity"], items
    answer = await shop.add(buyer.headers, [], payment_method_id=card)
    assert pointers(problem(answer, 422, "invalid_request")) == ["/items"]
    twice: list[dict[str, Any]] = [{"price_id": licensed}, {"price_id": licensed, "quantity": 2}]
    answer = await shop.add(buyer.headers, twice, payment_method_id=card)
    assert pointers(problem(answer, 422, "invalid_request"))[-1] == "/items/1/price_id"
    assert await shop.service.row_counts() == before
    await nothing_of(shop, buyer)


async def test_the_largest_quantity_is_what_stripe_takes(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    price = await shop.price(unit_amount=1)
    for quantity, status in ((1_000_000, 422), (999_999, 201)):
        answer = await shop.add(
            buyer.headers, [{"price_id": price, "quantity": quantity}], payment_method_id=card
        )
        assert answer.status_code == status, answer.text


async def test_mixed_intervals_need_flexible_billing(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    items = [
        {"price_id": await shop.price()},
        {"price_id": await shop.price(recurring={"interval": "year"})},
    ]
    to: dict[str, Any] = {"to": buyer.customer_id, "payment_method_id": card}
    answer = await shop.add(ADMIN, items, billing_mode="classic", **to)
    refused = problem(answer, 422, "mixed_intervals")
    assert [error["code"] for error in refused["errors"]] == ["mixed_intervals"]
    await nothing_of(shop, buyer)
    classic = await shop.bought(ADMIN, items[:1], billing_mode="classic", **to)
    assert classic["billing_mode"] == "classic"
    answer = await shop.change(buyer.headers, classic["id"], items=items[1:])
    problem(answer, 422, "mixed_intervals")
    mixed = await shop.bought(buyer.headers, items, payment_method_id=card)
    assert mixed["billing_mode"] == "flexible"


async def test_intervals_that_stripe_cannot_mix_are_refused_before_it_is_asked(shop: Shop) -> None:
    """T1: a weekly price beside a monthly one went to Stripe and came back as 502."""
    buyer, card = await shop.buyer()
    monthly, weekly, yearly = [
        await shop.price(recurring={"interval": interval}) for interval in ("month", "week", "year")
    ]
    two, three = [
        await shop.price(recurring={"interval": "month", "interval_count": count}) for count in (2, 3)
    ]
    for first, second in ((monthly, weekly), (weekly, yearly), (two, three)):
        items = [{"price_id": first}, {"price_id": second}]
        problem(await shop.add(buyer.headers, items, payment_method_id=card), 422, "mixed_intervals")
    await nothing_of(shop, buyer)
    made = await shop.bought(
        buyer.headers, [{"price_id": monthly}, {"price_id": yearly}], payment_method_id=card
    )
    path = f"/v1/subscriptions/{made['id']}"
    before = await shop.true(made["id"])
    asked = await shop.asked("POST", path)
    for items in (
        [{"price_id": weekly}],
        [{"id": made["items"][0]["id"], "price_id": two}, {"price_id": three}],
        [{"id": made["items"][1]["id"], "price_id": weekly}],
    ):
        problem(await shop.change(buyer.headers, made["id"], items=items), 422, "mixed_intervals")
        previewed = await shop.service.send("POST", f"{path}/preview", buyer.headers, {"items": items})
        problem(previewed, 422, "mixed_intervals")
    assert (await shop.asked("POST", path), await shop.true(made["id"])) == (asked, before)


TERMS: list[tuple[str, dict[str, Any]]] = [
    ("/trial_end", {"trial_end": "2030-01-01T00:00:00Z"}),
    ("/trial_period_days", {"trial_period_days": 14}),
    ("/discounts", {"discounts": [{"coupon": "free"}]}),
    ("/default_tax_rates", {"default_tax_rates": ["txr_1abc"]}),
    ("/billing_mode", {"billing_mode": "classic"}),
]


async def test_terms_are_not_the_buyers_to_choose(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    price = await shop.price()
    before = await shop.service.row_counts()
    for who, to in (
        (buyer.headers, "me"),
        (as_service("write"), buyer.customer_id),
        (as_service("admin", acting_for=buyer.customer_id), "me"),
    ):
        for pointer, terms in TERMS:
            answer = await shop.add(who, [{"price_id": price}], to=to, payment_method_id=card, **terms)
            assert pointers(problem(answer, 403, "field_not_allowed")) == [pointer]
        for name, value in (("discounts", [{"coupon": "free"}]), ("tax_rates", ["txr_1abc"])):
            answer = await shop.add(who, [{"price_id": price, name: value}], to=to, payment_method_id=card)
            assert pointers(problem(answer, 403, "field_not_allowed")) == [f"/items/0/{name}"]
    assert await shop.service.row_counts() == before
    await nothing_of(shop, buyer)


async def test_an_admin_key_chooses_terms(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    coupon = await shop.stripe.post("/v1/coupons", percent_off=50, duration="forever")
    rates = [
        await shop.stripe.post("/v1/tax_rates", display_name="VAT", percentage=p, inclusive=False)
        for p in (10, 20)
    ]
    made = await shop.bought(
        ADMIN,
        [
            {"price_id": await shop.price(), "discounts": [{"coupon": coupon["id"]}]},
            {"price_id": await shop.price(), "tax_rates": [rates[1]["id"]]},
        ],
        to=buyer.customer_id,
        payment_method_id=card,
        discounts=[{"coupon": coupon["id"]}],
        default_tax_rates=[rates[0]["id"]],
        billing_mode="classic",
    )
    true = await shop.true(made["id"])
    assert true["billing_mode"]["type"] == made["billing_mode"] == "classic"
    assert len(true["discounts"]) == 1
    assert [rate["id"] for rate in true["default_tax_rates"]] == [rates[0]["id"]]
    first, second = true["items"]["data"]
    assert (len(first["discounts"]), second["discounts"]) == (1, [])
    assert [rate["id"] for rate in second["tax_rates"]] == [rates[1]["id"]]
    # 10.00 half off is 5.00, and half off again 2.50, with 10 %: 2.75. 10.00 half off with 20 %: 6.00.
    [invoice] = await shop.invoices(buyer.headers, made["id"])
    assert invoice["amount_paid"] == 875


async def test_terms_that_stripe_does_not_know_are_named(shop: Shop) -> None:
    """An operator's mistake is told with the parameter that Stripe refused, and nothing is made."""
    buyer, card = await shop.buyer()
    price = await shop.price()
    for terms in ({"discounts": [{"coupon": "nonesuch"}]}, {"default_tax_rates": ["txr_1nonesuch"]}):
        answer = await shop.add(
            ADMIN, [{"price_id": price}], to=buyer.customer_id, payment_method_id=card, **terms
        )
        assert answer.status_code in (404, 422, 502), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    await nothing_of(shop, buyer)


async def test_the_payer_of_a_shareable_product_becomes_its_owner(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    plain = await shop.price()
    shared = await shop.price(await shop.product(shared=True))
    both = await shop.bought(
        buyer.headers,
        [{"price_id": plain}, {"price_id": shared, "quantity": 3}],
        payment_method_id=card,
    )
    metadata = (await shop.true(both["id"]))["metadata"]
    assert metadata["billing_shared_subscription_owner"] == buyer.customer_id
    assert both["role"] == "owner"
    assert both["shared"]["owner"]["customer_id"] == buyer.customer_id
    assert both["shared"]["seats"]["total"] == 3
    own = await shop.bought(buyer.headers, [{"price_id": plain}], payment_method_id=card)
    metadata = (await shop.true(own["id"]))["metadata"]
    assert "billing_shared_subscription_owner" not in metadata
    assert own["shared"] is None
    # The operation is written down once, so that a create whose answer was lost can be found.
    [operation] = await shop.service.fetch("select id from operations where subscription_id = $1", own["id"])
    assert metadata["billing_operation_id"] == operation["id"]


async def test_the_same_key_buys_once(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    items = [{"price_id": await shop.price()}]
    first = await shop.add(buyer.headers, items, payment_method_id=card, key="buy")
    again = await shop.add(buyer.headers, items, payment_method_id=card, key="buy")
    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    other = await shop.add(buyer.headers, [{**items[0], "quantity": 2}], payment_method_id=card, key="buy")
    problem(other, 422, "idempotency_key_reused")
    assert len(await shop.all_of(buyer)) == 1
    # A refusal is an answer too.
    problem(await shop.add(buyer.headers, [{"price_id": "price_1no"}], key="no"), 422, "price_not_available")
    refused = await shop.add(buyer.headers, [{"price_id": "price_1no"}], key="no")
    assert refused.headers["idempotency-replayed"] == "true"


async def test_twenty_at_once_with_one_key_buy_once(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    items = [{"price_id": await shop.price()}]
    answers = await asyncio.gather(
        *(shop.add(buyer.headers, items, payment_method_id=card, key="at once") for _ in range(20))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert len(await shop.all_of(buyer)) == 1


@pytest.mark.parametrize("form", ["nothing", "refusal", "cut short"])
async def test_an_answer_that_is_lost_once_costs_nothing(shop: Shop, form: str) -> None:
    """The create takes effect, its answer is lost: the service finds out by itself, and one subscription is there."""
    buyer, card = await shop.buyer()
    items = [{"price_id": await shop.price(), "quantity": 2}]
    fault: dict[str, Any] = {
        "nothing": {"timeout": 0.2, "effect": "after"},
        "refusal": {"status": 500, "effect": "after", "save": True},
        "cut short": {"truncate": True, "effect": "after"},
    }[form]
    await shop.stripe.add_fault(**CREATE, **fault, times=1)
    made = await shop.bought(buyer.headers, items, payment_method_id=card)
    assert [sub["id"] for sub in await shop.all_of(buyer)] == [made["id"]]
    assert made["status"] == "active"
    assert await shop.service.fetch(UNSETTLED) == []


async def test_a_lost_answer_of_a_declined_card_stays_declined(shop: Shop) -> None:
    buyer, card = await shop.buyer(card=DECLINED)
    items = [{"price_id": await shop.price()}]
    await shop.stripe.add_fault(**CREATE, timeout=0.2, effect="after")
    answer = await shop.add(buyer.headers, items, payment_method_id=card, key="lost decline")
    problem(answer, 402, "card_declined")
    again = await shop.add(buyer.headers, items, payment_method_id=card, key="lost decline")
    assert (again.content, again.headers["idempotency-replayed"]) == (answer.content, "true")
    await nothing_of(shop, buyer)


async def test_promotion_codes(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    coupon = await shop.stripe.post("/v1/coupons", percent_off=20, duration="forever")
    promotion = {"type": "coupon", "coupon": coupon["id"]}
    code = await shop.stripe.post("/v1/promotion_codes", promotion=promotion, code="TWENTY")
    price = await shop.price()
    answer = await shop.add(
        buyer.headers, [{"price_id": price}], payment_method_id=card, promotion_code="NOSUCH"
    )
    assert pointers(problem(answer, 422, "invalid_request")) == ["/promotion_code"]
    await nothing_of(shop, buyer)
    shown = await shop.service.get("/v1/promotion-codes/twenty", buyer.headers)
    assert shown.json()["promotion_code"] == {
        "code": "TWENTY",
        "percent_off": 20.0,
        "amount_off": None,
        "currency": None,
        "duration": "forever",
        "duration_in_months": None,
        "expires_at": None,
        "minimum_amount": None,
        "minimum_amount_currency": None,
    }
    problem(await shop.service.get("/v1/promotion-codes/NOSUCH", buyer.headers), 404, "not_found")
    problem(await shop.service.get("/v1/promotion-codes/TWENTY"), 401, "unauthenticated")
    made = await shop.bought(
        buyer.headers, [{"price_id": price}], payment_method_id=card, promotion_code="TWENTY"
    )
    assert [i["total"] for i in await shop.invoices(buyer.headers, made["id"])] == [800]
    await shop.stripe.post(f"/v1/promotion_codes/{code['id']}", active=False)
    answer = await shop.add(
        buyer.headers, [{"price_id": price}], payment_method_id=card, promotion_code="TWENTY"
    )
    assert pointers(problem(answer, 422, "invalid_request")) == ["/promotion_code"]
    assert len(await shop.all_of(buyer)) == 1


async def test_the_cache_has_heard_of_all_that_was_bought_here(shop: Shop) -> None:
    await shop.cache_is_true()
