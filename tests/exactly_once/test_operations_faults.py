"""Changes of members while Stripe fails: lost answers, kept errors, late executions; each is judged by the stand-in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.domain.ids import CustomerId, SubscriptionId
from app.domain.metadata import membership_values, no_membership_values
from app.mirror import refreshing as sync
from app.stripe.gateway import Fetched
from app.stripe.rate_budget import KEEP_SECONDS
from testkit.company import Company, Service, new_email, running_service
from testkit.golden import golden
from testkit.problems import ok, problem
from testkit.service import as_service, as_user

LOST = {"timeout": 0.05, "times": 4}
"""As often as one call is tried: nobody knows what became of it."""
LASTING = {"timeout": 0.05, "times": 0}
"""Until the faults are cleared."""


@pytest.fixture(autouse=True)
async def _golden(service: Service, request: pytest.FixtureRequest) -> AsyncIterator[None]:
    async with golden(service, request):
        yield


async def handed_over(service: Service, answer: Any) -> None:
    """Its runner has given up: the lease is short, and nobody makes it longer."""
    short = (
        "select 1 from operations where id = $1 and lease_until < clock_timestamp() + interval '1.1 seconds'"
    )
    for _ in range(200):
        if await service.fetch(short, answer["operation_id"]):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the runner holds the operation for ten seconds")


async def comes_no_more(service: Service, answer: Any) -> None:
    """The late window goes by: what was sent and never answered has had its time."""
    await service.fetch(
        "update operation_steps set unanswered_at = unanswered_at - interval '6 minutes' where operation_id = $1",
        answer["operation_id"],
    )


async def recovered(service: Service, answer: Any) -> list[tuple[str, str | None]]:
    """Outcomes and codes once a worker has taken the operation up from a runner that is gone."""
    await service.fetch(
        "update operations set lease_until = now() - interval '1 second' where lease_until is not null"
    )
    await service.work_off()
    told = ok(await service.get(f"/v1/operations/{answer['operation_id']}", as_service("read")))
    return [(result["outcome"], result["code"]) for result in told["results"]]


async def no_promise_is_left(service: Service, company: Company) -> None:
    live = "select 1 from reservations where released_at is null and subscription_id = $1"
    assert await service.fetch(live, company.subscription_id) == []


async def writes(company: Company, customer_id: str) -> list[Any]:
    """Those of ours, by the versions that they made."""
    versions = await company.service.stripe.versions(object=customer_id)
    return [version for version in versions if version["actor"]["idempotency_key"]]


async def test_an_answer_lost_after_the_effect_gives_one_effect(service: Service) -> None:
    company = await service.company()
    fault = {"method": "POST", "path": "/v1/customers/{id}", "object": company.stranger.customer_id}
    await service.stripe.add_fault(**fault, timeout=0.05, effect="after")
    answer = ok(await company.change(company.owner.headers, add=[company.stranger.email]))
    assert answer["results"][0]["outcome"] == "applied"
    assert (await company.members())[company.stranger.customer_id] == "user"
    assert len(await writes(company, company.stranger.customer_id)) == 1


async def test_an_answer_lost_before_the_effect_is_sent_again_with_its_key(service: Service) -> None:
    company = await service.company()
    target = company.stranger.customer_id
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", object=target, **LOST)
    answer = ok(await company.change(company.owner.headers, add=[company.stranger.email]))
    assert answer["results"][0]["outcome"] == "applied"
    assert len(await keys_of(service, target)) == 1
    await no_promise_is_left(service, company)


async def keys_of(service: Service, customer_id: str) -> set[str]:
    """Of the requests of ours that were to write a customer."""
    sent = await service.stripe.requests(method="POST", path=f"/v1/customers/{customer_id}")
    return {request["idempotency_key"] for request in sent if request["idempotency_key"]}


async def test_what_stays_lost_is_soon_a_workers(service: Service, hasty: Service) -> None:
    company = await hasty.company()
    target, owner = company.stranger.customer_id, company.owner.headers
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", object=target, **LASTING)
    answer = ok(await company.change(owner, add=[company.stranger.email]), 202)
    assert answer["results"][0]["outcome"] == "pending" and answer["seats"]["reserved"] == 1
    problem(await company.change(owner, add=[company.stranger.email]), 409, "operation_in_progress")
    problem(await company.change(owner, remove=[target]), 409, "operation_in_progress")
    await handed_over(service, answer)
    await service.stripe.clear_faults()
    assert await recovered(service, answer) == [("applied", None)]
    assert len(await keys_of(service, target)) == 1
    await no_promise_is_left(service, company)


async def test_what_a_change_has_read_is_known_though_nothing_came_of_it(
    service: Service, hasty: Service
) -> None:
    """No event tells of him whom somebody has put on the plan by hand; the change that meets him there does."""
    company = await hasty.company(seats=3)
    target = company.stranger.customer_id
    await service.stripe.post(
        f"/v1/customers/{target}",
        metadata=membership_values(SubscriptionId(company.subscription_id), "manager"),
    )
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", object=target, **LASTING)
    answer = ok(await company.change(company.owner.headers, add=[company.stranger.email]), 202)
    await handed_over(service, answer)
    await service.stripe.clear_faults()
    seats = ok(await service.get(f"{company.path}/users", company.owner.headers))["seats"]
    assert (seats["used"], seats["reserved"]) == (3, 0)
    refusal = problem(
        await company.change(company.owner.headers, add=[new_email()]), 409, "seat_limit_reached"
    )
    assert refusal["used"] == 3


@pytest.mark.parametrize("seated", [False, True], ids=["nothing came of it", "he has the seat"])
async def test_a_day_later_nothing_is_sent_and_what_came_of_it_is_told(
    service: Service, hasty: Service, seated: bool
) -> None:
    company = await hasty.company()
    target = company.stranger.customer_id
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", object=target, **LASTING)
    answer = ok(await company.change(company.owner.headers, add=[company.stranger.email]), 202)
    await handed_over(service, answer)
    await service.stripe.clear_faults()
    if seated:
        values = membership_values(SubscriptionId(company.subscription_id), "user")
        await service.stripe.post(f"/v1/customers/{target}", metadata=values)
    await service.fetch(
        """update operation_steps set sent_at = sent_at - interval '24 hours',
            unanswered_at = unanswered_at - interval '24 hours' where operation_id = $1""",
        answer["operation_id"],
    )
    keys = await keys_of(service, target)
    expected = ("applied", None) if seated else ("failed", "operation_expired")
    assert await recovered(service, answer) == [expected]
    assert await keys_of(service, target) == keys
    assert (target in await company.members()) is seated
    await no_promise_is_left(service, company)


async def test_nobody_is_refused_while_he_may_be_seated_yet(service: Service, hasty: Service) -> None:
    """His write was sent and its answer is missing; meanwhile somebody gives him a seat elsewhere by hand."""
    company, other = await hasty.company(), await service.company()
    target = company.stranger.customer_id
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", object=target, **LASTING)
    answer = ok(await company.change(company.owner.headers, add=[company.stranger.email]), 202)
    await handed_over(service, answer)
    await service.stripe.clear_faults()
    seat = membership_values(SubscriptionId(other.subscription_id), "user")
    await service.stripe.post(f"/v1/customers/{target}", metadata=seat)
    assert await recovered(service, answer) == [("pending", None)]
    await comes_no_more(service, answer)
    assert await recovered(service, answer) == [("refused", "member_elsewhere")]
    assert await writes(company, target) == [] and target in await other.members()
    await no_promise_is_left(service, company)


async def test_a_removal_never_takes_somebody_from_another_plan(service: Service, hasty: Service) -> None:
    company, other = await hasty.company(), await hasty.company()
    target = company.user.customer_id
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", object=target, **LASTING)
    answer = ok(await company.change(company.owner.headers, remove=[target]), 202)
    await handed_over(service, answer)
    await service.stripe.clear_faults()
    seat = membership_values(SubscriptionId(other.subscription_id), "user")
    await service.stripe.post(f"/v1/customers/{target}", metadata=seat)
    await service.refresh("customer", target)
    blocked = ok(
        await other.change(other.owner.headers, update=[{"customer_id": target, "role": "manager"}]), 202
    )
    await handed_over(service, blocked)
    assert (await other.members())[target] == "user"
    await comes_no_more(service, answer)
    assert await recovered(service, answer) == [("applied", None)]
    assert await recovered(service, blocked) == [("applied", None)]
    assert (await other.members())[target] == "manager"


async def test_a_refusal_of_stripes_is_no_answer_for_what_was_sent_before(
    service: Service, hasty: Service
) -> None:
    company = await hasty.company()
    target = company.stranger.customer_id
    where = {"method": "POST", "path": "/v1/customers/{id}", "object": target}
    await service.stripe.add_fault(**where, timeout=0.05, times=1)
    await service.stripe.add_fault(**where, status=400, code="parameter_invalid_integer", times=0)
    answer = ok(await company.change(company.owner.headers, add=[company.stranger.email]), 202)
    await handed_over(service, answer)
    assert await recovered(service, answer) == [("pending", None)]
    await comes_no_more(service, answer)
    assert await recovered(service, answer) == [("failed", "stripe_rejected")]
    await service.stripe.clear_faults()
    await no_promise_is_left(service, company)


async def test_a_home_that_is_newer_than_our_news_counts(service: Service) -> None:
    """The other seat is on a subscription of which nothing has been heard here yet, and a person may have one."""
    async with running_service(service.stripe, service.database_url, MEMBERSHIPS_PER_CUSTOMER="1") as guides:
        company = await guides.company()
        target = company.stranger.customer_id
        plan = await service.stripe.post(
            "/v1/subscriptions",
            customer=company.owner.customer_id,
            items=[{"price": company.price_id, "quantity": 3}],
        )
        seat = membership_values(SubscriptionId(plan["id"]), "user")
        await service.stripe.post(f"/v1/customers/{target}", metadata=seat)
        answer = await company.change(company.owner.headers, add=[company.stranger.email])
    problem(answer, 409, "cannot_be_added")
    assert await writes(company, target) == []


async def test_a_key_that_was_used_otherwise_is_looked_after(service: Service) -> None:
    """As if an older release had sent the step with other parameters: read, then sent with a new key."""
    company = await service.company()
    target = company.stranger.customer_id
    read = {"method": "GET", "path": "/v1/customers/{id}", "object": target}
    await service.stripe.add_fault(**read, latency_s=1.0)
    asked = asyncio.create_task(company.change(company.owner.headers, add=[company.stranger.email]))
    await asyncio.sleep(0.5)
    found = await service.fetch("select id from operations order by created_at desc limit 1")
    await service.context.billing.update_customer(
        CustomerId(target), {"phone": "1"}, idempotency_key=f"{found[0]['id']}/0/0"
    )
    assert ok(await asked)["results"][0]["outcome"] == "applied"
    assert target in await company.members()


async def test_who_lost_the_operation_sends_nothing_more(service: Service) -> None:
    """A stopped process goes on after a worker has taken its operation up."""
    company = await service.company()
    target = company.stranger.customer_id
    read = {"method": "GET", "path": "/v1/customers/{id}", "object": target}
    await service.stripe.add_fault(**read, latency_s=1.0)
    asked = asyncio.create_task(company.change(company.owner.headers, add=[company.stranger.email]))
    await asyncio.sleep(0.5)
    await service.fetch(
        "update operations set lease_token = gen_random_uuid() where subscription_id = $1 and settled_at is null",
        company.subscription_id,
    )
    answer = ok(await asked, 202)
    assert await keys_of(service, target) == set()
    assert await recovered(service, answer) == [("applied", None)]


async def test_an_error_that_stripe_keeps_is_read_and_then_sent_under_a_new_key(service: Service) -> None:
    company = await service.company()
    target, email = company.stranger.customer_id, new_email()
    kept = {"method": "POST", "status": 500, "save": True}
    await service.stripe.add_fault(**kept, path="/v1/customers/{id}", object=target)
    await service.stripe.add_fault(**kept, path="/v1/customers", effect="after")
    answer = ok(await company.change(company.owner.headers, add=[company.stranger.email, email]))
    assert [result["outcome"] for result in answer["results"]] == ["applied", "applied"]
    assert len(await keys_of(service, target)) == 2
    created = [one for one in await service.stripe.state("customer") if one.get("email") == email]
    assert len(created) == 1 and created[0]["id"] in await company.members()
    await no_promise_is_left(service, company)


async def test_an_effect_that_stripe_answers_with_an_error_is_never_told_as_refused(
    service: Service, hasty: Service
) -> None:
    """Nor can it be looked up while the manager who asked for it is taken off the plan."""
    company = await hasty.company()
    target, email = company.stranger.customer_id, new_email()
    kept = {"method": "POST", "status": 500, "save": True, "effect": "after"}
    await service.stripe.add_fault(**kept, path="/v1/customers/{id}", object=target)
    await service.stripe.add_fault(**kept, path="/v1/customers")
    await service.stripe.add_fault(method="GET", path="/v1/customers", status=500, times=0)
    asked = asyncio.create_task(company.change(company.manager.headers, add=[company.stranger.email, email]))
    for _ in range(200):
        if await keys_of(service, target):
            break
        await asyncio.sleep(0.01)
    await service.stripe.add_fault(
        method="GET", path="/v1/customers/{id}", object=target, status=500, times=0
    )
    answer = ok(await asked, 202)
    await handed_over(service, answer)
    await service.stripe.clear_faults()
    ok(await company.change(company.owner.headers, remove=[company.manager.customer_id]))
    assert await recovered(service, answer) == [("applied", None), ("applied", None)]
    assert target in await company.members() and email in await company.member_emails()


async def test_a_late_execution_is_waited_for(service: Service) -> None:
    company = await service.company()
    target = company.stranger.customer_id
    fault = {"method": "POST", "path": "/v1/customers/{id}", "object": target}
    await service.stripe.add_fault(**fault, late_s=13.0, effect="after")
    answer = ok(await company.change(company.owner.headers, add=[company.stranger.email]), 202)
    await asyncio.sleep(2.5)
    assert target not in await company.members()
    assert await recovered(service, answer) == [("pending", None)]
    await asyncio.sleep(3.0)
    assert target in await company.members()
    assert await recovered(service, answer) == [("applied", None)]
    assert len(await writes(company, target)) == 1
    ok(await company.change(company.owner.headers, remove=[target]))
    assert target not in await company.members()


async def test_an_answer_from_the_past_never_takes_the_cache_back(service: Service) -> None:
    company = await service.company()
    target, context = company.stranger.customer_id, service.context
    seated = membership_values(SubscriptionId(company.subscription_id), "user")

    async def send() -> Fetched:
        return await context.stripe.metadata_change(CustomerId(target), seated).now(f"once/{target}")

    for _ in range(2):
        await sync.apply(context, await sync.take_lease(context, "customer", target), send)
        await service.stripe.post(f"/v1/customers/{target}", metadata=no_membership_values())
    await service.refresh("customer", target)
    await sync.apply(context, await sync.take_lease(context, "customer", target), send)
    rows = await service.fetch("select member_of from customers where id = $1", target)
    assert rows[0]["member_of"] is None and target not in await company.members()


async def test_who_is_manager_no_more_adds_nobody(service: Service, hasty: Service) -> None:
    company = await hasty.company()
    plan = {"method": "GET", "path": "/v1/subscriptions/{id}", "object": company.subscription_id}
    await service.stripe.add_fault(**plan, status=500, times=0)
    answer = ok(await company.change(company.manager.headers, add=[new_email(), company.stranger.email]), 202)
    await handed_over(service, answer)
    await service.stripe.clear_faults()
    before = await company.members()
    ok(await company.change(company.owner.headers, remove=[company.manager.customer_id]))
    assert await recovered(service, answer) == [("refused", "role_required")] * 2
    assert (await company.members()).keys() == before.keys() - {company.manager.customer_id}
    await no_promise_is_left(service, company)


@asynccontextmanager
async def no_grants_for(service: Service, endpoint: str) -> AsyncIterator[None]:
    """Calls to the endpoint wait for the account's rate budget until the block ends."""
    await service.fetch(
        """insert into rate_grants (granted_at, counts_until, work, endpoint, number)
        values (now(), now() + interval '1 hour', 'bulk', $1, 1000000)""",
        endpoint,
    )
    await asyncio.sleep(KEEP_SECONDS)  # Until what was drawn to spare before has ended.
    yield
    await service.fetch("delete from rate_grants where endpoint = $1", endpoint)


