"""Leases follow the setting: as long as their holder lives, and little longer."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from app.cache import refreshes
from app.errors import ServiceUnavailable
from app.services import sync
from app.services.leases import kept
from app.stripe_gateway.gateway import Fetched
from tests.support.company import Service, running_service
from tests.support.simulator import Simulator

LEASE = 1.0


@pytest.fixture
async def service(stripe_account: Simulator, database_url: str) -> AsyncIterator[Service]:
    async with running_service(stripe_account, database_url, OPERATION_LEASE=str(LEASE)) as service:
        yield service


async def is_free(service: Service, customer_id: str) -> bool:
    async with service.context.database.connection() as connection:
        lease = await refreshes.take(connection, "customer", customer_id, lease_seconds=LEASE)
        if lease is not None:
            await refreshes.release(connection, lease)
    return lease is not None


async def test_what_a_dead_holder_leaves_is_free_after_one_lease(service: Service) -> None:
    person = await service.person("ada")
    await sync.take_lease(service.context, "customer", person.customer_id)
    started = time.monotonic()
    await sync.take_lease(service.context, "customer", person.customer_id)
    assert LEASE * 0.9 <= time.monotonic() - started <= LEASE + 1.0


async def test_a_call_that_takes_longer_than_a_lease_keeps_it(service: Service) -> None:
    person = await service.person("bob")
    lease = await sync.take_lease(service.context, "customer", person.customer_id)

    async def slow() -> Fetched:
        await asyncio.sleep(3 * LEASE)
        return await service.context.stripe.fetch("customer", person.customer_id)

    landing = asyncio.create_task(sync.land(service.context, lease, slow))
    for _ in range(10):
        await asyncio.sleep(0.25)
        assert not await is_free(service, person.customer_id)
    assert await landing is not None
    assert await is_free(service, person.customer_id)


async def test_a_refresh_that_takes_longer_than_a_lease_keeps_it(service: Service) -> None:
    person = await service.person("eve")
    await service.stripe.add_fault(
        method="GET", path="/v1/customers/{id}", object=person.customer_id, latency_s=2.5
    )
    lease = await sync.take_lease(service.context, "customer", person.customer_id)
    refreshing = asyncio.create_task(sync.refresh(service.context, lease))
    await asyncio.sleep(2 * LEASE)
    assert not await is_free(service, person.customer_id)
    assert await refreshing


async def test_a_lease_that_is_anothers_by_now_is_not_prolonged(service: Service) -> None:
    person = await service.person("kim")
    lost = await sync.take_lease(service.context, "customer", person.customer_id)
    await asyncio.sleep(LEASE * 1.2)
    await sync.take_lease(service.context, "customer", person.customer_id)
    async with service.context.database.connection() as connection:
        await refreshes.renew(connection, lost, lease_seconds=60.0)
    await asyncio.sleep(LEASE * 1.2)
    assert await is_free(service, person.customer_id)


async def test_a_renewal_that_fails_ends_nothing(service: Service) -> None:
    tried = 0

    async def renew(_: object) -> None:
        nonlocal tried
        tried += 1
        raise ServiceUnavailable("away")

    async with kept(service.context, 0.15, renew):
        await asyncio.sleep(0.3)
    assert tried >= 3
