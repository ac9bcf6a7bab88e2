"""A write in flight may fill a seat that an edit in the Dashboard has freed since: that seat stays promised.

Stripe has no compare-and-set. A role change read a member and writes the whole membership, and a transfer names an
owner; if the answer is lost, either may take effect after the edit.
"""

import asyncio
from typing import Any

import pytest

from app.domain.ids import SubscriptionId
from app.domain.metadata import membership_values, no_membership_values
from testkit.company import Company, Service, new_email, running_service
from testkit.problems import ok, problem
from testkit.service import as_service

LATE_SECONDS = 3.0
LASTING = {"timeout": 0.05, "times": 0}
"""Until the faults are cleared."""


async def update_in_flight(company: Company, *, runs_late: bool) -> str:
    """Begin a role change of the user whose answer is lost, and wait until its request gives up.

    `runs_late`: its request takes effect some seconds later, otherwise never.
    """
    where = {"method": "POST", "path": "/v1/customers/{id}", "object": company.user.customer_id}
    if runs_late:
        await company.service.stripe.add_fault(**where, status=504, late_s=LATE_SECONDS, times=1)
    await company.service.stripe.add_fault(**where, **LASTING)
    update = [{"customer_id": company.user.customer_id, "role": "manager"}]
    operation_id = ok(await company.change(company.owner.headers, update=update), 202)["operation_id"]
    await handed_over(company.service, operation_id)
    return str(operation_id)


async def handed_over(service: Service, operation_id: str) -> None:
    """Wait until the runner of the request has given up, and clear the faults: no worker runs here."""
    free = (
        "select 1 from operations where id = $1 and lease_until < clock_timestamp() + interval '1.1 seconds'"
    )
    for _ in range(200):
        if await service.fetch(free, operation_id):
            await service.stripe.clear_faults()
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the runner holds the operation for ten seconds")


async def sent(service: Service, operation_id: str, action: str) -> None:
    """Wait until a step of the operation is in flight."""
    step = "select 1 from operation_steps where operation_id = $1 and action = $2 and state = 'in_flight'"
    for _ in range(200):
        if await service.fetch(step, operation_id, action):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{action} is not sent within ten seconds")


async def move(company: Company, customer_id: str, to_id: str | None) -> None:
    """Move a customer to another subscription, or to none, in the Dashboard; the event has been applied."""
    values = no_membership_values() if to_id is None else membership_values(SubscriptionId(to_id), "user")
    await company.service.stripe.post(f"/v1/customers/{customer_id}", metadata=values)
    await company.service.refresh("customer", customer_id)


async def passed() -> None:
    """The late request has run."""
    await asyncio.sleep(LATE_SECONDS + 0.5)


async def settled(service: Service, operation_id: str) -> list[tuple[str, str | None]]:
    """The results after the late window, once a worker has looked at the operation."""
    await service.fetch(
        "update operation_steps set unanswered_at = unanswered_at - interval '6 minutes' where operation_id = $1",
        operation_id,
    )
    await service.fetch(
        "update operations set lease_until = now() - interval '1 second' where lease_until is not null"
    )
    await service.work_off()
    found = await service.fetch(
        "select state, code from operation_steps where operation_id = $1 order by position", operation_id
    )
    return [(row["state"], row["code"]) for row in found]


async def seats(company: Company) -> dict[str, int]:
    listed: dict[str, int] = ok(await company.service.get(f"{company.path}/users", company.owner.headers))[
        "seats"
    ]
    return listed


@pytest.mark.parametrize("is_moved_on", [False, True])
async def test_addition_is_refused_when_a_role_change_in_flight_may_seat_a_removed_member(
    hasty: Service, is_moved_on: bool
) -> None:
    """I1 (`payB/74`): the role change counted for nothing, and 4 of 3 seats were in use once it ran."""
    company = await hasty.company(seats=2)
    other = (await hasty.company()).subscription_id if is_moved_on else None
    operation_id = await update_in_flight(company, runs_late=True)
    await move(company, company.user.customer_id, other)
    assert await seats(company) == {
        "total": 2,
        "used": 1,
        "reserved": 1,
        "available": 0,
        "over_allocated": 0,
    }
    answer = await company.change(company.owner.headers, add=[company.stranger.email])
    refused = problem(answer, 409, "seat_limit_reached")
    assert refused["results"][0]["code"] == "seat_limit_reached"
    await passed()
    assert len(await company.members()) == 2
    assert await settled(hasty, operation_id) == [("applied", None)]
    assert (await seats(company))["over_allocated"] == 0


