"""Every read by every role: what is shown, and what is as if it were not there."""

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import Any

import pytest

from app.http import cursors
from app.identity.principals import EndUser
from testkit.company import Company, Service, Who, event_of, new_email
from testkit.problems import indistinguishable, pointers, problem
from testkit.service import ISSUER, as_service, as_user


@pytest.fixture(scope="module")
async def team(service: Service) -> Company:
    """Owner and payer are two people; the cache is what the first fill made of the account."""
    company = await service.company(seats=6, users=2, payer_is_owner=False)
    await service.fill()
    return company


ROLES = ("owner", "manager", "user", "payer", "stranger")
KEYS = {scope: as_service(scope) for scope in ("read", "write", "admin")}


def credentials(company: Company) -> dict[str, Who]:
    people = {role: getattr(company, role) for role in ROLES}
    acting = {
        f"for_{role}": as_service("read", acting_for=person.customer_id) for role, person in people.items()
    }
    own = {role: person.headers for role, person in people.items()}
    return {**own, **acting, **KEYS, "anonymous": None}


OK, GONE, ROLE, ANONYMOUS, UNNAMED = (
    (200, ""),
    (404, "not_found"),
    (403, "role_required"),
    (401, "unauthenticated"),
    (422, "invalid_request"),
)


def rights(
    owner: Any, manager: Any, user: Any, payer: Any, stranger: Any, keys: Any, anonymous: Any
) -> dict[str, Any]:
    """One row of the table; a key that acts for somebody may what that person may."""
    people = dict(zip(ROLES, (owner, manager, user, payer, stranger), strict=True))
    acting = {f"for_{role}": expected for role, expected in people.items()}
    return {**people, **acting, **dict.fromkeys(KEYS, keys), "anonymous": anonymous}


TABLE = {
    "/v1/products": rights(OK, OK, OK, OK, OK, OK, OK),
    "/v1/subscriptions/{sub}": rights(OK, OK, OK, OK, GONE, OK, ANONYMOUS),
    "/v1/shared-subscriptions/{sub}": rights(OK, OK, OK, OK, GONE, OK, ANONYMOUS),
    "/v1/shared-subscriptions/{sub}/users": rights(OK, OK, OK, ROLE, GONE, OK, ANONYMOUS),
    "/v1/invoices/{invoice}": rights(OK, OK, GONE, OK, GONE, OK, ANONYMOUS),
    "/v1/customers/{owner}": rights(OK, GONE, GONE, GONE, GONE, OK, ANONYMOUS),
    "/v1/customers/{owner}/subscriptions": rights(OK, GONE, GONE, GONE, GONE, OK, ANONYMOUS),
    "/v1/customers/{user}/payment-methods": rights(GONE, GONE, OK, GONE, GONE, OK, ANONYMOUS),
    "/v1/customers/{payer}/invoices": rights(GONE, GONE, GONE, OK, GONE, OK, ANONYMOUS),
    "/v1/customers/me": rights(OK, OK, OK, OK, OK, UNNAMED, ANONYMOUS),
    "/v1/customers/me/subscriptions": rights(OK, OK, OK, OK, OK, UNNAMED, ANONYMOUS),
    "/v1/customers/me/payment-methods": rights(OK, OK, OK, OK, OK, UNNAMED, ANONYMOUS),
    "/v1/customers/me/invoices": rights(OK, OK, OK, OK, OK, UNNAMED, ANONYMOUS),
}


@pytest.mark.parametrize("template", TABLE)
async def test_who_may_read_what(service: Service, team: Company, template: str) -> None:
    path = template.format(
        sub=team.subscription_id,
        invoice=team.invoice_id,
        owner=team.owner.customer_id,
        user=team.user.customer_id,
        payer=team.payer.customer_id,
    )
    wrong = []
    for name, who in credentials(team).items():
        response = await service.get(path, who)
        code = "" if response.is_success else response.json()["code"]
        if (response.status_code, code) != TABLE[template][name]:
            wrong.append((name, response.status_code, code))
        if not response.is_success:
            problem(response, response.status_code, code)
    assert wrong == []


