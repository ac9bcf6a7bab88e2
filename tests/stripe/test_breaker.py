"""When the breaker of a kind of work opens, who stops waiting then, and what closes it."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from app.errors import ServiceUnavailable
from app.stripe import breaker as breaker_module
from app.stripe import client as client_module
from app.stripe.breaker import Breaker, Breakers, Failure, Health, StripeAway
from app.stripe.client import StripeClient
from testkit.simulator import Simulator


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def one(clock: Clock) -> Breaker:
    return Breaker("write", lambda: None, clock)


AWAY = Failure("cus_1", is_certain=True)


def erring(subject: str) -> Failure:
    return Failure(subject, is_certain=False)


async def test_breaker_opens_when_five_requests_fail_within_five_seconds(one: Breaker) -> None:
    """U4: four are not enough, and the fifth opens it."""
    for _ in range(4):
        one.failed(AWAY)
    one.admit()
    one.failed(AWAY)
    with pytest.raises(StripeAway) as refused:
        one.admit()
    assert refused.value.code == "stripe_unavailable" and refused.value.retry_after == 5


async def test_breaker_stays_closed_when_five_failures_take_longer(one: Breaker, clock: Clock) -> None:
    for _ in range(9):
        one.failed(AWAY)
        clock.now += 1.25
    one.admit()


async def test_errors_with_a_request_id_do_not_count_when_they_are_about_one_object(one: Breaker) -> None:
    for _ in range(50):
        one.failed(erring("sub_1"))
    one.admit()
    one.failed(erring("sub_2"))
    with pytest.raises(StripeAway):
        one.admit()


async def test_errors_about_one_object_do_not_add_to_failures_of_the_connection(one: Breaker) -> None:
    for _ in range(4):
        one.failed(AWAY)
        one.failed(erring("sub_1"))
    one.admit()


@pytest.mark.timed
async def test_waiting_caller_is_released_when_the_breaker_opens(one: Breaker) -> None:
    """The work goes on behind it, because a write that was sent may take effect."""
    work = asyncio.ensure_future(asyncio.sleep(1.5, "done"))
    began = time.monotonic()
    for _ in range(5):
        asyncio.get_running_loop().call_later(0.2, one.failed, AWAY)
    with pytest.raises(TimeoutError):
        await one.patiently(8.0, work)
    assert time.monotonic() - began < 1.2
    assert await work == "done"


async def test_breaker_opens_and_probes_when_a_read_is_at_its_own_limit() -> None:
    """The limit of a read that has expired cannot be moved, and the error left the breaker open without a probe."""
    begun: list[None] = []
    breaker = Breaker("fresh", lambda: begun.append(None))

    async def read() -> None:
        async with asyncio.timeout(0.01) as limit:
            with breaker.ending(limit):
                try:
                    await asyncio.sleep(5)
                finally:
                    for _ in range(5):
                        breaker.failed(AWAY)

    with pytest.raises(TimeoutError):
        await read()
    assert breaker.is_open and len(begun) == 1


async def test_caller_gets_the_result_when_the_work_ends_in_time(one: Breaker) -> None:
    assert await one.patiently(5.0, asyncio.ensure_future(asyncio.sleep(0.01, 7))) == 7


@pytest.fixture
async def guarded(stripe_account: Simulator, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StripeClient]:
    """A client whose probes come each half second, and whose requests are overdue after 0.4 s."""
    monkeypatch.setattr(breaker_module, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(client_module, "OVERDUE_SECONDS", 0.4)
    monkeypatch.setattr(client_module, "_FIRST_PAUSE_SECONDS", 0.01)
    client = StripeClient(stripe_account.api_key, api_base=stripe_account.base_url, breakers=Breakers())
    yield client
    await stripe_account.clear_faults()
    await client.close()


def shown(kind: str) -> float | None:
    return REGISTRY.get_sample_value("coseat_stripe_breaker", {"kind": kind})


async def outcomes(client: StripeClient, number: int, path: str = "/v1/customers") -> list[Any]:
    return await asyncio.gather(*(client.get(path) for _ in range(number)), return_exceptions=True)


async def sent(account: Simulator) -> int:
    return len([entry for entry in await account.requests() if entry["actor"] == "api"])


AWAY_FAULTS: list[dict[str, Any]] = [
    {"timeout": True},
    {"timeout": 0.01},
    {"status": 401},
    {"status": 502, "proxy": True},
    {"status": 200, "proxy": True},
    {"status": 404, "proxy": True},
    {"truncate": True},
    {"status": 500},
    {"status": 429},
]


@pytest.mark.parametrize("fault", AWAY_FAULTS, ids=str)
@pytest.mark.timed
async def test_breaker_opens_and_one_probe_closes_it_when_stripe_is_away(
    stripe_account: Simulator, guarded: StripeClient, fault: dict[str, Any]
) -> None:
    """U4: while it is open nothing is sent but the probes, and the first one that is answered closes it."""
    await stripe_account.add_fault(**fault, times=0)
    failed = await outcomes(guarded, 6)
    assert all(isinstance(one, ServiceUnavailable) for one in failed), failed
    assert shown("write") != Health.CLOSED and shown("fresh") == Health.CLOSED
    before = await sent(stripe_account)
    began = time.monotonic()
    assert all(isinstance(one, StripeAway) for one in await outcomes(guarded, 20))
    assert time.monotonic() - began < 0.4
    await asyncio.sleep(1.2)
    probes = await sent(stripe_account) - before
    assert 1 <= probes <= 3, "one probe each half second, and nothing else"
    await stripe_account.clear_faults()
    for _ in range(40):
        if shown("write") == Health.CLOSED:
            break
        await asyncio.sleep(0.05)
    assert [one for one in await outcomes(guarded, 3) if isinstance(one, BaseException)] == []


@pytest.mark.timed
async def test_reads_end_when_the_breaker_opens(stripe_account: Simulator, guarded: StripeClient) -> None:
    """U4: a read that Stripe does not answer waits no longer than it takes to know that."""
    await stripe_account.add_fault(timeout=True, times=0)
    began = time.monotonic()
    failed = await outcomes(guarded, 10)
    assert all(isinstance(one, StripeAway) for one in failed), failed
    assert time.monotonic() - began < 2.0


async def test_kinds_of_work_have_breakers_of_their_own(
    stripe_account: Simulator, guarded: StripeClient
) -> None:
    await stripe_account.add_fault(path="/v1/customers", timeout=0.01, times=0)
    await outcomes(guarded.doing("refresh"), 6)
    assert (shown("background"), shown("fresh"), shown("write")) == (Health.OPEN, 0, 0)
    assert (await guarded.doing("fresh").get("/v1/products")).data["object"] == "list"


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429}], ids=str)
async def test_errors_about_one_object_leave_the_others_alone(
    stripe_account: Simulator, guarded: StripeClient, fault: dict[str, Any]
) -> None:
    sick = (await stripe_account.post("/v1/customers", name="Sick"))["id"]
    well = (await stripe_account.post("/v1/customers", name="Well"))["id"]
    await stripe_account.add_fault(**fault, object=sick, times=0)
    assert all(
        isinstance(one, ServiceUnavailable) for one in await outcomes(guarded, 3, f"/v1/customers/{sick}")
    )
    assert shown("write") == Health.CLOSED
    assert (await guarded.get(f"/v1/customers/{well}")).data["name"] == "Well"


async def test_calls_are_counted_by_template_and_outcome(
    stripe_account: Simulator, guarded: StripeClient
) -> None:
    def count(outcome: str) -> float:
        labels = {"call": "GET /v1/customers/{id}", "outcome": outcome}
        return REGISTRY.get_sample_value("coseat_stripe_calls_total", labels) or 0.0

    before = {name: count(name) for name in ("ok", "rejected", "unreachable")}
    customer = (await stripe_account.post("/v1/customers", name="Ada"))["id"]
    await guarded.get(f"/v1/customers/{customer}")
    await outcomes(guarded, 1, "/v1/customers/cus_absent")
    await stripe_account.add_fault(timeout=0.01, times=0)
    await outcomes(guarded, 1, f"/v1/customers/{customer}")
    assert {name: count(name) - was for name, was in before.items()} == {
        "ok": 1,
        "rejected": 1,
        "unreachable": 4,
    }
