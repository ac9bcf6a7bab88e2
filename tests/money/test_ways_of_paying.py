"""What is left to pay is read from Stripe's intent, and each way of paying is changed as Stripe allows it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from testkit import databases
from testkit.company import Person, running_service
from testkit.problems import problem
from testkit.service import as_service
from testkit.simulator import Simulator, new_account_key
from tests.money.shop import DECLINED, Shop

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
    assert answer.status_code == 202, answer.text
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
    assert answer.status_code == 202, answer.text
    payment = answer.json()["payment"]
    assert (payment["kind"], payment["status"]) == ("payment", "requires_payment_method")
    assert (payment["decline_code"], payment["payment_method_id"]) == ("generic_decline", declining)
    assert answer.json()["seats"]["total"] == 4
    # The member change that buys seats tells the same step.
    body = {"add": [{"email": f"more-{n}@example.com"} for n in range(5)], "over_capacity": "add_seats"}
    path = f"/v1/shared-subscriptions/{made['id']}/users"
    answer = await shop.service.send("PATCH", path, buyer.headers, body)
    assert answer.status_code == 202, answer.text
    payment = answer.json()["payment"]
    assert (payment["status"], payment["decline_code"]) == ("requires_payment_method", "generic_decline")


async def test_payment_is_read_after_the_change_stands_when_stripe_falls_silent(shop: Shop) -> None:
    """M7: the change was accepted and waits; its payment could not be read, and is shown once it can be."""
    buyer, made = await team(shop)
    await pay_by(shop, buyer, made["id"], DECLINED)
    await shop.stripe.add_fault(method="GET", path="/v1/invoices/{id}", status=500, times=0)
    path = f"/v1/shared-subscriptions/{made['id']}/seats"
    answer = await shop.service.send("PUT", path, buyer.headers, {"total": 9})
    assert answer.status_code == 202, answer.text
    assert [result["outcome"] for result in answer.json()["results"]] == ["pending"]
    assert (answer.json()["state"], answer.json()["payment"]) == ("awaiting_payment", None)
    await shop.stripe.clear_faults()
    read = await shop.service.get(f"/v1/operations/{answer.json()['operation_id']}", buyer.headers)
    assert read.json()["payment"]["status"] == "requires_payment_method"
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


METHODS = "/v1/customers/me/payment-methods"
DEFAULT = "/v1/customers/me/default-payment-method"


async def fresh(shop: Shop, number: str = "4242424242424242") -> str:
    """A payment method as a page makes it: it belongs to nobody yet."""
    card = {"number": number, "exp_month": 12, "exp_year": 2034, "cvc": "123"}
    made = await shop.stripe.post("/v1/payment_methods", type="card", card=card)
    return str(made["id"])


async def test_method_is_attached_and_made_default_when_its_webhook_is_held(shop: Shop) -> None:
    """M22: a confirmed SetupIntent attached the method at Stripe; the object just read is applied."""
    for route in ("attach", "default"):
        buyer, _ = await shop.buyer()
        assert (await shop.service.get(METHODS, buyer.headers)).status_code == 200
        answer = await shop.service.send("POST", "/v1/customers/me/setup-intents", buyer.headers)
        secret = answer.json()["setup_intent"]["client_secret"]
        confirmed = await shop.stripe.control("POST", "confirm", client_secret=secret)
        body = {"payment_method_id": confirmed["payment_method"]}
        if route == "attach":
            answer = await shop.service.send("POST", METHODS, buyer.headers, {**body, "use_as_default": True})
            assert answer.status_code == 201, answer.text
        else:
            answer = await shop.service.send("PUT", DEFAULT, buyer.headers, body)
            assert answer.status_code == 200, answer.text
        assert answer.json()["payment_method"]["is_default"] is True
        listed = (await shop.service.get(METHODS, buyer.headers)).json()["data"]
        assert confirmed["payment_method"] in [method["id"] for method in listed]


async def test_detach_is_judged_on_the_object_just_read_when_its_webhook_is_held(shop: Shop) -> None:
    """M22: the default was changed in the Dashboard a moment ago; the card that is charged now is not detached."""
    buyer, first = await shop.buyer()
    made = await shop.bought(buyer.headers, [{"price_id": await shop.price()}], payment_method_id=first)
    second = await shop.card(buyer)
    await shop.stripe.post(f"/v1/subscriptions/{made['id']}", default_payment_method=second)
    answer = await shop.service.send("DELETE", f"{METHODS}/{second}", buyer.headers)
    problem(answer, 409, "payment_method_in_use")
    answer = await shop.service.send("DELETE", f"{METHODS}/{first}", buyer.headers)
    assert answer.status_code == 204, answer.text


async def test_default_reaches_subscriptions_that_stripe_lists_when_the_cache_is_behind(shop: Shop) -> None:
    """M27: a subscription got a card of its own in the Dashboard, and another one is not known here yet."""
    buyer, first = await shop.buyer()
    made = await shop.bought(buyer.headers, [{"price_id": await shop.price()}], payment_method_id=first)
    price = made["items"][0]["price"]["id"]
    own = await shop.card(buyer)
    await shop.stripe.post(f"/v1/subscriptions/{made['id']}", default_payment_method=own)
    unknown = await shop.stripe.post(
        "/v1/subscriptions",
        customer=buyer.customer_id,
        items=[{"price": await shop.price(unit_amount=500)}],
        default_payment_method=own,
    )
    waiting = await shop.stripe.post(
        "/v1/subscriptions",
        customer=buyer.customer_id,
        items=[{"price": price}],
        default_payment_method=own,
        payment_behavior="default_incomplete",
    )
    chosen = await shop.card(buyer)
    answer = await shop.service.send("PUT", DEFAULT, buyer.headers, {"payment_method_id": chosen})
    assert answer.status_code == 200, answer.text
    assert (await shop.true(made["id"]))["default_payment_method"] == chosen
    assert (await shop.true(unknown["id"]))["default_payment_method"] == chosen
    # Stripe changes no payment method of a subscription that waits for its first payment.
    assert (await shop.true(waiting["id"]))["default_payment_method"] == own
    await shop.cache_is_true()


async def test_purchase_attaches_the_pages_own_method_when_it_is_nobodys(shop: Shop) -> None:
    """M26: attach and buy in one call; a repeated call does both once."""
    buyer, _ = await shop.buyer(card=None)
    method = await fresh(shop)
    items = [{"price_id": await shop.price()}]
    first = await shop.add(buyer.headers, items, payment_method_id=method, key="fresh")
    assert first.status_code == 201, first.text
    made = first.json()["subscription"]
    assert (made["status"], made["default_payment_method_id"]) == ("active", method)
    again = await shop.add(buyer.headers, items, payment_method_id=method, key="fresh")
    assert again.content == first.content
    assert len(await shop.all_of(buyer)) == 1
    listed = (await shop.service.get(METHODS, buyer.headers)).json()["data"]
    assert [one["id"] for one in listed] == [method]
    # Another customer does not get at it by its id.
    other, _ = await shop.buyer(card=None)
    problem(await shop.add(other.headers, items, payment_method_id=method), 404, "not_found")
    # A change takes a fresh one as well.
    second = await fresh(shop, "5555555555554444")
    answer = await shop.change(buyer.headers, made["id"], payment_method_id=second)
    assert answer.status_code == 200, answer.text
    assert answer.json()["subscription"]["default_payment_method_id"] == second
    await shop.cache_is_true()


@pytest.mark.parametrize(
    ("number", "kept"), [("4000000000000002", False), ("4000000000000341", True)], ids=["attach", "charge"]
)
async def test_purchase_leaves_no_subscription_when_the_pages_method_declines(
    shop: Shop, number: str, kept: bool
) -> None:
    """M26: declined when it is attached, or when it is charged: 402 both times, and nothing is bought."""
    buyer, _ = await shop.buyer(card=None)
    method = await fresh(shop, number)
    items = [{"price_id": await shop.price()}]
    answer = await shop.add(buyer.headers, items, payment_method_id=method)
    assert problem(answer, 402, "card_declined")["decline_code"] == "generic_decline"
    assert await shop.all_of(buyer) == []
    unsettled = "select id from operations where settled_at is null and actor_id = $1"
    assert await shop.service.fetch(unsettled, buyer.customer_id) == []
    listed = (await shop.service.get(METHODS, buyer.headers)).json()["data"]
    assert [one["id"] for one in listed] == ([method] if kept else [])
    # A subscription keeps its card when the new one cannot be attached.
    good = await shop.bought(buyer.headers, items, payment_method_id=await fresh(shop))
    if not kept:
        refused = await fresh(shop, number)
        answer = await shop.change(buyer.headers, good["id"], payment_method_id=refused)
        problem(answer, 402, "card_declined")
        true = await shop.true(good["id"])
        assert true["default_payment_method"] == good["default_payment_method_id"]


async def by_invoice(shop: Shop, quantity: int = 4, **terms: Any) -> tuple[Person, dict[str, Any]]:
    """A subscription that the operator bills by sent invoices due in 30 days; its first invoice is paid."""
    buyer, _ = await shop.buyer(card=None)
    price = await shop.price(await shop.product(shared=True))
    made = await shop.stripe.post(
        "/v1/subscriptions",
        customer=buyer.customer_id,
        items=[{"price": price, "quantity": quantity}],
        collection_method="send_invoice",
        days_until_due=30,
        metadata={"billing_shared_subscription_owner": buyer.customer_id},
        **terms,
    )
    if made["status"] != "trialing":
        await shop.stripe.post(f"/v1/invoices/{made['latest_invoice']}/pay", paid_out_of_band=True)
    await shop.service.refresh("subscription", made["id"])
    return buyer, await shop.subscription(buyer.headers, made["id"])


async def by_debit(
    shop: Shop, quantity: int = 4, debit: str = "pm_sepaDebit", **price: Any
) -> tuple[Person, dict[str, Any]]:
    """A subscription that was bought by card and is paid by bank debit since."""
    buyer, made = await team(shop, quantity, **price)
    await pay_by(shop, buyer, made["id"], debit)
    return buyer, made


async def put_seats(shop: Shop, who: Any, subscription_id: str, total: int) -> Any:
    path = f"/v1/shared-subscriptions/{subscription_id}/seats"
    return await shop.service.send("PUT", path, who, {"total": total})


async def total(shop: Shop, subscription_id: str) -> int:
    return int((await shop.true(subscription_id))["items"]["data"][0]["quantity"])


async def newest_invoice(shop: Shop, subscription_id: str) -> dict[str, Any]:
    true = await shop.true(subscription_id)
    return dict(await shop.stripe.get(f"/v1/invoices/{true['latest_invoice']}"))


async def test_seats_stand_and_the_invoice_is_told_when_invoices_are_sent(shop: Shop) -> None:
    """M8, T2: Stripe holds nothing back for a sent invoice, so the seats are there and the invoice is told."""
    buyer, made = await by_invoice(shop)
    assert made["collection_method"] == "send_invoice"
    answer = await put_seats(shop, buyer.headers, made["id"], 5)
    assert answer.status_code == 200, answer.text
    assert answer.json()["subscription"]["shared"]["seats"]["total"] == await total(shop, made["id"]) == 5
    invoice = await newest_invoice(shop, made["id"])
    payment = answer.json()["payment"]
    assert (invoice["status"], payment["kind"]) == ("open", "payment")
    assert payment["hosted_invoice_url"] == invoice["hosted_invoice_url"]
    assert payment["status"] == "requires_payment_method"
    await shop.stripe.post(f"/v1/invoices/{invoice['id']}/pay", paid_out_of_band=True)
    # To shrink, and to switch the price, work the same way.
    answer = await put_seats(shop, buyer.headers, made["id"], 2)
    assert answer.status_code == 200, answer.text
    assert await total(shop, made["id"]) == 2
    dearer = await shop.price(await shop.product(shared=True), unit_amount=3000)
    switch = [{"id": made["items"][0]["id"], "price_id": dearer}]
    answer = await shop.change(buyer.headers, made["id"], items=switch)
    assert answer.status_code == 200, answer.text
    assert answer.json()["payment"]["hosted_invoice_url"] is not None


async def test_seats_of_added_people_stand_when_invoices_are_sent(shop: Shop) -> None:
    """M8: the member change that buys seats follows the way of paying too."""
    buyer, made = await by_invoice(shop, 1)
    body = {"add": [{"email": f"by-invoice-{n}@example.com"} for n in range(3)], "over_capacity": "add_seats"}
    path = f"/v1/shared-subscriptions/{made['id']}/users"
    answer = await shop.service.send("PATCH", path, buyer.headers, body)
    assert answer.status_code == 200, answer.text
    assert [result["outcome"] for result in answer.json()["results"]] == ["applied"] * 4
    assert answer.json()["payment"]["hosted_invoice_url"] is not None
    assert await total(shop, made["id"]) == 3


async def test_seats_stand_while_a_debit_is_processing_when_paid_by_bank(shop: Shop) -> None:
    """M8, T2: a bank debit takes days; the seats are there meanwhile, and stay once it is paid."""
    buyer, made = await by_debit(shop)
    answer = await put_seats(shop, buyer.headers, made["id"], 6)
    assert answer.status_code == 200, answer.text
    payment = answer.json()["payment"]
    assert (payment["kind"], payment["status"]) == ("payment", "processing")
    assert (answer.json()["subscription"]["status"], await total(shop, made["id"])) == ("active", 6)


@pytest.mark.parametrize("place", ["customer", "customer's source", "subscription's source"])
async def test_payment_behavior_follows_the_method_that_stripe_charges(shop: Shop, place: str) -> None:
    """M8: Stripe takes the subscription's method, its source, the customer's method, the customer's source."""
    buyer, made = await team(shop)
    path = f"/v1/subscriptions/{made['id']}"
    customer = f"/v1/customers/{buyer.customer_id}"
    await shop.stripe.post(path, default_payment_method="")
    debit = await shop.card(buyer, "pm_sepaDebit")
    if place == "customer":
        await shop.stripe.post(customer, invoice_settings={"default_payment_method": debit})
        held = False
    else:
        source = await shop.stripe.post(f"{customer}/sources", source="tok_chargeCustomerFail")
        chosen = "" if place == "customer's source" else debit
        await shop.stripe.post(
            customer, invoice_settings={"default_payment_method": chosen}, default_source=source["id"]
        )
        if place == "subscription's source":
            await shop.stripe.post(path, default_source=source["id"])
        held = True
    await shop.service.refresh("subscription", made["id"])
    answer = await put_seats(shop, buyer.headers, made["id"], 6)
    assert answer.status_code == (202 if held else 200), answer.text
    # A card that declines holds the change back; a debit lets it stand.
    assert await total(shop, made["id"]) == (4 if held else 6)
    assert answer.json()["payment"]["status"] == ("requires_payment_method" if held else "processing")