async def test_addition_buys_a_seat_when_a_role_change_in_flight_may_seat_a_removed_member(
    hasty: Service,
) -> None:
    """I1 (`payB/74`): the quantity that was bought counted neither the member nor the role change."""
    company = await hasty.company(seats=2)
    await update_in_flight(company, runs_late=True)
    await move(company, company.user.customer_id, None)
    added = await company.change(
        company.owner.headers, add=[company.stranger.email], over_capacity="add_seats"
    )
    ok(added)
    await passed()
    assert len(await company.members()) == 3
    assert (await company.state())["items"]["data"][0]["quantity"] == 3


async def test_addition_is_refused_when_a_release_in_flight_gives_back_more_than_was_foreseen(
    hasty: Service,
) -> None:
    """I1: the bound was that of the admission. People left while the removal ran, so more seats were given back."""
    company = await hasty.company(seats=5, users=4)
    (item,) = (await company.state())["items"]["data"]
    path = f"/v1/subscriptions/{company.subscription_id}"
    await hasty.stripe.post(path, items=[{"id": item["id"], "quantity": 4}], proration_behavior="none")
    await hasty.refresh("subscription", company.subscription_id)
    removed, *leaving, _ = (user.customer_id for user in company.users)
    await hasty.stripe.add_fault(
        method="POST", path="/v1/customers/{id}", object=removed, latency_s=2.0, times=1
    )
    where = {"method": "POST", "path": "/v1/subscriptions/{id}", "object": company.subscription_id}
    await hasty.stripe.add_fault(**where, status=504, late_s=LATE_SECONDS, times=1)
    await hasty.stripe.add_fault(**where, **LASTING)
    release: dict[str, Any] = {"remove": [removed], "release_seats": True, "forgo_credit": True}
    operation_id = ok(await company.change(company.owner.headers, **release), 202)["operation_id"]
    for customer_id in leaving:
        await move(company, customer_id, None)
    await sent(hasty, operation_id, "release_seats")
    await handed_over(hasty, operation_id)
    first, second = new_email(), new_email()
    ok(await company.change(company.owner.headers, add=[first]))
    problem(await company.change(company.owner.headers, add=[second]), 409, "seat_limit_reached")
    await passed()
    assert await settled(hasty, operation_id) == [("applied", None), ("applied", None)]
    assert (await seats(company))["over_allocated"] == 0


async def test_bought_seat_is_filled_when_the_dashboard_has_added_more_before_its_answer_is_known(
    hasty: Service,
) -> None:
    """I11 (`20261128/1700`): the seat was bought and charged, and its addition was told `subscription_not_active`."""
    company = await hasty.company(seats=2)
    where = {"method": "POST", "path": "/v1/subscriptions/{id}", "object": company.subscription_id}
    await hasty.stripe.add_fault(**where, status=504, late_s=LATE_SECONDS, times=1)
    await hasty.stripe.add_fault(**where, **LASTING)
    added = await company.change(
        company.owner.headers, add=[company.stranger.email], over_capacity="add_seats"
    )
    operation_id = ok(added, 202)["operation_id"]
    await handed_over(hasty, operation_id)
    await passed()
    (item,) = (await company.state())["items"]["data"]
    assert item["quantity"] == 3
    path = f"/v1/subscriptions/{company.subscription_id}"
    await hasty.stripe.post(path, items=[{"id": item["id"], "quantity": 4}])
    await hasty.refresh("subscription", company.subscription_id)
    assert await settled(hasty, operation_id) == [("applied", None), ("applied", None)]
    assert company.stranger.customer_id in await company.members()


async def test_quantity_is_not_lowered_when_a_role_change_in_flight_may_seat_a_removed_member(
    hasty: Service,
) -> None:
    """I2: the seat that the role change may fill is promised."""
    company = await hasty.company(seats=2)
    await update_in_flight(company, runs_late=True)
    await move(company, company.user.customer_id, None)
    answer = await hasty.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 1})
    problem(answer, 409, "seats_in_use")


async def test_seat_is_free_again_when_the_role_change_of_a_removed_member_can_take_effect_no_more(
    hasty: Service,
) -> None:
    """The promise ends with the step, and the seat goes to somebody else."""
    company = await hasty.company(seats=2)
    operation_id = await update_in_flight(company, runs_late=False)
    await move(company, company.user.customer_id, None)
    assert await settled(hasty, operation_id) == [("refused", "not_found")] or (
        await settled(hasty, operation_id) == [("failed", "not_found")]
    )
    ok(await company.change(company.owner.headers, add=[company.stranger.email]))
    assert set(await company.members()) == {company.manager.customer_id, company.stranger.customer_id}


