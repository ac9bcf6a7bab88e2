"""Buying and giving back seats: PUT seats, quotes, members who bring their seat, leaving, transfer, the audit trail."""

import asyncio

import asyncpg

from testkit.company import Company, Service, new_email
from testkit.problems import ok, problem
from testkit.service import as_service


async def quantity(company: Company) -> int:
    found = await company.service.stripe.get(f"/v1/subscriptions/{company.subscription_id}")
    return int(found["items"]["data"][0]["quantity"])


async def test_seats_are_set_by_the_owner_within_what_is_used(service: Service) -> None:
    company = await service.company(seats=3)
    path = f"{company.path}/seats"
    body = ok(await service.send("PUT", path, company.owner.headers, {"total": 6}))
    assert body["subscription"]["shared"]["seats"]["total"] == 6 and await quantity(company) == 6
    ok(await service.send("PUT", path, company.owner.headers, {"total": 2}))
    assert await quantity(company) == 2
    refused = problem(
        await service.send("PUT", path, company.owner.headers, {"total": 1}), 409, "seats_in_use"
    )
    assert (refused["used"], refused["requested"]) == (2, 1) and await quantity(company) == 2
    problem(await service.send("PUT", path, company.manager.headers, {"total": 9}), 403, "role_required")
    problem(await service.send("PUT", path, company.user.headers, {"total": 9}), 403, "role_required")
    problem(await service.send("PUT", path, company.stranger.headers, {"total": 9}), 404, "not_found")
    admin_only = {"total": 9, "proration_behavior": "none"}
    problem(await service.send("PUT", path, company.owner.headers, admin_only), 403, "field_not_allowed")
    ok(await service.send("PUT", path, as_service("admin"), admin_only))
    assert await quantity(company) == 9


async def test_seats_that_are_missing_are_bought_in_one_write_and_one_invoice(service: Service) -> None:
    company = await service.company(seats=2)
    before = len((await service.stripe.get("/v1/invoices", subscription=company.subscription_id))["data"])
    body = {"add": [{"email": new_email()}, {"email": new_email()}], "over_capacity": "add_seats"}
    path = f"{company.path}/users"
    quote = ok(
        await service.send("POST", f"{company.path}/quote", company.owner.headers, {"add": body["add"]})
    )
    assert quote["amount_due_now"] > 0
    answer = ok(
        await service.send("PATCH", path, company.owner.headers, {**body, "quote_id": quote["quote_id"]})
    )
    assert [(r["action"], r["outcome"]) for r in answer["results"]] == [
        ("add", "applied"),
        ("add", "applied"),
        ("seats", "applied"),
    ]
    assert answer["seats"] == {"total": 4, "used": 4, "reserved": 0, "available": 0, "over_allocated": 0}
    invoices = (await service.stripe.get("/v1/invoices", subscription=company.subscription_id))["data"]
    assert len(invoices) == before + 1 and invoices[0]["total"] == quote["amount_due_now"]
    writes = [
        request
        for request in await service.stripe.requests(path=f"/v1/subscriptions/{company.subscription_id}")
        if request["method"] == "POST"
    ]
    assert len(writes) == 1
    again = {**body, "add": [{"email": new_email()}], "quote_id": quote["quote_id"]}
    problem(await service.send("PATCH", path, company.owner.headers, again), 409, "quote_expired")
    problem(
        await service.send("PATCH", path, company.manager.headers, {**body, "add": again["add"]}),
        403,
        "role_required",
    )


async def test_a_raise_that_needs_payment_holds_its_adds_until_it_is_paid(service: Service) -> None:
    company = await service.company(seats=2)
    card = await service.stripe.post(
        "/v1/payment_methods/pm_card_authenticationRequired/attach", customer=company.payer.customer_id
    )
    await service.stripe.post(
        f"/v1/subscriptions/{company.subscription_id}", default_payment_method=card["id"]
    )
    body = {"add": [{"email": new_email()}], "over_capacity": "add_seats"}
    answer = ok(await service.send("PATCH", f"{company.path}/users", company.owner.headers, body), 202)
    assert [r["outcome"] for r in answer["results"]] == ["pending", "pending"]
    assert answer["payment"]["kind"] == "payment" and answer["payment"]["client_secret"]
    assert await quantity(company) == 2 and len(await company.members()) == 2
    await service.stripe.control("POST", "confirm", client_secret=answer["payment"]["client_secret"])
    assert await quantity(company) == 3
    await service.fetch(
        "update operations set lease_until = now() - interval '1 second' where settled_at is null"
    )
    await service.work_off()
    settled = ok(await service.get(f"/v1/operations/{answer['operation_id']}", company.owner.headers))
    assert [r["outcome"] for r in settled["results"]] == ["applied", "applied"] and settled[
        "state"
    ] == "settled"
    assert len(await company.members()) == 3 and await quantity(company) == 3


