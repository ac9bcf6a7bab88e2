"""A purchase behind a 504 from in front of Stripe whose request still runs: one subscription, never failed."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from testkit.problems import ok
from tests.money.shop import Shop, handed_over, worked_on

CREATE = {"method": "POST", "path": "/v1/subscriptions"}
LATE = {"status": 504, "late_s": 3.0}


@pytest.fixture(autouse=True)
async def _no_faults_left(shop: Shop) -> AsyncIterator[None]:
    yield
    await shop.stripe.clear_faults()


async def test_purchase_makes_one_subscription_when_its_first_request_runs_late(shop: Shop) -> None:
    """W1: two subscriptions."""
    buyer, card = await shop.buyer()
    items = [{"price_id": await shop.price(), "quantity": 2}]
    await shop.stripe.add_fault(**CREATE, **LATE)
    made = await shop.bought(buyer.headers, items, payment_method_id=card)
    await asyncio.sleep(3.5)
    assert [one["id"] for one in await shop.all_of(buyer)] == [made["id"]]


async def test_purchase_is_never_failed_when_its_second_request_is_refused_and_the_first_runs_late(
    shop: Shop, hasty: Shop
) -> None:
    """W1: a decline or a 400 of a later request says nothing of the one that still runs."""
    buyer, card = await shop.buyer()
    items = [{"price_id": await shop.price(), "quantity": 2}]
    await shop.stripe.add_fault(**CREATE, **LATE, save=True)
    await shop.stripe.add_fault(**CREATE, status=400, code="parameter_invalid_integer", times=0)
    answer = await hasty.add(buyer.headers, items, payment_method_id=card)
    assert answer.status_code == 202, answer.text
    operation_id = answer.json()["operation_id"]
    await handed_over(shop, operation_id)
    assert (await worked_on(shop, operation_id)).json()["state"] == "running"
    await asyncio.sleep(3.5)
    told = (await worked_on(shop, operation_id)).json()
    assert [(result["outcome"], result["code"]) for result in told["results"]] == [("applied", None)]
    assert len(await shop.all_of(buyer)) == 1


async def test_waiting_purchase_keeps_its_own_key_when_its_answer_is_lost(shop: Shop, hasty: Shop) -> None:
    """The bank asks for the holder, and the request that lets the subscription wait gets no answer in time."""
    buyer, _ = await shop.buyer(card=None)
    card = await shop.card(buyer, "pm_card_authenticationRequired")
    items = [{"price_id": await shop.price(), "quantity": 2}]
    await shop.stripe.add_fault(**CREATE, latency_s=0.01, times=1)
    await shop.stripe.add_fault(**CREATE, **LATE, save=True)
    answer = await hasty.add(buyer.headers, items, payment_method_id=card)
    operation_id = ok(answer, 202)["operation_id"]
    await asyncio.sleep(3.5)
    await handed_over(shop, operation_id)
    told = (await worked_on(shop, operation_id)).json()
    assert told["state"] == "awaiting_payment" and told["payment"]["status"] == "requires_action"
    assert len(await shop.all_of(buyer)) == 1