async def waiting_to_send(service: Service, company: Company, kind: str) -> None:
    """Its runner has read what it needs, and nothing has left."""
    states = """select s.state from operation_steps s join operations o on o.id = s.operation_id
        where o.subscription_id = $1 and o.kind = $2"""
    for _ in range(200):
        if await service.fetch(states, company.subscription_id, kind):
            break
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    assert [row["state"] for row in await service.fetch(states, company.subscription_id, kind)] == ["planned"]


@pytest.mark.parametrize("news", ["read", "noted"])
async def test_who_loses_his_right_while_the_rate_is_spent_adds_nobody(service: Service, news: str) -> None:
    """The right is looked at when the write leaves, not before it waits for its turn.

    An event that comes close upon a read is noted only; before the write leaves it is read.
    """
    company = await service.company()
    manager = company.manager.customer_id
    async with no_grants_for(service, "POST /v1/customers/{id}"):
        asked = asyncio.create_task(company.change(company.manager.headers, add=[company.stranger.email]))
        await waiting_to_send(service, company, "member_change")
        now = await service.stripe.post(f"/v1/customers/{manager}", metadata=no_membership_values())
        if news == "read":
            await service.refresh("customer", manager)
        else:
            await service.deliver_state("customer", now, later=0)
            [row] = await service.fetch("select member_of from customers where id = $1", manager)
            assert row["member_of"] == company.subscription_id
    problem(await asked, 409, "role_required")
    assert await writes(company, company.stranger.customer_id) == []
    await no_promise_is_left(service, company)


