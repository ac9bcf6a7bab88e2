"""What things cost, to the cent. Every expected amount is a literal, worked out beside it from the guide's rules.

Time stands still at the first second of April (30 days) unless a test moves it, so half a month is half the price.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from testkit.company import running_service
from testkit.plans import MONTHLY
from testkit.problems import pointers, problem
from testkit.service import as_service
from testkit.simulator import Simulator, new_account_key
from tests.money.shop import Shop, at

APRIL_2027 = 1_806_537_600
DAY = 86_400
RENEWED_AND_CHARGED = 30 * DAY + 3600 + 1
ADMIN = as_service("admin")


@pytest.fixture
async def april(stripe_simulator: str, database_url: str) -> AsyncIterator[Shop]:
    """A shop of the test's own, where it is 1 April 2027, 00:00:00 UTC."""
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, database_url) as service,
    ):
        await stripe.control("POST", "clock", freeze=APRIL_2027)
        yield Shop(service)


def amounts(lines: list[dict[str, Any]]) -> list[int]:
    return sorted(line["amount"] for line in lines)


async def test_packs_of_five_round_up(april: Shop) -> None:
    """25.00 a pack of 5: 1, 1, 1, 2, 2 packs for 1, 3, 5, 6, 7 users are 25, 25, 25, 50, 50."""
    price = await april.price(unit_amount=2500, transform_quantity={"divide_by": 5, "round": "up"})
    buyer, card = await april.buyer()
    for users, total in ((1, 2500), (3, 2500), (5, 2500), (6, 5000), (7, 5000)):
        made = await april.bought(
            buyer.headers, [{"price_id": price, "quantity": users}], payment_method_id=card
        )
        [invoice] = await april.invoices(buyer.headers, made["id"])
        assert (invoice["total"], invoice["amount_paid"], invoice["status"]) == (total, total, "paid")
        assert [(line["amount"], line["quantity"]) for line in invoice["lines"]] == [(total, users)]
        upcoming = await april.upcoming(buyer.headers, made["id"])
        assert (upcoming["total"], upcoming["amount_due"]) == (total, total)
        assert made["items"][0]["quantity"] == users


async def test_more_users_of_the_same_pack_cost_nothing(april: Shop) -> None:
    price = await april.price(unit_amount=2500, transform_quantity={"divide_by": 5, "round": "up"})
    buyer, card = await april.buyer()
    made = await april.bought(buyer.headers, [{"price_id": price, "quantity": 1}], payment_method_id=card)
    item = made["items"][0]["id"]
    await april.stripe.advance(15 * DAY)
    # 3 users are one pack as before: -12.50 and +12.50 for the second half of the month.
    same = await april.preview(buyer.headers, made["id"], items=[{"id": item, "quantity": 3}])
    assert (same["amount_due_now"], same["credit"], same["next_total"]) == (0, 0, 2500)
    assert amounts(same["lines"]) == [-1250, 1250]
    # 6 users are two packs: -12.50 and +25.00.
    six = [{"id": item, "quantity": 6}]
    more = await april.preview(buyer.headers, made["id"], items=six)
    assert (more["amount_due_now"], more["credit"], more["next_total"]) == (1250, 0, 5000)
    answer = await april.change(buyer.headers, made["id"], items=six)
    assert answer.status_code == 200, answer.text
    invoice = (await april.invoices(buyer.headers, made["id"]))[0]
    assert (invoice["total"], invoice["amount_paid"], amounts(invoice["lines"])) == (
        1250,
        1250,
        [-1250, 2500],
    )


