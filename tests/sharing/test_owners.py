"""P4: who owns a subscription whose metadata names no owner, or names nobody."""

import asyncio
from typing import Any

import pytest

from app.operating import doctor
from testkit.company import Company, Service, new_email
from testkit.problems import ok, problem
from testkit.service import as_service

OWNER = "billing_shared_subscription_owner"


async def bought_elsewhere(service: Service, **metadata: str) -> Company:
    """A shared subscription as the Dashboard or Checkout makes it: its metadata is `metadata` and nothing else."""
    company = await service.company(seats=4)
    await name_owner(company, metadata.get(OWNER, ""))
    return company


async def name_owner(company: Company, value: str) -> None:
    await company.service.stripe.post(f"/v1/subscriptions/{company.subscription_id}", metadata={OWNER: value})
    await company.service.refresh("subscription", company.subscription_id)


async def named_owner(company: Company) -> str | None:
    found: str | None = (await company.state())["metadata"].get(OWNER)
    return found


async def access_of_payer(company: Company) -> Any:
    path = "/v1/customers/me/access"
    return ok(await company.service.get(path, company.payer.headers, product_id=company.product_id))


async def test_payer_owns_subscription_when_its_metadata_names_no_owner(service: Service) -> None:
    """P4: the payer of a subscription made in the Dashboard had no access, and 403 on everything."""
    company = await bought_elsewhere(service)
    access = await access_of_payer(company)
    assert (access["has_access"], access["via"], access["role"]) == (True, "own", "owner")
    seen = ok(await service.get(company.path, company.payer.headers))["subscription"]
    assert (seen["role"], seen["shared"]["owner"]["customer_id"]) == ("owner", company.payer.customer_id)
    rows = ok(await service.get(f"{company.path}/users", company.payer.headers))["data"]
    assert (rows[0]["customer_id"], rows[0]["role"]) == (company.payer.customer_id, "owner")
    mine = ok(await service.get("/v1/customers/me/subscriptions", company.payer.headers))["data"]
    assert [(one["id"], one["role"]) for one in mine] == [(company.subscription_id, "owner")]
    assert await named_owner(company) is None, "a read writes nothing"


async def test_first_change_of_implicit_owner_writes_the_key_first(service: Service) -> None:
    """P4: the payer's first change as implicit owner makes them the named one."""
    company = await bought_elsewhere(service)
    email = new_email()
    answer = ok(await company.change(company.payer.headers, add=[email], remove=[company.user.customer_id]))
    assert [(one["action"], one["outcome"]) for one in answer["results"]] == [
        ("add", "applied"),
        ("remove", "applied"),
    ]
    assert await named_owner(company) == company.payer.customer_id
    assert email in await company.member_emails()
    steps = await service.fetch(
        "select action from operation_steps where operation_id = $1 order by settled_at",
        answer["operation_id"],
    )
    assert steps[0]["action"] == "set_owner"
    # The next one has nothing to write.
    again = ok(await company.change(company.payer.headers, remove=[answer["results"][0]["customer_id"]]))
    steps = await service.fetch(
        "select action from operation_steps where operation_id = $1", again["operation_id"]
    )
    assert [step["action"] for step in steps] == ["remove"]


@pytest.mark.parametrize("by", ["manager", "key"])
async def test_change_leaves_the_key_absent_when_somebody_else_makes_it(service: Service, by: str) -> None:
    """P4: only the payer's own change makes the payer the named owner."""
    company = await bought_elsewhere(service)
    who = company.manager.headers if by == "manager" else as_service("write")
    ok(await company.change(who, add=[new_email()]))
    assert await named_owner(company) is None


async def test_implicit_owner_gives_the_subscription_away(service: Service) -> None:
    """P4: a transfer writes the key also if it was absent before."""
    company = await bought_elsewhere(service)
    offer = {"to_customer_id": company.user.customer_id}
    ok(await service.send("POST", f"{company.path}/transfer", company.payer.headers, offer))
    accepted = ok(await service.send("POST", f"{company.path}/transfer/accept", company.user.headers))
    assert [(one["action"], one["outcome"], one["subscription_id"]) for one in accepted["results"]] == [
        ("owner", "applied", company.subscription_id),
        ("remove", "applied", None),
    ]
    assert await named_owner(company) == company.user.customer_id
    problem(await company.change(company.payer.headers, add=[new_email()]), 403, "role_required")


