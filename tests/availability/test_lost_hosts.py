"""A host that vanishes or freezes in the middle of an operation: its locks and leases are free within seconds."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import httpx
import pytest

from testkit.company import Company, Service, new_email, running_service
from testkit.database_proxy import DatabaseProxy, proxied
from testkit.processes import RunningProcess
from testkit.service import api_process, service_environment, worker_process
from testkit.simulator import Simulator, new_account_key

LEASE = "3"
ADDITIONS = 40
BATCHES = 8
"""Of additions, until one is stopped while it holds locks. A busy machine may be done with one before."""
FREE_AFTER, FREE_AFTER_BEFORE_17 = 15.0, 45.0
"""Seconds within which another process changes the subscription; PostgreSQL 17 knows a limit of a transaction."""
PROBES = 11.0
"""Seconds until the kernel ends a connection whose other end answers no keep-alive probe."""
SETTLED_AFTER = 40.0
STRIPE_LATENCY = 0.1

LOCKS_HELD = """
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'coseat' and backend_xid is not null
      and xact_start < clock_timestamp() - interval '0.1 seconds'"""


@dataclass
class Hosts:
    """Two API processes, the first behind `proxy`, and a worker, over one database and one account."""

    company: Company
    first: httpx.AsyncClient
    second: httpx.AsyncClient
    process: RunningProcess
    proxy: DatabaseProxy

    @property
    def service(self) -> Service:
        return self.company.service

    async def holds_locks(self) -> bool:
        """Is there a transaction that has written and that nobody goes on with?"""
        await asyncio.sleep(0.2)
        [row] = await self.service.fetch(LOCKS_HELD)
        return bool(row["count"])

    async def limits_transactions(self) -> bool:
        [row] = await self.service.fetch("select current_setting('server_version_num')::int >= 170000 as new")
        return bool(row["new"])

    async def change_at_second(self) -> None:
        """Change the subscription's people through the second process. AssertionError if it takes too long."""
        began = time.monotonic()
        longest = FREE_AFTER if await self.limits_transactions() else FREE_AFTER_BEFORE_17
        while True:
            response = await self.second.patch(
                f"{self.company.path}/users",
                headers=dict(self.company.owner.headers),
                json={"update": [{"customer_id": self.company.user.customer_id, "role": "manager"}]},
            )
            if response.status_code == 200:
                assert response.json()["results"][0]["outcome"] in ("applied", "unchanged"), response.text
                assert time.monotonic() - began < longest
                return
            assert time.monotonic() - began < longest, response.text
            await asyncio.sleep(0.2)


@asynccontextmanager
async def hosts(stripe_simulator: str, database_url: str) -> AsyncIterator[Hosts]:
    with ExitStack() as processes:
        async with (
            Simulator(stripe_simulator, new_account_key()) as stripe,
            running_service(stripe, database_url) as service,
            proxied(database_url) as proxy,
        ):
            company = await service.company(seats=BATCHES * ADDITIONS + 10)

            def environment(url: str) -> dict[str, str]:
                return service_environment(
                    database_url=url,
                    stripe_base=stripe.base_url,
                    stripe_key=stripe.api_key,
                    OPERATION_LEASE=LEASE,
                )

            (first, process), (second, _), _ = await asyncio.gather(
                asyncio.to_thread(processes.enter_context, api_process(environment(proxy.url))),
                asyncio.to_thread(processes.enter_context, api_process(environment(database_url))),
                asyncio.to_thread(processes.enter_context, worker_process(environment(database_url))),
            )
            async with (
                httpx.AsyncClient(base_url=first, timeout=100.0) as first_client,
                httpx.AsyncClient(base_url=second, timeout=60.0) as second_client,
            ):
                await stripe.add_fault(method="POST", latency_s=STRIPE_LATENCY, times=0)
                try:
                    yield Hosts(company, first_client, second_client, process, proxy)
                finally:
                    if process.process.poll() is None:
                        process.process.kill()
                    proxy.speak_again()
                    await asyncio.to_thread(processes.close)


@dataclass
class Caught:
    """The additions that were stopped: the task of their call, their operation and their addresses."""

    asked: asyncio.Task[httpx.Response]
    operation_id: str
    emails: list[str]


