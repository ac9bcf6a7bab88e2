"""A purchase that waits for its payment holds nothing of anybody else, is readable, and can be ended at any time."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.operating import doctor
from app.operating.findings import Finding
from testkit.company import Company, new_email
from testkit.operator import Operator
from testkit.problems import ok, problem
from testkit.service import as_service, as_user
from testkit.simulator import SimulatorError
from tests.money.shop import CHALLENGED, DECLINED, VISA, Shop, at, worked_on


@pytest.fixture(autouse=True)
async def _no_faults_left(shop: Shop) -> AsyncIterator[None]:
    yield
    await shop.stripe.clear_faults()


async def company_that_pays_by(shop: Shop, card: str, *, seats: int = 2, **more: Any) -> Company:
    """A company whose users and manager fill `seats` seats, and whose next invoice is charged to this card."""
    company = await shop.service.company(seats=seats, **more)
    await charge_to(shop, company, card)
    return company


async def charge_to(shop: Shop, company: Company, card: str) -> str:
    made = await shop.stripe.post(f"/v1/payment_methods/{card}/attach", customer=company.payer.customer_id)
    await shop.stripe.post(
        f"/v1/customers/{company.payer.customer_id}", invoice_settings={"default_payment_method": made["id"]}
    )
    await shop.service.refresh("customer", company.payer.customer_id)
    return str(made["id"])


async def ask_for(company: Company, number: int = 3, *, who: Any = None, **more: Any) -> dict[str, Any]:
    """An addition of so many new people, beyond the seats; it waits for its payment."""
    answer = await company.change(
        who or company.owner.headers,
        add=[new_email() for _ in range(number)],
        over_capacity="add_seats",
        **more,
    )
    document = ok(answer, 202)
    assert document["state"] == "awaiting_payment", document
    return dict(document)


async def operation(shop: Shop, operation_id: str, who: Any = None) -> dict[str, Any]:
    return dict(ok(await shop.service.get(f"/v1/operations/{operation_id}", who or as_service("read"))))


async def subscription(shop: Shop, company: Company, who: Any = None) -> dict[str, Any]:
    answer = await shop.service.get(
        f"/v1/subscriptions/{company.subscription_id}", who or company.owner.headers
    )
    return dict(ok(answer)["subscription"])


async def invoice_of(shop: Shop, operation_id: str) -> dict[str, Any]:
    (row,) = await shop.service.fetch(
        "select invoice_id from operation_steps where operation_id = $1 and invoice_id is not null",
        operation_id,
    )
    return dict(await shop.stripe.get(f"/v1/invoices/{row['invoice_id']}"))


async def pay(shop: Shop, payment: dict[str, Any], card: str = VISA) -> None:
    await shop.stripe.control("POST", "confirm", client_secret=payment["client_secret"], payment_method=card)


def outcomes(document: dict[str, Any], action: str = "add") -> list[tuple[str, str | None]]:
    return [(one["outcome"], one["code"]) for one in document["results"] if one["action"] == action]


async def cancel(shop: Shop, operation_id: str, who: Any) -> httpx.Response:
    return await shop.service.send("POST", f"/v1/operations/{operation_id}/cancel", who)


# ----------------------------------------------------------------------------------- W3: it holds nobody by name


async def test_people_stay_free_when_a_purchase_for_them_waits(shop: Shop) -> None:
    """W3: one seat, unpaid `add_seats` for 100 named people; another subscription adds one, another one signs up."""
    company = await shop.service.company(seats=1, users=0)
    await shop.stripe.post(
        f"/v1/customers/{company.manager.customer_id}",
        metadata={"billing_shared_subscription_id": "", "billing_shared_subscription_role": ""},
    )
    await shop.service.refresh("customer", company.manager.customer_id)
    await charge_to(shop, company, DECLINED)
    known = [(await shop.service.person("known")).email for _ in range(3)]
    people = [*known, *(new_email() for _ in range(97))]
    answer = await company.change(company.owner.headers, add=people, over_capacity="add_seats")
    document = ok(answer, 202)
    assert document["state"] == "awaiting_payment"
    assert outcomes(document)[0] == ("applied", None) and outcomes(document)[1:] == [("pending", None)] * 99

    other = await shop.service.company(seats=9)
    added = await other.change(other.owner.headers, add=[people[1], people[2], people[98]])
    assert outcomes(ok(added)) == [("applied", None)] * 3, added.text
    started = time.monotonic()
    login = as_user("newcomer", email=people[99], email_verified=True)
    made = await shop.service.send("POST", "/v1/customers", login, {})
    assert made.status_code == 201 and time.monotonic() - started < 5, made.text
    # Nobody of the unpaid purchase was made or marked at Stripe, and nobody is listed.
    assert await company.member_emails() == {people[0]}
    listed = ok(await shop.service.get(f"{company.path}/users", company.owner.headers, limit=100))
    assert listed["total_count"] == 2
    assert listed["seats"] == {"total": 1, "used": 1, "reserved": 0, "available": 0, "over_allocated": 0}

    # Once it is paid, each is found as they are then: three are seated elsewhere, too, one has signed up.
    await pay(shop, document["payment"])
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert settled["state"] == "settled"
    assert outcomes(settled) == [("applied", None)] * 100
    assert outcomes(settled, "seats") == [("applied", None)]
    members = await company.members()
    assert len(members) == 100 and made.json()["customer"]["id"] in members
    assert (await company.state())["items"]["data"][0]["quantity"] == 100


async def test_additions_that_fit_are_made_when_the_others_wait_for_payment(shop: Shop) -> None:
    """W2: two of five additions fit into seats that were bought; an addition to a freed seat goes on as well."""
    company = await company_that_pays_by(shop, CHALLENGED, seats=4)
    document = await ask_for(company, 5)
    assert outcomes(document) == [("applied", None)] * 2 + [("pending", None)] * 3
    assert len(await company.members()) == 4
    assert document["seats"] == {"total": 4, "used": 4, "reserved": 0, "available": 0, "over_allocated": 0}
    ok(await company.change(company.owner.headers, remove=[company.user.customer_id]))
    again = ok(await company.change(company.owner.headers, add=[new_email()]))
    assert outcomes(again) == [("applied", None)]
    refused = await company.change(company.owner.headers, add=[new_email()])
    assert problem(refused, 409, "seat_limit_reached")["required"] == 5
    assert (await operation(shop, document["operation_id"]))["state"] == "awaiting_payment"
    await pay(shop, document["payment"])
    await shop.listen()
    # Until the worker names them, the seats that were paid for are kept for them by number.
    taken = await subscription(shop, company)
    assert taken["shared"]["seats"] == {
        "total": 7,
        "used": 4,
        "reserved": 3,
        "available": 0,
        "over_allocated": 0,
    }
    problem(await company.change(company.owner.headers, add=[new_email()]), 409, "seat_limit_reached")
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert outcomes(settled) == [("applied", None)] * 5
    assert len(await company.members()) == 7


# --------------------------------------------------------------------------- W2: readable, and ended at any time


@pytest.mark.parametrize(
    ("card", "status"), [(CHALLENGED, "requires_action"), (DECLINED, "requires_payment_method")]
)
async def test_payment_is_readable_when_the_page_is_loaded_again(shop: Shop, card: str, status: str) -> None:
    """W2: the operation and the subscription show it until it ends, with the intent's own status at every read."""
    company = await company_that_pays_by(shop, card)
    document = await ask_for(company)
    payment = document["payment"]
    assert (payment["kind"], payment["status"]) == ("payment", status)
    for _ in range(2):
        read = await operation(shop, document["operation_id"], company.owner.headers)
        assert (read["state"], read["payment"]) == ("awaiting_payment", payment)
        pending = (await subscription(shop, company))["pending_change"]
        assert (pending["operation_id"], pending["payment"]) == (document["operation_id"], payment)
        assert pending["expires_at"] is not None
    # The role table: a manager sees neither links to invoices nor payment methods, a user no amounts.
    shown = (await subscription(shop, company, company.manager.headers))["pending_change"]
    assert shown["operation_id"] == document["operation_id"] and shown["payment"] is None
    assert (await subscription(shop, company, company.user.headers))["pending_change"] is None
    listed = ok(await shop.service.get("/v1/customers/me/subscriptions", company.owner.headers))
    assert listed["data"][0]["pending_change"]["payment"] == payment
    # A further try that fails is seen at the next read, without any event.
    with pytest.raises(SimulatorError):
        await pay(shop, payment, DECLINED)
    read = await operation(shop, document["operation_id"], company.owner.headers)
    assert (read["payment"]["status"], read["payment"]["decline_code"]) == (
        "requires_payment_method",
        "generic_decline",
    )
    await pay(shop, payment)
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert (settled["state"], settled["payment"]) == ("settled", None)
    assert (await subscription(shop, company))["pending_change"] is None