async def test_purchase_is_active_while_its_debit_is_processing(shop: Shop) -> None:
    """M8: a bank debit as the payment method of a purchase."""
    buyer, _ = await shop.buyer(card=None)
    debit = await shop.card(buyer, "pm_sepaDebit")
    answer = await shop.add(buyer.headers, [{"price_id": await shop.price()}], payment_method_id=debit)
    assert answer.status_code == 201, answer.text
    assert answer.json()["subscription"]["status"] == "active"
    assert answer.json()["payment"]["status"] == "processing"


async def test_raise_is_refused_while_an_earlier_raise_is_unpaid(shop: Shop) -> None:
    """Readings Money 6: one raise at a time stands before its payment; a service key is not bound."""
    for owner, made in (await by_invoice(shop), await by_debit(shop)):
        assert (await put_seats(shop, owner.headers, made["id"], 6)).status_code == 200
        invoice = await newest_invoice(shop, made["id"])
        refused = problem(await put_seats(shop, owner.headers, made["id"], 7), 409, "invoice_unpaid")
        assert (refused["invoice_id"], refused["invoice_status"]) == (invoice["id"], "open")
        assert refused["hosted_invoice_url"] == invoice["hosted_invoice_url"]
        acting = as_service("admin", acting_for=owner.customer_id)
        problem(await put_seats(shop, acting, made["id"], 7), 409, "invoice_unpaid")
        added = [{"email": f"later-{n}.{made['id'].lower()}@example.com"} for n in range(7)]
        path = f"/v1/shared-subscriptions/{made['id']}/users"
        body = {"add": added, "over_capacity": "add_seats"}
        answer = await shop.service.send("PATCH", path, owner.headers, body)
        assert "invoice_unpaid" in answer.text
        assert await total(shop, made["id"]) == 6
        answer = await put_seats(shop, as_service("write"), made["id"], 7)
        assert answer.status_code == 200, answer.text
        # Once every raise is paid, the next one goes.
        for unpaid in (await shop.stripe.get("/v1/invoices", subscription=made["id"], status="open"))["data"]:
            await shop.stripe.post(f"/v1/invoices/{unpaid['id']}/pay", paid_out_of_band=True)
        assert (await put_seats(shop, owner.headers, made["id"], 8)).status_code == 200


