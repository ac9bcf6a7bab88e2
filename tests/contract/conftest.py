"""A running service for each module, companies in it, and a second service whose database refuses."""

from collections.abc import AsyncIterator

import pytest

from testkit.company import running_service
from testkit.database_proxy import proxied
from testkit.simulator import Simulator, new_account_key
from tests.contract.world import World

STRICT = {
    **dict.fromkeys(("READ_RATE_LIMIT", "SERVICE_READ_RATE_LIMIT", "ANONYMOUS_RATE_LIMIT"), "1"),
    "REQUEST_DEADLINE": "0.1",
}


@pytest.fixture(scope="module")
async def world(stripe_simulator: str, module_database_url: str) -> AsyncIterator[World]:
    """Its objects are shared by a module's cases: those that change one make a company of their own."""
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, module_database_url) as service,
        proxied(module_database_url) as door,
        running_service(stripe, door.url) as refused,
        running_service(stripe, module_database_url, **STRICT) as strict,
    ):
        company = await service.company()
        await door.shut()
        yield World(service, refused, strict, company)
