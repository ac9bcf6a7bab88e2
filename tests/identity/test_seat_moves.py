"""P1: a verified address reaches the seat that was given to it, whenever it arrives and in whatever order."""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from testkit.company import Company, Service, new_email
from testkit.problems import problem
from testkit.service import as_service, as_user

MEMBER, ROLE = "billing_shared_subscription_id", "billing_shared_subscription_role"


def ok(response: httpx.Response, *statuses: int) -> Any:
    assert response.status_code in (statuses or (200, 201)), response.text
    return response.json()


@dataclass
class Anna:
    """A person whose address a seat is given to."""

    service: Service
    subject: str = field(default_factory=lambda: f"anna-{secrets.token_hex(5)}")
    email: str = field(default_factory=lambda: new_email("anna"))

    @property
    def verified(self) -> dict[str, str]:
        return as_user(self.subject, email=self.email, email_verified=True)

    @property
    def unverified(self) -> dict[str, str]:
        return as_user(self.subject, email=self.email, email_verified=False)

    async def sign_up(self, who: dict[str, str], **body: Any) -> str:
        return str(ok(await self.service.send("POST", "/v1/customers", who, body))["customer"]["id"])

    async def sign_up_by_key(self) -> str:
        return await self.sign_up(as_service("write"), user_id=self.subject, email=self.email)

    async def customer_id(self) -> str:
        return str(ok(await self.service.get("/v1/customers/me", as_user(self.subject)))["customer"]["id"])


async def added(company: Company, email: str, role: str = "user") -> str:
    answer = ok(await company.change(company.owner.headers, add=[{"email": email, "role": role}]))
    assert answer["results"][0]["outcome"] in ("applied", "unchanged"), answer
    return str(answer["results"][0]["customer_id"])


async def rows(company: Company) -> dict[str, Any]:
    found = ok(await company.service.get(f"{company.path}/users", company.owner.headers, limit=100))
    return {row["customer_id"]: row for row in found["data"]}


async def seats(company: Company) -> Any:
    return ok(await company.service.get(company.path, company.owner.headers))["subscription"]["shared"][
        "seats"
    ]


async def until_sent(service: Service, company: Company) -> None:
    """Wait until an addition to the company is on its way to Stripe."""
    step = "select from operation_steps where subscription_id = $1 and state = 'in_flight'"
    for _ in range(200):
        if await service.fetch(step, company.subscription_id):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("no addition is sent")


async def has_access(company: Company, who: dict[str, str]) -> bool:
    path = "/v1/customers/me/access"
    return bool(ok(await company.service.get(path, who, product_id=company.product_id))["has_access"])


async def test_seat_moves_when_the_address_is_verified_after_the_sign_up(service: Service) -> None:
    """P1: her first token lacked a true `email_verified`, and the second customer never got the seat."""
    company, anna = await service.company(seats=3), Anna(service)
    seat = await added(company, anna.email)
    own = await anna.sign_up(anna.unverified)
    assert own != seat
    assert (await rows(company))[seat]["state"] == "unclaimed"
    assert await anna.sign_up(anna.verified) == own
    assert set(await company.members()) == {company.manager.customer_id, company.user.customer_id, own}
    assert await has_access(company, anna.verified)
    assert (await rows(company))[own]["state"] == "active"
    found = await seats(company)
    assert (found["used"], found["reserved"], found["over_allocated"]) == (3, 0, 0)


async def test_seat_moves_when_any_request_brings_the_verified_address(service: Service) -> None:
    """P1: a later verified token did not repair it. A read queues the move and does not wait."""
    company, anna = await service.company(seats=3), Anna(service)
    seat = await added(company, anna.email)
    own = await anna.sign_up(anna.unverified)
    problem(await service.get(company.path, anna.verified), 404, "not_found")
    await service.move_seats()
    assert ok(await service.get(company.path, anna.verified))["subscription"]["role"] == "user"
    assert seat not in await company.members() and own in await company.members()


