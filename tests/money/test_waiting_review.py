"""A purchase that waits: what is read of it by those who are no more concerned, and what an interrupted end leaves."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from testkit.company import Company, new_email
from testkit.problems import ok, problem
from testkit.service import as_service
from tests.money.shop import CHALLENGED, Shop, handed_over, worked_on
from tests.money.test_waiting_purchases import (
    ask_for,
    cancel,
    company_that_pays_by,
    invoice_of,
    operation,
    outcomes,
    pay,
)

VOID = {"method": "POST", "path": "/v1/invoices/{id}/void"}


@pytest.fixture(autouse=True)
async def _no_faults_left(shop: Shop) -> AsyncIterator[None]:
    yield
    await shop.stripe.clear_faults()


async def bought_by_the_owner(shop: Shop) -> tuple[Company, str]:
    """A company whose owner has the payer's permission to buy, and has asked for seats that wait for payment."""
    company = await company_that_pays_by(shop, CHALLENGED, payer_is_owner=False)
    ok(await shop.service.send("PUT", f"{company.path}/purchase-permission", company.payer.headers))
    return company, str((await ask_for(company))["operation_id"])


async def test_payment_is_hidden_when_its_buyer_is_no_longer_concerned(shop: Shop) -> None:
    """W2, W5: a former owner reads and ends their purchase; the payer's secret and invoice are theirs no more."""
    company, operation_id = await bought_by_the_owner(shop)
    assert (await operation(shop, operation_id, company.owner.headers))["payment"]["client_secret"]
    await shop.stripe.post(
        f"/v1/subscriptions/{company.subscription_id}",
        metadata={"billing_shared_subscription_owner": company.stranger.customer_id},
    )
    await shop.service.refresh("subscription", company.subscription_id)
    read = await operation(shop, operation_id, company.owner.headers)
    assert (read["state"], read["payment"], read["seats"]) == ("awaiting_payment", None, None)
    assert (await operation(shop, operation_id, company.payer.headers))["payment"]["client_secret"]
    assert ok(await cancel(shop, operation_id, company.owner.headers))["state"] == "settled"


async def test_payment_is_hidden_when_its_buyer_is_a_plain_member_by_now(shop: Shop) -> None:
    """W2: the role table: a user sees no amounts and pays nothing."""
    company, operation_id = await bought_by_the_owner(shop)
    await shop.stripe.post(
        f"/v1/subscriptions/{company.subscription_id}",
        metadata={"billing_shared_subscription_owner": company.stranger.customer_id},
    )
    marks = {
        "billing_shared_subscription_id": company.subscription_id,
        "billing_shared_subscription_role": "user",
    }
    await shop.stripe.post(f"/v1/customers/{company.owner.customer_id}", metadata=marks)
    await shop.service.refresh("subscription", company.subscription_id)
    await shop.service.refresh("customer", company.owner.customer_id)
    assert (await operation(shop, operation_id, company.owner.headers))["payment"] is None


async def test_people_are_hidden_when_the_payer_reads_the_purchase_of_another(shop: Shop) -> None:
    """W2: the payer who is not owner sees the amounts, and no data of the people that the owner adds."""
    company, operation_id = await bought_by_the_owner(shop)
    told = await operation(shop, operation_id, company.owner.headers)
    assert all(one["email"] for one in told["results"] if one["action"] == "add")
    for read in (
        await operation(shop, operation_id, company.payer.headers),
        ok(await cancel(shop, operation_id, company.payer.headers)),
    ):
        people = [one for one in read["results"] if one["action"] == "add"]
        assert len(people) == 3 and {(one["email"], one["customer_id"]) for one in people} == {(None, None)}


async def test_purchase_goes_on_when_nobody_is_removed_by_a_release(shop: Shop) -> None:
    """W2: a call that gives no seat back supersedes nothing."""
    company = await company_that_pays_by(shop, CHALLENGED, seats=3)
    document = await ask_for(company)
    refused = await company.change(
        company.owner.headers, remove=[company.stranger.customer_id], release_seats=True
    )
    assert refused.status_code == 409, refused.text
    assert (await operation(shop, document["operation_id"]))["state"] == "awaiting_payment"
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "open"