async def test_total_waits_as_an_operation_when_it_must_be_paid(shop: Shop) -> None:
    """W2: PUT seats answers 202 with the operation, which is applied once its invoice is paid."""
    company = await company_that_pays_by(shop, CHALLENGED)
    answer = await shop.service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 9})
    document = ok(answer, 202)
    assert (document["state"], document["payment"]["status"]) == ("awaiting_payment", "requires_action")
    assert answer.headers["location"] == f"/v1/operations/{document['operation_id']}"
    assert [one["outcome"] for one in document["results"]] == ["pending"]
    await pay(shop, document["payment"])
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert settled["state"] == "settled" and settled["results"][0]["outcome"] == "applied"
    await shop.cache_is_true()


ANOTHER = {
    "cancel now": ("POST", "/v1/subscriptions/{id}/cancel", {"when": "now"}),
    "cancel later": ("POST", "/v1/subscriptions/{id}/cancel", None),
    "fewer seats": ("PUT", "/v1/shared-subscriptions/{id}/seats", {"total": 2}),
    "another total": ("PUT", "/v1/shared-subscriptions/{id}/seats", {"total": 4}),
    "a change of items": ("PATCH", "/v1/subscriptions/{id}", {"items": [{"id": "{item}", "quantity": 4}]}),
    "people": (
        "PATCH",
        "/v1/shared-subscriptions/{id}/users",
        {"add": [{"email": "{new}"}], "over_capacity": "add_seats"},
    ),
    "seats given back": (
        "PATCH",
        "/v1/shared-subscriptions/{id}/users",
        {"remove": ["{user}"], "release_seats": True},
    ),
}


