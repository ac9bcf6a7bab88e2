"""P6: the deletion of a customer erases the person's e-mail and name everywhere here."""

import asyncio
import json
import secrets
from urllib.parse import quote

import asyncpg
import pytest

from app.customers import erasure
from app.customers.store import erasures
from testkit.company import Company, Service, new_email
from testkit.service import as_service, as_user

_EVERY_TEXT = """
    select t.table_name, c.column_name from information_schema.tables t
    join information_schema.columns c using (table_schema, table_name)
    where t.table_schema = 'public' and t.table_type = 'BASE TABLE'"""


async def places_of(service: Service, needle: str) -> set[str]:
    """Return the tables of the database that hold a text, in whatever column."""
    found = set()
    for row in await service.fetch(_EVERY_TEXT):
        table, column = row["table_name"], row["column_name"]
        text = (
            f'"{column}"::text'
            if table != "idempotency_keys" or column != "body"
            else "encode(body, 'escape')"
        )
        hits = await service.fetch(
            f'select 1 from "{table}" where position($1 in {text}) > 0 limit 1', needle
        )
        if hits:
            found.add(f"{table}.{column}")
    return found


async def erase(service: Service) -> None:
    while await erasure.erase_deleted(service.context):
        pass


async def delete_at_stripe(service: Service, customer_id: str) -> None:
    await service.stripe.delete(f"/v1/customers/{quote(customer_id, safe='')}")
    await service.refresh("customer", customer_id)


async def seated(company: Company, email: str) -> str:
    answer = await company.change(company.owner.headers, add=[email], key=f"key-{email}")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["results"][0]["customer_id"])


async def test_deleted_seat_customer_is_erased_everywhere(service: Service) -> None:
    """P6: the e-mail stayed in member records, seat customers, steps, reservations and stored answers."""
    company, email = await service.company(seats=5), new_email("erased")
    seat = await seated(company, email)
    before = await places_of(service, email)
    assert {
        "member_records.typed_email",
        "seat_customers.email",
        "operation_steps.email",
        "reservations.email",
        "idempotency_keys.body",
        "customers.email",
    } <= before
    await delete_at_stripe(service, seat)
    await erase(service)
    assert await places_of(service, email) == set()
    trail = await service.fetch("select action from audit_events where customer_id = $1", seat)
    assert {row["action"] for row in trail} == {"member_added", "member_removed"}, "ids, time and action stay"


async def test_deleted_person_with_a_login_is_erased_everywhere(service: Service) -> None:
    """P6: the verified address on the link goes too, and so do name and profile."""
    email, name = new_email("erased"), "Erasmus Erased"
    who = as_user(f"subject-{email.partition('@')[0]}", email=email, email_verified=True)
    made = await service.send("POST", "/v1/customers", who, {"name": name}, Idempotency_Key="once")
    customer_id = made.json()["customer"]["id"]
    assert {"identities.email", "customers.name"} <= await places_of(service, email) | await places_of(
        service, name
    )
    await delete_at_stripe(service, customer_id)
    await erase(service)
    assert await places_of(service, email) == set()
    assert await places_of(service, name) == set()


async def test_stored_answer_is_erased_when_the_address_was_typed_in_capitals(service: Service) -> None:
    """P6: an answer that shows the address as it was typed was not found by the address in lower case."""
    company, email = await service.company(seats=5), new_email("Erased")
    seat = await seated(company, email.lower())
    other = await service.company(seats=5)
    path = f"{other.path}/invitations"
    invited = await service.send(
        "POST", path, other.owner.headers, {"email": email}, idempotency_key="invite-" + email.lower()
    )
    assert invited.status_code == 201, invited.text
    assert "idempotency_keys.body" in await places_of(service, email)
    await delete_at_stripe(service, seat)
    await erase(service)
    assert await places_of(service, email) == set()