async def test_member_keys_of_implicit_owner_are_neither_counted_nor_cleared(service: Service) -> None:
    """P4: implicit ownership removes nobody, and takes no seat by a member's metadata."""
    company = await bought_elsewhere(service)
    marks = {
        "billing_shared_subscription_id": company.subscription_id,
        "billing_shared_subscription_role": "user",
    }
    await service.stripe.post(f"/v1/customers/{company.payer.customer_id}", metadata=marks)
    await service.refresh("customer", company.payer.customer_id)
    seen = ok(await service.get(company.path, company.payer.headers))["subscription"]
    assert (seen["role"], seen["shared"]["seats"]["used"]) == ("owner", 2)
    ok(await company.change(company.payer.headers, add=[new_email()]))
    assert company.payer.customer_id in await company.members()
    await name_owner(company, "")
    await service.stripe.delete(f"/v1/subscriptions/{company.subscription_id}")
    await service.refresh("subscription", company.subscription_id)
    await service.clean_up()
    assert set(await company.members()) == {company.payer.customer_id}


@pytest.mark.parametrize("value", [" ", "a\x7fb", "x" * 256, "cus_nobody", "Ada Lovelace"])
async def test_payer_keeps_access_and_repairs_when_the_key_names_nobody(service: Service, value: str) -> None:
    """P4: a value that names nobody closes the management of members, and the payer keeps the product."""
    company = await service.company(seats=4)
    state = await company.state()
    await service.deliver_state("subscription", {**state, "metadata": {OWNER: value}})
    access = await access_of_payer(company)
    assert (access["has_access"], access["role"]) == (True, "payer")
    problem(await company.change(company.payer.headers, add=[new_email()]), 403, "role_required")
    problem(await company.change(company.manager.headers, add=[new_email()]), 403, "role_required")


async def test_payer_names_themselves_when_stripe_answers_404_for_the_owner(service: Service) -> None:
    """P4: a value that names nobody authorises the repair."""
    company = await bought_elsewhere(service, **{OWNER: "cus_nobody"})
    offer = {"to_customer_id": company.payer.customer_id}
    ok(await service.send("POST", f"{company.path}/transfer", company.payer.headers, offer))
    assert await named_owner(company) == company.payer.customer_id


@pytest.mark.parametrize("seated", [False, True], ids=["payer", "payer with a seat"])
@pytest.mark.parametrize("nothing_gives_seats", ["flag removed", "metered"])
async def test_payer_names_themselves_when_nothing_gives_seats_any_more(
    service: Service, nothing_gives_seats: str, seated: bool
) -> None:
    """P4: the payer became the owner of an unshared subscription, who may not repair, and the answer was 404."""
    company = await bought_elsewhere(service, **{OWNER: "cus_nobody"})
    if seated:
        marks = {
            "billing_shared_subscription_id": company.subscription_id,
            "billing_shared_subscription_role": "user",
        }
        await service.stripe.post(f"/v1/customers/{company.payer.customer_id}", metadata=marks)
        await service.refresh("customer", company.payer.customer_id)
    if nothing_gives_seats == "metered":
        await becomes_metered(company)
    else:
        await flag(company, "false")
    offer = {"to_customer_id": company.payer.customer_id}
    for who, status, code in (
        (company.user, 403, "role_required"),
        (company.manager, 403, "role_required"),
        (company.stranger, 404, "not_found"),
    ):
        own = {"to_customer_id": who.customer_id}
        problem(await service.send("POST", f"{company.path}/transfer", who.headers, own), status, code)
    seen = ok(await service.get(f"/v1/subscriptions/{company.subscription_id}", company.payer.headers))
    assert seen["subscription"]["role"] == "owner"
    ok(await service.send("POST", f"{company.path}/transfer", company.payer.headers, offer))
    assert await named_owner(company) == company.payer.customer_id


async def flag(company: Company, value: str) -> None:
    marks = {"billing_supports_shared_subscriptions": value}
    await company.service.stripe.post(f"/v1/products/{company.product_id}", metadata=marks)
    await company.service.refresh("product", company.product_id)


