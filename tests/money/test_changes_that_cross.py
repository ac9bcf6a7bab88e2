"""A change crosses with a purchase, a payment or an end: nothing that was paid is taken away or charged again."""

import asyncio
from typing import Any

import pytest

from app.subscriptions.ends import When
from testkit.company import Company, new_email
from testkit.problems import ok, pointers, problem
from tests.money.shop import CHALLENGED, VISA, Shop, worked_on
from tests.money.test_ends import cancel, in_the_dashboard, mixed, seats
from tests.money.test_waiting_purchases import company_that_pays_by, operation, pay

# ------------------------------------------------------------------------------ quantities that nobody named


@pytest.mark.parametrize("bought", [20, 2])
async def test_quantity_of_the_dashboard_stays_when_a_change_names_only_the_price(
    still: Shop, bought: int
) -> None:
    """Seats that were paid for in the Dashboard a moment ago were taken away, and seats given back were bought."""
    buyer, made = await seats(still, 5)
    [item] = made["items"]
    other = await still.price(item["product"]["id"], unit_amount=500)
    # No event has told of it yet.
    await still.stripe.post(f"/v1/subscriptions/{made['id']}", items=[{"id": item["id"], "quantity": bought}])
    change: dict[str, Any] = {"items": [{"id": item["id"], "price_id": other}]}
    refused = problem(await still.change(buyer.headers, made["id"], **change), 409, "version_conflict")
    assert "quantities" in refused["detail"]
    assert (await still.true(made["id"]))["items"]["data"][0]["quantity"] == bought
    changed = ok(await still.change(buyer.headers, made["id"], **change))["subscription"]["items"][0]
    assert (changed["quantity"], changed["price"]["id"]) == (bought, other)


async def two_kinds_of_seats(shop: Shop) -> tuple[Company, str, str]:
    """A company with two seats of each of two products, whose next invoice asks for the card's holder."""
    company = await company_that_pays_by(shop, VISA)
    price = await shop.price(await shop.product(shared=True))
    path = f"/v1/subscriptions/{company.subscription_id}"
    await shop.stripe.post(path, items=[{"price": price, "quantity": 2}])
    await shop.service.refresh("subscription", company.subscription_id)
    first, second = [one["id"] for one in (await company.state())["items"]["data"]]
    card = await shop.stripe.post(
        f"/v1/payment_methods/{CHALLENGED}/attach", customer=company.payer.customer_id
    )
    await shop.stripe.post(
        f"/v1/customers/{company.payer.customer_id}", invoice_settings={"default_payment_method": card["id"]}
    )
    await shop.service.refresh("customer", company.payer.customer_id)
    return company, first, second


@pytest.mark.parametrize("total", [10, 7])
async def test_total_is_reached_when_the_other_items_seats_were_paid_in_between(
    still: Shop, total: int
) -> None:
    """The quantity was computed before the payment came: 10 seats became 13, and 7 became 10."""
    company, first, second = await two_kinds_of_seats(still)
    path = f"{company.path}/seats"
    raised = ok(
        await still.service.send(
            "PUT", path, company.owner.headers, {"total": 7, "subscription_item_id": second}
        ),
        202,
    )
    await pay(still, raised["payment"])
    body = {"total": total, "subscription_item_id": first}
    asked = await still.service.send("PUT", path, company.owner.headers, body)
    if asked.status_code == 202:
        await pay(still, asked.json()["payment"])
        await worked_on(still, asked.json()["operation_id"])
    assert (await operation(still, raised["operation_id"]))["results"][0]["outcome"] == "applied"
    assert sum(one["quantity"] for one in (await company.state())["items"]["data"]) == total


# ------------------------------------------------------------------------- ends that are taken back with something else


async def ended_early(shop: Shop) -> tuple[Any, dict[str, Any]]:
    """A monthly and a yearly item that end with the month: nothing of the year was credited."""
    buyer, made = await mixed(shop)
    ok(await cancel(shop, buyer.headers, made["id"], {"when": When.EARLIEST.value}))
    return buyer, made


async def taken_back(shop: Shop, subscription_id: str) -> list[dict[str, Any]]:
    """The parameters of the updates that took an end back."""
    sent = await shop.stripe.requests(method="POST", path=f"/v1/subscriptions/{subscription_id}")
    return [one["params"] for one in sent if one["params"].get("cancel_at") == ""]


@pytest.mark.parametrize("beside", ["payment_method_id", "quote_id", "promotion_code"])
async def test_time_that_was_paid_is_not_charged_again_when_an_end_is_taken_back(
    still: Shop, beside: str
) -> None:
    """With something beside it, the end was taken back with Stripe's prorations."""
    buyer, made = await ended_early(still)
    more: dict[str, Any] = {}
    match beside:
        case "payment_method_id":
            more = {beside: await still.card(buyer)}
        case "quote_id":
            quote = await still.preview(buyer.headers, made["id"], cancel_at_period_end=False)
            assert quote["amount_due_now"] == 0
            more = {beside: quote["quote_id"]}
        case _:
            coupon = await still.stripe.post("/v1/coupons", percent_off=10, duration="forever")
            await still.stripe.post(
                "/v1/promotion_codes", promotion={"type": "coupon", "coupon": coupon["id"]}, code="TAKENBACK"
            )
            more = {beside: "TAKENBACK"}
    ok(await still.change(buyer.headers, made["id"], cancel_at_period_end=False, **more))
    [params] = await taken_back(still, made["id"])
    assert params["proration_behavior"] == "none"
    assert (await still.true(made["id"]))["cancel_at"] is None