async def test_event_of_a_deletion_erases(service: Service) -> None:
    """P6: erasure follows any observed deletion, an event or an answer."""
    company, email = await service.company(seats=5), new_email("erased")
    seat = await seated(company, email)
    await service.stripe.delete(f"/v1/customers/{seat}")
    await service.deliver_events("customer.deleted")
    await erase(service)
    assert await places_of(service, email) == set()


async def test_refused_address_is_erased_with_its_person(service: Service) -> None:
    """P6: a step that was refused names only the address."""
    company, email = await service.company(seats=2), new_email("erased")
    refused = await company.change(company.owner.headers, add=[email])
    assert refused.status_code == 409
    made = await service.stripe.post("/v1/customers", email=email)
    await service.refresh("customer", made["id"])
    await delete_at_stripe(service, made["id"])
    await erase(service)
    assert await places_of(service, email) == set()


async def test_repeated_call_is_answered_when_its_stored_answer_was_erased(service: Service) -> None:
    """P6: the operation is found by its own id, so that nothing is done twice."""
    company, email = await service.company(seats=5), new_email("erased")
    seat = await seated(company, email)
    await delete_at_stripe(service, seat)
    await erase(service)
    again = await company.change(company.owner.headers, add=[email], key=f"key-{email}")
    told = json.loads(again.text)
    assert (again.status_code, told["results"][0]["outcome"], told["results"][0]["email"]) == (
        200,
        "applied",
        None,
    )
    assert seat not in await company.members()
    assert email not in await company.member_emails()


async def test_refused_address_leads_to_no_customer_when_it_was_erased(service: Service) -> None:
    """P6: an addition by e-mail that was refused showed the id of the person found, once they were erased."""
    company, person = await service.company(seats=5), await service.person("erased")
    await service.stripe.delete(f"/v1/customers/{person.customer_id}")
    refused = await company.change(company.owner.headers, add=[person.email, new_email()])
    assert refused.status_code == 200, refused.text
    path = f"/v1/operations/{refused.json()['operation_id']}"
    for email in (person.email, None):
        result = (await service.get(path, company.owner.headers)).json()["results"][0]
        assert (result["outcome"], result["customer_id"], result["email"]) == ("refused", None, email)
        await service.refresh("customer", person.customer_id)
        await erase(service)


