"""Leases follow the setting: as long as their holder lives, and little longer."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from app.errors import ServiceUnavailable
from app.mirror import refreshing as sync
from app.mirror.store import refreshes
from app.postgres.leases import ASK_AGAIN_SECONDS, LeaseQueues, renewing_lease
from app.stripe.gateway import Fetched
from testkit.company import Service, running_service
from testkit.simulator import Simulator
from testkit.truth import wanted_refreshes

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


@pytest.mark.timed
async def test_what_a_dead_holder_leaves_is_free_after_one_lease(service: Service) -> None:
    person = await service.person("ada")
    await sync.take_lease(service.context, "customer", person.customer_id)
    started = time.monotonic()
    await sync.take_lease(service.context, "customer", person.customer_id)
    assert LEASE * 0.9 <= time.monotonic() - started <= LEASE + ASK_AGAIN_SECONDS + 0.5


async def test_a_call_that_takes_longer_than_a_lease_keeps_it(service: Service) -> None:
    person = await service.person("bob")
    lease = await sync.take_lease(service.context, "customer", person.customer_id)

    async def slow() -> Fetched:
        await asyncio.sleep(3 * LEASE)
        return await service.context.stripe.fetch("customer", person.customer_id)

    applying = asyncio.create_task(sync.apply(service.context, lease, slow))
    for _ in range(10):
        await asyncio.sleep(0.25)
        assert not await is_free(service, person.customer_id)
    assert await applying is not None
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


async def test_lease_of_a_killed_process_is_nothing_to_wait_for_when_it_has_run_out(service: Service) -> None:
    """The proofs of killed processes waited for it, although nothing was left to do."""
    person = await service.person("ida")
    await sync.take_lease(service.context, "customer", person.customer_id)
    assert person.customer_id in await wanted_refreshes(service.database_url)
    await asyncio.sleep(LEASE * 1.2)
    assert person.customer_id not in await wanted_refreshes(service.database_url)


async def test_a_renewal_that_fails_ends_nothing(service: Service) -> None:
    tried = 0

    async def renew(_: object) -> None:
        nonlocal tried
        tried += 1
        raise ServiceUnavailable("away")

    async with renewing_lease(service.context.database, 0.15, renew):
        await asyncio.sleep(0.3)
    assert tried >= 3


WAITERS = 20


@pytest.mark.timed
async def test_waiters_ask_once_a_second_when_another_process_holds_the_lease(service: Service) -> None:
    """W6: only the first of those who wait asks, and they ask in the order in which they came."""
    queues, asked, order = LeaseQueues(), 0, []
    held_until = time.monotonic() + 2.5

    async def attempt() -> bool | None:
        nonlocal asked
        asked += 1
        return True if time.monotonic() > held_until else None

    async def wait(number: int) -> None:
        assert await queues.ask("cus_1", attempt, seconds=10)
        order.append(number)

    waiting = [asyncio.create_task(wait(number)) for number in range(WAITERS)]
    await asyncio.sleep(2.4)
    assert asked == 3 and len(queues) == 1
    await asyncio.gather(*waiting)
    assert order == list(range(WAITERS)) and asked == 3 + WAITERS
    assert len(queues) == 0


@pytest.mark.timed
async def test_a_waiter_gives_up_when_its_time_is_over(service: Service) -> None:
    """W6: whoever waits behind others gives up as early as the first, and leaves nothing behind."""
    queues = LeaseQueues()

    async def never() -> None:
        return None

    started = time.monotonic()
    found = await asyncio.gather(*(queues.ask("cus_1", never, seconds=0.5) for _ in range(3)))
    assert found == [None] * 3 and 0.4 < time.monotonic() - started < 1.5
    cancelled = asyncio.create_task(queues.ask("cus_1", never, seconds=60))
    await asyncio.sleep(0.05)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert len(queues) == 0


@pytest.mark.timed
async def test_a_waiter_is_woken_in_memory_when_its_process_releases_the_lease(service: Service) -> None:
    """W6: it does not wait for the next question, whatever way the lease was released."""
    person = await service.person("eva")
    context, customer_id = service.context, person.customer_id

    async def fetched() -> Fetched:
        return await context.stripe.fetch("customer", customer_id)

    async def fails() -> Fetched:
        raise ServiceUnavailable()

    for release in ("release", "apply", "fail", "refresh"):
        lease = await sync.take_lease(context, "customer", customer_id)
        waiting = asyncio.create_task(sync.take_lease(context, "customer", customer_id))
        await asyncio.sleep(0.2)
        started = time.monotonic()
        match release:
            case "release":
                await sync.release(context, lease)
            case "apply":
                await sync.apply(context, lease, fetched)
            case "fail":
                with pytest.raises(ServiceUnavailable):
                    await sync.apply(context, lease, fails)
            case _:
                await sync.refresh(context, lease)
        taken = await waiting
        assert time.monotonic() - started < 0.6, release
        await sync.release(context, taken)


@pytest.mark.timed
async def test_waiters_hold_no_connection_when_a_lease_is_taken(
    stripe_account: Simulator, database_url: str
) -> None:
    """W6: reads are answered from a pool of two while twenty changes wait for one customer."""
    async with running_service(stripe_account, database_url, DATABASE_POOL_SIZE="2") as service:
        person = await service.person("eva")
        lease = await sync.take_lease(service.context, "customer", person.customer_id)
        waiting = [
            asyncio.create_task(sync.take_lease(service.context, "customer", person.customer_id))
            for _ in range(WAITERS)
        ]
        await asyncio.sleep(0.1)
        for _ in range(10):
            started = time.monotonic()
            assert (await service.get("/v1/customers/me", person.headers)).status_code == 200
            assert time.monotonic() - started < 0.5
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await sync.release(service.context, lease)