async def test_who_loses_his_right_while_the_rate_is_spent_changes_no_plan(service: Service) -> None:
    company = await service.company()
    async with no_grants_for(service, "POST /v1/subscriptions/{id}"):
        asked = asyncio.create_task(
            service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 9})
        )
        await waiting_to_send(service, company, "update_subscription")
        other = {"billing_shared_subscription_owner": company.manager.customer_id}
        now = await service.stripe.post(f"/v1/subscriptions/{company.subscription_id}", metadata=other)
        await service.deliver_state("subscription", now)
    problem(await asked, 403, "role_required")
    assert (await company.state())["items"]["data"][0]["quantity"] == 5


async def test_adds_wait_for_the_seat_that_their_own_call_frees(service: Service, hasty: Service) -> None:
    company = await hasty.company(seats=2)
    leaving = company.user.customer_id
    await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", object=leaving, **LASTING)
    change = await company.change(company.owner.headers, remove=[leaving], add=[company.stranger.email])
    answer = ok(change, 202)
    assert [result["outcome"] for result in answer["results"]] == ["pending", "pending"]
    await handed_over(service, answer)
    await service.stripe.clear_faults()
    assert await recovered(service, answer) == [("applied", None), ("applied", None)]
    assert (await company.members()).keys() == {company.manager.customer_id, company.stranger.customer_id}


