"""Every change of seats and access is an event, written once, in order, and only after the first fill."""

import asyncio
from typing import Any

import asyncpg

from app.domain import metadata as keys
from app.events import announcing
from app.events.store import announcing as store
from testkit.company import Service, new_email
from testkit.event_fold import folded, truth, written_events

Events = list[dict[str, Any]]


async def filled(service: Service) -> None:
    await service.fill()
    await service.announce()


async def events(service: Service) -> Events:
    await service.announce()
    async with service.context.database.connection() as connection:
        return await written_events(connection)


async def check_fold(service: Service) -> Events:
    """The events, folded, are the state of the copy, and no sequence has a gap."""
    found = await events(service)
    state = folded(found)
    async with service.context.database.connection() as connection:
        expected = await truth(connection)
    for name, told in state.state().items():
        missing = expected[name].items() - told.items()
        assert (missing, told.items() - expected[name].items()) == (set(), set()), name
    assert state.gaps == []
    return found


def types(found: Events) -> list[str]:
    return [event["type"] for event in found]


async def test_only_the_end_of_the_first_fill_is_told_when_the_copy_is_filled(service: Service) -> None:
    company = await service.company()
    await company.change(company.owner.headers, add=[new_email()])
    assert await events(service) == []
    await filled(service)
    (only,) = await events(service)
    assert (only["type"], only["subscription_id"], only["sequence"]) == ("sync.completed", None, None)
    assert only["data"]["counts"]["subscriptions"] == 1
    await service.fill()
    assert len(await events(service)) == 1


async def test_invitation_is_told_when_it_is_made_between_the_end_of_the_fill_and_the_first_event(
    service: Service,
) -> None:
    """No state contains it, so who took the snapshot would never learn of it, and no mail would be sent."""
    company = await service.company()
    await service.fill()
    made = await company.invite(company.owner.headers)
    added = await company.change(company.owner.headers, add=[new_email()])
    found = await events(service)
    assert types(found) == ["sync.completed", "invitation.created", "operation.settled"]
    assert found[1]["data"]["invitation_id"] == made.json()["invitation"]["id"]
    assert found[2]["data"]["operation_id"] == added.json()["operation_id"]
    assert [event["sequence"] for event in found[1:]] == [1, 2]


async def test_birth_tells_the_subscription_its_owner_seats_and_members(service: Service) -> None:
    """Readings, events 4: the first sequence of a new subscription is 1."""
    await filled(service)
    company = await service.company(seats=5, users=2)
    found = await check_fold(service)
    own = [event for event in found if event["subscription_id"] == company.subscription_id]
    assert types(own)[:3] == ["subscription.changed", "owner.changed", "seats.changed"]
    assert [event["sequence"] for event in own] == list(range(1, len(own) + 1))
    assert own[0]["previous_sequence"] is None
    assert own[0]["data"]["items"][0]["quantity"] == 5
    assert own[2]["data"]["previous_total"] is None
    assert types(own).count("seat.assigned") == 3
    assert {event["data"]["source"] for event in own} == {"dashboard"}


async def test_members_who_name_a_subscription_before_it_is_seen_are_told_with_its_birth(
    service: Service,
) -> None:
    """Readings, events 4: a membership that names an unknown subscription writes nothing until then."""
    await filled(service)
    early = await service.person("early", **keys.membership_values("sub_later", "user"))  # type: ignore[arg-type]
    assert types(await events(service)) == ["sync.completed"]
    company = await service.company(users=0)
    member = await service.person(
        "first",
        billing_shared_subscription_id=company.subscription_id,
        billing_shared_subscription_role="user",
    )
    found = await check_fold(service)
    assigned = [event["customer_id"] for event in found if event["type"] == "seat.assigned"]
    assert sorted(assigned) == sorted([member.customer_id, company.manager.customer_id])
    assert early.customer_id not in assigned


async def test_addition_role_and_removal_are_told_with_their_operation(service: Service) -> None:
    await filled(service)
    company = await service.company()
    before = len(await events(service))
    added = await company.change(company.owner.headers, add=[new_email()])
    member_id = added.json()["results"][0]["customer_id"]
    await service.announce()
    await company.change(company.owner.headers, update=[{"customer_id": member_id, "role": "manager"}])
    await service.announce()
    removed = await company.change(company.owner.headers, remove=[member_id])
    found = (await check_fold(service))[before:]
    told = [
        event for event in found if event["customer_id"] == member_id and event["type"].startswith("seat.")
    ]
    assert types(told) == ["seat.assigned", "seat.role_changed", "seat.released"]
    assert {event["data"]["source"] for event in told} == {"api"}
    assert told[0]["data"] == {
        "role": "user",
        "source": "api",
        "operation_id": added.json()["operation_id"],
    }
    assert told[1]["data"]["previous_role"] == "user"
    assert told[2]["data"]["previous_role"] == "manager"
    assert told[2]["data"]["reason"] == "removed"
    assert told[2]["data"]["operation_id"] == removed.json()["operation_id"]
    settled = [event for event in found if event["type"] == "operation.settled"]
    assert [event["data"]["action"] for event in settled] == ["member_change"] * 3
    access = [event["data"] for event in found if event["type"] == "access.changed"]
    assert [(one["has_access"], one["role"], one["revision"]) for one in access] == [
        (True, "user", 1),
        (True, "manager", 2),
        (False, None, 3),
    ]


