"""Acceptances beside additions, reductions, revocations and expiry, in forced orders: no seat is given twice."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest

from app.domain.metadata import no_membership_values
from testkit.company import Company, Service, new_email
from testkit.problems import problem
from testkit.service import as_user

SLOW_READ = {"method": "GET", "path": "/v1/subscriptions/{id}", "latency_s": 1.5}
SLOW_WRITE = {"method": "POST", "path": "/v1/customers/{id}", "latency_s": 1.5}


async def accept(company: Company, token: str, who: Mapping[str, str]) -> httpx.Response:
    return await company.service.send("POST", "/v1/invitations/accept", who, {"token": token})


async def states(company: Company) -> list[tuple[str, str | None]]:
    page = await company.service.get(f"{company.path}/invitations", company.owner.headers, limit=100)
    return [(one["state"], one["reason"]) for one in page.json()["data"]]


async def lower_at_stripe(company: Company, seats: int) -> None:
    """Without the copy knowing of it."""
    item = (await company.state())["items"]["data"][0]["id"]
    await company.service.stripe.post(f"/v1/subscription_items/{item}", quantity=seats)


async def until(service: Service, statement: str, company: Company) -> None:
    for _ in range(300):
        if await service.fetch(statement, company.subscription_id):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"nothing within 6 s: {statement}")


ADMITTED = "select 1 from operation_steps where subscription_id = $1 and settled_at is null"
IN_FLIGHT = f"{ADMITTED} and state = 'in_flight'"
EXPIRE = "update invitations set expires_at = clock_timestamp() where subscription_id = $1"


@asynccontextmanager
async def beside(
    company: Company, token: str, who: Mapping[str, str], fault: Mapping[str, object], reached: str
) -> AsyncIterator["asyncio.Task[httpx.Response]"]:
    """An acceptance that has reached this point when the block begins."""
    service = company.service
    await service.stripe.add_fault(**fault)
    accepting = asyncio.create_task(accept(company, token, who))
    try:
        await until(service, reached, company)
        yield accepting
    finally:
        await accepting
        await service.stripe.clear_faults()


async def test_fewer_seats_are_refused_when_an_invitation_has_one(service: Service) -> None:
    company = await service.company(seats=3)
    token = await company.token()
    lowered = await service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 2})
    document = problem(lowered, 409, "seats_in_use")
    assert (document["used"], document["requested"]) == (3, 2)
    assert (await accept(company, token, company.stranger.headers)).status_code == 200


async def test_the_seat_goes_back_when_the_seats_were_lowered_before_the_acceptance_was_sent(
    service: Service,
) -> None:
    company = await service.company(seats=3)
    token = await company.token()
    await lower_at_stripe(company, 2)
    refused = await accept(company, token, company.stranger.headers)
    document = problem(refused, 409, "seat_limit_reached")
    assert document.get("used") is None and len(await company.members()) == 2
    assert (await company.seats())["reserved"] == 1 and await states(company) == [("open", None)]
    await lower_at_stripe(company, 3)
    await service.refresh("subscription", company.subscription_id)
    assert (await accept(company, token, company.stranger.headers)).status_code == 200
    assert await states(company) == [("accepted", None)]


async def test_a_revocation_wins_when_the_acceptance_was_not_sent_yet(service: Service) -> None:
    company = await service.company(seats=3)
    token = await company.token()
    async with beside(company, token, company.stranger.headers, SLOW_READ, ADMITTED) as accepting:
        path = f"{company.path}/invitations/{token.partition('.')[0]}"
        revoked = await service.send("DELETE", path, company.owner.headers)
        assert revoked.status_code == 204, revoked.text
        assert (await company.seats())["reserved"] == 1, "the operation holds it until it is settled"
        problem(await accepting, 409, "invitation_ended")
    assert len(await company.members()) == 2 and (await company.seats())["reserved"] == 0
    assert await states(company) == [("revoked", None)]


@pytest.mark.parametrize(("fault", "reached"), [(SLOW_READ, ADMITTED), (SLOW_WRITE, IN_FLIGHT)])
async def test_an_acceptance_that_was_admitted_in_time_outlives_the_term(
    service: Service, fault: Mapping[str, object], reached: str
) -> None:
    company = await service.company(seats=3)
    token = await company.token()
    async with beside(company, token, company.stranger.headers, fault, reached) as accepting:
        await service.fetch(EXPIRE, company.subscription_id)
        await service.end_invitations()
        assert await states(company) == [("open", None)]
        assert (await accepting).status_code == 200
    assert await states(company) == [("accepted", None)]
    assert (await company.seats())["used"] == 3 and (await company.seats())["reserved"] == 0


async def test_an_acceptance_and_an_addition_of_the_address_fill_one_seat(service: Service) -> None:
    company = await service.company(seats=4)
    email = company.stranger.email
    token = await company.token(email)
    who = as_user("another-person", email=new_email(), email_verified=True)
    await service.stripe.add_fault(**SLOW_WRITE)
    adding = asyncio.create_task(company.change(company.owner.headers, add=[email]))
    await until(service, IN_FLIGHT, company)
    problem(await accept(company, token, who), 409, "operation_in_progress")
    assert (await adding).status_code == 200
    await service.stripe.clear_faults()
    problem(await accept(company, token, who), 409, "invitation_ended")
    assert await states(company) == [("revoked", "added")]
    assert await company.seats() == {
        "total": 4, "used": 3, "reserved": 0, "available": 1, "over_allocated": 0
    }  # fmt: skip


async def test_an_addition_of_the_address_waits_when_the_invitation_is_being_accepted(
    service: Service,
) -> None:
    company = await service.company(seats=4)
    email = new_email()
    token = await company.token(email)
    async with beside(company, token, company.stranger.headers, SLOW_WRITE, IN_FLIGHT) as accepting:
        added = await company.change(company.owner.headers, add=[email])
        problem(added, 409, "operation_in_progress")
        assert (await accepting).status_code == 200
    assert (await company.seats())["used"] == 3 and (await company.seats())["reserved"] == 0


async def test_a_raise_that_fails_leaves_the_invitation_and_its_seat(service: Service) -> None:
    company = await service.company(seats=4)
    token = await company.token(role="manager")
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", status=400)
    failed = await accept(company, token, company.user.headers)
    assert [result["outcome"] for result in failed.json()["results"]] == ["failed"], failed.text
    assert await states(company) == [("open", None)] and (await company.seats())["reserved"] == 1
    assert (await accept(company, token, company.user.headers)).status_code == 200
    assert (await company.seats())["reserved"] == 0
    assert (await company.members())[company.user.customer_id] == "manager"


@pytest.mark.parametrize("seed", range(12))
async def test_no_seat_is_given_twice_in_any_order(service: Service, seed: int) -> None:
    """Everything that fills, frees or keeps a seat at once, from seeded moments within a fifth of a second."""
    draw = random.Random(seed)
    company = await service.company(seats=6)
    tokens = [await company.token() for _ in range(3)]
    people = [as_user(f"racer-{seed}-{number}-{new_email()}") for number in range(4)]
    path = f"{company.path}/invitations"

    async def later(act: Awaitable[object]) -> None:
        await asyncio.sleep(draw.random() * 0.2)
        await act

    async def expire() -> None:
        one = tokens[2].partition(".")[0]
        await service.fetch("update invitations set expires_at = clock_timestamp() where id = $1", one)
        await service.end_invitations()

    acts: list[Awaitable[object]] = [
        *(accept(company, token, who) for token in tokens for who in people[:2]),
        accept(company, tokens[0], people[3]),
        *(company.change(company.owner.headers, add=[new_email()]) for _ in range(3)),
        company.invite(company.owner.headers),
        service.send("DELETE", f"{path}/{tokens[1].partition('.')[0]}", company.owner.headers),
        service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 5}),
        company.change(company.owner.headers, remove=[company.user.customer_id]),
        expire(),
    ]
    draw.shuffle(acts)
    await asyncio.gather(*(later(act) for act in acts))
    await service.fetch("update operations set lease_until = clock_timestamp() where settled_at is null")
    await service.work_off()
    seats, members = await company.seats(), await company.members()
    assert seats["used"] == len(members) and seats["used"] + seats["reserved"] <= seats["total"], seats
    assert seats["over_allocated"] == 0
    open_ones = [state for state, _ in await states(company) if state == "open"]
    assert seats["reserved"] == len(open_ones), "each open invitation has one seat, and nothing else has any"
    accepted = await service.fetch(
        "select acceptor_id from invitations where subscription_id = $1 and state = 'accepted'",
        company.subscription_id,
    )
    assert {row["acceptor_id"] for row in accepted} <= members.keys()


@pytest.mark.parametrize(("fault", "reached"), [(SLOW_READ, ADMITTED), (SLOW_WRITE, IN_FLIGHT)])
async def test_resending_waits_when_the_invitation_is_being_accepted(
    service: Service, fault: Mapping[str, object], reached: str
) -> None:
    """A resent token voids the old one, and the same person accepting again must get the same answer."""
    company = await service.company(seats=3)
    token = await company.token()
    path = f"{company.path}/invitations/{token.partition('.')[0]}/resend"
    async with beside(company, token, company.stranger.headers, fault, reached) as accepting:
        problem(await service.send("POST", path, company.owner.headers), 409, "operation_in_progress")
        accepted = await accepting
    assert accepted.status_code == 200, accepted.text
    again = await accept(company, token, company.stranger.headers)
    assert again.status_code == 200 and again.json()["operation_id"] == accepted.json()["operation_id"]


async def test_another_person_accepts_when_the_first_acceptance_failed(service: Service) -> None:
    company = await service.company(seats=3)
    token = await company.token()
    other = as_user("other", email=new_email(), email_verified=True)
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", status=400, times=1)
    failed = await accept(company, token, company.stranger.headers)
    assert [result["outcome"] for result in failed.json()["results"]] == ["failed"], failed.text
    kept = "select acceptor_id, operation_id from invitations where subscription_id = $1"
    assert [dict(row) for row in await service.fetch(kept, company.subscription_id)] == [
        {"acceptor_id": None, "operation_id": None}
    ]
    accepted = await accept(company, token, other)
    assert accepted.status_code == 200, accepted.text
    [row] = await service.fetch(kept, company.subscription_id)
    assert row["acceptor_id"] == accepted.json()["results"][0]["customer_id"]
    problem(await accept(company, token, company.stranger.headers), 409, "invitation_ended")
    assert (await accept(company, token, other)).json()["operation_id"] == accepted.json()["operation_id"]
    assert set(await company.members()) == {
        company.manager.customer_id,
        company.user.customer_id,
        row["acceptor_id"],
    }


async def test_erasures_of_two_people_who_invited_each_other_do_not_wait_in_a_circle(
    service: Service,
) -> None:
    """Each ends the invitation that the other one sent, and the one that was sent to them."""
    ours, theirs = await service.company(seats=4), await service.company(seats=4)
    await ours.token(theirs.owner.email)
    await theirs.token(ours.owner.email)
    holding = await asyncpg.connect(service.database_url)
    erase, erasing = "update customers set existence = 'deleted' where id = $1", []
    async with holding.transaction():
        held = "select from reservations where subscription_id = $1 and released_at is null for update"
        await holding.fetch(held, theirs.subscription_id)
        # The first one waits for the seat that is held, and the second one behind it.
        for company in (theirs, ours):
            erasing.append(asyncio.create_task(service.fetch(erase, company.owner.customer_id)))
            await asyncio.sleep(0.5)
    await holding.close()
    await asyncio.gather(*erasing)
    ended = "select state from invitations where subscription_id = any($1)"
    found = await service.fetch(ended, [ours.subscription_id, theirs.subscription_id])
    assert [row["state"] for row in found] == ["revoked", "revoked"]


async def test_invitation_ends_when_its_inviter_is_removed_while_it_is_made(service: Service) -> None:
    """The removal waits for the invitation that is being stored, and revokes it."""
    company, address = await service.company(seats=4), new_email()
    manager = company.manager.customer_id
    blocker = await asyncpg.connect(service.database_url)
    try:
        # An invitation to the same address that is not committed holds up the other one, once its inviter was judged.
        await blocker.execute("begin")
        await blocker.execute(
            """insert into invitations (id, subscription_id, email, role, state, expires_at)
            values ('inv_blocker', $1, $2, 'user', 'open', now() + interval '1 day')""",
            company.subscription_id,
            address,
        )
        body = {"email": address, "role": "user"}
        inviting = asyncio.create_task(
            service.send("POST", f"{company.path}/invitations", company.manager.headers, body)
        )
        await service.waits_for_a_lock()
        await service.stripe.post(f"/v1/customers/{manager}", metadata=no_membership_values())
        removal = asyncio.create_task(service.refresh("customer", manager))
        await asyncio.wait({removal}, timeout=1.0)
        assert not inviting.done()
    finally:
        await blocker.close()
    made = await inviting
    assert made.status_code == httpx.codes.CREATED, made.text
    await removal
    assert await states(company) == [("revoked", "inviter_removed")]
    assert (await company.seats())["reserved"] == 0


async def test_new_invitation_keeps_its_address_when_its_person_is_being_deleted(service: Service) -> None:
    """The deletion ended the invitations that it saw, and blanked the address of every one: an open one had none."""
    ours, theirs, person = await service.company(), await service.company(), await service.person("invited")
    await ours.invite(ours.owner.headers, person.email)
    holding = await asyncpg.connect(service.database_url)
    try:
        async with holding.transaction():
            held = "select from invitations where subscription_id = $1 for update"
            await holding.fetch(held, ours.subscription_id)
            deletion = "update customers set existence = 'deleted' where id = $1"
            deleting = asyncio.create_task(service.fetch(deletion, person.customer_id))
            await service.waits_for_a_lock()
            invited = await theirs.invite(theirs.owner.headers, person.email)
    finally:
        await holding.close()
    await deleting
    assert invited.status_code == 201, invited.text
    addresses = "select subscription_id, state, email from invitations where subscription_id = any($1)"
    found = await service.fetch(addresses, [ours.subscription_id, theirs.subscription_id])
    assert {tuple(row) for row in found} == {
        (ours.subscription_id, "revoked", None),
        (theirs.subscription_id, "open", person.email),
    }
