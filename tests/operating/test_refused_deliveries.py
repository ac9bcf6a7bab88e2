"""Deliveries that are refused: counted by reason, logged with a remedy, and named by the doctor."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from app.errors import InvalidWebhook, PayloadTooLarge, RequestTimeout
from app.mirror import recent_events
from app.mirror.refused_deliveries import REMEDIES, RefusedDeliveries
from app.operating import doctor, upkeep
from app.postgres import installation_counts
from app.postgres.installation_counts import InstallationCounts
from testkit.company import Service, event_of, running_service, signed
from testkit.plans import new_customer
from testkit.simulator import Simulator


@pytest.fixture
async def service(
    stripe_account: Simulator, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Service]:
    monkeypatch.setattr(installation_counts, "FLUSH_SECONDS", 0.05)
    async with running_service(stripe_account, database_url) as running:
        yield running


async def refused(service: Service) -> dict[str, int]:
    """Return what /metrics shows, by reason."""
    text = (await service.get("/metrics")).text
    found = re.findall(r'^coseat_webhook_refused_total\{reason="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {reason: int(float(number)) for reason, number in found}


async def refused_in_the_end(service: Service, expected: dict[str, int]) -> None:
    for _ in range(100):
        if await refused(service) == expected:
            return
        await asyncio.sleep(0.05)
    assert await refused(service) == expected


async def send(service: Service, body: bytes, headers: dict[str, str]) -> int:
    return (await service.client.post("/webhooks/stripe", content=body, headers=headers)).status_code


async def test_refusals_are_counted_by_reason_when_deliveries_are_refused(service: Service) -> None:
    """C11: a wrong secret was answered 400 at the level info, and no figure and no finding showed it."""
    await service.fill()
    body = b"{}"
    none = dict.fromkeys(REMEDIES, 0)
    assert await refused(service) == none
    good = signed(body)
    forged = {"Stripe-Signature": good["Stripe-Signature"].replace("v1=", "v1=0")}
    with capture_logs() as logged:
        assert [await send(service, body, forged) for _ in range(3)] == [400] * 3
        assert await send(service, body, signed(body, at=int(time.time()) - 900)) == 400
        assert await send(service, body, {}) == 400
        assert await send(service, body, good) == 400
        assert await send(service, b" " * (2 * 1024 * 1024), good) == 413
    expected = {"signature": 3, "timestamp": 1, "missing": 1, "malformed": 1, "too_large": 1}
    await refused_in_the_end(service, expected)
    warnings = [line for line in logged if line["event"] == "webhook_refused"]
    assert {line["reason"] for line in warnings} == set(expected)
    assert all(line["log_level"] == "warning" and line["remedy"] for line in warnings)
    found = [one for one in await doctor.examine(service.context) if "refused" in one.problem]
    assert {one.fix: one.severity for one in found} == {
        REMEDIES[reason]: "notice" if reason == "missing" else "fix" for reason in expected
    }
    assert "3 deliveries were refused within an hour, reason: signature" in {one.problem for one in found}


async def test_good_delivery_is_not_counted_as_refused(service: Service) -> None:
    event = event_of("customer.created", {"id": "cus_1", "object": "customer"})
    assert (await service.deliver(event)).status_code == 200
    await refused_in_the_end(service, dict.fromkeys(REMEDIES, 0))


async def severities(service: Service) -> set[str]:
    """Return how the doctor judges the deliveries that were refused."""
    await service.context.counts.flush(service.context.database)
    return {one.severity for one in await doctor.examine(service.context) if "refused" in one.problem}


async def test_refusals_are_a_notice_when_good_deliveries_arrive(service: Service) -> None:
    """One request of a stranger made the doctor fail for an hour, and woke the operator."""
    await service.fill()
    good = event_of("customer.created", {"id": "cus_1", "object": "customer"})
    assert (await service.deliver(good)).status_code == 200
    for forged in ("t=1,v1=0", f"t={int(time.time())},v1=0", "v1=0"):
        assert await send(service, b"{}", {"Stripe-Signature": forged}) == 400
    assert await severities(service) == {"notice"}


async def test_refusals_are_to_be_fixed_when_events_never_arrive(service: Service) -> None:
    """A secret that was rotated at Stripe: good deliveries came before, and none does now."""
    await service.fill()
    good = event_of("customer.created", {"id": "cus_1", "object": "customer"})
    assert (await service.deliver(good)).status_code == 200
    await new_customer(service.stripe)
    await service.stripe.advance(recent_events.GRACE_SECONDS + 60)
    [created] = (await service.stripe.get("/v1/events", type="customer.created"))["data"]
    body = json.dumps(created).encode()
    assert await send(service, body, signed(body, secret="whsec_of_another_endpoint")) == 400
    assert await severities(service) == {"fix"}


async def test_refusals_are_judged_by_the_last_delivery_when_stripe_does_not_answer(service: Service) -> None:
    await service.fill()
    good = event_of("customer.created", {"id": "cus_1", "object": "customer"})
    assert (await service.deliver(good)).status_code == 200
    assert await send(service, b"{}", {"Stripe-Signature": "t=1,v1=0"}) == 400
    await service.stripe.add_fault(status=401, times=0)
    assert await severities(service) == {"notice"}
    await service.fetch("update webhook_events set received_at = now() - interval '2 hours' returning id")
    assert await severities(service) == {"fix"}


async def test_total_stays_and_the_doctor_is_silent_when_refusals_are_old(service: Service) -> None:
    await service.fetch(
        """insert into installation_counts (name, label, since, number)
        select 'webhook_refused', 'signature', date_bin('5 minutes', now() - make_interval(hours => h), 'epoch'), 10
        from generate_series(2, 60) h returning name"""
    )
    before = await refused(service)
    assert before["signature"] == 590
    assert [one for one in await doctor.examine(service.context) if "refused" in one.problem] == []
    for _ in range(2):
        await upkeep.purge(service.context)
        assert await refused(service) == before
    rows = await service.fetch(
        "select since from installation_counts where since < now() - interval '25 hours'"
    )
    assert len(rows) == 1


async def test_counts_stay_pending_when_the_database_does_not_answer(service: Service) -> None:
    counts = InstallationCounts()
    counts.add("webhook_refused", "signature")
    await service.context.database.close()
    for _ in range(2):
        with pytest.raises(Exception, match="database"):
            await counts.flush(service.context.database)
    assert counts.pending == {("webhook_refused", "signature"): 1}


def test_reason_is_logged_at_most_every_5_seconds_when_many_are_refused() -> None:
    """U10: a flood of forged deliveries writes one line in 5 seconds, with their number."""
    now = [0.0]
    deliveries, counts = RefusedDeliveries(clock=lambda: now[0]), InstallationCounts()
    with capture_logs() as logged:
        for second in range(12):
            now[0] = float(second)
            for _ in range(100):
                deliveries.note(InvalidWebhook("signature"), counts)
        deliveries.note(PayloadTooLarge(), counts)
        deliveries.note(RequestTimeout(), counts)
    assert [(line["reason"], line["number"]) for line in logged] == [
        ("signature", 1),
        ("signature", 500),
        ("signature", 500),
        ("too_large", 1),
    ]
    assert sum(counts.pending.values()) == 1201
