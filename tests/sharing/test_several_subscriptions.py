"""One person on several shared subscriptions: the guide's keys for one of them, and a key of its own for each other."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from testkit.company import Company, Person, Service, new_email, running_service
from testkit.memberships import membership_mismatches
from testkit.problems import problem
from testkit.service import as_service

GUIDE = "billing_shared_subscription_id"


@pytest.fixture(autouse=True)
async def _projection_is_right(service: Service) -> AsyncIterator[None]:
    yield
    async with service.context.database.connection() as connection:
        assert await membership_mismatches(connection) == []


def results(response: httpx.Response) -> list[tuple[str, str | None]]:
    assert response.status_code in (200, 202, 409), response.text
    return [(row["outcome"], row["code"]) for row in response.json()["results"]]


async def marks(service: Service, customer_id: str) -> dict[str, str]:
    """The metadata that names memberships."""
    found: dict[str, str] = (await service.stripe.get(f"/v1/customers/{customer_id}"))["metadata"]
    return {key: value for key, value in found.items() if "_sub_" in key or "shared" in key}


def guides(company: Company, role: str = "user") -> dict[str, str]:
    return {GUIDE: company.subscription_id, "billing_shared_subscription_role": role}


def own(company: Company) -> str:
    return f"billing_{company.subscription_id}"


async def listed(service: Service, person: Person) -> dict[str, str]:
    answer = await service.get("/v1/customers/me/subscriptions", person.headers)
    assert answer.status_code == 200, answer.text
    return {one["id"]: one["role"] for one in answer.json()["data"]}


async def has_access(service: Service, person: Person, company: Company) -> Any:
    answer = await service.get(
        f"/v1/customers/{person.customer_id}/access", as_service("read"), product_id=company.product_id
    )
    return answer.json()


async def test_second_membership_uses_its_own_key_when_the_guides_keys_are_taken(service: Service) -> None:
    first, second = await service.company(), await service.company()
    person = first.user
    added = await second.change(second.owner.headers, add=[{"email": person.email, "role": "manager"}])
    assert results(added) == [("applied", None)]
    assert await marks(service, person.customer_id) == {**guides(first), own(second): "manager"}
    assert (await second.members())[person.customer_id] == "manager"
    assert await listed(service, person) == {
        first.subscription_id: "user",
        second.subscription_id: "manager",
    }
    for company in (first, second):
        found = await has_access(service, person, company)
        assert (found["has_access"], found["subscription_id"]) == (True, company.subscription_id)
    # The manager of the second one is a user of the first one.
    problem(await first.change(person.headers, add=[new_email()]), 403, "role_required")
    assert results(await second.change(person.headers, add=[new_email()])) == [("applied", None)]


async def test_role_and_removal_change_the_key_of_their_subscription_alone(service: Service) -> None:
    first, second = await service.company(), await service.company()
    person = first.user
    await second.change(second.owner.headers, add=[person.email])
    update = [{"customer_id": person.customer_id, "role": "manager"}]
    assert results(await second.change(second.owner.headers, update=update)) == [("applied", None)]
    assert await marks(service, person.customer_id) == {**guides(first), own(second): "manager"}
    assert results(await first.change(first.owner.headers, remove=[person.customer_id])) == [
        ("applied", None)
    ]
    # Nothing is moved into the guide's keys when they are freed.
    assert await marks(service, person.customer_id) == {own(second): "manager"}
    assert results(await first.change(first.owner.headers, add=[person.email])) == [("applied", None)]
    assert await marks(service, person.customer_id) == {**guides(first), own(second): "manager"}
    left = await service.send("DELETE", f"{second.path}/users/me", person.headers)
    assert results(left) == [("applied", None)]
    assert await marks(service, person.customer_id) == guides(first)


async def test_removal_clears_both_forms_when_both_name_the_subscription(service: Service) -> None:
    company = await service.company()
    person = company.user
    both = {own(company): "manager"}
    await service.stripe.post(f"/v1/customers/{person.customer_id}", metadata=both)
    await service.refresh("customer", person.customer_id)
    answer = await service.get(company.path, person.headers)
    # One seat, and the guide's role counts.
    assert answer.json()["subscription"]["role"] == "user"
    shown = (await service.get(company.path, company.owner.headers)).json()["subscription"]["shared"]
    assert shown["seats"]["used"] == 2
    update = [{"customer_id": person.customer_id, "role": "manager"}]
    assert results(await company.change(company.owner.headers, update=update)) == [("applied", None)]
    assert await marks(service, person.customer_id) == {**guides(company, "manager"), own(company): "manager"}
    removed = await company.change(company.owner.headers, remove=[person.customer_id])
    assert results(removed) == [("applied", None)]
    assert await marks(service, person.customer_id) == {}


async def test_addition_takes_over_the_keys_of_ended_subscriptions(service: Service) -> None:
    ended, other, new = [await service.company() for _ in range(3)]
    person = ended.user
    await other.change(other.owner.headers, add=[person.email])
    for company in (ended, other):
        await service.stripe.delete(f"/v1/subscriptions/{company.subscription_id}")
        await service.refresh("subscription", company.subscription_id)
    assert results(await new.change(new.owner.headers, add=[person.email])) == [("applied", None)]
    assert await marks(service, person.customer_id) == guides(new)


@pytest.mark.parametrize("form", ["guide", "own"])
async def test_trail_names_no_operation_of_another_subscription_when_an_addition_there_clears_an_ended_key(
    service: Service, form: str
) -> None:
    """The trail of the ended subscription showed its owner who manages the people of another customer."""
    ended, kept, new = [await service.company() for _ in range(3)]
    person = (ended if form == "guide" else kept).user
    if form == "own":
        await ended.change(ended.owner.headers, add=[person.email])
    await service.stripe.delete(f"/v1/subscriptions/{ended.subscription_id}")
    await service.refresh("subscription", ended.subscription_id)
    added = await new.change(new.owner.headers, add=[person.email])
    assert results(added) == [("applied", None)]

    async def entry(company: Company, action: str, who: Any) -> dict[str, Any]:
        trail = await service.get(f"{company.path}/audit-events", who)
        [found] = [
            one
            for one in trail.json()["data"]
            if (one["action"], one["customer_id"]) == (action, person.customer_id)
        ]
        return dict(found)

    shown = await entry(ended, "member_removed", ended.owner.headers)
    assert (shown["source"], shown["operation_id"], shown["actor_customer_id"]) == ("api", None, None)
    whole = await entry(ended, "member_removed", as_service("read"))
    own_entry = await entry(new, "member_added", new.owner.headers)
    for one in (whole, own_entry):
        assert (one["operation_id"], one["actor_customer_id"]) == (
            added.json()["operation_id"],
            new.owner.customer_id,
        )


@pytest.mark.parametrize(("limit", "waiting"), [(1, 1), (2, 1), (3, 1), (4, 2)])
async def test_additions_are_refused_when_the_limit_is_reached(
    service: Service, limit: int, waiting: int
) -> None:
    companies = [await service.company(users=0) for _ in range(limit + 1)]
    async with running_service(
        service.stripe, service.database_url, MEMBERSHIPS_PER_CUSTOMER=str(limit)
    ) as limited:

        async def add(company: Company, email: str) -> Any:
            body = {"add": [{"email": email}]}
            return results(await limited.send("PATCH", f"{company.path}/users", company.owner.headers, body))

        person, unknown = await service.person("known"), new_email()
        told = [await add(company, person.email) for company in companies]
        assert told == [[("applied", None)]] * limit + [[("refused", "cannot_be_added")]]
        # Of these, at most half may wait for their first login.
        told = [await add(company, unknown) for company in companies]
        refused = [[("refused", "cannot_be_added")]] * (limit + 1 - waiting)
        assert told == [[("applied", None)]] * waiting + refused
        # Keys that were typed by hand count and are shown, whatever the limit is.
        last = companies[-1]
        by_hand = {own(last): "user"}
        await service.stripe.post(f"/v1/customers/{person.customer_id}", metadata=by_hand)
        await service.refresh("customer", person.customer_id)
        assert last.subscription_id in await listed(limited, person)


async def test_both_are_seated_when_two_subscriptions_add_one_person_at_once(service: Service) -> None:
    first, second = await service.company(), await service.company()
    person = await service.person("wanted")
    answers = await asyncio.gather(
        *(company.change(company.owner.headers, add=[person.email]) for company in (first, second))
    )
    assert [results(answer) for answer in answers] == [[("applied", None)]] * 2
    found = await marks(service, person.customer_id)
    keys = [{**guides(first), own(second): "user"}, {**guides(second), own(first): "user"}]
    assert found in keys


async def test_one_customer_is_created_when_two_subscriptions_add_one_email_at_once(service: Service) -> None:
    first, second = await service.company(), await service.company()
    email = new_email()
    answers = await asyncio.gather(
        *(company.change(company.owner.headers, add=[email]) for company in (first, second))
    )
    for company, answer in zip((first, second), answers, strict=True):
        told = await service.settled(answer.json()["operation_id"], company.owner.headers)
        assert results(told) == [("applied", None)]
    customers = [one for one in await service.stripe.state("customer") if one["email"] == email]
    assert len(customers) == 1
    assert customers[0]["id"] in await first.members() and customers[0]["id"] in await second.members()
    live = await service.fetch("select 1 from reservations where released_at is null and email = $1", email)
    assert live == []


async def test_late_first_attempt_keeps_its_keys_when_another_subscription_adds_the_person(
    service: Service,
) -> None:
    """The first addition is answered 504 and runs 2 s later; until then the guide's keys are not free."""
    first, second = await service.company(), await service.company()
    person = await service.person("late")
    late = {"method": "POST", "path": "/v1/customers/{id}", "object": person.customer_id}
    await service.stripe.add_fault(**late, status=504, late_s=2.0, times=1)
    adding = asyncio.create_task(first.change(first.owner.headers, add=[person.email]))
    await asyncio.sleep(0.5)
    answer = await second.change(second.owner.headers, add=[person.email])
    assert results(answer) == [("applied", None)]
    told = await service.settled((await adding).json()["operation_id"], first.owner.headers)
    assert results(told) == [("applied", None)]
    assert await marks(service, person.customer_id) == {**guides(first), own(second): "user"}