@pytest.mark.parametrize("by", ["owner", "admin key"])
@pytest.mark.parametrize("name", ANOTHER)
async def test_another_change_supersedes_when_a_purchase_waits(shop: Shop, name: str, by: str) -> None:
    """W2: cancel, resize and buy were 409 `operation_in_progress` for 23 hours, with a new card and a key too."""
    company = await company_that_pays_by(shop, DECLINED, seats=3)
    document = await ask_for(company)
    await charge_to(shop, company, VISA)
    if name == "fewer seats":
        ok(await company.change(company.owner.headers, remove=[company.user.customer_id]))
    item = (await company.state())["items"]["data"][0]["id"]
    method, path, body = ANOTHER[name]
    text = {"{item}": item, "{user}": company.user.customer_id, "{new}": new_email()}
    filled = _filled(body, text)
    who = company.owner.headers if by == "owner" else as_service("admin")
    answer = await shop.service.send(method, path.format(id=company.subscription_id), who, filled)
    assert answer.status_code == 200, answer.text
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "void"
    assert (await company.state())["pending_update"] is None
    ended = await operation(shop, document["operation_id"])
    assert (ended["state"], ended["payment"]) == ("settled", None)
    assert outcomes(ended, "seats") == [("failed", "payment_abandoned")]
    assert outcomes(ended)[-1] == ("refused", "payment_abandoned")
    await shop.cache_is_true()


def _filled(body: Any, text: dict[str, str]) -> Any:
    if isinstance(body, dict):
        return {name: _filled(value, text) for name, value in body.items()}
    if isinstance(body, list):
        return [_filled(value, text) for value in body]
    return text.get(body, body) if isinstance(body, str) else body


@pytest.mark.parametrize("by", ["who asked", "the payer", "admin key"])
async def test_purchase_ends_in_one_call_when_it_is_abandoned(shop: Shop, by: str) -> None:
    """W2: `POST /v1/operations/{id}/cancel`; again is the same answer, and the seats can be bought again at once."""
    company = await company_that_pays_by(shop, CHALLENGED, payer_is_owner=False)
    await shop.service.send("PUT", f"{company.path}/purchase-permission", company.payer.headers)
    document = await ask_for(company)
    who = {
        "who asked": company.owner.headers,
        "the payer": company.payer.headers,
        "admin key": as_service("admin"),
    }[by]
    first = await cancel(shop, document["operation_id"], who)
    assert ok(first)["state"] == "settled"
    assert outcomes(first.json(), "seats") == [("failed", "payment_abandoned")]
    assert outcomes(first.json()) == [("refused", "payment_abandoned")] * 3
    again = await cancel(shop, document["operation_id"], who)
    assert ok(again) == first.json()
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "void"
    assert (await company.state())["pending_update"] is None
    assert (await subscription(shop, company))["pending_change"] is None
    await ask_for(company)


