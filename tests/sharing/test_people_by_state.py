"""The list of people by state: who is listed, counted and found."""

from typing import Any

import pytest

from testkit.company import Company, Person, Service, new_email, running_service
from testkit.problems import ok, pointers, problem
from testkit.service import as_user

STATES = ("active", "unclaimed", "pending", "invited")


async def people(company: Company, *states: str, **query: Any) -> Any:
    return ok(
        await company.service.get(
            f"{company.path}/users", company.owner.headers, state=list(states), limit=100, **query
        )
    )


def emails(page: Any) -> list[str]:
    return [row["email"] for row in page["data"]]


async def in_all_states(service: Service) -> tuple[Company, dict[str, list[str]]]:
    """A team with people in every state, and the addresses by state in the order of the list."""
    company = await service.company(seats=9)
    unclaimed, invited, pending = new_email("typed"), new_email("asked"), new_email("slow")
    ok(await company.change(company.owner.headers, add=[{"email": unclaimed, "role": "manager"}]))
    assert (await company.invite(company.owner.headers, invited)).status_code == 201
    async with running_service(service.stripe, service.database_url, OPERATION_DEADLINE="1") as hasty:
        await service.stripe.add_fault(method="POST", path="/v1/customers", status=504, times=0)
        body = {"add": [{"email": pending}]}
        added = await hasty.send("PATCH", f"{company.path}/users", company.owner.headers, body)
        assert added.status_code == 202, added.text
    await service.stripe.clear_faults()
    members = sorted((company.manager, company.user), key=lambda person: person.customer_id)
    active = [company.owner.email, *(person.email for person in members)]
    return company, {
        "active": active,
        "unclaimed": [unclaimed],
        "pending": [pending],
        "invited": [invited],
    }


async def test_list_shows_and_counts_only_the_named_states_when_it_is_filtered(service: Service) -> None:
    company, expected = await in_all_states(service)
    for state in STATES:
        page = await people(company, state)
        assert emails(page) == expected[state], state
        assert page["total_count"] == len(expected[state]), state
        assert {row["state"] for row in page["data"]} == {state}
    both = await people(company, "invited", "unclaimed", "invited")
    assert emails(both) == expected["unclaimed"] + expected["invited"] and both["total_count"] == 2
    everybody = await people(company)
    assert everybody["total_count"] == 6 == (await people(company, *STATES))["total_count"]
    assert sorted(emails(everybody)) == sorted(email for found in expected.values() for email in found)
    assert (await people(company, "active"))["seats"] == everybody["seats"]


async def test_filter_by_state_holds_beside_role_and_search(service: Service) -> None:
    company, expected = await in_all_states(service)
    [typed], [asked] = expected["unclaimed"], expected["invited"]
    managers = await people(company, "active", role="manager")
    assert emails(managers) == [company.manager.email] and managers["total_count"] == 1
    found = await people(company, "unclaimed", role="manager")
    assert emails(found) == [typed] and found["total_count"] == 1
    assert (await people(company, "unclaimed", role="user"))["total_count"] == 0
    assert (await people(company, "unclaimed", "invited", role="owner"))["data"] == []
    for needle, state in ((typed, "unclaimed"), (typed[:9], "unclaimed"), (asked, "invited")):
        found = await people(company, state, search=needle)
        assert (emails(found), found["total_count"]) == ([typed if state == "unclaimed" else asked], 1)
        others = await people(company, *(set(STATES) - {state}), search=needle)
        assert (emails(others), others["total_count"]) == ([], 0)


async def test_pages_go_on_within_the_named_states(service: Service) -> None:
    company = await service.company(seats=20, users=3)
    typed = [new_email() for _ in range(5)]
    ok(await company.change(company.owner.headers, add=typed))
    asked = [new_email() for _ in range(3)]
    for email in asked:
        assert (await company.invite(company.owner.headers, email)).status_code == 201
    found: list[str] = []
    query: dict[str, Any] = {}
    while True:
        page = await company.service.get(
            f"{company.path}/users", company.owner.headers, state=["invited", "unclaimed"], limit=2, **query
        )
        body = ok(page)
        assert body["total_count"] == 8 and len(body["data"]) == 2
        found += emails(body)
        query = {"cursor": body["next_cursor"]}
        if not body["has_more"]:
            break
    assert sorted(found[:5]) == sorted(typed) and found[5:] == asked
    first = await people(company, "unclaimed", "invited")
    assert first["next_cursor"] is None
    more = await service.get(f"{company.path}/users", company.owner.headers, state="invited", limit=2)
    other = await service.get(
        f"{company.path}/users", company.owner.headers, state="unclaimed", cursor=more.json()["next_cursor"]
    )
    assert pointers(problem(other, 422, "invalid_request")) == ["query/cursor"]


