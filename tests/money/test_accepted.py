"""Changes of a plan whose answer stays lost: 202 with an operation that a worker settles, once, whatever it finds.

What never reached Stripe was not accepted: nothing is left of it, and a quote is as good as before.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from testkit.company import Company, running_service
from testkit.golden import golden
from testkit.problems import problem
from testkit.service import as_service
from testkit.simulator import Simulator
from tests.money.shop import DECLINED, Shop, handed_over, settled_by_a_worker, worked_on

LASTING = {"timeout": 0.05, "times": 0}
CREATE = {"method": "POST", "path": "/v1/subscriptions"}
UPDATE = {"method": "POST", "path": "/v1/subscriptions/{id}"}


@pytest.fixture(autouse=True)
async def _no_faults_left(shop: Shop) -> AsyncIterator[None]:
    yield
    await shop.stripe.clear_faults()


@pytest.fixture(autouse=True)
async def _golden(shop: Shop, request: pytest.FixtureRequest) -> AsyncIterator[None]:
    async with golden(shop.service, request):
        yield


@pytest.fixture
async def cut_off(shop: Shop) -> AsyncIterator[Shop]:
    """The same again, with nobody where Stripe should be."""
    nobody = Simulator("http://127.0.0.1:9", shop.stripe.api_key)
    async with running_service(nobody, shop.service.database_url, OPERATION_DEADLINE="3") as service:
        yield Shop(service)


async def ask(shop: Shop, name: str, company: Company, **headers: str) -> httpx.Response:
    """One of the writes of the subscription itself, by its owner."""
    method, path, body = {
        "setSeats": ("PUT", f"{company.path}/seats", {"total": 8}),
        "updateSubscription": (
            "PATCH",
            f"/v1/subscriptions/{company.subscription_id}",
            {"cancel_at_period_end": True},
        ),
        "cancelSubscription": ("POST", f"/v1/subscriptions/{company.subscription_id}/cancel", {}),
        "resumeSubscription": ("POST", f"/v1/subscriptions/{company.subscription_id}/resume", None),
    }[name]
    return await shop.service.send(method, path, company.owner.headers, body, **headers)


ACTIONS = {
    "setSeats": "seats",
    "updateSubscription": "items",
    "cancelSubscription": "cancel",
    "resumeSubscription": "resume",
}
"""The action that the result of each write names (readings, changes at Stripe 3)."""


def has_happened(name: str, state: dict[str, Any]) -> bool:
    if name == "setSeats":
        return bool(state["items"]["data"][0]["quantity"] == 8)
    return bool(state["cancel_at_period_end"] == (name != "resumeSubscription"))


@pytest.mark.parametrize("name", ACTIONS)
async def test_a_change_whose_answer_stays_lost_is_accepted(shop: Shop, hasty: Shop, name: str) -> None:
    company = await shop.service.company()
    if name == "resumeSubscription":
        assert (await ask(shop, "cancelSubscription", company)).status_code == 200
    await shop.stripe.add_fault(**UPDATE, **LASTING)
    answer = await ask(hasty, name, company, Idempotency_Key=f"lasting {name}")
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert (told["state"], [r["outcome"] for r in told["results"]]) == ("running", ["pending"])
    assert [r["action"] for r in told["results"]] == [ACTIONS[name]]
    assert answer.headers["retry-after"] and answer.headers["location"].endswith(told["operation_id"])
    problem(await ask(hasty, "setSeats", company), 409, "operation_in_progress")
    await handed_over(shop, told["operation_id"])
    await shop.stripe.clear_faults()
    assert not has_happened(name, await company.state())
    done = await settled_by_a_worker(shop, answer)
    assert (done["state"], [(r["outcome"], r["code"]) for r in done["results"]]) == (
        "settled",
        [("applied", None)],
    )
    assert [r["action"] for r in done["results"]] == [ACTIONS[name]]
    assert has_happened(name, await company.state())
    versions = await shop.stripe.versions(object=company.subscription_id)
    keys = [v["actor"]["idempotency_key"] for v in versions if v["actor"]["idempotency_key"]]
    assert [key for key in keys if key.startswith(told["operation_id"])] == [f"{told['operation_id']}/0/0"]
    again = await ask(shop, name, company, Idempotency_Key=f"lasting {name}")
    assert (again.status_code, again.content) == (202, answer.content)


async def test_who_asks_again_for_what_failed_meanwhile_is_told_why(shop: Shop, hasty: Shop) -> None:
    """The process that took the first request died before it could keep an answer."""
    company = await shop.service.company()
    await shop.stripe.add_fault(**UPDATE, **LASTING)
    answer = await ask(hasty, "setSeats", company, Idempotency_Key="too late")
    operation_id = answer.json()["operation_id"]
    await handed_over(shop, operation_id)
    await shop.stripe.clear_faults()
    await shop.service.fetch(
        """update operation_steps set sent_at = sent_at - interval '24 hours',
            unanswered_at = unanswered_at - interval '24 hours' where operation_id = $1""",
        operation_id,
    )
    done = await settled_by_a_worker(shop, answer)
    assert [(r["outcome"], r["code"]) for r in done["results"]] == [("failed", "operation_expired")]
    await shop.service.fetch("delete from idempotency_keys where key = 'too late' returning key")
    again = await ask(shop, "setSeats", company, Idempotency_Key="too late")
    problem(again, 409, "operation_expired")
    assert not has_happened("setSeats", await company.state())


async def test_a_purchase_is_looked_for_until_it_can_come_no_more(shop: Shop, hasty: Shop) -> None:
    buyer, card = await shop.buyer()
    items = [{"price_id": await shop.price(), "quantity": 2}]
    await shop.stripe.add_fault(**CREATE, **LASTING)
    answer = await hasty.add(buyer.headers, items, payment_method_id=card)
    assert answer.status_code == 202, answer.text
    operation_id = answer.json()["operation_id"]
    await handed_over(shop, operation_id)
    await shop.stripe.clear_faults()
    told = (await worked_on(shop, operation_id)).json()
    assert told["state"] == "running"
    await shop.service.fetch(
        "update operation_steps set unanswered_at = unanswered_at - interval '6 minutes' where operation_id = $1",
        operation_id,
    )
    told = (await worked_on(shop, operation_id)).json()
    assert [(r["action"], r["outcome"], r["code"]) for r in told["results"]] == [
        ("purchase", "failed", "stripe_rejected")
    ]
    assert await shop.all_of(buyer) == []
    made = await shop.bought(buyer.headers, items, payment_method_id=card)
    assert [one["id"] for one in await shop.all_of(buyer)] == [made["id"]]


async def test_a_purchase_that_comes_late_is_found(shop: Shop, hasty: Shop) -> None:
    """It is carried out three seconds after it was sent; a worker that looks before does not give it up."""
    buyer, card = await shop.buyer()
    items = [{"price_id": await shop.price(), "quantity": 2}]
    await shop.stripe.add_fault(**CREATE, late_s=3.0, effect="after")
    answer = await hasty.add(buyer.headers, items, payment_method_id=card)
    assert answer.status_code == 202, answer.text
    operation_id = answer.json()["operation_id"]
    assert (await worked_on(shop, operation_id)).json()["state"] == "running"
    for _ in range(200):
        if await shop.all_of(buyer):
            break
        await asyncio.sleep(0.05)
    told = (await worked_on(shop, operation_id)).json()
    assert [(r["outcome"], r["code"]) for r in told["results"]] == [("applied", None)]
    listed = (await shop.service.get("/v1/customers/me/subscriptions", buyer.headers)).json()["data"]
    assert [(one["status"], one["role"]) for one in listed] == [("active", "owner")]


async def test_what_never_reached_stripe_was_not_accepted(shop: Shop, cut_off: Shop) -> None:
    company = await shop.service.company()
    quote = await shop.service.send("POST", f"{company.path}/quote", company.owner.headers, {"total": 8})
    body = {"total": 8, "quote_id": quote.json()["quote_id"]}
    path, who = f"{company.path}/seats", company.owner.headers
    answer = await cut_off.service.send("PUT", path, who, body, Idempotency_Key="unreached")
    problem(answer, 503, "stripe_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    begun = "select id from operations where subscription_id = $1"
    assert await shop.service.fetch(begun, company.subscription_id) == []
    done = await shop.service.send("PUT", path, who, body, Idempotency_Key="unreached")
    assert done.status_code == 200, done.text
    assert done.json()["subscription"]["shared"]["seats"]["total"] == 8


async def test_a_quote_outlives_a_card_that_is_declined(shop: Shop) -> None:
    buyer, card = await shop.buyer()
    made = await shop.bought(
        buyer.headers, [{"price_id": await shop.price(), "quantity": 2}], payment_method_id=card
    )
    more = [{"id": made["items"][0]["id"], "quantity": 5}]
    quote = (await shop.preview(buyer.headers, made["id"], items=more))["quote_id"]
    bad = await shop.card(buyer, DECLINED)
    asked: dict[str, Any] = {"items": more, "quote_id": quote}
    answer = await shop.change(buyer.headers, made["id"], payment_method_id=bad, **asked)
    problem(answer, 402, "card_declined")
    answer = await shop.change(buyer.headers, made["id"], payment_method_id=card, **asked)
    assert answer.status_code == 200, answer.text
    problem(await shop.change(buyer.headers, made["id"], **asked), 409, "quote_expired")
    invoices = await shop.invoices(buyer.headers, made["id"])
    assert sorted(invoice["amount_paid"] for invoice in invoices) == [2000, 3000]


async def test_a_quote_for_seats_outlives_a_refusal(shop: Shop) -> None:
    """The quantity write of an addition is refused: the same call may come again with its quote."""
    company = await shop.service.company(seats=2)
    email = "late.comer@example.com"
    change: dict[str, Any] = {"add": [{"email": email}]}
    quote = await shop.service.send("POST", f"{company.path}/quote", company.owner.headers, change)
    change |= {"over_capacity": "add_seats", "quote_id": quote.json()["quote_id"]}
    await shop.stripe.add_fault(**UPDATE, status=400, code="parameter_invalid_integer")
    answer = await shop.service.send("PATCH", f"{company.path}/users", company.owner.headers, change)
    problem(answer, 409, "stripe_rejected")
    answer = await shop.service.send("PATCH", f"{company.path}/users", company.owner.headers, change)
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][0]["outcome"] == "applied"
    told = await shop.service.get(f"/v1/operations/{answer.json()['operation_id']}", as_service("read"))
    assert told.json()["state"] == "settled"


@pytest.mark.parametrize("still_owner", [True, False])
async def test_a_worker_begins_nothing_for_who_has_lost_his_right(
    shop: Shop, cut_off: Shop, still_owner: bool
) -> None:
    """Whoever asked for it is gone before anything could be sent."""
    company = await shop.service.company()
    asked = asyncio.create_task(ask(cut_off, "setSeats", company))
    begun = "select id from operations where subscription_id = $1"
    found: list[Any] = []
    for _ in range(200):
        await asyncio.sleep(0.05)
        if found := await shop.service.fetch(begun, company.subscription_id):
            break
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    [operation] = found
    await handed_over(shop, operation["id"])
    if not still_owner:
        other = {"billing_shared_subscription_owner": company.manager.customer_id}
        await shop.stripe.post(f"/v1/subscriptions/{company.subscription_id}", metadata=other)
    told = (await worked_on(shop, operation["id"])).json()
    expected = ("applied", None) if still_owner else ("failed", "role_required")
    assert [(r["outcome"], r["code"]) for r in told["results"]] == [expected]
    assert has_happened("setSeats", await company.state()) is still_owner