async def test_key_stays_used_when_its_answer_was_erased(service: Service) -> None:
    """P6: the key went with its answer, and another body under it was carried out."""
    company, email, key = await service.company(seats=5), new_email("erased"), new_email("key")
    added = await company.change(company.owner.headers, add=[email], key=key)
    await delete_at_stripe(service, added.json()["results"][0]["customer_id"])
    await erase(service)
    assert await places_of(service, email) == set()
    other = await company.change(company.owner.headers, add=[new_email("other")], key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    again = await company.change(company.owner.headers, add=[email], key=key)
    assert (again.status_code, again.json()["operation_id"]) == (200, added.json()["operation_id"])


async def with_address_on_the_link(service: Service, email: str) -> str:
    """Return the customer of a login. Stripe knows no address of theirs; their token has verified one since."""
    subject = f"subject-{email.partition('@')[0]}"
    who = as_user(subject, email=email, email_verified=False)
    made = await service.send("POST", "/v1/customers", who, {})
    assert (made.status_code, made.json()["customer"]["email"]) == (201, None), made.text
    verified = as_user(subject, email=email, email_verified=True)
    assert (await service.get("/v1/customers/me", verified)).status_code == 200
    await service.move_seats()
    assert await places_of(service, email) == {"identities.email"}
    return str(made.json()["customer"]["id"])


async def test_address_that_stands_only_on_the_link_is_erased_everywhere(service: Service) -> None:
    """P6: only the address of the customer at Stripe was looked for."""
    email = new_email("erased")
    customer_id = await with_address_on_the_link(service, email)
    full, inviting = await service.company(seats=2), await service.company(seats=5)
    refused = await full.change(full.owner.headers, add=[email], key=f"key-{email}")
    assert (refused.status_code, refused.json()["code"]) == (409, "seat_limit_reached")
    invited = await inviting.invite(inviting.owner.headers, email.title(), key="invite-once")
    assert invited.status_code == 201, invited.text
    found = await places_of(service, email) | await places_of(service, email.title())
    assert {"invitations.email", "operation_steps.email", "idempotency_keys.body"} <= found
    before = await inviting.seats()
    await delete_at_stripe(service, customer_id)
    await erase(service)
    for needle in (email, email.title()):
        assert await places_of(service, needle) == set()
    after = await inviting.seats()
    assert (before["reserved"], after["reserved"]) == (1, 0)
    [ended] = (await service.get(f"{inviting.path}/invitations", inviting.owner.headers)).json()["data"]
    assert (ended["state"], ended["reason"], ended["email"]) == ("revoked", "person_erased", None)


async def test_address_by_which_a_seat_was_given_is_erased_when_stripe_has_another_one(
    service: Service,
) -> None:
    """P6: the deletion ends the membership, and the typed address went from it before it was looked for."""
    company, email = await service.company(seats=5), new_email("erased")
    seat = await seated(company, email)
    await service.stripe.post(f"/v1/customers/{seat}", email=new_email("other"))
    await service.refresh("customer", seat)
    inviting = await service.company(seats=5)
    invited = await inviting.invite(inviting.owner.headers, email)
    assert invited.status_code == 201, invited.text
    await delete_at_stripe(service, seat)
    await erase(service)
    assert await places_of(service, email) == set()


async def test_old_address_of_an_erased_person_is_kept_when_somebody_else_has_it(service: Service) -> None:
    """P6: an address changes hands. Invitations to the person who has it now stay open."""
    company, email = await service.company(seats=5), new_email("shared")
    seat = await seated(company, email)
    await service.stripe.post(f"/v1/customers/{seat}", email=new_email("other"))
    await service.refresh("customer", seat)
    made = await service.stripe.post("/v1/customers", email=email)
    await service.refresh("customer", made["id"])
    inviting = await service.company(seats=5)
    await inviting.invite(inviting.owner.headers, email)
    await delete_at_stripe(service, seat)
    await erase(service)
    [still] = (await service.get(f"{inviting.path}/invitations", inviting.owner.headers)).json()["data"]
    assert (still["state"], still["email"]) == ("open", email)


async def test_answer_is_erased_when_json_writes_the_address_otherwise(service: Service) -> None:
    """P6: JSON writes a quote and a backslash with a backslash before it."""
    email = new_email('erased"by\\all')
    company = await service.company(seats=2)
    refused = await company.change(company.owner.headers, add=[email], key="quoted-address")
    assert refused.status_code == 409, refused.text
    inviting = await service.company(seats=5)
    invited = await inviting.invite(inviting.owner.headers, email, key="quoted-invitation")
    assert invited.status_code == 201, invited.text
    written = json.dumps(email)[1:-1].replace("\\", "\\\\")
    assert "idempotency_keys.body" in await places_of(service, written), "as PostgreSQL escapes the bytes"
    made = await service.stripe.post("/v1/customers", email=email)
    await service.refresh("customer", made["id"])
    await delete_at_stripe(service, made["id"])
    await erase(service)
    for needle in (email, json.dumps(email)[1:-1], written):
        assert await places_of(service, needle) == set()


@pytest.mark.parametrize("pattern", ["{}ends\\", 'quo"ted {}', "back\\slash {}"])
async def test_customer_is_erased_when_their_id_is_written_with_backslashes(
    service: Service, pattern: str
) -> None:
    """P6: an id that ends with a backslash raised an error, and every erasure after it waited.

    Such ids were compared as patterns, and their answers were searched as JSON does not write them.
    """
    customer_id = pattern.format(secrets.token_hex(6))
    await service.stripe.control(
        "POST", "with-id", kind="customer", id=customer_id, params={"name": "Erasmus"}
    )
    await service.refresh("customer", customer_id)
    path = f"/v1/customers/{quote(customer_id, safe='')}"
    body = {"name": f"Erased {customer_id}"}
    acting = as_service("write", acting_for=customer_id)
    for address, who in ((path, as_service("write")), ("/v1/customers/me", acting)):
        changed = await service.send("PATCH", address, who, body, Idempotency_Key=secrets.token_hex(8))
        assert changed.status_code == 200, changed.text
    answers = "select from idempotency_keys where position(convert_to($1, 'UTF8') in body) > 0"
    written = json.dumps(customer_id)
    assert len(await service.fetch(answers, written)) == 2
    await delete_at_stripe(service, customer_id)
    await erase(service)
    assert not await service.fetch("select from erasures where customer_id = $1", customer_id)
    assert not await service.fetch(answers, written)


async def until(service: Service, statement: str, *values: object) -> None:
    for _ in range(500):
        if await service.fetch(statement, *values):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"nothing within 10 s: {statement}")


