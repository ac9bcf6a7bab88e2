"""A service that does not wait long for its operations."""

from collections.abc import AsyncIterator

import pytest

from testkit.company import Service, running_service


@pytest.fixture
async def hasty(service: Service) -> AsyncIterator[Service]:
    """The same account and database; a request waits a second for its operation, and a lease lasts two."""
    async with running_service(
        service.stripe, service.database_url, OPERATION_DEADLINE="1", OPERATION_LEASE="2"
    ) as running:
        yield running
        await service.stripe.clear_faults()
