"""Operations that do not end are shown with their age, and an operator ends them by hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.commands.reports import release_operation
from app.errors import BillingError, Conflict, NotFound
from app.operating import doctor
from app.settings import Settings, load_settings
from testkit.company import Company, Service, new_email, running_service
from testkit.service import service_environment
from testkit.simulator import Simulator

CREATES = {"method": "POST", "path": "/v1/customers"}


@pytest.fixture
async def service(stripe_account: Simulator, database_url: str) -> AsyncIterator[Service]:
    async with running_service(
        stripe_account, database_url, OPERATION_DEADLINE="1", OPERATION_LEASE="2"
    ) as running:
        yield running
        await stripe_account.clear_faults()


@pytest.fixture
async def company(service: Service) -> Company:
    return await service.company(seats=9)


@pytest.fixture
def settings(service: Service) -> Settings:
    environment = service_environment(
        database_url=service.database_url,
        stripe_base=service.stripe.base_url,
        stripe_key=service.stripe.api_key,
        OPERATION_LEASE="2",
    )
    return load_settings(environment)


async def stuck(service: Service, company: Company, **fault: Any) -> str:
    """An operation that ends with none of the tries of its request; its id."""
    await service.stripe.add_fault(**CREATES, **fault, times=0)
    answer = await company.change(company.owner.headers, add=[new_email()])
    assert answer.status_code == 202, answer.text
    await service.stripe.clear_faults()
    return str(answer.json()["operation_id"])


async def test_doctor_shows_what_does_not_end_when_the_key_is_revoked(
    service: Service, company: Company
) -> None:
    """U9: pending operations kept their seats without end, and nobody saw them."""
    operation_id = await stuck(service, company, status=401)
    await service.fetch("update operations set created_at = now() - interval '1 hour'")
    await service.stripe.add_fault(status=401, times=0)
    found = {finding.check: finding for finding in await doctor.examine(service.context)}
    assert found["operation"].object == operation_id
    assert "60 minutes" in found["operation"].problem
    assert f"coseat operations release {operation_id}" in found["operation"].fix
    assert "STRIPE_API_KEY" in found["stripe"].fix


async def test_operation_fails_and_frees_its_seat_when_it_was_never_sent(
    service: Service, company: Company, settings: Settings
) -> None:
    """U9: no read is needed for what was never sent, so this works with a revoked key."""
    operation_id = await stuck(service, company, status=401)
    assert (await company.seats())["reserved"] == 1
    await service.stripe.add_fault(status=401, times=0)
    (step,) = await release_operation(settings, operation_id)
    assert (step["state"], step["code"]) == ("failed", "operation_expired")
    await service.stripe.clear_faults()
    assert (await company.seats())["reserved"] == 0
    shown = await service.get(f"/v1/operations/{operation_id}", company.owner.headers)
    assert shown.json()["state"] == "settled"


@asynccontextmanager
async def quiet(service: Service) -> AsyncIterator[None]:
    """Let the late window of every request be over."""
    await service.fetch(
        "update operation_steps set unanswered_at = now() - interval '1 hour' where unanswered_at is not null"
    )
    yield


async def test_release_is_refused_when_a_request_may_still_take_effect(
    service: Service, company: Company, settings: Settings
) -> None:
    operation_id = await stuck(service, company, status=504, proxy=True)
    with pytest.raises(Conflict) as refused:
        await release_operation(settings, operation_id)
    assert "may still take effect" in refused.value.detail
    assert (await company.seats())["reserved"] == 1


async def test_release_settles_by_what_stripe_shows_when_it_was_sent(
    service: Service, company: Company, settings: Settings
) -> None:
    """U9: one read decides, and nothing is sent."""
    lost = await stuck(service, company, status=504, proxy=True)
    made = await stuck(service, company, timeout=True, effect="after")
    async with quiet(service):
        before = len([one for one in await service.stripe.requests(method="POST") if one["actor"] == "api"])
        (first,) = await release_operation(settings, lost)
        (second,) = await release_operation(settings, made)
        after = len([one for one in await service.stripe.requests(method="POST") if one["actor"] == "api"])
    assert (first["state"], first["code"]) == ("failed", "operation_expired")
    assert second["state"] == "applied"
    assert after == before
    assert (await company.seats())["reserved"] == 0


async def test_release_says_so_when_stripe_cannot_be_read(
    service: Service, company: Company, settings: Settings
) -> None:
    operation_id = await stuck(service, company, status=504, proxy=True)
    async with quiet(service):
        await service.stripe.add_fault(status=401, times=0)
        with pytest.raises(BillingError) as refused:
            await release_operation(settings, operation_id)
    assert refused.value.code == "stripe_unavailable"


async def test_release_is_refused_when_there_is_no_such_operation(settings: Settings) -> None:
    with pytest.raises(NotFound):
        await release_operation(settings, "op_absent")
