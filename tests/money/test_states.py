"""What a subscription takes in each status that is not active: what reduces is never refused for a status."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from testkit.company import Person, Who, running_service
from testkit.problems import problem
from testkit.service import as_service
from testkit.simulator import Simulator, new_account_key
from tests.money.shop import VISA, Shop, at

DAY = 86_400
FAILING = "pm_card_chargeCustomerFail"
DUNNING = {"retry_days": [3, 7], "final": "unpaid"}
STATUSES = ["past_due", "unpaid", "paused"]


@pytest.fixture
async def still(stripe_simulator: str, database_url: str) -> AsyncIterator[Shop]:
    """A shop where time moves only when a test moves it."""
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, database_url) as service,
    ):
        await stripe.control("POST", "clock", freeze=True)
        await stripe.settings(dunning=DUNNING)
        yield Shop(service)


async def in_status(shop: Shop, status: str, *, quantity: int = 4) -> tuple[Person, dict[str, Any]]:
    """A buyer whose subscription of so many seats has come to that status as it would at Stripe."""
    buyer, card = await shop.buyer(card=None if status == "incomplete" else VISA)
    team = await shop.price(await shop.product(shared=True))
    items = [{"price_id": team, "quantity": quantity}]
    if card is None:
        made = (await shop.unpaid(buyer.headers, items)).subscription
    else:
        made = await shop.bought(buyer.headers, items, payment_method_id=card)
    if status == "paused":
        await shop.stripe.post(f"/v1/subscriptions/{made['id']}/pause", type="subscription")
    elif status != "incomplete":
        failing = await shop.card(buyer, FAILING)
        await shop.stripe.post(f"/v1/subscriptions/{made['id']}", default_payment_method=failing)
        await shop.stripe.advance((31.2 if status == "past_due" else 44) * DAY)
    await shop.listen()
    found = await shop.subscription(buyer.headers, made["id"])
    assert found["status"] == status
    return buyer, found


async def set_seats(shop: Shop, who: Who, subscription_id: str, **body: Any) -> httpx.Response:
    path = f"/v1/shared-subscriptions/{subscription_id}/seats"
    return await shop.service.send("PUT", path, who, body)


@pytest.mark.parametrize("status", STATUSES)
async def test_fewer_seats_are_not_refused_for_a_status(still: Shop, status: str) -> None:
    """M16: 409 `subscription_not_active`, also for an admin key. What is not paid may ask for `forgo_credit`."""
    buyer, made = await in_status(still, status)
    for who, total in ((buyer.headers, 3), (as_service("admin"), 2)):
        answer = await set_seats(still, who, made["id"], total=total)
        if status != "paused":
            problem(answer, 409, "invoice_unpaid")
            answer = await set_seats(still, who, made["id"], total=total, forgo_credit=True)
        assert answer.status_code == 200, answer.text
        assert (await still.true(made["id"]))["items"]["data"][0]["quantity"] == total
    problem(await set_seats(still, buyer.headers, made["id"], total=9), 409, "subscription_not_active")
    assert (await still.true(made["id"]))["status"] == status


@pytest.mark.parametrize("status", STATUSES)
async def test_ends_are_set_and_taken_back_in_a_status(still: Shop, status: str) -> None:
    """M16: an end of the period is set in one call, and taken back in one call."""
    buyer, made = await in_status(still, status)
    path = f"/v1/subscriptions/{made['id']}"
    answer = await still.service.send("POST", f"{path}/cancel", buyer.headers)
    assert answer.status_code == 200, answer.text
    true = await still.true(made["id"])
    assert (true["status"], true["cancel_at"]) == (status, at(answer.json()["ends_at"]))
    again = await still.service.send("POST", f"{path}/cancel", buyer.headers)
    assert (again.status_code, again.json()) == (200, answer.json())
    for _ in range(2):
        back = await still.service.send("POST", f"{path}/resume", buyer.headers)
        assert back.status_code == 200, back.text
        assert back.json()["subscription"]["cancel_at"] is None
    true = await still.true(made["id"])
    assert (true["cancel_at"], true["cancel_at_period_end"]) == (None, False)
    assert true["status"] == ("active" if status == "paused" else status)
    ended = await still.service.send("POST", f"{path}/cancel", buyer.headers, {"when": "now"})
    assert ended.json()["subscription"]["status"] == "canceled"


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("cancel", None),
        ("cancel", {"when": "period_end"}),
        ("cancel", {"when": "earliest_period_end"}),
        ("cancel", {"when": "latest_period_end"}),
        ("cancel", {"when": "now"}),
        ("", {"cancel_at_period_end": True}),
    ],
)
async def test_incomplete_subscription_ends_at_once_when_any_end_is_asked_for(
    still: Shop, route: str, body: Any
) -> None:
    """M16, T11: Stripe takes nothing but metadata there, and nothing was paid that could run out."""
    buyer, made = await in_status(still, "incomplete")
    path = f"/v1/subscriptions/{made['id']}"
    if route:
        answer = await still.service.send("POST", f"{path}/cancel", buyer.headers, body)
        told = answer.json()
        assert (told["ends_at"], told["further_charges"]) == (told["subscription"]["ended_at"], [])
        assert told["ends_at"] is not None
    else:
        answer = await still.service.send("PATCH", path, buyer.headers, body)
    assert answer.status_code == 200, answer.text
    # Its invoice is void, which ends it.
    assert answer.json()["subscription"]["status"] == "incomplete_expired"
    assert (await still.true(made["id"]))["status"] == "incomplete_expired"
    assert await still.asked("POST", path) == 0


async def test_incomplete_subscription_is_left_alone_when_it_was_paid_meanwhile(still: Shop) -> None:
    """M16: the cache said `incomplete`; ending it at once would have taken a month that was just paid."""
    buyer, made = await in_status(still, "incomplete")
    card = await still.card(buyer)
    await still.stripe.post(f"/v1/invoices/{made['latest_invoice_id']}/pay", payment_method=card)
    path = f"/v1/subscriptions/{made['id']}"
    answer = await still.service.send("POST", f"{path}/cancel", buyer.headers)
    problem(answer, 409, "version_conflict")
    assert (await still.true(made["id"]))["status"] == "active"
    await still.listen()
    answer = await still.service.send("POST", f"{path}/cancel", buyer.headers)
    assert (answer.status_code, answer.json()["subscription"]["status"]) == (200, "active")
    assert (await still.true(made["id"]))["cancel_at_period_end"] is True


async def test_incomplete_subscription_takes_removals_and_nothing_else(still: Shop) -> None:
    """M16, T11: people may go; what Stripe would refuse is refused before it is asked."""
    buyer, made = await in_status(still, "incomplete")
    member = await still.service.person(
        "user",
        billing_shared_subscription_id=made["id"],
        billing_shared_subscription_role="manager",
    )
    shared = f"/v1/shared-subscriptions/{made['id']}"
    for body in (
        {"update": [{"customer_id": member.customer_id, "role": "user"}]},
        {"remove": [member.customer_id]},
    ):
        answer = await still.service.send("PATCH", f"{shared}/users", buyer.headers, body)
        assert answer.status_code == 200, answer.text
    card = await still.card(buyer)
    path = f"/v1/subscriptions/{made['id']}"
    before = await still.true(made["id"])
    item = made["items"][0]["id"]
    for who, change in (
        (buyer.headers, {"payment_method_id": card}),
        (buyer.headers, {"items": [{"id": item, "quantity": 2}]}),
        (buyer.headers, {"cancel_at_period_end": True, "payment_method_id": card}),
        (as_service("admin"), {"default_tax_rates": []}),
    ):
        answer = await still.service.send("PATCH", path, who, change)
        problem(answer, 409, "subscription_not_active")
        previewed = await still.service.send("POST", f"{path}/preview", who, change)
        if "payment_method_id" not in change:
            problem(previewed, 409, "subscription_not_active")
    resumed = await still.service.send("POST", f"{path}/resume", buyer.headers)
    assert (resumed.status_code, await still.true(made["id"])) == (200, before)
    assert await still.asked("POST", path) == 0


async def test_default_is_not_written_to_a_subscription_when_it_is_incomplete(still: Shop) -> None:
    """T11: Stripe refuses it, and the whole change of the default was 502."""
    buyer, own = await still.buyer()
    waiting = await still.stripe.post(
        "/v1/subscriptions",
        customer=buyer.customer_id,
        items=[{"price": await still.price()}],
        default_payment_method=own,
        payment_behavior="default_incomplete",
    )
    await still.listen()
    other = await still.card(buyer)
    answer = await still.service.send(
        "PUT", "/v1/customers/me/default-payment-method", buyer.headers, {"payment_method_id": other}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["payment_method"]["is_default"] is True
    assert await still.asked("POST", f"/v1/subscriptions/{waiting['id']}") == 0
    assert (await still.true(waiting["id"]))["default_payment_method"] == own


async def test_seats_of_removed_people_are_given_back_when_it_is_paused(still: Shop) -> None:
    """M16, M24: as fewer seats by themselves, which nothing is credited for while it is paused."""
    buyer, made = await in_status(still, "paused")
    member = await still.service.person("user", billing_shared_subscription_id=made["id"])
    body = {"remove": [member.customer_id], "release_seats": True}
    path = f"/v1/shared-subscriptions/{made['id']}"
    quoted = await still.service.send("POST", f"{path}/quote", buyer.headers, body)
    assert (quoted.status_code, quoted.json().get("credit")) == (200, 0), quoted.text
    body["quote_id"] = quoted.json()["quote_id"]
    answer = await still.service.send("PATCH", f"{path}/users", buyer.headers, body)
    assert answer.status_code == 200, answer.text
    assert [result["outcome"] for result in answer.json()["results"]] == ["applied", "applied"]
    now = await still.true(made["id"])
    assert (now["items"]["data"][0]["quantity"], now["status"]) == (3, "paused")


async def test_nobody_is_removed_when_an_incomplete_subscription_cannot_give_seats_back(still: Shop) -> None:
    """M16, T11: Stripe takes no fewer seats there, so the whole call is refused; a removal by itself works."""
    buyer, made = await in_status(still, "incomplete")
    member = await still.service.person("user", billing_shared_subscription_id=made["id"])
    path = f"/v1/shared-subscriptions/{made['id']}/users"
    body = {"remove": [member.customer_id], "release_seats": True}
    problem(await still.service.send("PATCH", path, buyer.headers, body), 409, "subscription_not_active")
    alone = await still.service.send("PATCH", path, buyer.headers, {"remove": [member.customer_id]})
    assert alone.json()["results"][0]["outcome"] == "applied"


async def test_incomplete_subscription_ends_now_without_credit_when_it_is_to_be_prorated(still: Shop) -> None:
    """T12: nobody paid for it, so there is nothing to give back."""
    buyer, made = await in_status(still, "incomplete")
    path = f"/v1/subscriptions/{made['id']}/cancel"
    answer = await still.service.send("POST", path, as_service("admin"), {"when": "now", "prorate": True})
    assert answer.status_code == 200, answer.text
    assert (await still.stripe.get(f"/v1/customers/{buyer.customer_id}"))["balance"] == 0