async def test_usage_in_thousands_rounds_down_beside_licensed_items(april: Shop) -> None:
    """3 seats at 10.00 ahead; 0.50 for each full 1,000 calls afterwards: 3,600 calls are 3 thousands, 1.50."""
    meter = await april.stripe.post(
        "/v1/billing/meters",
        display_name="Calls",
        event_name="calls",
        default_aggregation={"formula": "sum"},
    )
    seats = await april.price()
    calls = await april.price(
        unit_amount=50,
        transform_quantity={"divide_by": 1000, "round": "down"},
        recurring={**MONTHLY, "usage_type": "metered", "meter": meter["id"]},
    )
    buyer, card = await april.buyer()
    made = await april.bought(
        buyer.headers,
        [{"price_id": seats, "quantity": 3}, {"price_id": calls}],
        payment_method_id=card,
    )
    assert [item["quantity"] for item in made["items"]] == [3, None]
    [first] = await april.invoices(buyer.headers, made["id"])
    assert (first["total"], amounts(first["lines"])) == (3000, [3000])
    # 1,700 and 1,900 are one full thousand each, and three together: the period's sum is what is rounded.
    for value in (1700, 1900):
        await april.stripe.advance(DAY)
        await april.stripe.post(
            "/v1/billing/meter_events",
            event_name="calls",
            payload={"stripe_customer_id": buyer.customer_id, "value": str(value)},
        )
    upcoming = await april.upcoming(buyer.headers, made["id"])
    assert (upcoming["total"], amounts(upcoming["lines"])) == (3150, [150, 3000])
    await april.stripe.advance(RENEWED_AND_CHARGED - 2 * DAY)
    renewal = (await april.invoices(buyer.headers, made["id"]))[0]
    assert (renewal["total"], renewal["amount_paid"]) == (3150, 3150)
    assert sorted((line["amount"], line["quantity"]) for line in renewal["lines"]) == [(150, 3600), (3000, 3)]
    # Nothing was reported in May.
    upcoming = await april.upcoming(buyer.headers, made["id"])
    assert (upcoming["total"], amounts(upcoming["lines"])) == (3000, [0, 3000])


TIERS = [
    {"up_to": 5, "unit_amount": 900, "flat_amount": 1000},
    {"up_to": "inf", "unit_amount": 650},
]


@pytest.mark.parametrize(
    ("mode", "users", "total"),
    [
        # Each unit at its own tier's price, and the flat amount of each tier that is entered.
        ("graduated", 4, 1000 + 4 * 900),
        ("graduated", 5, 5500),
        ("graduated", 8, 1000 + 5 * 900 + 3 * 650),
        # All units at the price of the tier that the last one falls into.
        ("volume", 5, 5500),
        ("volume", 8, 8 * 650),
    ],
)
async def test_tiers(april: Shop, mode: str, users: int, total: int) -> None:
    price = await april.price(billing_scheme="tiered", tiers_mode=mode, tiers=TIERS)
    buyer, card = await april.buyer()
    items = [{"price_id": price, "quantity": users}]
    made = await april.bought(buyer.headers, items, payment_method_id=card)
    [invoice] = await april.invoices(buyer.headers, made["id"])
    assert (invoice["total"], invoice["amount_paid"]) == (total, total)
    upcoming = await april.upcoming(buyer.headers, made["id"])
    assert upcoming["total"] == total


async def test_a_change_between_tiers_at_half_time(april: Shop) -> None:
    graduated = await april.price(billing_scheme="tiered", tiers_mode="graduated", tiers=TIERS)
    volume = await april.price(billing_scheme="tiered", tiers_mode="volume", tiers=TIERS)
    buyer, card = await april.buyer()
    both = [{"price_id": graduated, "quantity": 5}, {"price_id": volume, "quantity": 5}]
    made = await april.bought(buyer.headers, both, payment_method_id=card)
    await april.stripe.advance(15 * DAY)
    # Graduated 5 to 8: half of 7,450 less half of 5,500. Volume 5 to 8: half of 5,200 less half of 5,500.
    change = [{"id": item["id"], "quantity": 8} for item in made["items"]]
    quoted = await april.preview(buyer.headers, made["id"], items=change)
    assert amounts(quoted["lines"]) == [-2750, -2750, 2600, 3725]
    assert (quoted["amount_due_now"], quoted["next_total"]) == (825, 12650)
    answer = await april.change(buyer.headers, made["id"], items=change)
    assert answer.status_code == 200, answer.text
    invoice = (await april.invoices(buyer.headers, made["id"]))[0]
    assert (invoice["total"], amounts(invoice["lines"])) == (825, [-2750, -2750, 2600, 3725])