async def test_first_purchase_by_debit_is_not_bounded_and_its_raise_is(shop: Shop) -> None:
    """Decision 0004: a purchase may be of any quantity; while it is unpaid, one raise goes by 5 seats at most."""
    buyer, _ = await shop.buyer(card=None)
    debit = await shop.card(buyer, "pm_sepaDebit")
    price = await shop.price(await shop.product(shared=True))
    answer = await shop.add(buyer.headers, [{"price_id": price, "quantity": 50}], payment_method_id=debit)
    assert (answer.status_code, answer.json()["payment"]["status"]) == (201, "processing")
    bought = answer.json()["subscription"]["id"]
    refused = problem(await put_seats(shop, buyer.headers, bought, 56), 409, "unsecured_raise_limit")
    assert refused["allowed"] == 5
    assert (await put_seats(shop, buyer.headers, bought, 55)).status_code == 200
    problem(await put_seats(shop, buyer.headers, bought, 56), 409, "invoice_unpaid")
    assert await total(shop, bought) == 55


async def test_results_show_the_unpaid_invoice_when_no_seats_could_be_bought(
    stripe_simulator: str, own_database: str
) -> None:
    """API: the details of an error stand beside each result too, with the link only for those who may see it."""
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, own_database, MANAGERS_BUY_SEATS="true") as service,
    ):
        shop = Shop(service)
        owner, made = await by_invoice(shop)
        manager = await service.person(
            "manager", billing_shared_subscription_id=made["id"], billing_shared_subscription_role="manager"
        )
        assert (await put_seats(shop, owner.headers, made["id"], 6)).status_code == 200
        path = f"/v1/shared-subscriptions/{made['id']}/users"
        filling = {"add": [{"email": f"filling-{n}@example.com"} for n in range(5)]}
        assert (await service.send("PATCH", path, owner.headers, filling)).status_code == 200
        names = ("invoice_id", "invoice_status", "hosted_invoice_url", "credit")
        for who, number in ((owner, 1), (manager, 2)):
            problem_told = problem(await put_seats(shop, who.headers, made["id"], 7), 409, "invoice_unpaid")
            expected = {name: problem_told[name] for name in names}
            assert (expected["hosted_invoice_url"] is None) == (who is manager)
            added = [{"email": f"unpaid-{number}-{n}@example.com"} for n in range(7)]
            body = {"add": added, "over_capacity": "add_seats"}
            refused = problem(await service.send("PATCH", path, who.headers, body), 409, "invoice_unpaid")
            shown = list(refused["results"])
            alone = await service.fetch(
                "select id from operations where kind = 'update_subscription' order by created_at desc limit 1"
            )
            for operation_id in (refused["operation_id"], alone[0]["id"]):
                found = await service.send("GET", f"/v1/operations/{operation_id}", who.headers)
                shown += found.json()["results"]
            assert [{name: result[name] for name in names} for result in shown] == [expected] * 16
            told_of_all = refused.get("hosted_invoice_url"), refused["invoice_id"], refused["credit"]
            assert told_of_all == (expected["hosted_invoice_url"], expected["invoice_id"], 0)