async def test_seat_moves_when_the_service_key_brings_the_address(service: Service) -> None:
    """P1: neither did the service key's trigger. The person has not come yet, so the seat stays unclaimed."""
    company, anna = await service.company(seats=3), Anna(service)
    own = await anna.sign_up(anna.unverified)
    await added(company, anna.email)
    assert await anna.sign_up_by_key() == own
    assert own in await company.members()
    row = (await rows(company))[own]
    assert (row["state"], row["email"], row["name"]) == ("unclaimed", anna.email, None)
    await anna.customer_id()
    await service.move_seats()
    assert (await rows(company))[own]["state"] == "active"


async def test_seat_moves_when_it_is_given_after_the_address_was_looked_for(service: Service) -> None:
    """The addition was on its way to Stripe when the verified address came, and nobody looked again."""
    company, anna = await service.company(seats=3), Anna(service)
    made = await service.stripe.post("/v1/customers", email=anna.email)
    await service.refresh("customer", made["id"])
    own = await anna.sign_up(anna.unverified)
    await service.stripe.add_fault(
        method="POST", path="/v1/customers/{id}", object=made["id"], latency_s=2.0, times=1
    )
    addition = asyncio.create_task(added(company, anna.email))
    await until_sent(service, company)
    problem(await service.get(company.path, anna.verified), 404, "not_found")
    await service.move_seats()
    assert await service.fetch("select from identities where email = $1 and seats_due is null", anna.email)
    assert await addition == made["id"]
    await service.move_seats()
    assert set(await company.members()) == {company.manager.customer_id, company.user.customer_id, own}


async def test_address_is_never_ambiguous_when_its_login_has_a_customer(service: Service) -> None:
    """P1: after a member had set their address, every addition of that address was `ambiguous_email`."""
    company, other, anna = await service.company(seats=3), await service.company(seats=3), Anna(service)
    await added(company, anna.email)
    own = await anna.sign_up(anna.unverified)
    ok(await service.send("PATCH", "/v1/customers/me", anna.verified, {"email": anna.email}))
    await service.move_seats()
    again = ok(await company.change(company.owner.headers, add=[anna.email]))["results"][0]
    assert (again["outcome"], again["customer_id"]) == ("unchanged", own)
    elsewhere = await other.change(other.owner.headers, add=[anna.email])
    assert problem(elsewhere, 409, "cannot_be_added") if elsewhere.is_error else elsewhere.json()


Step = Callable[[Company, Anna], Awaitable[object]]


async def _patch(company: Company, anna: Anna) -> None:
    path, body = "/v1/customers/me", {"email": anna.email}
    await company.service.send("PATCH", path, anna.verified, body)


STEPS: dict[str, Step] = {
    "add": lambda company, anna: added(company, anna.email),
    "unverified": lambda _, anna: anna.sign_up(anna.unverified),
    "verified": lambda _, anna: anna.sign_up(anna.verified),
    "key": lambda _, anna: anna.sign_up_by_key(),
    "patch": _patch,
}


@pytest.mark.parametrize("first", list(STEPS))
async def test_person_has_the_one_seat_in_whatever_order_things_happen(service: Service, first: str) -> None:
    """P1: the order of addition, tokens, trigger and address must not matter. 120 orders, by their first step."""
    for rest in itertools.permutations(name for name in STEPS if name != first):
        await _check_order(service, (first, *rest))


async def _check_order(service: Service, order: tuple[str, ...]) -> None:
    company, anna = await service.company(seats=3), Anna(service)
    for name in order:
        await STEPS[name](company, anna)
    await service.move_seats()
    own = await anna.customer_id()
    expected = {company.manager.customer_id, company.user.customer_id, own}
    assert set(await company.members()) == expected, order
    assert await has_access(company, anna.verified), order
    found = await seats(company)
    assert (found["used"], found["reserved"]) == (3, 0), order
    again = ok(await company.change(company.owner.headers, add=[anna.email]))["results"][0]
    assert (again["outcome"], again["customer_id"]) == ("unchanged", own), order


async def test_higher_role_stays_when_the_person_is_a_member_already(service: Service) -> None:
    """P1: the seat is freed, and the person keeps the higher role."""
    company, anna = await service.company(seats=5), Anna(service)
    seat = await added(company, anna.email, "manager")
    own = await anna.sign_up(anna.unverified)
    ok(await company.change(as_service("write"), add=[own]))
    await anna.sign_up(anna.verified)
    members = await company.members()
    assert (seat in members, members[own]) == (False, "manager")
    assert (await seats(company))["used"] == 3


