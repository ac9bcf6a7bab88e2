"""Who a login is: linked once, both ways unique, never by an e-mail that merely looks the same."""

import asyncio
import secrets
from typing import Any

import httpx

from testkit.company import Service, Who, new_email
from testkit.problems import pointers, problem
from testkit.service import as_service, as_user


async def me(service: Service, who: Who) -> str:
    response = await service.get("/v1/customers/me", who)
    assert response.status_code == 200, response.text
    return str(response.json()["customer"]["id"])


async def created(service: Service, who: Who, body: Any = None) -> httpx.Response:
    return await service.send("POST", "/v1/customers", who, {} if body is None else body)


def customer_of(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["customer"]["id"])


def subject() -> str:
    return f"subject-{secrets.token_hex(6)}"


async def test_the_user_id_in_metadata_links_at_first_sight_and_for_good(service: Service) -> None:
    person = await service.person("ada")
    assert await me(service, person.headers) == person.customer_id
    # What is edited afterwards does not move a login to another customer.
    other = await service.person("bob", linked=False)
    await service.stripe.post(f"/v1/customers/{person.customer_id}", metadata={"billing_user_id": ""})
    await service.stripe.post(
        f"/v1/customers/{other.customer_id}", metadata={"billing_user_id": person.subject}
    )
    await service.refresh("customer", person.customer_id)
    await service.refresh("customer", other.customer_id)
    assert await me(service, person.headers) == person.customer_id
    # Nor may a second login have a customer that is somebody's already.
    thief = subject()
    await service.stripe.post(f"/v1/customers/{person.customer_id}", metadata={"billing_user_id": thief})
    await service.refresh("customer", person.customer_id)
    problem(await service.get("/v1/customers/me", as_user(thief)), 404, "customer_not_linked")


async def test_two_customers_with_one_user_id_link_nobody(service: Service) -> None:
    login = subject()
    for label in ("one", "two"):
        await service.person(label, linked=False, billing_user_id=login)
    problem(await service.get("/v1/customers/me", as_user(login)), 404, "customer_not_linked")
    assert await service.fetch("select 1 from identities where subject = $1", login) == []


async def test_a_deleted_customer_links_nobody(service: Service) -> None:
    person = await service.person("gone")
    await service.stripe.delete(f"/v1/customers/{person.customer_id}")
    await service.refresh("customer", person.customer_id)
    problem(await service.get("/v1/customers/me", person.headers), 404, "customer_not_linked")


async def test_the_issuers_claim_links_and_must_agree_ever_after(service: Service) -> None:
    claimed, other = (
        await service.person("claimed", linked=False),
        await service.person("other", linked=False),
    )
    login = subject()
    assert await me(service, as_user(login, stripe_customer_id=claimed.customer_id)) == claimed.customer_id
    assert await me(service, as_user(login)) == claimed.customer_id
    disagreeing = as_user(login, stripe_customer_id=other.customer_id)
    for method, path in (
        ("GET", "/v1/customers/me"),
        ("GET", f"/v1/customers/{other.customer_id}"),
        ("POST", "/v1/customers"),
    ):
        response = await service.send(method, path, disagreeing, {} if method == "POST" else None)
        problem(response, 403, "identity_conflict")
    taken = as_user(subject(), stripe_customer_id=claimed.customer_id)
    problem(await service.get("/v1/customers/me", taken), 403, "identity_conflict")


async def test_a_claim_of_an_unknown_customer_gives_no_other_one(service: Service) -> None:
    before = len(await service.stripe.state("customer"))
    who = as_user(stripe_customer_id="cus_unknown000", email=new_email(), email_verified=True)
    problem(await service.get("/v1/customers/me", who), 404, "customer_not_linked")
    problem(await created(service, who), 404, "customer_not_linked")
    assert len(await service.stripe.state("customer")) == before


async def test_a_users_claim_outweighs_his_user_id(service: Service) -> None:
    by_user_id, claimed = await service.person("by-id"), await service.person("by-claim", linked=False)
    who = as_user(by_user_id.subject, stripe_customer_id=claimed.customer_id)
    assert await me(service, who) == claimed.customer_id