WAITS_FOR_A_LOCK = (
    "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
)


async def test_new_addition_and_invitation_keep_their_address_when_its_person_is_being_erased(
    service: Service,
) -> None:
    """P6: the address was free to be used again, and the erasure blanked it in what had begun since its first look.

    The seat was shown without an address and never reached its person.
    """
    email = new_email("again")
    customer_id = await with_address_on_the_link(service, email)
    before, inviting, adding = [await service.company(seats=5) for _ in range(3)]
    await before.invite(before.owner.headers, email)
    await delete_at_stripe(service, customer_id)

    async def erase_patiently() -> None:
        async with service.context.database.unhurried() as connection, connection.transaction():
            assert await erasures.erase(connection, customer_id)

    await service.stripe.add_fault(method="POST", path="/v1/customers", latency_s=3.0, times=1)
    holding = await asyncpg.connect(service.database_url)
    try:
        async with holding.transaction():
            await holding.execute("select from invitations where email = $1 for update", email)
            erasing = asyncio.create_task(erase_patiently())
            await until(service, WAITS_FOR_A_LOCK)
            invited = await inviting.invite(inviting.owner.headers, email)
            addition = asyncio.create_task(adding.change(adding.owner.headers, add=[email]))
            step = "select email from operation_steps where subscription_id = $1 and settled_at is null"
            await until(service, step, adding.subscription_id)
    finally:
        await holding.close()
    await erasing
    assert [row["email"] for row in await service.fetch(step, adding.subscription_id)] == [email]
    addresses = "select subscription_id, state, email from invitations where subscription_id = any($1)"
    invitations = await service.fetch(addresses, [before.subscription_id, inviting.subscription_id])
    assert {tuple(row) for row in invitations} == {
        (before.subscription_id, "revoked", None),
        (inviting.subscription_id, "open", email),
    }
    assert invited.status_code == 201 and (await addition).json()["results"][0]["outcome"] == "applied"
    people = await service.get(f"{adding.path}/users", adding.owner.headers, state="unclaimed")
    assert [person["email"] for person in people.json()["data"]] == [email]


async def test_other_customers_are_erased_when_one_cannot_be(service: Service) -> None:
    """P6: customers were erased by twenties in one transaction, so that one of them held up all the others."""
    company = await service.company(seats=5)
    emails = [new_email("erased") for _ in range(2)]
    seats = [await seated(company, email) for email in emails]
    for seat in seats:
        await delete_at_stripe(service, seat)
    noted = "select customer_id from erasures"
    holding = await asyncpg.connect(service.database_url)
    try:
        async with holding.transaction():
            await holding.execute("select from seat_customers where customer_id = $1 for update", seats[0])
            await erase(service)
    finally:
        await holding.close()
    assert [row["customer_id"] for row in await service.fetch(noted)] == seats[:1]
    assert await places_of(service, emails[1]) == set()
    await service.fetch("update erasures set noted_at = clock_timestamp()")
    await erase(service)
    assert await service.fetch(noted) == []
    assert await places_of(service, emails[0]) == set()
