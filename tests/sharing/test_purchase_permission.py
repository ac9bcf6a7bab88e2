"""What the payer keeps when control moves: the right to buy, the end, the quantity, and a look at what was bought."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from app.errors import StripeOutcomeUnknown
from testkit.company import Company, Person, Service, Who, new_email, running_service
from testkit.problems import pointers, problem
from testkit.service import as_service

UPDATE = {"method": "POST", "path": "/v1/subscriptions/{id}"}


@pytest.fixture(autouse=True)
async def _no_faults_left(service: Service) -> AsyncIterator[None]:
    yield
    await service.stripe.clear_faults()


async def apart(service: Service, **fields: Any) -> Company:
    """A company whose owner does not pay."""
    return await service.company(payer_is_owner=False, **fields)


async def give(company: Company, who: Who) -> httpx.Response:
    return await company.service.send("PUT", f"{company.path}/purchase-permission", who)


async def withdraw(company: Company, who: Who) -> httpx.Response:
    return await company.service.send("DELETE", f"{company.path}/purchase-permission", who)


async def set_seats(company: Company, who: Who, total: int) -> httpx.Response:
    return await company.service.send("PUT", f"{company.path}/seats", who, {"total": total})


async def act(company: Company, who: Who, name: str, body: Any = None) -> httpx.Response:
    """`name`: cancel or resume."""
    return await company.service.send(
        "POST", f"/v1/subscriptions/{company.subscription_id}/{name}", who, body
    )


async def end_of(company: Company) -> int | None:
    return (await company.state())["cancel_at"]  # type: ignore[no-any-return]


async def allowed(company: Company, person: Person) -> bool | None:
    answer = await company.service.get(company.path, person.headers)
    found: bool | None = answer.json()["subscription"]["shared"]["owner_may_purchase"]
    return found


async def test_payer_gives_and_withdraws_the_right_to_buy_at_any_time(service: Service) -> None:
    """M15: the permission was given when control moved, and never withdrawn."""
    company = await apart(service)
    payer, owner = company.payer.headers, company.owner.headers
    assert [await allowed(company, person) for person in (company.payer, company.owner, company.user)] == [
        False,
        False,
        None,
    ]
    problem(await set_seats(company, owner, 6), 403, "role_required")
    for _ in range(2):
        given = await give(company, payer)
        assert given.status_code == 200, given.text
        assert given.json()["subscription"]["shared"]["owner_may_purchase"] is True
    assert (await set_seats(company, owner, 6)).status_code == 200
    for _ in range(2):
        gone = await withdraw(company, payer)
        assert (gone.status_code, gone.content) == (204, b"")
    assert await allowed(company, company.owner) is False
    problem(await set_seats(company, owner, 7), 403, "role_required")
    problem(await act(company, owner, "cancel", {"when": "now"}), 403, "role_required")
    assert (await company.state())["items"]["data"][0]["quantity"] == 6


async def test_permission_is_the_payers_alone_when_others_ask(service: Service) -> None:
    company = await apart(service)
    assert (await give(company, company.payer.headers)).status_code == 200
    for person in (company.owner, company.manager, company.user):
        problem(await give(company, person.headers), 403, "role_required")
        problem(await withdraw(company, person.headers), 403, "role_required")
    problem(await give(company, company.stranger.headers), 404, "not_found")
    problem(await withdraw(company, company.stranger.headers), 404, "not_found")
    problem(await give(company, as_service("read")), 403, "scope_required")
    assert await allowed(company, company.owner) is True
    assert (await withdraw(company, as_service("write"))).status_code == 204
    acting = as_service("write", acting_for=company.payer.customer_id)
    assert (await give(company, acting)).status_code == 200
    assert await allowed(company, company.owner) is True


async def test_permission_holds_for_one_owner_when_control_moves_on(service: Service) -> None:
    company = await apart(service)
    assert (await give(company, company.payer.headers)).status_code == 200
    transfer = f"{company.path}/transfer"
    offer = {"to_customer_id": company.user.customer_id}
    assert (await service.send("POST", transfer, company.owner.headers, offer)).status_code == 200
    assert (await service.send("POST", f"{transfer}/accept", company.user.headers)).status_code == 200
    assert await allowed(company, company.payer) is False
    problem(await set_seats(company, company.user.headers, 7), 403, "role_required")


@pytest.mark.parametrize("before", ["accept", "settlement"])
@pytest.mark.timed
async def test_withdrawing_strips_an_offer_and_a_transfer_when_they_are_open(
    service: Service, before: str
) -> None:
    """M15: a permission that is withdrawn must not come back with a transfer that was offered earlier."""
    company = await service.company()
    transfer = f"{company.path}/transfer"
    offer = {"to_customer_id": company.user.customer_id, "allow_purchases": True}
    assert (await service.send("POST", transfer, company.owner.headers, offer)).status_code == 200
    if before == "accept":
        assert (await withdraw(company, company.payer.headers)).status_code == 204
        accepted = await service.send("POST", f"{transfer}/accept", company.user.headers)
    else:
        await service.stripe.add_fault(**UPDATE, latency_s=1.0)
        accepting = asyncio.create_task(service.send("POST", f"{transfer}/accept", company.user.headers))
        await asyncio.sleep(0.5)
        assert (await withdraw(company, company.payer.headers)).status_code == 204
        accepted = await accepting
    assert accepted.status_code == 200, accepted.text
    assert (await company.state())["metadata"][
        "billing_shared_subscription_owner"
    ] == company.user.customer_id
    assert await allowed(company, company.payer) is False


@pytest.mark.timed
async def test_purchase_is_abandoned_when_the_right_is_withdrawn_before_it_is_sent(service: Service) -> None:
    """M15: what rests on the permission ends with it, unless it was sent."""
    company = await apart(service)
    assert (await give(company, company.payer.headers)).status_code == 200
    path = f"/v1/subscriptions/{company.subscription_id}"
    await service.stripe.add_fault(method="GET", path="/v1/subscriptions/{id}", latency_s=1.5, times=0)
    buying = asyncio.create_task(set_seats(company, company.owner.headers, 8))
    await asyncio.sleep(0.7)
    assert await service.fetch("select 1 from operations where settled_at is null") != []
    assert (await withdraw(company, company.payer.headers)).status_code == 204
    settled = await service.fetch(
        "select o.state, t.code from operations o join operation_steps t on t.operation_id = o.id "
        "where o.subscription_id = $1",
        company.subscription_id,
    )
    assert [tuple(row) for row in settled] == [("settled", "role_required")]
    problem(await buying, 403, "role_required")
    sent = await service.stripe.requests(method="POST", path=path)
    assert [entry for entry in sent if entry["actor"] != "dashboard"] == []


@pytest.mark.timed
async def test_seats_for_people_are_abandoned_when_the_right_is_withdrawn_before_they_are_sent(
    service: Service,
) -> None:
    """M15, the same for the seats that an addition buys: the additions do not fit any more."""
    company = await apart(service, seats=2)
    assert (await give(company, company.payer.headers)).status_code == 200
    await service.stripe.add_fault(method="GET", path="/v1/subscriptions/{id}", latency_s=1.5, times=0)
    adding = asyncio.create_task(
        company.change(company.owner.headers, add=[new_email(), new_email()], over_capacity="add_seats")
    )
    await asyncio.sleep(0.7)
    assert (await withdraw(company, company.payer.headers)).status_code == 204
    answer = await adding
    assert answer.status_code == 409, answer.text
    assert {result["outcome"] for result in answer.json()["results"]} == {"refused"}
    assert (await company.state())["items"]["data"][0]["quantity"] == 2


async def test_right_is_judged_again_when_a_purchase_is_sent_with_a_new_key(service: Service) -> None:
    """M15: a stored failure allows another sending, and that one needs the right too."""
    company = await apart(service)
    assert (await give(company, company.payer.headers)).status_code == 200
    await service.stripe.add_fault(**UPDATE, status=500, effect="before", save=True, times=0)
    async with running_service(service.stripe, service.database_url, OPERATION_DEADLINE="1") as hasty:
        answer = await hasty.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 8})
    assert answer.status_code == 202, answer.text
    assert (await withdraw(company, company.payer.headers)).status_code == 204
    await service.stripe.clear_faults()
    operation_id = answer.json()["operation_id"]
    # The first try proves that the failure was stored under its key; only then another key may be used.
    for _ in range(2):
        await service.fetch(
            "update operations set lease_until = now() where id = $1 and settled_at is null", operation_id
        )
        with suppress(StripeOutcomeUnknown):
            await service.work_off()
    told = await service.settled(operation_id, company.owner.headers)
    assert [(r["outcome"], r["code"]) for r in told.json()["results"]] == [("failed", "role_required")]
    assert (await company.state())["items"]["data"][0]["quantity"] == 5


async def test_managers_buy_in_the_owners_place_when_the_owner_may_buy(service: Service) -> None:
    """M15, its sibling: with MANAGERS_BUY_SEATS a manager bought on the account of a payer who had allowed nobody."""
    company = await apart(service)
    async with running_service(
        service.stripe, service.database_url, MANAGERS_BUY_SEATS="true"
    ) as open_handed:
        path, who = f"{company.path}/seats", company.manager.headers
        problem(await open_handed.send("PUT", path, who, {"total": 6}), 403, "role_required")
        assert (await give(company, company.payer.headers)).status_code == 200
        assert (await open_handed.send("PUT", path, who, {"total": 6})).status_code == 200


async def test_payers_end_is_taken_back_by_the_payer_alone(service: Service) -> None:
    """M15: the payer had allowed purchases and cancelled; the owner resumed, and it renewed on the payer's card."""
    company = await apart(service)
    assert (await give(company, company.payer.headers)).status_code == 200
    ended = await act(company, company.payer.headers, "cancel")
    assert ended.status_code == 200, ended.text
    end = await end_of(company)
    assert end is not None
    path = f"/v1/subscriptions/{company.subscription_id}"
    problem(await act(company, company.owner.headers, "resume"), 403, "role_required")
    problem(
        await service.send("PATCH", path, company.owner.headers, {"cancel_at_period_end": False}),
        403,
        "role_required",
    )
    both = {"cancel_at_period_end": False, "payment_method_id": company.payment_method_id}
    problem(await service.send("PATCH", path, company.owner.headers, both), 403, "role_required")
    assert await end_of(company) == end
    again = await act(company, company.payer.headers, "resume")
    assert (again.status_code, await end_of(company)) == (200, None)


