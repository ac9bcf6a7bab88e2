"""A person is invited, and a purchase is to seat them once it is paid: they get one seat."""

from collections.abc import Mapping
from typing import Any

import httpx

from testkit.company import Company, Service, new_email, running_service
from testkit.problems import ok
from testkit.service import as_user

CHALLENGED = "pm_card_authenticationRequired"


async def waiting(service: Service, email: str) -> tuple[Company, dict[str, Any]]:
    """A full company whose purchase of a seat for this address waits for its payment, after a member has left."""
    company = await service.company(seats=2)
    made = await service.stripe.post(
        f"/v1/payment_methods/{CHALLENGED}/attach", customer=company.payer.customer_id
    )
    await service.stripe.post(
        f"/v1/customers/{company.payer.customer_id}", invoice_settings={"default_payment_method": made["id"]}
    )
    await service.refresh("customer", company.payer.customer_id)
    asked = await company.change(company.owner.headers, add=[email], over_capacity="add_seats")
    document = ok(asked, 202)
    assert document["state"] == "awaiting_payment", document
    ok(await company.change(company.owner.headers, remove=[company.user.customer_id]))
    return company, dict(document)


async def paid(company: Company, document: dict[str, Any]) -> list[tuple[str, str | None]]:
    """The outcomes of the additions once the purchase is paid and a worker has looked at it."""
    service, payment = company.service, document["payment"]
    await service.stripe.control(
        "POST", "confirm", client_secret=payment["client_secret"], payment_method="pm_card_visa"
    )
    await service.fetch(
        "update operations set lease_until = clock_timestamp() where id = $1", document["operation_id"]
    )
    await service.work_off()
    settled = await service.settled(document["operation_id"], company.owner.headers)
    results = [one for one in settled.json()["results"] if one["action"] == "add"]
    return [(one["outcome"], one["code"]) for one in results]


async def invited(company: Company) -> list[tuple[str, str | None]]:
    page = await company.service.get(f"{company.path}/invitations", company.owner.headers)
    return [(one["state"], one["reason"]) for one in page.json()["data"]]


async def accept(company: Company, token: str, who: Mapping[str, str]) -> httpx.Response:
    return await company.service.send("POST", "/v1/invitations/accept", who, {"token": token})


async def test_invited_person_gets_one_seat_when_a_purchase_adds_them_too(service: Service) -> None:
    email = new_email()
    company, document = await waiting(service, email)
    token = await company.token(email.upper())
    assert await paid(company, document) == [("applied", None)]
    seats = await company.seats()
    assert (seats["total"], seats["used"], seats["reserved"]) == (3, 2, 0)
    assert await invited(company) == [("revoked", "added")]
    late = await accept(company, token, as_user("late", email=email, email_verified=True))
    assert late.status_code == 409 and len(await company.members()) == 2


async def test_invitation_keeps_its_seat_when_the_bought_addition_fails(service: Service) -> None:
    email = new_email()
    company, document = await waiting(service, email)
    token = await company.token(email)
    await service.stripe.add_fault(method="POST", path="/v1/customers", status=400, times=1)
    [(outcome, _)] = await paid(company, document)
    assert outcome == "failed"
    seats = await company.seats()
    assert (seats["used"], seats["reserved"]) == (1, 1) and await invited(company) == [("open", None)]
    ok(await accept(company, token, company.stranger.headers))
    assert (await company.seats())["reserved"] == 0 and len(await company.members()) == 2


async def test_bought_addition_gives_no_second_seat_when_the_person_has_accepted(service: Service) -> None:
    email = new_email()
    company, document = await waiting(service, email)
    token, who = await company.token(email), as_user(f"accepts-{email}", email=email, email_verified=True)
    ok(await accept(company, token, who))
    assert await paid(company, document) == [("unchanged", None)]
    seats = await company.seats()
    assert (seats["used"], seats["reserved"]) == (2, 0) and len(await company.members()) == 2


async def test_bought_addition_gives_no_second_seat_when_the_person_is_accepting(service: Service) -> None:
    email = new_email()
    company, document = await waiting(service, email)
    token, who = await company.token(email), as_user(f"accepts-{email}", email=email, email_verified=True)
    ok(await service.send("POST", "/v1/customers", who, {}), 201)
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", latency_s=3, times=1)
    async with running_service(service.stripe, service.database_url, OPERATION_DEADLINE="1") as hasty:
        accepted = await hasty.send("POST", "/v1/invitations/accept", who, {"token": token})
        assert accepted.status_code == 202, accepted.text
        assert await paid(company, document) == [("refused", "operation_in_progress")]
        await hasty.settled(accepted.json()["operation_id"], who)
    seats = await company.seats()
    assert (seats["used"], seats["reserved"]) == (2, 0) and len(await company.members()) == 2