async def becomes_metered(company: Company) -> None:
    """The flagged item is replaced by a metered one of the same product, in the Dashboard."""
    stripe = company.service.stripe
    meter = await stripe.post(
        "/v1/billing/meters",
        display_name="Calls",
        event_name=f"calls-{company.product_id}",
        default_aggregation={"formula": "sum"},
    )
    price = await stripe.post(
        "/v1/prices",
        product=company.product_id,
        currency="usd",
        unit_amount=5,
        recurring={"interval": "month", "usage_type": "metered", "meter": meter["id"]},
    )
    await company.service.refresh("price", price["id"])
    [item] = (await company.state())["items"]["data"]
    items = [{"id": item["id"], "deleted": True}, {"price": price["id"]}]
    await stripe.post(f"/v1/subscriptions/{company.subscription_id}", items=items)
    await company.service.refresh("subscription", company.subscription_id)


@pytest.mark.parametrize("status", [403, 500])
async def test_repair_waits_when_stripe_does_not_say_that_the_owner_is_gone(
    service: Service, status: int
) -> None:
    """P4: a missing row, a 403 and a 5xx do not prove that the owner is gone."""
    company = await bought_elsewhere(service, **{OWNER: "cus_unread"})
    await service.stripe.add_fault(
        method="GET", path="/v1/customers/{id}", object="cus_unread", status=status, times=0
    )
    offer = {"to_customer_id": company.payer.customer_id}
    refused = await service.send("POST", f"{company.path}/transfer", company.payer.headers, offer)
    await service.stripe.clear_faults()
    problem(refused, 503, "stripe_unavailable")
    assert await named_owner(company) == "cus_unread"


async def test_offer_to_oneself_asks_stripe_nothing_when_the_actor_may_not_repair(service: Service) -> None:
    """P4: a subscription that the actor does not see is answered like an absent one, whatever Stripe says."""
    company = await bought_elsewhere(service, **{OWNER: "cus_unread"})
    await service.stripe.add_fault(
        method="GET", path="/v1/customers/{id}", object="cus_unread", status=500, times=0
    )
    before = len(await service.stripe.requests())
    for person, code, status in (
        (company.stranger, "not_found", 404),
        (company.user, "role_required", 403),
        (company.manager, "role_required", 403),
    ):
        own = person.customer_id
        for who in (person.headers, as_service("write", acting_for=own)):
            offer = {"to_customer_id": own}
            answer = await service.send("POST", f"{company.path}/transfer", who, offer)
            problem(answer, status, code)
    offer = {"to_customer_id": company.stranger.customer_id}
    absent = "/v1/shared-subscriptions/sub_absent00000/transfer"
    problem(await service.send("POST", absent, company.stranger.headers, offer), 404, "not_found")
    asked = len(await service.stripe.requests()) - before
    await service.stripe.clear_faults()
    assert asked == 0


async def test_repair_is_refused_when_the_owner_exists_but_was_never_mirrored(service: Service) -> None:
    """P4: an owner who is not in the copy yet is found before anybody takes their place."""
    company = await service.company(seats=4)
    unseen = await service.stripe.post("/v1/customers", email=new_email())
    await name_owner(company, unseen["id"])
    offer = {"to_customer_id": company.payer.customer_id}
    refused = await service.send("POST", f"{company.path}/transfer", company.payer.headers, offer)
    problem(refused, 403, "role_required")
    assert await named_owner(company) == unseen["id"]


async def test_doctor_names_an_owner_key_that_names_nobody(service: Service) -> None:
    """P4: the doctor was silent about values that are no customer's id."""
    lost = await bought_elsewhere(service, **{OWNER: "cus_nobody"})
    odd, implicit = await service.company(seats=2), await bought_elsewhere(service)
    await service.deliver_state("subscription", {**await odd.state(), "metadata": {OWNER: " "}})
    await service.stripe.post(
        "/v1/webhook_endpoints", url="https://api.example.com/webhooks/stripe", enabled_events=["*"]
    )
    await service.fill()
    found = {one.object: one for one in await doctor.examine(service.context) if one.check == "owner"}
    assert "cus_nobody" in found[lost.subscription_id].problem
    assert odd.subscription_id in found
    assert implicit.subscription_id not in found