async def test_a_new_user_gets_one_customer(service: Service) -> None:
    login, email = subject(), new_email()
    who = as_user(login, email=email.upper(), email_verified=True)
    problem(await service.get("/v1/customers/me", who), 404, "customer_not_linked")
    made = customer_of(await created(service, who, {"name": "New User"}), 201)
    assert customer_of(await created(service, who, {"name": "Another Name"}), 200) == made
    assert await me(service, who) == made
    found = await service.stripe.get(f"/v1/customers/{made}")
    assert (found["email"], found["name"]) == (email, "New User")
    assert found["metadata"]["billing_user_id"] == login


async def test_an_unverified_email_is_not_written(service: Service) -> None:
    made = customer_of(await created(service, as_user(subject(), email=new_email())), 201)
    assert (await service.stripe.get(f"/v1/customers/{made}"))["email"] is None


async def test_a_hundred_racing_calls_make_one_customer(service: Service) -> None:
    login, email = subject(), new_email()
    who = as_user(login, email=email, email_verified=True)
    answers = await asyncio.gather(*(created(service, who) for _ in range(100)))
    assert {answer.status_code for answer in answers} <= {200, 201}, {a.text for a in answers}
    assert sum(answer.status_code == 201 for answer in answers) == 1
    ids = {answer.json()["customer"]["id"] for answer in answers}
    assert len(ids) == 1
    customers = await service.stripe.state("customer")
    named = [c["id"] for c in customers if (c.get("metadata") or {}).get("billing_user_id") == login]
    assert named == list(ids)
    assert [c.get("email") for c in customers].count(email) == 1


async def test_a_person_cannot_speak_for_another(service: Service) -> None:
    unlinked, linked = as_user(subject()), (await service.person("linked")).headers
    await me(service, linked)
    before = await service.row_counts()
    for who in (unlinked, linked):
        for body, named in (
            ({"user_id": "somebody-else"}, ["/user_id"]),
            ({"email": "somebody@example.com"}, ["/email"]),
            ({"user_id": "x", "email": "x@example.com", "name": "X"}, ["/user_id", "/email"]),
        ):
            document = problem(await created(service, who, body), 403, "field_not_allowed")
            assert pointers(document) == named
    assert await service.row_counts() == before


async def test_a_service_key_makes_somebodys_customer(service: Service) -> None:
    login, email = subject(), new_email()
    key = as_service("write")
    body = {"user_id": login, "email": email.upper(), "name": "Made By A Key"}
    made = customer_of(await created(service, key, body), 201)
    assert customer_of(await created(service, key, {"user_id": login}), 200) == made
    assert await me(service, as_user(login)) == made
    assert (await service.stripe.get(f"/v1/customers/{made}"))["email"] == email
    clamped = as_service("write", acting_for=made)
    problem(await created(service, clamped, {"user_id": subject()}), 403, "scope_required")
    document = problem(await created(service, key, {"email": email}), 422, "invalid_request")
    assert pointers(document) == ["/user_id"]
    problem(await created(service, None), 401, "unauthenticated")


async def test_an_added_person_reaches_his_seat_at_his_first_login_once(service: Service) -> None:
    company, email, login = await service.company(), new_email("invited"), subject()
    added = await company.change(company.owner.headers, add=[email.upper()])
    seat = added.json()["results"][0]["customer_id"]
    who = as_user(login, email=email, email_verified=True)
    # Seeing him is not enough: only the trigger takes a customer over.
    problem(await service.get("/v1/customers/me", who), 404, "customer_not_linked")
    assert customer_of(await created(service, who, {"name": "Invited"}), 200) == seat
    plan = await service.get(company.path, who)
    assert plan.json()["subscription"]["role"] == "user"
    assert (await service.stripe.get(f"/v1/customers/{seat}"))["metadata"]["billing_user_id"] == login
    # The same e-mail, verified for another login, gets a customer of its own.
    second = as_user(subject(), email=email, email_verified=True)
    assert customer_of(await created(service, second), 201) != seat
    problem(await service.get(company.path, second), 404, "not_found")


async def test_later_sign_up_names_the_login_at_stripe_when_the_first_could_not(service: Service) -> None:
    company, email, login = await service.company(), new_email("invited"), subject()
    added = await company.change(company.owner.headers, add=[email])
    seat = added.json()["results"][0]["customer_id"]
    who = as_user(login, email=email, email_verified=True)
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", status=500, save=True, times=0)
    assert (await created(service, who)).status_code >= 500
    assert await me(service, who) == seat
    await service.stripe.clear_faults()
    assert customer_of(await created(service, who), 200) == seat
    assert (await service.stripe.get(f"/v1/customers/{seat}"))["metadata"]["billing_user_id"] == login