async def test_raise_is_bounded_by_what_was_paid_when_it_stands_before_its_payment(shop: Shop) -> None:
    """Readings Money 6: 20 % of the paid quantity, at least 5 seats."""
    small, made = await by_invoice(shop, 10)
    refused = problem(await put_seats(shop, small.headers, made["id"], 16), 409, "unsecured_raise_limit")
    assert refused["allowed"] == 5
    assert await total(shop, made["id"]) == 10
    assert (await put_seats(shop, small.headers, made["id"], 15)).status_code == 200
    large, made = await by_debit(shop, 50)
    refused = problem(await put_seats(shop, large.headers, made["id"], 61), 409, "unsecured_raise_limit")
    assert refused["allowed"] == 10
    extra = [{"price_id": await shop.price(), "quantity": 11}]
    answer = await shop.change(large.headers, made["id"], items=extra)
    problem(answer, 409, "unsecured_raise_limit")
    assert (await put_seats(shop, large.headers, made["id"], 60)).status_code == 200
    # A trial costs nothing yet.
    trying, made = await by_invoice(shop, 10, trial_period_days=14)
    assert (await put_seats(shop, trying.headers, made["id"], 30)).status_code == 200
    # A card pays first, so nothing bounds it; nor a key that acts for nobody.
    carded, made = await team(shop)
    assert (await put_seats(shop, carded.headers, made["id"], 40)).status_code == 200
    _, made = await by_invoice(shop, 10)
    assert (await put_seats(shop, as_service("write"), made["id"], 100)).status_code == 200


