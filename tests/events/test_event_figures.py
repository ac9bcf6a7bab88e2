"""What metrics and doctor say of events that wait and of endpoints that take none."""

import re

from app.events.delivering import Deliverer
from app.operating import doctor
from testkit.company import Service, new_email
from testkit.receiver import Receiver
from testkit.service import as_service
from tests.events.test_webhooks import deliver, deliverer, endpoint

__all__ = ["deliverer"]


async def figures(service: Service) -> dict[str, float]:
    text = (await service.get("/metrics")).text
    found = re.findall(r"^coseat_(events_oldest_\w+|webhook_endpoint_\S+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


async def findings(service: Service) -> list[tuple[str, str]]:
    found = await doctor.examine(service.context)
    return [(one.check, one.problem) for one in found if one.check.startswith("webhook_endpoint")]


async def test_changes_without_an_event_are_shown_with_their_age_when_no_worker_runs(
    service: Service, deliverer: Deliverer
) -> None:
    company = await service.company(users=0)
    await service.announce()
    assert (await figures(service))["events_oldest_untold_seconds"] == 0
    await company.change(company.owner.headers, add=[new_email()])
    await service.fetch("update event_facts set at = at - interval '1 hour'")
    assert 3600 <= (await figures(service))["events_oldest_untold_seconds"] < 3700
    await service.announce()
    assert (await figures(service))["events_oldest_untold_seconds"] == 0


async def severities(service: Service) -> set[str]:
    """Return how the doctor judges endpoints that are disabled."""
    found = await doctor.examine(service.context)
    return {one.severity for one in found if one.check == "webhook_endpoint_disabled"}


async def test_endpoint_is_a_notice_when_an_operator_disabled_it(
    service: Service, receiver: Receiver
) -> None:
    """The doctor failed for as long as the endpoint was kept."""
    resting, _ = await endpoint(service, receiver)
    answer = await service.send(
        "PATCH", f"/v1/webhook-endpoints/{resting}", as_service("admin"), {"status": "disabled"}
    )
    assert answer.status_code == 200, answer.text
    assert await severities(service) == {"notice"}


async def test_endpoint_is_named_when_it_fails_and_when_it_is_disabled(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    failing, _ = await endpoint(service, receiver)
    receiver.status = lambda _: 500
    await service.company(users=0)
    await deliver(service, deliverer)
    name = f'webhook_endpoint_failures{{endpoint="{failing}"}}'
    found = await figures(service)
    assert found[name] >= 1 and 0 < found["events_oldest_undelivered_seconds"] < 60
    assert await findings(service) == []
    await service.fetch("update events set created = created - interval '2 hours'")
    assert (await figures(service))["events_oldest_undelivered_seconds"] > 7200
    [(check, problem)] = await findings(service)
    assert check == "webhook_endpoint_behind" and re.search(r"is 7\d\d\d s old", problem)

    receiver.status = lambda _: 410
    await service.fetch("update webhook_queues set due_at = clock_timestamp()")
    await deliver(service, deliverer)
    [(check, problem)] = await findings(service)
    assert check == "webhook_endpoint_disabled" and "410" in problem
    assert await severities(service) == {"fix"}
    found = await figures(service)
    assert name not in found and found["events_oldest_undelivered_seconds"] == 0