async def test_owners_own_end_is_taken_back_by_owner_and_payer(service: Service) -> None:
    company = await apart(service)
    for who in (company.owner, company.payer):
        assert (await act(company, company.owner.headers, "cancel")).status_code == 200
        assert await end_of(company) is not None
        back = await act(company, who.headers, "resume")
        assert (back.status_code, await end_of(company)) == (200, None), back.text


async def test_end_becomes_the_payers_when_the_payer_confirms_it(service: Service) -> None:
    """M15, its sibling: cancelling what the owner has ended already changes nothing, and must still count."""
    company = await apart(service)
    assert (await act(company, company.owner.headers, "cancel")).status_code == 200
    for _ in range(2):
        confirmed = await act(company, company.payer.headers, "cancel")
        assert confirmed.status_code == 200, confirmed.text
    problem(await act(company, company.owner.headers, "resume"), 403, "role_required")
    assert await end_of(company) is not None
    assert (await act(company, company.payer.headers, "resume")).status_code == 200
    # Taken back, it is forgotten: the next end of the owner's is the owner's.
    assert (await act(company, company.owner.headers, "cancel")).status_code == 200
    assert (await act(company, company.owner.headers, "resume")).status_code == 200
    assert await end_of(company) is None


async def test_dashboards_end_is_not_the_owners_to_take_back(service: Service) -> None:
    company = await apart(service)
    path = f"/v1/subscriptions/{company.subscription_id}"
    await service.stripe.post(path, cancel_at_period_end=True)
    await service.refresh("subscription", company.subscription_id)
    problem(await act(company, company.owner.headers, "resume"), 403, "role_required")
    assert (await act(company, company.payer.headers, "resume")).status_code == 200
    # Also where it moved the owner's.
    assert (await act(company, company.owner.headers, "cancel")).status_code == 200
    await service.stripe.post(path, cancel_at=(await end_of(company) or 0) - 3600)
    await service.refresh("subscription", company.subscription_id)
    problem(await act(company, company.owner.headers, "resume"), 403, "role_required")
    assert (await act(company, as_service("write"), "resume")).status_code == 200
    assert await end_of(company) is None


