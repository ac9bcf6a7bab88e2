"""P3: a link to a customer that was deleted at Stripe is none, and an operator can end a wrong one."""

import asyncio
import secrets

import asyncpg
import httpx
import pytest

from testkit.company import Person, Service, Who, new_email
from testkit.problems import problem
from testkit.service import as_service, as_user


async def delete(service: Service, customer_id: str) -> None:
    await service.stripe.delete(f"/v1/customers/{customer_id}")
    await service.refresh("customer", customer_id)


async def created(service: Service, who: Who, status: int, **body: str) -> str:
    answer = await service.send("POST", "/v1/customers", who, body)
    assert answer.status_code == status, answer.text
    return str(answer.json()["customer"]["id"])


async def linked_person(service: Service) -> Person:
    person = await service.person("linked")
    assert (await service.get("/v1/customers/me", person.headers)).status_code == httpx.codes.OK
    return person


async def ended(service: Service, customer_id: str) -> list[str]:
    rows = await service.fetch(
        "select principal from audit_events where action = 'customer_unlinked' and customer_id = $1",
        customer_id,
    )
    return [row["principal"] for row in rows]


async def unlinked(service: Service, customer_id: str, who: Who = None) -> httpx.Response:
    path = f"/v1/customers/{customer_id}/link"
    return await service.client.delete(path, headers=dict(who or as_service("admin")))


async def test_the_customer_is_created_again_when_it_was_deleted(service: Service) -> None:
    """P3: every later request of the login was 404, also that of a service key for it."""
    login, email = f"subject-{secrets.token_hex(6)}", new_email()
    who = as_user(login, email=email, email_verified=True)
    first = await created(service, who, 201)
    await delete(service, first)
    problem(await service.get("/v1/customers/me", who), 404, "customer_not_linked")
    second = await created(service, who, 201)
    assert second != first
    assert (await service.get("/v1/customers/me", who)).json()["customer"]["id"] == second
    assert len(await ended(service, first)) == 1
    await delete(service, second)
    third = await created(service, as_service("write"), 201, user_id=login)
    assert third not in (first, second)
    assert await created(service, who, 200) == third
    assert await ended(service, second) == ["service:write"]


async def test_racing_calls_make_one_customer_when_it_was_deleted(service: Service) -> None:
    person = await linked_person(service)
    await delete(service, person.customer_id)
    answers = await asyncio.gather(
        *(service.send("POST", "/v1/customers", person.headers, {}) for _ in range(12))
    )
    assert {answer.status_code for answer in answers} <= {200, 201}, [a.text for a in answers]
    assert len({answer.json()["customer"]["id"] for answer in answers}) == 1
    assert len(await ended(service, person.customer_id)) == 1


async def test_a_claim_and_a_user_id_link_when_the_former_customer_was_deleted(service: Service) -> None:
    """P3: the issuer's claim of a new customer was 403 `identity_conflict`."""
    by_claim, by_user_id = await linked_person(service), await linked_person(service)
    for person in (by_claim, by_user_id):
        await delete(service, person.customer_id)
    claimed = await service.person("claimed", linked=False)
    who = as_user(by_claim.subject, stripe_customer_id=claimed.customer_id)
    assert (await service.get("/v1/customers/me", who)).json()["customer"]["id"] == claimed.customer_id
    named = await service.person("named", linked=False, billing_user_id=by_user_id.subject)
    found = await service.get("/v1/customers/me", by_user_id.headers)
    assert found.json()["customer"]["id"] == named.customer_id
    for person in (by_claim, by_user_id):
        assert len(await ended(service, person.customer_id)) == 1


async def test_a_first_read_of_a_subscription_links_when_the_former_customer_was_deleted(
    service: Service,
) -> None:
    """P3: the plain read looks the login up by itself, and answered 404 until another route was asked."""
    person, company = await linked_person(service), await service.company()
    await delete(service, person.customer_id)
    await service.person(
        "named",
        linked=False,
        billing_user_id=person.subject,
        billing_shared_subscription_id=company.subscription_id,
        billing_shared_subscription_role="user",
    )
    found = await service.get(company.path, person.headers)
    assert found.status_code == httpx.codes.OK, found.text
    assert found.json()["subscription"]["role"] == "user"


async def test_an_admin_ends_a_link_and_the_user_id_that_made_it(service: Service) -> None:
    """P3: the next trigger makes a new customer, and the former one is linked to nobody."""
    person = await linked_person(service)
    for _ in range(2):
        assert (await unlinked(service, person.customer_id)).status_code == httpx.codes.NO_CONTENT
    at_stripe = await service.stripe.get(f"/v1/customers/{person.customer_id}")
    assert "billing_user_id" not in at_stripe["metadata"]
    assert await ended(service, person.customer_id) == ["service:admin"]
    problem(await service.get("/v1/customers/me", person.headers), 404, "customer_not_linked")
    assert await created(service, person.headers, 201) != person.customer_id


