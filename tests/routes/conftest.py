"""One service for each module of tests, with an account and a database of its own."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from tests.support import databases
from tests.support.company import Service, running_service
from tests.support.simulator import Simulator, new_account_key


@pytest.fixture(scope="module")
def module_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A fresh, migrated database that the module's tests share."""
    url = databases.clone(postgres_url, template_database)
    yield url
    databases.drop(postgres_url, url)


@pytest.fixture(scope="module")
async def service(stripe_simulator: str, module_database_url: str) -> AsyncIterator[Service]:
    """With default settings; tests make companies of their own in it."""
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, module_database_url) as running,
    ):
        yield running


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    """Without it an unexpected error is drawn with every local variable, which takes most of a minute."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(),
        ],
    )
