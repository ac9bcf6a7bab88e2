"""The end of a process: its balancer learns of it first, and nothing that it accepted is dropped."""

import asyncio
import signal
import time

import httpx
import pytest

from app import worker
from app.http.draining import ACCEPTED_SECONDS, Draining
from testkit.company import running_service
from testkit.processes import RunningProcess
from testkit.service import api_process, as_user, service_environment, worker_process
from testkit.simulator import Simulator

SECONDS = 4.0


@pytest.fixture
def environment(stripe_account: Simulator, database_url: str) -> dict[str, str]:
    return service_environment(
        database_url=database_url,
        stripe_base=stripe_account.base_url,
        stripe_key=stripe_account.api_key,
        DRAIN_SECONDS=f"{SECONDS:g}",
    )


def terminate(process: RunningProcess) -> float:
    process.process.send_signal(signal.SIGTERM)
    return time.monotonic()


async def ended(process: RunningProcess, *, within: float) -> int:
    return await asyncio.to_thread(process.process.wait, within)


async def test_process_is_not_ready_at_once_and_accepts_for_the_drain_when_it_is_terminated(
    environment: dict[str, str],
) -> None:
    """U7: 8 of 8,000 requests with a new connection each were reset in rolling restarts."""
    with api_process(environment) as (base_url, process):
        async with httpx.AsyncClient(base_url=base_url) as client:
            assert (await client.get("/readyz")).status_code == 200
        began = terminate(process)
        while time.monotonic() - began < SECONDS / 4:
            # A new connection for each request.
            async with httpx.AsyncClient(base_url=base_url, verify=False) as client:
                ready = await client.get("/readyz")
                assert ready.status_code == 503 and "drain" in ready.text
                answer = await client.get("/v1/products")
                assert answer.status_code == 200 and answer.headers["connection"] == "close"
            await asyncio.sleep(0.05)
        assert await ended(process, within=10) == 0
        assert time.monotonic() - began >= SECONDS


async def test_accepted_request_is_answered_when_the_process_ends_meanwhile(
    stripe_account: Simulator, environment: dict[str, str]
) -> None:
    """U7: a request that outlasts the drain is answered, and the exit code is 0."""
    environment["DRAIN_SECONDS"] = "0"
    await stripe_account.add_fault(method="POST", path="/v1/customers", latency_s=3.0)
    with api_process(environment) as (base_url, process):
        async with httpx.AsyncClient(base_url=base_url, timeout=20) as client:
            creating = asyncio.create_task(client.post("/v1/customers", json={}, headers=as_user("late")))
            await asyncio.sleep(1)
            terminate(process)
            assert (await creating).status_code == 201
        assert await ended(process, within=15) == 0


async def test_worker_ends_with_0_when_it_is_terminated(environment: dict[str, str]) -> None:
    with worker_process({**environment, "LOG_LEVEL": "info"}) as process:
        process.wait_for_line("worker_started")
        terminate(process)
        assert await ended(process, within=15) == 0


async def test_worker_leaves_a_job_to_the_next_one_when_the_job_takes_too_long(
    stripe_account: Simulator, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U7: the lease of the refresh runs out, and another worker takes it."""
    monkeypatch.setattr(worker, "ACCEPTED_SECONDS", 0.5)
    async with running_service(stripe_account, database_url) as service:
        await service.fill()
        await service.fetch(
            """insert into refreshes (id, kind, notifications, notified_at, not_before)
            values ('cus_slow', 'customer', 1, 0, now()) returning id"""
        )
        await stripe_account.add_fault(method="GET", path="/v1/customers/{id}", timeout=30.0)
        stop = asyncio.Event()
        working = asyncio.create_task(worker.work(service.context, stop))
        async with asyncio.timeout(10):
            while True:
                if await service.fetch("select id from refreshes where lease_until > now()"):
                    break
                await asyncio.sleep(0.05)
        stop.set()
        async with asyncio.timeout(3):
            await working


def state(draining: Draining) -> tuple[bool, bool, float]:
    return draining.began, draining.accepts, draining.seconds_left()


def test_accepted_work_has_what_is_left_of_its_time_when_the_process_drains() -> None:
    now = [100.0]
    draining = Draining(accepting=5, clock=lambda: now[0])
    assert state(draining) == (False, True, ACCEPTED_SECONDS)
    draining.begin()
    now[0] = 104.0
    assert state(draining) == (True, True, ACCEPTED_SECONDS)
    now[0] = 112.0
    assert state(draining) == (True, False, ACCEPTED_SECONDS - 7)
    draining.begin()
    now[0] = 200.0
    assert state(draining) == (True, False, 0)


def test_accepting_stops_at_once_when_a_person_interrupts() -> None:
    now = [0.0]
    draining = Draining(accepting=5, clock=lambda: now[0])
    draining.begin()
    draining.begin(at_once=True)
    assert state(draining) == (True, False, ACCEPTED_SECONDS)
