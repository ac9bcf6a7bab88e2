"""Invitations: create, list, resend, revoke, look up, accept, decline, and the seat that each reserves."""

import asyncio
from collections.abc import Mapping

import httpx
import pytest

from testkit.company import Company, Service, new_email, running_service
from testkit.problems import pointers, problem
from testkit.service import as_service, as_user


async def by_token(
    service: Service, what: str, token: str, who: Mapping[str, str] | None = None
) -> httpx.Response:
    return await service.send("POST", f"/v1/invitations/{what}", who, {"token": token})


def newcomer(email: str | None = None) -> dict[str, str]:
    """A login that has no customer yet."""
    address = email or new_email()
    return as_user(f"newcomer-{address}", email=address, email_verified=True)


async def quantity(company: Company, seats: int) -> None:
    """Sets the number of seats by hand in the Dashboard."""
    shown = await company.service.get(company.path, company.owner.headers)
    item = shown.json()["subscription"]["items"][0]["id"]
    await company.service.stripe.post(f"/v1/subscription_items/{item}", quantity=seats)
    await company.service.refresh("subscription", company.subscription_id)


async def expire(company: Company) -> None:
    """Lets the terms of all its invitations end now."""
    over = "update invitations set expires_at = clock_timestamp() where subscription_id = $1"
    await company.service.fetch(over, company.subscription_id)


async def in_flight(service: Service) -> None:
    """Until a step's request is on its way to the stand-in."""
    for _ in range(300):
        if await service.fetch("select 1 from operation_steps where state = 'in_flight'"):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("no step was sent within 6 s")


async def listed(company: Company, *states: str) -> list[dict[str, object]]:
    response = await company.service.get(
        f"{company.path}/invitations", company.owner.headers, state=list(states)
    )
    assert response.status_code == 200, response.text
    found: list[dict[str, object]] = response.json()["data"]
    return found


async def customers_at_stripe(service: Service) -> set[str]:
    return {one["id"] for one in await service.stripe.state("customer") if not one.get("deleted")}


async def test_an_invitation_reserves_a_seat_and_writes_nothing_at_stripe(service: Service) -> None:
    company = await service.company(seats=3)
    email = new_email().title()
    before = len(await service.stripe.requests())
    response = await company.invite(company.owner.headers, email, "manager")
    assert response.status_code == 201, response.text
    assert len(await service.stripe.requests()) == before
    body = response.json()
    assert body["token"] is None, "an end user is given no token"
    assert body["seats"] == {"total": 3, "used": 2, "reserved": 1, "available": 0, "over_allocated": 0}
    shown = body["invitation"]
    assert shown["id"].startswith("inv_") and shown["subscription_id"] == company.subscription_id
    assert (shown["email"], shown["role"], shown["state"], shown["reason"]) == (
        email,
        "manager",
        "open",
        None,
    )
    assert shown["invited_by"] == {"customer_id": company.owner.customer_id, "name": company.owner.name}
    assert shown["renewable"] is False
    assert await listed(company) == [shown]
    document = problem(await company.invite(company.owner.headers), 409, "seat_limit_reached")
    assert (document["total"], document["used"], document["required"]) == (3, 3, 4)
    refused = problem(
        await company.change(company.owner.headers, add=[new_email()]), 409, "seat_limit_reached"
    )
    assert refused["required"] == 4


async def test_no_customer_is_left_when_20_addresses_were_invited_and_revoked(service: Service) -> None:
    """P12: the same with additions and removals left 20 customers at Stripe."""
    company = await service.company(seats=25)
    before = await customers_at_stripe(service)
    made = [(await company.invite(company.owner.headers)).json()["invitation"]["id"] for _ in range(20)]
    assert (await company.seats())["reserved"] == 20
    for invitation_id in made:
        for _ in range(2):
            gone = await service.send(
                "DELETE", f"{company.path}/invitations/{invitation_id}", company.owner.headers
            )
            assert gone.status_code == 204, gone.text
    assert await customers_at_stripe(service) == before
    assert (await company.seats())["reserved"] == 0
    assert {one["state"] for one in await listed(company)} == {"revoked"}