async def test_role_change_takes_no_second_seat_when_its_member_stays(service: Service) -> None:
    """A member's own seat is not counted twice, even if no seat is free."""
    company = await service.company(seats=2)
    update = [{"customer_id": company.user.customer_id, "role": "manager"}]
    ok(await company.change(company.owner.headers, update=update))
    assert await seats(company) == {
        "total": 2,
        "used": 2,
        "reserved": 0,
        "available": 0,
        "over_allocated": 0,
    }


async def test_role_change_waits_when_another_subscription_writes_the_same_keys(
    service: Service, hasty: Service
) -> None:
    """While an attempt may take effect, nothing else writes its keys. The other changes of the call run."""
    other, company = await hasty.company(), await hasty.company(users=2)
    stranger = other.stranger.customer_id
    where = {"method": "POST", "path": "/v1/customers/{id}", "object": stranger}
    await service.stripe.add_fault(**where, **LASTING)
    added = ok(await other.change(other.owner.headers, add=[other.stranger.email]), 202)
    await handed_over(hasty, added["operation_id"])
    await move(company, stranger, company.subscription_id)
    update = [
        {"customer_id": stranger, "role": "manager"},
        {"customer_id": company.user.customer_id, "role": "manager"},
    ]
    changed = ok(await company.change(company.owner.headers, update=update), 202)
    results = [(one["outcome"], one["code"]) for one in changed["results"]]
    assert results == [("pending", None), ("applied", None)]
    # The guide's keys name another live subscription by now, so the addition does not write them again.
    assert await settled(hasty, added["operation_id"]) == [("refused", "member_elsewhere")]
    assert await settled(hasty, changed["operation_id"]) == [("applied", None), ("applied", None)]
    assert (await company.members())[stranger] == "manager"


async def test_transfer_is_refused_when_the_seat_of_the_staying_owner_is_promised_already(
    hasty: Service,
) -> None:
    """I3: a second promise for one customer was a 500 of the unique index."""
    company = await hasty.company()
    first, second = company.user, company.manager
    update_id = await update_in_flight(company, runs_late=False)
    transfer = f"{company.path}/transfer"
    await hand_over(company, company.owner.headers, first.customer_id, first.headers)
    await move(company, first.customer_id, None)
    ok(
        await hasty.send(
            "POST", transfer, first.headers, {"to_customer_id": second.customer_id, "keep_me_as": "user"}
        )
    )
    answer = await hasty.send("POST", f"{transfer}/accept", second.headers)
    problem(answer, 409, "operation_in_progress")
    await settled(hasty, update_id)


@pytest.mark.parametrize("named", ["nobody", "member"])
async def test_addition_waits_when_a_transfer_in_flight_may_name_an_owner_who_uses_a_seat(
    service: Service, named: str
) -> None:
    """I1: the Dashboard named nobody or a member as owner, an addition took the seat that this left, and then the
    transfer named the new owner.
    """
    async with running_service(
        service.stripe,
        service.database_url,
        OPERATION_DEADLINE="1",
        OPERATION_LEASE="2",
        OWNER_USES_SEAT="true",
    ) as hasty:
        company = await hasty.company(seats=3)
        new_owner = (await hasty.person("new-owner")).customer_id
        path, admin = f"{company.path}/transfer", as_service("admin")
        where = {"method": "POST", "path": "/v1/subscriptions/{id}", "object": company.subscription_id}
        ok(await hasty.send("POST", path, admin, {"to_customer_id": new_owner}))
        await service.stripe.add_fault(**where, status=504, late_s=LATE_SECONDS, times=1)
        await service.stripe.add_fault(**where, **LASTING)
        accepted = ok(await hasty.send("POST", f"{path}/accept", admin), 202)
        await handed_over(hasty, accepted["operation_id"])
        marks = {"billing_shared_subscription_owner": company.user.customer_id if named == "member" else ""}
        await service.stripe.post(f"/v1/subscriptions/{company.subscription_id}", metadata=marks)
        await hasty.refresh("subscription", company.subscription_id)
        answer = await company.change(admin, add=[company.stranger.email])
        problem(answer, 409, "operation_in_progress")
        await passed()
        assert (await company.state())["metadata"]["billing_shared_subscription_owner"] == new_owner
        assert await settled(hasty, accepted["operation_id"]) == [("applied", None)]
        problem(await company.change(admin, add=[company.stranger.email]), 409, "seat_limit_reached")


async def hand_over(company: Company, giver: Any, to_id: str, receiver: Any) -> None:
    transfer = f"{company.path}/transfer"
    response = await company.service.send("POST", transfer, giver, {"to_customer_id": to_id})
    assert response.is_success, response.text
    response = await company.service.send("POST", f"{transfer}/accept", receiver)
    assert response.is_success, response.text
