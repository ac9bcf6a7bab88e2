"""updateSharedSubscriptionUsers: every outcome and code, and the truth in the stand-in after each."""

import secrets
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from app.domain import metadata
from app.domain.ids import SubscriptionId
from app.domain.metadata import OWNER_USES_SEAT
from testkit.company import Company, Service, event_of, new_email, running_service
from testkit.problems import pointers, problem
from testkit.service import as_service, as_user


def results(response: httpx.Response, status: int = 200) -> list[tuple[str, str, str | None]]:
    """(action, outcome, code) of each change."""
    assert response.status_code == status, response.text
    return [(r["action"], r["outcome"], r["code"]) for r in response.json()["results"]]


async def users_shown(company: Company, who: dict[str, str] | None = None) -> dict[str, dict[str, object]]:
    response = await company.service.get(f"{company.path}/users", who or company.owner.headers, limit=100)
    assert response.status_code == 200, response.text
    return {row["customer_id"]: row for row in response.json()["data"]}


async def test_an_owner_adds_a_new_person(service: Service) -> None:
    company = await service.company(seats=4)
    email = new_email()
    response = await company.change(company.owner.headers, add=[email])
    assert results(response) == [("add", "applied", None)]
    body = response.json()
    assert body["state"] == "settled" and body["payment"] is None
    assert body["seats"] == {"total": 4, "used": 3, "reserved": 0, "available": 1, "over_allocated": 0}
    added = body["results"][0]
    assert (await company.members())[added["customer_id"]] == "user"
    made = await service.stripe.get(f"/v1/customers/{added['customer_id']}")
    assert made["email"] == email and made["metadata"]["billing_operation_id"] == body["operation_id"]
    shown = (await users_shown(company))[added["customer_id"]]
    assert shown["email"] == email and shown["name"] is None and shown["role"] == "user"
    assert shown["state"] == "unclaimed"


async def test_owner_and_manager_change_users_and_only_the_owner_managers(service: Service) -> None:
    company = await service.company(seats=6)
    by_manager = await company.change(company.manager.headers, add=[new_email()])
    assert results(by_manager) == [("add", "applied", None)]
    before = await company.members()
    user = company.user.customer_id
    for denied in (
        {"add": [{"email": new_email(), "role": "manager"}]},
        {"update": [{"customer_id": user, "role": "manager"}]},
        {"remove": [company.manager.customer_id]},
        {"update": [{"customer_id": company.manager.customer_id, "role": "user"}]},
    ):
        problem(await company.change(company.manager.headers, **denied), 403, "role_required")
    for person in (company.user, company.stranger):
        expected = (403, "role_required") if person is company.user else (404, "not_found")
        problem(await company.change(person.headers, add=[new_email()]), *expected)
    assert await company.members() == before
    promoted = await company.change(company.owner.headers, update=[{"customer_id": user, "role": "manager"}])
    assert results(promoted) == [("update", "applied", None)]
    assert (await company.members())[user] == "manager"
    again = await company.change(company.owner.headers, update=[{"customer_id": user, "role": "manager"}])
    assert results(again) == [("update", "unchanged", None)]
    removed = await company.change(company.owner.headers, remove=[user])
    assert results(removed) == [("remove", "applied", None)]
    assert user not in await company.members()


async def test_managers_manage_managers_where_the_setting_says_so(service: Service) -> None:
    company = await service.company(seats=6)
    async with running_service(
        service.stripe, service.database_url, MANAGERS_MANAGE_MANAGERS="true"
    ) as widened:
        response = await widened.send(
            "PATCH",
            f"{company.path}/users",
            company.manager.headers,
            {"update": [{"customer_id": company.user.customer_id, "role": "manager"}]},
        )
    assert results(response) == [("update", "applied", None)]
    assert (await company.members())[company.user.customer_id] == "manager"


async def test_a_payer_who_is_not_owner_manages_nobody(service: Service) -> None:
    company = await service.company(payer_is_owner=False)
    before = await company.members()
    problem(await company.change(company.payer.headers, add=[new_email()]), 403, "role_required")
    problem(
        await company.change(company.payer.headers, remove=[company.user.customer_id]), 403, "role_required"
    )
    assert await company.members() == before


