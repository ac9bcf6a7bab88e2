"""Idempotency-Key: one effect and one answer, for one principal and one request."""

import asyncio

from testkit.company import Service, new_email
from testkit.problems import pointers, problem
from testkit.service import as_service


async def test_the_first_answer_is_replayed(service: Service) -> None:
    company = await service.company(seats=10)
    email = new_email()
    first = await company.change(company.owner.headers, add=[email], key="one")
    assert first.status_code == 200 and "idempotency-replayed" not in first.headers
    await company.change(company.owner.headers, remove=[first.json()["results"][0]["customer_id"]])
    again = await company.change(company.owner.headers, add=[email], key="one")
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert email not in await company.member_emails()


async def test_refusals_are_answers_too(service: Service) -> None:
    company = await service.company(seats=2)
    first = await company.change(company.owner.headers, add=[new_email("x")], key="full")
    problem(first, 409, "seat_limit_reached")
    await company.change(company.owner.headers, remove=[company.user.customer_id])
    body = {"add": [{"email": "nobody"}]}
    path = f"{company.path}/users"
    invalid = await service.send("PATCH", path, company.owner.headers, body, Idempotency_Key="bad")
    problem(invalid, 422, "invalid_request")
    replayed = await service.send("PATCH", path, company.owner.headers, body, Idempotency_Key="bad")
    assert (replayed.status_code, replayed.content) == (422, invalid.content)
    assert replayed.headers["content-type"] == "application/problem+json"
    assert replayed.headers["idempotency-replayed"] == "true"


async def test_another_request_under_the_same_key_is_refused(service: Service) -> None:
    company, other = await service.company(), await service.company()
    await company.change(company.owner.headers, add=["a@example.com"], key="two")
    before = await company.members()
    changed = await company.change(company.owner.headers, add=["b@example.com"], key="two")
    problem(changed, 422, "idempotency_key_reused")
    elsewhere = await service.send(
        "PATCH",
        f"{other.path}/users",
        company.owner.headers,
        {"add": [{"email": "a@example.com"}]},
        Idempotency_Key="two",
    )
    problem(elsewhere, 422, "idempotency_key_reused")
    assert await company.members() == before


async def test_twenty_at_once_under_one_key_are_one_effect(service: Service) -> None:
    company = await service.company(seats=40)
    email = new_email()
    answers = await asyncio.gather(
        *(company.change(company.owner.headers, add=[email], key="many") for _ in range(20))
    )
    done = [answer for answer in answers if answer.status_code == 200]
    assert done and len({answer.content for answer in done}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in done) == 1
    for answer in answers:
        if answer.status_code != 200:
            problem(answer, 409, "request_in_progress")
            assert int(answer.headers["retry-after"]) >= 1
    operations = await service.fetch(
        "select id from operations where subscription_id = $1", company.subscription_id
    )
    assert len(operations) == 1
    customers = await service.stripe.state("customer")
    assert [customer.get("email") for customer in customers].count(email) == 1
    again = await company.change(company.owner.headers, add=[email], key="many")
    assert again.content == done[0].content


async def test_a_key_is_one_principals_own(service: Service) -> None:
    company = await service.company(seats=10)
    principals = (
        company.owner.headers,
        company.manager.headers,
        as_service("write"),
        as_service("admin"),
        as_service("write", acting_for=company.owner.customer_id),
    )
    for number, who in enumerate(principals):
        answer = await company.change(
            who, add=[f"p{number}.{company.subscription_id}@example.com"], key="ours"
        )
        assert answer.status_code == 200 and "idempotency-replayed" not in answer.headers
        assert answer.json()["results"][0]["outcome"] == "applied"
    assert len(await company.members()) == 2 + len(principals)


async def test_a_key_is_one_routes_own(service: Service) -> None:
    company = await service.company()
    await company.change(company.owner.headers, add=[new_email()], key="route")
    other = await service.send("POST", "/v1/customers", company.owner.headers, {}, Idempotency_Key="route")
    assert other.status_code == 200 and "idempotency-replayed" not in other.headers


async def test_a_failed_authentication_uses_no_key_up(service: Service) -> None:
    company = await service.company()
    before = await service.row_counts()
    wrong = {"Authorization": "Bearer nonsense"}
    for who in (wrong, None):
        problem(await company.change(who, add=["z@example.com"], key="k"), 401, "unauthenticated")
    assert await service.row_counts() == before


async def test_unusable_keys_are_refused(service: Service) -> None:
    company = await service.company()
    before = await company.members()
    for key in ("", "x" * 256, "tab\there", "ümlaut"):
        response = await service.client.patch(
            f"{company.path}/users",
            headers=[
                *((k.encode(), v.encode()) for k, v in company.owner.headers.items()),
                (b"idempotency-key", key.encode("latin-1")),
            ],
            json={"add": [{"email": "k@example.com"}]},
        )
        document = problem(response, 422, "invalid_request")
        assert pointers(document) == ["header/Idempotency-Key"]
    assert await company.members() == before


async def test_reads_take_no_notice_of_keys(service: Service) -> None:
    company = await service.company()
    for _ in range(2):
        answer = await service.send("GET", company.path, company.owner.headers, Idempotency_Key="read")
        assert answer.status_code == 200 and "idempotency-replayed" not in answer.headers