async def test_addition_is_refused_when_stripe_has_no_room_for_a_key(service: Service) -> None:
    """Stripe keeps at most 50 metadata keys of an object."""
    company = await service.company()
    person = await service.person("full")
    taken = {f"crm_{number}": "taken" for number in range(49)}
    await service.stripe.post(f"/v1/customers/{person.customer_id}", metadata=taken)
    answer = await company.change(company.owner.headers, add=[person.email])
    assert results(answer) == [("failed", "cannot_be_added")]
    assert person.customer_id not in await company.members()


async def test_memberships_are_found_by_each_reader_when_a_person_is_on_several(service: Service) -> None:
    companies = [await service.company(users=0) for _ in range(4)]
    person = await service.person("busy")
    for number, company in enumerate(companies):
        role = "manager" if number == 2 else "user"
        added = await company.change(company.owner.headers, add=[{"email": person.email, "role": role}])
        assert results(added) == [("applied", None)]
    assert len(await listed(service, person)) == 4
    managed = await service.get("/v1/customers/me/subscriptions", person.headers, role="manager")
    assert [one["id"] for one in managed.json()["data"]] == [companies[2].subscription_id]
    trail = await service.get(f"{companies[3].path}/audit-events", companies[3].owner.headers)
    entry = next(one for one in trail.json()["data"] if one["customer_id"] == person.customer_id)
    assert (entry["action"], entry["source"]) == ("member_added", "api")