async def test_processing_payment_is_never_voided_when_its_invoice_was_marked_uncollectible(
    shop: Shop,
) -> None:
    """W2: money is under way whatever the invoice is called in the Dashboard."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await pay(shop, document["payment"], "pm_usBankAccount")
    invoice = await invoice_of(shop, document["operation_id"])
    await shop.stripe.post(f"/v1/invoices/{invoice['id']}/mark_uncollectible")
    answer = await cancel(shop, document["operation_id"], company.owner.headers)
    assert ok(answer, 202)["state"] == "awaiting_payment"
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "uncollectible"
    assert await shop.stripe.requests(method="POST", path=f"/v1/invoices/{invoice['id']}/void") == []


@pytest.mark.parametrize("pays", [False, True])
async def test_purchase_ends_once_when_its_void_runs_late(shop: Shop, pays: bool) -> None:
    """W1, W2: a void answered 504 is executed later; a payment in between wins, and nothing is told twice."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await shop.stripe.add_fault(**VOID, status=504, late_s=2.0)
    await shop.stripe.add_fault(**VOID, status=504, times=0)
    noted = ok(await cancel(shop, document["operation_id"], company.owner.headers), 202)
    assert noted["state"] == "awaiting_payment"
    if pays:
        await pay(shop, document["payment"])
    again = await cancel(shop, document["operation_id"], company.owner.headers)
    if pays:
        problem(again, 409, "operation_ended")
    else:
        assert ok(again, 202)["state"] == "awaiting_payment"
    await asyncio.sleep(2.5)
    await shop.stripe.clear_faults()
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert settled["state"] == "settled"
    expected = ("applied", None) if pays else ("failed", "payment_abandoned")
    assert outcomes(settled, "seats") == [expected]
    assert (await company.state())["items"]["data"][0]["quantity"] == (5 if pays else 2)
    last = await cancel(shop, document["operation_id"], company.owner.headers)
    assert last.status_code == (409 if pays else 200), last.text


@pytest.mark.timed
async def test_payment_wins_when_it_comes_between_the_read_and_the_void(shop: Shop) -> None:
    """W2: the cardholder confirms while the void is on its way: what was paid is delivered."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await shop.stripe.add_fault(**VOID, latency_s=1.5)
    ending = asyncio.create_task(cancel(shop, document["operation_id"], company.owner.headers))
    await asyncio.sleep(0.7)
    await pay(shop, document["payment"])
    problem(await ending, 409, "operation_ended")
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert outcomes(settled) == [("applied", None)] * 3
    assert (await invoice_of(shop, document["operation_id"]))["status"] == "paid"


async def test_purchase_ends_for_each_when_several_end_it_at_once(shop: Shop) -> None:
    """W2: the buyer, an operator and a superseding change at the same time."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    *ended, changed = await asyncio.gather(
        cancel(shop, document["operation_id"], company.owner.headers),
        cancel(shop, document["operation_id"], as_service("admin")),
        shop.service.send(
            "POST", f"/v1/subscriptions/{company.subscription_id}/cancel", company.owner.headers
        ),
    )
    assert [ok(one)["state"] for one in ended] == ["settled", "settled"]
    assert ok(changed)["subscription"]["cancel_at_period_end"] is True


