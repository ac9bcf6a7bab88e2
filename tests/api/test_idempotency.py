"""Idempotency-Key: one effect and one answer, for one principal and one request."""

import asyncio

import pytest

from testkit.company import Service, new_email
from testkit.problems import ok, pointers, problem
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


async def a_day_later(service: Service, *, purged: bool = False) -> None:
    """A day passes for every key, and for what was begun with one."""
    for statement in (
        "update idempotency_keys set created_at = created_at - interval '25 hours'",
        """update operations set created_at = created_at - interval '25 hours',
            settled_at = settled_at - interval '25 hours'""",
        "update invitations set created_at = created_at - interval '25 hours'",
        *(["delete from idempotency_keys"] if purged else []),
    ):
        await service.fetch(statement)


@pytest.mark.parametrize("purged", [False, True])
async def test_key_begins_something_new_after_its_day(service: Service, purged: bool) -> None:
    """A key lasts 24 hours; days later the same request was answered 200 as if it was done, and nothing was."""
    company = await service.company(seats=10)
    email = new_email()
    for _ in range(3):
        added = ok(await company.change(company.owner.headers, add=[email], key="each day"))
        assert email in await company.member_emails()
        again = await company.change(company.owner.headers, add=[email], key="each day")
        assert again.headers["idempotency-replayed"] == "true" and again.json() == added
        ok(await company.change(company.owner.headers, remove=[added["results"][0]["customer_id"]]))
        await a_day_later(service, purged=purged)
    path = f"{company.path}/seats"
    for total in (12, 11):
        body = {"total": 12}
        answer = await service.send("PUT", path, company.owner.headers, body, Idempotency_Key="twelve")
        assert ok(answer)["subscription"]["shared"]["seats"]["total"] == 12
        ok(await service.send("PUT", path, company.owner.headers, {"total": total - 1}))
        await a_day_later(service, purged=purged)


async def test_invitation_is_another_one_after_the_day_of_its_key(service: Service) -> None:
    company = await service.company(seats=10)
    path = f"{company.path}/invitations"
    body = {"email": new_email()}
    made = []
    for _ in range(2):
        answer = await service.send("POST", path, company.owner.headers, body, Idempotency_Key="invite again")
        made.append(ok(answer, 201)["invitation"]["id"])
        ok(await service.send("DELETE", f"{path}/{made[-1]}", company.owner.headers), 204)
        await a_day_later(service)
    assert made[0] != made[1]


async def test_second_use_of_a_key_goes_on_with_its_own_operation(service: Service) -> None:
    """The process dies before it answers, or answers that nothing is known: the next request has the same effect."""
    company = await service.company(seats=10)
    email = new_email()
    await company.change(company.owner.headers, add=[email], key="twice")
    await a_day_later(service)
    await service.fetch(
        "update idempotency_keys set created_at = created_at - interval '25 hours' where key = 'twice'"
    )
    second = ok(await company.change(company.owner.headers, add=[email], key="twice"))
    await service.fetch(
        """update idempotency_keys set status = null, body = null, created_at = created_at - interval '2 minutes'
        where key = 'twice'"""
    )
    third = await company.change(company.owner.headers, add=[email], key="twice")
    assert "idempotency-replayed" not in third.headers
    assert ok(third)["operation_id"] == second["operation_id"]


async def test_what_is_open_goes_on_after_the_day_of_its_key(service: Service) -> None:
    """An operation that is not settled is never begun a second time."""
    company = await service.company(seats=10)
    email = new_email()
    first = ok(await company.change(company.owner.headers, add=[email], key="long"))
    await a_day_later(service)
    await service.fetch(
        """update operations set state = 'running', settled_at = null, lease_token = gen_random_uuid(),
            lease_until = clock_timestamp() + interval '1 minute' where id = $1""",
        first["operation_id"],
    )
    again = await company.change(company.owner.headers, add=[email], key="long")
    assert again.json()["operation_id"] == first["operation_id"]


async def test_other_precondition_under_the_same_key_is_another_request(service: Service) -> None:
    """A 412 was replayed for a day, although the ETag that came with the second request was the present one."""
    company = await service.company(seats=10)
    path = f"/v1/subscriptions/{company.subscription_id}"
    headers = {"Idempotency_Key": "if it is so"}
    outdated = {**headers, "If_Match": '"an older one"'}
    end = {"cancel_at_period_end": True}
    problem(
        await service.send("PATCH", path, company.owner.headers, end, **outdated), 412, "version_conflict"
    )
    present = {**headers, "If_Match": (await service.get(path, company.owner.headers)).headers["etag"]}
    answer = await service.send("PATCH", path, company.owner.headers, end, **present)
    problem(answer, 422, "idempotency_key_reused")


REFUSE_ANSWERS = (
    """create or replace function refuse_answers() returns trigger language plpgsql as $$
    begin raise exception 'disk full' using errcode = '53100'; end $$""",
    """create trigger refuse_answers before update or delete on idempotency_keys
    for each row execute function refuse_answers()""",
)


async def test_done_is_answered_when_the_answer_cannot_be_kept(service: Service) -> None:
    """It was 503 and the key was free at once: the secret was replaced twice, and the one in use lost its overlap."""
    admin = as_service("admin")
    made = ok(
        await service.send("POST", "/v1/webhook-endpoints", admin, {"url": "http://127.0.0.1:9/hooks"}), 201
    )
    endpoint_id = made["webhook_endpoint"]["id"]
    path = f"/v1/webhook-endpoints/{endpoint_id}/rotate-secret"
    secrets = "select secret, former_secret from webhook_endpoints where id = $1"
    [before] = await service.fetch(secrets, endpoint_id)
    for statement in REFUSE_ANSWERS:
        await service.fetch(statement)
    try:
        body = {"overlap_seconds": 3600}
        rotated = await service.send("POST", path, admin, body, Idempotency_Key="rotate")
    finally:
        await service.fetch("drop trigger refuse_answers on idempotency_keys")
    assert ok(rotated)["secret"].startswith("whsec_")
    while (
        again := await service.send("POST", path, admin, body, Idempotency_Key="rotate")
    ).status_code == 409:
        problem(again, 409, "request_in_progress")
        await asyncio.sleep(0.2)
    assert again.headers["idempotency-replayed"] == "true"
    [after] = await service.fetch(secrets, endpoint_id)
    assert after["former_secret"] == before["secret"]
