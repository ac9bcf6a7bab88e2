"""A 504 from in front of Stripe whose request still runs: nothing happens twice, and nothing is reported as failed.

The stand-in answers 504 at once and executes the request seconds later.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.errors import StripeOutcomeUnknown
from testkit.company import Company, Person, Service, new_email
from testkit.problems import ok
from testkit.service import as_service

LATE_SECONDS = 3.0
LATE = {"status": 504, "late_s": LATE_SECONDS, "times": 1}
KEPT = {**LATE, "save": True}
"""The late request's own answer is kept under its key."""


@pytest.fixture(autouse=True)
async def _no_faults_left(service: Service) -> AsyncIterator[None]:
    yield
    await service.stripe.clear_faults()


@dataclass(frozen=True)
class Change:
    """A change of one object, the change that takes it back, and what the object shows after either.

    `path`: of the write at Stripe; `object_id`: the object, None for one that the write creates.
    """

    path: str
    object_id: Callable[[Company], str | None]
    do: Callable[[Company], Awaitable[httpx.Response]]
    undo: Callable[[Company], Awaitable[httpx.Response]]
    seen: Callable[[Company], Awaitable[object]]
    done: object
    undone: object


async def role(company: Company, customer_id: str) -> str | None:
    return (await company.members()).get(customer_id)


async def quantity(company: Company) -> int:
    return int((await company.state())["items"]["data"][0]["quantity"])


async def seats(company: Company, total: int) -> httpx.Response:
    return await company.service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": total})


async def items(company: Company, number: int) -> httpx.Response:
    item_id = (await company.state())["items"]["data"][0]["id"]
    body = {"items": [{"id": item_id, "quantity": number}]}
    path = f"/v1/subscriptions/{company.subscription_id}"
    return await company.service.send("PATCH", path, company.owner.headers, body)


async def has_end(company: Company) -> bool:
    return bool((await company.state())["cancel_at_period_end"])


async def to_role(company: Company, name: str) -> httpx.Response:
    update = [{"customer_id": company.user.customer_id, "role": name}]
    return await company.change(company.owner.headers, update=update)


async def end(company: Company, act: str) -> httpx.Response:
    path = f"/v1/subscriptions/{company.subscription_id}/{act}"
    return await company.service.send("POST", path, company.owner.headers, {} if act == "cancel" else None)


async def owner(company: Company) -> str:
    named = (await company.state())["metadata"]["billing_shared_subscription_owner"]
    return {company.owner.customer_id: "owner", company.manager.customer_id: "manager"}[named]


async def to_owner(company: Company, person: Person) -> httpx.Response:
    """A service offers the ownership, and the person accepts it."""
    path, offer = f"{company.path}/transfer", {"to_customer_id": person.customer_id}
    ok(await company.service.send("POST", path, as_service("admin"), offer))
    return await company.service.send("POST", f"{path}/accept", person.headers)


CUSTOMER, SUBSCRIPTION = "/v1/customers/{id}", "/v1/subscriptions/{id}"
CHANGES = {
    "add": Change(
        CUSTOMER,
        lambda company: company.stranger.customer_id,
        lambda company: company.change(company.owner.headers, add=[company.stranger.email]),
        lambda company: company.change(company.owner.headers, remove=[company.stranger.customer_id]),
        lambda company: role(company, company.stranger.customer_id),
        done="user",
        undone=None,
    ),
    "remove": Change(
        CUSTOMER,
        lambda company: company.user.customer_id,
        lambda company: company.change(company.owner.headers, remove=[company.user.customer_id]),
        lambda company: company.change(company.owner.headers, add=[company.user.email]),
        lambda company: role(company, company.user.customer_id),
        done=None,
        undone="user",
    ),
    "role": Change(
        CUSTOMER,
        lambda company: company.user.customer_id,
        lambda company: to_role(company, "manager"),
        lambda company: to_role(company, "user"),
        lambda company: role(company, company.user.customer_id),
        done="manager",
        undone="user",
    ),
    "seats": Change(
        SUBSCRIPTION,
        lambda company: company.subscription_id,
        lambda company: seats(company, 9),
        lambda company: seats(company, 6),
        quantity,
        done=9,
        undone=6,
    ),
    "items": Change(
        SUBSCRIPTION,
        lambda company: company.subscription_id,
        lambda company: items(company, 9),
        lambda company: items(company, 6),
        quantity,
        done=9,
        undone=6,
    ),
    "owner": Change(
        SUBSCRIPTION,
        lambda company: company.subscription_id,
        lambda company: to_owner(company, company.manager),
        lambda company: to_owner(company, company.owner),
        owner,
        done="manager",
        undone="owner",
    ),
    "end": Change(
        SUBSCRIPTION,
        lambda company: company.subscription_id,
        lambda company: end(company, "cancel"),
        lambda company: end(company, "resume"),
        has_end,
        done=True,
        undone=False,
    ),
}


async def fault(company: Company, change: Change, **fault: Any) -> None:
    where = {"method": "POST", "path": change.path, "object": change.object_id(company)}
    await company.service.stripe.add_fault(**where, **fault)


async def passed() -> None:
    """The late request has run."""
    await asyncio.sleep(LATE_SECONDS + 0.5)


@pytest.mark.parametrize("name", CHANGES)
async def test_change_that_was_taken_back_stays_so_when_its_first_request_runs_late(
    service: Service, name: str
) -> None:
    """W1 and its siblings: seated again, manager again, 9 seats again."""
    company, change = await service.company(), CHANGES[name]
    await fault(company, change, **LATE)
    ok(await change.do(company))
    assert await change.seen(company) == change.done
    ok(await change.undo(company))
    assert await change.seen(company) == change.undone
    await passed()
    assert await change.seen(company) == change.undone


