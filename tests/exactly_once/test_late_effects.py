"""A write that takes effect after its operation was settled: seen by its event, told in the audit trail, counted."""

import time
from typing import Any

import httpx
import pytest

from app.operating import doctor
from app.operating.findings import Finding
from testkit.company import Company, Service, event_of


async def counted(service: Service) -> int:
    await service.context.counts.flush(service.context.database)
    [row] = await service.fetch(
        "select coalesce(sum(number), 0)::int as number from installation_counts where name = 'late_effects'"
    )
    return int(row["number"])


async def added(company: Company) -> str:
    answer = await company.change(company.owner.headers, add=[company.stranger.email])
    assert answer.status_code == httpx.codes.OK, answer.text
    return str(answer.json()["operation_id"])


async def an_hour_ago(service: Service, operation_id: str, state: str) -> None:
    await service.fetch(
        """update operation_steps set settled_at = settled_at - interval '1 hour', state = $2,
            code = case when $2 in ('refused', 'failed') then 'changed_meanwhile' end
        where operation_id = $1""",
        operation_id,
        state,
    )


def caused_by(operation_id: str, state: dict[str, Any], *, later: int = 0) -> dict[str, Any]:
    event = event_of("customer.updated", state, created=int(time.time()) + later)
    return {**event, "request": {"id": "req_1", "idempotency_key": f"{operation_id}/0/0"}}


async def late_entries(company: Company) -> list[dict[str, Any]]:
    answer = await company.service.get(f"{company.path}/audit-events", company.owner.headers)
    assert answer.status_code == httpx.codes.OK, answer.text
    return [entry for entry in answer.json()["data"] if entry["action"] == "late_effect"]


async def test_an_effect_of_ones_own_time_is_nothing_special(service: Service) -> None:
    company, before = await service.company(), await counted(service)
    operation_id = await added(company)
    state = await service.stripe.get(f"/v1/customers/{company.stranger.customer_id}")
    for later in (-5, 0, 5, 3600):
        event = caused_by(operation_id, state, later=later)
        assert (await service.deliver(event)).status_code == httpx.codes.OK
    assert await late_entries(company) == [] and await counted(service) == before


@pytest.mark.parametrize("state", ["failed", "refused", "applied"])
async def test_an_effect_after_the_settlement_is_told_once(service: Service, state: str) -> None:
    company, before = await service.company(), await counted(service)
    operation_id = await added(company)
    await an_hour_ago(service, operation_id, state)
    customer = await service.stripe.get(f"/v1/customers/{company.stranger.customer_id}")
    event = caused_by(operation_id, customer)
    for _ in range(3):
        assert (await service.deliver(event)).status_code == httpx.codes.OK
    [entry] = await late_entries(company)
    assert (entry["operation_id"], entry["customer_id"]) == (operation_id, company.stranger.customer_id)
    assert entry["after"] == {"event": event["id"], "type": "customer.updated", "settled_as": state}
    assert entry["actor_customer_id"] == company.owner.customer_id
    assert await counted(service) == before + 1


async def test_doctor_names_operation_and_subscription_of_a_late_effect_for_some_days(
    service: Service,
) -> None:
    """The runbook sent the operator to the doctor, which said nothing of it."""
    company = await service.company()
    operation_id = await added(company)
    await an_hour_ago(service, operation_id, "failed")
    customer = await service.stripe.get(f"/v1/customers/{company.stranger.customer_id}")
    assert (await service.deliver(caused_by(operation_id, customer))).status_code == httpx.codes.OK

    async def named() -> list[Finding]:
        found = [one for one in await doctor.examine(service.context) if one.check == "late_effect"]
        return [one for one in found if one.object == company.subscription_id]

    [finding] = await named()
    assert finding.severity == "notice"
    for word in (operation_id, "customer.updated", company.stranger.customer_id, "failed"):
        assert word in finding.problem
    await service.fetch(
        "update audit_events set at = now() - interval '15 days' where operation_id = $1 and action = 'late_effect'",
        operation_id,
    )
    assert await named() == []


async def test_keys_of_others_mean_nothing(service: Service) -> None:
    company, before = await service.company(), await counted(service)
    operation_id = await added(company)
    await an_hour_ago(service, operation_id, "failed")
    customer = await service.stripe.get(f"/v1/customers/{company.stranger.customer_id}")
    for key in (
        "op_1/0/0",
        f"{operation_id}/7/0",
        f"x{operation_id}/0/0",
        operation_id,
        7,
        None,
        "op_" + "0" * 24,
    ):
        event = {**event_of("customer.updated", customer), "request": {"id": None, "idempotency_key": key}}
        assert (await service.deliver(event)).status_code == httpx.codes.OK
    unusual: list[Any] = [None, "req_1", [], {"idempotency_key": {}}]
    for request in unusual:
        event = {**event_of("customer.updated", customer), "request": request}
        assert (await service.deliver(event)).status_code == httpx.codes.OK
    assert await late_entries(company) == [] and await counted(service) == before
