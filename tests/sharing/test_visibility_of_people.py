"""P5: adding somebody shows nothing of them until they act."""

from typing import Any

import pytest

from testkit.company import Company, Person, Service
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