async def test_leaving(service: Service) -> None:
    company = await service.company(seats=3)
    path = f"{company.path}/users/me"
    problem(await service.send("DELETE", path, company.owner.headers), 409, "owner_cannot_leave")
    problem(await service.send("DELETE", path, company.stranger.headers), 404, "not_found")
    answer = ok(await service.send("DELETE", path, company.user.headers))
    assert [r["outcome"] for r in answer["results"]] == ["applied"]
    assert company.user.customer_id not in await company.members()
    problem(await service.send("DELETE", path, company.user.headers), 404, "not_found")
    ok(await service.send("DELETE", path, as_service(acting_for=company.manager.customer_id)))
    assert await company.members() == {}


async def test_ownership_moves_in_two_steps(service: Service) -> None:
    company = await service.company(seats=3)
    path, manager = f"{company.path}/transfer", company.manager
    offer = {"to_customer_id": manager.customer_id, "allow_purchases": True, "keep_me_as": "manager"}
    problem(await service.send("POST", path, manager.headers, offer), 403, "role_required")
    stranger = {**offer, "to_customer_id": company.stranger.customer_id}
    problem(await service.send("POST", path, company.owner.headers, stranger), 404, "not_found")
    problem(await service.send("POST", f"{path}/accept", manager.headers), 404, "not_found")
    offered = ok(await service.send("POST", path, company.owner.headers, offer))["transfer"]
    assert offered["state"] == "offered"
    assert ok(await service.get(path, company.user.headers))["transfer"] is None
    problem(await service.send("POST", f"{path}/accept", company.user.headers), 404, "not_found")
    done = ok(await service.send("POST", f"{path}/accept", manager.headers))
    assert [(r["action"], r["outcome"]) for r in done["results"]] == [
        ("owner", "applied"),
        ("remove", "applied"),
        ("add", "applied"),
    ]
    truth = await service.stripe.get(f"/v1/subscriptions/{company.subscription_id}")
    assert truth["metadata"]["billing_shared_subscription_owner"] == manager.customer_id
    assert await company.members() == {
        company.owner.customer_id: "manager",
        company.user.customer_id: "user",
    }
    seen = ok(await service.get(company.path, manager.headers))["subscription"]
    assert seen["role"] == "owner" and seen["shared"]["owner"]["customer_id"] == manager.customer_id
    # The payer allowed it, so the new owner buys; the old one does not any more.
    ok(await service.send("PUT", f"{company.path}/seats", manager.headers, {"total": 4}))
    problem(
        await service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 5}),
        403,
        "role_required",
    )
    assert ok(await service.get(path, manager.headers))["transfer"]["state"] == "accepted"


async def test_a_transfer_can_be_declined_and_withdrawn(service: Service) -> None:
    company = await service.company(seats=3)
    path, offer = f"{company.path}/transfer", {"to_customer_id": company.user.customer_id}
    for who, state in ((company.user, "declined"), (company.owner, "withdrawn")):
        ok(await service.send("POST", path, company.owner.headers, offer))
        decided = ok(await service.send("POST", f"{path}/decline", who.headers))["transfer"]
        assert decided["state"] == state
        problem(await service.send("POST", f"{path}/accept", company.user.headers), 404, "not_found")


async def test_an_offer_stays_withdrawn_when_the_owner_changed_in_the_dashboard(service: Service) -> None:
    """W4: the refusal commits what it found, so the offer is not accepted once ownership has moved back."""
    company = await service.company(seats=3)
    path, receiver = f"{company.path}/transfer", company.manager
    ok(await service.send("POST", path, company.owner.headers, {"to_customer_id": receiver.customer_id}))

    async def set_owner(customer_id: str) -> None:
        await service.stripe.post(
            f"/v1/subscriptions/{company.subscription_id}",
            metadata={"billing_shared_subscription_owner": customer_id},
        )
        await service.refresh("subscription", company.subscription_id)

    await set_owner(company.user.customer_id)
    problem(await service.send("POST", f"{path}/accept", receiver.headers), 409, "version_conflict")
    assert ok(await service.get(path, company.user.headers))["transfer"]["state"] == "withdrawn"
    await set_owner(company.owner.customer_id)
    problem(await service.send("POST", f"{path}/accept", receiver.headers), 404, "not_found")
    truth = await company.state()
    assert truth["metadata"]["billing_shared_subscription_owner"] == company.owner.customer_id