async def test_operation_is_not_found_when_a_foreign_or_absent_one_is_cancelled(shop: Shop) -> None:
    """W2: who may not abandon a purchase learns nothing of it; absent and foreign ids look alike."""
    company = await company_that_pays_by(shop, CHALLENGED, payer_is_owner=False)
    document = await ask_for(company, who=as_service("admin"))
    absent = await cancel(shop, f"op_{'0' * 24}", company.owner.headers)
    assert problem(absent, 404, "not_found")
    for person in (company.owner, company.manager, company.user, company.stranger):
        foreign = await cancel(shop, document["operation_id"], person.headers)
        assert {**foreign.json(), "request_id": ""} == {**absent.json(), "request_id": ""}
        read = await shop.service.get(f"/v1/operations/{document['operation_id']}", person.headers)
        assert read.status_code == 404
    assert (await operation(shop, document["operation_id"]))["state"] == "awaiting_payment"
    assert problem(await cancel(shop, document["operation_id"], as_service("read")), 403, "scope_required")
    # The payer sees it, and ends it.
    assert (await operation(shop, document["operation_id"], company.payer.headers))["payment"] is not None
    assert ok(await cancel(shop, document["operation_id"], company.payer.headers))["state"] == "settled"


async def test_cancel_is_refused_when_the_operation_has_ended_otherwise(shop: Shop) -> None:
    """W2: 409 `operation_ended` for what was paid, and for what never waited."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await pay(shop, document["payment"])
    # The payment came first, and nobody has heard of it yet.
    problem(await cancel(shop, document["operation_id"], company.owner.headers), 409, "operation_ended")
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert outcomes(settled) == [("applied", None)] * 3
    problem(await cancel(shop, document["operation_id"], company.owner.headers), 409, "operation_ended")
    removed = ok(await company.change(company.owner.headers, remove=[company.user.customer_id]))
    problem(await cancel(shop, removed["operation_id"], company.owner.headers), 409, "operation_ended")


async def test_refused_change_supersedes_nothing_when_a_purchase_waits(shop: Shop) -> None:
    """W2: rights, seats, prices, quotes and credits are judged before anything ends."""
    company = await company_that_pays_by(shop, CHALLENGED, seats=3)
    document = await ask_for(company)
    path = f"{company.path}/seats"
    item = (await company.state())["items"]["data"][0]["id"]
    owner = company.owner.headers
    problem(await shop.service.send("PUT", path, owner, {"total": 1}), 409, "seats_in_use")
    problem(await shop.service.send("PUT", path, company.user.headers, {"total": 9}), 403, "role_required")
    update = f"/v1/subscriptions/{company.subscription_id}"
    body = {"items": [{"id": item, "price_id": "price_unknown"}]}
    problem(await shop.service.send("PATCH", update, owner, body), 422, "price_not_available")
    quote = ok(await shop.service.send("POST", f"{company.path}/quote", owner, {"total": 9}))
    balance = f"/v1/customers/{company.payer.customer_id}/balance_transactions"
    await shop.stripe.post(balance, amount=-700, currency="usd")
    quoted = {"total": 9, "quote_id": quote["quote_id"]}
    problem(await shop.service.send("PUT", path, owner, quoted), 409, "quote_expired")
    read = await operation(shop, document["operation_id"])
    assert (read["state"], read["payment"]["status"]) == ("awaiting_payment", "requires_action")
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "open"
    # A change of a role, or of the card, is none of quantity, items or end: it goes on beside the purchase.
    role = [{"customer_id": company.user.customer_id, "role": "manager"}]
    ok(await company.change(owner, update=role))
    card = await charge_to(shop, company, VISA)
    ok(await shop.service.send("PATCH", update, owner, {"payment_method_id": card}))
    assert (await operation(shop, document["operation_id"]))["state"] == "awaiting_payment"


@pytest.mark.parametrize("is_paid", [False, True])
async def test_change_with_an_etag_supersedes_when_nothing_else_has_changed(
    shop: Shop, is_paid: bool
) -> None:
    """The purchase ended for a change that was then 412: its end was taken as a change of what the caller saw.

    A payment that came first is one.
    """
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    shown = await shop.service.get(f"/v1/subscriptions/{company.subscription_id}", company.owner.headers)
    if is_paid:
        await pay(shop, document["payment"])
    answer = await shop.change(
        company.owner.headers,
        company.subscription_id,
        match=shown.headers["etag"],
        cancel_at_period_end=True,
    )
    if is_paid:
        problem(answer, 412, "version_conflict")
    else:
        assert ok(answer)["subscription"]["cancel_at_period_end"] is True
    settled = await worked_on(shop, document["operation_id"])
    becomes = ("applied", None) if is_paid else ("failed", "payment_abandoned")
    assert outcomes(ok(settled), "seats") == [becomes]
    if not is_paid:
        again = await shop.change(
            company.owner.headers,
            company.subscription_id,
            match=shown.headers["etag"],
            cancel_at_period_end=False,
        )
        problem(again, 412, "version_conflict")


async def test_change_is_judged_again_when_the_payment_came_first(shop: Shop) -> None:
    """W2: the payment and a smaller total cross: the purchase is settled as applied, its seats are promised."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await pay(shop, document["payment"])
    smaller = await shop.service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 2})
    assert problem(smaller, 409, "seats_in_use")["used"] == 5
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert outcomes(settled) == [("applied", None)] * 3
    assert (await company.state())["items"]["data"][0]["quantity"] == 5


