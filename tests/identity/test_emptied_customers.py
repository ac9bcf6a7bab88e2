"""P12: a customer that was created for a seat, emptied by a removal and never claimed, is deleted at Stripe."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.customers import emptied
from app.operating import upkeep
from testkit.company import Company, Service, new_email
from testkit.service import as_service, as_user


async def added(company: Company, email: str) -> str:
    answer = await company.change(company.owner.headers, add=[email])
    assert answer.status_code == 200, answer.text
    return str(answer.json()["results"][0]["customer_id"])


async def removed(company: Company, *ids: str) -> None:
    answer = await company.change(company.owner.headers, remove=ids)
    assert answer.status_code == 200, answer.text


async def left_at_stripe(service: Service, email: str) -> list[Any]:
    return [one for one in await service.stripe.state("customer") if one.get("email") == email]


async def gone(service: Service, email: str) -> bool:
    return not await left_at_stripe(service, email)


async def within_seconds(seen: Callable[..., Awaitable[object]], *arguments: object) -> bool:
    """Whether something is seen within 30 s."""
    for _ in range(300):
        if await seen(*arguments):
            return True
        await asyncio.sleep(0.1)
    return False


async def clear(service: Service) -> None:
    while await emptied.delete_emptied(service.context):
        pass


async def test_emptied_customers_are_deleted_when_nobody_claimed_them(service: Service) -> None:
    """P12: adding and removing 20 addresses left 20 customers at Stripe."""
    company, emails = await service.company(seats=30), [new_email() for _ in range(20)]
    answer = await company.change(company.owner.headers, add=emails)
    ids = [one["customer_id"] for one in answer.json()["results"]]
    await removed(company, *ids)
    await clear(service)
    assert [one for email in emails for one in await left_at_stripe(service, email)] == []
    gone = await service.get(f"/v1/customers/{ids[0]}", as_service("read"))
    assert gone.status_code == 404


async def test_emptied_customer_is_kept_when_its_address_is_added_again(service: Service) -> None:
    """P12: adding the same address keeps it."""
    company, email = await service.company(seats=5), new_email()
    first = await added(company, email)
    await removed(company, first)
    assert await added(company, email) == first
    await clear(service)
    assert len(await left_at_stripe(service, email)) == 1


async def test_emptied_customer_is_kept_when_its_person_has_claimed_it(service: Service) -> None:
    """P12: somebody's customer is never deleted."""
    company, email = await service.company(seats=5), new_email()
    seat = await added(company, email)
    who = as_user(f"login-{email}", email=email, email_verified=True)
    assert (await service.send("POST", "/v1/customers", who, {})).json()["customer"]["id"] == seat
    await removed(company, seat)
    await clear(service)
    assert len(await left_at_stripe(service, email)) == 1


USES: dict[str, dict[str, Any]] = {
    "a payment method": {"path": "/v1/payment_methods/pm_card_visa/attach", "customer": True},
    "a subscription": {"path": "/v1/subscriptions", "customer": True, "items": True},
    "a pending item": {"path": "/v1/invoiceitems", "customer": True, "amount": 100, "currency": "usd"},
    "a tax id": {"path": "/v1/customers/{id}/tax_ids", "type": "eu_vat", "value": "DE123456789"},
    "a balance": {"path": "/v1/customers/{id}", "balance": -500},
    "foreign metadata": {"path": "/v1/customers/{id}", "metadata": {"crm_id": "17"}},
    "an address": {"path": "/v1/customers/{id}", "address": {"line1": "Main Street 1"}},
}


@pytest.mark.parametrize("use", list(USES))
async def test_emptied_customer_is_kept_when_somebody_has_used_it(service: Service, use: str) -> None:
    """P12: never one that somebody has used."""
    company, email = await service.company(seats=5), new_email()
    seat = await added(company, email)
    call = dict(USES[use])
    path = call.pop("path").replace("{id}", seat)
    if call.pop("customer", False):
        call["customer"] = seat
    if call.pop("items", False):
        call |= {
            "items": [{"price": company.price_id, "quantity": 1}],
            "payment_behavior": "default_incomplete",
        }
    await service.stripe.post(path, **call)
    await removed(company, seat)
    await clear(service)
    assert len(await left_at_stripe(service, email)) == 1
    [row] = await service.fetch(
        "select kept_at, deleting_at from seat_customers where customer_id = $1", seat
    )
    assert row["kept_at"] is not None and row["deleting_at"] is None


async def test_emptied_customer_is_kept_when_the_dashboard_has_given_it_a_seat(service: Service) -> None:
    """P12: a seat that is typed by hand, and not mirrored yet, is a use; the customer was deleted with it."""
    company, email = await service.company(seats=5), new_email()
    seat = await added(company, email)
    await removed(company, seat)
    typed = {
        "billing_shared_subscription_id": company.subscription_id,
        "billing_shared_subscription_role": "user",
    }
    await service.stripe.post(f"/v1/customers/{seat}", metadata=typed)
    await clear(service)
    assert len(await left_at_stripe(service, email)) == 1
    assert seat in await company.members()
    await removed(company, seat)
    await clear(service)
    assert await left_at_stripe(service, email) == []