async def test_owner_moves_the_payers_end_to_an_earlier_moment_only(service: Service) -> None:
    """M15 with M18: a later end takes the payer's end back as well."""
    company = await apart(service)
    yearly = await service.stripe.post(
        "/v1/prices",
        product=company.product_id,
        currency="usd",
        unit_amount=9900,
        recurring={"interval": "year"},
    )
    await service.stripe.post(
        f"/v1/subscriptions/{company.subscription_id}", items=[{"price": yearly["id"], "quantity": 1}]
    )
    await service.refresh("price", yearly["id"])
    await service.refresh("subscription", company.subscription_id)
    earliest, latest = ({"when": f"{name}_period_end"} for name in ("earliest", "latest"))
    assert (await act(company, company.payer.headers, "cancel", earliest)).status_code == 200
    end = await end_of(company)
    problem(await act(company, company.owner.headers, "cancel", latest), 403, "role_required")
    assert await end_of(company) == end
    assert (await act(company, company.payer.headers, "cancel", latest)).status_code == 200
    assert (await act(company, company.owner.headers, "cancel", earliest)).status_code == 200
    assert await end_of(company) == end
    # The payer wanted an end too, so the owner does not take it away.
    problem(await act(company, company.owner.headers, "resume"), 403, "role_required")


async def test_payer_lowers_the_quantity_cancels_and_detaches(service: Service) -> None:
    """M15: the payer could do nothing of this, and was charged on."""
    company = await apart(service)
    payer = company.payer.headers
    item = (await company.state())["items"]["data"][0]["id"]
    problem(await set_seats(company, payer, 6), 403, "role_required")
    assert (await set_seats(company, payer, 4)).status_code == 200
    path = f"/v1/subscriptions/{company.subscription_id}"
    fewer = {"items": [{"id": item, "quantity": 3}]}
    assert (await service.send("PATCH", path, payer, fewer)).status_code == 200
    assert (await company.state())["items"]["data"][0]["quantity"] == 3
    for more in (
        [{"id": item, "quantity": 4}],
        [{"id": item, "deleted": True}],
        [{"id": item, "price_id": company.price_id}],
        [{"price_id": company.price_id, "quantity": 1}],
        [{"id": "si_absent", "quantity": 1}],
    ):
        problem(await service.send("PATCH", path, payer, {"items": more}), 403, "role_required")
    problem(await set_seats(company, payer, 1), 409, "seats_in_use")
    card = f"/v1/customers/me/payment-methods/{company.payment_method_id}"
    problem(await service.send("DELETE", card, payer), 409, "payment_method_in_use")
    ended = await act(company, payer, "cancel", {"when": "now"})
    assert ended.json()["subscription"]["status"] == "canceled"
    assert (await service.send("DELETE", card, payer)).status_code == 204