async def test_who_was_made_for_an_email_is_counted_once_before_his_answer_comes(service: Service) -> None:
    """The event of his creation overtakes the answer: he is a member then, and promised a seat no more."""
    company = await service.company(seats=4)
    email, who = new_email(), company.owner.headers
    await service.stripe.add_fault(method="POST", path="/v1/customers", answer_s=3)
    asked = asyncio.create_task(company.change(who, add=[email]))
    made: list[Any] = []
    while not made:
        await asyncio.sleep(0.01)
        made = [one for one in await service.stripe.state("customer") if one.get("email") == email]
    await service.refresh("customer", made[0]["id"])
    seats = ok(await service.get(f"{company.path}/users", who))["seats"]
    assert not asked.done()
    assert (seats["used"], seats["reserved"]) == (3, 0)
    ok(await company.change(who, add=[company.stranger.email]))
    ok(await asked)
    assert len(await company.members()) == 4


@pytest.mark.parametrize("act", ["add", "remove", "create", "create and seat"])
async def test_what_came_about_behind_a_500_and_was_undone_is_not_done_again(
    service: Service, hasty: Service, act: str
) -> None:
    """Stripe answers 500 and carries it out all the same; before anybody can look, somebody undoes it by hand."""
    company = await hasty.company()
    person = company.user if act == "remove" else company.stranger
    is_new = act.startswith("create")
    target, email = person.customer_id, new_email() if is_new else person.email
    path, of = "/v1/customers", {"path": "/v1/customers"}
    if not is_new:
        path, of = f"/v1/customers/{target}", {"path": "/v1/customers/{id}", "object": target}
    await service.stripe.add_fault(**of, method="POST", status=500, save=True, effect="after")
    add, remove = ([], [target]) if act == "remove" else ([email], [])
    asked = asyncio.create_task(company.change(company.owner.headers, add=add, remove=remove))
    for _ in range(200):
        if [one for one in await service.stripe.requests(method="POST", path=path) if one["idempotency_key"]]:
            break
        await asyncio.sleep(0.01)
    await service.stripe.add_fault(**of, method="GET", status=500, times=0)
    answer = ok(await asked, 202)
    await handed_over(service, answer)
    await service.stripe.clear_faults()
    if is_new:
        [target] = [one["id"] for one in await service.stripe.state("customer") if one.get("email") == email]
    if act == "create":
        await service.stripe.delete(f"/v1/customers/{target}")
    else:
        home = SubscriptionId(company.subscription_id)
        undone = membership_values(home, "user") if act == "remove" else no_membership_values()
        await service.stripe.post(f"/v1/customers/{target}", metadata=undone)
    assert await recovered(service, answer) == [("failed", "changed_meanwhile")]
    assert len(await writes(company, target)) == 1
    assert (email in await company.member_emails()) is (act == "remove")
    await no_promise_is_left(service, company)