async def test_an_old_owner_cannot_stay_without_a_seat(service: Service) -> None:
    company = await service.company(seats=2)
    extra = await company.seated("extra", "user")
    offer = {"to_customer_id": extra.customer_id, "keep_me_as": "user"}
    ok(await service.send("POST", f"{company.path}/transfer", company.owner.headers, offer))
    refused = await service.send("POST", f"{company.path}/transfer/accept", extra.headers)
    figures = problem(refused, 409, "seat_limit_reached")
    assert (figures["total"], figures["used"], figures["required"]) == (2, 3, 3)


async def test_the_payer_of_a_subscription_without_owner_makes_himself_owner(service: Service) -> None:
    company = await service.company(seats=3, payer_is_owner=False)
    await service.stripe.post(
        f"/v1/subscriptions/{company.subscription_id}",
        metadata={"billing_shared_subscription_owner": "cus_nobody"},
    )
    await service.refresh("subscription", company.subscription_id)
    path = f"{company.path}/transfer"
    problem(
        await service.send(
            "POST", path, company.manager.headers, {"to_customer_id": company.manager.customer_id}
        ),
        403,
        "role_required",
    )
    ok(await service.send("POST", path, company.payer.headers, {"to_customer_id": company.payer.customer_id}))
    seen = ok(await service.get(company.path, company.payer.headers))["subscription"]
    assert seen["role"] == "owner"


async def test_the_audit_trail_tells_who_did_what(service: Service) -> None:
    company = await service.company(seats=5)
    path = f"{company.path}/audit-events"
    added = ok(await company.change(company.manager.headers, add=[new_email()]))["results"][0]
    update = [{"customer_id": company.user.customer_id, "role": "manager"}]
    ok(await company.change(company.owner.headers, update=update))
    await service.stripe.post(
        f"/v1/customers/{company.user.customer_id}", metadata={"billing_shared_subscription_id": ""}
    )
    await service.refresh("customer", company.user.customer_id)
    ok(await service.send("PUT", f"{company.path}/seats", as_service("admin"), {"total": 7}))
    events = ok(await service.get(path, company.owner.headers, limit=4))
    shown = [
        (e["source"], e["action"], e["customer_id"], e["actor_customer_id"], e["service"])
        for e in events["data"]
    ]
    assert shown == [
        ("api", "subscription_changed", None, None, "admin"),
        ("dashboard", "member_removed", company.user.customer_id, None, None),
        ("api", "role_changed", company.user.customer_id, company.owner.customer_id, None),
        ("api", "member_added", added["customer_id"], company.manager.customer_id, None),
    ]
    assert events["data"][2]["before"] == {"role": "user"} and events["data"][2]["after"] == {
        "role": "manager"
    }
    first = ok(await service.get(path, company.owner.headers, limit=1))
    assert first["has_more"]
    second = ok(await service.get(path, company.owner.headers, limit=1, cursor=first["next_cursor"]))
    assert second["data"] == [events["data"][1]]
    ids = [event["id"] for event in events["data"]]
    assert all(isinstance(one, str) for one in ids) and len(set(ids)) == 4
    for nobody in (company.user, company.stranger):
        problem(await service.get(path, nobody.headers), 404, "not_found")


async def test_members_of_an_ended_subscription_are_cleared(service: Service) -> None:
    company = await service.company(seats=5)
    await service.stripe.delete(f"/v1/subscriptions/{company.subscription_id}")
    await service.refresh("subscription", company.subscription_id)
    await service.clean_up()
    assert await company.members() == {}


async def test_quote_of_a_member_change_waits_for_no_lock(service: Service) -> None:
    """A quote changes nothing, so it locks neither an invitation nor a customer that was created for a seat."""
    company, invited, seated = await service.company(seats=5), new_email(), new_email()
    assert (await company.invite(company.owner.headers, invited)).status_code == 201
    assert (await company.change(company.owner.headers, add=[seated])).status_code == 200
    holding = await asyncpg.connect(service.database_url)
    try:
        async with holding.transaction():
            for table in ("invitations", "reservations", "seat_customers"):
                await holding.fetch(f"select from {table} for update")
            body = {"add": [{"email": invited}, {"email": seated}, {"email": new_email()}]}
            async with asyncio.timeout(20):
                quoted = await service.send("POST", f"{company.path}/quote", company.owner.headers, body)
            assert quoted.status_code == 200, quoted.text
    finally:
        await holding.close()