@pytest.mark.parametrize("unit_amount", [1200, 0])
async def test_raise_is_bounded_by_its_renewal_when_the_period_ends_in_a_moment(
    shop: Shop, unit_amount: int
) -> None:
    """Readings Money 6: a raise in the last second costs nothing yet; a free price never does."""
    owner, made = await by_debit(shop, 10, unit_amount=unit_amount)
    end = (await shop.true(made["id"]))["items"]["data"][0]["current_period_end"]
    await shop.stripe.control("POST", "clock", freeze=True)
    await shop.stripe.advance(end - (await shop.stripe.control("GET", "clock"))["now"] - 1)
    await shop.listen()
    answer = await put_seats(shop, owner.headers, made["id"], 300)
    if unit_amount:
        assert problem(answer, 409, "unsecured_raise_limit")["allowed"] == 5
    assert await total(shop, made["id"]) == (10 if unit_amount else 300)


async def test_results_tell_the_bound_when_the_seats_of_a_mixed_call_were_not_bought(shop: Shop) -> None:
    """Figures of an error stand in its result also if the rest of the call was accepted."""
    owner, made = await by_invoice(shop, 2)
    path = f"/v1/shared-subscriptions/{made['id']}/users"
    first = await shop.service.send("PATCH", path, owner.headers, {"add": [{"email": "mixed@example.com"}]})
    assert first.status_code == 200, first.text
    added = [{"email": "mixed@example.com"}, *({"email": f"mixed-{n}@example.com"} for n in range(7))]
    body = {"add": added, "over_capacity": "add_seats"}
    answer = await shop.service.send("PATCH", path, owner.headers, body)
    assert answer.status_code == 200, answer.text
    present, *others = answer.json()["results"]
    assert present["outcome"] == "unchanged"
    told = {(one["outcome"], one["code"], one["allowed"]) for one in others}
    assert told == {
        ("applied", None, None),
        ("refused", "unsecured_raise_limit", 5),
        ("failed", "unsecured_raise_limit", 5),
    }