async def test_an_owner_who_is_gone_closes_member_management(service: Service) -> None:
    company = await service.company(payer_is_owner=False)
    await service.stripe.delete(f"/v1/customers/{company.owner.customer_id}")
    await service.refresh("customer", company.owner.customer_id)
    problem(await company.change(company.payer.headers, add=[new_email()]), 403, "role_required")
    plan = await service.get(company.path, company.payer.headers)
    assert plan.json()["subscription"]["shared"]["owner"] is None
    assert plan.json()["subscription"]["role"] == "payer"
    repaired = await company.change(as_service("write"), remove=[company.user.customer_id])
    assert results(repaired) == [("remove", "applied", None)]


async def test_the_last_seat_and_beyond(service: Service) -> None:
    company = await service.company(seats=3)
    assert results(await company.change(company.owner.headers, add=[new_email()])) == [
        ("add", "applied", None)
    ]
    before, writes = await company.members(), len(await service.stripe.requests(method="POST"))
    refused = await company.change(company.owner.headers, add=[new_email(), new_email()])
    document = problem(refused, 409, "seat_limit_reached")
    assert {name: document[name] for name in ("total", "used", "required")} == {
        "total": 3,
        "used": 3,
        "required": 5,
    }
    assert [(r["outcome"], r["code"], r["total"], r["used"], r["required"]) for r in document["results"]] == [
        ("refused", "seat_limit_reached", 3, 3, 5)
    ] * 2
    assert (document["state"], document["payment"]) == ("settled", None)
    assert document["seats"] == await company.seats()
    assert await company.members() == before
    assert len(await service.stripe.requests(method="POST")) == writes
    operation = await service.get(f"/v1/operations/{document['operation_id']}", company.owner.headers)
    assert operation.json()["state"] == "settled"


async def test_removals_of_the_same_call_free_seats(service: Service) -> None:
    company = await service.company(seats=2)
    user, email = company.user.customer_id, new_email()
    swapped = await company.change(company.owner.headers, add=[email], remove=[user])
    assert results(swapped) == [("add", "applied", None), ("remove", "applied", None)]
    assert user not in await company.members() and email in await company.member_emails()


async def test_adds_that_do_not_all_fit_are_all_refused_while_the_rest_runs(service: Service) -> None:
    company = await service.company(seats=3, users=2)
    first, second = (user.customer_id for user in company.users)
    response = await company.change(
        company.owner.headers,
        add=[new_email(), new_email(), company.manager.email],
        remove=[first],
        update=[{"customer_id": second, "role": "manager"}],
    )
    assert results(response) == [
        ("add", "refused", "seat_limit_reached"),
        ("add", "refused", "seat_limit_reached"),
        ("add", "refused", "already_member"),
        ("remove", "applied", None),
        ("update", "applied", None),
    ]
    figures = response.json()["results"][0]
    assert (figures["total"], figures["used"], figures["required"]) == (3, 3, 4)
    assert await company.members() == {company.manager.customer_id: "manager", second: "manager"}
    assert response.json()["seats"]["available"] == 1


async def test_over_allocation_by_hand_refuses_adds_only(service: Service) -> None:
    company = await service.company(seats=3, users=2)
    item = (await company.state())["items"]["data"][0]["id"]
    await service.stripe.post(f"/v1/subscription_items/{item}", quantity=1)
    await service.refresh("subscription", company.subscription_id)
    seats = (await service.get(company.path, company.owner.headers)).json()["subscription"]["shared"]["seats"]
    assert seats == {"total": 1, "used": 3, "reserved": 0, "available": 0, "over_allocated": 2}
    swap = await company.change(company.owner.headers, add=[new_email()], remove=[company.user.customer_id])
    assert results(swap) == [("add", "refused", "seat_limit_reached"), ("remove", "applied", None)]
    changed = await company.change(
        company.owner.headers, update=[{"customer_id": company.users[1].customer_id, "role": "manager"}]
    )
    assert results(changed) == [("update", "applied", None)]


