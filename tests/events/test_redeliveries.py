"""Deliveries that an operator sends again share the places of their endpoint, and none of them is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from app.events.delivering import Deliverer, Patience
from app.events.secrets import EndpointSecrets
from app.events.sending import WebhookSender
from app.events.store import deliveries
from testkit.company import Service
from testkit.receiver import Receiver
from testkit.service import ENCRYPTION_KEY, as_service

ADMIN = as_service("admin")
PATIENCE = Patience(timeout=2.0, retry_max=3600.0, disable_after=432_000.0)


async def as_it_is(event: dict[str, Any]) -> dict[str, Any]:
    return event


@asynccontextmanager
async def working(service: Service, workers: int = 1) -> AsyncIterator[list[Deliverer]]:
    """So many workers deliver until the block ends."""
    async with WebhookSender(live=False, seconds=PATIENCE.timeout) as sender:
        stop, secrets = asyncio.Event(), EndpointSecrets([ENCRYPTION_KEY])
        all_of_them = [
            Deliverer(service.context, sender, secrets, PATIENCE, as_it_is) for _ in range(workers)
        ]
        async with asyncio.TaskGroup() as running:
            for one in all_of_them:
                running.create_task(one.keep_delivering(stop))
            try:
                yield all_of_them
            finally:
                stop.set()


async def endpoint(service: Service, receiver: Receiver) -> str:
    body = {"url": receiver.url, "types": ["owner.changed"]}
    made = await service.send("POST", "/v1/webhook-endpoints", ADMIN, body)
    assert made.status_code == httpx.codes.CREATED, made.text
    return str(made.json()["webhook_endpoint"]["id"])


async def happen(service: Service, subscriptions: int, *, first: int, last: int) -> None:
    """Events of so many subscriptions, with the sequences from `first` to `last` of each."""
    await service.fetch(
        """with log as (
            insert into events (position, id, type, created, subscription_id, sequence, data)
            select 1000 * n + s, 'evt_' || s || '_' || n, 'owner.changed', now(), 'sub_' || s, n,
                '{"owner_id": null, "previous_owner_id": null, "source": "api", "operation_id": null}'
            from generate_series(1, $1::int) s, generate_series($2::int, $3::int) n returning position)
        update event_log set position = (select max(position) from log)""",
        subscriptions,
        first,
        last,
    )


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait up to so many seconds for a condition of this process."""
    for _ in range(int(seconds * 50)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not so within {seconds:g} s")


async def send_again(service: Service, endpoint_id: str) -> int:
    """Ask for every delivery once more, as an operator does; return their number."""
    path = f"/v1/webhook-endpoints/{endpoint_id}/deliveries"
    listed = (await service.get(path, ADMIN, limit=100)).json()["data"]
    for delivery in listed:
        again = await service.send("POST", f"{path}/{delivery['id']}/redeliver", ADMIN)
        assert again.status_code == httpx.codes.ACCEPTED, again.text
    return len(listed)


async def test_eight_requests_are_in_flight_when_a_hundred_deliveries_are_sent_again(
    service: Service, receiver: Receiver
) -> None:
    """Readings, events 13: redeliveries took all 64 places of a worker, several of them for one subscription."""
    endpoint_id = await endpoint(service, receiver)
    await happen(service, 10, first=1, last=10)
    async with working(service):
        await until(lambda: len(receiver.received) == 100)
    assert await send_again(service, endpoint_id) == 100
    await happen(service, 12, first=11, last=12)
    receiver.received.clear()
    receiver.most_at_once = receiver.most_of_one = 0
    receiver.seconds = 0.15
    async with working(service, workers=2):
        await until(lambda: len(receiver.received) == 124)
    assert receiver.most_at_once <= deliveries.IN_FLIGHT
    assert receiver.most_of_one == 1
    assert len({event["id"] for event in receiver.events}) == 124
    for number in range(1, 13):
        own = [e["sequence"] for e in receiver.events if e["subscription_id"] == f"sub_{number}"]
        assert [one for one in own if one > 10] == [11, 12]
    new = [place for place, event in enumerate(receiver.events) if event["sequence"] > 10]
    assert max(new) < 80, "new events do not wait for all redeliveries"


async def test_eight_queues_are_leased_when_six_workers_look_at_the_same_moment(
    service: Service, receiver: Receiver
) -> None:
    """A worker that had counted before another one leased eight queues leased eight more."""
    endpoint_id = await endpoint(service, receiver)
    await happen(service, 60, first=1, last=1)
    receiver.seconds = 30.0
    async with service.context.database.connection() as connection:
        await deliveries.enqueue(connection, endpoint_id)
    async with WebhookSender(live=False, seconds=PATIENCE.timeout) as sender:
        secrets = EndpointSecrets([ENCRYPTION_KEY])
        workers = [Deliverer(service.context, sender, secrets, PATIENCE, as_it_is) for _ in range(6)]
        for _ in range(60):
            await asyncio.gather(*(worker.begin_what_is_due(asyncio.Event()) for worker in workers))
            tries = [task for worker in workers for task in worker.running]
            assert len(tries) == deliveries.IN_FLIGHT
            for task in tries:
                task.cancel()
            await asyncio.wait(tries)
            await service.fetch("update webhook_queues set lease_until = null, lease_token = null")


async def test_redelivery_is_sent_when_the_queues_of_its_endpoint_are_never_empty(
    service: Service, receiver: Receiver
) -> None:
    """It takes turns with the events of its own subscription, and a place is kept for it."""
    endpoint_id = await endpoint(service, receiver)
    await happen(service, 9, first=1, last=1)
    async with working(service):
        await until(lambda: len(receiver.received) == 9)
    receiver.seconds = 0.02
    await happen(service, 9, first=2, last=200)
    async with working(service):
        await until(lambda: len(receiver.received) > 40)
        assert await send_again(service, endpoint_id) >= 40
        await until(lambda: len([e for e in receiver.events if e["sequence"] == 1]) > 9)
        assert len(receiver.received) < 9 * 150
    assert receiver.most_of_one == 1


async def test_redelivery_is_sent_again_when_a_process_was_killed_in_its_try(
    service: Service, receiver: Receiver
) -> None:
    """It was answered 202. The note was deleted before the try, so it was lost with its worker."""
    endpoint_id = await endpoint(service, receiver)
    await happen(service, 1, first=1, last=1)
    async with working(service):
        await until(lambda: len(receiver.received) == 1)
    assert await send_again(service, endpoint_id) == 1
    receiver.seconds = 5.0
    async with working(service) as [deliverer]:
        await until(lambda: receiver.at_once == 1)
        for task in set(deliverer.running):
            task.cancel()
    receiver.seconds = 0.0
    await until(lambda: receiver.at_once == 0)
    receiver.received.clear()
    async with working(service):
        await asyncio.sleep(1.0)
        assert receiver.received == [], "another process may be at it"
        await service.fetch(
            "update webhook_deliveries set again_at = clock_timestamp() where again_at is not null"
        )
        await until(lambda: len(receiver.received) == 1)
    [left] = await service.fetch(
        "select count(*) as number from webhook_deliveries where again_at is not null"
    )
    assert left["number"] == 0