async def test_decimal_amounts_are_rounded_once_a_line(april: Shop) -> None:
    """0.125 cents each: 1,001 are 125.125 cents, 1.25; three lines of 0.5 cents would have been something else."""
    price = await april.price(unit_amount_decimal="0.125")
    buyer, card = await april.buyer()
    made = await april.bought(buyer.headers, [{"price_id": price, "quantity": 1001}], payment_method_id=card)
    [invoice] = await april.invoices(buyer.headers, made["id"])
    assert invoice["total"] == 125
    # A hundred thousand more: 12,625.125 cents.
    item = made["items"][0]["id"]
    quoted = await april.preview(buyer.headers, made["id"], items=[{"id": item, "quantity": 101_001}])
    assert (quoted["next_total"], quoted["amount_due_now"]) == (12625, 12500)


async def test_twenty_items_with_two_quantities_on_one_invoice(april: Shop) -> None:
    """1, 2, … 20 dollars are 210; the fifth three times and the tenth seven times add 2 × 5 and 6 × 10: 280."""
    product = await april.product()
    prices = [await april.price(product, unit_amount=100 * n) for n in range(1, 21)]
    items: list[dict[str, Any]] = [{"price_id": price} for price in prices]
    items[4]["quantity"], items[9]["quantity"] = 3, 7
    buyer, card = await april.buyer()
    made = await april.bought(buyer.headers, items, payment_method_id=card)
    assert [item["price"]["id"] for item in made["items"]] == prices
    assert [item["quantity"] for item in made["items"]] == [1, 1, 1, 1, 3, 1, 1, 1, 1, 7, *[1] * 10]
    expected = sorted([*(100 * n for n in range(1, 21) if n not in (5, 10)), 1500, 7000])
    [invoice] = await april.invoices(buyer.headers, made["id"])
    assert (invoice["total"], invoice["amount_paid"]) == (28000, 28000)
    assert amounts(invoice["lines"]) == expected
    upcoming = await april.upcoming(buyer.headers, made["id"])
    assert (upcoming["total"], amounts(upcoming["lines"])) == (28000, expected)
    # Two more of the last at half time: 2 × 20.00 for half a month.
    await april.stripe.advance(15 * DAY)
    change = [{"id": made["items"][19]["id"], "quantity": 3}]
    quoted = await april.preview(buyer.headers, made["id"], items=change)
    assert (quoted["amount_due_now"], quoted["next_total"]) == (2000, 32000)
    answer = await april.change(buyer.headers, made["id"], items=change)
    assert answer.json()["subscription"]["items"][19]["quantity"] == 3
    assert (await april.invoices(buyer.headers, made["id"]))[0]["total"] == 2000


async def test_item_twenty_one_is_refused_before_stripe_is_asked(april: Shop) -> None:
    product = await april.product()
    prices = [await april.price(product, unit_amount=100 * n) for n in range(1, 22)]
    buyer, card = await april.buyer()
    items = [{"price_id": price} for price in prices]
    full = await april.bought(buyer.headers, items[:20], payment_method_id=card)
    before = await april.service.row_counts()
    refused = problem(await april.add(buyer.headers, items, payment_method_id=card), 422, "invalid_request")
    assert pointers(refused) == ["/items"]
    one_more: dict[str, Any] = {"items": [{"price_id": prices[20]}]}
    refused = problem(await april.change(buyer.headers, full["id"], **one_more), 422, "invalid_request")
    assert pointers(refused) == ["/items"]
    path = f"/v1/subscriptions/{full['id']}/preview"
    problem(await april.service.send("POST", path, buyer.headers, one_more), 422, "invalid_request")
    assert await april.service.row_counts() == before
    # One out, one in is twenty again.
    swap = [{"id": full["items"][0]["id"], "deleted": True}, *one_more["items"]]
    answer = await april.change(buyer.headers, full["id"], items=swap)
    assert answer.status_code == 200, answer.text
    assert len((await april.true(full["id"]))["items"]["data"]) == 10  # Stripe embeds ten of them.
    assert len(answer.json()["subscription"]["items"]) == 20


