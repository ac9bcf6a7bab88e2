"""The parts that tests run against: PostgreSQL, the stand-in for Stripe and the service, all real."""

import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from app.commands.local_postgres import LocalPostgres, state_directory
from app.postgres.database import Connection, Database
from app.postgres.tables import MIRRORED, refreshes, webhook_events
from testkit import databases
from testkit.company import Service, running_service
from testkit.live import Live
from testkit.ports import free_port
from testkit.service import WEBHOOK_SECRET, api_process, service_environment, worker_process
from testkit.simulator import Simulator, new_account_key, running_simulator

LONGEST = [
    Path(__file__).parent / name
    for name in (
        "exactly_once/test_seeds.py",
        "exactly_once/test_proofs.py",
        "adversary/test_canaries.py",
        "money/test_money_lives.py",
        "exactly_once/test_schedules.py",
        "house/test_docs.py",
        "copy/test_event_orders.py",
        "money/test_year.py",
        "money/test_quotes.py",
        "sharing/test_last_seat.py",
        "adversary/test_fuzz.py",
    )
]
"""The files that take longest. They begin first, so that at the end no process is left to work alone."""
assert all(path.is_file() for path in LONGEST)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of LONGEST in front."""
    items.sort(key=lambda item: LONGEST.index(item.path) if item.path in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def enabled_loggers() -> Iterator[None]:
    """A test that leaves a logger disabled fails itself, and not some test that comes after it."""
    yield
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    disabled = [each.name for each in loggers if each.disabled]
    for name in disabled:
        logging.getLogger(name).disabled = False
    assert not disabled


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


@pytest.fixture
async def database(module_database_url: str) -> AsyncIterator[Database]:
    database = await Database.connect(module_database_url, pool_size=6)
    async with database.connection() as connection:
        for table in (*MIRRORED, refreshes, webhook_events):
            await connection.execute(f"delete from {table.name}")
    yield database
    await database.close()


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    """In autocommit."""
    async with database.connection() as connection:
        yield connection


@pytest.fixture(scope="module")
def module_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A fresh, migrated database that the module's tests share."""
    url = databases.clone(postgres_url, template_database)
    yield url
    databases.drop(postgres_url, url)


@pytest.fixture(scope="module")
async def service(
    stripe_simulator: str, module_database_url: str, plain_logs: None
) -> AsyncIterator[Service]:
    """With default settings; tests make companies of their own in it."""
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, module_database_url) as running,
    ):
        yield running


@pytest.fixture(scope="session")
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
