"""From an edit at Stripe to the cache, through real processes: whatever arrives, it ends as the truth, row for row."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from app.mirror.store.rows import MIRRORS
from testkit.company import event_of, signed
from testkit.live import Live
from testkit.plans import MONTHLY, TIERS, new_customer, new_plan, new_subscription
from testkit.service import as_service
from testkit.truth import cached_rows, differences

MONTH_SECONDS = 32 * 86_400


async def shared_subscription(live: Live, *, quantity: int = 5) -> tuple[str, str]:
    """A subscription and its owner, cached."""
    plan = await new_plan(live.stripe)
    owner = await new_customer(live.stripe)
    made = await new_subscription(
        live.stripe,
        owner,
        [{"price": plan.price, "quantity": quantity}],
        metadata={"billing_shared_subscription_owner": owner},
    )
    await live.at_rest()
    return made["id"], owner


async def events_about(live: Live, object_id: str) -> list[Any]:
    """Newest first."""
    page = await live.stripe.get("/v1/events", limit=100)
    return [event for event in page["data"] if event["data"]["object"].get("id") == object_id]


@pytest.mark.timed
async def test_an_edit_in_the_dashboard_counts_within_two_seconds(live: Live) -> None:
    subscription, owner = await shared_subscription(live)
    member = await new_customer(live.stripe, card=None, email="ada@example.com")
    await live.at_rest()
    await live.stripe.post(
        f"/v1/customers/{member}",
        metadata={
            "billing_shared_subscription_id": f" {subscription}\t",
            "billing_shared_subscription_role": " Manager ",
        },
    )

    async def seated() -> bool:
        row = await live.row("customer", member)
        return (row["member_of"], row["member_role"]) == (subscription, "manager")

    assert await live.until(seated) < 2.0
    async with httpx.AsyncClient(base_url=live.base_url, headers=as_service("read")) as client:
        answer = (await client.get(f"/v1/shared-subscriptions/{subscription}/users")).json()
    assert [(one["customer_id"], one["role"]) for one in answer["data"]] == [
        (owner, "owner"),
        (member, "manager"),
    ]
    assert (answer["seats"]["total"], answer["seats"]["used"]) == (5, 1)
    await live.at_rest()


async def test_a_product_that_is_shared_no_more(live: Live) -> None:
    plan = await new_plan(live.stripe)
    await live.at_rest()
    assert (await live.row("product", plan.product))["supports_sharing"] is True
    for value, shared in (("", False), (" True ", True), ("tru\u0435", False)):
        await live.stripe.post(
            f"/v1/products/{plan.product}", metadata={"billing_supports_shared_subscriptions": value}
        )
        await live.at_rest()
        assert (await live.row("product", plan.product))["supports_sharing"] is shared


async def test_a_late_update_does_not_revive_a_deleted_customer(live: Live) -> None:
    subscription, _ = await shared_subscription(live)
    member = await new_customer(
        live.stripe, card=None, name="Ada", metadata={"billing_shared_subscription_id": subscription}
    )
    await live.at_rest()
    assert (await live.row("customer", member))["member_of"] == subscription
    await live.stripe.deliveries(hold=True)
    await live.stripe.post(f"/v1/customers/{member}", name="Ada L.")
    await live.stripe.delete(f"/v1/customers/{member}")
    await live.stripe.release_deliveries(order="lifo", spacing_s=0.1)
    await live.stripe.deliveries(hold=False)
    await live.at_rest()
    row = await live.row("customer", member)
    assert (row["existence"], row["email"], row["name"], row["member_of"]) == ("deleted", None, None, None)


async def test_an_owner_who_is_deleted_takes_his_subscription_along(live: Live) -> None:
    subscription, owner = await shared_subscription(live)
    await live.stripe.delete(f"/v1/customers/{owner}")
    await live.at_rest()
    row = await live.row("subscription", subscription)
    assert (row["status"], row["terminal"]) == ("canceled", True)
    assert (await live.row("customer", owner))["existence"] == "deleted"


async def test_a_subscription_with_more_items_than_a_payload_carries(live: Live) -> None:
    plans = [await new_plan(live.stripe, shared=n % 2 == 0) for n in range(12)]
    payer = await new_customer(live.stripe)
    items = [{"price": plan.price, "quantity": n + 1} for n, plan in enumerate(plans)]
    made = await new_subscription(live.stripe, payer, items)
    assert made["items"]["has_more"] is True
    await live.at_rest()
    row = await live.row("subscription", made["id"])
    assert sorted(item["quantity"] for item in row["items"]) == list(range(1, 13))
    first = next(item for item in row["items"] if item["quantity"] == 1)
    await live.stripe.post(f"/v1/subscription_items/{first['id']}", quantity=40)
    await live.at_rest()
    row = await live.row("subscription", made["id"])
    assert max(item["quantity"] for item in row["items"]) == 40


async def test_cards_come_and_go(live: Live) -> None:
    customer = await new_customer(live.stripe)
    await live.at_rest()
    first = (await live.row("customer", customer))["default_payment_method_id"]
    assert (await live.row("payment_method", first))["card"]["last4"] == "4242"
    second = await live.stripe.post("/v1/payment_methods/pm_card_mastercard/attach", customer=customer)
    await live.stripe.post(f"/v1/payment_methods/{first}/detach")
    await live.at_rest()
    assert (await live.row("payment_method", first))["customer_id"] is None
    assert (await live.row("payment_method", second["id"]))["customer_id"] == customer
    assert (await live.row("customer", customer))["default_payment_method_id"] is None


async def test_prices_keep_what_their_events_never_carry(live: Live) -> None:
    tiered = await new_plan(
        live.stripe, unit_amount=None, billing_scheme="tiered", tiers_mode="volume", tiers=TIERS
    )
    many = await new_plan(
        live.stripe, currency_options={"eur": {"unit_amount": 900}, "jpy": {"unit_amount": 150}}
    )
    await live.at_rest()
    tiers = (await live.row("price", tiered.price))["tiers"]
    assert [tier["unit_amount_decimal"] for tier in tiers] == ["900", "649.5"]
    options = (await live.row("price", many.price))["currency_options"]
    assert (options["eur"]["unit_amount"], options["jpy"]["unit_amount"]) == (900, 150)
    await live.stripe.post(f"/v1/prices/{many.price}", active=False, nickname="Old")
    await live.at_rest()
    row = await live.row("price", many.price)
    assert (row["active"], row["nickname"], row["currency_options"]) == (False, "Old", options)


async def test_invoices_of_a_year_with_a_change_and_a_cancellation(live: Live) -> None:
    plan = await new_plan(live.stripe)
    payer = await new_customer(live.stripe)
    made = await new_subscription(live.stripe, payer, [{"price": plan.price, "quantity": 3}])
    item = made["items"]["data"][0]["id"]
    await live.stripe.advance(MONTH_SECONDS / 2)
    await live.stripe.post(f"/v1/subscriptions/{made['id']}", items=[{"id": item, "quantity": 7}])
    await live.stripe.advance(MONTH_SECONDS)
    await live.stripe.delete(f"/v1/subscriptions/{made['id']}")
    await live.at_rest()
    cached = await cached_rows(live.database_url, "invoice")
    own = [row for row in cached.values() if row["subscription_id"] == made["id"]]
    assert len(own) >= 2
    assert {row["customer_id"] for row in own} == {payer}
    assert any(line["proration"] for row in own for line in row["lines"])
    assert (await live.row("subscription", made["id"]))["status"] == "canceled"


async def test_bursts_within_one_second_converge_with_few_fetches(live: Live) -> None:
    subscription, _ = await shared_subscription(live)
    item = (await live.row("subscription", subscription))["items"][0]["id"]
    member = await new_customer(live.stripe, card=None)
    await live.at_rest()
    await live.stripe.deliveries(reorder=0.4, duplicate=0.3)
    await live.stripe.control("POST", "clock", freeze=True)
    before = len(await live.stripe.requests(path=f"/v1/customers/{member}", method="GET"))
    for n in range(40):
        await live.stripe.post(
            f"/v1/customers/{member}", name=f"Name {n}", metadata={"billing_user_id": f"u{n}"}
        )
        if n % 4 == 0:
            await live.stripe.post(
                f"/v1/subscriptions/{subscription}",
                items=[{"id": item, "quantity": 5 + n}],
                proration_behavior="none",
            )
    await live.at_rest()
    row = await live.row("customer", member)
    assert (row["name"], row["user_id"]) == ("Name 39", "u39")
    assert (await live.row("subscription", subscription))["items"][0]["quantity"] == 41
    fetches = [
        entry
        for entry in await live.stripe.requests(path=f"/v1/customers/{member}", method="GET")
        if entry["actor"] == "api"
    ]
    assert 1 <= len(fetches) - before <= 6, "notifications of one object are coalesced"


async def test_edits_of_several_people_at_once_converge(live: Live) -> None:
    """Concurrent editors, deliveries late, doubled and out of order, instants that lag behind the edits."""
    subscription, _ = await shared_subscription(live)
    people = [await new_customer(live.stripe, card=None, email=f"p{n}@example.com") for n in range(4)]
    await live.stripe.deliveries(reorder=0.5, duplicate=0.5)
    await live.stripe.settings(created_lag_s=1.5, date_lag_s=1.5)

    async def edit(person: str, number: int) -> None:
        for turn in range(6):
            there = (turn + number) % 2 == 0
            await live.stripe.post(
                f"/v1/customers/{person}",
                metadata={
                    "billing_shared_subscription_id": subscription if there else "",
                    "billing_shared_subscription_role": "manager" if turn % 3 == 0 else "user",
                },
            )
            await asyncio.sleep(0.05 * number)

    try:
        await asyncio.gather(*(edit(person, number) for number, person in enumerate(people)))
        await live.at_rest()
    finally:
        await live.stripe.settings(created_lag_s=0, date_lag_s=0)
    truth = {
        one["id"]
        for one in await live.stripe.state("customer")
        if one["id"] in people and one["metadata"].get("billing_shared_subscription_id")
    }
    cached = await cached_rows(live.database_url, "customer", people)
    assert {one for one, row in cached.items() if row["member_of"] == subscription} == truth


async def test_an_event_of_another_version_is_only_a_hint(live: Live) -> None:
    """The only delivery of the change says something else than Stripe: what it says is not taken over."""
    subscription, owner = await shared_subscription(live)
    await live.stripe.deliveries(drop=1.0)
    await live.stripe.post(f"/v1/subscriptions/{subscription}", metadata={"note": "changed"})
    state = await live.stripe.get(f"/v1/subscriptions/{subscription}")
    event = event_of(
        "customer.subscription.updated", {**state, "status": "paused"}, created=state["created"] + 5000
    )
    body = json.dumps({**event, "api_version": "2024-06-20"}).encode()
    assert (await live.post(body, signed(body))).status_code == httpx.codes.OK
    await live.at_rest()
    row = await live.row("subscription", subscription)
    assert (row["status"], row["customer_id"]) == ("active", owner)


async def test_a_subscriptions_whole_life_in_random_order(live: Live) -> None:
    plan = await new_plan(live.stripe)
    other = await live.stripe.post(
        "/v1/prices", product=plan.product, currency="usd", unit_amount=2000, recurring=MONTHLY
    )
    payer = await new_customer(live.stripe)
    await live.at_rest()
    for _ in range(2):
        await live.stripe.deliveries(hold=True, duplicate=0.5)
        made = await new_subscription(live.stripe, payer, [{"price": plan.price}], trial_period_days=3)
        item = made["items"]["data"][0]["id"]
        path = f"/v1/subscriptions/{made['id']}"
        await live.stripe.post(path, items=[{"id": item, "quantity": 9}])
        await live.stripe.post(path, items=[{"id": item, "price": other["id"], "quantity": 9}])
        await live.stripe.post(path, cancel_at_period_end=True)
        await live.stripe.post(path, cancel_at_period_end=False)
        await live.stripe.delete(path)
        await live.stripe.release_deliveries(order="random")
        await live.stripe.deliveries(hold=False, duplicate=0)
        await live.at_rest()
        row = await live.row("subscription", made["id"])
        assert (row["status"], row["items"][0]["price_id"]) == ("canceled", other["id"])


async def test_faults_of_stripe_delay_the_cache_and_no_more(live: Live) -> None:
    customer = await new_customer(live.stripe, card=None, name="Before")
    await live.at_rest()
    await live.stripe.add_fault(method="GET", path="/v1/customers/{id}", object=customer, status=500, times=5)
    await live.stripe.control("POST", "clock", freeze=True)
    for n in range(3):
        await live.stripe.post(f"/v1/customers/{customer}", name=f"After {n}")
    await live.at_rest()
    assert (await live.row("customer", customer))["name"] == "After 2"


async def test_the_comparison_with_the_truth_can_fail(live: Live) -> None:
    """Every kind, and every way to differ: else the other tests of this module would prove nothing."""
    await shared_subscription(live)
    await live.stripe.deliveries(drop=1.0)
    await live.at_rest()
    lost = await new_customer(live.stripe, card=None)
    found = await differences(live.stripe, live.database_url)
    assert found == [f"customer {lost} is not cached"]
    await live.stripe.delete(f"/v1/customers/{lost}")
    assert await differences(live.stripe, live.database_url) == []
    for kind in ("product", "price", "customer", "subscription", "payment_method", "invoice"):
        assert await cached_rows(live.database_url, kind), f"nothing of kind {kind} was compared"
    assert set(MIRRORS) == {"product", "price", "customer", "subscription", "payment_method", "invoice"}