async def test_seat_is_freed_when_the_person_owns_the_subscription(service: Service) -> None:
    """P1: an owner has no member's metadata."""
    company = await service.company(seats=3)
    email = new_email("boss")
    seat = await added(company, email)
    who = as_user(company.owner.subject, email=email, email_verified=True)
    ok(await service.send("POST", "/v1/customers", who, {}))
    assert seat not in await company.members() and company.owner.customer_id not in await company.members()
    assert (await seats(company))["used"] == 2


async def test_address_belongs_to_the_login_that_verified_it_last(service: Service) -> None:
    """P1: a login that has another address by now gets no seat by the former one."""
    company, anna, heir = await service.company(seats=4), Anna(service), Anna(service)
    heir.email = anna.email
    own, other = await anna.sign_up(anna.verified), await heir.sign_up(heir.unverified)
    await heir.sign_up(heir.verified)
    assert await added(company, anna.email) == other
    moved_on = as_user(heir.subject, email=new_email(), email_verified=True)
    await heir.sign_up(moved_on)
    assert own not in await company.members() and other in await company.members()
    third = Anna(service, email=anna.email)
    seat = await added(company, new_email())
    assert seat in await company.members()
    await third.sign_up(third.unverified)
    assert len(await company.members()) == 4


async def test_unverified_address_reaches_no_seat(service: Service) -> None:
    """P1: only a verified address receives a seat."""
    company, anna = await service.company(seats=3), Anna(service)
    seat = await added(company, anna.email)
    await anna.sign_up(anna.unverified)
    await anna.customer_id()
    await service.move_seats()
    assert seat in await company.members()


async def test_seat_of_a_dashboard_customer_moves_and_the_customer_is_not_taken_over(
    service: Service,
) -> None:
    """P1: a customer that the service did not create belongs to nobody only because of its e-mail."""
    company, anna = await service.company(seats=3), Anna(service)
    made = await service.stripe.post("/v1/customers", email=anna.email, name="Anna Elsewhere")
    await service.refresh("customer", made["id"])
    assert await added(company, anna.email) == made["id"]
    own = await anna.sign_up(anna.verified)
    assert own != made["id"]
    assert set(await company.members()) == {company.manager.customer_id, company.user.customer_id, own}


async def test_all_unclaimed_seats_of_the_address_move(service: Service) -> None:
    """P1: all unclaimed memberships of one customer move together."""
    companies = [await service.company(seats=3) for _ in range(2)]
    anna = Anna(service)
    seat = await added(companies[0], anna.email)
    key = f"billing_{companies[1].subscription_id}"
    await service.stripe.post(f"/v1/customers/{seat}", metadata={key: "user"})
    await service.refresh("customer", seat)
    own = await anna.sign_up(anna.unverified)
    await anna.sign_up(anna.verified)
    assert own in await companies[0].members()


async def test_two_logins_of_one_address_get_one_seat(service: Service) -> None:
    """P1: while a seat moves, no other login takes it over."""
    company, anna, twin = await service.company(seats=4), Anna(service), Anna(service)
    twin.email = anna.email
    await added(company, anna.email)
    await anna.sign_up(anna.unverified)
    await anna.sign_up(anna.verified)
    await twin.sign_up(twin.verified)
    assert len(await company.members()) == 3


async def test_seat_is_counted_once_when_stripe_fails_between_the_two_writes(service: Service) -> None:
    """P1: one reservation makes both members count as one seat until the second write is known."""
    company, anna = await service.company(seats=3), Anna(service)
    seat = await added(company, anna.email)
    own = await anna.sign_up(anna.unverified)
    await service.stripe.add_fault(
        method="POST", path="/v1/customers/{id}", object=seat, status=500, times=0, effect="before"
    )
    await anna.sign_up(anna.verified)
    await service.refresh("customer", own)
    found = await seats(company)
    assert (found["used"], found["over_allocated"]) == (3, 0)
    assert {seat, own} <= set(await company.members())
    await service.stripe.clear_faults()
    assert await has_access(company, anna.verified)