async def test_an_unverified_email_takes_no_seat(service: Service) -> None:
    company, email = await service.company(), new_email("invited")
    added = await company.change(company.owner.headers, add=[email])
    seat = added.json()["results"][0]["customer_id"]
    for claims in ({}, {"email_verified": False}, {"email_verified": "true"}, {"email_verified": 1}):
        who = as_user(subject(), email=email, **claims)
        assert customer_of(await created(service, who), 201) != seat
        problem(await service.get(company.path, who), 404, "not_found")
    rightful = as_user(subject(), email=email, email_verified=True)
    assert customer_of(await created(service, rightful), 200) == seat


async def test_an_equal_email_alone_takes_nothing_over(service: Service) -> None:
    company = await service.company()
    by_hand = await service.person("byhand", linked=False)
    seated = await company.seated("dashboard", "user")
    await service.stripe.post(f"/v1/customers/{seated.customer_id}", metadata={"billing_user_id": ""})
    await service.refresh("customer", seated.customer_id)
    # Being added to a subscription does not make an existing customer one of a seat: only the seat moves.
    assert (await company.change(company.owner.headers, add=[by_hand.email])).status_code == 200
    for person, status in ((by_hand, 200), (seated, 404)):
        who = as_user(subject(), email=person.email, email_verified=True)
        assert customer_of(await created(service, who), 201) != person.customer_id
        assert (await service.get(company.path, who)).status_code == status


async def test_a_seat_customer_whose_email_was_changed_is_not_taken_over(service: Service) -> None:
    company, email = await service.company(), new_email("invited")
    added = await company.change(company.owner.headers, add=[email])
    seat = added.json()["results"][0]["customer_id"]
    await service.stripe.post(f"/v1/customers/{seat}", email=new_email("moved"))
    await service.refresh("customer", seat)
    who = as_user(subject(), email=email, email_verified=True)
    assert customer_of(await created(service, who), 201) != seat


async def test_adding_and_first_login_at_once_are_one_customer(service: Service) -> None:
    company = await service.company(seats=30, users=0)
    for _ in range(8):
        email = new_email("racing")
        who = as_user(subject(), email=email, email_verified=True)
        added, login = await asyncio.gather(
            company.change(company.owner.headers, add=[email]), created(service, who)
        )
        assert added.json()["results"][0]["outcome"] == "applied", added.text
        assert login.status_code in (200, 201), login.text
        again = customer_of(await created(service, who), 200)
        assert again == login.json()["customer"]["id"]
        if login.status_code == 200:
            assert again == added.json()["results"][0]["customer_id"]


async def test_one_subject_of_two_issuers_are_two_people(service: Service) -> None:
    person = await service.person("here")
    foreign = as_user(person.subject, iss="https://elsewhere.example")
    problem(await service.get("/v1/customers/me", foreign), 401, "unauthenticated")


async def test_a_customer_without_a_name_gets_that_of_who_takes_it_over(service: Service) -> None:
    """Whether a seat was added for the e-mail or the metadata names the subject; a name that is there stays."""
    company = await service.company()
    email = new_email()
    added = (await company.change(company.owner.headers, add=[email])).json()["results"][0]
    person = as_user(subject(), email=email, email_verified=True)
    answer = await created(service, person, {"name": "Nora New"})
    assert customer_of(answer, 200) == added["customer_id"]
    assert answer.json()["customer"]["name"] == "Nora New"
    assert (await service.stripe.get(f"/v1/customers/{added['customer_id']}"))["name"] == "Nora New"
    again = await created(service, person, {"name": "Another Name"})
    assert again.json()["customer"]["name"] == "Nora New"

    nameless = await service.person("nameless")
    await service.stripe.post(f"/v1/customers/{nameless.customer_id}", name="")
    await service.refresh("customer", nameless.customer_id)
    body = {"user_id": nameless.subject, "name": "Nils Named"}
    answer = await created(service, as_service("write"), body)
    assert (customer_of(answer, 200), answer.json()["customer"]["name"]) == (
        nameless.customer_id,
        "Nils Named",
    )

    named = await service.person("named")
    answer = await created(service, as_service("write"), {"user_id": named.subject, "name": "Somebody Else"})
    assert (customer_of(answer, 200), answer.json()["customer"]["name"]) == (named.customer_id, named.name)
