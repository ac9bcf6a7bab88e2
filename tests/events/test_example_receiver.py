"""The receiver of docs/how-to/react-to-changes.md takes what the service sends, and nothing else."""

import asyncio
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from app.events.delivering import Deliverer, Patience
from app.events.secrets import EndpointSecrets
from app.events.sending import WebhookSender
from app.sharing.invitation_tokens import InvitationTokens
from app.sharing.sent_invitations import renderer
from testkit.company import Service, new_email
from testkit.ports import free_port
from testkit.processes import running
from testkit.service import ENCRYPTION_KEY, INVITATION_SECRET, as_service, inherited

ADMIN = as_service("admin")


@pytest.fixture
async def deliverer(service: Service) -> AsyncIterator[Deliverer]:
    await service.fill()
    await service.announce()
    async with WebhookSender(live=False, seconds=5.0) as sender:
        render = renderer(service.context, InvitationTokens([INVITATION_SECRET]))
        secrets = EndpointSecrets([ENCRYPTION_KEY])
        yield Deliverer(service.context, sender, secrets, Patience(5.0, 60.0, 3600.0), render)


async def test_receiver_prints_what_was_signed_and_refuses_the_rest(
    service: Service, deliverer: Deliverer
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/hooks"
    made = await service.send(
        "POST", "/v1/webhook-endpoints", ADMIN, {"url": url, "types": ["access.changed"]}
    )
    environment = {**inherited(), "WEBHOOK_SECRET": made.json()["secret"]}
    command = [sys.executable, "-m", "examples.webhook_receiver", str(port)]
    with running("receiver", command, environment) as process:
        company = await service.company(users=0)
        await company.change(company.owner.headers, add=[new_email()])
        await service.announce()
        stop = asyncio.Event()
        working = asyncio.create_task(deliverer.keep_delivering(stop))
        await asyncio.to_thread(process.wait_for_line, rf"access\.changed {company.owner.customer_id}")
        async with httpx.AsyncClient() as client:
            forged = await client.post(url, content=b"{}", headers={"webhook-id": "evt_1"})
        assert forged.status_code == httpx.codes.UNAUTHORIZED
        stop.set()
        await working