async def test_amounts_are_hidden_from_users_alone(service: Service, team: Company) -> None:
    for prefix in ("/v1/subscriptions", "/v1/shared-subscriptions"):
        for name, who in credentials(team).items():
            if name in ("stranger", "for_stranger", "anonymous"):
                continue
            shown = (await service.get(f"{prefix}/{team.subscription_id}", who)).json()["subscription"]
            role = name.removeprefix("for_")
            hidden = role == "user"
            assert shown["role"] == (role if role in ROLES else None)
            price = shown["items"][0]["price"]
            assert (price["unit_amount"], price["unit_amount_decimal"]) == (
                (None, None) if hidden else (1200, "1200")
            )
            assert shown["latest_invoice_id"] == (None if hidden else team.invoice_id)
            assert shown["items"][0]["quantity"] == 6
            assert shown["shared"]["owner"] == {
                "customer_id": team.owner.customer_id,
                "email": team.owner.email,
                "name": team.owner.name,
            }
            assert shown["shared"]["seats"] == {
                "total": 6,
                "used": 3,
                "reserved": 0,
                "available": 3,
                "over_allocated": 0,
            }


async def test_invoice_links_and_payment_method_are_hidden_from_managers(service: Service) -> None:
    company = await service.company(payer_is_owner=False)
    subscription_id, method = company.subscription_id, company.payment_method_id
    await service.stripe.post(f"/v1/subscriptions/{subscription_id}", default_payment_method=method)
    await service.refresh("subscription", subscription_id)
    for name, who in credentials(company).items():
        role = name.removeprefix("for_")
        if role in ("stranger", "user", "anonymous"):
            continue
        answer = await service.get(f"/v1/invoices/{company.invoice_id}", who)
        invoice = answer.json()["invoice"]
        links = (invoice["hosted_invoice_url"], invoice["invoice_pdf"])
        hidden = role == "manager"
        assert (links == (None, None)) if hidden else all(links), name
        assert (invoice["total"], len(invoice["lines"])) == (6000, 1)
        for prefix in ("/v1/subscriptions", "/v1/shared-subscriptions"):
            shown = (await service.get(f"{prefix}/{subscription_id}", who)).json()["subscription"]
            assert shown["default_payment_method_id"] == (None if hidden else method), name
        if role in ROLES:
            listed = await service.get("/v1/customers/me/subscriptions", who)
            [shown] = listed.json()["data"]
            assert shown["default_payment_method_id"] == (None if hidden else method), name


async def test_invoice_links_and_payment_method_are_shown_when_the_manager_pays(service: Service) -> None:
    company = await service.company(payer_is_owner=False)
    subscription_id, method = company.subscription_id, company.payment_method_id
    await service.stripe.post(f"/v1/subscriptions/{subscription_id}", default_payment_method=method)
    await service.stripe.post(
        f"/v1/customers/{company.payer.customer_id}",
        metadata={
            "billing_shared_subscription_id": subscription_id,
            "billing_shared_subscription_role": "manager",
        },
    )
    await service.refresh("subscription", subscription_id)
    await service.refresh("customer", company.payer.customer_id)
    who = company.payer.headers
    shown = (await service.get(company.path, who)).json()["subscription"]
    assert (shown["role"], shown["default_payment_method_id"]) == ("manager", method)
    invoice = (await service.get(f"/v1/invoices/{company.invoice_id}", who)).json()["invoice"]
    assert invoice["hosted_invoice_url"] and invoice["invoice_pdf"]


async def test_absent_and_foreign_ids_cannot_be_told_apart(service: Service, team: Company) -> None:
    for who in (team.stranger.headers, as_service("admin", acting_for=team.stranger.customer_id)):
        for foreign, absent in (
            (f"/v1/subscriptions/{team.subscription_id}", "/v1/subscriptions/sub_absent00000"),
            (team.path, "/v1/shared-subscriptions/sub_absent00000"),
            (f"{team.path}/users", "/v1/shared-subscriptions/sub_absent00000/users"),
            (f"/v1/invoices/{team.invoice_id}", "/v1/invoices/in_absent00000"),
            (f"/v1/customers/{team.owner.customer_id}", "/v1/customers/cus_absent00000"),
            (
                f"/v1/customers/{team.owner.customer_id}/subscriptions",
                "/v1/customers/cus_absent00000/subscriptions",
            ),
            (
                f"/v1/customers/{team.owner.customer_id}/payment-methods",
                "/v1/customers/cus_absent00000/payment-methods",
            ),
            (
                f"/v1/customers/{team.owner.customer_id}/invoices",
                "/v1/customers/cus_absent00000/invoices",
            ),
        ):
            one, other = await service.get(foreign, who), await service.get(absent, who)
            problem(one, 404, "not_found")
            assert indistinguishable(one, other), (foreign, one.text, other.text)
    body = {"remove": [team.user.customer_id]}
    one = await service.send("PATCH", f"{team.path}/users", team.stranger.headers, body)
    other = await service.send(
        "PATCH", "/v1/shared-subscriptions/sub_absent00000/users", team.stranger.headers, body
    )
    problem(one, 404, "not_found")
    assert indistinguishable(one, other)