async def test_a_coupon_on_one_item_of_two(april: Shop) -> None:
    """2 × 10.00 and 15.00 less 25 %: 20.00 + 11.25."""
    coupon = await april.stripe.post("/v1/coupons", percent_off=25, duration="forever")
    plain, reduced = await april.price(), await april.price(unit_amount=1500)
    buyer, card = await april.buyer()
    made = await april.bought(
        ADMIN,
        [
            {"price_id": plain, "quantity": 2},
            {"price_id": reduced, "discounts": [{"coupon": coupon["id"]}]},
        ],
        to=buyer.customer_id,
        payment_method_id=card,
    )
    [invoice] = await april.invoices(buyer.headers, made["id"])
    # Lines show what they are before discounts; the total is after them.
    assert (invoice["total"], invoice["amount_paid"], amounts(invoice["lines"])) == (3125, 3125, [1500, 2000])
    upcoming = await april.upcoming(buyer.headers, made["id"])
    assert (upcoming["total"], upcoming["amount_due"]) == (3125, 3125)
    # One more of the reduced at half time: its credit and charge know the coupon. -5.625 and +11.25.
    await april.stripe.advance(15 * DAY)
    change = [{"id": made["items"][1]["id"], "quantity": 2}]
    quoted = await april.preview(buyer.headers, made["id"], items=change)
    assert amounts(quoted["lines"]) == [-563, 1125]
    assert (quoted["amount_due_now"], quoted["next_total"]) == (562, 4250)
    assert (await april.change(buyer.headers, made["id"], items=change)).status_code == 200
    assert (await april.invoices(buyer.headers, made["id"]))[0]["total"] == 562


async def test_a_promotion_code_takes_off_the_whole_once(april: Shop) -> None:
    """12.00 and 8.00 less 5.00 are 15.00; the next month is 20.00 again."""
    coupon = await april.stripe.post("/v1/coupons", amount_off=500, currency="usd", duration="once")
    promotion = {"type": "coupon", "coupon": coupon["id"]}
    await april.stripe.post("/v1/promotion_codes", promotion=promotion, code="SPRING")
    items = [{"price_id": await april.price(unit_amount=amount)} for amount in (1200, 800)]
    buyer, card = await april.buyer()
    made = await april.bought(buyer.headers, items, payment_method_id=card, promotion_code="spring")
    [invoice] = await april.invoices(buyer.headers, made["id"])
    assert (invoice["total"], invoice["amount_paid"]) == (1500, 1500)
    assert (await april.upcoming(buyer.headers, made["id"]))["total"] == 2000


async def test_taxes_by_subscription_and_by_item(april: Shop) -> None:
    """10.00 with 19 % on top is 11.90; the item with a rate of its own, 7 %, pays that alone: 20.00 is 21.40."""
    normal, reduced = [
        (await april.stripe.post("/v1/tax_rates", display_name="VAT", percentage=p, inclusive=False))["id"]
        for p in (19, 7)
    ]
    buyer, card = await april.buyer()
    made = await april.bought(
        ADMIN,
        [
            {"price_id": await april.price()},
            {"price_id": await april.price(unit_amount=2000), "tax_rates": [reduced]},
        ],
        to=buyer.customer_id,
        payment_method_id=card,
        default_tax_rates=[normal],
    )
    [invoice] = await april.invoices(buyer.headers, made["id"])
    assert (invoice["subtotal"], invoice["total"], invoice["amount_paid"]) == (3000, 3330, 3330)
    assert (await april.upcoming(buyer.headers, made["id"]))["total"] == 3330
    # A second of the first at half time: 5.00 and its 19 %.
    await april.stripe.advance(15 * DAY)
    change = [{"id": made["items"][0]["id"], "quantity": 2}]
    quoted = await april.preview(buyer.headers, made["id"], items=change)
    assert (quoted["amount_due_now"], quoted["next_total"]) == (595, 4520)


