"""While a payment is processing: what reduces goes on beside it, and the money that is under way is never lost."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from testkit.company import Company, Person
from testkit.problems import ok, problem
from tests.money.shop import CHALLENGED, Shop, Unpaid, worked_on
from tests.money.test_waiting_purchases import (
    ask_for,
    cancel,
    company_that_pays_by,
    invoice_of,
    operation,
    outcomes,
    pay,
)

DAY = 86400


@pytest.fixture(autouse=True)
async def _clock_runs_again(shop: Shop) -> AsyncIterator[None]:
    yield
    await shop.stripe.control("POST", "clock", unfreeze=True)


async def debited(shop: Shop, *, days: float = 0.25) -> tuple[Company, dict[str, Any]]:
    """A company whose purchase of seats is held back while a bank debits the account, and the purchase's answer."""
    await shop.stripe.control("POST", "settings", debit_days=days)
    company = await company_that_pays_by(shop, CHALLENGED, seats=3)
    document = await ask_for(company)
    await pay(shop, document["payment"], "pm_usBankAccount")
    return company, document


ENDS = {
    "cancel": ("POST", "/v1/subscriptions/{id}/cancel", None),
    "cancel with an explicit end": ("POST", "/v1/subscriptions/{id}/cancel", {"when": "latest_period_end"}),
    "update": ("PATCH", "/v1/subscriptions/{id}", {"cancel_at_period_end": True}),
}


@pytest.mark.parametrize("name", ENDS)
async def test_end_is_set_when_a_payment_is_processing(shop: Shop, name: str) -> None:
    """W2: it answered 409 for the days of a bank debit. Stripe sets an end at once, beside a held update."""
    company, document = await debited(shop)
    method, path, body = ENDS[name]
    owner = company.owner.headers
    answer = await shop.service.send(method, path.format(id=company.subscription_id), owner, body)
    assert answer.status_code == 200, answer.text
    now = await company.state()
    assert now["cancel_at"] is not None and now["pending_update"] is not None
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "open"
    assert (await operation(shop, document["operation_id"]))["state"] == "awaiting_payment"
    resumed = ok(
        await shop.service.send("POST", f"/v1/subscriptions/{company.subscription_id}/resume", owner)
    )
    assert resumed["subscription"]["cancel_at"] is None
    again = await shop.service.send(method, path.format(id=company.subscription_id), owner, body)
    assert again.status_code == 200, again.text
    await shop.stripe.control("POST", "clock", advance=DAY / 4 + 60)
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert outcomes(settled, "seats") == [("applied", None)]
    now = await company.state()
    assert (now["items"]["data"][0]["quantity"], now["cancel_at"] is not None) == (5, True)
    await shop.cache_is_true()


async def test_purchase_ends_when_its_payment_fails_after_an_end_was_set(shop: Shop) -> None:
    """W2: an end supersedes the purchase as soon as no money is under way for it."""
    await shop.stripe.control("POST", "settings", debit_days=0.25)
    company = await company_that_pays_by(shop, CHALLENGED, seats=3)
    document = await ask_for(company)
    await pay(shop, document["payment"], "pm_usBankAccountFailed")
    path = f"/v1/subscriptions/{company.subscription_id}/cancel"
    ok(await shop.service.send("POST", path, company.owner.headers))
    await shop.stripe.control("POST", "clock", advance=DAY / 4 + 60)
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert outcomes(settled, "seats") == [("failed", "payment_abandoned")]
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "void"