async def test_an_owner_counts_where_the_product_says_so(service: Service) -> None:
    company = await service.company(seats=3)
    product = await service.stripe.get(f"/v1/products/{company.product_id}")
    said = {**product, "metadata": {**product["metadata"], OWNER_USES_SEAT: "true"}}
    assert (
        await service.deliver(event_of("product.updated", said, created=int(time.time()) + 60))
    ).is_success
    problem(await company.change(company.owner.headers, add=[new_email()]), 409, "seat_limit_reached")
    async with running_service(service.stripe, service.database_url, OWNER_USES_SEAT="true") as counting:
        plain = await service.company(seats=3)
        refused = await counting.send(
            "PATCH", f"{plain.path}/users", plain.owner.headers, {"add": [{"email": new_email()}]}
        )
        problem(refused, 409, "seat_limit_reached")
    assert results(await plain.change(plain.owner.headers, add=[new_email()])) == [("add", "applied", None)]


async def test_a_present_member_is_unchanged_or_in_another_role_refused(service: Service) -> None:
    company = await service.company()
    writes = len(await service.stripe.requests(method="POST"))
    same = await company.change(company.owner.headers, add=[company.user.email.upper()])
    assert results(same) == [("add", "unchanged", None)]
    assert same.json()["results"][0]["customer_id"] == company.user.customer_id
    other = await company.change(
        company.owner.headers, add=[{"email": company.user.email, "role": "manager"}]
    )
    problem(other, 409, "already_member")
    owner = await company.change(company.owner.headers, add=[company.owner.email])
    problem(owner, 409, "already_member")
    assert len(await service.stripe.requests(method="POST")) == writes


async def test_member_elsewhere_is_told_to_service_keys_alone(guides: Service) -> None:
    service = guides
    company, other = await service.company(), await service.company()
    for who, code in (
        (company.owner.headers, "cannot_be_added"),
        (as_service("admin", acting_for=company.owner.customer_id), "cannot_be_added"),
        (as_service("write"), "member_elsewhere"),
    ):
        document = problem(await company.change(who, add=[other.user.email]), 409, code)
        assert [r["code"] for r in document["results"]] == [code]
        shown = document["results"][0]["customer_id"]
        assert shown == (other.user.customer_id if code == "member_elsewhere" else None)
        operation = f"/v1/operations/{document['operation_id']}"
        if code != "member_elsewhere":
            assert other.user.customer_id not in str(document)
            assert other.subscription_id not in str(document)
        later = (await service.get(operation, who)).json()["results"]
        assert [(row["customer_id"], row["code"]) for row in later] == [(shown, code)]
    assert other.user.customer_id in await other.members()


def test_every_metadata_key_is_short_enough_for_stripe() -> None:
    keys = [
        value
        for name, value in vars(metadata).items()
        if name[0].isalpha() and name.isupper() and value.startswith("billing_")
    ]
    assert len(keys) == 9 and [key for key in keys if len(key) > 40] == []
    longest = SubscriptionId(f"sub_{'1' * 28}")
    assert len(metadata.further_key(longest) or "") == 40
    assert metadata.further_key(SubscriptionId(f"{longest}1")) is None


async def test_a_membership_of_an_ended_subscription_stands_in_nobodys_way(service: Service) -> None:
    company, ended = await service.company(), await service.company()
    await service.stripe.delete(f"/v1/subscriptions/{ended.subscription_id}")
    await service.refresh("subscription", ended.subscription_id)
    moved = await company.change(company.owner.headers, add=[ended.user.email])
    assert results(moved) == [("add", "applied", None)]
    assert ended.user.customer_id in await company.members()


async def test_an_ambiguous_email_adds_nobody(service: Service) -> None:
    """Two logins whose customers the operator made have one address, and neither has verified it."""
    company, email = await service.company(), new_email("twin")
    for _ in range(2):
        subject = f"twin-{secrets.token_hex(5)}"
        twin = await service.stripe.post("/v1/customers", email=email, metadata={"billing_user_id": subject})
        await service.refresh("customer", twin["id"])
        assert (await service.get("/v1/customers/me", as_user(subject))).status_code == 200
    before = await company.members()
    document = problem(await company.change(company.owner.headers, add=[email]), 409, "ambiguous_email")
    assert document["results"][0]["customer_id"] is None
    assert await company.members() == before


