"""A change that sent nothing before its deadline is withdrawn whole: nothing of it goes on behind the 503."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import orjson
import pytest

from app.domain.ids import SubscriptionId
from app.operations import store
from app.operations.lifecycle import Event, State
from app.postgres.database import Database
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
    done = await service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 8})
    assert done.status_code == 200, done.text
    assert (await company.state())["items"]["data"][0]["quantity"] == 8


async def discard(database: Database, operation_id: str, token: UUID) -> bool:
    async with database.transaction() as connection:
        return await store.discard(connection, operation_id, token)


async def test_change_is_not_withdrawn_when_its_sending_is_being_recorded(service: Service) -> None:
    """Its caller was told that nothing was sent, the request was on its way, and no operation knew of it any more."""
    database, operation_id, token = service.context.database, f"op_{uuid4().hex}", uuid4()
    async with database.transaction() as connection:
        await store.insert(
            connection,
            operation_id=operation_id,
            subscription_id=SubscriptionId("sub_any"),
            kind="cancel_subscription",
            principal="user:any",
            actor_id=None,
            source="api",
            request={},
            steps=[{"position": 0, "action": "cancel_subscription", "state": "planned", "details": {}}],
            lease_token=token,
            lease_seconds=30.0,
        )
    async with database.transaction() as connection:
        (step,) = await store.steps(connection, operation_id)
        await store.transition(connection, operation_id, step, Event.SEND_RECORDED, token=token)
        withdrawal = asyncio.create_task(discard(database, operation_id, token))
        await service.waits_for_a_lock()
    assert not await withdrawal
    async with database.connection() as connection:
        (step,) = await store.steps(connection, operation_id)
    assert step.state is State.IN_FLIGHT