async def test_leaving_is_told_with_its_reason(service: Service) -> None:
    await filled(service)
    company = await service.company()
    await service.announce()
    await service.send("DELETE", f"{company.path}/users/me", company.user.headers)
    (released,) = [e for e in await check_fold(service) if e["type"] == "seat.released"]
    assert (released["customer_id"], released["data"]["reason"]) == (company.user.customer_id, "left")


async def test_dashboard_edit_of_seats_is_told_with_the_numbers(service: Service) -> None:
    """Readings, events 3: `seats.changed` is written when the total changes, and only then."""
    await filled(service)
    company = await service.company(seats=5)
    item = (await company.state())["items"]["data"][0]
    before = len(await events(service))
    await service.stripe.post(f"/v1/subscription_items/{item['id']}", quantity=8)
    await service.refresh("subscription", company.subscription_id)
    await service.stripe.post(f"/v1/subscriptions/{company.subscription_id}", cancel_at_period_end="true")
    await service.refresh("subscription", company.subscription_id)
    found = (await check_fold(service))[before:]
    (changed,) = [event for event in found if event["type"] == "seats.changed"]
    assert changed["data"] == {
        "total": 8,
        "used": 2,
        "reserved": 0,
        "available": 6,
        "over_allocated": 0,
        "previous_total": 5,
        "source": "dashboard",
        "operation_id": None,
    }
    assert types(found).count("subscription.changed") == 2
    assert found[-1]["data"]["cancel_at_period_end"] is True


async def test_seats_are_read_once_when_many_subscriptions_change_them(service: Service) -> None:
    """Each `seats.changed` took a statement of its own in the transaction that holds the log."""
    await filled(service)
    companies = [await service.company(seats=5, users=number) for number in range(4)]
    await service.announce()
    before = len(await events(service))
    for company in companies:
        item = (await company.state())["items"]["data"][0]
        await service.stripe.post(f"/v1/subscription_items/{item['id']}", quantity=8)
        await service.refresh("subscription", company.subscription_id)
    statements: list[str] = []
    async with service.context.database.snapshot() as connection:
        with connection.query_logger(lambda query: statements.append(query.query)):
            taken = await store.take_log(connection)
            assert taken is not None
            await announcing._Round(connection, service.context.rules, taken).run()
            # asyncpg calls the logger in the next turn of the loop.
            await asyncio.sleep(0)
    changed = [one for one in (await check_fold(service))[before:] if one["type"] == "seats.changed"]
    numbers = {one["subscription_id"]: one["data"] for one in changed}
    assert [numbers[company.subscription_id]["used"] for company in companies] == [
        (await company.seats())["used"] for company in companies
    ]
    assert all(one["total"] == 8 and one["previous_total"] == 5 for one in numbers.values())
    views = [one for one in statements if "owner_may_purchase" in one]
    assert len(views) == 1


async def test_end_takes_access_and_no_seat(service: Service) -> None:
    """Readings, events 4: seat events follow metadata alone, so an end releases no seat."""
    await filled(service)
    company = await service.company(users=2)
    before = len(await events(service))
    await company.set_status("unpaid")
    found = (await check_fold(service))[before:]
    assert "seat.released" not in types(found)
    lost = {event["customer_id"] for event in found if event["type"] == "access.changed"}
    assert lost == {person.customer_id for person in (company.owner, company.manager, *company.users)}


async def test_flag_of_a_product_changes_seats_and_access(service: Service) -> None:
    """Readings, events 5: what one product does to many subscriptions comes from the expansion."""
    await filled(service)
    companies = [await service.company(users=1), await service.company(users=1)]
    await check_fold(service)
    product = companies[0].product_id
    before = len(await events(service))
    for value, total in (("false", 0), ("true", 5)):
        await service.stripe.post(
            f"/v1/products/{product}", metadata={"billing_supports_shared_subscriptions": value}
        )
        await service.refresh("product", product)
        found = (await check_fold(service))[before:]
        (seats,) = [event for event in found if event["type"] == "seats.changed"]
        assert (seats["subscription_id"], seats["data"]["total"]) == (companies[0].subscription_id, total)
        assert types(found).count("access.changed") == 2, "of the manager and the user"
        before += len(found)