async def test_currency_options(april: Shop) -> None:
    """10.00 USD or 9.00 EUR: three in euro are 27.00, and the buyer's currency is euro from then on."""
    price = await april.price(currency_options={"eur": {"unit_amount": 900}})
    other = await april.price(unit_amount=500, currency_options={"eur": {"unit_amount": 450}})
    buyer, card = await april.buyer()
    three = [{"price_id": price, "quantity": 3}]
    made = await april.bought(buyer.headers, three, payment_method_id=card, currency="eur")
    [invoice] = await april.invoices(buyer.headers, made["id"])
    assert (invoice["currency"], invoice["total"], invoice["amount_paid"]) == ("eur", 2700, 2700)
    upcoming = await april.upcoming(buyer.headers, made["id"])
    assert (upcoming["currency"], upcoming["total"]) == ("eur", 2700)
    # An added item is billed in euro too: 4.50 for half the month.
    await april.stripe.advance(15 * DAY)
    added = [{"price_id": other}]
    quoted = await april.preview(buyer.headers, made["id"], items=added)
    assert (quoted["currency"], quoted["amount_due_now"], quoted["next_total"]) == ("eur", 225, 3150)
    assert (await april.change(buyer.headers, made["id"], items=added)).status_code == 200
    invoice = (await april.invoices(buyer.headers, made["id"]))[0]
    assert (invoice["currency"], invoice["total"]) == ("eur", 225)
    second = await april.bought(buyer.headers, [{"price_id": other}], payment_method_id=card)
    assert second["currency"] == "eur"
    assert (await april.invoices(buyer.headers, second["id"]))[0]["total"] == 450


async def test_a_year_beside_a_month_is_billed_apart(april: Shop) -> None:
    """10.00 a month and 96.00 a year: one invoice of 106.00, then 10.00 a month until the year is over."""
    items = [
        {"price_id": await april.price()},
        {"price_id": await april.price(unit_amount=9600, recurring={"interval": "year"})},
    ]
    buyer, card = await april.buyer()
    made = await april.bought(buyer.headers, items, payment_method_id=card)
    assert made["billing_mode"] == "flexible"
    assert [at(item["current_period_end"]) for item in made["items"]] == [
        APRIL_2027 + 30 * DAY,
        APRIL_2027 + 366 * DAY,  # 2028 has a 29 February.
    ]
    [invoice] = await april.invoices(buyer.headers, made["id"])
    assert invoice["total"] == 10600
    assert (await april.upcoming(buyer.headers, made["id"]))["total"] == 1000
    await april.stripe.advance(RENEWED_AND_CHARGED)
    assert [i["total"] for i in await april.invoices(buyer.headers, made["id"])] == [1000, 10600]


async def test_two_subscriptions_to_one_price_keep_apart(april: Shop) -> None:
    """Each its own invoice, charge and anchor: bought ten days apart, they renew ten days apart."""
    price = await april.price()
    buyer, card = await april.buyer()
    one = await april.bought(buyer.headers, [{"price_id": price, "quantity": 2}], payment_method_id=card)
    await april.stripe.advance(10 * DAY)
    two = await april.bought(buyer.headers, [{"price_id": price, "quantity": 3}], payment_method_id=card)
    assert one["id"] != two["id"]
    ends = [at(made["items"][0]["current_period_end"]) for made in (one, two)]
    # May has 31 days: the second month begins on 11 April and ends on 11 May.
    assert ends == [APRIL_2027 + 30 * DAY, APRIL_2027 + 40 * DAY]
    anchors = [(await april.true(made["id"]))["billing_cycle_anchor"] for made in (one, two)]
    assert anchors == [APRIL_2027, APRIL_2027 + 10 * DAY]
    assert [i["total"] for i in await april.invoices(buyer.headers, one["id"])] == [2000]
    assert [i["total"] for i in await april.invoices(buyer.headers, two["id"])] == [3000]
    await april.stripe.advance(20 * DAY + 3601)
    assert [i["total"] for i in await april.invoices(buyer.headers, one["id"])] == [2000, 2000]
    assert [i["total"] for i in await april.invoices(buyer.headers, two["id"])] == [3000]
    # A change of one leaves the other alone.
    change = [{"id": one["items"][0]["id"], "quantity": 1}]
    assert (await april.change(buyer.headers, one["id"], items=change)).status_code == 200
    assert (await april.subscription(buyer.headers, two["id"]))["items"][0]["quantity"] == 3
    await april.cache_is_true()


