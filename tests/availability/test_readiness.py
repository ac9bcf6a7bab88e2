"""Readiness: a process is ready while it can answer reads and accept deliveries, and it says what is wrong."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.operating import readiness
from app.postgres import schema
from app.stripe.breaker import Failure
from testkit.company import Company, Service, breaking_service, event_of, running_service
from testkit.simulator import Simulator, new_account_key

OK = {"state": "ok", "reason": None}
AWAY = {"state": "degraded", "reason": "stripe_unavailable"}


@pytest.fixture
async def service(stripe_account: Simulator, database_url: str) -> AsyncIterator[Service]:
    """Each test breaks something of its own."""
    async with breaking_service(stripe_account, database_url) as running:
        yield running
        await stripe_account.clear_faults()


@pytest.fixture
async def company(service: Service) -> Company:
    return await service.company()


async def ready(service: Service) -> tuple[int, dict[str, Any]]:
    answer = await service.get("/readyz")
    return answer.status_code, answer.json()


def all_ok(**others: Any) -> dict[str, Any]:
    return {**dict.fromkeys(("database", "schema", "account", "stripe", "drain"), OK), **others}


async def test_every_part_is_ok_when_everything_answers(service: Service) -> None:
    assert await ready(service) == (200, {"status": "ok", "checks": all_ok()})


async def test_process_is_ready_when_stripe_is_away(service: Service, company: Company) -> None:
    """U5: reads and deliveries need no call to Stripe, so the process stays in its balancer's list."""
    await ready(service)
    state = await company.state()
    for kind in ("fresh", "write", "background"):
        for number in range(5):
            service.context.breakers[kind].failed(Failure(str(number), is_certain=True))
    await service.stripe.add_fault(status=401, times=0)
    assert await ready(service) == (200, {"status": "degraded", "checks": all_ok(stripe=AWAY)})
    assert (await service.get(company.path, company.user.headers)).status_code == 200
    delivered = await service.deliver(event_of("customer.subscription.updated", state))
    assert delivered.status_code == 200
    await service.stripe.clear_faults()


async def test_state_of_stripe_follows_the_breaker_when_it_closes(service: Service) -> None:
    """U5: the answer was 30 s old before, both ways."""
    await ready(service)
    breaker = service.context.breakers["background"]
    for number in range(5):
        breaker.failed(Failure(str(number), is_certain=True))
    assert (await ready(service))[1]["checks"]["stripe"] == AWAY
    breaker.close()
    assert (await ready(service))[1]["checks"]["stripe"] == OK


async def test_no_call_is_made_when_other_work_has_asked_stripe(service: Service, company: Company) -> None:
    """Readings 10: a quiet process asks once in 30 s, any other never."""
    await ready(service)
    before = len(await service.stripe.requests(path="/v1/account"))
    for _ in range(20):
        await ready(service)
    assert len(await service.stripe.requests(path="/v1/account")) == before


async def test_quiet_process_notices_when_stripe_is_away(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "QUIET_SECONDS", 0.1)
    await ready(service)
    await service.stripe.add_fault(status=401, times=0)
    await asyncio.sleep(0.2)
    for _ in range(20):
        await ready(service)
        await asyncio.sleep(0.05)
        if (await ready(service))[1]["checks"]["stripe"] == AWAY:
            break
    status, found = await ready(service)
    assert (status, found["checks"]["stripe"], found["checks"]["account"]) == (200, AWAY, OK)
    await service.stripe.clear_faults()


async def test_process_is_ready_when_it_starts_while_stripe_is_away(
    stripe_account: Simulator, database_url: str
) -> None:
    """U5, U9: started with a revoked key it can answer reads, and says that it does not know the account."""
    await stripe_account.add_fault(status=401, times=0)
    async with breaking_service(stripe_account, database_url) as service:
        status, found = await ready(service)
    assert (status, found["status"], found["checks"]["stripe"]) == (200, "degraded", AWAY)
    assert found["checks"]["account"] == {"state": "degraded", "reason": "not_known"}
    await stripe_account.clear_faults()


async def test_process_is_unready_when_the_key_is_of_another_account(
    service: Service, stripe_simulator: str
) -> None:
    await service.fill()
    async with (
        Simulator(stripe_simulator, new_account_key()) as other,
        running_service(other, service.database_url) as wrong,
    ):
        status, found = await ready(wrong)
    assert (status, found["status"]) == (503, "unavailable")
    assert found["checks"]["account"] == {"state": "failed", "reason": "wrong_account"}


async def test_process_is_ready_when_the_schema_is_newer_than_needed(service: Service) -> None:
    """U5: a deploy that expands the schema first leaves the older processes ready."""
    await service.fetch("update alembic_version set version_num = '9999'")
    assert (await ready(service))[0] == 200
    await service.fetch("update schema_floor set number = 9999")
    status, found = await ready(service)
    assert (status, found["checks"]["schema"]) == (503, {"state": "failed", "reason": "schema_refused"})
    await service.fetch("update schema_floor set number = 0")
    await service.fetch("update alembic_version set version_num = $1", f"{int(schema.HEAD) - 1:04}")
    assert (await ready(service))[1]["checks"]["schema"]["state"] == "failed"


async def test_process_is_unready_when_the_database_does_not_answer(
    stripe_account: Simulator, database_url: str
) -> None:
    async with (
        running_service(stripe_account, database_url, DATABASE_POOL_SIZE="2") as service,
        service.context.database.reading(),
    ):
        status, found = await ready(service)
    assert (status, found["status"]) == (503, "unavailable")
    assert found["checks"]["database"] == {"state": "failed", "reason": "database_unavailable"}


async def test_process_is_ready_when_the_database_takes_no_writes(service: Service) -> None:
    """U1: reads go on, so a balancer must not take every process away."""
    name = (await service.fetch("select current_database() as name"))[0]["name"]
    await service.fetch(f'alter database "{name}" set default_transaction_read_only = on')
    await service.fetch(
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
        " and datname = current_database()"
    )
    status, found = await ready(service)
    assert (status, found["status"]) == (200, "degraded")
    assert found["checks"]["database"] == {"state": "degraded", "reason": "read_only"}


async def test_question_to_stripe_ends_when_the_process_ends(
    stripe_account: Simulator, database_url: str
) -> None:
    """It went on after its client was closed, and its connection stayed open."""
    await stripe_account.add_fault(latency_s=20, times=0)
    async with running_service(stripe_account, database_url) as service:
        await ready(service)
        [asking] = [task for task in asyncio.all_tasks() if "Readiness._ask" in str(task.get_coro())]
    assert asking.cancelled()
    await stripe_account.clear_faults()
