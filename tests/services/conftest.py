"""The service as it runs: API and worker processes that the stand-in delivers signed webhooks to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support import databases
from tests.support.processes import free_port
from tests.support.service import WEBHOOK_SECRET, api_process, service_environment, worker_process
from tests.support.simulator import Simulator, new_account_key
from tests.support.truth import at_rest, cached_rows


@dataclass(frozen=True, slots=True)
class Live:
    stripe: Simulator
    database_url: str
    base_url: str

    async def at_rest(self) -> None:
        await at_rest(self.stripe, self.database_url)

    async def row(self, kind: str, object_id: str) -> dict[str, Any]:
        """The cached row, empty where there is none."""
        return (await cached_rows(self.database_url, kind, [object_id])).get(object_id, {})

    async def until(self, condition: Callable[[], Awaitable[bool]], *, within: float = 15.0) -> float:
        """The seconds until `condition` held. Raises AssertionError if it does not `within` so many."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        while not await condition():
            assert loop.time() - started < within, f"not so within {within} s"
            await asyncio.sleep(0.02)
        return loop.time() - started

    async def post(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        """A delivery that somebody else than the stand-in makes."""
        async with httpx.AsyncClient(base_url=self.base_url, timeout=20.0) as client:
            return await client.post("/webhooks/stripe", content=body, headers=headers)


@pytest.fixture(scope="module")
def live_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    url = databases.clone(postgres_url, template_database)
    yield url
    databases.drop(postgres_url, url)


@pytest.fixture(scope="module")
async def processes(stripe_simulator: str, live_database_url: str) -> AsyncIterator[Live]:
    async with Simulator(stripe_simulator, new_account_key()) as stripe:
        port = free_port()
        secret = await stripe.add_webhook_endpoint(f"http://127.0.0.1:{port}/webhooks/stripe")
        environment = service_environment(
            database_url=live_database_url,
            stripe_base=stripe.base_url,
            stripe_key=stripe.api_key,
            STRIPE_WEBHOOK_SECRETS=f"{secret},{WEBHOOK_SECRET}",
        )
        with api_process(environment, port=port) as (base_url, _), worker_process(environment):
            yield Live(stripe, live_database_url, base_url)


@pytest.fixture
async def live(processes: Live) -> AsyncIterator[Live]:
    """The processes are shared by a module's tests, objects are not; knobs are reset after each test."""
    yield processes
    await processes.stripe.deliveries(delay_s=0, duplicate=0, reorder=0, drop=0, hold=False)
    await processes.stripe.release_deliveries()
    await processes.stripe.control("POST", "clock", unfreeze=True)
    await processes.stripe.clear_faults()