async def test_fewer_seats_are_credit_for_the_next_invoice(april: Shop) -> None:
    """5 to 2 at half time: -25.00 and +10.00; the next month, 20.00, costs 5.00 after 15.00 of credit."""
    price = await april.price()
    buyer, card = await april.buyer()
    made = await april.bought(buyer.headers, [{"price_id": price, "quantity": 5}], payment_method_id=card)
    await april.stripe.advance(15 * DAY)
    change = [{"id": made["items"][0]["id"], "quantity": 2}]
    quoted = await april.preview(buyer.headers, made["id"], items=change)
    assert (quoted["amount_due_now"], quoted["credit"], quoted["next_total"]) == (0, 1500, 2000)
    assert (await april.change(buyer.headers, made["id"], items=change)).status_code == 200
    invoice = (await april.invoices(buyer.headers, made["id"]))[0]
    assert (invoice["total"], invoice["amount_due"], invoice["status"]) == (-1500, 0, "paid")
    profile = (await april.service.get("/v1/customers/me", buyer.headers)).json()["customer"]
    assert profile["balance"] == -1500
    upcoming = await april.upcoming(buyer.headers, made["id"])
    assert (upcoming["total"], upcoming["amount_due"]) == (2000, 500)
    await april.stripe.advance(RENEWED_AND_CHARGED - 15 * DAY)
    renewal = (await april.invoices(buyer.headers, made["id"]))[0]
    assert (renewal["total"], renewal["amount_due"], renewal["amount_paid"]) == (2000, 500, 500)


async def test_prorations_left_for_the_next_invoice(april: Shop) -> None:
    """An operator may leave 2 to 3 at half time, 5.00, for the renewal: 30.00 and 5.00 on one invoice; or drop it."""
    price = await april.price()
    buyer, card = await april.buyer()
    change = []
    for _ in range(2):
        made = await april.bought(buyer.headers, [{"price_id": price, "quantity": 2}], payment_method_id=card)
        change.append((made["id"], [{"id": made["items"][0]["id"], "quantity": 3}]))
    await april.stripe.advance(15 * DAY)
    for (subscription_id, items), behavior, renewal in zip(
        change, ("create_prorations", "none"), (3500, 3000), strict=True
    ):
        body: dict[str, Any] = {"items": items, "proration_behavior": behavior}
        quoted = await april.preview(ADMIN, subscription_id, **body)
        assert (quoted["amount_due_now"], quoted["credit"], quoted["next_total"]) == (0, 0, renewal)
        assert (await april.change(ADMIN, subscription_id, **body)).status_code == 200
        assert [i["total"] for i in await april.invoices(buyer.headers, subscription_id)] == [2000]
    await april.stripe.advance(RENEWED_AND_CHARGED - 15 * DAY)
    for (subscription_id, _), renewal in zip(change, (3500, 3000), strict=True):
        assert (await april.invoices(buyer.headers, subscription_id))[0]["amount_paid"] == renewal


async def test_less_than_the_least_that_can_be_charged_stays_on_the_balance(april: Shop) -> None:
    """0.30 USD is below Stripe's 0.50: the invoice counts as paid, and the customer owes it with his next one."""
    small, large = await april.price(unit_amount=30), await april.price(unit_amount=500)
    buyer, card = await april.buyer()
    made = await april.bought(buyer.headers, [{"price_id": small}], payment_method_id=card)
    assert made["status"] == "active"
    [invoice] = await april.invoices(buyer.headers, made["id"])
    assert (invoice["total"], invoice["amount_due"], invoice["status"]) == (30, 0, "paid")
    profile = (await april.service.get("/v1/customers/me", buyer.headers)).json()["customer"]
    assert profile["balance"] == 30
    second = await april.bought(buyer.headers, [{"price_id": large}], payment_method_id=card)
    [invoice] = await april.invoices(buyer.headers, second["id"])
    assert (invoice["total"], invoice["amount_paid"]) == (500, 530)