async def owner_takes_seat(company: Company) -> None:
    flag = {"billing_shared_subscription_owner_seat": "true"}
    await company.service.stripe.post(f"/v1/products/{company.product_id}", metadata=flag)
    await company.service.refresh("product", company.product_id)


async def transferred(company: Company, to_id: str, **more: Any) -> Any:
    """The answer to a service key's acceptance of a service key's offer."""
    offer = {"to_customer_id": to_id, **more}
    ok(await company.service.send("POST", f"{company.path}/transfer", as_service("write"), offer))
    return await company.service.send("POST", f"{company.path}/transfer/accept", as_service("write"))


@pytest.mark.parametrize(("seats", "over"), [(2, 1), (3, 0)])
async def test_payer_repairs_when_the_owner_takes_a_seat_and_none_is_free(
    service: Service, seats: int, over: int
) -> None:
    """P4: 409 told the payer to add a seat or remove a member, and they may do neither until they are the owner."""
    company = await service.company(seats=seats)
    await owner_takes_seat(company)
    await name_owner(company, "cus_nobody")
    payer, path = company.payer.headers, f"{company.path}/seats"
    problem(await service.send("PUT", path, payer, {"total": seats + 1}), 403, "role_required")
    leaving = company.user.customer_id
    problem(await company.change(payer, remove=[leaving]), 403, "role_required")
    offer = {"to_customer_id": company.payer.customer_id}
    ok(await service.send("POST", f"{company.path}/transfer", payer, offer))
    assert await named_owner(company) == company.payer.customer_id
    assert await company.seats() == {
        "total": seats, "used": 3, "reserved": 0, "available": 0, "over_allocated": over
    }  # fmt: skip
    refused = problem(await company.change(payer, add=[new_email()]), 409, "seat_limit_reached")
    assert (refused["used"], refused["required"]) == (3, 4)
    ok(await company.change(payer, remove=[leaving]))
    assert (await company.seats())["over_allocated"] == 0


async def test_repair_needs_no_further_seat_when_the_payer_has_one(service: Service) -> None:
    """P4: the payer's own seat is given back by the repair."""
    company = await service.company(seats=3)
    await owner_takes_seat(company)
    marks = {"billing_shared_subscription_id": company.subscription_id}
    await service.stripe.post(f"/v1/customers/{company.payer.customer_id}", metadata=marks)
    await service.refresh("customer", company.payer.customer_id)
    await name_owner(company, "cus_nobody")
    offer = {"to_customer_id": company.payer.customer_id}
    ok(await service.send("POST", f"{company.path}/transfer", company.payer.headers, offer))
    assert await company.seats() == {
        "total": 3, "used": 3, "reserved": 0, "available": 0, "over_allocated": 0
    }  # fmt: skip


@pytest.mark.parametrize("takes_seat", [True, False])
@pytest.mark.parametrize("keep", [None, "user"])
async def test_transfer_counts_the_owner_who_is_a_member_too(
    service: Service, takes_seat: bool, keep: str | None
) -> None:
    """The member keys of the owner count for nothing, until they are not the owner any more."""
    company = await service.company(seats=4 if takes_seat else 3)
    if takes_seat:
        await owner_takes_seat(company)
    marks = {"billing_shared_subscription_id": company.subscription_id}
    await service.stripe.post(f"/v1/customers/{company.owner.customer_id}", metadata=marks)
    await service.refresh("customer", company.owner.customer_id)
    third = await company.seated("third", "user")
    assert (await company.seats())["available"] == 0
    more = {} if keep is None else {"keep_me_as": keep}
    refused = await transferred(company, company.stranger.customer_id, **more)
    document = problem(refused, 409, "seat_limit_reached")
    assert document["required"] == document["total"] + 1
    accepted = await transferred(company, third.customer_id, **more)
    assert accepted.status_code == 200, accepted.text
    seats = ok(await service.get(company.path, third.headers))["subscription"]["shared"]["seats"]
    assert (seats["available"], seats["over_allocated"]) == (0, 0)