async def test_the_first_login_reaches_the_seat_of_an_email_whose_first_customer_was_deleted(
    service: Service,
) -> None:
    company = await service.company()
    email, who = new_email(), company.owner.headers
    first = ok(await company.change(who, add=[email]))["results"][0]["customer_id"]
    await service.stripe.delete(f"/v1/customers/{first}")
    await service.refresh("customer", first)
    second = ok(await company.change(who, add=[email]))["results"][0]["customer_id"]
    person = as_user(f"person-{email}", email=email, email_verified=True)
    reached = ok(await service.send("POST", "/v1/customers", person, {}))
    assert reached["customer"]["id"] == second != first


async def test_a_key_that_may_not_read_events_settles_nothing_as_failed(service: Service) -> None:
    """A restricted key: what the object shows has to do then."""
    company = await service.company()
    target = company.stranger.customer_id
    await service.stripe.add_fault(method="GET", path="/v1/events", status=403, times=0)
    kept = {"method": "POST", "path": "/v1/customers/{id}", "object": target, "status": 500, "save": True}
    await service.stripe.add_fault(**kept)
    answer = ok(await company.change(company.owner.headers, add=[company.stranger.email]))
    await service.stripe.clear_faults()
    assert answer["results"][0]["outcome"] == "applied"
    assert len(await keys_of(service, target)) == 2


