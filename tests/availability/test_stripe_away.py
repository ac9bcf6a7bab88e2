"""Stripe hangs, is down, or refuses our key: who waits, what callers are told, and what goes on by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import httpx
import pytest

from app.stripe import breaker as breaker_module
from app.stripe import client as client_module
from testkit.company import Company, Service, breaking_service, new_email
from testkit.problems import problem

HANGING: dict[str, Any] = {"timeout": True, "times": 0}
REVOKED: dict[str, Any] = {"status": 401, "times": 0}
PROMPTLY = 4.0
"""Seconds in which callers are answered while the breaker is open: under 1 on a quiet machine, and 8 without it."""


@pytest.fixture
async def service(
    stripe_account: Any, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Service]:
    """Requests are overdue after half a second, so that a breaker opens within one."""
    monkeypatch.setattr(client_module, "OVERDUE_SECONDS", 0.5)
    async with breaking_service(stripe_account, database_url, CATALOGUE="open") as running:
        yield running
        await stripe_account.clear_faults()


@pytest.fixture
async def company(service: Service) -> Company:
    return await service.company(seats=60, users=12)


async def timed(answer: Awaitable[httpx.Response]) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    return await answer, time.monotonic() - began


async def add(company: Company) -> httpx.Response:
    return await company.change(company.owner.headers, add=[new_email()])


async def fresh(service: Service, customer: Any) -> httpx.Response:
    return await service.get("/v1/customers/me", customer.headers, fresh="true")


async def age(service: Service) -> None:
    """Let the cache be older than a fresh read accepts."""
    await service.fetch("update customers set synced_at = synced_at - interval '1 hour'")
    await service.fetch("update subscriptions set synced_at = synced_at - interval '1 hour'")


async def open_breakers(service: Service, company: Company, fault: dict[str, Any]) -> list[httpx.Response]:
    """Send what opens both breakers of callers; the answers. The last ones are those of three changes."""
    await age(service)
    await service.stripe.add_fault(**fault)
    asked = [service.get("/v1/promotion-codes/NOTHING", user.headers) for user in company.users[:6]]
    asked += [fresh(service, user) for user in company.users[:6]]
    asked += [add(company) for _ in range(3)]
    answers = await asyncio.gather(*asked)
    assert service.context.breakers["write"].is_open and service.context.breakers["fresh"].is_open
    assert [answer.status_code for answer in answers] == [503] * 12 + [202] * 3, [
        answer.text for answer in answers
    ]
    for answer in answers[:12]:
        problem(answer, 503, "stripe_unavailable")
    return list(answers)


@pytest.mark.timed
@pytest.mark.parametrize("fault", [HANGING, REVOKED, {"status": 502, "proxy": True, "times": 0}], ids=str)
async def test_callers_are_answered_promptly_when_stripe_is_away(
    service: Service, company: Company, fault: dict[str, Any]
) -> None:
    """U4, U9: writes are 202 and fresh reads 503 within a second, cached reads are as ever."""
    first = time.monotonic()
    await open_breakers(service, company, fault)
    assert time.monotonic() - first < 6.0
    writes = [timed(add(company)) for _ in range(5)]
    seats = timed(service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 61}))
    reads = [timed(fresh(service, user)) for user in company.users[8:]]
    cached = [timed(service.get(company.path, company.user.headers)) for _ in range(5)]
    done = await asyncio.gather(*writes, seats, *reads, *cached)
    assert max(seconds for _, seconds in done) < PROMPTLY
    codes = [answer.status_code for answer, _ in done]
    assert codes == [202] * 6 + [503] * 4 + [200] * 5, [answer.text for answer, _ in done]
    for answer, _ in done[6:10]:
        problem(answer, 503, "stripe_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    ids = [answer.json()["operation_id"] for answer, _ in done[:6]]
    assert all(answer.headers["location"].startswith("/v1/operations/") for answer, _ in done[:6])
    shown = await service.get(f"/v1/operations/{ids[0]}", company.owner.headers)
    assert shown.json()["state"] == "running", shown.text


@pytest.mark.timed
async def test_writes_without_an_operation_are_refused_promptly_when_stripe_is_away(
    service: Service, company: Company
) -> None:
    await open_breakers(service, company, HANGING)
    who, me = company.owner.headers, "/v1/customers/me"
    asked = [
        service.send("PATCH", me, who, {"name": "Olivia"}),
        service.send("POST", f"{me}/setup-intents", who),
        service.send("POST", f"{me}/payment-methods", who, {"payment_method_id": "pm_card_visa"}),
        service.send(
            "PUT", f"{me}/default-payment-method", who, {"payment_method_id": company.payment_method_id}
        ),
        service.send("DELETE", f"{me}/payment-methods/{company.payment_method_id}", who),
        service.get(f"{me}/upcoming-invoice", who),
        service.get("/v1/promotion-codes/NOTHING", who),
        service.send("POST", f"{company.path}/quote", who, {"total": 61}),
        service.send(
            "POST",
            f"/v1/subscriptions/{company.subscription_id}/preview",
            who,
            {"items": [{"price_id": company.price_id, "quantity": 61}]},
        ),
    ]
    for answer, seconds in await asyncio.gather(*(timed(one) for one in asked)):
        problem(answer, 503, "stripe_unavailable")
        assert seconds < PROMPTLY, answer.request.url


async def test_operations_end_applied_when_stripe_is_back(
    service: Service, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U4: what was answered 202 is finished by the worker, a purchase and a change of seats too."""
    monkeypatch.setattr(breaker_module, "PROBE_SECONDS", 0.5)
    answers = (await open_breakers(service, company, HANGING))[12:]
    who = company.owner.headers
    answers.append(await service.send("PUT", f"{company.path}/seats", who, {"total": 80}))
    stranger = company.stranger
    await service.stripe.clear_faults()
    await service.stripe.add_fault(**HANGING)
    bought = await service.send(
        "POST",
        "/v1/customers/me/subscriptions",
        stranger.headers,
        {"items": [{"price_id": company.price_id, "quantity": 3}]},
    )
    assert [answer.status_code for answer in (*answers, bought)] == [202] * 5, bought.text
    await service.stripe.clear_faults()
    for _ in range(60):
        if not service.context.breakers["write"].is_open:
            break
        await asyncio.sleep(0.1)
    assert not service.context.breakers["write"].is_open
    await service.fetch("update operations set lease_until = now() - interval '1 second'")
    await service.work_off()
    for answer in answers:
        settled = await service.settled(answer.json()["operation_id"], who)
        assert [one["outcome"] for one in settled.json()["results"]] == ["applied"], settled.text
    shown = await service.get(f"/v1/operations/{bought.json()['operation_id']}", stranger.headers)
    # The stranger has no payment method: the subscription exists, and waits for its first payment.
    assert shown.json()["state"] == "awaiting_payment", shown.text
    assert (await company.state())["items"]["data"][0]["quantity"] == 80