async def test_owner_is_told_when_the_customer_appears_and_goes(service: Service) -> None:
    """A subscription may be seen before its owner, and an owner may be deleted."""
    await filled(service)
    company = await service.company()
    await service.announce()
    await service.stripe.delete(f"/v1/customers/{company.owner.customer_id}")
    await service.refresh("customer", company.owner.customer_id)
    found = await check_fold(service)
    owners = [event["data"] for event in found if event["type"] == "owner.changed"]
    assert owners[-1]["owner_id"] is None
    assert owners[-1]["previous_owner_id"] == company.owner.customer_id


async def test_transfer_is_told(service: Service) -> None:
    await filled(service)
    company = await service.company()
    await service.announce()
    offered = await service.send(
        "POST",
        f"{company.path}/transfer",
        company.owner.headers,
        {"to_customer_id": company.manager.customer_id, "keep_me_as": "user"},
    )
    assert offered.is_success, offered.text
    taken = await service.send("POST", f"{company.path}/transfer/accept", company.manager.headers, {})
    assert taken.is_success, taken.text
    found = await check_fold(service)
    changed = [event for event in found if event["type"] == "owner.changed"][-1]
    assert changed["customer_id"] == company.manager.customer_id
    assert changed["data"]["source"] == "api"


async def test_invitations_are_told_without_an_address(service: Service) -> None:
    await filled(service)
    company = await service.company()
    before = len(await events(service))
    made = await company.invite(company.owner.headers)
    invitation_id = made.json()["invitation"]["id"]
    path = f"{company.path}/invitations/{invitation_id}"
    await service.send("POST", f"{path}/resend", company.owner.headers)
    await service.send("DELETE", path, company.owner.headers)
    found = (await check_fold(service))[before:]
    assert types(found) == ["invitation.created", "invitation.created", "invitation.revoked"]
    assert [event["data"]["generation"] for event in found] == [1, 2, 2]
    assert {event["data"]["invitation_id"] for event in found} == {invitation_id}
    assert set(found[0]["data"]) == {
        "invitation_id",
        "role",
        "expires_at",
        "generation",
        "source",
        "operation_id",
    }
    assert "@" not in str(found)


async def test_positions_are_committed_in_order_when_writers_are_not(service: Service) -> None:
    """16 writers commit out of order, two announcers take turns, and no reader sees a position appear late."""
    await filled(service)
    company = await service.company(users=8, seats=60)
    seen: list[int] = []
    stop = asyncio.Event()

    async def read() -> None:
        while not stop.is_set():
            async with service.context.database.connection() as connection:
                rows = await connection.fetch(
                    "select position from events where position > $1 order by position",
                    seen[-1] if seen else 0,
                )
            seen.extend(row["position"] for row in rows)
            await asyncio.sleep(0)

    async def announce() -> None:
        while not stop.is_set():
            await service.announce()
            await asyncio.sleep(0.01)

    async def write() -> None:
        for role in ("manager", "user", "manager"):
            change = [{"customer_id": person.customer_id, "role": role} for person in company.users[:4]]
            await company.change(company.owner.headers, update=change)

    working = [asyncio.create_task(job()) for job in (read, announce, announce)]
    await asyncio.gather(*(write() for _ in range(3)))
    stop.set()
    await asyncio.gather(*working)
    stop.clear()
    await service.announce()
    found = await check_fold(service)
    missing = {event["position"] for event in found if event["position"] <= seen[-1]} - set(seen)
    assert missing == set()


async def test_nothing_is_lost_when_a_fact_begins_before_the_end_of_the_fill_is_visible(
    service: Service,
) -> None:
    """A transaction may write before it can see that the copy is filled, and commit after the log would open."""
    company = await service.company(users=1)
    database = service.context.database
    slow = await asyncpg.connect(service.database_url)
    async with slow.transaction():
        await slow.execute(
            """insert into customers
            select 'cus_slow', created, email, name, phone, currency, balance, default_payment_method_id,
                default_source_id, member_of, member_role, null, null, metadata_problems, further_memberships, marker,
                serial, existence, terminal from customers where id = $1""",
            company.user.customer_id,
        )
        await service.fill()
        await service.announce(within=2.0)
        async with database.connection() as connection:
            assert await connection.fetchval("select opened_at from event_log") is None
    await slow.close()
    await service.announce()
    async with database.connection() as connection:
        assert await connection.fetchval("select opened_at from event_log") is not None
        states = await connection.fetch("select customer_id from access_states where has_access")
    assert "cus_slow" in {row["customer_id"] for row in states}
