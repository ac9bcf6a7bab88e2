"""The gateway over a simulated account."""

from collections.abc import AsyncIterator

import pytest

from app.stripe.client import StripeClient
from app.stripe.gateway import StripeGateway
from testkit.simulator import Simulator


@pytest.fixture
async def client(stripe_account: Simulator) -> AsyncIterator[StripeClient]:
    client = StripeClient(stripe_account.api_key, api_base=stripe_account.base_url)
    yield client
    await client.close()


@pytest.fixture
def gateway(client: StripeClient) -> StripeGateway:
    return StripeGateway(client, livemode=False)
