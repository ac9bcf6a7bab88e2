"""A service with a database of its own, because the log is one for the whole database."""

from collections.abc import AsyncIterator

import pytest

from testkit.company import Service, running_service
from testkit.receiver import Receiver, receiving
from testkit.simulator import Simulator, new_account_key


@pytest.fixture
async def service(stripe_simulator: str, database_url: str, plain_logs: None) -> AsyncIterator[Service]:
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, database_url) as running,
    ):
        yield running


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one