async def told(service: Service, operation_id: str) -> list[tuple[str, str | None]]:
    """The results after one try of a worker."""
    await service.fetch(
        "update operations set lease_until = now() - interval '1 second' where settled_at is null"
    )
    with suppress(StripeOutcomeUnknown):
        await service.work_off()
    story = ok(await service.get(f"/v1/operations/{operation_id}", as_service("read")))
    return [(result["outcome"], result["code"]) for result in story["results"]]


async def handed_over(service: Service, operation_id: str) -> None:
    free = (
        "select 1 from operations where id = $1 and lease_until < clock_timestamp() + interval '1.1 seconds'"
    )
    for _ in range(200):
        if await service.fetch(free, operation_id):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the runner holds the operation for ten seconds")


async def is_reserved(service: Service, operation_id: str) -> bool:
    held = "select 1 from reservations where operation_id = $1 and released_at is null"
    return bool(await service.fetch(held, operation_id))


@pytest.mark.parametrize("name", CHANGES)
async def test_change_is_never_failed_when_its_second_request_is_refused_and_the_first_runs_late(
    service: Service, hasty: Service, name: str
) -> None:
    """W1: a 400 about a later request of the key says nothing of the one that still runs.

    Nor does it after the late window: then a read decides.
    """
    company, change = await hasty.company(), CHANGES[name]
    await fault(company, change, **LATE)
    await fault(company, change, status=400, code="parameter_invalid_integer", times=0)
    operation_id = ok(await change.do(company), 202)["operation_id"]
    await handed_over(service, operation_id)
    # A transfer shows its new owner, and that they are no member any more.
    parts = 2 if name == "owner" else 1
    assert await told(service, operation_id) == [("pending", None)] * parts
    assert await is_reserved(service, operation_id) is (name in ("add", "role"))
    await passed()
    assert await change.seen(company) == change.done
    await service.fetch(
        "update operation_steps set unanswered_at = unanswered_at - interval '6 minutes' where operation_id = $1",
        operation_id,
    )
    assert await told(service, operation_id) == [("applied", None)] * parts


async def test_seat_bought_for_an_addition_stays_given_back_when_its_first_request_runs_late(
    service: Service,
) -> None:
    """W1: the purchase that an addition beyond the seats brings along."""
    company = await service.company(seats=2)
    where = {"method": "POST", "path": SUBSCRIPTION, "object": company.subscription_id}
    await service.stripe.add_fault(**where, **LATE)
    ok(await company.change(company.owner.headers, add=[company.stranger.email], over_capacity="add_seats"))
    assert await quantity(company) == 3
    ok(await company.change(company.owner.headers, remove=[company.stranger.customer_id]))
    ok(await seats(company, 2))
    await passed()
    assert await quantity(company) == 2


async def made_for(service: Service, email: str) -> list[Any]:
    return [one for one in await service.stripe.state("customer") if one.get("email") == email]


async def test_addition_by_email_makes_one_customer_when_its_first_request_runs_late(
    service: Service,
) -> None:
    """W1: two customers, both seated, used 4 of 3."""
    company, email = await service.company(seats=3), new_email()
    await service.stripe.add_fault(method="POST", path="/v1/customers", **LATE)
    [result] = ok(await company.change(company.owner.headers, add=[email]))["results"]
    await passed()
    [made] = await made_for(service, email)
    assert (result["outcome"], result["customer_id"]) == ("applied", made["id"])
    assert len(await company.members()) == 3
    listed = ok(await service.get(f"{company.path}/users", company.owner.headers))["seats"]
    assert (listed["total"], listed["used"], listed["reserved"]) == (3, 3, 0)


async def test_addition_by_email_is_never_failed_when_its_second_request_is_refused(
    service: Service, hasty: Service
) -> None:
    """W1: the step failed, its seat went to somebody else, then the first request ran."""
    company, email = await hasty.company(seats=3), new_email()
    where = {"method": "POST", "path": "/v1/customers"}
    await service.stripe.add_fault(**where, **KEPT)
    await service.stripe.add_fault(**where, status=400, code="parameter_invalid_integer", times=0)
    answer = ok(await company.change(company.owner.headers, add=[email]), 202)
    other = await company.change(company.owner.headers, add=[company.stranger.email])
    assert other.status_code == httpx.codes.CONFLICT and other.json()["code"] == "seat_limit_reached"
    await handed_over(service, answer["operation_id"])
    assert await told(service, answer["operation_id"]) in ([("pending", None)], [("applied", None)])
    await passed()
    assert await told(service, answer["operation_id"]) == [("applied", None)]
    [made] = await made_for(service, email)
    assert made["id"] in await company.members() and len(await company.members()) == 3


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_step_is_not_failed_when_stripe_does_not_accept_the_key(
    service: Service, hasty: Service, method: str
) -> None:
    """A key that was revoked refuses every request: none of them was sent, and the change goes on with a new key."""
    company, change = await hasty.company(), CHANGES["add"]
    where = {"method": method, "path": change.path, "object": change.object_id(company)}
    await service.stripe.add_fault(**where, status=401, times=0)
    operation_id = ok(await change.do(company), 202)["operation_id"]
    await handed_over(service, operation_id)
    assert await told(service, operation_id) == [("pending", None)]
    [step] = await service.fetch("select state from operation_steps where operation_id = $1", operation_id)
    assert step["state"] == "planned"
    await service.stripe.clear_faults()
    assert await told(service, operation_id) == [("applied", None)]
