"""What a change has read of its object binds others at once, however long Stripe takes for what follows."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from testkit.company import Company, Service
from testkit.problems import problem

SLOW_CALLS = {
    "pricing": {"method": "POST", "path": "/v1/invoices/create_preview"},
    "write": {"method": "POST", "path": "/v1/subscriptions/{id}"},
}


@pytest.fixture(autouse=True)
async def _no_faults_left(service: Service) -> AsyncIterator[None]:
    yield
    await service.stripe.clear_faults()


async def lower(company: Company, quantity: int) -> None:
    """Lower the quantity in the Dashboard; the event does not come."""
    item = (await company.state())["items"]["data"][0]["id"]
    path = f"/v1/subscriptions/{company.subscription_id}"
    await company.service.stripe.post(
        path, items=[{"id": item, "quantity": quantity}], proration_behavior="none"
    )


async def is_shown(company: Company, quantity: int) -> bool:
    """Wait up to 6 seconds until the row shows the quantity."""
    asked = "select (items->0->>'quantity')::int as quantity from subscriptions where id = $1"
    for _ in range(120):
        await asyncio.sleep(0.05)
        (row,) = await company.service.fetch(asked, company.subscription_id)
        if row["quantity"] == quantity:
            return True
    return False


@pytest.mark.parametrize("slow", SLOW_CALLS)
async def test_addition_is_refused_when_a_slow_change_has_read_fewer_seats(
    service: Service, slow: str
) -> None:
    """I1: the change read 2 seats, and while Stripe took its time, a third member was admitted by the older row."""
    company = await service.company(seats=3)
    await lower(company, 2)
    await service.stripe.add_fault(**SLOW_CALLS[slow], latency_s=15.0, times=1)
    change = asyncio.create_task(
        service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 6})
    )
    try:
        assert await is_shown(company, 2)
        assert not change.done()
        answer = await company.change(company.owner.headers, add=[company.stranger.email])
        problem(answer, 409, "seat_limit_reached")
    finally:
        await service.stripe.clear_faults()
        await asyncio.wait([change])
    assert len(await company.members()) == 2
