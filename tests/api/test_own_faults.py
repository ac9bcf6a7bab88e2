"""Problems that are the service's own, not the caller's."""

from __future__ import annotations

from testkit.company import running_service
from testkit.problems import problem
from testkit.service import as_service
from testkit.simulator import Simulator


async def test_a_fault_of_the_service_is_an_internal_error(
    database_url: str, stripe_account: Simulator, plain_logs: None
) -> None:
    """Somebody has taken away a column that the service reads. The answer says nothing of it."""
    async with running_service(stripe_account, database_url) as service:
        company = await service.company()
        await service.fetch("alter table subscriptions rename column status to taken_away")
        answer = await service.get(f"/v1/subscriptions/{company.subscription_id}", company.owner.headers)
        document = problem(answer, 500, "internal_error")
        assert "taken_away" not in answer.text
        assert document["request_id"] == answer.headers["x-request-id"]


async def test_no_endpoint_is_made_without_a_key_for_its_secret(
    database_url: str, stripe_account: Simulator
) -> None:
    async with running_service(stripe_account, database_url, WEBHOOK_ENCRYPTION_KEYS="") as service:
        body = {"url": "https://app.example.com/hooks"}
        answer = await service.send("POST", "/v1/webhook-endpoints", as_service("admin"), body)
        problem(answer, 503, "webhooks_unavailable")
