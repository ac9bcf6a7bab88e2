"""A quote of seats whose number is computed from the members: `quote_expired` once the members or the seats changed."""

import asyncio
from typing import Any

import asyncpg
import pytest

from testkit.problems import pointers, problem
from tests.money.shop import Shop
from tests.money.test_credits import Team, change_members, staffed


async def quoted_release(team_: Team, members: list[str]) -> dict[str, Any]:
    """A call that removes these members and gives their seats back, with its quote."""
    body = {"remove": members, "release_seats": True}
    path = f"/v1/shared-subscriptions/{team_.id}/quote"
    answer = await team_.shop.service.send("POST", path, team_.owner.headers, body)
    assert answer.status_code == 200, answer.text
    return {**body, "quote_id": answer.json()["quote_id"]}


async def people(team_: Team) -> set[str]:
    path = f"/v1/shared-subscriptions/{team_.id}/users"
    users = await team_.shop.service.get(path, team_.owner.headers)
    return {row["customer_id"] for row in users.json()["data"]} - {team_.owner.customer_id}


@pytest.mark.parametrize("change", ["a member is removed", "the quantity is lowered"])
async def test_release_is_quote_expired_when_its_total_is_stale(still: Shop, change: str) -> None:
    """M29: the caller names no total, so one that does not fit the quote is no wrong request (it was 422)."""
    team_, members = await staffed(still, 5, 5)
    asked = await quoted_release(team_, members[:2])
    if change == "a member is removed":
        assert (await change_members(team_, remove=members[1:2])).status_code == 200
    else:
        edit = {"items": [{"id": team_.item, "quantity": 4}], "proration_behavior": "none"}
        await still.stripe.post(f"/v1/subscriptions/{team_.id}", **edit)
    await still.listen()
    before = await people(team_)
    problem(await change_members(team_, **asked), 409, "quote_expired")
    assert await people(team_) == before and await team_.balance() == 0


async def test_purchase_is_quote_expired_when_its_total_is_stale(still: Shop) -> None:
    """M29: the seats that a call lacks are computed too: somebody else has taken a seat since the quote."""
    team_, _ = await staffed(still, 2, 1)
    body = {"add": [{"email": f"late{n}.{team_.id}@example.com"} for n in range(2)]}
    path = f"/v1/shared-subscriptions/{team_.id}/quote"
    quote = (await still.service.send("POST", path, team_.owner.headers, body)).json()
    taken = {"add": [{"email": f"early.{team_.id}@example.com"}]}
    assert (await change_members(team_, **taken)).status_code == 200
    asked = {**body, "over_capacity": "add_seats", "quote_id": quote["quote_id"]}
    problem(await change_members(team_, **asked), 409, "quote_expired")
    assert (await team_.quantity(), len(await people(team_))) == (2, 2)


async def test_quote_takes_the_body_of_the_call_that_buys_the_seats(still: Shop) -> None:
    """The body that buys seats was refused by its quote, because of the field that makes it buy them."""
    team_, _ = await staffed(still, 2, 1)
    body = {
        "add": [{"email": f"new{n}.{team_.id}@example.com"} for n in range(2)],
        "over_capacity": "add_seats",
    }
    path = f"/v1/shared-subscriptions/{team_.id}/quote"
    quoted = await still.service.send("POST", path, team_.owner.headers, body)
    assert quoted.status_code == 200, quoted.text
    answer = await change_members(team_, **body, quote_id=quoted.json()["quote_id"])
    assert answer.status_code == 200, answer.text
    assert await team_.quantity() == 3
    for wrong in (
        {"total": 9, "over_capacity": "add_seats"},
        {**body, "add": [], "remove": ["cus_1"], "release_seats": True},
    ):
        refused = await still.service.send("POST", path, team_.owner.headers, wrong)
        problem(refused, 422, "invalid_request")


async def test_seats_are_quote_expired_when_another_item_has_other_seats_since(still: Shop) -> None:
    """Two items give seats. The caller named the total, so what the other one has now is no fault of the request."""
    owner, card = await still.buyer()
    prices = [await still.price(await still.product(shared=True)) for _ in range(2)]
    items = [{"price_id": price, "quantity": 3} for price in prices]
    made = await still.bought(owner.headers, items, payment_method_id=card)
    first, second = (item["id"] for item in made["items"])
    path = f"/v1/shared-subscriptions/{made['id']}"
    body = {"total": 8, "subscription_item_id": first}
    quote = await still.service.send("POST", f"{path}/quote", owner.headers, body)
    asked = {**body, "quote_id": quote.json()["quote_id"]}
    other = await still.service.send("PUT", f"{path}/seats", owner.headers, {**asked, "total": 9})
    assert pointers(problem(other, 422, "invalid_request")) == ["/quote_id"], (
        "nothing has changed but the total"
    )
    edit = {"items": [{"id": second, "quantity": 4}], "proration_behavior": "none"}
    await still.stripe.post(f"/v1/subscriptions/{made['id']}", **edit)
    await still.listen()
    answer = await still.service.send("PUT", f"{path}/seats", owner.headers, asked)
    problem(answer, 409, "quote_expired")


async def test_quote_is_invalid_when_a_release_names_one_of_another_subscription(still: Shop) -> None:
    """M29: a quote that is not the caller's for this subscription is a wrong request."""
    team_, members = await staffed(still, 3, 3)
    other, others = await staffed(still, 3, 3)
    asked = await quoted_release(other, others[:1])
    answer = await change_members(team_, **{**asked, "remove": members[:1]})
    assert pointers(problem(answer, 422, "invalid_request")) == ["/quote_id"]


async def waiting_for_quotes(watch: asyncpg.Connection) -> None:
    """Return once a session waits for the lock of a quote."""
    for _ in range(200):
        if await watch.fetchval(
            """select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
            and query like '%from quotes%'"""
        ):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nobody waits for the quote")


@pytest.mark.parametrize("removed", ["one of its members", "another member"])
async def test_quoted_release_keeps_its_word_when_people_are_removed_beside_it(
    still: Shop, removed: str
) -> None:
    """M24, M29: another removal is settled between the test of the credit and the admission, forced by a lock."""
    team_, members = await staffed(still, 6, 5)
    asked = await quoted_release(team_, members[:2])
    lock = await asyncpg.connect(still.service.database_url)
    watch = await asyncpg.connect(still.service.database_url)
    try:
        holding = lock.transaction()
        await holding.start()
        await lock.execute("select 1 from quotes where id = $1 for update", asked["quote_id"])
        release = asyncio.create_task(change_members(team_, **asked))
        await waiting_for_quotes(watch)
        gone = members[1] if removed == "one of its members" else members[4]
        assert (await change_members(team_, remove=[gone])).status_code == 200
        await holding.rollback()
        answer = await release
    finally:
        await asyncio.gather(lock.close(), watch.close())
    if removed == "another member":
        # What the call gives back is what it removes: it is as quoted.
        assert answer.status_code == 200, answer.text
        assert [one["outcome"] for one in answer.json()["results"]] == ["applied"] * 3
        assert (await team_.quantity(), await team_.balance()) == (4, -2400)
        assert await people(team_) == set(members[2:4])
    else:
        problem(answer, 409, "quote_expired")
        assert (await team_.quantity(), await team_.balance()) == (6, 0)
        assert await people(team_) == set(members) - {gone}