async def test_absent_ids_are_not_found_by_keys_either(service: Service, team: Company) -> None:
    for path in (
        "/v1/subscriptions/sub_absent00000",
        "/v1/shared-subscriptions/sub_absent00000/users",
        "/v1/invoices/in_absent00000",
        "/v1/customers/cus_absent00000",
        "/v1/customers/cus_absent00000/subscriptions",
        "/v1/customers/cus_absent00000/payment-methods",
        "/v1/customers/cus_absent00000/invoices",
    ):
        for who in (as_service("admin"), as_service("admin", acting_for="cus_absent00000")):
            problem(await service.get(path, who), 404, "not_found")


async def test_a_login_without_customer_is_told_so_only_about_itself(service: Service, team: Company) -> None:
    nobody = as_user()
    for part in ("", "/subscriptions", "/payment-methods", "/invoices"):
        problem(await service.get(f"/v1/customers/me{part}", nobody), 404, "customer_not_linked")
    for path in (team.path, f"{team.path}/users", f"/v1/invoices/{team.invoice_id}"):
        problem(await service.get(path, nobody), 404, "not_found")


async def test_reading_keys_write_nothing(service: Service, team: Company) -> None:
    before = await team.members()
    for who in (as_service("read"), as_service("read", acting_for=team.owner.customer_id)):
        problem(await team.change(who, remove=[team.user.customer_id]), 403, "scope_required")
        problem(await service.send("POST", "/v1/customers", who, {"user_id": "x"}), 403, "scope_required")
    assert await team.members() == before


async def test_a_customers_subscriptions_with_role_and_status(service: Service, team: Company) -> None:
    async def listed(who: Who, customer: str = "me", **query: Any) -> list[tuple[str, str | None]]:
        response = await service.get(f"/v1/customers/{customer}/subscriptions", who, **query)
        assert response.status_code == 200, response.text
        assert response.json()["has_more"] is False and response.json()["next_cursor"] is None
        return [(row["id"], row["role"]) for row in response.json()["data"]]

    for role in ("owner", "manager", "user", "payer"):
        person = getattr(team, role)
        expected = [(team.subscription_id, role)]
        assert await listed(person.headers) == expected
        assert await listed(as_service("read"), person.customer_id) == expected
        assert await listed(person.headers, role=role) == expected
        assert await listed(person.headers, role="payer" if role != "payer" else "user") == []
        assert await listed(person.headers, status="active") == expected
        assert await listed(person.headers, status=["canceled", "active"]) == expected
        assert await listed(person.headers, status="canceled") == []
    assert await listed(team.stranger.headers) == []
    users = await service.get("/v1/customers/me/subscriptions", team.user.headers)
    assert users.json()["data"][0]["items"][0]["price"]["unit_amount"] is None
    # Answered from the customer's view: a key that asks about a user sees what that user sees.
    asked = await service.get(f"/v1/customers/{team.user.customer_id}/subscriptions", as_service("read"))
    assert asked.json()["data"][0]["role"] == "user"


async def test_the_owner_comes_first_and_a_user_sees_himself_and_the_owner(
    service: Service, team: Company
) -> None:
    expected = {team.manager.customer_id, *(user.customer_id for user in team.users)}
    for who in (team.owner.headers, team.manager.headers, as_service("read")):
        body = (await service.get(f"{team.path}/users", who)).json()
        rows = body["data"]
        assert rows[0] == {
            "customer_id": team.owner.customer_id,
            "email": team.owner.email,
            "name": team.owner.name,
            "role": "owner",
            "state": "active",
            "since": None,
            "invitation_id": None,
        }
        assert {row["customer_id"] for row in rows[1:]} == expected
        assert body["total_count"] == 4 and body["has_more"] is False
        assert body["seats"]["used"] == 3
    body = (await service.get(f"{team.path}/users", team.user.headers)).json()
    assert [(row["customer_id"], row["role"]) for row in body["data"]] == [
        (team.owner.customer_id, "owner"),
        (team.user.customer_id, "user"),
    ]
    assert body["total_count"] == 2
    assert team.manager.email not in str(body) and team.users[1].email not in str(body)


