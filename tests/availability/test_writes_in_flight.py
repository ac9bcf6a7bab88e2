"""How many writes of one caller are worked on at a time, and what the next one is told."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from app.http.in_flight import WritesInFlight
from testkit.company import Company, Service, new_email, running_service
from testkit.problems import problem
from testkit.service import as_service, as_user
from testkit.simulator import Simulator

USER, KEY = 4, 6
SLOW = {"method": "POST", "path": "/v1/customers", "latency_s": 1.0, "times": 0}


@pytest.fixture
async def bounded(stripe_account: Simulator, database_url: str) -> AsyncIterator[Service]:
    """One call of Stripe's takes a second."""
    async with running_service(
        stripe_account, database_url, USER_IN_FLIGHT=str(USER), SERVICE_KEY_IN_FLIGHT=str(KEY)
    ) as service:
        yield service


async def nobody_is_counted(service: Service) -> bool:
    in_flight: WritesInFlight = service.client._transport.app.state.in_flight  # type: ignore[attr-defined]
    return len(in_flight) == 0


async def add(company: Company, who: dict[str, str], **more: str) -> httpx.Response:
    return await company.change(who, add=[new_email()], **more)


def refused(answers: list[httpx.Response]) -> int:
    """The number of answers that refuse a write because too many are in flight."""
    too_many = [one for one in answers if one.status_code == 429]
    for one in too_many:
        problem(one, 429, "too_many_in_flight")
        assert one.headers["retry-after"] == "1"
    assert {one.status_code for one in answers} <= {200, 429}, Counter(one.text for one in answers)
    return len(too_many)


@pytest.mark.timed
async def test_a_fifth_write_is_refused_when_four_are_in_flight(bounded: Service) -> None:
    """W6: counted by customer, whether with a token or by a key that acts for them; others are not held up."""
    company = await bounded.company(seats=60)
    owner = dict(company.owner.headers)
    acting = as_service(acting_for=company.owner.customer_id)
    await bounded.stripe.add_fault(**SLOW)
    answers = await asyncio.gather(*(add(company, who) for who in (owner, acting) * 4))
    assert refused(answers) == 8 - USER

    mine = [asyncio.create_task(add(company, owner)) for _ in range(USER)]
    await asyncio.sleep(0.3)
    theirs = asyncio.create_task(add(company, dict(company.manager.headers)))
    started = time.monotonic()
    assert (await bounded.get(f"{company.path}/users", owner)).status_code == 200
    assert time.monotonic() - started < 0.5
    problem(await add(company, acting), 429, "too_many_in_flight")
    assert refused([*await asyncio.gather(*mine), await theirs]) == 0
    assert refused([await add(company, owner)]) == 0
    assert await nobody_is_counted(bounded)


async def test_a_login_without_a_customer_is_counted_by_its_subject(bounded: Service) -> None:
    """W6: before a customer exists there is nothing else to count by."""
    await bounded.stripe.add_fault(**SLOW)
    one, other = as_user("newcomer"), as_user("somebody-else")
    asked = [asyncio.create_task(bounded.send("POST", "/v1/customers", one, {})) for _ in range(USER + 2)]
    await asyncio.sleep(0.2)
    created = await bounded.send("POST", "/v1/customers", other, {})
    assert created.status_code == 201
    answers = await asyncio.gather(*asked)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: USER - 1, 429: 2}
    assert await nobody_is_counted(bounded)


async def test_a_key_that_acts_for_nobody_has_a_bound_of_its_own(bounded: Service) -> None:
    """W6: `SERVICE_KEY_IN_FLIGHT`; what it does for a customer counts as that customer's."""
    company = await bounded.company(seats=60)
    await bounded.stripe.add_fault(**SLOW)
    key, acting = as_service(), as_service(acting_for=company.owner.customer_id)
    answers = await asyncio.gather(*(add(company, who) for who in [key] * (KEY + 2) + [acting] * USER))
    assert refused(answers) == 2
    assert [answer.status_code for answer in answers[-USER:]] == [200] * USER


async def test_an_accepted_write_is_counted_no_more_when_it_goes_on(
    stripe_account: Simulator, database_url: str
) -> None:
    """W6: a 202 ends the count, though its operation still runs."""
    async with running_service(
        stripe_account, database_url, USER_IN_FLIGHT=str(USER), OPERATION_DEADLINE="1"
    ) as service:
        company = await service.company(seats=60)
        await stripe_account.add_fault(**{**SLOW, "latency_s": 4.0})
        owner = dict(company.owner.headers)
        for _ in range(2):
            answers = await asyncio.gather(*(add(company, owner) for _ in range(USER)))
            assert [answer.status_code for answer in answers] == [202] * USER
        assert await nobody_is_counted(service)


async def test_a_refused_write_is_neither_kept_nor_counted(bounded: Service) -> None:
    """W6: the same Idempotency-Key may try again, and no refusal of another kind keeps its place."""
    company = await bounded.company(seats=60)
    owner = dict(company.owner.headers)
    await bounded.stripe.add_fault(**SLOW)
    mine = [asyncio.create_task(add(company, owner)) for _ in range(USER)]
    await asyncio.sleep(0.3)
    email = new_email()
    problem(await company.change(owner, add=[email], key="once"), 429, "too_many_in_flight")
    await asyncio.gather(*mine)
    again = await company.change(owner, add=[email], key="once")
    assert again.status_code == 200 and "idempotency-replayed" not in again.headers
    for _ in range(USER + 1):
        assert (await company.change(owner, add=["nobody@"])).status_code == 422
        assert (await company.change(owner, remove=["cus_absent0"])).status_code == 409
        assert (await company.change(dict(company.user.headers), remove=["cus_1"])).status_code in (403, 404)
    assert await nobody_is_counted(bounded)