async def test_processing_payment_is_never_voided_when_a_change_would_supersede_it(shop: Shop) -> None:
    """W2: an end now is 409 with Retry-After, an abandonment is noted, and the payment decides."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await pay(shop, document["payment"], "pm_usBankAccount")
    read = await operation(shop, document["operation_id"])
    assert (read["state"], read["payment"]["status"]) == ("awaiting_payment", "processing")
    ended = await shop.service.send(
        "POST",
        f"/v1/subscriptions/{company.subscription_id}/cancel",
        company.owner.headers,
        {"when": "now"},
    )
    assert problem(ended, 409, "operation_in_progress") and ended.headers["retry-after"] == "60"
    noted = ok(await cancel(shop, document["operation_id"], company.owner.headers), 202)
    assert noted["state"] == "awaiting_payment"
    await shop.service.fetch(
        "update operation_steps set payment_until = now() where state = 'awaiting_payment'"
    )
    assert ok(await worked_on(shop, document["operation_id"]))["state"] == "awaiting_payment"
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "open"


# ------------------------------------------------------------------------------------------ how it ends by itself


async def test_purchase_ends_by_itself_when_the_payment_window_has_passed(shop: Shop) -> None:
    """W2: after PAYMENT_WINDOW the worker voids the invoice; the refusal is a payment's, not a full subscription."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    assert ok(await worked_on(shop, document["operation_id"]))["state"] == "awaiting_payment"
    await shop.service.fetch(
        "update operation_steps set payment_until = now() - interval '1 second' where operation_id = $1",
        document["operation_id"],
    )
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert settled["state"] == "settled"
    assert outcomes(settled, "seats") == [("failed", "payment_action_required")]
    assert outcomes(settled) == [("refused", "payment_action_required")] * 3
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "void"
    assert (await company.state())["pending_update"] is None


async def test_purchase_ends_when_its_invoice_is_voided_in_the_dashboard(shop: Shop) -> None:
    """W2: who voids the invoice has abandoned the purchase."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    invoice = await invoice_of(shop, document["operation_id"])
    await shop.stripe.post(f"/v1/invoices/{invoice['id']}/void")
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert outcomes(settled, "seats") == [("failed", "payment_abandoned")]


async def test_purchase_expires_when_stripe_drops_the_update(shop: Shop) -> None:
    """W2: `update_expired` after Stripe's own `expires_at`; an uncollectible invoice alone ends nothing."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    try:
        invoice = await invoice_of(shop, document["operation_id"])
        await shop.stripe.post(f"/v1/invoices/{invoice['id']}/mark_uncollectible")
        assert ok(await worked_on(shop, document["operation_id"]))["state"] == "awaiting_payment"
        await shop.stripe.control("POST", "clock", advance=23 * 3600 + 60)
        assert (await company.state())["pending_update"] is None
        settled = ok(await worked_on(shop, document["operation_id"]))
        assert outcomes(settled, "seats") == [("failed", "update_expired")]
        assert outcomes(settled) == [("refused", "update_expired")] * 3
    finally:
        await shop.stripe.control("POST", "clock", unfreeze=True)