async def test_customer_that_a_move_emptied_is_deleted(service: Service) -> None:
    """P12: what a move of the seat leaves behind is nobody's."""
    company, email = await service.company(seats=5), new_email()
    seat = await added(company, email)
    subject = f"login-{email}"
    await service.send("POST", "/v1/customers", as_user(subject, email=email), {})
    who = as_user(subject, email=email, email_verified=True)
    own = (await service.send("POST", "/v1/customers", who, {})).json()["customer"]["id"]
    assert own in await company.members() and seat not in await company.members()
    await clear(service)
    assert seat not in [one["id"] for one in await left_at_stripe(service, email)]


async def test_deletion_is_repeated_when_its_answer_is_lost(service: Service) -> None:
    """P12: a customer whose deletion may have reached Stripe is found by no addition."""
    company, email = await service.company(seats=5), new_email()
    seat = await added(company, email)
    await removed(company, seat)
    await service.stripe.add_fault(
        method="DELETE", path="/v1/customers/{id}", object=seat, status=504, times=1, effect="after"
    )
    await clear(service)
    other = await added(company, email)
    assert other != seat
    await service.fetch(
        "update seat_customers set deleting_at = clock_timestamp() - interval '1 hour' where customer_id = $1",
        seat,
    )
    await clear(service)
    [row] = await service.fetch("select existence from customers where id = $1", seat)
    assert row["existence"] == "deleted"
    assert await company.members() == {**await company.members(), other: "user"}


async def test_customer_can_be_claimed_when_it_was_added_again_after_a_failed_deletion(
    service: Service,
) -> None:
    """P12: the mark of a deletion that Stripe refused stayed, and the seat was reached by nobody."""
    company, email = await service.company(seats=5), new_email()
    seat = await added(company, email)
    await removed(company, seat)
    await service.stripe.add_fault(
        method="DELETE", path="/v1/customers/{id}", object=seat, status=500, times=1
    )
    await clear(service)
    await service.stripe.clear_faults()
    body = {"add": [{"customer_id": seat}]}
    again = await service.send("PATCH", f"{company.path}/users", as_service("write"), body)
    assert again.status_code == 200, again.text
    who = as_user(f"login-{email}", email=email, email_verified=True)
    assert (await service.send("POST", "/v1/customers", who, {})).json()["customer"]["id"] == seat


async def test_emptied_customer_is_deleted_within_seconds_when_a_reconcile_takes_long(
    service: Service,
) -> None:
    """Readings "People" 6: within a minute, whatever other periodic work a worker has begun."""
    company, email = await service.company(seats=5), new_email()
    seat = await added(company, email)
    await service.fill()
    await service.fetch("update account set filled_at = now() - interval '30 hours' returning id")
    await service.stripe.add_fault(method="GET", path="/v1/products", latency_s=60, times=0)
    working = asyncio.create_task(upkeep.keep_up(service.context))
    try:
        assert await within_seconds(service.fetch, "select from list_scans where purpose = 'reconcile'")
        await removed(company, seat)
        assert await within_seconds(gone, service, email)
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await service.stripe.clear_faults()


async def test_only_customers_that_a_removal_emptied_are_looked_at(service: Service) -> None:
    """A team of 100,000 people who have not come yet must not cost a look at each of them."""
    company, emails = await service.company(seats=9), [new_email() for _ in range(3)]
    ids = [await added(company, email) for email in emails]
    assert await emptied.delete_emptied(service.context) == 0
    marked = "select customer_id from seat_customers where emptied_at is not null and customer_id = any($1)"
    assert await service.fetch(marked, ids) == []
    await removed(company, ids[0], ids[1])
    assert {row["customer_id"] for row in await service.fetch(marked, ids)} == set(ids[:2])
    assert await added(company, emails[1]) == ids[1]
    await clear(service)
    earlier = (
        "update seat_customers set emptied_at = emptied_at - interval '2 minutes' where customer_id = any($1)"
    )
    await service.fetch(earlier, ids)
    await clear(service)
    assert await service.fetch(marked, ids[1:]) == []
    assert [len(await left_at_stripe(service, email)) for email in emails] == [0, 1, 1]


async def test_emptied_customer_is_deleted_when_stripe_refuses_those_before_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that had failed came first again after a minute, and as many as fit into it kept all others."""
    company, emails = await service.company(seats=5), [new_email() for _ in range(2)]
    refused, other = [await added(company, email) for email in emails]
    await removed(company, refused)
    await removed(company, other)
    await service.stripe.add_fault(
        method="GET", path="/v1/customers/{id}", object=refused, status=403, times=0
    )
    monkeypatch.setattr(emptied, "BATCH", 1)
    [now] = await service.fetch("select clock_timestamp() as at")
    for _ in range(2):
        await service.fetch(
            "update seat_customers set deleting_at = deleting_at - interval '61 seconds' returning 1"
        )
        await emptied.delete_emptied(service.context)
    assert [await gone(service, email) for email in emails] == [False, True]
    works = await service.fetch("select distinct work from rate_grants where granted_at > $1", now["at"])
    assert {row["work"] for row in works} == {"refresh"}, "nobody waits for it"
    await service.stripe.clear_faults()