async def test_an_email_of_several_customers_without_a_login_adds_a_new_one(service: Service) -> None:
    """Nobody can say whose address it is, so none of these customers gets the seat."""
    company, email = await service.company(), new_email("twin")
    twins = set()
    for _ in range(2):
        twin = await service.stripe.post("/v1/customers", email=email)
        await service.refresh("customer", twin["id"])
        twins.add(twin["id"])
    added = await company.change(company.owner.headers, add=[email])
    assert results(added) == [("add", "applied", None)]
    assert added.json()["results"][0]["customer_id"] not in twins
    assert twins.isdisjoint(await company.members())


async def test_the_owner_is_nobodys_member(service: Service) -> None:
    company = await service.company()
    owner = company.owner.customer_id
    problem(await company.change(company.owner.headers, remove=[owner]), 409, "owner_cannot_leave")
    problem(
        await company.change(company.owner.headers, update=[{"customer_id": owner, "role": "user"}]),
        409,
        "owner_cannot_leave",
    )
    problem(await company.change(company.manager.headers, remove=[owner]), 409, "owner_cannot_leave")
    assert owner not in await company.members()


async def test_whoever_is_no_member_is_not_found_alike(service: Service) -> None:
    company, other = await service.company(), await service.company()
    told = []
    for customer_id in (company.stranger.customer_id, other.user.customer_id, "cus_absent000000"):
        for change in (
            {"remove": [customer_id]},
            {"update": [{"customer_id": customer_id, "role": "user"}]},
            {"add": [customer_id]},
        ):
            document = problem(await company.change(company.owner.headers, **change), 409, "not_found")
            row = document["results"][0]
            told.append(
                {**row, "customer_id": row["customer_id"] == customer_id, "action": None, "role": None}
            )
    assert all(row == told[0] for row in told)
    assert company.stranger.customer_id not in await company.members()
    assert other.user.customer_id in await other.members()


async def test_a_service_key_adds_by_id(service: Service) -> None:
    company = await service.company()
    added = await company.change(as_service("write"), add=[company.stranger.customer_id])
    assert results(added) == [("add", "applied", None)]
    assert (await company.members())[company.stranger.customer_id] == "user"


async def test_a_former_member_comes_back_by_id_and_removing_twice_is_unchanged(service: Service) -> None:
    company = await service.company()
    user = company.user.customer_id
    assert results(await company.change(company.owner.headers, remove=[user])) == [
        ("remove", "applied", None)
    ]
    assert results(await company.change(company.owner.headers, remove=[user])) == [
        ("remove", "unchanged", None)
    ]
    back = await company.change(company.manager.headers, add=[user])
    assert results(back) == [("add", "applied", None)]
    assert user in await company.members()


async def test_adding_removing_and_adding_again_are_three_effects(service: Service) -> None:
    company = await service.company()
    person = company.stranger
    for _ in range(2):
        assert results(await company.change(company.owner.headers, add=[person.email])) == [
            ("add", "applied", None)
        ]
        assert person.customer_id in await company.members()
        assert results(await company.change(company.owner.headers, remove=[person.customer_id])) == [
            ("remove", "applied", None)
        ]
        assert person.customer_id not in await company.members()
    writes = await service.stripe.requests(method="POST", path=f"/v1/customers/{person.customer_id}")
    assert len(writes) == 4
    assert len({write["idempotency_key"] for write in writes}) == 4


async def test_a_product_that_is_not_shareable_takes_nobody(service: Service) -> None:
    company = await service.company(shareable=False)
    problem(await company.change(company.owner.headers, add=[new_email()]), 409, "not_shareable")
    flagless = await service.company()
    await service.stripe.post(
        f"/v1/products/{flagless.product_id}", metadata={"billing_supports_shared_subscriptions": ""}
    )
    await service.refresh("product", flagless.product_id)
    problem(await flagless.change(flagless.owner.headers, add=[new_email()]), 409, "not_shareable")
    removed = await flagless.change(flagless.owner.headers, remove=[flagless.user.customer_id])
    assert results(removed) == [("remove", "applied", None)]


OPEN = {"active": (True, True), "trialing": (True, True), "past_due": (False, True)}
STATUSES = [*OPEN, "incomplete", "unpaid", "paused", "canceled", "incomplete_expired", "a_status_of_tomorrow"]


