"""P5: adding somebody shows nothing of them until they act."""

import asyncio
from typing import Any

import pytest

from testkit.company import Company, Person, Service, new_email, running_service
from testkit.problems import ok, problem
from testkit.service import as_service, as_user


async def row_of(company: Company, customer_id: str, **query: Any) -> Any:
    found = ok(await company.service.get(f"{company.path}/users", company.owner.headers, limit=100, **query))
    return next((row for row in found["data"] if row["customer_id"] == customer_id), None)


async def registered(service: Service) -> Person:
    """A person with a verified address, who has been here before, and whose profile has another address by now."""
    person = await service.person("ada")
    who = as_user(person.subject, email=person.email, email_verified=True)
    assert (await service.send("POST", "/v1/customers", who, {})).status_code == 200
    await service.stripe.post(f"/v1/customers/{person.customer_id}", email=f"private.{person.email}")
    await service.refresh("customer", person.customer_id)
    return Person(person.customer_id, person.subject, person.email, person.name, who)


async def test_registered_person_is_shown_as_typed_until_they_act(service: Service) -> None:
    """P5: their name and present e-mail were shown to the adder."""
    company, person = await service.company(seats=4), await registered(service)
    added = ok(await company.change(company.owner.headers, add=[person.email]))
    assert added["results"][0]["customer_id"] == person.customer_id
    row = await row_of(company, person.customer_id)
    assert (row["state"], row["email"], row["name"]) == ("unclaimed", person.email, None)
    everything = (await service.get(f"{company.path}/users", company.owner.headers)).text
    assert person.name not in everything and "private." not in everything
    ok(await service.get("/v1/customers/me", person.headers))
    await service.move_seats()
    row = await row_of(company, person.customer_id)
    assert (row["state"], row["name"]) == ("active", person.name)
    assert row["email"] == f"private.{person.email}"


async def test_id_of_unclaimed_member_opens_nothing(service: Service) -> None:
    """P5: the id is shown, and nothing of its customer is read by it."""
    company, person = await service.company(seats=4), await registered(service)
    ok(await company.change(company.owner.headers, add=[person.email]))
    for path in ("", "/subscriptions", "/invoices", "/payment-methods"):
        found = await service.get(f"/v1/customers/{person.customer_id}{path}", company.owner.headers)
        problem(found, 404, "not_found")


@pytest.mark.parametrize("hidden", ["name", "private"])
async def test_search_finds_unclaimed_member_only_by_what_is_shown(service: Service, hidden: str) -> None:
    """P5: a search must not reveal what the row hides."""
    company, person = await service.company(seats=4), await registered(service)
    ok(await company.change(company.owner.headers, add=[person.email]))
    needle = person.name.split()[1] if hidden == "name" else f"private.{person.email}"
    assert await row_of(company, person.customer_id, search=needle) is None
    assert await row_of(company, person.customer_id, search=person.email) is not None


async def test_member_is_unclaimed_again_when_they_are_added_again(service: Service) -> None:
    """P5: what counts is an act since the membership was written."""
    company, person = await service.company(seats=4), await registered(service)
    ok(await company.change(company.owner.headers, add=[person.email]))
    ok(await service.get(company.path, person.headers))
    await service.move_seats()
    assert (await row_of(company, person.customer_id))["state"] == "active"
    ok(await company.change(company.owner.headers, remove=[person.customer_id]))
    ok(await company.change(company.owner.headers, add=[person.email]))
    assert (await row_of(company, person.customer_id))["state"] == "unclaimed"


async def test_typed_address_is_dropped_when_the_member_leaves(service: Service) -> None:
    """P5: if somebody gives a former member a seat in the Dashboard, nobody has typed an address for that seat."""
    company, person = await service.company(seats=4), await registered(service)
    ok(await company.change(company.owner.headers, add=[person.email]))
    path = f"/v1/customers/{person.customer_id}"
    marks = {"billing_shared_subscription_id": "", "billing_shared_subscription_role": ""}
    await service.stripe.post(path, metadata=marks)
    await service.refresh("customer", person.customer_id)
    marks = {"billing_shared_subscription_id": company.subscription_id}
    await service.stripe.post(path, metadata=marks)
    await service.refresh("customer", person.customer_id)
    row = await row_of(company, person.customer_id)
    assert (row["state"], row["name"]) == ("active", person.name)


async def test_member_added_by_id_or_in_the_dashboard_is_active(service: Service) -> None:
    """P5: nobody typed an address for them."""
    company, person = await service.company(seats=4), await registered(service)
    ok(await company.change(as_service("write"), add=[person.customer_id]))
    assert (await row_of(company, person.customer_id))["state"] == "active"
    assert (await row_of(company, company.user.customer_id))["state"] == "active"


def mixed(email: str) -> str:
    return email.replace("new", "New.Person").replace("example", "Example")


