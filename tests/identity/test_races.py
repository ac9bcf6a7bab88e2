"""P9: people with one verified address race for their customers."""

import asyncio
import secrets

import asyncpg
import pytest

from testkit.company import Service, new_email
from testkit.service import ISSUER, as_user


@pytest.mark.parametrize("is_seated", [True, False])
async def test_racing_subjects_of_one_address_get_a_customer_each(service: Service, is_seated: bool) -> None:
    """P9: four subjects with one verified e-mail; some were answered a transient 403."""
    for _ in range(12):
        email, seat = new_email("shared"), None
        if is_seated:
            company = await service.company()
            added = await company.change(company.owner.headers, add=[email])
            seat = added.json()["results"][0]["customer_id"]
        people = [
            as_user(f"subject-{secrets.token_hex(6)}", email=email, email_verified=True) for _ in range(4)
        ]
        answers = await asyncio.gather(
            *(service.send("POST", "/v1/customers", who, {}) for who in people for _ in range(2))
        )
        assert {answer.status_code for answer in answers} <= {200, 201}, [a.text for a in answers]
        ids = [answer.json()["customer"]["id"] for answer in answers]
        assert ids[::2] == ids[1::2]
        assert len(set(ids)) == len(people)
        assert seat is None or seat in ids


async def test_racing_subjects_get_a_customer_each_when_their_address_is_being_added(
    service: Service,
) -> None:
    """P9: one call of a login took the seat's customer over while another call created one for that login."""
    company = await service.company(seats=60, users=0)
    for _ in range(12):
        email = new_email("shared")
        people = [
            as_user(f"subject-{secrets.token_hex(6)}", email=email, email_verified=True) for _ in range(4)
        ]
        calls = [service.send("POST", "/v1/customers", who, {}) for who in people for _ in range(2)]
        addition = company.change(company.owner.headers, add=[email])
        added, *answers = await asyncio.gather(addition, *calls)
        assert added.json()["results"][0]["outcome"] == "applied", added.text
        assert {answer.status_code for answer in answers} <= {200, 201}, [a.text for a in answers]
        ids = [answer.json()["customer"]["id"] for answer in answers]
        assert ids[::2] == ids[1::2]
        assert len(set(ids)) == len(people)


@pytest.mark.parametrize("is_own_login", [True, False])
async def test_a_call_gets_a_customer_when_another_links_first(service: Service, is_own_login: bool) -> None:
    """P9: between the look at the login and its link, another call linked the login or the seat's customer: 403."""
    company, email = await service.company(), new_email("shared")
    added = await company.change(company.owner.headers, add=[email])
    seat = added.json()["results"][0]["customer_id"]
    login, other = (f"subject-{secrets.token_hex(6)}" for _ in range(2))
    who = as_user(login, email=email, email_verified=True)
    connection = await asyncpg.connect(service.database_url)
    try:
        async with connection.transaction():
            await connection.execute(
                "insert into identities (issuer, subject, customer_id) values ($1, $2, $3)",
                ISSUER,
                login if is_own_login else other,
                seat,
            )
            call = asyncio.create_task(service.send("POST", "/v1/customers", who, {}))
            await service.waits_for_a_lock()
        answer = await call
    finally:
        await connection.close()
    assert answer.status_code == (200 if is_own_login else 201), answer.text
    assert (answer.json()["customer"]["id"] == seat) is is_own_login