@pytest.mark.parametrize("effect", ["before", "after"])
async def test_purchase_attaches_once_when_stripe_answers_500_to_it(shop: Shop, effect: str) -> None:
    """M26: Stripe keeps a 500 under its key, whether the method was attached or not; the purchase goes on."""
    buyer, _ = await shop.buyer(card=None)
    method = await fresh(shop)
    await shop.stripe.add_fault(
        method="POST", path="/v1/payment_methods/{id}/attach", status=500, effect=effect, save=True
    )
    items = [{"price_id": await shop.price()}]
    made = await shop.bought(buyer.headers, items, payment_method_id=method)
    assert (made["status"], made["default_payment_method_id"]) == ("active", method)
    assert len(await shop.all_of(buyer)) == 1


async def test_purchase_names_the_method_when_it_was_detached_before(shop: Shop) -> None:
    """M26: a detached method belongs to nobody too, and Stripe never takes it again."""
    buyer, _ = await shop.buyer(card=None)
    method = await shop.card(buyer)
    assert (await shop.service.send("DELETE", f"{METHODS}/{method}", buyer.headers)).status_code == 204
    items = [{"price_id": await shop.price()}]
    refused = problem(await shop.add(buyer.headers, items, payment_method_id=method), 422, "invalid_request")
    assert [error["pointer"] for error in refused["errors"]] == ["/payment_method_id"]
    assert await shop.all_of(buyer) == []