async def test_a_person_without_a_customer_joins_when_they_accept(service: Service) -> None:
    company = await service.company(seats=3)
    email = new_email()
    token = await company.token(email, "manager")
    who = newcomer(new_email())
    accepted = await by_token(service, "accept", token, who)
    assert accepted.status_code == 200, accepted.text
    body = accepted.json()
    assert [(r["action"], r["outcome"], r["role"]) for r in body["results"]] == [
        ("add", "applied", "manager")
    ]
    customer_id = body["results"][0]["customer_id"]
    assert (await company.members())[customer_id] == "manager"
    assert (await company.seats()) == {
        "total": 3, "used": 3, "reserved": 0, "available": 0, "over_allocated": 0
    }  # fmt: skip
    assert [(one["state"], one["reason"]) for one in await listed(company)] == [("accepted", None)]
    again = await by_token(service, "accept", token, who)
    assert (again.status_code, again.json()) == (200, body)
    problem(await by_token(service, "accept", token, newcomer()), 409, "invitation_ended")
    assert len(await company.members()) == 3


async def test_an_acceptance_needs_no_second_free_seat(service: Service) -> None:
    company = await service.company(seats=3)
    token = await company.token()
    assert (await company.seats())["available"] == 0
    accepted = await by_token(service, "accept", token, company.stranger.headers)
    assert accepted.status_code == 200, accepted.text
    assert (await company.members())[company.stranger.customer_id] == "user"
    assert (await company.seats())["used"] == 3


async def test_a_token_opens_nothing_when_it_was_resent(service: Service) -> None:
    company = await service.company(seats=4)
    old = await company.token()
    invitation_id = old.partition(".")[0]
    path = f"{company.path}/invitations/{invitation_id}/resend"
    resent = await service.send("POST", path, as_service("write"), {})
    assert resent.status_code == 200, resent.text
    new = resent.json()["token"]
    assert new.startswith(f"{invitation_id}.2.") and resent.json()["invitation"]["id"] == invitation_id
    assert resent.json()["invitation"]["invited_by"]["customer_id"] == company.owner.customer_id
    assert (await service.send("POST", path, company.owner.headers)).json()["token"] is None
    for what in ("lookup", "accept", "decline"):
        problem(await by_token(service, what, old, company.stranger.headers), 404, "not_found")
        problem(await by_token(service, what, new, company.stranger.headers), 404, "not_found")
    problem(await service.send("POST", path, company.user.headers), 403, "role_required")
    assert (await company.seats())["reserved"] == 1


async def test_a_lookup_shows_the_product_and_changes_nothing(service: Service) -> None:
    company = await service.company(seats=4)
    token = await company.token(role="manager")
    before = await service.row_counts()
    looked = await by_token(service, "lookup", token)
    assert looked.status_code == 200, looked.text
    body = looked.json()
    assert body["product"]["name"] == "Team" and body["inviter"] == {"name": company.owner.name}
    assert body["role"] == "manager" and body["expires_at"].endswith("Z")
    assert set(body) == {"product", "inviter", "role", "expires_at"}
    assert await service.row_counts() == before
    by_key = (await company.invite(as_service("write"))).json()
    assert by_key["invitation"]["invited_by"] is None
    assert (await by_token(service, "lookup", by_key["token"])).json()["inviter"] is None


async def test_a_lookup_answers_when_the_product_is_not_mirrored_yet(service: Service) -> None:
    """The product has no name then, which was a 500."""
    company = await service.company(seats=3)
    token = await company.token()
    await service.fetch(
        """delete from products where id in (select x.product_id from subscriptions s,
            jsonb_to_recordset(s.items) as x(product_id text) where s.id = $1)""",
        company.subscription_id,
    )
    looked = await by_token(service, "lookup", token)
    assert looked.status_code == 200, looked.text
    assert looked.json()["product"]["name"] is None