async def test_case_of_typed_address_is_shown_until_the_person_acts(service: Service) -> None:
    """Readings "People" 13: the adder sees what they typed, and afterwards the person's own address."""
    company, email = await service.company(seats=4), mixed(new_email())
    added = ok(await company.change(company.owner.headers, add=[email]))
    customer_id = added["results"][0]["customer_id"]
    assert added["results"][0]["email"] == email
    row = await row_of(company, customer_id)
    assert (row["state"], row["email"]) == ("unclaimed", email)
    assert await row_of(company, customer_id, search=email.lower()) == row
    at_stripe = await service.stripe.get(f"/v1/customers/{customer_id}")
    assert at_stripe["email"] == email.lower()
    again = ok(await company.change(company.owner.headers, add=[email.upper()]))
    assert [(one["outcome"], one["customer_id"]) for one in again["results"]] == [("unchanged", customer_id)]
    who = as_user(f"login-{email}", email=email.lower(), email_verified=True)
    assert ok(await service.send("POST", "/v1/customers", who, {}))["customer"]["id"] == customer_id
    ok(await service.get("/v1/customers/me", who))
    await service.move_seats()
    row = await row_of(company, customer_id)
    assert (row["state"], row["email"]) == ("active", email.lower())


async def test_case_of_typed_address_is_dropped_when_the_person_leaves(service: Service) -> None:
    """Readings "People" 13."""
    company, email = await service.company(seats=4), mixed(new_email())
    added = ok(await company.change(company.owner.headers, add=[email]))
    customer_id = added["results"][0]["customer_id"]
    ok(await company.change(company.owner.headers, remove=[customer_id]))
    marks = {"billing_shared_subscription_id": company.subscription_id}
    await service.stripe.post(f"/v1/customers/{customer_id}", metadata=marks)
    await service.refresh("customer", customer_id)
    assert (await row_of(company, customer_id))["email"] == email.lower()


async def test_case_of_typed_address_is_shown_while_the_addition_runs(service: Service) -> None:
    """Readings "People" 13: the address is compared without its case, also while nobody has it yet."""
    company, other = await service.company(seats=4), await service.company(seats=4)
    email = mixed(new_email())
    await service.stripe.add_fault(method="POST", path="/v1/customers", latency_s=2.0, times=1)
    async with running_service(service.stripe, service.database_url, OPERATION_DEADLINE="1") as hasty:
        path, body = f"{company.path}/users", {"add": [{"email": email}]}
        ok(await hasty.send("PATCH", path, company.owner.headers, body), 202)
        shown = ok(await hasty.get(path, company.owner.headers, state="pending"))["data"]
        assert [row["email"] for row in shown] == [email]
        for typed in (email.lower(), email.upper()):
            again = await hasty.send("PATCH", path, company.owner.headers, {"add": [{"email": typed}]})
            problem(again, 409, "operation_in_progress")
        problem(await company.invite(company.owner.headers, email.upper()), 409, "already_member")
        await asyncio.gather(*(other.change(other.owner.headers, add=[one]) for one in (email.lower(),)))
        await asyncio.sleep(2)
    await service.work_off()
    found = [one for one in await service.stripe.state("customer") if one.get("email") == email.lower()]
    assert len(found) == 1
    assert found[0]["id"] in await company.members() and found[0]["id"] in await other.members()


async def test_one_address_is_one_person_in_a_call_whatever_its_case(service: Service) -> None:
    company, email = await service.company(seats=9), new_email()
    twice = await company.change(company.owner.headers, add=[email, email.upper()])
    assert problem(twice, 422, "invalid_request")["errors"][0]["pointer"] == "/add/1"


async def test_case_of_invited_address_is_shown_until_the_person_is_added(service: Service) -> None:
    """Readings "People" 13: an addition in another case uses the invitation's seat, and shows what was typed last."""
    company, email = await service.company(seats=3), mixed(new_email())
    ok(await company.invite(company.owner.headers, email), 201)
    [row] = ok(await service.get(f"{company.path}/users", company.owner.headers, state="invited"))["data"]
    assert row["email"] == email
    problem(await company.invite(company.owner.headers, email.upper()), 409, "already_invited")
    added = ok(await company.change(company.owner.headers, add=[email.upper()]))
    row = await row_of(company, added["results"][0]["customer_id"])
    assert (row["state"], row["email"]) == ("unclaimed", email.upper())
    assert (await company.seats())["reserved"] == 0


async def test_users_own_list_is_cut_to_the_limit_when_it_is_longer(service: Service) -> None:
    """The list of a user had two rows, whatever limit was asked for."""
    company = await service.company(users=2)
    path, who = f"{company.path}/users", company.user.headers
    whole = ok(await service.get(path, who))
    assert [row["customer_id"] for row in whole["data"]] == [
        company.owner.customer_id,
        company.user.customer_id,
    ]
    assert (whole["has_more"], whole["next_cursor"]) == (False, None)
    first = ok(await service.get(path, who, limit=1))
    assert (first["data"], first["total_count"], first["has_more"]) == (whole["data"][:1], 2, True)
    second = ok(await service.get(path, who, limit=1, cursor=first["next_cursor"]))
    assert (second["data"], second["total_count"]) == (whole["data"][1:], 2)
    assert (second["has_more"], second["next_cursor"]) == (False, None)
    for query in ({"role": "user"}, {"role": "owner"}, {"search": "owner"}):
        found = ok(await service.get(path, who, limit=1, **query))
        assert (len(found["data"]), found["total_count"], found["has_more"]) == (1, 1, False)
