"""P6: the deletion of a customer erases the person's e-mail and name everywhere here."""

import json

from app.customers import erasure
from testkit.company import Company, Service, new_email
from testkit.service import as_user

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
        hits = await service.fetch(f'select 1 from "{table}" where {text} like $1 limit 1', f"%{needle}%")
        if hits:
            found.add(f"{table}.{column}")
    return found


async def erase(service: Service) -> None:
    while await erasure.erase_deleted(service.context):
        pass


async def delete_at_stripe(service: Service, customer_id: str) -> None:
    await service.stripe.delete(f"/v1/customers/{customer_id}")
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