async def test_a_declined_invitation_frees_its_seat(service: Service) -> None:
    company = await service.company(seats=3)
    token = await company.token()
    for _ in range(2):
        assert (await by_token(service, "decline", token)).status_code == 204
    assert (await company.seats())["reserved"] == 0
    assert [one["state"] for one in await listed(company)] == ["declined"]
    for what in ("lookup", "accept"):
        problem(await by_token(service, what, token, company.stranger.headers), 409, "invitation_ended")
    path = f"{company.path}/invitations/{token.partition('.')[0]}"
    problem(await service.send("DELETE", path, company.owner.headers), 409, "invitation_ended")
    problem(await service.send("POST", f"{path}/resend", company.owner.headers), 409, "invitation_ended")


@pytest.mark.parametrize("case", ["owner", "same role", "higher role"])
async def test_an_invitation_is_used_up_when_the_acceptor_has_the_role_already(
    service: Service, case: str
) -> None:
    company = await service.company(seats=4)
    who = {"owner": company.owner, "same role": company.user, "higher role": company.manager}[case]
    before = await company.members()
    token = await company.token()
    accepted = await by_token(service, "accept", token, who.headers)
    assert accepted.status_code == 200, accepted.text
    assert [(r["action"], r["outcome"]) for r in accepted.json()["results"]] == [("add", "unchanged")]
    assert await company.members() == before
    assert (await company.seats())["reserved"] == 0
    assert [one["state"] for one in await listed(company)] == ["accepted"]


async def test_a_member_with_a_lower_role_is_raised_when_they_accept(service: Service) -> None:
    company = await service.company(seats=4)
    token = await company.token(role="manager")
    accepted = await by_token(service, "accept", token, company.user.headers)
    assert accepted.status_code == 200, accepted.text
    assert [(r["outcome"], r["role"]) for r in accepted.json()["results"]] == [("applied", "manager")]
    assert (await company.members())[company.user.customer_id] == "manager"
    assert (await company.seats())["reserved"] == 0 and (await company.seats())["used"] == 2


async def test_a_second_invitation_is_refused_when_one_is_open(service: Service) -> None:
    company = await service.company(seats=6)
    email = new_email()
    first = (await company.invite(company.owner.headers, email)).json()["invitation"]["id"]
    refused = problem(await company.invite(company.manager.headers, email.upper()), 409, "already_invited")
    assert refused["invitation_id"] == first and (await company.seats())["reserved"] == 1
    member = await company.service.get(f"{company.path}/users", company.owner.headers)
    rows = member.json()["data"]
    assert rows[-1] == {
        **dict.fromkeys(("customer_id", "name")),
        "email": email,
        "role": "user",
        "state": "invited",
        "since": rows[-1]["since"],
        "invitation_id": first,
    }
    assert member.json()["total_count"] == len(rows) == 4
    shown = {row["role"]: row["email"] for row in rows if row["state"] == "active"}
    problem(await company.invite(company.owner.headers, shown["user"]), 409, "already_member")
    problem(await company.invite(company.owner.headers, shown["owner"]), 409, "already_member")


async def test_an_invited_address_uses_its_seat_when_it_is_added(service: Service) -> None:
    company = await service.company(seats=3)
    email = new_email()
    token = await company.token(email)
    added = await company.change(company.owner.headers, add=[email.upper()])
    assert added.status_code == 200, added.text
    assert added.json()["results"][0]["outcome"] == "applied"
    assert await company.seats() == {
        "total": 3, "used": 3, "reserved": 0, "available": 0, "over_allocated": 0
    }  # fmt: skip
    assert [(one["state"], one["reason"]) for one in await listed(company)] == [("revoked", "added")]
    problem(await by_token(service, "accept", token, newcomer(email)), 409, "invitation_ended")


async def test_the_invitation_stays_open_when_the_addition_to_its_seat_fails(service: Service) -> None:
    company = await service.company(seats=3)
    email = company.stranger.email
    token = await company.token(email)
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", status=400)
    failed = await company.change(company.owner.headers, add=[email])
    assert [r["outcome"] for r in failed.json()["results"]] == ["failed"], failed.text
    assert (await company.seats())["reserved"] == 1
    assert (await by_token(service, "accept", token, newcomer())).status_code == 200
    assert (await company.seats())["used"] == 3