async def source_of(shop: Shop, buyer: Person, token: str = "tok_visa") -> str:
    """A card saved as a source; the customer's first one becomes the default source."""
    made = await shop.stripe.post(f"/v1/customers/{buyer.customer_id}/sources", source=token)
    await shop.service.refresh("customer", buyer.customer_id)
    return str(made["id"])


async def test_default_source_is_in_use_when_a_subscription_is_charged_to_it(shop: Shop) -> None:
    """M23: a customer with a default source and no default payment method: the source is what Stripe charges."""
    buyer, _ = await shop.buyer(card=None)
    source = await source_of(shop, buyer)
    items = [{"price": await shop.price()}]
    made = await shop.stripe.post("/v1/subscriptions", customer=buyer.customer_id, items=items)
    assert made["status"] == "active"
    listed = (await shop.service.get(METHODS, buyer.headers)).json()["data"]
    assert [(one["id"], one["type"], one["is_default"]) for one in listed] == [(source, "card", True)]
    other = await shop.card(buyer)
    await shop.listen()
    answer = await shop.service.send("DELETE", f"{METHODS}/{source}", buyer.headers)
    problem(answer, 409, "payment_method_in_use")
    assert await shop.asked("POST", f"/v1/payment_methods/{source}/detach") == 0
    # A default payment method comes before the source.
    answer = await shop.service.send("PUT", DEFAULT, buyer.headers, {"payment_method_id": other})
    assert answer.status_code == 200, answer.text
    listed = (await shop.service.get(METHODS, buyer.headers)).json()["data"]
    assert {one["id"]: one["is_default"] for one in listed} == {other: True, source: False}
    answer = await shop.service.send("DELETE", f"{METHODS}/{source}", buyer.headers)
    assert answer.status_code == 204, answer.text
    await shop.cache_is_true()


async def test_default_replaces_a_subscriptions_own_source(shop: Shop) -> None:
    """M23: a subscription's own source wins over the customer's default method, so it is replaced too."""
    buyer, first = await shop.buyer()
    source = await source_of(shop, buyer)
    items = [{"price": await shop.price()}]
    made = await shop.stripe.post(
        "/v1/subscriptions", customer=buyer.customer_id, items=items, default_source=source
    )
    answer = await shop.service.send("DELETE", f"{METHODS}/{source}", buyer.headers)
    problem(answer, 409, "payment_method_in_use")
    answer = await shop.service.send("PUT", DEFAULT, buyer.headers, {"payment_method_id": first})
    assert answer.status_code == 200, answer.text
    assert (await shop.true(made["id"]))["default_payment_method"] == first


async def test_raise_is_refused_while_any_invoice_is_past_its_due_date(shop: Shop) -> None:
    """Readings Money 6: a renewal that was never paid stops raises once it is due, and not before."""
    buyer, made = await by_invoice(shop)
    try:
        # The renewal is finalised an hour after it was made, and is due 30 days later.
        await shop.stripe.control("POST", "clock", advance=32 * 86_400)
        await shop.service.refresh("subscription", made["id"])
        renewal = await newest_invoice(shop, made["id"])
        assert (renewal["status"], renewal["billing_reason"]) == ("open", "subscription_cycle")
        answer = await put_seats(shop, buyer.headers, made["id"], 5)
        assert answer.status_code == 200, answer.text
        raised = await newest_invoice(shop, made["id"])
        await shop.stripe.post(f"/v1/invoices/{raised['id']}/pay", paid_out_of_band=True)
        await shop.stripe.control("POST", "clock", advance=30 * 86_400)
        await shop.service.refresh("subscription", made["id"])
        refused = problem(await put_seats(shop, buyer.headers, made["id"], 6), 409, "invoice_unpaid")
        assert refused["invoice_id"] == renewal["id"]
        assert "due date" in refused["detail"]
    finally:
        await shop.stripe.control("POST", "clock", unfreeze=True)


