"""A change that sent nothing before its deadline is withdrawn whole: nothing of it goes on behind the 503."""

from collections.abc import AsyncIterator

import orjson
import pytest

from testkit.company import Service, running_service
from testkit.problems import problem

PREVIEW = {"method": "POST", "path": "/v1/invoices/create_preview"}


@pytest.fixture
async def hasty(service: Service) -> AsyncIterator[Service]:
    """The same account and database; a request waits a second for its operation."""
    async with running_service(
        service.stripe, service.database_url, OPERATION_DEADLINE="1", OPERATION_LEASE="20"
    ) as running:
        yield running
        await service.stripe.clear_faults()


@pytest.mark.timed
async def test_discarded_change_applies_what_it_read_when_its_deadline_passes(
    service: Service, hasty: Service
) -> None:
    """The quantity was lowered in the Dashboard, and the event is late. The change reads it, then waits too long."""
    company = await service.company(seats=9)
    item = (await company.state())["items"]["data"][0]["id"]
    path = f"/v1/subscriptions/{company.subscription_id}"
    await service.stripe.post(path, items=[{"id": item, "quantity": 6}], proration_behavior="none")
    await service.stripe.add_fault(**PREVIEW, latency_s=4.0, times=0)
    answer = await hasty.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 7})
    problem(answer, 503, "stripe_unavailable")
    (row,) = await service.fetch(
        "select items::text as items, lease_until is null as is_free from subscriptions join refreshes using (id)"
        " where id = $1",
        company.subscription_id,
    )
    assert [entry["quantity"] for entry in orjson.loads(row["items"])] == [6]
    # Its lease is free, so the next change runs at once.
    assert row["is_free"]
    await service.stripe.clear_faults()
    done = await hasty.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 8})
    assert done.status_code == 200, done.text
    assert (await company.state())["items"]["data"][0]["quantity"] == 8
