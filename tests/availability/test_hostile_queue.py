"""One tenant has the oldest and the most work in the worker's queues: the others still get their turns."""

import time
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest

from app import worker
from app.mirror.store import refreshes
from app.operations import lease_store
from app.stripe.breaker import FAILURES, Failure
from testkit.company import Company, Service, new_email

BACKLOG = 1000


@pytest.fixture
async def two(service: Service) -> tuple[Company, Company]:
    await service.fetch("update refreshes set notifications = 0")
    await service.fetch("delete from operations where settled_at is null")
    return await service.company(seats=50), await service.company(seats=50)


async def note_backlog(service: Service, company: Company) -> None:
    """A thousand members of the company, and a refresh of each that has been due for an hour."""
    await service.fetch(
        """insert into memberships (customer_id, subscription_id, role)
        select 'cus_backlog' || n, $1, 'user' from generate_series(1, $2) n on conflict do nothing""",
        company.subscription_id,
        BACKLOG,
    )
    await service.fetch(
        """insert into refreshes (id, kind, notifications, notified_at, not_before)
        select 'cus_backlog' || n, 'customer', 1, 0, clock_timestamp() - interval '1 hour'
        from generate_series(1, $1) n""",
        BACKLOG,
    )


async def due(service: Service, **more: Any) -> list[refreshes.Lease]:
    async with service.context.database.connection() as connection:
        return await refreshes.due(connection, limit=worker.CONCURRENCY, lease_seconds=30, **more)


async def test_refreshes_of_others_get_their_turns_when_one_tenant_has_a_backlog(
    service: Service, two: tuple[Company, Company]
) -> None:
    hostile, other = two
    await note_backlog(service, hostile)
    try:
        async with service.context.database.connection() as connection:
            for kind, object_id in (("customer", other.user.customer_id), ("invoice", other.invoice_id)):
                await refreshes.note(connection, kind, object_id, notified_at=1)
            await refreshes.note(connection, "customer", other.stranger.customer_id, notified_at=1)
        await service.fetch("update refreshes set not_before = clock_timestamp() where notified_at = 1")
        first = await due(service, per_tenant=worker.PER_TENANT)
        assert Counter(lease.tenant for lease in first) == {
            hostile.payer.customer_id: worker.PER_TENANT,
            other.payer.customer_id: 2,
            other.stranger.customer_id: 1,
        }
        busy = Counter(lease.tenant for lease in first)
        assert await due(service, per_tenant=worker.PER_TENANT, busy=busy) == []
        busy[hostile.payer.customer_id] -= 1
        (again,) = await due(service, per_tenant=worker.PER_TENANT, busy=busy)
        assert again.tenant == hostile.payer.customer_id
    finally:
        await service.fetch("delete from refreshes where id like 'cus_backlog%'")
        await service.fetch("delete from memberships where customer_id like 'cus_backlog%'")


async def test_operations_of_others_get_their_turns_when_one_tenant_has_a_backlog(
    service: Service, two: tuple[Company, Company]
) -> None:
    hostile, other = two
    await service.fetch(
        """insert into operations
            (id, subscription_id, kind, state, principal, source, request, lease_token, lease_until,
                created_at)
        select 'op_backlog' || n, $1, 'member_change', 'running', 'x', 'api', '{}', gen_random_uuid(),
            now() - interval '1 minute',
            now() - interval '1 hour'
        from generate_series(1, $2) n""",
        hostile.subscription_id,
        BACKLOG,
    )
    try:
        await service.stripe.add_fault(method="POST", path="/v1/customers", status=503, times=0)
        added = await other.change(other.owner.headers, add=[new_email()])
        assert added.status_code == 202, added.text
        await service.fetch(
            "update operations set lease_until = now() - interval '1 second' where settled_at is null"
        )
        async with service.context.database.connection() as connection:
            found = await lease_store.take_orphaned(
                connection, limit=8, lease_token=uuid4(), lease_seconds=30, per_tenant=worker.PER_TENANT
            )
        assert Counter(found.values()) == {
            hostile.subscription_id: worker.PER_TENANT,
            other.subscription_id: 1,
        }
    finally:
        await service.stripe.clear_faults()
        await service.fetch("delete from operations where id like 'op_backlog%'")


async def test_worker_takes_nothing_when_the_breaker_is_open(
    service: Service, two: tuple[Company, Company], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No refresh fails, or becomes dead, while Stripe is away as a whole."""
    company, _ = two
    async with service.context.database.connection() as connection:
        await refreshes.note(connection, "customer", company.user.customer_id, notified_at=1)
    await service.fetch("update refreshes set not_before = now() - interval '1 second' where notified_at = 1")
    breaker = service.context.breakers["background"]
    monkeypatch.setattr(breaker, "clock", time.monotonic)
    for number in range(FAILURES):
        breaker.failed(Failure(str(number), is_certain=True))
    jobs = worker._Jobs(service.context)
    await jobs.begin_what_is_due()
    await jobs.finish(10)
    (row,) = await service.fetch(
        "select notifications, attempts from refreshes where id = $1", company.user.customer_id
    )
    assert (row["notifications"], row["attempts"]) == (1, 0)
    breaker.close()
    await jobs.begin_what_is_due()
    await jobs.finish(10)
    (row,) = await service.fetch(
        "select notifications from refreshes where id = $1", company.user.customer_id
    )
    assert row["notifications"] == 0
