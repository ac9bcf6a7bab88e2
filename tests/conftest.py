"""The parts that tests run against: PostgreSQL and the stand-in for Stripe, both real processes."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from app.commands.local_postgres import LocalPostgres, state_directory
from tests.support import databases
from tests.support.simulator import Simulator, new_account_key, running_simulator


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The maintenance database of `TEST_DATABASE_URL`'s server, or of one shared by all test processes."""
    configured = os.environ.get("TEST_DATABASE_URL")
    if configured:
        yield configured
        return
    server = LocalPostgres(state_directory(databases.CHECKOUT) / "tests", fast=True)
    server.start()
    try:
        yield server.url("postgres")
    finally:
        server.stop()


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> str:
    return databases.ensure_template(postgres_url)


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A fresh, migrated database."""
    url = databases.clone(postgres_url, template_database)
    yield url
    databases.drop(postgres_url, url)


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A fresh database without tables."""
    url = databases.create_empty(postgres_url)
    yield url
    databases.drop(postgres_url, url)


@pytest.fixture(scope="session")
def stripe_simulator() -> Iterator[str]:
    """The base URL of a simulator process."""
    with running_simulator() as base_url:
        yield base_url


@pytest.fixture
async def stripe_account(stripe_simulator: str) -> AsyncIterator[Simulator]:
    """A simulated account of this test's own; `api_key` and `base_url` configure the service."""
    async with Simulator(stripe_simulator, new_account_key()) as simulator:
        yield simulator