async def test_search_and_role_filter_the_people(service: Service, team: Company) -> None:
    async def found(who: Who, **query: Any) -> list[str]:
        response = await service.get(f"{team.path}/users", who, **query)
        assert response.status_code == 200, response.text
        assert response.json()["total_count"] == len(response.json()["data"])
        return [row["customer_id"] for row in response.json()["data"]]

    owner, manager = team.owner, team.manager
    users = sorted(user.customer_id for user in team.users)
    assert await found(owner.headers, search=manager.email.upper()) == [manager.customer_id]
    assert await found(owner.headers, search="Owner K") == [owner.customer_id]
    assert await found(owner.headers, search=" user. ") == users
    for nothing in ("%", "_", "'", "\\", "cus_", "' or 1=1 --"):
        assert await found(owner.headers, search=nothing) == [], nothing
    assert await found(owner.headers, search="\x00") == await found(owner.headers)
    assert await found(owner.headers, role="manager") == [manager.customer_id]
    assert await found(owner.headers, role="owner") == [owner.customer_id]
    assert await found(owner.headers, role="user") == users
    assert await found(owner.headers, role="user", search=team.users[1].email) == [team.users[1].customer_id]
    assert await found(team.user.headers, search=team.users[1].email) == []
    problem(await service.get(f"{team.path}/users", owner.headers, role="admin"), 422, "invalid_request")