async def test_lowering_does_not_raise_when_the_quantity_fell_in_the_dashboard(service: Service) -> None:
    company = await apart(service, seats=9)
    item = (await company.state())["items"]["data"][0]["id"]
    path = f"/v1/subscriptions/{company.subscription_id}"
    await service.stripe.add_fault(method="GET", path="/v1/subscriptions/{id}", latency_s=1.0, times=1)
    lowering = asyncio.create_task(set_seats(company, company.payer.headers, 8))
    await asyncio.sleep(0.4)
    await service.stripe.post(path, items=[{"id": item, "quantity": 4}], proration_behavior="none")
    await service.deliver_state("subscription", await company.state())
    problem(await lowering, 403, "role_required")
    assert (await company.state())["items"]["data"][0]["quantity"] == 4


async def test_payer_sees_what_was_bought_in_their_name_and_no_members(service: Service) -> None:
    """M15: the payer's bill rose, and nothing told them why."""
    company = await apart(service)
    trail = f"{company.path}/audit-events"
    assert (await give(company, company.payer.headers)).status_code == 200
    assert (await set_seats(company, company.owner.headers, 7)).status_code == 200
    assert (await company.change(company.manager.headers, add=[new_email()])).status_code == 200
    assert (await act(company, company.owner.headers, "cancel")).status_code == 200
    assert (await withdraw(company, company.payer.headers)).status_code == 204
    owners = (await service.get(trail, company.owner.headers, limit=100)).json()["data"]
    assert "member_added" in {event["action"] for event in owners}
    first = (await service.get(trail, company.payer.headers, limit=2)).json()
    assert first["has_more"] is True
    rest = await service.get(trail, company.payer.headers, limit=100, cursor=first["next_cursor"])
    seen = [*first["data"], *rest.json()["data"]]
    assert [(event["action"], event["actor_customer_id"]) for event in seen] == [
        ("purchases_withdrawn", company.payer.customer_id),
        ("subscription_changed", company.owner.customer_id),
        ("subscription_changed", company.owner.customer_id),
        ("purchases_allowed", company.payer.customer_id),
    ]
    assert {event["customer_id"] for event in seen} == {None}
    bought = seen[2]
    assert [item["quantity"] for item in bought["before"]["items"] + bought["after"]["items"]] == [5, 7]
    told = str(seen)
    assert company.manager.customer_id not in told and company.user.customer_id not in told
    problem(await service.get(trail, company.user.headers), 403, "role_required")