async def test_numbers_are_free_when_the_purchase_has_ended(shop: Shop) -> None:
    """W3: no reservation outlives its purchase, and the quantity may reach its number later."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    ok(await cancel(shop, document["operation_id"], company.owner.headers))
    item = (await company.state())["items"]["data"][0]["id"]
    await shop.stripe.post(
        f"/v1/subscriptions/{company.subscription_id}",
        items=[{"id": item, "quantity": 9}],
        proration_behavior="none",
    )
    await shop.service.refresh("subscription", company.subscription_id)
    added = ok(await company.change(company.owner.headers, add=[new_email() for _ in range(7)]))
    assert outcomes(added) == [("applied", None)] * 7


async def test_former_member_is_added_by_id_when_the_purchase_for_them_is_paid(shop: Shop) -> None:
    """W3: the step that waits names them, and does not stand in its own way."""
    company = await company_that_pays_by(shop, CHALLENGED)
    former = company.user.customer_id
    ok(await company.change(company.owner.headers, remove=[former]))
    ok(await company.change(company.owner.headers, add=[new_email()]))
    answer = await company.change(company.owner.headers, add=[former], over_capacity="add_seats")
    document = ok(answer, 202)
    await pay(shop, document["payment"])
    settled = ok(await worked_on(shop, document["operation_id"]))
    assert outcomes(settled) == [("applied", None)]
    assert former in await company.members()


@pytest.mark.parametrize("then", ["waits", "is paid", "is voided"])
async def test_change_waits_by_its_events_when_stripe_kept_a_5xx_of_it(shop: Shop, then: str) -> None:
    """W1, W2: Stripe holds the change back and answers 500; its invoice decides, before anybody could look."""
    company = await company_that_pays_by(shop, CHALLENGED)
    read = {"method": "GET", "path": "/v1/subscriptions/{id}"}
    await shop.stripe.add_fault(
        method="POST", path="/v1/subscriptions/{id}", status=500, effect="after", save=True
    )
    await shop.stripe.add_fault(**read, latency_s=0.001, times=1)
    await shop.stripe.add_fault(**read, status=500, times=0)
    answer = await shop.service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 9})
    assert answer.status_code == 202, answer.text
    operation_id = answer.json()["operation_id"]
    await shop.stripe.clear_faults()
    held = await company.state()
    assert held["pending_update"] is not None
    if then == "is paid":
        await shop.stripe.post(f"/v1/invoices/{held['latest_invoice']}/pay", paid_out_of_band=True)
    elif then == "is voided":
        await shop.stripe.post(f"/v1/invoices/{held['latest_invoice']}/void")
    await handed_over(shop, operation_id)
    # The first look finds out that it waits, the second what became of its invoice.
    await worked_on(shop, operation_id)
    told = ok(await worked_on(shop, operation_id))
    quantity = (await company.state())["items"]["data"][0]["quantity"]
    (result,) = told["results"]
    assert (told["state"], result["outcome"], quantity) == {
        "waits": ("awaiting_payment", "pending", 2),
        "is paid": ("settled", "applied", 9),
        "is voided": ("settled", "failed", 2),
    }[then]


async def test_purchase_without_an_answer_ends_when_the_permission_it_rests_on_is_withdrawn(
    shop: Shop,
) -> None:
    """W1, W2: the request may still run, so it ends as soon as it is known to wait; it cannot be cancelled before."""
    company = await company_that_pays_by(shop, CHALLENGED, payer_is_owner=False)
    permission = f"{company.path}/purchase-permission"
    ok(await shop.service.send("PUT", permission, company.payer.headers))
    update = {"method": "POST", "path": "/v1/subscriptions/{id}"}
    await shop.stripe.add_fault(**update, status=504, late_s=4.0, save=True)
    await shop.stripe.add_fault(**update, status=504, times=0)

    async def withdrawn() -> str:
        await asyncio.sleep(1.0)
        (row,) = await shop.service.fetch(
            "select id from operations where subscription_id = $1", company.subscription_id
        )
        early = await cancel(shop, row["id"], company.owner.headers)
        assert problem(early, 409, "operation_in_progress") and early.headers["retry-after"]
        assert (await shop.service.send("DELETE", permission, company.payer.headers)).status_code == 204
        await asyncio.sleep(1.0)
        await shop.stripe.clear_faults()
        return str(row["id"])

    people = [new_email() for _ in range(3)]
    answer, operation_id = await asyncio.gather(
        company.change(company.owner.headers, add=people, over_capacity="add_seats"), withdrawn()
    )
    ok(answer, 202)
    await handed_over(shop, operation_id)
    await worked_on(shop, operation_id)
    ended = ok(await worked_on(shop, operation_id))
    assert outcomes(ended, "seats") == [("failed", "payment_abandoned")]
    assert outcomes(ended) == [("refused", "payment_abandoned")] * 3
    assert (await company.state())["pending_update"] is None


async def test_first_purchase_is_applied_when_it_was_paid_and_ended_unheard(shop: Shop) -> None:
    """W2: paid, then ended in the Dashboard, and bought again before any event came: its invoice decides."""
    buyer, _ = await shop.buyer(card=None)
    price = await shop.price()
    made = await shop.unpaid(buyer.headers, [{"price_id": price}])
    await pay(shop, made.payment)
    await shop.stripe.delete(f"/v1/subscriptions/{made.subscription['id']}")
    ok(await shop.add(buyer.headers, [{"price_id": price}]), 202)
    settled = ok(await worked_on(shop, made.operation_id))
    assert [(one["outcome"], one["code"]) for one in settled["results"]] == [("applied", None)]


@pytest.mark.parametrize("then", ["waits", "is replaced in the Dashboard"])
async def test_purchase_awaits_its_own_invoice_when_a_read_finds_the_update(shop: Shop, then: str) -> None:
    """W1, W2: Stripe holds the raise back and answers 500; the newest invoice may be that of somebody else's update."""
    company = await company_that_pays_by(shop, CHALLENGED)
    await shop.stripe.add_fault(
        method="POST", path="/v1/subscriptions/{id}", status=500, effect="after", save=True
    )
    read = {"method": "GET", "path": "/v1/subscriptions/{id}"}
    await shop.stripe.add_fault(**read, latency_s=0.001, times=2)
    await shop.stripe.add_fault(**read, status=500, times=0)
    answer = await company.change(
        company.owner.headers, add=[new_email() for _ in range(3)], over_capacity="add_seats"
    )
    operation_id = str(ok(answer, 202)["operation_id"])
    await shop.stripe.clear_faults()
    held = await company.state()
    assert held["pending_update"] is not None
    if then != "waits":
        item = held["items"]["data"][0]["id"]
        await shop.stripe.post(
            f"/v1/subscriptions/{company.subscription_id}",
            items=[{"id": item, "quantity": 9}],
            proration_behavior="always_invoice",
            payment_behavior="pending_if_incomplete",
        )
        assert (await company.state())["latest_invoice"] != held["latest_invoice"]
    await handed_over(shop, operation_id)
    await worked_on(shop, operation_id)
    told = ok(await worked_on(shop, operation_id))
    assert (await invoice_of(shop, operation_id))["id"] == held["latest_invoice"]
    expected = ("pending", None) if then == "waits" else ("failed", "payment_abandoned")
    assert outcomes(told, "seats") == [expected]
    left = await company.state()
    assert left["pending_update"] is not None