async def caught(hosts: Hosts, stop: Callable[[], object], go_on: Callable[[], object]) -> Caught:
    """Send additions to the first process, and stop it at a moment at which its transactions hold row locks."""
    for _ in range(BATCHES):
        found = await begin(hosts)
        while not found.asked.done():
            # The additions go on in step with each other, so no fixed pause ends while they write.
            await asyncio.sleep(random.uniform(0, STRIPE_LATENCY))
            stop()
            if await hosts.holds_locks():
                return found
            go_on()
        assert found.asked.result().status_code == httpx.codes.OK, found.asked.result().text
    raise AssertionError("no additions were stopped while they held locks")


async def begin(hosts: Hosts) -> Caught:
    """Send additions to the first process, and wait until one of them is applied."""
    emails = [new_email() for _ in range(ADDITIONS)]
    asked = asyncio.create_task(
        hosts.first.patch(
            f"{hosts.company.path}/users",
            headers=dict(hosts.company.owner.headers),
            json={"add": [{"email": email} for email in emails]},
        )
    )
    while True:
        found = await hosts.service.fetch(
            "select operation_id from operation_steps where state = 'applied' and email = any($1) limit 1",
            emails,
        )
        if found:
            return Caught(asked, found[0]["operation_id"], emails)
        assert not asked.done(), asked.result().text
        await asyncio.sleep(0.02)


async def finished(hosts: Hosts, found: Caught) -> None:
    """Wait for a worker to settle the operation; every result must be what the stand-in shows, once."""
    give_up = time.monotonic() + SETTLED_AFTER
    while True:
        [row] = await hosts.service.fetch("select state from operations where id = $1", found.operation_id)
        if row["state"] == "settled":
            break
        assert time.monotonic() < give_up, "not settled"
        await asyncio.sleep(0.2)
    steps = await hosts.service.fetch(
        "select email, state, code, customer_id from operation_steps where operation_id = $1",
        found.operation_id,
    )
    assert not [dict(step) for step in steps if step["code"]]
    assert {(step["email"], step["state"]) for step in steps} == {
        (email, "applied") for email in found.emails
    }
    truth = await hosts.company.members()
    seated = [
        one for one in await hosts.service.stripe.state("customer") if one["email"] in set(found.emails)
    ]
    assert sorted(one["email"] for one in seated) == sorted(found.emails)
    assert {step["customer_id"] for step in steps} == {one["id"] for one in seated} <= truth.keys()
    rows = await hosts.service.fetch(
        "select id from customers where member_of = $1", hosts.company.subscription_id
    )
    assert {row["id"] for row in rows} == truth.keys()


@pytest.mark.timeout(120)
@pytest.mark.timed
async def test_a_subscription_is_free_within_seconds_when_a_host_is_lost(
    stripe_simulator: str, database_url: str
) -> None:
    """H1: the connections of the first process go silent, without FIN, while its transactions hold row locks."""
    async with hosts(stripe_simulator, database_url) as running:
        found = await caught(running, running.proxy.go_silent, running.proxy.speak_again)
        running.process.process.kill()
        # The proxy's own host answers the probes of the kernel, so it has to end its connections in their place.
        probing = asyncio.create_task(end_after_probes(running))
        await running.change_at_second()
        await finished(running, found)
        probing.cancel()
        await asyncio.gather(found.asked, probing, return_exceptions=True)


async def end_after_probes(hosts: Hosts) -> None:
    """Before PostgreSQL 17 only the kernel ends a session that waits for the rest of a message."""
    if not await hosts.limits_transactions():
        await asyncio.sleep(PROBES)
        await hosts.proxy.shut()


@pytest.mark.timeout(120)
@pytest.mark.timed
async def test_a_subscription_is_free_within_seconds_when_a_process_is_frozen(
    stripe_simulator: str, database_url: str
) -> None:
    """H1: the first process is stopped while its transactions hold row locks, and goes on much later."""
    async with hosts(stripe_simulator, database_url) as running:
        pid = running.process.process.pid
        found = await caught(
            running, partial(os.kill, pid, signal.SIGSTOP), partial(os.kill, pid, signal.SIGCONT)
        )
        if not await running.limits_transactions():
            # Nothing but the end of the frozen process frees a session that waits for the rest of a message.
            asyncio.get_running_loop().call_later(PROBES, running.process.process.kill)
        await running.change_at_second()
        await finished(running, found)
        if running.process.process.poll() is None:
            os.kill(pid, signal.SIGCONT)
            answer = await asyncio.wait_for(found.asked, 30)
            assert answer.status_code in (200, 202, 503), answer.text
            await finished(running, found)
        await asyncio.gather(found.asked, return_exceptions=True)