async def test_the_last_seat_is_filled_once_when_an_acceptance_meets_additions(service: Service) -> None:
    company = await service.company(seats=4)
    token = await company.token()
    people = [newcomer() for _ in range(3)]
    answers = await asyncio.gather(
        *(by_token(service, "accept", token, who) for who in people),
        *(company.change(company.owner.headers, add=[new_email()]) for _ in range(4)),
    )
    accepted, added = answers[:3], answers[3:]
    assert sum(answer.status_code == 200 for answer in accepted) == 1, [a.text for a in accepted]
    assert sum(answer.status_code == 200 for answer in added) == 1, [a.text for a in added]
    assert len(await company.members()) == 4
    assert await company.seats() == {
        "total": 4, "used": 4, "reserved": 0, "available": 0, "over_allocated": 0
    }  # fmt: skip


async def test_an_invitation_ends_when_its_inviter_is_removed_or_demoted(service: Service) -> None:
    for change in ("removed", "demoted", "removed at Stripe"):
        company = await service.company(seats=6)
        manager = company.manager
        token = await company.token(inviter=manager)
        kept = await company.token()
        await _lose_right(company, change)
        shown = {one["id"]: one for one in await listed(company)}
        revoked = shown[token.partition(".")[0]]
        reason = "inviter_demoted" if change == "demoted" else "inviter_removed"
        assert (revoked["state"], revoked["reason"], revoked["renewable"]) == ("revoked", reason, True)
        assert shown[kept.partition(".")[0]]["state"] == "open"
        problem(await by_token(service, "accept", token, newcomer()), 409, "invitation_ended")
        assert (await company.seats())["reserved"] == 1


async def _lose_right(company: Company, change: str) -> None:
    manager, service = company.manager, company.service
    if change == "removed at Stripe":
        marks = {"billing_shared_subscription_id": "", "billing_shared_subscription_role": ""}
        await service.stripe.post(f"/v1/customers/{manager.customer_id}", metadata=marks)
        await service.refresh("customer", manager.customer_id)
        return
    if change == "removed":
        done = await company.change(company.owner.headers, remove=[manager.customer_id])
    else:
        role = {"customer_id": manager.customer_id, "role": "user"}
        done = await company.change(company.owner.headers, update=[role])
    assert done.status_code == 200, done.text


async def test_a_transfer_ends_the_invitations_of_the_former_owner_only(service: Service) -> None:
    company = await service.company(seats=8)
    of_owner, of_manager = await company.token(), await company.token(inviter=company.manager)
    by_key = (await company.invite(as_service("write"))).json()["token"]
    offered = await service.send(
        "POST",
        f"{company.path}/transfer",
        company.owner.headers,
        {"to_customer_id": company.manager.customer_id, "keep_me_as": "manager"},
    )
    assert offered.status_code == 200, offered.text
    taken = await service.send("POST", f"{company.path}/transfer/accept", company.manager.headers)
    assert taken.status_code == 200, taken.text
    shown = {one["id"]: (one["state"], one["reason"]) for one in await listed(company)}
    assert shown == {
        of_owner.partition(".")[0]: ("revoked", "owner_changed"),
        of_manager.partition(".")[0]: ("open", None),
        by_key.partition(".")[0]: ("open", None),
    }
    assert (await by_token(service, "accept", of_manager, newcomer())).status_code == 200


async def test_invitations_end_when_the_subscription_does(service: Service) -> None:
    company = await service.company(seats=4)
    token = await company.token()
    await service.stripe.delete(f"/v1/subscriptions/{company.subscription_id}")
    await service.refresh("subscription", company.subscription_id)
    assert [(one["state"], one["reason"]) for one in await listed(company)] == [
        ("revoked", "subscription_ended")
    ]
    problem(await by_token(service, "accept", token, newcomer()), 409, "invitation_ended")
    live = "select 1 from reservations where released_at is null and subscription_id = $1"
    assert await service.fetch(live, company.subscription_id) == []


async def test_the_right_of_the_inviter_is_read_again_when_the_invitation_is_accepted(
    service: Service,
) -> None:
    """The manager was demoted at Stripe, and the copy does not know it yet."""
    company = await service.company(seats=4)
    token = await company.token(inviter=company.manager)
    await service.stripe.post(
        f"/v1/customers/{company.manager.customer_id}", metadata={"billing_shared_subscription_role": "user"}
    )
    refused = await by_token(service, "accept", token, newcomer())
    problem(refused, 409, "invitation_ended")
    assert len(await company.members()) == 2
    assert (await company.seats())["reserved"] == 0


