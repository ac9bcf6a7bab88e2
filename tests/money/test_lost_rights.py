"""A purchase that waits for its payment ends once its buyer has lost the right to buy, whatever took it."""

import asyncio
from typing import Any

import pytest

from testkit.company import Company
from testkit.problems import ok
from testkit.service import as_service
from tests.money.shop import CHALLENGED, Shop, worked_on
from tests.money.test_waiting_purchases import (
    ask_for,
    company_that_pays_by,
    invoice_of,
    operation,
    outcomes,
)

OWNER = "billing_shared_subscription_owner"


async def hand_over(shop: Shop, company: Company, *, allow_purchases: bool = False) -> None:
    """The owner gives the subscription to its user."""
    path = f"{company.path}/transfer"
    who = company.payer.headers if allow_purchases else company.owner.headers
    offer: dict[str, Any] = {"to_customer_id": company.user.customer_id, "allow_purchases": allow_purchases}
    ok(await shop.service.send("POST", path, who, offer))
    ok(await shop.service.send("POST", f"{path}/accept", company.user.headers))


@pytest.mark.parametrize("payer_is_owner", [True, False])
async def test_purchase_ends_at_once_when_its_buyer_gives_the_subscription_away(
    shop: Shop, payer_is_owner: bool
) -> None:
    """W2, M15: the former owner may not buy any more, and their purchase could be paid for the rest of the hour."""
    company = await company_that_pays_by(shop, CHALLENGED, payer_is_owner=payer_is_owner)
    if not payer_is_owner:
        ok(await shop.service.send("PUT", f"{company.path}/purchase-permission", company.payer.headers))
    document = await ask_for(company)
    await hand_over(shop, company)
    async with asyncio.timeout(5):
        await shop.service.work_off()
    ended = await operation(shop, document["operation_id"])
    assert outcomes(ended, "seats") == [("failed", "payment_abandoned")]
    assert outcomes(ended) == [("refused", "role_required")] * 3
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "void"


async def test_total_ends_at_once_when_its_buyer_gives_the_subscription_away(shop: Shop) -> None:
    """W2, M15: the same for PUT seats, and if the new owner may buy: the right is the buyer's own."""
    company = await company_that_pays_by(shop, CHALLENGED)
    path = f"{company.path}/seats"
    document = ok(await shop.service.send("PUT", path, company.owner.headers, {"total": 9}), 202)
    await hand_over(shop, company, allow_purchases=True)
    async with asyncio.timeout(5):
        await shop.service.work_off()
    ended = await operation(shop, document["operation_id"])
    assert [(one["outcome"], one["code"]) for one in ended["results"]] == [("failed", "payment_abandoned")]
    assert (await company.state())["pending_update"] is None
    ok(await shop.service.send("PUT", path, company.user.headers, {"total": 9}), 202)


async def test_purchase_ends_when_its_additions_are_refused_for_the_buyers_role(shop: Shop) -> None:
    """W2: another owner is named in the Dashboard: nobody may want the seats, and their invoice stayed payable."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await shop.stripe.post(
        f"/v1/subscriptions/{company.subscription_id}", metadata={OWNER: company.stranger.customer_id}
    )
    await shop.service.refresh("subscription", company.subscription_id)
    ended = ok(await worked_on(shop, document["operation_id"]))
    assert ended["state"] == "settled"
    assert outcomes(ended, "seats") == [("failed", "payment_abandoned")]
    assert outcomes(ended) == [("refused", "role_required")] * 3
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "void"


async def test_purchase_goes_on_when_a_service_key_asked_for_it(shop: Shop) -> None:
    """W2: a key rests on nobody's role."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company, who=as_service("admin"))
    await hand_over(shop, company)
    assert ok(await worked_on(shop, document["operation_id"]))["state"] == "awaiting_payment"
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "open"