@pytest.fixture
def own_database(postgres_url: str, template_database: str) -> Iterator[str]:
    url = databases.clone(postgres_url, template_database)
    yield url
    databases.drop(postgres_url, url)


async def test_payment_hides_the_payers_own_when_a_manager_buys(
    stripe_simulator: str, own_database: str
) -> None:
    """Design, the table of roles: a manager sees neither payment methods nor links to the payer's invoices."""
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, own_database, MANAGERS_BUY_SEATS="true") as service,
    ):
        shop = Shop(service)
        buyer, made = await team(shop)
        await pay_by(shop, buyer, made["id"], DECLINED)
        manager = await service.person(
            "manager",
            billing_shared_subscription_id=made["id"],
            billing_shared_subscription_role="manager",
        )
        path = f"/v1/shared-subscriptions/{made['id']}"
        added = [{"email": f"managers-{n}@example.com"} for n in range(5)]
        answers = [
            await put_seats(shop, manager.headers, made["id"], 5),
            await service.send(
                "PATCH", f"{path}/users", manager.headers, {"add": added, "over_capacity": "add_seats"}
            ),
        ]
        for answer in answers:
            payment = answer.json()["payment"]
            assert (payment["status"], payment["decline_code"]) == (
                "requires_payment_method",
                "generic_decline",
            )
            assert (payment["payment_method_id"], payment["hosted_invoice_url"]) == (None, None)
            assert payment["client_secret"] is not None


@pytest.mark.parametrize("behavior", ["void", "keep_as_draft", "mark_uncollectible"])
async def test_raise_is_refused_when_collection_is_paused(shop: Shop, behavior: str) -> None:
    """M8: nobody would collect the raise, so an end user gets no seats for it; fewer seats are not refused."""
    buyer, card = await shop.buyer()
    price = await shop.price(await shop.product(shared=True), unit_amount=1200)
    made = await shop.bought(buyer.headers, [{"price_id": price, "quantity": 4}], payment_method_id=card)
    await shop.stripe.post(f"/v1/subscriptions/{made['id']}", pause_collection={"behavior": behavior})
    await shop.listen()
    path = f"/v1/shared-subscriptions/{made['id']}"
    for method, end in (("PUT", "seats"), ("POST", "quote")):
        answer = await shop.service.send(method, f"{path}/{end}", buyer.headers, {"total": 400})
        assert problem(answer, 409, "unsecured_raise_limit")["allowed"] == 0
    assert (await shop.true(made["id"]))["items"]["data"][0]["quantity"] == 4
    answer = await shop.service.send("PUT", f"{path}/seats", as_service("admin"), {"total": 5})
    assert answer.status_code == 200, answer.text
    answer = await shop.service.send(
        "PUT", f"{path}/seats", buyer.headers, {"total": 4, "forgo_credit": True}
    )
    assert answer.status_code == 200, answer.text


async def test_quote_is_refused_when_its_raise_would_be(shop: Shop) -> None:
    """M8: a quote that could never be executed promises nothing."""
    buyer, _ = await shop.buyer()
    price = await shop.price(await shop.product(shared=True), unit_amount=1200)
    made = await shop.stripe.post(
        "/v1/subscriptions",
        customer=buyer.customer_id,
        items=[{"price": price, "quantity": 4}],
        collection_method="send_invoice",
        days_until_due=30,
    )
    await shop.listen()
    path = f"/v1/shared-subscriptions/{made['id']}/quote"
    owner = {"billing_shared_subscription_owner": buyer.customer_id}
    await shop.stripe.post(f"/v1/subscriptions/{made['id']}", metadata=owner)
    await shop.listen()
    answer = await shop.service.send("POST", path, buyer.headers, {"total": 400})
    assert problem(answer, 409, "unsecured_raise_limit")["allowed"] == 5
