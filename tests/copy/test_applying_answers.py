"""Applying an answer that is older than the lease: it stands only where nothing has been heard of the object since."""

from collections.abc import AsyncIterator

import pytest

from app.mirror import refreshing as sync
from app.mirror.store import refreshes
from app.stripe.gateway import Fetched
from testkit.company import Service, event_of, running_service
from testkit.simulator import Simulator


@pytest.fixture
async def service(stripe_account: Simulator, database_url: str) -> AsyncIterator[Service]:
    async with running_service(stripe_account, database_url) as service:
        yield service


async def created(service: Service) -> tuple[str, Fetched]:
    """A customer whose creation we were answered, and have not applied yet."""
    write = service.context.stripe.customer_creation(email="ada@example.com", name="Ada", metadata={})
    fetched = await write.now("create-1")
    assert fetched.snapshot is not None
    return fetched.snapshot.id, fetched


async def apply(service: Service, customer_id: str, answer: Fetched) -> int:
    """The number of reads that it took."""
    before = len(await service.stripe.requests(method="GET", path=f"/v1/customers/{customer_id}"))
    lease = await sync.take_lease(service.context, "customer", customer_id)
    await sync.apply(service.context, lease, answer)
    return len(await service.stripe.requests(method="GET", path=f"/v1/customers/{customer_id}")) - before


async def name(service: Service, customer_id: str) -> str:
    rows = await service.fetch("select name from customers where id = $1", customer_id)
    return str(rows[0]["name"])


async def test_an_answer_that_nothing_has_overtaken_is_applied_as_it_is(service: Service) -> None:
    customer_id, answer = await created(service)
    assert await apply(service, customer_id, answer) == 0
    assert await name(service, customer_id) == "Ada"


async def test_an_event_that_was_faster_is_not_overwritten(service: Service) -> None:
    customer_id, answer = await created(service)
    changed = await service.stripe.post(f"/v1/customers/{customer_id}", name="Ada Lovelace")
    await service.deliver(event_of("customer.updated", changed))
    assert await apply(service, customer_id, answer) == 1
    assert await name(service, customer_id) == "Ada Lovelace"


async def test_a_notification_that_was_faster_is_not_forgotten(service: Service) -> None:
    customer_id, answer = await created(service)
    await service.stripe.post(f"/v1/customers/{customer_id}", name="Ada Lovelace")
    async with service.context.database.connection() as connection:
        await refreshes.note(connection, "customer", customer_id, notified_at=0)
    assert await apply(service, customer_id, answer) == 1
    assert await name(service, customer_id) == "Ada Lovelace"