async def test_purchase_is_applied_when_a_later_edit_hides_it(shop: Shop) -> None:
    """W2: the invoice proves the purchase, not a quantity that anybody can edit."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    item = (await company.state())["items"]["data"][0]["id"]
    await pay(shop, document["payment"])
    await shop.stripe.post(
        f"/v1/subscriptions/{company.subscription_id}", items=[{"id": item, "quantity": 2}]
    )
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert outcomes(settled, "seats") == [("applied", None)]
    assert outcomes(settled) == [("refused", "seat_limit_reached")] * 3


async def test_quantity_proves_nothing_when_it_was_raised_by_hand(shop: Shop) -> None:
    """W2: the quantity is reached in the Dashboard, which drops the update: nothing was paid for it."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    item = (await company.state())["items"]["data"][0]["id"]
    await shop.stripe.post(
        f"/v1/subscriptions/{company.subscription_id}",
        items=[{"id": item, "quantity": 5}],
        proration_behavior="none",
    )
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert outcomes(settled, "seats") == [("failed", "payment_abandoned")]


async def paid_without_effect(shop: Shop, company: Company) -> tuple[str, dict[str, Any]]:
    """A purchase that was paid after Stripe had dropped its change; the operation's id, and the invoice."""
    document = await ask_for(company)
    invoice = await invoice_of(shop, document["operation_id"])
    method = await charge_to(shop, company, VISA)
    try:
        await shop.stripe.post(f"/v1/invoices/{invoice['id']}/mark_uncollectible")
        await shop.stripe.control("POST", "clock", advance=23 * 3600 + 60)
        assert (await company.state())["pending_update"] is None
        await shop.stripe.post(f"/v1/invoices/{invoice['id']}/pay", payment_method=method)
        assert ok(await worked_on(shop, document["operation_id"]))["state"] == "awaiting_payment"
        await shop.stripe.control("POST", "clock", advance=61)
        settled = ok(await worked_on(shop, document["operation_id"]))
    finally:
        await shop.stripe.control("POST", "clock", unfreeze=True)
    assert outcomes(settled, "seats") == [("failed", "paid_without_effect")]
    await shop.service.refresh("invoice", invoice["id"])
    return document["operation_id"], invoice


async def test_alarm_is_raised_when_a_paid_change_never_showed(shop: Shop) -> None:
    """W2: `paid_without_effect`, counted, and named by the doctor with the amount to refund."""
    company = await company_that_pays_by(shop, CHALLENGED)
    _, invoice = await paid_without_effect(shop, company)
    findings = await doctor.examine(shop.service.context)
    (found,) = [one for one in findings if one.check == "purchase"]
    assert found.object == company.subscription_id
    assert invoice["id"] in found.problem and str(invoice["amount_due"]) in found.fix
    metrics = (await shop.service.get("/metrics")).text
    assert "coseat_paid_without_effect 1.0" in metrics


async def paid_alarms(shop: Shop, company: Company) -> tuple[list[Finding], int]:
    """Return what the doctor says of the company's purchases, and the gauge of all companies."""
    found = [
        one
        for one in await doctor.examine(shop.service.context)
        if one.check == "purchase" and one.object == company.subscription_id
    ]
    shown = re.search(
        r"^coseat_paid_without_effect (\S+)$", (await shop.service.get("/metrics")).text, re.MULTILINE
    )
    assert shown is not None
    return found, int(float(shown[1]))


async def test_alarm_ends_when_the_operator_acknowledges_what_was_paid(shop: Shop) -> None:
    """It was raised for JOURNAL_RETENTION_DAYS, whatever the operator did about it."""
    company = await company_that_pays_by(shop, CHALLENGED)
    operation_id, invoice = await paid_without_effect(shop, company)
    operator = Operator(shop.stripe, shop.service.database_url)
    (found,), number = await paid_alarms(shop, company)
    assert f"coseat operations acknowledge {operation_id}" in found.fix
    for _ in range(2):
        acknowledged = await operator.report("operations", "acknowledge", operation_id)
        assert acknowledged == (0, {"acknowledged": operation_id})
    assert await paid_alarms(shop, company) == ([], number - 1)
    entries = await shop.service.fetch(
        "select principal, action, after from audit_events where operation_id = $1 and subscription_id = ''",
        operation_id,
    )
    assert [(one["principal"], one["action"]) for one in entries] == [("operator", "purchase_acknowledged")]
    assert invoice["id"] in entries[0]["after"]