async def test_a_revocation_waits_when_the_acceptance_is_at_stripe(service: Service) -> None:
    company = await service.company(seats=4)
    token = await company.token()
    path = f"{company.path}/invitations/{token.partition('.')[0]}"
    stranger = company.stranger
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", latency_s=1.5)
    accepting = asyncio.create_task(by_token(service, "accept", token, stranger.headers))
    await in_flight(service)
    problem(await service.send("DELETE", path, company.owner.headers), 409, "operation_in_progress")
    problem(await by_token(service, "decline", token), 409, "operation_in_progress")
    problem(await by_token(service, "accept", token, newcomer()), 409, "operation_in_progress")
    assert (await accepting).status_code == 200
    assert (await company.seats())["used"] == 3 and (await company.seats())["reserved"] == 0
    problem(await service.send("DELETE", path, company.owner.headers), 409, "invitation_ended")


async def test_the_person_joins_when_the_inviter_is_removed_while_the_acceptance_is_at_stripe(
    service: Service,
) -> None:
    company = await service.company(seats=4)
    token = await company.token(inviter=company.manager)
    stranger = company.stranger
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", latency_s=1.5)
    accepting = asyncio.create_task(by_token(service, "accept", token, stranger.headers))
    await in_flight(service)
    removed = await company.change(company.owner.headers, remove=[company.manager.customer_id])
    assert removed.status_code == 200, removed.text
    assert [one["state"] for one in await listed(company)] == ["revoked"]
    assert (await accepting).status_code == 200
    assert [(one["state"], one["reason"]) for one in await listed(company)] == [("accepted", None)]
    assert await company.seats() == {
        "total": 4, "used": 2, "reserved": 0, "available": 2, "over_allocated": 0
    }  # fmt: skip


async def test_a_worker_finishes_the_acceptance_when_its_process_dies(service: Service) -> None:
    company = await service.company(seats=3)
    token = await company.token()
    await service.stripe.add_fault(
        method="POST",
        path="/v1/customers/{id}",
        timeout=0.05,
        effect="before",
        times=0,
    )
    async with running_service(service.stripe, service.database_url, OPERATION_DEADLINE="1") as short:
        pending = await by_token(short, "accept", token, company.stranger.headers)
        assert pending.status_code == 202, pending.text
        assert pending.headers["location"].startswith("/v1/operations/op_")
        assert (await company.seats())["available"] == 0
    await service.stripe.clear_faults()
    await service.fetch("update operations set lease_until = clock_timestamp() where settled_at is null")
    await service.work_off()
    again = await by_token(service, "accept", token, company.stranger.headers)
    assert again.status_code == 200 and again.json()["results"][0]["outcome"] == "applied"
    assert (await company.seats())["used"] == 3


async def test_an_expired_invitation_frees_its_seat_by_the_worker(service: Service) -> None:
    company = await service.company(seats=3)
    token = await company.token()
    await expire(company)
    assert [one["state"] for one in await listed(company)] == ["expired"]
    assert [one["state"] for one in await listed(company, "expired")] == ["expired"]
    assert await listed(company, "open", "accepted") == []
    for what in ("lookup", "accept", "decline"):
        problem(await by_token(service, what, token, company.stranger.headers), 409, "invitation_ended")
    assert (await company.seats())["reserved"] == 1
    await service.end_invitations()
    assert (await company.seats())["reserved"] == 0
    shown = (await listed(company))[0]
    assert (shown["state"], shown["renewable"]) == ("expired", True)


async def test_the_seat_of_an_expired_invitation_is_free_for_the_next_one_at_once(service: Service) -> None:
    company = await service.company(seats=3)
    email = new_email()
    await company.token(email)
    await expire(company)
    assert (await company.invite(company.owner.headers, email)).status_code == 201
    assert [one["state"] for one in await listed(company)] == ["open", "expired"]


