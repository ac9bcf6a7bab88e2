"""Objects that cannot be read: recorded with their reason, counted and named, and the others go on."""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from app.mirror import first_fill
from app.mirror import refreshing as sync
from app.mirror.first_fill import Filled
from app.mirror.reconcile import Reconciled, reconcile
from app.mirror.store import refreshes
from app.operating import doctor
from testkit.company import Service, event_of, running_service
from testkit.plans import new_customer, new_plan, new_subscription
from testkit.service import as_service
from testkit.simulator import Simulator
from testkit.truth import cached_rows
from verification.convergence import odd_list

MILLISECONDS = 1_900_000_000_000


@pytest.fixture
async def service(stripe_account: Simulator, database_url: str) -> AsyncIterator[Service]:
    async with running_service(stripe_account, database_url) as service:
        yield service


async def fill(service: Service) -> Filled:
    return await first_fill.fill(service.context, lambda _: None)


async def run(service: Service) -> Reconciled:
    return await reconcile(service.context, report=lambda _: None)


async def unreadable(service: Service) -> dict[str, str]:
    """The reasons by id."""
    rows = await service.fetch("select id, reason from unreadable_objects")
    return {row["id"]: row["reason"] for row in rows}


async def work(service: Service) -> None:
    """Make every due refresh once, as the worker does."""
    async with service.context.database.connection() as connection:
        found = await refreshes.due(connection, limit=50, lease_seconds=30)
    for lease in found:
        await sync.refresh(service.context, lease)


async def named_by_doctor(service: Service) -> dict[str, str]:
    found = await doctor.examine(service.context)
    return {one.object: one.problem for one in found if one.check == "unreadable" and one.severity == "fix"}


async def metric(service: Service, name: str) -> float:
    text = (await service.client.get("/metrics")).text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return float(lines[name])


async def test_fill_and_reconcile_finish_when_one_of_many_objects_cannot_be_read(
    stripe_simulator: str, database_url: str
) -> None:
    """C1, C6: exit codes and the doctor tell, and the worker's rounds go on. The command does it with 10,000."""
    assert await odd_list.run(stripe_simulator, database_url, objects=350) == []


@pytest.mark.parametrize("price_id", ["plan 5€/mo", "plan\x075/mo", "cus_ABCDEFGHIJKLMN"])
async def test_fill_goes_on_when_a_price_has_an_odd_id(service: Service, price_id: str) -> None:
    """C1: one listed price ended the fill, reconcile and the worker's upkeep."""
    plan = await new_plan(service.stripe)
    terms = {
        "product": plan.product,
        "currency": "usd",
        "unit_amount": 500,
        "recurring": {"interval": "month"},
    }
    await service.stripe.control("POST", "with-id", kind="price", id=price_id, params=terms)
    is_legal = price_id == "plan 5€/mo"
    assert await fill(service) == (Filled(3, 0) if is_legal else Filled(2, 1))
    assert set(await cached_rows(service.database_url, "price")) == (
        {plan.price, price_id} if is_legal else {plan.price}
    )
    result = await run(service)
    assert (result.outcome, result.drift, result.unrepaired) == ("finished", 0, 0 if is_legal else 1)
    answer = await service.get("/v1/products", as_service("read"), ids=plan.product)
    assert answer.status_code == httpx.codes.OK


async def odd_subscription(service: Service) -> tuple[str, str, str]:
    """A customer's two subscriptions, of which the second cannot be read; customer, good one, odd one."""
    plan, payer = await new_plan(service.stripe), await new_customer(service.stripe)
    good, odd = [
        (await new_subscription(service.stripe, payer, [{"price": plan.price}]))["id"] for _ in range(2)
    ]
    await service.stripe.show_odd(odd, cancel_at=MILLISECONDS)
    return payer, good, odd


async def shown(service: Service, payer: str) -> set[str]:
    answer = await service.get(f"/v1/customers/{payer}/subscriptions", as_service("read"))
    assert answer.status_code == httpx.codes.OK, answer.text
    return {one["id"] for one in answer.json()["data"]}


async def test_neighbours_are_shown_when_a_subscription_cannot_be_read(service: Service) -> None:
    """C5, C6: an instant in milliseconds was stored, then every list with it was 500."""
    payer, good, odd = await odd_subscription(service)
    assert (await fill(service)).unrepaired == 1
    assert await shown(service, payer) == {good}
    assert (await service.get(f"/v1/subscriptions/{odd}", as_service("read"))).status_code == 404
    result = await run(service)
    assert (result.unrepaired, result.kinds["subscription"].unreadable) == (1, 1)
    assert "cancel_at" in (await named_by_doctor(service))[odd]