@pytest.mark.parametrize(
    ("name", "method", "path", "body"),
    [
        ("fewer seats", "PUT", "/v1/shared-subscriptions/{id}/seats", {"total": 3}),
        ("end now", "POST", "/v1/subscriptions/{id}/cancel", {"when": "now"}),
    ],
)
async def test_change_waits_for_the_bank_when_it_would_void_a_processing_invoice(
    shop: Shop, name: str, method: str, path: str, body: Any
) -> None:
    """W2: Stripe replaces a held update and voids its invoice for these: the money would buy nothing."""
    company, document = await debited(shop)
    answer = await shop.service.send(
        method, path.format(id=company.subscription_id), company.owner.headers, body
    )
    refused = problem(answer, 409, "operation_in_progress")
    assert answer.headers["retry-after"] == "60"
    assert document["operation_id"] in refused["detail"] and "end of the period" in refused["detail"]
    # Removing people is no change of items: it goes on.
    ok(await company.change(company.owner.headers, remove=[company.user.customer_id]))
    await shop.stripe.control("POST", "clock", advance=DAY / 4 + 60)
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert outcomes(settled, "seats") == [("applied", None)]


# ------------------------------------------------------------------------------------------------ first purchases


async def first_debited(shop: Shop, *, fails: bool = False) -> tuple[Person, Unpaid]:
    """A buyer whose page pays the first invoice by a bank debit, and the purchase."""
    await shop.stripe.control("POST", "settings", debit_days=2)
    buyer, _ = await shop.buyer(card=None)
    price = await shop.price(await shop.product(shared=True))
    made = await shop.unpaid(buyer.headers, [{"price_id": price, "quantity": 4}])
    await pay(shop, made.payment, f"pm_usBankAccount{'Failed' if fails else ''}")
    await shop.listen()
    return buyer, made


async def test_first_purchase_stands_when_its_debit_is_processing(shop: Shop) -> None:
    """W2: the subscription is active from then on, so every change of it goes on, as of one that is paid by debit."""
    buyer, made = await first_debited(shop)
    path = f"/v1/subscriptions/{made.subscription['id']}"
    settled = ok(await worked_on(shop, made.operation_id))
    assert (settled["state"], settled["results"][0]["outcome"]) == ("settled", "applied")
    problem(await cancel(shop, made.operation_id, buyer.headers), 409, "operation_ended")
    fewer = {"total": 2, "forgo_credit": True}
    seats = f"/v1/shared-subscriptions/{made.subscription['id']}/seats"
    ok(await shop.service.send("PUT", seats, buyer.headers, fewer))
    ended = ok(await shop.service.send("POST", f"{path}/cancel", buyer.headers))
    assert ended["subscription"]["cancel_at_period_end"] is True
    assert await shop.stripe.requests(method="POST", path="/v1/invoices/{id}/void") == []


@pytest.mark.parametrize("name", ["cancel", "fewer seats", "abandon"])
async def test_first_purchase_is_changed_when_nobody_has_heard_of_its_debit(shop: Shop, name: str) -> None:
    """W2: the change itself finds that the purchase stands."""
    buyer, made = await first_debited(shop)
    subscription_id = made.subscription["id"]
    if name == "abandon":
        problem(await cancel(shop, made.operation_id, buyer.headers), 409, "operation_ended")
    elif name == "cancel":
        ok(await shop.service.send("POST", f"/v1/subscriptions/{subscription_id}/cancel", buyer.headers))
    else:
        body = {"total": 2, "forgo_credit": True}
        path = f"/v1/shared-subscriptions/{subscription_id}/seats"
        ok(await shop.service.send("PUT", path, buyer.headers, body))
    told = await operation(shop, made.operation_id)
    assert (told["state"], told["results"][0]["outcome"]) == ("settled", "applied")
    await shop.cache_is_true()


async def test_first_invoice_stays_when_its_debit_fails_after_the_purchase_stood(shop: Shop) -> None:
    """W2: the period was used, so its invoice is owed: neither the window nor an abandonment voids it."""
    buyer, made = await first_debited(shop, fails=True)
    await shop.stripe.control("POST", "clock", advance=2 * DAY + 60)
    await shop.listen()
    assert (await shop.true(made.subscription["id"]))["status"] == "past_due"
    problem(await cancel(shop, made.operation_id, buyer.headers), 409, "operation_ended")
    assert (await shop.true(made.subscription["id"]))["latest_invoice"] is not None
    assert await shop.stripe.requests(method="POST", path="/v1/invoices/{id}/void") == []