async def test_the_seat_of_an_expired_invitation_is_free_for_an_addition_at_once(service: Service) -> None:
    """The list showed it as expired, but until a worker looked its seat was refused to an addition."""
    company = await service.company(seats=3)
    await company.token()
    assert (await company.seats())["available"] == 0
    await expire(company)
    added = await company.change(company.owner.headers, add=[new_email()])
    assert added.status_code == 200, added.text
    assert (await company.seats())["available"] == 0


async def test_an_acceptance_goes_on_when_the_term_ends_while_it_is_at_stripe(service: Service) -> None:
    company = await service.company(seats=3)
    token = await company.token()
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", latency_s=1.5)
    accepting = asyncio.create_task(by_token(service, "accept", token, company.stranger.headers))
    await in_flight(service)
    await expire(company)
    await service.end_invitations()
    assert (await accepting).status_code == 200
    assert [one["state"] for one in await listed(company)] == ["accepted"]


async def test_a_second_invitation_is_refused_when_the_first_is_accepted_as_its_term_ends(
    service: Service,
) -> None:
    """The invitation whose acceptance outlives its term was not found, and the second one was a 500."""
    company = await service.company(seats=5)
    email = new_email()
    invited = (await company.invite(as_service("write"), email)).json()
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", latency_s=1.5)
    accepting = asyncio.create_task(by_token(service, "accept", invited["token"], company.stranger.headers))
    await in_flight(service)
    await expire(company)
    refused = problem(await company.invite(company.owner.headers, email), 409, "already_invited")
    assert refused["invitation_id"] == invited["invitation"]["id"]
    added = await company.change(company.owner.headers, add=[email])
    assert added.json()["results"][0]["code"] == "operation_in_progress"
    assert (await accepting).status_code == 200


async def test_an_acceptance_leaves_the_invitation_open_when_it_cannot_be_kept_now(service: Service) -> None:
    company = await service.company(seats=4)
    token = await company.token()
    elsewhere = await service.company()
    async with running_service(
        service.stripe, service.database_url, MEMBERSHIPS_PER_CUSTOMER="1"
    ) as one_membership:
        refused = await by_token(one_membership, "accept", token, elsewhere.user.headers)
        problem(refused, 409, "cannot_be_added")
    await quantity(company, 1)
    document = problem(
        await by_token(service, "accept", token, company.stranger.headers), 409, "seat_limit_reached"
    )
    assert not {"total", "used", "required"} & document.keys()
    await quantity(company, 4)
    assert [one["state"] for one in await listed(company)] == ["open"]
    assert (await by_token(service, "accept", token, elsewhere.user.headers)).status_code == 200
    both = await service.get("/v1/customers/me/subscriptions", elsewhere.user.headers)
    assert {row["id"] for row in both.json()["data"]} == {company.subscription_id, elsewhere.subscription_id}


async def test_an_invitation_is_bound_to_its_address_when_the_setting_says_so(service: Service) -> None:
    company = await service.company(seats=5)
    email = new_email()
    token = await company.token(email)
    async with running_service(
        service.stripe, service.database_url, INVITATION_EMAIL_MUST_MATCH="true"
    ) as bound:
        unverified = as_user("unverified", email=email)
        before = await customers_at_stripe(service)
        for who in (newcomer(), company.stranger.headers, unverified):
            problem(await by_token(bound, "accept", token, who), 403, "invitation_for_another")
        assert await customers_at_stripe(service) == before
        assert (await by_token(bound, "accept", token, newcomer(email.upper()))).status_code == 200


async def test_a_key_accepts_only_for_a_customer(service: Service) -> None:
    company = await service.company(seats=3)
    token = await company.token()
    problem(await by_token(service, "accept", token, as_service("write")), 422, "invalid_request")
    problem(await by_token(service, "accept", token, as_service("read")), 403, "scope_required")
    problem(await by_token(service, "accept", token), 401, "unauthenticated")
    acting = as_service("write", acting_for=company.stranger.customer_id)
    assert (await by_token(service, "accept", token, acting)).status_code == 200