async def test_row_stays_as_it_was_when_its_object_becomes_unreadable(service: Service) -> None:
    """C5: the payload and the fetch are refused, the refresh is parked, and reads go on."""
    payer, good, odd = await odd_subscription(service)
    await service.stripe.show_odd(odd)
    await fill(service)
    await work(service)
    assert await shown(service, payer) == {good, odd}
    await service.stripe.show_odd(odd, items={"data": "none", "has_more": False})
    state = await service.stripe.get(f"/v1/subscriptions/{odd}")
    await service.deliver(event_of("customer.subscription.updated", state))
    await service.fetch("update refreshes set not_before = now() returning id")
    await work(service)
    assert list(await unreadable(service)) == [odd]
    rows = await service.fetch("select notifications, dead_at from refreshes where id = $1", odd)
    assert [tuple(row) for row in rows] == [(0, None)], "to fetch it again would change nothing"
    assert await shown(service, payer) == {good, odd}
    await service.fetch("update subscriptions set synced_at = now() - interval '1 hour' returning id")
    fresh = await service.get(f"/v1/subscriptions/{odd}", as_service("read"), fresh="true")
    assert (fresh.status_code, fresh.json()["code"]) == (502, "stripe_rejected")
    assert "data is not a list" in fresh.json()["detail"]


@pytest.mark.parametrize(
    "news", ["event", "fetch", "replay", "reconcile", "reconcile of an equal row", "gone"]
)
async def test_mark_goes_away_when_the_object_is_read_well(service: Service, news: str) -> None:
    """C6: by each way in which the object can be read."""
    customer = await new_customer(service.stripe, card=None, name="Ada")
    if news == "reconcile of an equal row":
        await service.refresh("customer", customer)
    await service.stripe.show_odd(customer, balance="none")
    await fill(service)
    assert list(await unreadable(service)) == [customer] == list(await named_by_doctor(service))
    await service.stripe.show_odd(customer)
    if news == "event":
        await service.deliver_state("customer", await service.stripe.get(f"/v1/customers/{customer}"))
    elif news == "fetch":
        await service.refresh("customer", customer)
    elif news == "replay":
        async with service.context.database.connection() as connection:
            [replayed] = await refreshes.replay(connection, None)
            assert (replayed.id, replayed.kind) == (customer, "customer") and "balance" in str(
                replayed.reason
            )
        await work(service)
    elif news == "gone":
        await service.stripe.control("POST", "reset")
        await service.refresh("customer", customer)
    else:
        result = await run(service)
        assert (result.unrepaired, result.drift) == (0, 1 if news == "reconcile" else 0)
    assert await unreadable(service) == {}
    assert await named_by_doctor(service) == {}
    present = await service.fetch(
        "select name from customers where id = $1 and existence = 'present'", customer
    )
    assert [row["name"] for row in present] == ([] if news == "gone" else ["Ada"])


async def test_fill_goes_on_when_postgresql_cannot_store_an_object(service: Service) -> None:
    """C1: a value that PostgreSQL refuses failed its whole page, at each run again."""
    long = "".join(secrets.token_hex(20_000))
    odd = (await service.stripe.post("/v1/customers", name="Odd"))["id"]
    good = (await service.stripe.post("/v1/customers", name="Good"))["id"]
    await service.stripe.show_odd(odd, email=f"{long}@example.com")
    assert await fill(service) == Filled(2, 1)
    assert set(await cached_rows(service.database_url, "customer")) == {good}
    assert "PostgreSQL" in (await unreadable(service))[odd]
    result = await run(service)
    assert (result.outcome, result.unrepaired) == ("finished", 1)
    async with service.context.database.connection() as connection:
        await refreshes.note(connection, "customer", odd, notified_at=0)
    await work(service)
    assert "PostgreSQL" in (await unreadable(service))[odd]


async def test_payment_methods_are_listed_when_one_cannot_be_read(service: Service) -> None:
    """C6: the first read of a customer failed because of one method, and so did every later one."""
    customer = await new_customer(service.stripe)
    await service.refresh("customer", customer)
    good = await service.stripe.post("/v1/payment_methods/pm_card_mastercard/attach", customer=customer)
    odd = await service.stripe.post("/v1/payment_methods/pm_card_visa/attach", customer=customer)
    await service.stripe.show_odd(odd["id"], card={"exp_month": "May"} | {"brand": ["visa"]})
    answer = await service.get(f"/v1/customers/{customer}/payment-methods", as_service("read"))
    assert answer.status_code == httpx.codes.OK, answer.text
    assert good["id"] in {one["id"] for one in answer.json()["data"]}
    assert list(await unreadable(service)) == [odd["id"]]


