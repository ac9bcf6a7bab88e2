"""The list of a team of 2,500: pages by key, counts, and a search that looks at 1,000 members a page."""

from typing import Any

import pytest

from testkit import growth
from testkit.company import Company, Service

MEMBERS = 2_500


@pytest.fixture(scope="module")
async def large(service: Service) -> Company:
    company = await service.company(seats=MEMBERS + 10)
    async with service.context.database.unhurried() as connection:
        await growth.add_members(connection, company.subscription_id, "large", MEMBERS)
    return company


async def pages(company: Company, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while not found or found[-1]["has_more"]:
        answer = await company.service.get(f"{company.path}/users", company.owner.headers, **query, **cursor)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        cursor = {"cursor": found[-1]["next_cursor"]}
    return found


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [row["customer_id"] for page in found for row in page["data"]]


async def test_pages_show_everybody_once_and_count_them(large: Company) -> None:
    found = await pages(large, limit=100)
    everybody = ids(found)
    assert len(everybody) == len(set(everybody)) == MEMBERS + 3
    assert everybody[0] == large.owner.customer_id and everybody[1:] == sorted(everybody[1:])
    assert {page["total_count"] for page in found} == {MEMBERS + 3}
    assert all(len(page["data"]) == 100 for page in found[:-1])
    [managers] = await pages(large, role="manager")
    assert ids([managers]) == [large.manager.customer_id] and managers["total_count"] == 1


async def test_search_goes_on_where_a_page_ended_when_the_team_is_large(large: Company) -> None:
    found = await pages(large, search="00002", limit=100)
    expected = [growth.member_id("large", number) for number in range(MEMBERS) if "00002" in f"{number:07}"]
    assert sorted(ids(found)) == sorted(expected)
    assert {page["total_count"] for page in found} == {None}
    # A page looks at 1,000 members, so a needle that nobody has takes three pages of the 2,502.
    nobody = await pages(large, search="nobody has this")
    assert [len(page["data"]) for page in nobody] == [0, 0, 0]


async def test_search_of_a_whole_address_shows_its_member_first_and_once(large: Company) -> None:
    last = growth.member_email("large", MEMBERS - 1)
    found = await pages(large, search=last.upper())
    assert ids(found[:1]) == [growth.member_id("large", MEMBERS - 1)]
    assert len(ids(found)) == 1


@pytest.mark.parametrize(("state", "digits"), [("unclaimed", "01234"), ("active", "56789")])
async def test_pages_by_state_show_everybody_once_and_count_them(
    large: Company, state: str, digits: str
) -> None:
    """Half of the team was added by e-mail and has not come yet. Counts are read, not counted."""
    found = await pages(large, limit=100, state=state)
    expected = [growth.member_id("large", number) for number in range(MEMBERS) if f"{number}"[-1] in digits]
    more = [large.manager.customer_id, large.user.customer_id] if state == "active" else []
    first = [large.owner.customer_id] if state == "active" else []
    assert ids(found) == [*first, *sorted(expected + more)]
    assert {page["total_count"] for page in found} == {len(expected + more + first)}
    [managers] = await pages(large, state=state, role="manager")
    assert ids([managers]) == [large.manager.customer_id] * (state == "active")
    assert managers["total_count"] == len(managers["data"])
    searched = await pages(large, limit=100, state=state, search="00002")
    assert ids(searched) == [one for one in expected if "00002" in one]
    assert all(row["state"] == state for page in found + searched for row in page["data"])