@pytest.mark.parametrize("status", STATUSES)
async def test_what_each_status_allows(service: Service, status: str) -> None:
    """M16: what reduces is never refused for a status. Removing and lowering a role were 409, also for admin keys."""
    adds, raises = OPEN.get(status, (False, False))
    company = await service.company(users=3)
    leaving, staying, user = company.users
    before = await company.members()
    sender = company.owner.headers
    now = 0

    async def told_again() -> None:
        # The run of an accepted change reads the subscription again, so the status is reported once more.
        nonlocal now
        now += 120
        await service.deliver_state("subscription", {**await company.state(), "status": status}, later=now)

    await told_again()
    added = await company.change(sender, add=[new_email()])
    if adds:
        assert results(added) == [("add", "applied", None)]
        await told_again()
    else:
        problem(added, 409, "subscription_not_active")
        assert await company.members() == before
    raised = await company.change(sender, update=[{"customer_id": staying.customer_id, "role": "manager"}])
    if raises:
        assert results(raised) == [("update", "applied", None)]
        await told_again()
    else:
        problem(raised, 409, "subscription_not_active")
        assert await company.members() == before
    lowered = [{"customer_id": company.manager.customer_id, "role": "user"}]
    assert results(await company.change(sender, update=lowered)) == [("update", "applied", None)]
    await told_again()
    removed = await company.change(as_service("admin"), remove=[user.customer_id])
    assert results(removed) == [("remove", "applied", None)]
    await told_again()
    left = await service.send("DELETE", f"{company.path}/users/me", leaving.headers)
    assert results(left) == [("remove", "applied", None)]
    members = await company.members()
    assert (members[company.manager.customer_id], members.get(user.customer_id)) == ("user", None)
    assert leaving.customer_id not in members


async def test_past_due_takes_new_seats_where_the_setting_says_so(service: Service) -> None:
    company, email = await service.company(), new_email()
    await service.stripe.settings(dunning={"retry_days": [3, 5]})
    await company.set_status("past_due")
    async with running_service(
        service.stripe, service.database_url, PAST_DUE_ALLOWS_NEW_SEATS="true"
    ) as lenient:
        added = await lenient.send(
            "PATCH", f"{company.path}/users", company.owner.headers, {"add": [{"email": email}]}
        )
    assert results(added) == [("add", "applied", None)]
    assert email in await company.member_emails()


async def test_an_email_is_one_whatever_its_case(service: Service) -> None:
    company, email = await service.company(), new_email("Mixed.Case")
    added = await company.change(company.owner.headers, add=[email.upper()])
    assert results(added) == [("add", "applied", None)]
    again = await company.change(company.owner.headers, add=[email.lower()])
    assert results(again) == [("add", "unchanged", None)]
    customers = await service.stripe.state("customer")
    assert [(c.get("email") or "").lower() for c in customers].count(email.lower()) == 1


async def test_an_added_persons_name_is_not_shown_before_his_login(service: Service) -> None:
    company = await service.company()
    person = company.stranger
    await company.change(company.owner.headers, add=[person.email.upper()])
    shown = (await users_shown(company))[person.customer_id]
    assert (shown["email"], shown["name"]) == (person.email.upper(), None)
    by_name = await service.get(f"{company.path}/users", company.owner.headers, search="stranger known")
    assert by_name.json()["total_count"] == 0
    assert (await service.get("/v1/customers/me", person.headers)).status_code == 200
    await service.move_seats()
    shown = (await users_shown(company))[person.customer_id]
    assert (shown["email"], shown["name"]) == (person.email, person.name)


async def test_a_strangers_customer_id_is_never_told(service: Service) -> None:
    company = await service.company(seats=2)
    document = problem(
        await company.change(company.owner.headers, add=[company.stranger.email]), 409, "seat_limit_reached"
    )
    assert company.stranger.customer_id not in str(document)
    await company.set_status("unpaid")
    refused = await company.change(company.owner.headers, add=[company.stranger.email])
    assert company.stranger.customer_id not in refused.text
    operation = await service.get(f"/v1/operations/{refused.json()['operation_id']}", company.owner.headers)
    assert operation.status_code == 200 and company.stranger.customer_id not in operation.text


