"""Changing, ending and resuming; payment methods; who may use what in which status."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from testkit.company import Person
from testkit.problems import pointers, problem
from testkit.service import as_service
from testkit.simulator import SimulatorError
from tests.money.shop import CHALLENGED, DECLINED, UNSETTLED, Shop, at, settled_by_a_worker

ADMIN = as_service("admin")
UPDATE = {"method": "POST", "path": "/v1/subscriptions/{id}"}
YEARLY = {"interval": "year"}


@pytest.fixture(autouse=True)
async def _no_faults_left(shop: Shop) -> AsyncIterator[None]:
    yield
    await shop.stripe.clear_faults()


async def seats(shop: Shop, quantity: int = 4, **price: Any) -> tuple[Person, dict[str, Any]]:
    """A buyer, who owns a shareable subscription of so many seats at 10.00."""
    buyer, card = await shop.buyer()
    team = await shop.price(await shop.product(shared=True), **price)
    items = [{"price_id": team, "quantity": quantity}]
    return buyer, await shop.bought(buyer.headers, items, payment_method_id=card)


async def seated(shop: Shop, subscription_id: str, role: str = "user") -> Person:
    return await shop.service.person(
        role, billing_shared_subscription_id=subscription_id, billing_shared_subscription_role=role
    )


async def shown(shop: Shop, who: Person, subscription_id: str) -> list[tuple[str, int | None]]:
    """The items as both the service and the stand-in have them: price and quantity."""
    answered = await shop.subscription(who.headers, subscription_id)
    found = [(item["price"]["id"], item["quantity"]) for item in answered["items"]]
    true = (await shop.true(subscription_id))["items"]["data"]
    assert [(item["price"]["id"], item.get("quantity")) for item in true] == found
    return found


async def test_items_are_added_changed_and_removed_by_their_ids(shop: Shop) -> None:
    buyer, made = await seats(shop)
    team, first = made["items"][0]["price"]["id"], made["items"][0]["id"]
    extra, other = await shop.price(), await shop.price(unit_amount=700)
    answer = await shop.change(
        buyer.headers,
        made["id"],
        items=[{"price_id": extra, "quantity": 2}, {"id": first, "quantity": 6}],
    )
    assert answer.status_code == 200, answer.text
    assert await shown(shop, buyer, made["id"]) == [(team, 6), (extra, 2)]
    second = answer.json()["subscription"]["items"][1]["id"]
    # Only the price changes: the quantity stays, though Stripe by itself would make it 1.
    answer = await shop.change(buyer.headers, made["id"], items=[{"id": second, "price_id": other}])
    assert answer.status_code == 200, answer.text
    assert await shown(shop, buyer, made["id"]) == [(team, 6), (other, 2)]
    answer = await shop.change(buyer.headers, made["id"], items=[{"id": second, "deleted": True}])
    assert answer.status_code == 200, answer.text
    assert await shown(shop, buyer, made["id"]) == [(team, 6)]
    # What went out is credit, and every invoice is paid.
    invoices = await shop.invoices(buyer.headers, made["id"])
    assert {invoice["status"] for invoice in invoices} == {"paid"}
    assert len(invoices) == 4


async def test_changes_that_cannot_be(shop: Shop) -> None:
    buyer, made = await seats(shop)
    _, other = await seats(shop)
    first, price = made["items"][0]["id"], made["items"][0]["price"]["id"]
    before = await shop.service.row_counts()
    for items, pointer in (
        ([{"id": other["items"][0]["id"], "quantity": 9}], "/items/0/id"),
        ([{"id": first, "deleted": True}], "/items"),
        ([{"price_id": price}], "/items/0/price_id"),
        ([{"quantity": 3}], "/items/0/price_id"),
        ([{"deleted": True}], "/items/0/deleted"),
        ([{"id": first, "deleted": True, "quantity": 1}], "/items/0"),
        ([{"id": first, "quantity": 0}], "/items/0/quantity"),
        ([{"id": first}], "/items/0"),
        ([], "/items"),
    ):
        answer = await shop.change(buyer.headers, made["id"], items=items)
        assert pointers(problem(answer, 422, "invalid_request")) == [pointer], items
    twice = [{"id": first, "quantity": 5}, {"id": first, "deleted": True}]
    problem(await shop.change(buyer.headers, made["id"], items=twice), 422, "invalid_request")
    problem(await shop.change(buyer.headers, made["id"]), 422, "invalid_request")
    assert await shop.service.row_counts() == before
    assert await shown(shop, buyer, made["id"]) == [(price, 4)]


async def test_one_item_is_named_once(shop: Shop) -> None:
    """Two entries about one item would leave what it comes to to their order."""
    buyer, made = await seats(shop)
    first = made["items"][0]["id"]
    extra = await shop.price()
    answer = await shop.change(buyer.headers, made["id"], items=[{"price_id": extra}])
    for items in (
        [{"id": first, "quantity": 5}, {"id": first, "quantity": 7}],
        [{"id": first, "deleted": True}, {"id": first, "quantity": 7}],
        [{"id": first, "quantity": 7}, {"id": first, "deleted": True}],
    ):
        answer = await shop.change(buyer.headers, made["id"], items=items)
        assert pointers(problem(answer, 422, "invalid_request")) == ["/items/1/id"], items


async def test_seats_in_use_are_not_sold(shop: Shop) -> None:
    buyer, made = await seats(shop, 4)
    for role in ("manager", "user", "user"):
        await seated(shop, made["id"], role)
    item = made["items"][0]["id"]
    plain, small = await shop.price(), await shop.price(await shop.product(shared=True))
    asked = await shop.asked("POST", f"/v1/subscriptions/{made['id']}")
    for items, requested in (
        ([{"id": item, "quantity": 2}], 2),
        ([{"id": item, "price_id": plain}], 0),
        ([{"id": item, "deleted": True}, {"price_id": small, "quantity": 1}], 1),
    ):
        answer = await shop.change(buyer.headers, made["id"], items=items)
        refused = problem(answer, 409, "seats_in_use")
        assert (refused["used"], refused["requested"]) == (3, requested)
        preview = await shop.service.send(
            "POST", f"/v1/subscriptions/{made['id']}/preview", buyer.headers, {"items": items}
        )
        problem(preview, 409, "seats_in_use")
    assert await shop.asked("POST", f"/v1/subscriptions/{made['id']}") == asked
    answer = await shop.change(buyer.headers, made["id"], items=[{"id": item, "quantity": 3}])
    assert answer.json()["subscription"]["shared"]["seats"]["available"] == 0


async def test_a_change_of_what_was_not_seen_is_refused(shop: Shop) -> None:
    buyer, made = await seats(shop)
    item, path = made["items"][0]["id"], f"/v1/subscriptions/{made['id']}"
    tag = (await shop.service.get(path, buyer.headers)).headers["etag"]
    five, six = [{"id": item, "quantity": 5}], [{"id": item, "quantity": 6}]
    assert (await shop.change(buyer.headers, made["id"], match=tag, items=five)).status_code == 200
    problem(await shop.change(buyer.headers, made["id"], match=tag, items=six), 412, "version_conflict")
    assert (await shop.true(made["id"]))["items"]["data"][0]["quantity"] == 5
    assert (await shop.change(buyer.headers, made["id"], match="*", items=six)).status_code == 200


async def test_cancelling_now_and_at_the_periods_end(shop: Shop) -> None:
    buyer, made = await seats(shop)
    path = f"/v1/subscriptions/{made['id']}"
    first = await shop.service.send("POST", f"{path}/cancel", buyer.headers, {"reason": "too dear"})
    ending = first.json()["subscription"]
    assert (ending["status"], ending["cancel_at_period_end"]) == ("active", True)
    assert ending["cancel_at"] == made["items"][0]["current_period_end"]
    assert (await shop.true(made["id"]))["cancellation_details"]["comment"] == "too dear"
    again = await shop.service.send("POST", f"{path}/cancel", buyer.headers, {})
    assert (again.status_code, again.json()) == (200, first.json())
    problem(
        await shop.service.get(
            "/v1/customers/me/upcoming-invoice", buyer.headers, subscription_id=made["id"]
        ),
        404,
        "not_found",
    )
    other = (await shop.unpaid(buyer.headers, [{"price_id": await shop.price(unit_amount=777)}])).subscription
    await shop.stripe.post(f"/v1/invoices/{other['latest_invoice_id']}/pay")
    await shop.listen()
    # Of several, the first that will be billed at all.
    answer = await shop.service.get("/v1/customers/me/upcoming-invoice", buyer.headers)
    assert answer.json()["invoice"]["total"] == 777
    resumed = await shop.service.send("POST", f"{path}/resume", buyer.headers)
    assert resumed.json()["subscription"]["cancel_at_period_end"] is False
    assert resumed.json()["subscription"]["cancel_at"] is None
    again = await shop.service.send("POST", f"{path}/resume", buyer.headers)
    assert again.status_code == 200, again.text
    ended = await shop.service.send("POST", f"{path}/cancel", buyer.headers, {"when": "now"})
    assert ended.json()["subscription"]["status"] == "canceled"
    again = await shop.service.send("POST", f"{path}/cancel", buyer.headers, {"when": "now"})
    assert (again.status_code, again.json()) == (200, ended.json())
    problem(await shop.service.send("POST", f"{path}/resume", buyer.headers), 409, "subscription_not_active")
    change = [{"id": made["items"][0]["id"], "quantity": 5}]
    problem(await shop.change(buyer.headers, made["id"], items=change), 409, "subscription_not_active")
    refused = await shop.service.send("POST", f"{path}/preview", buyer.headers, {"items": change})
    problem(refused, 409, "subscription_not_active")


async def test_the_end_by_an_update(shop: Shop) -> None:
    buyer, made = await seats(shop)
    answer = await shop.change(buyer.headers, made["id"], cancel_at_period_end=True)
    assert answer.json()["subscription"]["cancel_at_period_end"] is True
    answer = await shop.change(buyer.headers, made["id"], cancel_at_period_end=False)
    assert answer.json()["subscription"]["cancel_at"] is None


async def test_a_paused_subscription_resumes(shop: Shop) -> None:
    buyer, made = await seats(shop)
    await shop.stripe.post(f"/v1/subscriptions/{made['id']}/pause", type="subscription")
    await shop.listen()
    path = f"/v1/subscriptions/{made['id']}"
    assert (await shop.subscription(buyer.headers, made["id"]))["status"] == "paused"
    change = [{"id": made["items"][0]["id"], "quantity": 5}]
    problem(await shop.change(buyer.headers, made["id"], items=change), 409, "subscription_not_active")
    answer = await shop.service.send("POST", f"{path}/resume", buyer.headers)
    assert answer.json()["subscription"]["status"] == "active"
    assert (await shop.true(made["id"]))["status"] == "active"


async def test_resumption_is_refused_when_the_dashboard_has_ended_the_subscription(shop: Shop) -> None:
    """W1: the event of the end is late; an ended subscription is not paused, and was reported as resumed."""
    buyer, made = await seats(shop)
    await shop.stripe.post(f"/v1/subscriptions/{made['id']}/pause", type="subscription")
    await shop.listen()
    await shop.stripe.delete(f"/v1/subscriptions/{made['id']}")
    path = f"/v1/subscriptions/{made['id']}"
    answer = await shop.service.send("POST", f"{path}/resume", buyer.headers)
    problem(answer, 502, "stripe_rejected")
    assert (await shop.subscription(buyer.headers, made["id"]))["status"] == "canceled"


async def test_a_change_that_must_be_paid_first(shop: Shop) -> None:
    """The bank asks the holder: the change waits, seats stay as they are, and come once it is paid."""
    buyer, made = await seats(shop, 4)
    card = await shop.card(buyer, CHALLENGED)
    assert (await shop.change(buyer.headers, made["id"], payment_method_id=card)).status_code == 200
    more = [{"id": made["items"][0]["id"], "quantity": 9}]
    answer = await shop.change(buyer.headers, made["id"], items=more)
    assert answer.status_code == 202, answer.text
    changed, payment = await shop.subscription(buyer.headers, made["id"]), answer.json()["payment"]
    assert (payment["kind"], payment["status"]) == ("payment", "requires_action")
    assert (changed["items"][0]["quantity"], changed["shared"]["seats"]["total"]) == (4, 4)
    assert (await shop.true(made["id"]))["pending_update"] is not None
    await shop.listen()
    assert (await shop.subscription(buyer.headers, made["id"]))["shared"]["seats"]["total"] == 4
    await shop.stripe.control("POST", "confirm", client_secret=payment["client_secret"], payment_method=card)
    await shop.listen()
    paid = await shop.subscription(buyer.headers, made["id"])
    assert (paid["items"][0]["quantity"], paid["status"]) == (9, "active")


async def test_a_change_whose_card_declines_waits_for_another(shop: Shop) -> None:
    buyer, made = await seats(shop, 4)
    card = await shop.card(buyer, DECLINED)
    assert (await shop.change(buyer.headers, made["id"], payment_method_id=card)).status_code == 200
    more = [{"id": made["items"][0]["id"], "quantity": 9}]
    answer = await shop.change(buyer.headers, made["id"], items=more)
    assert answer.status_code == 202, answer.text
    payment = answer.json()["payment"]
    assert payment["kind"] == "payment"
    assert (await shop.subscription(buyer.headers, made["id"]))["items"][0]["quantity"] == 4
    with pytest.raises(SimulatorError):
        await shop.stripe.control(
            "POST", "confirm", client_secret=payment["client_secret"], payment_method=card
        )
    await shop.stripe.control("POST", "confirm", client_secret=payment["client_secret"])
    await shop.listen()
    assert (await shop.subscription(buyer.headers, made["id"]))["items"][0]["quantity"] == 9


async def test_a_declined_card_and_a_code_change_nothing(shop: Shop) -> None:
    """A change that Stripe cannot hold back is all or nothing."""
    buyer, made = await seats(shop, 4)
    card = await shop.card(buyer, DECLINED)
    coupon = await shop.stripe.post("/v1/coupons", percent_off=10, duration="forever")
    promotion = {"type": "coupon", "coupon": coupon["id"]}
    await shop.stripe.post("/v1/promotion_codes", promotion=promotion, code="NINE")
    before = await shop.true(made["id"])
    more = [{"id": made["items"][0]["id"], "quantity": 9}]
    answer = await shop.change(
        buyer.headers, made["id"], items=more, payment_method_id=card, promotion_code="NINE"
    )
    problem(answer, 402, "card_declined")
    assert await shop.true(made["id"]) == before
    assert await shop.service.fetch(UNSETTLED) == []
    # With the good card it goes through.
    answer = await shop.change(buyer.headers, made["id"], items=more, promotion_code="NINE")
    assert answer.status_code == 200, answer.text
    assert (await shop.upcoming(buyer.headers, made["id"]))["total"] == 8100


async def the_look_up_fails(shop: Shop) -> None:
    """The subscription can be read once, to price the change, and not again after it was sent."""
    read = {"method": "GET", "path": "/v1/subscriptions/{id}"}
    await shop.stripe.add_fault(**read, latency_s=0.001, times=1)
    await shop.stripe.add_fault(**read, status=500, times=0)


@pytest.mark.parametrize("form", ["nothing", "refusal", "refusal, look-up too", "refusal, before"])
async def test_a_lost_answer_changes_and_charges_once(shop: Shop, form: str) -> None:
    buyer, made = await seats(shop, 4)
    extra = await shop.price(unit_amount=700)
    item = made["items"][0]["id"]
    body: dict[str, Any] = {"items": [{"id": item, "quantity": 6}, {"price_id": extra, "quantity": 3}]}
    fault: dict[str, Any] = {
        "nothing": {"timeout": 0.2, "effect": "after"},
        "refusal": {"status": 500, "effect": "after", "save": True},
        "refusal, look-up too": {"status": 500, "effect": "after", "save": True},
        "refusal, before": {"status": 500, "effect": "before", "save": True},
    }[form]
    await shop.stripe.add_fault(**UPDATE, **fault)
    if form == "refusal, look-up too":
        await the_look_up_fails(shop)
    answer = await shop.change(buyer.headers, made["id"], key=f"lost {form}", **body)
    assert answer.status_code == (202 if form == "refusal, look-up too" else 200), answer.text
    await shop.stripe.clear_faults()
    again = await shop.change(buyer.headers, made["id"], key=f"lost {form}", **body)
    assert (again.content, again.headers["idempotency-replayed"]) == (answer.content, "true")
    if form == "refusal, look-up too":
        told = await settled_by_a_worker(shop, answer)
        assert [result["outcome"] for result in told["results"]] == ["applied"]
        answer = await shop.service.get(f"/v1/subscriptions/{made['id']}", buyer.headers)
    changed = [(i["price"]["id"], i["quantity"]) for i in answer.json()["subscription"]["items"]]
    assert changed == [(made["items"][0]["price"]["id"], 6), (extra, 3)]
    assert await shown(shop, buyer, made["id"]) == changed
    invoices = await shop.invoices(buyer.headers, made["id"])
    assert len(invoices) == 2
    assert {invoice["status"] for invoice in invoices} == {"paid"}


async def test_what_was_undone_by_hand_is_not_done_again(shop: Shop) -> None:
    """Stripe carries a raise out and answers 500; before anybody can look, somebody lowers it in the Dashboard."""
    buyer, made = await seats(shop, 4)
    item = made["items"][0]["id"]
    await shop.stripe.add_fault(**UPDATE, status=500, effect="after", save=True)
    await the_look_up_fails(shop)
    answer = await shop.change(buyer.headers, made["id"], items=[{"id": item, "quantity": 6}])
    assert answer.status_code == 202, answer.text
    await shop.stripe.post(f"/v1/subscriptions/{made['id']}", items=[{"id": item, "quantity": 4}])
    await shop.stripe.clear_faults()
    told = await settled_by_a_worker(shop, answer)
    assert [result["outcome"] for result in told["results"]] == ["applied"]
    versions = await shop.stripe.versions(object=made["id"])
    keys = {version["actor"]["idempotency_key"] or "" for version in versions}
    assert len([key for key in keys if key.startswith(answer.json()["operation_id"])]) == 1
    assert (await shown(shop, buyer, made["id"]))[0][1] == 4


async def test_payment_methods_come_and_go(shop: Shop) -> None:
    buyer, first = await shop.buyer()
    made = await shop.bought(buyer.headers, [{"price_id": await shop.price()}], payment_method_id=first)
    path = "/v1/customers/me/payment-methods"
    problem(await shop.service.send("DELETE", f"{path}/{first}", buyer.headers), 409, "payment_method_in_use")
    token = {"payment_method_id": "pm_card_mastercard"}
    answer = await shop.service.send("POST", path, buyer.headers, token)
    assert answer.status_code == 201, answer.text
    second = answer.json()["payment_method"]
    assert (second["card"]["brand"], second["is_default"]) == ("mastercard", False)
    problem(await shop.service.send("DELETE", f"{path}/{first}", buyer.headers), 409, "payment_method_in_use")
    default = "/v1/customers/me/default-payment-method"
    answer = await shop.service.send("PUT", default, buyer.headers, {"payment_method_id": second["id"]})
    assert answer.json()["payment_method"]["is_default"] is True
    # The subscription carried a default of its own, which would have won.
    assert (await shop.true(made["id"]))["default_payment_method"] == second["id"]
    assert (await shop.subscription(buyer.headers, made["id"]))["default_payment_method_id"] == second["id"]
    answer = await shop.service.send("DELETE", f"{path}/{first}", buyer.headers)
    assert answer.status_code == 204
    problem(await shop.service.send("DELETE", f"{path}/{first}", buyer.headers), 404, "not_found")
    problem(
        await shop.service.send("DELETE", f"{path}/{second['id']}", buyer.headers),
        409,
        "payment_method_in_use",
    )
    listed = (await shop.service.get(path, buyer.headers)).json()["data"]
    assert [(method["id"], method["is_default"]) for method in listed] == [(second["id"], True)]
    # Without a live subscription the last one may go.
    await shop.service.send("POST", f"/v1/subscriptions/{made['id']}/cancel", buyer.headers, {"when": "now"})
    answer = await shop.service.send("DELETE", f"{path}/{second['id']}", buyer.headers)
    assert answer.status_code == 204, answer.text


async def test_payment_methods_of_others_are_not_there(shop: Shop) -> None:
    buyer, _ = await shop.buyer()
    _, foreign = await shop.buyer()
    path = "/v1/customers/me/payment-methods"
    body = {"payment_method_id": foreign}
    problem(await shop.service.send("POST", path, buyer.headers, body), 404, "not_found")
    problem(await shop.service.send("DELETE", f"{path}/{foreign}", buyer.headers), 404, "not_found")
    default = "/v1/customers/me/default-payment-method"
    problem(await shop.service.send("PUT", default, buyer.headers, body), 404, "not_found")
    made = (await shop.unpaid(buyer.headers, [{"price_id": await shop.price()}])).subscription
    problem(await shop.change(buyer.headers, made["id"], payment_method_id=foreign), 404, "not_found")


async def test_a_card_that_its_bank_refuses_is_not_attached(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    path = "/v1/customers/me/payment-methods"
    body = {"payment_method_id": "pm_card_chargeDeclined", "use_as_default": True}
    problem(await shop.service.send("POST", path, buyer.headers, body), 402, "card_declined")
    listed = (await shop.service.get(path, buyer.headers)).json()["data"]
    assert [(method["id"], method["is_default"]) for method in listed] == [(card, True)]


async def test_a_set_up_intent_saves_a_card(shop: Shop) -> None:
    buyer, _ = await shop.buyer(card=None)
    answer = await shop.service.send("POST", "/v1/customers/me/setup-intents", buyer.headers)
    assert answer.status_code == 201, answer.text
    secret = answer.json()["setup_intent"]["client_secret"]
    await shop.stripe.control("POST", "confirm", client_secret=secret, payment_method="pm_card_amex")
    await shop.listen()
    listed = (await shop.service.get("/v1/customers/me/payment-methods", buyer.headers)).json()["data"]
    assert [method["card"]["brand"] for method in listed] == ["amex"]


async def test_local_currency(shop: Shop) -> None:
    product = await shop.product()
    await shop.price(product, currency_options={"eur": {"unit_amount": 900}, "gbp": {"unit_amount": 800}})
    buyer, card = await shop.buyer()

    async def local(**query: str) -> str | None:
        answer = await shop.service.get("/v1/products", buyer.headers, ids=product, **query)
        assert answer.status_code == 200, answer.text
        [found] = answer.json()["data"]
        options = found["prices"][0]["currency_options"]
        assert (options["eur"]["unit_amount"], options["gbp"]["unit_amount"]) == (900, 800)
        currency: str | None = answer.json()["local_currency"]
        return currency

    assert await local(currency="eur") == "eur"
    assert await local(country="GB") == "gbp"
    assert await local(country="JP") != "jpy"
    price = (await shop.stripe.get("/v1/prices", product=product))["data"][0]["id"]
    await shop.bought(buyer.headers, [{"price_id": price}], payment_method_id=card, currency="eur")
    await shop.listen()
    # A subscription fixes the currency while it lives.
    assert await local(currency="gbp") == "eur"
    assert await local(country="GB") == "eur"


async def access(shop: Shop, person: Person, product: str) -> dict[str, Any]:
    answer = await shop.service.get("/v1/customers/me/access", person.headers, product_id=product)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("status", "opens"),
    [
        ("active", True),
        ("trialing", True),
        ("past_due", True),
        ("incomplete", False),
        ("unpaid", False),
        ("paused", False),
        ("canceled", False),
        ("incomplete_expired", False),
    ],
)
async def test_access_by_role_and_status(shop: Shop, status: str, opens: bool) -> None:
    buyer, made = await seats(shop)
    product = made["items"][0]["product"]["id"]
    people = [(buyer, "own", "owner")]
    people += [(await seated(shop, made["id"], role), "shared", role) for role in ("manager", "user")]
    stranger, _ = await shop.buyer(card=None)
    await shop.service.deliver_state("subscription", {**await shop.true(made["id"]), "status": status})
    for person, via, role in people:
        found = await access(shop, person, product)
        assert (found["has_access"], found["status"]) == (opens, status)
        assert (found["via"], found["role"], found["subscription_id"]) == (via, role, made["id"])
        assert at(found["valid_until"]) == at(made["items"][0]["current_period_end"])
    assert await access(shop, stranger, product) == {
        "has_access": False,
        "via": None,
        "role": None,
        "subscription_id": None,
        "status": None,
        "valid_until": None,
    }


async def test_a_seat_opens_flagged_products_only(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    team, plain = await shop.product(shared=True), await shop.product()
    items: list[dict[str, Any]] = [
        {"price_id": await shop.price(team), "quantity": 3},
        {"price_id": await shop.price(plain)},
    ]
    made = await shop.bought(buyer.headers, items, payment_method_id=card)
    user = await seated(shop, made["id"])
    assert (await access(shop, buyer, plain))["has_access"] is True
    assert (await access(shop, user, team))["has_access"] is True
    assert (await access(shop, user, plain))["has_access"] is False


async def test_roles_decide_who_changes_the_plan(shop: Shop) -> None:
    buyer, made = await seats(shop)
    item = made["items"][0]["id"]
    path = f"/v1/subscriptions/{made['id']}"
    for role in ("manager", "user"):
        person = await seated(shop, made["id"], role)
        asked: list[tuple[str, str, dict[str, Any] | None]] = [
            ("PATCH", path, {"items": [{"id": item, "quantity": 9}]}),
            ("PATCH", path, {"cancel_at_period_end": True}),
            ("POST", f"{path}/preview", {"items": [{"id": item, "quantity": 9}]}),
            ("POST", f"{path}/cancel", {}),
            ("POST", f"{path}/cancel", {"when": "now"}),
            ("POST", f"{path}/resume", None),
        ]
        for method, where, body in asked:
            answer = await shop.service.send(method, where, person.headers, body)
            problem(answer, 403, "role_required")
    stranger, _ = await shop.buyer(card=None)
    answer = await shop.change(stranger.headers, made["id"], items=[{"id": item, "quantity": 9}])
    problem(answer, 404, "not_found")
    assert (await shop.true(made["id"]))["items"]["data"][0]["quantity"] == 4
    # Terms of an update are an operator's.
    terms: list[tuple[str, dict[str, Any]]] = [
        ("/proration_behavior", {"proration_behavior": "none"}),
        ("/proration_date", {"proration_date": "2030-01-01T00:00:00Z"}),
        ("/trial_end", {"trial_end": "now"}),
        ("/discounts", {"discounts": []}),
        ("/default_tax_rates", {"default_tax_rates": []}),
    ]
    for pointer, term in terms:
        items = [{"id": item, "quantity": 5}]
        answer = await shop.change(buyer.headers, made["id"], items=items, **term)
        assert pointers(problem(answer, 403, "field_not_allowed")) == [pointer]
    answer = await shop.service.send(
        "POST", f"{path}/cancel", buyer.headers, {"when": "now", "prorate": True}
    )
    assert pointers(problem(answer, 403, "field_not_allowed")) == ["/prorate"]


async def test_an_operator_ends_with_credit(shop: Shop) -> None:
    buyer, made = await seats(shop, 4)
    answer = await shop.service.send(
        "POST", f"/v1/subscriptions/{made['id']}/cancel", ADMIN, {"when": "now", "prorate": True}
    )
    assert answer.json()["subscription"]["status"] == "canceled"
    totals = sorted(i["total"] for i in await shop.invoices(buyer.headers, made["id"]))
    # Some seconds of the month may have gone by.
    assert totals[1] == 4000
    assert -4000 <= totals[0] <= -3990


async def test_terms_of_an_update_by_an_operator(shop: Shop) -> None:
    buyer, made = await seats(shop, 4)
    coupon = await shop.stripe.post("/v1/coupons", percent_off=50, duration="forever")
    rate = await shop.stripe.post("/v1/tax_rates", display_name="VAT", percentage=10, inclusive=False)
    answer = await shop.change(
        ADMIN,
        made["id"],
        discounts=[{"coupon": coupon["id"]}],
        default_tax_rates=[rate["id"]],
    )
    assert answer.status_code == 200, answer.text
    assert (await shop.upcoming(buyer.headers, made["id"]))["total"] == 2200
    answer = await shop.change(ADMIN, made["id"], discounts=[], default_tax_rates=[])
    assert answer.status_code == 200, answer.text
    assert (await shop.upcoming(buyer.headers, made["id"]))["total"] == 4000
