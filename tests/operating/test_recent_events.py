"""U6: events that never arrive, and clocks that are off: found within an hour, told at once."""

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.mirror import recent_events
from app.mirror import refreshing as sync
from app.mirror.store import refreshes
from app.operating import doctor
from app.stripe.clock import StripeClock
from testkit.company import Service, event_of, running_service
from testkit.plans import new_customer
from testkit.service import as_service
from testkit.simulator import Simulator


@pytest.fixture
async def service(stripe_account: Simulator, database_url: str) -> AsyncIterator[Service]:
    async with running_service(stripe_account, database_url) as service:
        yield service


async def metrics(service: Service) -> dict[str, float]:
    text = (await service.client.get("/metrics")).text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def event_reads(service: Service) -> int:
    log = await service.stripe.requests(path="/v1/events")
    return sum(entry["actor"] == "api" for entry in log)


async def noted(service: Service) -> set[str]:
    return {row["id"] for row in await service.fetch("select id from refreshes where notifications > 0")}


async def problems(service: Service, check: str) -> list[str]:
    return [one.problem for one in await doctor.examine(service.context) if one.check == check]


async def test_access_ends_within_the_look_when_every_event_was_lost(service: Service) -> None:
    """U6: a canceled subscription gave access until the nightly reconcile, and nothing told of it."""
    company = await service.company(users=1)
    await service.fill()
    await service.stripe.delete(f"/v1/subscriptions/{company.subscription_id}")
    await service.stripe.advance(recent_events.GRACE_SECONDS + 60)
    path, product = f"/v1/customers/{company.user.customer_id}/access", company.product_id
    before = await service.get(path, as_service("read"), product_id=product)
    assert before.json()["has_access"] is True
    assert "never arrived; none was ever accepted" in " ".join(await problems(service, "webhook"))
    assert await recent_events.look_when_due(service.context)
    assert company.subscription_id in await noted(service)
    # A notification is due 2 seconds after the last refresh of its object, which may have been just now.
    due = "update refreshes set not_before = now() where not_before <= now() + interval '2 seconds' returning id"
    await service.fetch(due)
    async with service.context.database.connection() as connection:
        found = await refreshes.due(connection, limit=50, lease_seconds=30)
    for lease in found:
        await sync.refresh(service.context, lease)
    after = await service.get(path, as_service("read"), product_id=product)
    assert after.json()["has_access"] is False
    assert (await metrics(service))["coseat_events_lost"] >= 1
    assert not await recent_events.look_when_due(service.context), "once an hour for all workers"


async def test_look_finds_nothing_when_every_event_arrived(service: Service) -> None:
    await service.fill()
    await new_customer(service.stripe)
    for event in reversed((await service.stripe.get("/v1/events", limit=100))["data"]):
        assert (await service.deliver(event)).status_code == httpx.codes.OK
    await service.stripe.advance(recent_events.GRACE_SECONDS + 60)
    before, calls = await noted(service), await event_reads(service)
    assert await recent_events.look_when_due(service.context)
    assert (await noted(service), await event_reads(service)) == (before, calls + 1)
    assert (await metrics(service))["coseat_events_lost"] == 0
    assert "arrived" not in " ".join(await problems(service, "webhook"))


async def test_look_reads_a_bounded_number_of_pages_when_there_are_many_events(service: Service) -> None:
    """The newest 1,000 are looked at: who loses all events is seen, and reconcile does the rest."""
    await service.fill()
    await service.stripe.control("POST", "bulk", customers=recent_events.PAGES * 100 + 50, events=True)
    await service.stripe.advance(recent_events.GRACE_SECONDS + 60)
    assert await recent_events.look_when_due(service.context)
    assert await event_reads(service) == recent_events.PAGES
    [row] = await service.fetch("select seen, lost, is_complete from event_looks")
    assert tuple(row) == (1_000, 1_000, False)
    assert len(await noted(service)) == 1_000


async def test_look_is_due_again_soon_when_stripe_did_not_answer(service: Service) -> None:
    await service.fill()
    await service.fetch("update account set filled_at = now() - interval '1 hour' returning id")
    await service.stripe.add_fault(method="GET", path="/v1/events", status=400, times=0)
    with pytest.raises(Exception, match="Stripe"):
        await recent_events.look_when_due(service.context)
    await service.stripe.clear_faults()
    assert not await recent_events.look_when_due(service.context)
    await service.fetch("update event_looks set looked_at = looked_at - interval '2 minutes' returning 1")
    assert await recent_events.look_when_due(service.context)
    [row] = await service.fetch("select reached from event_looks")
    assert abs(row["reached"] + recent_events.GRACE_SECONDS - time.time()) < 60


async def test_age_of_the_last_event_is_told_when_only_foreign_events_arrive(service: Service) -> None:
    name = "coseat_events_last_accepted_seconds"
    state: dict[str, Any] = {"id": "cus_1", "object": "customer", "created": 1_700_000_000}
    await service.deliver({**event_of("customer.updated", state), "livemode": True})
    assert name not in await metrics(service)
    await service.deliver(event_of("customer.updated", state))
    assert 0 <= (await metrics(service))[name] < 30
    await service.fetch("update webhook_events set received_at = now() - interval '2 hours' returning id")
    await service.deliver({**event_of("customer.updated", state), "account": "acct_other"})
    assert 7_200 <= (await metrics(service))[name] < 7_230


async def test_clocks_are_compared_when_one_is_ten_minutes_off(service: Service) -> None:
    """U6: this machine is behind Stripe by ten minutes, so every delivery of Stripe would be refused."""
    await service.fill()
    shown = await metrics(service)
    assert abs(shown['coseat_clock_skew_seconds{against="stripe"}']) < 10
    assert abs(shown['coseat_clock_skew_seconds{against="postgres"}']) < 10
    assert await problems(service, "clock") == []
    await service.stripe.advance(600)
    [problem] = await problems(service, "clock")
    assert "behind that of Stripe" in problem
    assert -620 < (await metrics(service))['coseat_clock_skew_seconds{against="stripe"}'] < -580


@pytest.mark.parametrize(
    ("date", "began", "ended", "skew"),
    [
        (1000, 1000.2, 1000.9, 0.0),
        (1000, 999.0, 1000.1, 0.0),
        (1000, 1000.9, 1005.0, 0.0),
        (1000, 1601.0, 1601.5, 600.0),
        (1000, 399.0, 400.0, -600.0),
        (0, 5.0, 6.0, None),
    ],
)
def test_skew_is_what_a_whole_second_cannot_explain(
    date: int, began: float, ended: float, skew: float | None
) -> None:
    clock = StripeClock()
    clock.note(date, began, ended)
    assert clock.skew == skew