async def test_what_was_read_is_applied_when_stripes_events_are_slow(shop: Shop) -> None:
    """I1: the Dashboard changes the quantity after a purchase; the row shows it while Stripe's events are slow."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await pay(shop, document["payment"])
    item = (await company.state())["items"]["data"][0]["id"]
    await shop.stripe.post(
        f"/v1/subscriptions/{company.subscription_id}",
        items=[{"id": item, "quantity": 4}],
        proration_behavior="none",
    )
    await shop.stripe.add_fault(method="GET", path="/v1/events", latency_s=30.0, times=1)
    look = asyncio.create_task(cancel(shop, document["operation_id"], company.owner.headers))
    quantity = "select (items->0->>'quantity')::int as quantity from subscriptions where id = $1"
    shown = None
    try:
        for _ in range(300):
            await asyncio.sleep(0.02)
            (row,) = await shop.service.fetch(quantity, company.subscription_id)
            shown = row["quantity"]
            if shown == 4:
                break
        assert shown == 4
        assert not look.done()
    finally:
        await shop.stripe.clear_faults()
        look.cancel()
        await asyncio.wait([look])
    assert outcomes(ok(await worked_on(shop, document["operation_id"])), "seats") == [("applied", None)]


async def test_repeated_request_is_told_that_nobody_paid_when_its_purchase_was_ended(shop: Shop) -> None:
    """The caller was cut off before the first answer was kept. 402 says what happened, not that Stripe refused it."""
    company = await company_that_pays_by(shop, CHALLENGED)
    path, who, body = f"{company.path}/seats", company.owner.headers, {"total": 7}
    asked = ok(await shop.service.send("PUT", path, who, body, Idempotency_Key="ended"), 202)
    assert ok(await cancel(shop, asked["operation_id"], who))["state"] == "settled"
    await shop.service.fetch("delete from idempotency_keys where key = 'ended'")
    again = await shop.service.send("PUT", path, who, body, Idempotency_Key="ended")
    refused = problem(again, 402, "payment_action_required")
    assert "another Idempotency-Key" in refused["detail"]
    assert (await company.state())["items"]["data"][0]["quantity"] == 2