async def test_acknowledging_is_refused_when_the_operation_was_not_paid_without_effect(shop: Shop) -> None:
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    operator = Operator(shop.stripe, shop.service.database_url)
    for operation_id in (document["operation_id"], "op_absent"):
        code, report = await operator.report("operations", "acknowledge", operation_id)
        assert (code, report["error"]) == (1, "not_found") and operation_id in report["detail"]


async def test_purchase_ends_when_the_payer_withdraws_the_permission(shop: Shop) -> None:
    """W2: what others asked for rests on the permission, also while it waits for its payment."""
    company = await company_that_pays_by(shop, CHALLENGED, payer_is_owner=False)
    permission = f"{company.path}/purchase-permission"
    ok(await shop.service.send("PUT", permission, company.payer.headers))
    document = await ask_for(company)
    assert (await shop.service.send("DELETE", permission, company.payer.headers)).status_code == 204
    with_seconds = asyncio.timeout(5)
    async with with_seconds:
        await shop.service.work_off()
    ended = await operation(shop, document["operation_id"])
    assert outcomes(ended, "seats") == [("failed", "payment_abandoned")]
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "void"


# ------------------------------------------------------------------------------------------------ first purchases


async def test_first_purchase_answers_with_its_operation_when_its_payment_waits(shop: Shop) -> None:
    """W2: it answered 201 as if it were made; a change that waits answered 202 with what the page needs."""
    buyer, _ = await shop.buyer(card=None)
    price = await shop.price(await shop.product(shared=True))
    answer = await shop.add(buyer.headers, [{"price_id": price, "quantity": 3}], key="first")
    document = ok(answer, 202)
    assert answer.headers["location"] == f"/v1/operations/{document['operation_id']}"
    assert (document["pending"], document["state"]) == (True, "awaiting_payment")
    [result] = document["results"]
    assert (result["action"], result["outcome"], result["code"]) == ("purchase", "pending", None)
    assert document["seats"]["total"] == 3
    assert (document["payment"]["kind"], document["payment"]["status"]) == (
        "payment",
        "requires_payment_method",
    )
    made = await shop.subscription(buyer.headers, result["subscription_id"])
    assert made["status"] == "incomplete"
    assert made["pending_change"]["operation_id"] == document["operation_id"]
    again = await shop.add(buyer.headers, [{"price_id": price, "quantity": 3}], key="first")
    assert ok(again, 202) == document and again.headers["location"] == answer.headers["location"]
    await pay(shop, document["payment"])
    settled = ok(await worked_on(shop, document["operation_id"]))
    [result] = settled["results"]
    assert (settled["state"], result["outcome"], result["subscription_id"]) == (
        "settled",
        "applied",
        made["id"],
    )


async def test_first_purchase_is_abandoned_when_its_operation_is_cancelled(shop: Shop) -> None:
    """W2: the subscription whose first invoice is open ends, and its price can be bought again."""
    buyer, _ = await shop.buyer(card=None)
    price = await shop.price()
    made = await shop.unpaid(buyer.headers, [{"price_id": price}])
    assert made.subscription["status"] == "incomplete" and made.payment["kind"] == "payment"
    read = await operation(shop, made.operation_id, buyer.headers)
    assert (read["state"], read["payment"]) == ("awaiting_payment", made.payment)
    pending = (await shop.subscription(buyer.headers, made.subscription["id"]))["pending_change"]
    assert (pending["operation_id"], pending["payment"]) == (made.operation_id, made.payment)
    first = await cancel(shop, made.operation_id, buyer.headers)
    assert ok(first)["state"] == "settled"
    assert [(one["outcome"], one["code"]) for one in first.json()["results"]] == [
        ("failed", "payment_abandoned")
    ]
    assert ok(await cancel(shop, made.operation_id, buyer.headers)) == first.json()
    assert (await shop.true(made.subscription["id"]))["status"] == "incomplete_expired"
    again = await shop.unpaid(buyer.headers, [{"price_id": price}])
    await pay(shop, again.payment)
    settled = ok(await worked_on(shop, again.operation_id))
    assert [(one["outcome"], one["code"]) for one in settled["results"]] == [("applied", None)]
    problem(await cancel(shop, again.operation_id, buyer.headers), 409, "operation_ended")