async def test_adding_removing_and_adding_again_are_three_effects(service: Service) -> None:
    company = await service.company()
    target, who = company.stranger.customer_id, company.owner.headers
    ok(await company.change(who, add=[company.stranger.email]))
    ok(await company.change(who, remove=[target]))
    ok(await company.change(who, add=[target]))
    made = await writes(company, target)
    states = [version["state"]["metadata"].get("billing_shared_subscription_id") for version in made]
    assert states == [company.subscription_id, None, company.subscription_id]
    assert len({version["actor"]["idempotency_key"] for version in made}) == 3


async def test_one_key_gives_one_effect_and_one_answer(service: Service) -> None:
    company = await service.company()
    email, who = new_email(), company.owner.headers
    first = await company.change(who, add=[email], key="once")
    again = await company.change(who, add=[email], key="once")
    assert ok(first) == ok(again) and again.headers["Idempotency-Replayed"] == "true"
    problem(await company.change(who, add=[new_email()], key="once"), 422, "idempotency_key_reused")
    assert [one.get("email") for one in await service.stripe.state("customer")].count(email) == 1


async def test_the_first_login_reaches_the_seat_once(service: Service) -> None:
    company = await service.company()
    email = new_email()
    result = ok(await company.change(company.owner.headers, add=[email]))["results"][0]
    unverified = as_user("someone-else", email=email, email_verified=False)
    other = ok(await service.send("POST", "/v1/customers", unverified, {}), 201)
    assert other["customer"]["id"] != result["customer_id"]
    person = as_user(f"person-{email}", email=email, email_verified=True)
    reached = await service.send("POST", "/v1/customers", person, {})
    assert reached.status_code in (200, 201) and reached.json()["customer"]["id"] == result["customer_id"]
    assert ok(await service.get(company.path, person))["subscription"]["role"] == "user"
    second = as_user(f"second-{email}", email=email, email_verified=True)
    ok(await service.send("POST", "/v1/customers", second, {}), 201)
    problem(await service.get(company.path, second), 404, "not_found")