async def test_the_user_id_of_another_login_stays_when_a_link_is_ended(service: Service) -> None:
    person = await linked_person(service)
    await service.stripe.post(f"/v1/customers/{person.customer_id}", metadata={"billing_user_id": "another"})
    assert (await unlinked(service, person.customer_id)).status_code == httpx.codes.NO_CONTENT
    at_stripe = await service.stripe.get(f"/v1/customers/{person.customer_id}")
    assert at_stripe["metadata"]["billing_user_id"] == "another"


async def test_a_link_to_a_deleted_customer_is_ended_too(service: Service) -> None:
    person = await linked_person(service)
    await delete(service, person.customer_id)
    assert (await unlinked(service, person.customer_id)).status_code == httpx.codes.NO_CONTENT
    assert await ended(service, person.customer_id) == ["service:admin"]
    problem(await unlinked(service, person.customer_id), 404, "not_found")


async def test_only_an_admin_key_ends_a_link(service: Service) -> None:
    person, other = await linked_person(service), await linked_person(service)
    callers = (
        person.headers,
        other.headers,
        as_service("write"),
        as_service("admin", acting_for=person.customer_id),
    )
    for who in callers:
        problem(await unlinked(service, person.customer_id, who), 403, "scope_required")
    problem(await unlinked(service, "cus_absent000000"), 404, "not_found")
    problem(await service.client.delete(f"/v1/customers/{person.customer_id}/link"), 401, "unauthenticated")
    assert await ended(service, person.customer_id) == []
    assert (await service.get("/v1/customers/me", person.headers)).status_code == httpx.codes.OK


# ------------------------------------------------------------- an end of a link beside the trigger that makes one


async def test_a_link_stays_ended_when_the_trigger_runs_beside_it(service: Service) -> None:
    """P3: the trigger saw the link and wrote the subject after the link had ended; the next request linked it again."""
    person = await linked_person(service)
    await service.stripe.post(f"/v1/customers/{person.customer_id}", metadata={"billing_user_id": ""})
    await service.refresh("customer", person.customer_id)
    await service.stripe.add_fault(method="GET", path="/v1/customers/{id}", latency_s=1.0, times=1)
    # The end has the customer's lease while Stripe is slow; the trigger waits for the lease with what it saw before.
    ending = asyncio.create_task(unlinked(service, person.customer_id))
    await asyncio.sleep(0.4)
    body = {"user_id": person.subject}
    triggered = asyncio.create_task(service.send("POST", "/v1/customers", as_service("write"), body))
    assert (await ending).status_code == httpx.codes.NO_CONTENT
    answer = await triggered
    assert answer.status_code == httpx.codes.CREATED, answer.text
    assert answer.json()["customer"]["id"] != person.customer_id
    at_stripe = await service.stripe.get(f"/v1/customers/{person.customer_id}")
    assert "billing_user_id" not in at_stripe["metadata"]
    me = await service.get("/v1/customers/me", person.headers)
    assert me.json()["customer"]["id"] == answer.json()["customer"]["id"]


async def test_a_link_that_is_made_during_its_end_is_ended_with_its_user_id(service: Service) -> None:
    """P3: nobody was linked when the end began, so the user id would have stayed and linked the login again."""
    person = await service.person("named")
    await service.stripe.add_fault(method="GET", path="/v1/customers/{id}", latency_s=1.0, times=1)
    ending = asyncio.create_task(unlinked(service, person.customer_id))
    await asyncio.sleep(0.4)
    assert (await service.get("/v1/customers/me", person.headers)).status_code == httpx.codes.OK
    assert (await ending).status_code == httpx.codes.NO_CONTENT
    problem(await service.get("/v1/customers/me", person.headers), 404, "customer_not_linked")
    at_stripe = await service.stripe.get(f"/v1/customers/{person.customer_id}")
    assert "billing_user_id" not in at_stripe["metadata"]
    assert await ended(service, person.customer_id) == ["service:admin"]


async def blocked_or_done(watch: asyncpg.Connection, request: asyncio.Task[httpx.Response]) -> None:
    """Return once a session waits for a lock, or the request was answered without one."""
    waits = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    for _ in range(500):
        if request.done() or await watch.fetchval(waits):
            return
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("by", ["read", "trigger"])
async def test_no_link_is_made_when_the_user_id_goes_at_the_same_time(service: Service, by: str) -> None:
    """P3: a first sight had read the user id that the end of the link removes in its transaction, held here open."""
    person = await service.person("named")
    lock = await asyncpg.connect(service.database_url)
    watch = await asyncpg.connect(service.database_url)
    try:
        ending = lock.transaction()
        await ending.start()
        await lock.execute("update customers set user_id = null where id = $1", person.customer_id)
        if by == "read":
            seeing = asyncio.create_task(service.get("/v1/customers/me", person.headers))
        else:
            seeing = asyncio.create_task(service.send("POST", "/v1/customers", person.headers, {}))
        await blocked_or_done(watch, seeing)
        await ending.commit()
        answer = await seeing
    finally:
        await asyncio.gather(lock.close(), watch.close())
    if by == "read":
        problem(answer, 404, "customer_not_linked")
    else:
        assert answer.status_code == httpx.codes.CREATED, answer.text
        assert answer.json()["customer"]["id"] != person.customer_id