async def test_payer_is_not_shown_the_manager_who_bought(service: Service) -> None:
    company = await apart(service)
    assert (await give(company, company.payer.headers)).status_code == 200
    async with running_service(
        service.stripe, service.database_url, MANAGERS_BUY_SEATS="true"
    ) as open_handed:
        answer = await open_handed.send("PUT", f"{company.path}/seats", company.manager.headers, {"total": 6})
    assert answer.status_code == 200, answer.text
    trail = f"{company.path}/audit-events"
    actors = [
        (await service.get(trail, who.headers)).json()["data"][0]["actor_customer_id"]
        for who in (company.payer, company.owner)
    ]
    assert actors == [None, company.manager.customer_id]


async def test_permission_has_nobody_to_hold_it_when_nobody_owns_it(service: Service) -> None:
    company = await apart(service)
    await service.stripe.delete(f"/v1/customers/{company.owner.customer_id}")
    await service.refresh("customer", company.owner.customer_id)
    problem(await give(company, company.payer.headers), 409, "not_shareable")
    assert (await withdraw(company, company.payer.headers)).status_code == 204


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_permission_route_is_refused_when_the_id_is_none(service: Service, method: str) -> None:
    path = "/v1/shared-subscriptions/{}/purchase-permission"
    company = await apart(service)
    for bad in ("%C3%A4", "cus_somebody", "sub_"):
        refused = await service.send(method, path.format(bad), company.payer.headers)
        assert pointers(problem(refused, 422, "invalid_request")) == ["path/subscription_id"]
    for absent in ("sub_absent", (await service.company()).subscription_id):
        problem(await service.send(method, path.format(absent), company.payer.headers), 404, "not_found")