async def test_items_do_not_change_beside_an_end_that_is_taken_back_without_a_charge(still: Shop) -> None:
    """One call would bill the rest of the year at once: the end goes first, by itself."""
    buyer, made = await ended_early(still)
    item = made["items"][0]["id"]
    change: dict[str, Any] = {"items": [{"id": item, "quantity": 2}]}
    for answer in (
        await still.change(buyer.headers, made["id"], cancel_at_period_end=False, **change),
        await still.service.send(
            "POST",
            f"/v1/subscriptions/{made['id']}/preview",
            buyer.headers,
            {"cancel_at_period_end": False, **change},
        ),
    ):
        refused = problem(answer, 422, "invalid_request")
        assert pointers(refused) == ["/cancel_at_period_end"]
    assert await taken_back(still, made["id"]) == []
    ok(await still.change(buyer.headers, made["id"], cancel_at_period_end=False))
    ok(await still.change(buyer.headers, made["id"], **change))
    [params] = await taken_back(still, made["id"])
    assert params["proration_behavior"] == "none"


async def test_items_change_beside_an_end_of_the_dashboard(still: Shop) -> None:
    """Such an end may have been credited, so what is taken back is billed as any change."""
    buyer, made = await seats(still)
    await in_the_dashboard(still, made["id"], cancel_at_period_end=True)
    item = made["items"][0]["id"]
    items = [{"id": item, "quantity": 6}]
    changed = ok(await still.change(buyer.headers, made["id"], cancel_at_period_end=False, items=items))
    assert changed["subscription"]["cancel_at_period_end"] is False


# ---------------------------------------------------------------------------------- unpaid subscriptions that end


@pytest.mark.timed
@pytest.mark.parametrize("when", [When.NOW, When.PERIOD_END])
async def test_subscription_goes_on_when_it_is_paid_while_its_end_is_on_its_way(
    shop: Shop, when: When
) -> None:
    """The card's holder confirmed between the read and the end: the month was paid, and the subscription was gone."""
    buyer, _ = await shop.buyer(card=CHALLENGED)
    unpaid = await shop.unpaid(buyer.headers, [{"price_id": await shop.price()}])
    made = unpaid.subscription["id"]
    await shop.stripe.add_fault(method="POST", path="/v1/invoices/{id}/void", latency_s=1.5)
    await shop.stripe.add_fault(method="DELETE", path="/v1/subscriptions/{id}", latency_s=1.5)
    ending = asyncio.create_task(cancel(shop, buyer.headers, made, {"when": when.value}))
    await asyncio.sleep(0.7)
    await pay(shop, unpaid.payment)
    problem(await ending, 409, "version_conflict")
    await shop.stripe.clear_faults()
    assert (await shop.true(made))["status"] == "active"
    settled = ok(await worked_on(shop, unpaid.operation_id))
    assert settled["results"][0]["outcome"] == "applied"


async def test_invoice_is_void_when_an_unpaid_subscription_ends(shop: Shop) -> None:
    """It can be paid no more, and the purchase has ended unpaid."""
    buyer, _ = await shop.buyer(card=CHALLENGED)
    unpaid = await shop.unpaid(buyer.headers, [{"price_id": await shop.price()}])
    made = unpaid.subscription["id"]
    ended = ok(await cancel(shop, buyer.headers, made))
    assert ended["subscription"]["status"] == "incomplete_expired"
    invoice = await shop.stripe.get(f"/v1/invoices/{unpaid.subscription['latest_invoice_id']}")
    assert invoice["status"] == "void"
    settled = ok(await worked_on(shop, unpaid.operation_id))
    assert settled["results"][0]["outcome"] == "failed"


async def test_nobody_is_removed_when_the_other_items_give_the_seats_that_are_to_go(still: Shop) -> None:
    """With forgo_credit the answer told a total that was not reached, and the seats were paid for ever after."""
    company, first, second = await two_kinds_of_seats(still)
    await still.stripe.post(
        f"/v1/subscriptions/{company.subscription_id}",
        items=[{"id": second, "quantity": 5}],
        proration_behavior="none",
    )
    await still.service.refresh("subscription", company.subscription_id)
    added = ok(await company.change(company.owner.headers, add=[new_email() for _ in range(5)]))
    leaving = [one["customer_id"] for one in added["results"][:4]]
    body: dict[str, Any] = {"remove": leaving, "release_seats": True, "subscription_item_id": first}
    before = await company.state()
    for forgo in (False, True):
        answer = await company.change(company.owner.headers, **body, forgo_credit=forgo)
        assert pointers(problem(answer, 422, "invalid_request")) == ["/total"]
    assert await company.state() == before