async def test_a_replay_makes_the_token_again_and_none_is_stored(service: Service) -> None:
    company = await service.company(seats=4)
    email, key = new_email(), as_service("write", acting_for=company.owner.customer_id)
    first = await company.invite(key, email, key="invite-1")
    again = await company.invite(key, email, key="invite-1")
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.status_code, again.json()) == (201, first.json())
    token = first.json()["token"]
    stored = await service.fetch("select body from idempotency_keys where key = 'invite-1'")
    assert token.rpartition(".")[2].encode() not in stored[0]["body"]
    await service.fetch("delete from idempotency_keys")
    lost = await company.invite(key, email, key="invite-1")
    assert lost.status_code == 201 and lost.json()["token"] == token
    assert len(await listed(company)) == 1


async def test_a_reused_key_is_named_before_its_answer_is_made_again(service: Service) -> None:
    """The answer of the first request cannot be made without the secret, and is not this one's."""
    company, key = await service.company(seats=4), f"reused-{new_email()}"
    acting = as_service("write", acting_for=company.owner.customer_id)
    first = await company.invite(acting, key=key)
    assert first.status_code == 201, first.text
    path = f"{company.path}/invitations"
    async with running_service(service.stripe, service.database_url, INVITATION_SECRETS="") as bare:
        body = {"email": new_email(), "role": "user"}
        reused = await bare.send("POST", path, acting, body, Idempotency_Key=key)
        problem(reused, 422, "idempotency_key_reused")


async def test_a_rotated_secret_still_verifies_and_a_dropped_one_does_not(service: Service) -> None:
    company = await service.company(seats=4)
    token = await company.token()
    old, new = "invitations-only-for-tests-32-characters", "the-secret-that-follows-the-first-one"
    async with running_service(
        service.stripe, service.database_url, INVITATION_SECRETS=f"{new},{old}"
    ) as rotated:
        assert (await by_token(rotated, "lookup", token)).status_code == 200
    async with running_service(service.stripe, service.database_url, INVITATION_SECRETS=new) as dropped:
        problem(await by_token(dropped, "lookup", token), 404, "not_found")
    async with running_service(service.stripe, service.database_url, INVITATION_SECRETS="") as without:
        problem(await by_token(without, "accept", token, newcomer()), 503, "invitations_unavailable")
        closed = await without.send(
            "POST", f"{company.path}/invitations", company.owner.headers, {"email": new_email()}
        )
        problem(closed, 503, "invitations_unavailable")


async def test_addresses_are_blanked_when_the_person_is_erased_or_30_days_have_passed(
    service: Service,
) -> None:
    company = await service.company(seats=6)
    token = await company.token(company.stranger.email.upper())
    await service.stripe.delete(f"/v1/customers/{company.stranger.customer_id}")
    await service.refresh("customer", company.stranger.customer_id)
    shown = (await listed(company))[0]
    assert (shown["email"], shown["state"], shown["reason"]) == (None, "revoked", "person_erased")
    problem(await by_token(service, "accept", token, newcomer()), 409, "invitation_ended")
    declined = await company.token()
    assert (await by_token(service, "decline", declined)).status_code == 204
    ended = "update invitations set ended_at = clock_timestamp() - $2 * interval '1 day' where subscription_id = $1"
    await service.fetch(ended, company.subscription_id, 29)
    await service.end_invitations()
    assert (await listed(company))[0]["email"] is not None
    await service.fetch(ended, company.subscription_id, 31)
    await service.end_invitations()
    assert (await listed(company))[0]["email"] is None


async def test_the_list_pages_by_state_newest_first(service: Service) -> None:
    company = await service.company(seats=9)
    made = [(await company.invite(company.owner.headers)).json()["invitation"]["id"] for _ in range(5)]
    await service.send("DELETE", f"{company.path}/invitations/{made[1]}", company.owner.headers)
    seen, cursor = [], None
    while True:
        query = {"limit": 2, "state": "open", **({"cursor": cursor} if cursor else {})}
        page = (await service.get(f"{company.path}/invitations", company.owner.headers, **query)).json()
        seen += [one["id"] for one in page["data"]]
        cursor = page["next_cursor"]
        if not page["has_more"]:
            break
    assert seen == [made[4], made[3], made[2], made[0]]
    for who, status in ((company.user, 403), (company.stranger, 404)):
        response = await service.get(f"{company.path}/invitations", who.headers)
        assert response.status_code == status, response.text