async def test_last_seat_is_not_promised_when_an_owner_who_takes_one_is_being_named(
    service: Service,
) -> None:
    """The owner's seat looks free until Stripe has the new owner."""
    company = await service.company(seats=3)
    await owner_takes_seat(company)
    await name_owner(company, "cus_nobody")
    await service.stripe.add_fault(method="POST", path="/v1/subscriptions/{id}", latency_s=2, times=1)
    offer = {"to_customer_id": company.payer.customer_id}
    repairing = asyncio.create_task(
        service.send("POST", f"{company.path}/transfer", company.payer.headers, offer)
    )
    await asyncio.sleep(1)
    key = as_service("write")
    problem(await company.change(key, add=[new_email()]), 409, "operation_in_progress")
    refused = await company.invite(key)
    assert refused.status_code == 409, refused.text
    ok(await repairing)
    assert (await company.seats())["over_allocated"] == 0 == (await company.seats())["available"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/shared-subscriptions/{id}/seats", {"total": 5}),
        ("PATCH", "/v1/subscriptions/{id}", {"cancel_at_period_end": True}),
        ("POST", "/v1/subscriptions/{id}/cancel", {"when": "period_end"}),
    ],
)
async def test_first_change_of_the_subscription_names_the_payer_first(
    service: Service, method: str, path: str, body: dict[str, Any]
) -> None:
    """P4: only a change of members wrote the key of an implicit owner."""
    company = await bought_elsewhere(service)
    before = len(await service.stripe.requests())
    address = path.format(id=company.subscription_id)
    changed = ok(await service.send(method, address, company.payer.headers, body))
    assert await named_owner(company) == company.payer.customer_id
    writes = [
        one for one in (await service.stripe.requests())[before:]
        if one["method"] == "POST" and one["path"] == f"/v1/subscriptions/{company.subscription_id}"
    ]  # fmt: skip
    assert len(writes) == 2
    steps = await service.fetch(
        "select details ->> 'method' as method, state from operation_steps where operation_id = $1 order by settled_at",
        changed["operation_id"],
    )
    assert [(one["method"], one["state"]) for one in steps] == [
        ("name_owner", "applied"),
        ("update", "applied"),
    ]
    state = await company.state()
    assert state["items"]["data"][0]["quantity"] == 5 or state["cancel_at_period_end"] is True
    again = ok(
        await service.send(
            "POST", f"/v1/subscriptions/{company.subscription_id}/resume", company.payer.headers
        )
    )
    assert again["subscription"]["cancel_at_period_end"] is False


async def test_change_of_the_subscription_names_nobody_when_it_is_not_shared_or_not_the_payers(
    service: Service,
) -> None:
    """P4: a subscription that nobody shares needs no owner key, and only the payer's own change names the payer."""
    alone, company = await service.company(shareable=False), await bought_elsewhere(service)
    who, body = alone.payer.headers, {"cancel_at_period_end": True}
    ok(await service.send("PATCH", f"/v1/subscriptions/{alone.subscription_id}", who, body))
    ok(await service.send("PUT", f"{company.path}/seats", as_service("write"), {"total": 5}))
    ended = await bought_elsewhere(service)
    path = f"/v1/subscriptions/{ended.subscription_id}/cancel"
    ok(await service.send("POST", path, ended.payer.headers, {"when": "now"}))
    assert [await named_owner(one) for one in (alone, company, ended)] == [None, None, None]


async def test_refusal_is_that_of_the_change_when_the_payer_was_named_first(service: Service) -> None:
    company = await bought_elsewhere(service)
    await service.stripe.add_fault(method="POST", path="/v1/subscriptions/{id}", latency_s=0.01, times=1)
    await service.stripe.add_fault(
        method="POST", path="/v1/subscriptions/{id}", status=402, code="card_declined", times=1
    )
    refused = await service.send("PUT", f"{company.path}/seats", company.payer.headers, {"total": 9})
    await service.stripe.clear_faults()
    problem(refused, 402, "card_declined")
    assert await named_owner(company) == company.payer.customer_id
    assert (await company.seats())["total"] == 4
    ok(await service.send("PUT", f"{company.path}/seats", company.payer.headers, {"total": 9}))