async def pages(service: Service, path: str, who: Who, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        # A query's None would be sent as an empty cursor.
        asked = query if cursor is None else {**query, "cursor": cursor}
        body = (await service.get(path, who, **asked)).json()
        assert len(body["data"]) <= query["limit"]
        assert body["has_more"] is (body["next_cursor"] is not None)
        found.append(body)
        cursor = body["next_cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
async def test_people_page_by_page_are_everybody_once(service: Service, team: Company, limit: int) -> None:
    found = await pages(service, f"{team.path}/users", team.owner.headers, limit=limit)
    ids = [row["customer_id"] for page in found for row in page["data"]]
    assert ids[0] == team.owner.customer_id
    assert len(ids) == len(set(ids)) == 4
    assert {page["total_count"] for page in found} == {4}


@pytest.fixture(scope="module")
async def collector(service: Service, team: Company) -> tuple[Company, list[str]]:
    """A customer with five subscriptions, newest first."""
    company = await service.company(seats=1)
    ids = [company.subscription_id]
    for _ in range(4):
        made = await service.stripe.post(
            "/v1/subscriptions",
            customer=company.owner.customer_id,
            items=[{"price": company.price_id, "quantity": 1}],
            metadata={"billing_shared_subscription_owner": company.owner.customer_id},
        )
        await service.refresh("subscription", made["id"])
        await service.refresh("invoice", made["latest_invoice"])
        ids.append(made["id"])
    return company, ids


@pytest.mark.parametrize("part", ["subscriptions", "invoices"])
async def test_a_customers_lists_page_by_page(
    service: Service, collector: tuple[Company, list[str]], part: str
) -> None:
    company, ids = collector
    path = f"/v1/customers/me/{part}"
    for limit in (1, 2, 5, 20):
        found = await pages(service, path, company.owner.headers, limit=limit)
        rows = [row for page in found for row in page["data"]]
        assert sorted(row["subscription_id" if part == "invoices" else "id"] for row in rows) == sorted(ids)
        order = [(row["created"], row["id"]) for row in rows]
        assert order == sorted(order, reverse=True)
        assert len(found) == -(-5 // limit)


async def test_cursors_are_good_for_one_caller_and_one_query(
    service: Service, team: Company, collector: tuple[Company, list[str]]
) -> None:
    company, _ = collector

    async def cursor_of(path: str, who: Who, **query: Any) -> str:
        found: str = (await service.get(path, who, limit=1, **query)).json()["next_cursor"]
        assert found
        return found

    people = f"{team.path}/users"
    subscriptions, invoices = "/v1/customers/me/subscriptions", "/v1/customers/me/invoices"
    own = company.owner.headers
    of_people = await cursor_of(people, team.owner.headers)
    of_subscriptions = await cursor_of(subscriptions, own)
    misused: list[tuple[str, Who, dict[str, Any]]] = [
        (people, team.manager.headers, {"cursor": of_people}),
        (people, team.owner.headers, {"cursor": of_people, "role": "user"}),
        (people, team.owner.headers, {"cursor": of_people, "search": "user"}),
        (people, as_service("read"), {"cursor": of_people}),
        (people, as_service("read", acting_for=team.owner.customer_id), {"cursor": of_people}),
        (f"{company.path}/users", own, {"cursor": of_people}),
        (invoices, own, {"cursor": of_subscriptions}),
        (subscriptions, own, {"cursor": of_subscriptions, "status": "active"}),
        (subscriptions, own, {"cursor": of_subscriptions, "role": "owner"}),
        (subscriptions, own, {"cursor": of_subscriptions[:-1]}),
        (subscriptions, own, {"cursor": "A" + of_subscriptions}),
        (subscriptions, own, {"cursor": of_subscriptions + "\x00"}),
        (subscriptions, own, {"cursor": "é"}),
        (subscriptions, own, {"cursor": ""}),
        (subscriptions, own, {"cursor": "eyJpZCI6MX0"}),
        (subscriptions, own, {"cursor": "x" * 601}),
        ("/v1/products", own, {"cursor": of_subscriptions}),
    ]
    for path, who, query in misused:
        document = problem(await service.get(path, who, **query), 422, "invalid_request")
        assert pointers(document) == ["query/cursor"], (path, query)
    assert (await service.get(people, team.owner.headers, cursor=of_people)).status_code == 200


async def test_a_forged_position_is_refused(service: Service, team: Company) -> None:
    """The digest holds no secret: whoever reads the code can make a cursor for himself, of any position."""
    principal = EndUser(ISSUER, team.owner.subject).key
    people = ["users", team.subscription_id, None, None]
    payer = EndUser(ISSUER, team.payer.subject).key
    invoices = ["invoices", team.payer.customer_id, None, None]
    positions: tuple[object, ...] = ("\x00", 5, True, {}, [], ["a", "b"], [1])
    for position in positions:
        cursor = cursors.encode(position, principal=principal, query=people)
        response = await service.get(f"{team.path}/users", team.owner.headers, cursor=cursor)
        assert pointers(problem(response, 422, "invalid_request")) == ["query/cursor"]
    for pair in ([1, "\x00"], [2**63, "in_"], [1.5, "in_"], ["1", "in_"], [1, 2], [1, "in_", 3], "in_"):
        cursor = cursors.encode(pair, principal=payer, query=invoices)
        response = await service.get("/v1/customers/me/invoices", team.payer.headers, cursor=cursor)
        assert pointers(problem(response, 422, "invalid_request")) == ["query/cursor"]
    beyond = cursors.encode("'; drop table customers; --", principal=principal, query=people)
    response = await service.get(f"{team.path}/users", team.owner.headers, cursor=beyond)
    assert response.status_code == 200


@pytest.mark.parametrize("limit", ["0", "-1", "101", "1000000000000000000000", "x", "1.5", "", "true"])
async def test_limits_outside_1_to_100_are_refused(service: Service, team: Company, limit: str) -> None:
    for path in ("/v1/products", "/v1/customers/me/invoices", f"{team.path}/users"):
        document = problem(await service.get(path, team.owner.headers, limit=limit), 422, "invalid_request")
        assert pointers(document) == ["query/limit"]


async def test_etags_are_of_the_callers_view_without_the_time_of_its_sync(
    service: Service, team: Company
) -> None:
    first = await service.get(team.path, team.owner.headers)
    etag = first.headers["etag"]
    await service.refresh("subscription", team.subscription_id)
    later = await service.get(team.path, team.owner.headers)
    assert later.json()["subscription"]["synced_at"] > first.json()["subscription"]["synced_at"]
    assert later.headers["etag"] == etag
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        same = await service.send("GET", team.path, team.owner.headers, If_None_Match=known)
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    for unknown in ('"other"', etag[:-2] + '"'):
        assert (
            await service.send("GET", team.path, team.owner.headers, If_None_Match=unknown)
        ).status_code == 200
    of_user = await service.get(team.path, team.user.headers)
    assert of_user.headers["etag"] != etag
    absent = await service.send("GET", "/v1/customers/cus_absent", team.owner.headers, If_None_Match="*")
    problem(absent, 404, "not_found")


async def test_an_etag_changes_with_what_it_stands_for(service: Service) -> None:
    company = await service.company()
    people = f"{company.path}/users"
    before = await service.get(people, company.owner.headers)
    await company.change(company.owner.headers, add=[new_email()])
    changed = await service.send("GET", people, company.owner.headers, If_None_Match=before.headers["etag"])
    assert changed.status_code == 200 and changed.headers["etag"] != before.headers["etag"]


async def test_every_answer_carries_one_request_id(service: Service, team: Company) -> None:
    given = await service.send("GET", team.path, team.owner.headers, X_Request_Id="caller-12345678")
    assert given.headers.get_list("x-request-id") == ["caller-12345678"]
    for odd in ("short", "x" * 65, "spaces in it here", "<script>alert(1)"):
        answer = await service.send("GET", team.path, team.owner.headers, X_Request_Id=odd)
        assert answer.headers["x-request-id"].startswith("req_")
    for path in ("/healthz", "/readyz", "/metrics", "/v1/nothing", "/v1/customers/me"):
        answer = await service.get(path)
        assert len(answer.headers.get_list("x-request-id")) == 1, path
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_invoices_of_a_customer_and_single_ones(
    service: Service, collector: tuple[Company, list[str]]
) -> None:
    company, ids = collector
    path, own = "/v1/customers/me/invoices", company.owner.headers
    of_one = (await service.get(path, own, subscription_id=ids[2])).json()["data"]
    assert [row["subscription_id"] for row in of_one] == [ids[2]]
    invoice = of_one[0]
    assert (invoice["total"], invoice["amount_paid"], invoice["currency"]) == (1200, 1200, "usd")
    assert invoice["status"] == "paid" and invoice["number"] and invoice["hosted_invoice_url"]
    assert invoice["lines"][0]["amount"] == 1200 and invoice["lines"][0]["quantity"] == 1
    assert len((await service.get(path, own, status="paid")).json()["data"]) == 5
    assert (await service.get(path, own, status="open")).json()["data"] == []
    assert (await service.get(path, own, subscription_id="sub_absent0")).json()["data"] == []
    single = await service.get(f"/v1/invoices/{invoice['id']}", own)
    assert single.json()["invoice"] == invoice
    problem(await service.get(path, own, subscription_id="nonsense"), 422, "invalid_request")


async def test_payment_methods_are_filled_once_and_then_kept_by_webhooks(service: Service) -> None:
    company = await service.company()
    path, own = "/v1/customers/me/payment-methods", company.owner.headers
    listing = f"/v1/customers/{company.owner.customer_id}/payment_methods"
    for _ in range(2):
        shown = (await service.get(path, own)).json()["data"]
        assert [(row["id"], row["is_default"]) for row in shown] == [(company.payment_method_id, True)]
        assert (shown[0]["type"], shown[0]["card"]["brand"], shown[0]["card"]["last4"]) == (
            "card",
            "visa",
            "4242",
        )
    assert len(await service.stripe.requests(path=listing)) == 1
    second = await service.stripe.post(
        "/v1/payment_methods/pm_card_mastercard/attach", customer=company.owner.customer_id
    )
    assert await service.deliver_events("payment_method.attached")
    both = (await service.get(path, own)).json()["data"]
    assert {row["id"]: row["is_default"] for row in both} == {
        company.payment_method_id: True,
        second["id"]: False,
    }
    changed = await service.stripe.post(
        f"/v1/customers/{company.owner.customer_id}",
        invoice_settings={"default_payment_method": second["id"]},
    )
    await service.deliver_state("customer", changed)
    both = (await service.get(path, own)).json()["data"]
    assert {row["id"]: row["is_default"] for row in both} == {
        company.payment_method_id: False,
        second["id"]: True,
    }
    assert (await service.get(path, own, type="sepa_debit")).json()["data"] == []
    assert len((await service.get(path, own, type="card")).json()["data"]) == 2
    assert len(await pages(service, path, own, limit=1)) == 2
    detached = await service.stripe.post(f"/v1/payment_methods/{company.payment_method_id}/detach")
    created = int(time.time()) + 60
    await service.deliver(event_of("payment_method.detached", detached, created=created))
    left = (await service.get(path, own)).json()["data"]
    assert [row["id"] for row in left] == [second["id"]]
    assert (await service.get(path, company.stranger.headers)).json()["data"] == []
    assert len(await service.stripe.requests(path=listing)) == 1


@dataclass(frozen=True)
class Shelf:
    sellable: str
    unlisted: str
    inactive: str


@pytest.fixture(scope="module")
async def shelf(service: Service, team: Company) -> Shelf:
    made = []
    for metadata, active in (
        ({"billing_sellable": " TRUE\n"}, True),
        ({}, True),
        ({"billing_sellable": "true"}, False),
    ):
        product = await service.stripe.post(
            "/v1/products", name="On the shelf", metadata=metadata, active=active
        )
        await service.refresh("product", product["id"])
        made.append(product["id"])
    for amount, active in ((500, True), (700, False)):
        price = await service.stripe.post(
            "/v1/prices",
            product=made[0],
            currency="usd",
            unit_amount=amount,
            active=active,
            recurring={"interval": "month"},
            currency_options={"eur": {"unit_amount": amount - 50}},
            metadata={"billing_sellable": " True "},
        )
        await service.refresh("price", price["id"])
    for product, amount in ((made[0], 600), (made[1], 800), (made[2], 900)):
        price = await service.stripe.post(
            "/v1/prices",
            product=product,
            currency="usd",
            unit_amount=amount,
            recurring={"interval": "month"},
            nickname="ACME deal, do not show",
            lookup_key=f"acme_{amount}",
        )
        await service.refresh("price", price["id"])
    return Shelf(*made)


async def test_products_show_prices_on_sale_only_when_an_end_user_or_nobody_asks(
    service: Service, team: Company, shelf: Shelf
) -> None:
    """M14: a price that nobody put on sale is not shown, nor what the operator calls a price, nor what is archived."""
    clamped = {**as_service("read"), "X-Acting-Customer": team.owner.customer_id}
    for who in (None, team.owner.headers, clamped):
        for query in ({}, {"ids": [shelf.inactive, shelf.unlisted, shelf.sellable]}):
            body = (await service.get("/v1/products", who, **query)).json()
            assert [product["id"] for product in body["data"]] == [shelf.sellable]
            assert body["missing_ids"] == ([shelf.inactive, shelf.unlisted] if query else [])
            [price] = body["data"][0]["prices"]
            assert price["unit_amount"] == 500
            assert not {"nickname", "lookup_key"} & price.keys()


async def test_the_catalogue_shows_what_is_sold_and_what_is_named(service: Service, shelf: Shelf) -> None:
    offered = (await service.get("/v1/products")).json()
    assert [product["id"] for product in offered["data"]] == [shelf.sellable]
    assert offered["missing_ids"] == [] and offered["data"][0]["sellable"] is True
    named = [shelf.inactive, "prod_absent", shelf.unlisted, shelf.sellable, "prod_absent"]
    body = (await service.get("/v1/products", as_service("read"), ids=named)).json()
    assert [product["id"] for product in body["data"]] == [shelf.inactive, shelf.unlisted, shelf.sellable]
    assert body["missing_ids"] == ["prod_absent"]
    prices = sorted(body["data"][2]["prices"], key=lambda price: int(price["unit_amount"]))
    assert [(price["unit_amount"], price["recurring"]["interval"]) for price in prices] == [
        (500, "month"),
        (600, "month"),
    ]
    assert prices[0]["currency_options"]["eur"]["unit_amount"] == 450
    assert [(price["nickname"], price["lookup_key"]) for price in prices] == [
        (None, None),
        ("ACME deal, do not show", "acme_600"),
    ]
    for query in ({"ids": "x" * 256}, {"ids": ["prod_x"] * 101}, {"currency": "EURO"}, {"currency": "EUR"}):
        problem(await service.get("/v1/products", None, **query), 422, "invalid_request")
    problem(
        await service.get("/v1/products", {"Authorization": "Bearer csk_unknown"}), 401, "unauthenticated"
    )


async def test_fresh_asks_stripe_once_when_many_ask_at_once(service: Service) -> None:
    """M21: 40 parallel fresh reads of one object were 39 reads at Stripe."""
    company = await service.company(seats=3)
    paths = [
        f"/v1/subscriptions/{company.subscription_id}",
        f"/v1/invoices/{company.invoice_id}",
        f"/v1/customers/{company.owner.customer_id}",
    ]
    for table in ("subscriptions", "invoices", "customers"):
        await service.fetch(f"update {table} set synced_at = now() - interval '11 seconds'")
    for path in paths:
        before = len(await service.stripe.requests(path=path))
        answers = await asyncio.gather(
            *(service.get(path, company.owner.headers, fresh="true") for _ in range(40))
        )
        assert {answer.status_code for answer in answers} == {200}
        assert len(await service.stripe.requests(path=path)) == before + 1


async def test_fresh_asks_stripe_first_but_not_at_every_request(service: Service) -> None:
    company = await service.company(seats=3)
    await service.stripe.post(f"/v1/customers/{company.owner.customer_id}", name="Renamed In The Dashboard")
    path = f"/v1/customers/{company.owner.customer_id}"
    await service.fetch("update customers set synced_at = now() - interval '11 seconds'")
    stale = await service.get(path, company.owner.headers)
    assert stale.json()["customer"]["name"] == company.owner.name
    before = len(await service.stripe.requests(path=path))
    for _ in range(3):
        fresh = await service.get(path, company.owner.headers, fresh="true")
        assert fresh.json()["customer"]["name"] == "Renamed In The Dashboard"
    assert len(await service.stripe.requests(path=path)) == before + 1
    asked = len(await service.stripe.requests())
    for other in (f"/v1/subscriptions/{company.subscription_id}", f"/v1/invoices/{company.invoice_id}"):
        hidden = await service.get(other, company.stranger.headers, fresh="true")
        assert hidden.status_code == 404
    assert len(await service.stripe.requests()) == asked, (
        "nobody's question costs a call for what he may not see"
    )


async def unseen(service: Service, company: Company) -> dict[str, str]:
    """Paths of objects that Stripe has and the copy does not, by their kind."""
    customer = await service.stripe.post("/v1/customers", email="unseen@example.com")
    card = await service.stripe.post(
        "/v1/payment_methods/pm_card_visa/attach", customer=company.payer.customer_id
    )
    subscription = await service.stripe.post(
        "/v1/subscriptions",
        customer=company.payer.customer_id,
        items=[{"price": company.price_id, "quantity": 2}],
        default_payment_method=card["id"],
    )
    return {
        "customer": f"/v1/customers/{customer['id']}",
        "subscription": f"/v1/subscriptions/{subscription['id']}",
        "invoice": f"/v1/invoices/{subscription['latest_invoice']}",
    }


@pytest.mark.parametrize("kind", ["customer", "subscription", "invoice"])
async def test_fresh_finds_what_the_copy_does_not_have_when_a_service_key_asks(
    service: Service, kind: str
) -> None:
    """A back end that had just created the object was told that there is none, whatever it asked for."""
    company = await service.company()
    path, key = (await unseen(service, company))[kind], as_service("read")
    before = len(await service.stripe.requests(path=path))
    problem(await service.get(path, key), 404, "not_found")
    for who in (company.stranger.headers, as_service("read", acting_for=company.stranger.customer_id)):
        problem(await service.get(path, who, fresh="true"), 404, "not_found")
    assert len(await service.stripe.requests(path=path)) == before
    answers = await asyncio.gather(*(service.get(path, key, fresh="true") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}, answers[0].text
    assert len(await service.stripe.requests(path=path)) == before + 1
    assert (await service.get(path, key)).status_code == 200


@pytest.mark.parametrize("path", ["customers/cus_none", "subscriptions/sub_none", "invoices/in_none"])
async def test_fresh_asks_once_in_ten_seconds_when_stripe_does_not_have_the_object(
    service: Service, path: str
) -> None:
    key, absent = as_service("read"), f"/v1/{path}{secrets.token_hex(6)}"
    for _ in range(2):
        answers = await asyncio.gather(*(service.get(absent, key, fresh="true") for _ in range(5)))
        assert {answer.status_code for answer in answers} == {404}
    assert len(await service.stripe.requests(path=absent)) == 1
    await service.fetch("update refreshes set not_before = not_before - interval '10 seconds' returning id")
    problem(await service.get(absent, key, fresh="true"), 404, "not_found")
    assert len(await service.stripe.requests(path=absent)) == 2