@pytest.mark.parametrize("by", ["another purchase", "cancel", "hand"])
async def test_first_purchase_is_settled_when_its_subscription_ends(shop: Shop, by: str) -> None:
    """W2: a new purchase of the price, a cancellation, and the Dashboard end the operation with the subscription."""
    buyer, _ = await shop.buyer(card=None)
    price = await shop.price()
    made = await shop.unpaid(buyer.headers, [{"price_id": price}])
    path = f"/v1/subscriptions/{made.subscription['id']}"
    if by == "another purchase":
        ok(await shop.add(buyer.headers, [{"price_id": price}]), 202)
    elif by == "cancel":
        ok(await shop.service.send("POST", f"{path}/cancel", buyer.headers))
    else:
        await shop.stripe.delete(path)
        await worked_on(shop, made.operation_id)
    ended = await operation(shop, made.operation_id)
    assert [(one["outcome"], one["code"]) for one in ended["results"]] == [("failed", "payment_abandoned")]


@pytest.mark.parametrize("card", [None, CHALLENGED])
async def test_first_purchase_ends_by_itself_when_the_payment_window_has_passed(
    shop: Shop, card: str | None
) -> None:
    """W2: it waited for the 23 hours of Stripe; an abandoned page leaves nothing behind after an hour."""
    buyer, method = await shop.buyer(card=card)
    paid_by = {} if method is None else {"payment_method_id": method}
    made = await shop.unpaid(buyer.headers, [{"price_id": await shop.price()}], **paid_by)
    assert made.subscription["status"] == "incomplete" and made.payment["client_secret"]
    subscription_id = made.subscription["id"]
    pending = (await shop.subscription(buyer.headers, subscription_id))["pending_change"]
    assert 3500 < at(pending["expires_at"]) - time.time() < 3601
    assert ok(await worked_on(shop, made.operation_id))["state"] == "awaiting_payment"
    await shop.service.fetch(
        "update operation_steps set payment_until = now() - interval '1 second' where operation_id = $1",
        made.operation_id,
    )
    settled = ok(await worked_on(shop, made.operation_id))
    assert [(one["outcome"], one["code"]) for one in settled["results"]] == [
        ("failed", "payment_action_required")
    ]
    ended = await shop.true(subscription_id)
    assert ended["status"] == "incomplete_expired"
    assert (await shop.stripe.get(f"/v1/invoices/{ended['latest_invoice']}"))["status"] == "void"
    await shop.cache_is_true()


async def test_first_purchase_is_applied_when_it_was_paid_as_the_window_passed(shop: Shop) -> None:
    """W2: what is paid is applied, whatever the clock says."""
    buyer, _ = await shop.buyer(card=None)
    made = await shop.unpaid(buyer.headers, [{"price_id": await shop.price()}])
    await pay(shop, made.payment)
    await shop.service.fetch(
        "update operation_steps set payment_until = now() - interval '1 second' where operation_id = $1",
        made.operation_id,
    )
    settled = ok(await worked_on(shop, made.operation_id))
    assert [(one["outcome"], one["code"]) for one in settled["results"]] == [("applied", None)]
    assert (await shop.true(made.subscription["id"]))["status"] == "active"


async def test_answer_of_another_change_shows_what_waits_and_its_payment(shop: Shop) -> None:
    """An answer showed the change that waits without the payment that it waits for."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company, 1)
    method = await shop.stripe.post(f"/v1/payment_methods/{VISA}/attach", customer=company.payer.customer_id)
    await shop.service.refresh("customer", company.payer.customer_id)
    path, who = f"/v1/subscriptions/{company.subscription_id}", company.owner.headers
    changed = ok(await shop.service.send("PATCH", path, who, {"payment_method_id": method["id"]}))
    pending = changed["subscription"]["pending_change"]
    assert pending["operation_id"] == document["operation_id"]
    assert pending["payment"]["client_secret"] == document["payment"]["client_secret"]