async def test_fetch_is_refused_when_stripe_answers_with_another_object(service: Service) -> None:
    """C10: an object of another kind, or with another id than was asked for, was applied."""
    asked = (await service.stripe.post("/v1/customers", name="Asked"))["id"]
    for odd in ({"object": "subscription"}, {"id": "cus_other"}, {"id": "sub_other"}):
        await service.stripe.show_odd(asked, **odd)
        async with service.context.database.connection() as connection:
            await refreshes.note(connection, "customer", asked, notified_at=0)
            await connection.execute("update refreshes set not_before = clock_timestamp()")
        await work(service)
        assert await cached_rows(service.database_url, "customer") == {}
        assert list(await unreadable(service)) == [asked]


async def dead_refresh(service: Service, customer: str) -> None:
    """Let the object's refresh fail to its end, as two minutes of 403 do."""
    await service.stripe.add_fault(
        method="GET", path="/v1/customers/{id}", object=customer, status=403, times=0
    )
    async with service.context.database.connection() as connection:
        await refreshes.note(connection, "customer", customer, notified_at=int(time.time()) - 60)
        for _ in range(refreshes.MAX_ATTEMPTS):
            await connection.execute("update refreshes set not_before = clock_timestamp()")
            await work(service)
    [row] = await service.fetch("select dead_at, last_error from refreshes where id = $1", customer)
    assert row["dead_at"] is not None and row["last_error"] == "stripe_rejected"
    await service.stripe.clear_faults()


async def test_refresh_is_tried_again_when_a_new_event_arrives(service: Service) -> None:
    """C4: a dead refresh was never tried again, and a customer who exists was 404."""
    customer = await new_customer(service.stripe, card=None, name="Ada")
    await dead_refresh(service, customer)
    path = f"/v1/customers/{quote(customer)}"
    assert (await service.get(path, as_service("read"))).status_code == 404
    state = await service.stripe.get(f"/v1/customers/{customer}")
    other = {**event_of("customer.updated", state), "api_version": "2019-01-01"}
    await service.deliver(other)
    await work(service)
    answer = await service.get(path, as_service("read"))
    assert answer.status_code == 200 and "Ada" in answer.text
    assert await metric(service, "coseat_refreshes_dead") == 0


@pytest.mark.parametrize("news", ["event", "read", "reconcile", "equal"])
async def test_alarm_ends_when_the_row_is_mended(service: Service, news: str) -> None:
    """C4: the alarm of a dead refresh stayed although the row was right again."""
    customer = await new_customer(service.stripe, card=None, name="Ada")
    if news == "equal":
        await service.refresh("customer", customer)
    await fill_empty(service)
    await dead_refresh(service, customer)
    assert await metric(service, "coseat_refreshes_dead") == 1
    if news == "event":
        await service.deliver_state("customer", await service.stripe.get(f"/v1/customers/{customer}"))
    elif news == "read":
        await service.refresh("customer", customer)
    else:
        result = await run(service)
        assert (result.drift, result.unrepaired) == (0 if news == "equal" else 1, 0)
    assert await metric(service, "coseat_refreshes_dead") == 0
    assert (await cached_rows(service.database_url, "customer"))[customer]["name"] == "Ada"


async def fill_empty(service: Service) -> None:
    """Let the mirror count as filled without reading a list."""
    await first_fill.check_account(service.context)
    await service.fetch("update account set filled_at = now() returning id")


async def test_product_is_shown_again_when_its_id_is_used_again(service: Service) -> None:
    """C3: created, deleted and created again with one id, it stayed deleted, and reconcile saw no drift."""
    product_id = f"prod_{secrets.token_hex(6)}"

    async def make(name: str) -> dict[str, Any]:
        flags = {"billing_sellable": "true"}
        return dict(await service.stripe.post("/v1/products", id=product_id, name=name, metadata=flags))

    await make("First")
    await service.deliver_events("product.created")
    await service.stripe.delete(f"/v1/products/{product_id}")
    await service.deliver_events("product.deleted")
    assert (await cached_rows(service.database_url, "product"))[product_id]["existence"] == "deleted"
    await service.stripe.advance(60)
    await make("Second")
    await fill_empty(service)
    result = await run(service)
    assert result.kinds["product"].stale == 1 and result.unrepaired == 0
    row = (await cached_rows(service.database_url, "product"))[product_id]
    assert (row["existence"], row["name"]) == ("present", "Second")
    answer = await service.get("/v1/products", as_service("read"), ids=product_id)
    assert [one["name"] for one in answer.json()["data"]] == ["Second"]