async def test_every_end_is_in_the_audit_trail_without_the_address(service: Service) -> None:
    company = await service.company(seats=9, payer_is_owner=False)
    email = new_email()
    token = await company.token(email)
    assert (await by_token(service, "decline", token)).status_code == 204
    trail = await service.get(f"{company.path}/audit-events", company.owner.headers)
    found = [(row["action"], row["source"], row["after"]) for row in trail.json()["data"]][:2]
    invitation_id = token.partition(".")[0]
    assert found == [
        ("invitation_declined", "api", {"invitation_id": invitation_id}),
        ("invitation_created", "api", {"invitation_id": invitation_id, "role": "user"}),
    ]
    assert email not in trail.text
    payers = await service.get(f"{company.path}/audit-events", company.payer.headers)
    assert "invitation" not in payers.text


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/email"),
        ({"email": "no address"}, "/email"),
        ({"email": 7}, "/email"),
        ({"email": "a" * 250 + "@example.com"}, "/email"),
        ({"email": "a@example.com", "role": "owner"}, "/role"),
        ({"email": "a@example.com", "role": None}, "/role"),
        ({"email": "a@example.com", "days": 3}, "/days"),
    ],
)
async def test_an_invitation_is_refused_when_its_body_breaks_a_rule(
    service: Service, body: object, pointer: str
) -> None:
    company = await service.company()
    refused = await service.send("POST", f"{company.path}/invitations", company.owner.headers, body)
    document = problem(refused, 422, "invalid_request")
    assert pointers(document) == [pointer] and document["errors"][0]["detail"]


@pytest.mark.parametrize("what", ["lookup", "accept", "decline"])
@pytest.mark.parametrize(
    ("body", "pointer"),
    [({}, "/token"), ({"token": 1}, "/token"), ({"token": ""}, "/token"), ({"token": "t" * 201}, "/token")],
)
async def test_a_token_is_refused_when_it_is_no_text(
    service: Service, what: str, body: object, pointer: str
) -> None:
    who = newcomer()
    document = problem(
        await service.send("POST", f"/v1/invitations/{what}", who, body), 422, "invalid_request"
    )
    assert pointers(document) == [pointer]


async def test_the_list_is_refused_when_its_query_breaks_a_rule(service: Service) -> None:
    company = await service.company()
    path = f"{company.path}/invitations"
    for query, pointer in (({"state": "opened"}, "query/state/0"), ({"limit": 0}, "query/limit")):
        document = problem(await service.get(path, company.owner.headers, **query), 422, "invalid_request")
        assert pointers(document) == [pointer]
    bad = await service.send("DELETE", f"{path}/inv_1", company.owner.headers)
    assert pointers(problem(bad, 422, "invalid_request")) == ["path/invitation_id"]
    absent = await service.send("DELETE", f"{path}/inv_{'0' * 24}", company.owner.headers)
    problem(absent, 404, "not_found")


async def test_invited_people_are_listed_after_the_members_page_by_page(service: Service) -> None:
    company = await service.company(seats=9)
    emails = [new_email() for _ in range(4)]
    for email in emails:
        assert (await company.invite(company.owner.headers, email)).status_code == 201
    rows: list[dict[str, object]] = []
    cursor: str | None = None
    while True:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await service.get(f"{company.path}/users", company.owner.headers, **query)).json()
        assert page["total_count"] == 7
        rows, cursor = rows + page["data"], page["next_cursor"]
        if not page["has_more"]:
            break
    assert [row["email"] for row in rows[3:]] == emails
    assert [row["state"] for row in rows] == ["active"] * 3 + ["invited"] * 4
    found = (await service.get(f"{company.path}/users", company.owner.headers, search=emails[2])).json()
    assert [row["email"] for row in found["data"]] == [emails[2]]
    managers = (await service.get(f"{company.path}/users", company.owner.headers, role="manager")).json()
    assert managers["total_count"] == 1
    mine = (await service.get(f"{company.path}/users", company.user.headers)).json()
    assert {row["state"] for row in mine["data"]} == {"active"} and not set(emails) & set(str(mine))
