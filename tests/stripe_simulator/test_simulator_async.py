"""The simulator under concurrent calls of the SDK's async client, as the service uses it."""

import anyio
import pytest
import stripe

from tests.stripe_simulator.simulator_support import Account, Catalogue

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_concurrent_writes_make_one_version_each(account: Account, catalogue: Catalogue) -> None:
    http_client = stripe.HTTPXClient(timeout=10)
    client = stripe.StripeClient(account.key, base_addresses={"api": account.url}, http_client=http_client)
    try:
        sub = await client.v1.subscriptions.create_async(
            {"customer": catalogue.customer, "items": [{"price": catalogue.monthly, "quantity": 1}]}
        )
        item = sub.to_dict()["items"]["data"][0]["id"]

        async def change(quantity: int) -> None:
            await client.v1.subscriptions.update_async(
                sub.id, {"items": [{"id": item, "quantity": quantity}], "proration_behavior": "none"}
            )

        async with anyio.create_task_group() as group:
            for quantity in range(2, 42):
                group.start_soon(change, quantity)
    finally:
        await http_client.close_async()  # type: ignore[no-untyped-call]
    states = [version["state"] for version in account.control("GET", f"versions?object={sub.id}")["data"]]
    quantities = [state["items"]["data"][0]["quantity"] for state in states]
    assert sorted(quantities) == list(range(1, 42))


async def test_one_key_sent_many_times_at_once_has_one_effect(account: Account) -> None:
    http_client = stripe.HTTPXClient(timeout=10)
    client = stripe.StripeClient(account.key, base_addresses={"api": account.url}, http_client=http_client)
    found: set[str] = set()

    async def create() -> None:
        made = await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "same"})
        found.add(made.id)

    try:
        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(create)
    finally:
        await http_client.close_async()  # type: ignore[no-untyped-call]
    assert len(found) == 1
    assert len(account.control("GET", "state?type=customer")["data"]) == 1