async def test_nobody_gets_a_seat_by_editing_his_own_email(service: Service) -> None:
    company = await service.company()
    email = new_email()
    result = ok(await company.change(company.owner.headers, add=[email]))["results"][0]
    thief = company.stranger
    edited = await service.send("PATCH", "/v1/customers/me", thief.headers, {"email": email})
    assert edited.status_code == 403, edited.text
    await service.stripe.post(f"/v1/customers/{thief.customer_id}", email=email)
    await service.refresh("customer", thief.customer_id)
    problem(await service.get(company.path, thief.headers), 404, "not_found")
    assert (await company.members())[result["customer_id"]] == "user"
    assert thief.customer_id not in await company.members()


async def test_adding_a_foreign_customer_shows_nothing_of_him(service: Service) -> None:
    company = await service.company()
    foreign, owner = company.stranger, company.owner.headers
    result = ok(await company.change(owner, add=[foreign.email.upper()]))["results"][0]
    people = ok(await service.get(f"{company.path}/users", owner))["data"]
    row = next(one for one in people if one["customer_id"] == result["customer_id"])
    assert row["name"] is None and row["email"] == foreign.email.upper()
    for path in (
        f"/v1/customers/{foreign.customer_id}",
        f"/v1/customers/{foreign.customer_id}/subscriptions",
        f"/v1/customers/{foreign.customer_id}/invoices",
        f"/v1/customers/{foreign.customer_id}/payment-methods",
    ):
        problem(await service.get(path, owner), 404, "not_found")
    by_id = await company.change(owner, add=[(await service.person("other")).customer_id])
    problem(by_id, 409, "not_found")


async def test_a_plan_that_cannot_be_read_refuses_nothing(service: Service, hasty: Service) -> None:
    """Stripe refuses the reading before the first step: that is no answer to what was asked."""
    company = await hasty.company()
    plan = {"method": "GET", "path": "/v1/subscriptions/{id}", "object": company.subscription_id}
    await service.stripe.add_fault(**plan, status=400, code="parameter_invalid_integer", times=0)
    answer = ok(await company.change(company.owner.headers, add=[company.stranger.email]), 202)
    await handed_over(service, answer)
    await service.stripe.clear_faults()
    assert await recovered(service, answer) == [("applied", None)]
