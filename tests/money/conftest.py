"""One shop for each module of tests, with an account and a database of its own."""

from collections.abc import AsyncIterator

import pytest

from testkit.company import running_service
from testkit.simulator import Simulator, new_account_key
from tests.money.shop import Shop


@pytest.fixture(scope="module")
async def shop(stripe_simulator: str, module_database_url: str) -> AsyncIterator[Shop]:
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, module_database_url) as service,
    ):
        yield Shop(service)


@pytest.fixture
async def still(stripe_simulator: str, database_url: str) -> AsyncIterator[Shop]:
    """A shop where time moves only when a test moves it."""
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, database_url) as service,
    ):
        await stripe.control("POST", "clock", freeze=True)
        yield Shop(service)


@pytest.fixture
async def hasty(shop: Shop) -> AsyncIterator[Shop]:
    """The same account and database; a request waits a second for its operation, and a lease lasts two."""
    stripe, url = shop.stripe, shop.service.database_url
    async with running_service(stripe, url, OPERATION_DEADLINE="1", OPERATION_LEASE="2") as service:
        yield Shop(service)