@pytest.mark.parametrize("state", ["owner", "Active", "", "open"])
async def test_list_is_refused_when_the_state_is_unknown(service: Service, state: str) -> None:
    company = await service.company()
    refused = await service.get(f"{company.path}/users", company.owner.headers, state=["active", state])
    assert pointers(problem(refused, 422, "invalid_request")) == ["query/state/1"]


async def test_user_sees_their_own_row_only_in_its_state(service: Service) -> None:
    company = await service.company(seats=5)
    path = f"{company.path}/users"
    mine = ok(await service.get(path, company.user.headers, state="active"))
    assert [row["customer_id"] for row in mine["data"]] == [
        company.owner.customer_id,
        company.user.customer_id,
    ]
    for state in ("unclaimed", "pending", "invited"):
        assert ok(await service.get(path, company.user.headers, state=state))["data"] == []


async def test_counts_follow_when_members_act_change_role_leave_and_are_erased(service: Service) -> None:
    company = await service.company(seats=9)

    async def counts() -> tuple[int, int, int]:
        found = [await people(company, state) for state in ("active", "unclaimed")]
        managers = await people(company, "unclaimed", role="manager")
        assert [page["total_count"] for page in (*found, managers)] == [
            len(page["data"]) for page in (*found, managers)
        ]
        return found[0]["total_count"], found[1]["total_count"], managers["total_count"]

    addresses = [new_email() for _ in range(4)]
    added = ok(await company.change(company.owner.headers, add=addresses))
    ids = [row["customer_id"] for row in added["results"]]
    assert await counts() == (3, 4, 0)
    ok(await company.change(company.owner.headers, update=[{"customer_id": ids[0], "role": "manager"}]))
    assert await counts() == (3, 4, 1)
    who = as_user(f"subject-{addresses[0]}", email=addresses[0], email_verified=True)
    assert (await service.send("POST", "/v1/customers", who, {})).is_success
    ok(await service.get("/v1/customers/me", who))
    await service.move_seats()
    assert await counts() == (4, 3, 0)
    ok(await company.change(company.owner.headers, remove=[ids[1]]))
    assert await counts() == (4, 2, 0)
    await service.stripe.delete(f"/v1/customers/{ids[2]}")
    await service.refresh("customer", ids[2])
    assert await counts() == (4, 1, 0)
    marks = {"billing_shared_subscription_id": "", "billing_shared_subscription_role": ""}
    await service.stripe.post(f"/v1/customers/{ids[3]}", metadata=marks)
    await service.refresh("customer", ids[3])
    assert await counts() == (4, 0, 0)


async def test_owner_who_was_typed_is_counted_as_active(service: Service) -> None:
    """The owner's row is `active`, although their former membership may still be marked as unclaimed."""
    company = await service.company(seats=9)
    address = new_email()
    added = ok(await company.change(company.owner.headers, add=[address]))
    owner_id = added["results"][0]["customer_id"]
    key = {"billing_shared_subscription_owner": owner_id}
    await service.stripe.post(f"/v1/subscriptions/{company.subscription_id}", metadata=key)
    await service.refresh("subscription", company.subscription_id)
    owner = Person(owner_id, "", address, "", as_user("typed-owner", stripe_customer_id=owner_id))
    path = f"{company.path}/users"
    active = ok(await service.get(path, owner.headers, state="active"))
    assert active["data"][0]["customer_id"] == owner_id and active["total_count"] == 3 == len(active["data"])
    assert ok(await service.get(path, owner.headers, state="unclaimed"))["total_count"] == 0