async def test_a_customer_who_is_gone_at_stripe_is_no_member(service: Service) -> None:
    company = await service.company()
    await service.stripe.delete(f"/v1/customers/{company.stranger.customer_id}")
    response = await company.change(as_service("write"), add=[company.stranger.customer_id])
    problem(response, 409, "not_found")
    await service.stripe.delete(f"/v1/customers/{company.user.customer_id}")
    removed = await company.change(company.owner.headers, remove=[company.user.customer_id])
    assert results(removed) == [("remove", "applied", None)]
    seats = (await service.get(company.path, company.owner.headers)).json()["subscription"]["shared"]["seats"]
    assert seats["used"] == 1


async def test_a_manager_demoted_at_stripe_can_do_nothing_although_the_cache_is_behind(
    service: Service,
) -> None:
    company = await service.company()
    await service.stripe.post(
        f"/v1/customers/{company.manager.customer_id}",
        metadata={"billing_shared_subscription_role": "user"},
    )
    before = await company.members()
    response = await company.change(
        company.manager.headers, add=[new_email()], remove=[company.user.customer_id]
    )
    problem(response, 409, "role_required")
    assert await company.members() == before


@pytest.fixture
async def guides(service: Service) -> AsyncIterator[Service]:
    """The same account and database, with the guide's own rule: one membership a person."""
    async with running_service(service.stripe, service.database_url, MEMBERSHIPS_PER_CUSTOMER="1") as running:
        yield running


async def test_a_member_who_went_elsewhere_meanwhile_is_not_taken(guides: Service) -> None:
    service = guides
    company, other = await service.company(), await service.company()
    person = company.stranger
    await service.stripe.post(
        f"/v1/customers/{person.customer_id}",
        metadata={
            "billing_shared_subscription_id": other.subscription_id,
            "billing_shared_subscription_role": "user",
        },
    )
    problem(await company.change(company.owner.headers, add=[person.email]), 409, "cannot_be_added")
    assert person.customer_id in await other.members()
    seats = (await service.get(company.path, company.owner.headers)).json()["subscription"]["shared"]["seats"]
    assert seats["reserved"] == 0 and seats["used"] == 2


async def test_metadata_of_others_is_left_alone(service: Service) -> None:
    company = await service.company()
    await service.stripe.post(
        f"/v1/customers/{company.stranger.customer_id}", metadata={"crm": "  kept as it is "}
    )
    await company.change(company.owner.headers, add=[company.stranger.email])
    await company.change(company.owner.headers, remove=[company.stranger.customer_id])
    found = await service.stripe.get(f"/v1/customers/{company.stranger.customer_id}")
    assert found["metadata"] == {"crm": "  kept as it is ", "billing_user_id": company.stranger.subject}


async def test_an_item_without_quantity_gives_no_seats_and_items_add_up(service: Service) -> None:
    company = await service.company(seats=2)
    second = await service.stripe.post(
        "/v1/prices",
        product=company.product_id,
        currency="usd",
        unit_amount=100,
        recurring={"interval": "month"},
    )
    await service.refresh("price", second["id"])
    await service.stripe.post(
        "/v1/subscription_items", subscription=company.subscription_id, price=second["id"], quantity=3
    )
    await service.refresh("subscription", company.subscription_id)
    added = await company.change(company.owner.headers, add=[new_email() for _ in range(3)])
    assert results(added) == [("add", "applied", None)] * 3
    assert added.json()["seats"]["total"] == 5


async def test_one_person_named_twice_is_refused_before_anything(service: Service) -> None:
    company = await service.company()
    user = company.user
    before = await service.row_counts()
    for twice, pointer in (
        ({"add": ["A@example.com", "a@example.com"]}, "/add/1"),
        ({"add": [user.email], "remove": [user.customer_id]}, "/remove/0"),
        ({"remove": [user.customer_id, user.customer_id]}, "/remove/1"),
        (
            {"remove": [user.customer_id], "update": [{"customer_id": user.customer_id, "role": "user"}]},
            "/update/0",
        ),
    ):
        document = problem(await company.change(company.owner.headers, **twice), 422, "invalid_request")
        assert pointers(document) == [pointer]
    assert await service.row_counts() == before | {"identities": before["identities"] + 1}


async def test_a_hundred_people_in_one_call(service: Service) -> None:
    company = await service.company(seats=102)
    response = await company.change(company.owner.headers, add=[new_email() for _ in range(100)])
    response = await service.settled(response.json()["operation_id"], company.owner.headers)
    assert results(response) == [("add", "applied", None)] * 100
    assert len(await company.members()) == 102


