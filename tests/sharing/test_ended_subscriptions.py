"""The metadata of members of ended subscriptions is cleared, and one member who cannot be read stops nothing."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.operating import upkeep
from testkit.company import Company, Service, running_service
from testkit.simulator import Simulator


@pytest.fixture
async def service(stripe_account: Simulator, database_url: str) -> AsyncIterator[Service]:
    async with running_service(stripe_account, database_url) as service:
        yield service


async def ended(service: Service, number: int) -> list[Company]:
    """Some ended subscriptions with one member each, the manager, in the order of their ids."""
    companies = [await service.company(seats=3, users=0) for _ in range(number)]
    for company in companies:
        await service.stripe.delete(f"/v1/subscriptions/{company.subscription_id}")
        await service.refresh("subscription", company.subscription_id)
    return sorted(companies, key=lambda one: one.subscription_id)


async def refuse(service: Service, *customers: str) -> None:
    for customer in customers:
        await service.stripe.add_fault(
            method="GET", path="/v1/customers/{id}", object=customer, status=403, times=0
        )


async def one_round(service: Service) -> None:
    """Everything that is due is done once, as by the worker."""
    async with asyncio.timeout(60):
        await upkeep.one_round(service.context)


async def tries(service: Service, customer: str) -> int:
    [row] = await service.fetch(
        "select count(*) as number from operation_steps where customer_id = $1 and action = 'remove'",
        customer,
    )
    return int(row["number"])


async def test_member_is_tried_once_in_ten_minutes_when_stripe_refuses_to_show_them(service: Service) -> None:
    """C4: each try was an operation, and the next one began at once, several in a second."""
    [company] = await ended(service, 1)
    await refuse(service, company.manager.customer_id)
    for _ in range(2):
        await one_round(service)
    assert await tries(service, company.manager.customer_id) == 1
    assert set(await company.members()) == {company.manager.customer_id}
    await service.stripe.clear_faults()
    await one_round(service)
    assert await tries(service, company.manager.customer_id) == 1
    for table, column in (
        ("operations", "created_at"),
        ("operations", "settled_at"),
        ("operation_steps", "settled_at"),
    ):
        await service.fetch(f"update {table} set {column} = {column} - interval '10 minutes' returning 1")
    await one_round(service)
    assert await company.members() == {}


async def test_other_subscriptions_are_cleared_when_members_of_the_first_cannot_be_read(
    service: Service,
) -> None:
    """C4, design 4: what cannot be read never stops the rest. It was taken first again and again."""
    companies = await ended(service, 8)
    broken, sound = companies[:7], companies[7]
    for one in broken:
        await refuse(service, *await one.members())
    for _ in range(2):
        await one_round(service)
    assert await sound.members() == {}
    assert [await tries(service, one.manager.customer_id) for one in broken] == [1] * 7


async def test_clean_up_spends_the_rate_of_background_work(service: Service) -> None:
    """Section 4: a clean-up that nobody waits for takes no share from callers."""
    [company] = await ended(service, 1)
    [now] = await service.fetch("select clock_timestamp() as at")
    await one_round(service)
    works = await service.fetch("select distinct work from rate_grants where granted_at > $1", now["at"])
    assert await company.members() == {}
    assert "refresh" in {row["work"] for row in works} <= {"refresh", "bulk"}