async def test_purchase_fails_when_stripe_is_back_after_the_payment_window(
    service: Service, company: Company
) -> None:
    await open_breakers(service, company, HANGING)
    bought = await service.send(
        "POST",
        "/v1/customers/me/subscriptions",
        company.stranger.headers,
        {"items": [{"price_id": company.price_id, "quantity": 3}]},
    )
    operation_id = bought.json()["operation_id"]
    await service.stripe.clear_faults()
    service.context.breakers["write"].close()
    await service.fetch(
        "update operations set lease_until = now() - interval '1 second', created_at = now() - interval '2 hours'"
    )
    await service.work_off()
    settled = await service.settled(operation_id, company.stranger.headers)
    assert [one["code"] for one in settled.json()["results"]] == ["operation_expired"], settled.text


@pytest.mark.timed
async def test_at_most_half_of_the_places_wait_when_stripe_hangs(
    stripe_account: Any, database_url: str
) -> None:
    """U4: the bulkhead holds before any breaker opens; what finds no place is answered at once."""
    async with breaking_service(stripe_account, database_url, MAX_REQUESTS="8") as service:
        company = await service.company(seats=60, users=4)
        await age(service)
        await stripe_account.add_fault(**HANGING)
        waiting = [asyncio.create_task(add(company)) for _ in range(4)]
        for _ in range(100):
            if service.context.stripe_waits.now == 4:
                break
            await asyncio.sleep(0.05)
        assert service.context.stripe_waits.now == 4
        assert not service.context.breakers["write"].is_open
        done = await asyncio.gather(
            timed(add(company)),
            timed(service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 61})),
            timed(fresh(service, company.user)),
            timed(service.send("PATCH", "/v1/customers/me", company.owner.headers, {"name": "Olivia"})),
            timed(service.get(company.path, company.user.headers)),
        )
        assert [answer.status_code for answer, _ in done] == [202, 202, 503, 503, 200], [
            answer.text for answer, _ in done
        ]
        assert max(seconds for _, seconds in done) < PROMPTLY
        problem(done[2][0], 503, "stripe_unavailable")
        problem(done[3][0], 503, "stripe_unavailable")
        for task in waiting:
            answer, _ = await timed(task)
            assert answer.status_code == 202, answer.text
        assert service.context.stripe_waits.now == 0
        await stripe_account.clear_faults()