async def test_outcomes_are_hidden_from_whom_they_do_not_concern(service: Service) -> None:
    company = await service.company()
    made = await company.change(company.owner.headers, add=[new_email()])
    operation = f"/v1/operations/{made.json()['operation_id']}"
    for who in (company.manager.headers, company.stranger.headers, as_user()):
        problem(await service.get(operation, who), 404, "not_found")
    problem(await service.get(operation), 401, "unauthenticated")
    for who in (company.owner.headers, as_service("read")):
        shown = await service.get(operation, who)
        assert shown.json()["results"] == made.json()["results"]


async def test_a_late_event_of_before_the_change_does_not_undo_it(service: Service) -> None:
    company = await service.company()
    person = company.stranger
    before = await service.stripe.get(f"/v1/customers/{person.customer_id}")
    await company.change(company.owner.headers, add=[person.email])
    late = event_of("customer.updated", before)
    assert (await service.deliver(late)).status_code == 200
    assert person.customer_id in await users_shown(company)


async def test_terms_are_taken_from_an_admin_key(service: Service) -> None:
    company = await service.company()
    response = await company.change(
        as_service("admin"), remove=[company.user.customer_id], proration_behavior="none"
    )
    assert results(response) == [("remove", "applied", None)]


async def test_a_slow_change_is_answered_202_and_settles_later(service: Service) -> None:
    company, email = await service.company(seats=3), new_email("slow")
    body = {"add": [{"email": email}]}
    path = f"{company.path}/users"
    async with running_service(service.stripe, service.database_url, OPERATION_DEADLINE="1") as hasty:
        await service.stripe.add_fault(method="POST", path="/v1/customers", latency_s=2.5)
        accepted = await hasty.send("PATCH", path, company.owner.headers, body)
        assert results(accepted, 202) == [("add", "pending", None)]
        answer = accepted.json()
        assert accepted.headers["location"] == f"/v1/operations/{answer['operation_id']}"
        assert int(accepted.headers["retry-after"]) >= 1
        assert answer["state"] == "running" and answer["results"][0]["customer_id"] is None
        assert (answer["seats"]["used"], answer["seats"]["reserved"], answer["seats"]["available"]) == (
            2,
            1,
            0,
        )
        pending = (await hasty.get(path, company.owner.headers)).json()
        assert [(row["email"], row["state"]) for row in pending["data"] if row["state"] == "pending"] == [
            (email, "pending")
        ]
        # The seat is promised: nobody else gets it, and the same person not twice.
        other = await hasty.send("PATCH", path, company.owner.headers, {"add": [{"email": new_email()}]})
        assert problem(other, 409, "seat_limit_reached")["required"] == 4
        twice = await hasty.send("PATCH", path, company.manager.headers, body)
        problem(twice, 409, "operation_in_progress")
        settled = await hasty.settled(answer["operation_id"], company.owner.headers)
        assert results(settled) == [("add", "applied", None)]
        assert settled.json()["seats"]["reserved"] == 0
    assert settled.json()["results"][0]["customer_id"] in await company.members()


async def test_what_stripe_refuses_has_failed_and_gives_its_seat_back(service: Service) -> None:
    company = await service.company(seats=3)
    await service.stripe.add_fault(method="POST", path="/v1/customers", status=400)
    response = await company.change(company.owner.headers, add=[new_email()])
    assert results(response) == [("add", "failed", "stripe_rejected")]
    assert response.json()["state"] == "settled" and response.json()["seats"]["available"] == 1
    again = await company.change(company.owner.headers, add=[new_email()])
    assert results(again) == [("add", "applied", None)]


async def test_the_list_of_people_is_not_asked_for_a_role_that_nobody_on_it_has(service: Service) -> None:
    company = await service.company()
    path, who = f"{company.path}/users", company.owner.headers
    refused = problem(await service.get(path, who, role="payer"), 422, "invalid_request")
    assert pointers(refused) == ["query/role"]
    for role in ("owner", "manager", "user"):
        people = (await service.get(path, who, role=role)).json()["data"]
        assert {person["role"] for person in people} == {role}
