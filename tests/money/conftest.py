"""One shop for each module of tests, with an account and a database of its own."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.billing.shop import Shop
from tests.support import databases
from tests.support.company import running_service
from tests.support.simulator import Simulator, new_account_key


@pytest.fixture(scope="module")
def shop_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A fresh, migrated database that the module's tests share."""
    url = databases.clone(postgres_url, template_database)
    yield url
    databases.drop(postgres_url, url)


@pytest.fixture(scope="module")
async def shop(stripe_simulator: str, shop_database_url: str) -> AsyncIterator[Shop]:
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, shop_database_url) as service,
    ):
        yield Shop(service)
