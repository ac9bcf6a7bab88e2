"""A few callers write as fast as they may while Stripe is slow: everybody else's reads are answered as ever."""

import asyncio
import statistics
import time
from collections import Counter
from contextlib import ExitStack

import httpx
import pytest

from testkit.company import Company, Person, new_email, running_service
from testkit.service import api_process, service_environment
from testkit.simulator import Simulator, new_account_key

WRITERS, WRITES_A_SECOND, BURST = 5, 5, 50
SECONDS, BURST_SECONDS = 6.0, 10.0
IN_FLIGHT = 4
STRIPE_LATENCY = 0.4
SLOWEST_READ = 0.5
"""Seconds, of 95 % of the reads; on an idle machine it is under 0.05."""
DEFAULTS = {"WRITE_RATE_LIMIT": "5", "USER_IN_FLIGHT": str(IN_FLIGHT), "SERVICE_KEY_IN_FLIGHT": "64"}


@pytest.mark.timeout(120)
@pytest.mark.timed
async def test_reads_are_answered_when_five_logins_write_at_their_rate(
    stripe_simulator: str, database_url: str
) -> None:
    """W6: before, 95 % of other people's reads took up to 2 s, and some were answered 503."""
    with ExitStack() as processes:
        async with (
            Simulator(stripe_simulator, new_account_key()) as stripe,
            running_service(stripe, database_url) as service,
        ):
            company = await service.company(seats=1000, users=WRITERS)
            writers = [await company.seated("manager", "manager") for _ in range(WRITERS)]
            environment = service_environment(
                database_url=database_url, stripe_base=stripe.base_url, stripe_key=stripe.api_key, **DEFAULTS
            )
            url, _ = await asyncio.to_thread(processes.enter_context, api_process(environment))
            await stripe.add_fault(latency_s=STRIPE_LATENCY, times=0)
            # The server ends idle connections after 5 s: the client does so first.
            limits = httpx.Limits(max_connections=500, keepalive_expiry=2.0)
            async with httpx.AsyncClient(base_url=url, timeout=60.0, limits=limits) as client:
                # The first round is not judged: its burst meets a server that has just started.
                await _slowest_read(client, company, writers)
                slowest = await _slowest_read(client, company, writers)
            await asyncio.to_thread(processes.close)
    assert slowest < SLOWEST_READ, f"95 % of the reads within {slowest:.3f} s"


async def _slowest_read(client: httpx.AsyncClient, company: Company, writers: list[Person]) -> float:
    """Return the seconds within which 95 % of the reads were answered while all writers wrote."""
    writes: Counter[int] = Counter()
    writing = asyncio.gather(*(_write(client, company, dict(one.headers), writes) for one in writers))
    # To send and refuse the burst takes both processes a moment.
    for _ in range(int(BURST_SECONDS * 10)):
        if writes.total() >= WRITERS * (BURST - IN_FLIGHT):
            break
        await asyncio.sleep(0.1)
    reads = await _read(client, company)
    await writing
    assert not [status for status, _ in reads if status != 200], Counter(status for status, _ in reads)
    assert set(writes) <= {200, 202, 429} and writes[200] + writes[202], writes
    return statistics.quantiles([seconds for _, seconds in reads], n=20)[-1]


async def _write(
    client: httpx.AsyncClient, company: Company, who: dict[str, str], answers: Counter[int]
) -> None:
    """Send what the rate allows at once, then a change every fifth of a second, whatever became of those before."""

    async def one() -> None:
        body = {"add": [{"email": new_email()}]}
        answers[(await client.patch(f"{company.path}/users", headers=who, json=body)).status_code] += 1

    sent = [asyncio.create_task(one()) for _ in range(BURST)]
    for _ in range(int(SECONDS * WRITES_A_SECOND)):
        sent.append(asyncio.create_task(one()))
        await asyncio.sleep(1 / WRITES_A_SECOND)
    await asyncio.gather(*sent)


async def _read(client: httpx.AsyncClient, company: Company) -> list[tuple[int, float]]:
    """Read the subscription ten times a second as somebody else; status and seconds of each."""

    async def one() -> tuple[int, float]:
        began = time.monotonic()
        response = await client.get(company.path, headers=dict(company.user.headers))
        return response.status_code, time.monotonic() - began

    sent = []
    for _ in range(int(SECONDS * 10)):
        sent.append(asyncio.create_task(one()))
        await asyncio.sleep(0.1)
    return await asyncio.gather(*sent)
