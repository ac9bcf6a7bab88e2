"""A credit arises only from what was paid, and a quote is kept to the cent or nothing is charged."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app.operating import store as diagnosis
from app.operating.doctor import examine
from app.stripe import parsing
from testkit.company import Person
from testkit.problems import problem
from testkit.service import as_service
from tests.money.shop import CHALLENGED, Shop

ADMIN = as_service("admin")
MINUTE, HOUR, DAY = 60, 3600, 86_400
DECLINES_LATER = "pm_card_chargeCustomerFail"


@dataclass
class Team:
    """A shared subscription at 12.00 a seat and month, and the person who pays for and owns it."""

    shop: Shop
    owner: Person
    id: str
    item: str

    async def set_seats(self, total: int, **more: Any) -> httpx.Response:
        return await self.shop.service.send(
            "PUT", f"/v1/shared-subscriptions/{self.id}/seats", self.owner.headers, {"total": total, **more}
        )

    async def quote(self, total: int, **more: Any) -> dict[str, Any]:
        answer = await self.shop.service.send(
            "POST",
            f"/v1/shared-subscriptions/{self.id}/quote",
            self.owner.headers,
            {"total": total, **more},
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def change(self, **body: Any) -> httpx.Response:
        return await self.shop.change(self.owner.headers, self.id, **body)

    async def balance(self) -> int:
        return int((await self.shop.stripe.get(f"/v1/customers/{self.owner.customer_id}"))["balance"])

    async def quantity(self) -> int:
        return int((await self.shop.true(self.id))["items"]["data"][0]["quantity"])

    async def invoices(self) -> list[dict[str, Any]]:
        """As Stripe has them, newest first."""
        found = await self.shop.stripe.get("/v1/invoices", subscription=self.id, limit=100)
        return list(found["data"])

    async def pass_time(self, seconds: int) -> None:
        await self.shop.stripe.advance(seconds)
        await self.shop.listen()

    async def card_fails(self) -> str:
        """From now on the card that is charged declines."""
        card = await self.shop.card(self.owner, DECLINES_LATER)
        await self.shop.stripe.post(
            f"/v1/customers/{self.owner.customer_id}", invoice_settings={"default_payment_method": card}
        )
        await self.shop.stripe.post(f"/v1/subscriptions/{self.id}", default_payment_method=card)
        await self.shop.listen()
        return card

    async def card_works(self) -> str:
        card = await self.shop.card(self.owner)
        await self.shop.stripe.post(
            f"/v1/customers/{self.owner.customer_id}", invoice_settings={"default_payment_method": card}
        )
        await self.shop.stripe.post(f"/v1/subscriptions/{self.id}", default_payment_method=card)
        await self.shop.listen()
        return card

    async def renewal_fails(self) -> dict[str, Any]:
        """The period ends, the card declines, and the renewal's invoice stays open."""
        await self.card_fails()
        await self.pass_time(await self.until_renewal() + 2 * HOUR)
        (newest, *_) = await self.invoices()
        assert (newest["status"], newest["billing_reason"]) == ("open", "subscription_cycle")
        return newest

    async def renewal_is_draft(self) -> dict[str, Any]:
        await self.pass_time(await self.until_renewal() + 20 * MINUTE)
        (newest, *_) = await self.invoices()
        assert (newest["status"], newest["billing_reason"]) == ("draft", "subscription_cycle")
        return newest

    async def until_renewal(self) -> int:
        now = (await self.shop.stripe.control("GET", "clock"))["now"]
        item = (await self.shop.true(self.id))["items"]["data"][0]
        return int(item["current_period_end"] - now)


async def team(shop: Shop, seats: int, **terms: Any) -> Team:
    owner, card = await shop.buyer()
    price = await shop.price(await shop.product(shared=True), unit_amount=1200)
    made = await shop.bought(
        ADMIN,
        [{"price_id": price, "quantity": seats}],
        to=owner.customer_id,
        payment_method_id=card,
        **terms,
    )
    await shop.listen()
    return Team(shop, owner, made["id"], made["items"][0]["id"])


def unpaid(answer: httpx.Response, invoice: Mapping[str, Any]) -> dict[str, Any]:
    document = problem(answer, 409, "invoice_unpaid")
    assert (document["invoice_id"], document["invoice_status"]) == (invoice["id"], invoice["status"]), (
        document
    )
    assert document["hosted_invoice_url"] == invoice["hosted_invoice_url"]
    return document


# ------------------------------------------------------------------------------------------- what was not paid


async def test_fewer_seats_are_refused_when_the_renewal_is_open(still: Shop) -> None:
    """M1: lowering 100 seats that nobody paid for credits nothing, and says which invoice to pay."""
    team_ = await team(still, 100)
    invoice = await team_.renewal_fails()
    document = unpaid(await team_.set_seats(1), invoice)
    assert document["credit"] > 100_000
    assert await team_.balance() == 0
    assert await team_.quantity() == 100


async def test_the_payer_finds_the_way_to_pay_when_they_hold_a_managers_seat(still: Shop) -> None:
    """Design, the table of roles: the link is hidden from managers, and this one pays the invoice."""
    team_ = await team(still, 4)
    invoice = await team_.renewal_fails()
    other = await still.service.person("owner")
    path = f"/v1/subscriptions/{team_.id}"
    await still.stripe.post(path, metadata={"billing_shared_subscription_owner": other.customer_id})
    keys = {"billing_shared_subscription_id": team_.id, "billing_shared_subscription_role": "manager"}
    await still.stripe.post(f"/v1/customers/{team_.owner.customer_id}", metadata=keys)
    await still.listen()
    assert (await still.subscription(team_.owner.headers, team_.id))["role"] == "manager"
    unpaid(await team_.set_seats(2), invoice)
    assert (await team_.quote(2))["invoice_unpaid"]["hosted_invoice_url"] == invoice["hosted_invoice_url"]


async def test_a_refusal_is_the_same_when_its_stored_answer_is_gone(still: Shop) -> None:
    """M1: the operation remembers why it failed; a repeated request is not told that Stripe refused it."""
    team_ = await team(still, 100)
    await team_.renewal_fails()
    path = f"/v1/shared-subscriptions/{team_.id}/seats"
    for _ in range(2):
        answer = await still.service.send(
            "PUT", path, team_.owner.headers, {"total": 1}, Idempotency_Key="the same"
        )
        problem(answer, 409, "invoice_unpaid")
        await still.service.fetch("delete from idempotency_keys")


async def test_fewer_seats_are_refused_when_the_renewal_is_a_draft(still: Shop) -> None:
    """M1: within the hour the status is active, and the draft is not paid; the answer says when it will be charged."""
    team_ = await team(still, 100)
    invoice = await team_.renewal_is_draft()
    answer = await team_.set_seats(1)
    document = unpaid(answer, invoice)
    assert 1 <= document["retry_after"] <= HOUR
    assert answer.headers["retry-after"] == str(document["retry_after"])
    assert await team_.balance() == 0
    await team_.pass_time(document["retry_after"] + MINUTE)
    answer = await team_.set_seats(1)
    assert answer.status_code == 200, answer.text
    assert await team_.balance() < -100_000


@pytest.mark.parametrize(
    "recurring", [{"interval": "month"}, {"interval": "year"}], ids=["price", "interval"]
)
async def test_another_price_is_refused_when_the_renewal_is_open(
    still: Shop, recurring: dict[str, str]
) -> None:
    """M1, M30: the charge of a dearer price or a longer interval does not hide the credit of unpaid seats."""
    team_ = await team(still, 100)
    price = await still.price(unit_amount=30_000, recurring=recurring)
    invoice = await team_.renewal_fails()
    answer = await team_.change(items=[{"id": team_.item, "price_id": price}])
    unpaid(answer, invoice)
    # The change charges more than it credits, so there is no credit to forgo.
    answer = await team_.change(items=[{"id": team_.item, "price_id": price}], forgo_credit=True)
    unpaid(answer, invoice)
    assert (await team_.invoices())[0]["id"] == invoice["id"]


async def test_an_item_is_not_removed_with_credit_when_it_was_not_paid(still: Shop) -> None:
    """M1: removing an item credits its seats; those of the unpaid renewal are not credited."""
    team_ = await team(still, 10)
    other = await still.price(unit_amount=500)
    answer = await team_.change(items=[{"price_id": other, "quantity": 3}])
    assert answer.status_code == 200, answer.text
    added = next(i["id"] for i in answer.json()["subscription"]["items"] if i["price"]["id"] == other)
    invoice = await team_.renewal_fails()
    unpaid(await team_.change(items=[{"id": added, "deleted": True}]), invoice)
    answer = await team_.change(items=[{"id": added, "deleted": True}], forgo_credit=True)
    assert answer.status_code == 200, answer.text
    assert await team_.balance() == 0


async def test_seats_that_a_raise_billed_are_judged_by_the_whole_chain(still: Shop) -> None:
    """M31: the raise's invoice is paid, but most of its debit was set off against a renewal that nobody paid."""
    team_ = await team(still, 100)
    await team_.renewal_is_draft()
    answer = await team_.set_seats(101)
    assert answer.status_code == 200, answer.text
    await team_.card_fails()
    await team_.pass_time(2 * HOUR)
    renewal = next(i for i in await team_.invoices() if i["billing_reason"] == "subscription_cycle")
    assert renewal["status"] == "open"
    unpaid(await team_.set_seats(1), renewal)
    assert await team_.balance() == 0


async def test_a_paid_raise_can_be_taken_back_when_the_renewal_is_open(still: Shop) -> None:
    """M31: what the raise paid is credited, and not a cent more."""
    team_ = await team(still, 100)
    await team_.renewal_is_draft()
    assert (await team_.set_seats(101)).status_code == 200
    paid = (await team_.invoices())[0]["amount_paid"]
    await team_.card_fails()
    await team_.pass_time(2 * HOUR)
    answer = await team_.set_seats(100)
    assert answer.status_code == 200, answer.text
    assert -paid <= await team_.balance() < 0
    problem(await team_.set_seats(99), 409, "invoice_unpaid")


async def test_seats_are_credited_again_when_the_renewal_was_paid(still: Shop) -> None:
    """M1: paying the invoice opens the credit, from the date of the change."""
    team_ = await team(still, 100)
    invoice = await team_.renewal_fails()
    problem(await team_.set_seats(1), 409, "invoice_unpaid")
    card = await team_.card_works()
    await still.stripe.post(f"/v1/invoices/{invoice['id']}/pay", payment_method=card)
    await still.listen()
    answer = await team_.set_seats(1)
    assert answer.status_code == 200, answer.text
    assert answer.json()["credit_forgone"] == 0
    assert -118_800 < await team_.balance() < -100_000


async def intent_of(shop: Shop, invoice: Mapping[str, Any]) -> str:
    """The payment intent that paid an invoice."""
    detail = await shop.stripe.get(f"/v1/invoices/{invoice['id']}", expand=["payments"])
    return str(detail["payments"]["data"][0]["payment"]["payment_intent"])


@pytest.mark.parametrize("way", ["refund", "partial refund", "credit note", "dispute"])
async def test_money_that_went_back_is_not_credited_again(still: Shop, way: str) -> None:
    """M1: a refund, a credit note or a dispute first, and fewer seats afterwards, would give the money twice."""
    team_ = await team(still, 100)
    (invoice,) = await team_.invoices()
    intent = await intent_of(still, invoice)
    match way:
        case "refund":
            await still.stripe.post("/v1/refunds", payment_intent=intent)
        case "partial refund":
            await still.stripe.post("/v1/refunds", payment_intent=intent, amount=60_000)
        case "credit note":
            note = {"amount": 60_000, "credit_amount": 60_000}
            await still.stripe.post("/v1/credit_notes", invoice=invoice["id"], **note)
        case "dispute":
            await still.stripe.control("POST", "disputes", payment_intent=intent)
    await still.listen()
    before = await team_.balance()
    document = problem(await team_.set_seats(1), 409, "invoice_unpaid")
    assert (document["invoice_id"], document["invoice_status"]) == (invoice["id"], "refunded")
    assert document["hosted_invoice_url"] is None
    assert await team_.balance() == before


async def test_nothing_is_credited_when_only_the_cash_of_an_invoice_is_disputed(still: Shop) -> None:
    """M1: a dispute leaves nothing of its invoice to credit, though the balance paid a part that no bank asks back."""
    team_ = await team(still, 100)
    await still.stripe.post(f"/v1/customers/{team_.owner.customer_id}", balance=-60_000)
    await team_.pass_time(await team_.until_renewal() + 2 * HOUR)
    (renewal, *_) = await team_.invoices()
    assert (renewal["status"], renewal["amount_paid"]) == ("paid", 60_000)
    assert (await team_.set_seats(90)).status_code == 200
    before = await team_.balance()
    await still.stripe.control(
        "POST", "disputes", payment_intent=await intent_of(still, renewal), status="lost"
    )
    await still.listen()
    document = problem(await team_.set_seats(80), 409, "invoice_unpaid")
    assert document["invoice_id"] == renewal["id"]
    quote = await team_.quote(80)
    assert (quote["credit"], quote["credit_forgone"] > 0) == (0, True)
    assert await team_.balance() == before


async def test_a_dispute_that_was_won_does_not_stand_in_the_way(still: Shop) -> None:
    """M1: the money is back, so the seats are credited."""
    team_ = await team(still, 100)
    (invoice,) = await team_.invoices()
    intent = await intent_of(still, invoice)
    dispute = await still.stripe.control("POST", "disputes", payment_intent=intent)
    await still.stripe.control("POST", "disputes", dispute=dispute["id"], status="won")
    answer = await team_.set_seats(1)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("state", ["void", "uncollectible"])
async def test_an_invoice_that_can_never_be_paid_leaves_only_forgoing(still: Shop, state: str) -> None:
    """M1: its status says so and there is no link to pay it."""
    team_ = await team(still, 100)
    invoice = await team_.renewal_fails()
    path = {"void": "void", "uncollectible": "mark_uncollectible"}[state]
    await still.stripe.post(f"/v1/invoices/{invoice['id']}/{path}")
    await still.listen()
    document = problem(await team_.set_seats(1), 409, "invoice_unpaid")
    assert (document["invoice_status"], document["hosted_invoice_url"]) == (state, None)
    answer = await team_.set_seats(1, forgo_credit=True)
    assert answer.status_code == 200, answer.text
    assert await team_.balance() == 0


async def test_a_raise_of_the_dashboard_is_taken_back_while_its_charge_is_pending(still: Shop) -> None:
    """M4: the credit names a charge that no invoice has collected, which is cancelled and not given back."""
    team_ = await team(still, 5)
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", items=[{"id": team_.item, "quantity": 9}])
    await team_.pass_time(3 * DAY)
    quote = await team_.quote(5)
    assert quote["credit_forgone"] == 0
    answer = await team_.set_seats(5, quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    # The days of the raise are still to be paid. They stay pending, because a reduction waits for no payment.
    assert (quote["amount_due_now"], quote["credit"], len(await team_.invoices())) == (0, 0, 1)
    upcoming = await still.upcoming(team_.owner.headers, team_.id)
    assert quote["next_total"] == upcoming["total"] > 5 * 1200
    invoice = await team_.renewal_fails()
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", items=[{"id": team_.item, "quantity": 9}])
    await still.listen()
    document = problem(await team_.set_seats(1), 409, "invoice_unpaid")
    assert document["invoice_id"] == invoice["id"]


async def test_a_raise_is_judged_when_it_credits(still: Shop) -> None:
    """M1: after a reduction without credit Stripe still remembers the larger debit, and a raise would credit it."""
    team_ = await team(still, 100)
    await team_.renewal_is_draft()
    answer = await team_.set_seats(1, forgo_credit=True)
    assert answer.status_code == 200, answer.text
    document = problem(await team_.set_seats(2), 409, "invoice_unpaid")
    assert document["credit"] > 0
    assert await team_.balance() == 0


# --------------------------------------------------------------------------------------------------- forgoing


async def test_fewer_seats_are_set_without_credit_when_it_is_forgone(still: Shop) -> None:
    """M1: a customer who will not pay the renewal can reduce at once, without a credit."""
    team_ = await team(still, 100)
    invoice = await team_.renewal_fails()
    answer = await team_.set_seats(1, forgo_credit=True)
    assert answer.status_code == 200, answer.text
    assert answer.json()["credit_forgone"] > 100_000
    assert await team_.quantity() == 1
    assert await team_.balance() == 0
    assert (await team_.invoices())[0]["id"] == invoice["id"]


async def test_the_doctor_names_what_was_lowered_while_its_invoice_is_unpaid(still: Shop) -> None:
    """M1: the invoice still bills 100 seats, so an operator decides what becomes of it."""
    team_ = await team(still, 100)
    invoice = await team_.renewal_fails()
    assert (await team_.set_seats(1, forgo_credit=True)).status_code == 200
    await still.listen()
    async with still.service.context.database.connection() as connection:
        (found,) = await diagnosis.lowered_unpaid(connection)
    assert found == {
        "id": team_.id,
        "invoice_id": invoice["id"],
        "status": "open",
        "billed": 100,
        "left": 1,
    }
    problems = [finding for finding in await examine(still.service.context) if finding.check == "payment"]
    assert [finding.object for finding in problems] == [team_.id]


async def test_a_credit_that_was_paid_is_given_though_it_may_be_forgone(still: Shop) -> None:
    team_ = await team(still, 100)
    answer = await team_.set_seats(1, forgo_credit=True)
    assert answer.status_code == 200, answer.text
    assert answer.json()["credit_forgone"] == 0
    assert await team_.balance() < -100_000


async def test_a_quote_shows_what_is_forgone_when_the_renewal_is_open(still: Shop) -> None:
    """M1: the quote of a reduction is never refused; it executes with forgo_credit alone."""
    team_ = await team(still, 100)
    invoice = await team_.renewal_fails()
    quote = await team_.quote(1)
    assert (quote["amount_due_now"], quote["credit"]) == (0, 0)
    assert quote["credit_forgone"] > 100_000
    assert quote["invoice_unpaid"]["invoice_id"] == invoice["id"]
    unpaid(await team_.set_seats(1, quote_id=quote["quote_id"]), invoice)
    answer = await team_.set_seats(1, quote_id=quote["quote_id"], forgo_credit=True)
    assert answer.status_code == 200, answer.text
    assert answer.json()["credit_forgone"] == quote["credit_forgone"]
    assert await team_.balance() == 0


async def test_a_quote_without_credit_expires_when_the_invoice_is_paid(still: Shop) -> None:
    """M1: whether the credit is given is part of the quote."""
    team_ = await team(still, 100)
    invoice = await team_.renewal_fails()
    quote = await team_.quote(1)
    card = await team_.card_works()
    await still.stripe.post(f"/v1/invoices/{invoice['id']}/pay", payment_method=card)
    await still.listen()
    answer = await team_.set_seats(1, quote_id=quote["quote_id"], forgo_credit=True)
    problem(answer, 409, "quote_expired")
    assert await team_.quantity() == 100


async def test_a_quote_with_credit_expires_when_the_money_went_back(still: Shop) -> None:
    """M1: the invoice's payment is an input of the quote."""
    team_ = await team(still, 100)
    quote = await team_.quote(1)
    assert quote["credit"] > 100_000
    (invoice,) = await team_.invoices()
    intent = await intent_of(still, invoice)
    await still.stripe.post("/v1/refunds", payment_intent=intent)
    for body in ({}, {"forgo_credit": True}):
        problem(await team_.set_seats(1, quote_id=quote["quote_id"], **body), 409, "quote_expired")
    assert await team_.balance() == 0


async def test_refund_counts_when_a_charge_without_an_intent_paid(still: Shop) -> None:
    """M1: invoices of before payment intents name their charge alone (API reference, `InvoicePayment.payment`)."""
    team_ = await team(still, 4)
    (invoice,) = await team_.invoices()
    source = await still.stripe.get(f"/v1/invoices/{invoice['id']}", expand=["payments"])
    (paid,) = source["payments"]["data"]
    intent = await still.stripe.get(f"/v1/payment_intents/{paid['payment']['payment_intent']}")
    paid["payment"] = {"type": "charge", "charge": intent["latest_charge"]}
    bill = parsing.bill(source, [])
    bills = still.service.context.billing.bills
    assert await bills.reversed_of(bill) == 0
    await still.stripe.post("/v1/refunds", charge=intent["latest_charge"], amount=1500)
    assert await bills.reversed_of(bill) == 1500


async def test_quote_asks_for_the_same_as_its_change_when_the_credit_is_zero(still: Shop) -> None:
    """M1: an operator changed the price without prorations. Changing it back credits and charges the same amount.

    What that amount was billed with is unpaid, so the quote is one without credit even though 0 is forgone.
    """
    team_ = await team(still, 4)
    bought_at = (await still.true(team_.id))["items"]["data"][0]["price"]["id"]
    invoice = await team_.renewal_is_draft()
    dearer = {"id": team_.item, "price": await still.price(unit_amount=30_000), "quantity": 4}
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", items=[dearer], proration_behavior="none")
    await still.listen()
    body = {"items": [{"id": team_.item, "price_id": bought_at}]}
    quote = await still.preview(team_.owner.headers, team_.id, **body)
    assert (quote["amount_due_now"], quote["credit"], quote["credit_forgone"]) == (0, 0, 0)
    assert quote["invoice_unpaid"]["invoice_id"] == invoice["id"]
    for named in ({}, {"quote_id": quote["quote_id"]}):
        refused = unpaid(await team_.change(**body, **named), invoice)
        assert refused["credit"] == quote["invoice_unpaid"]["credit"]
    answer = await team_.change(**body, quote_id=quote["quote_id"], forgo_credit=True)
    assert answer.status_code == 200, answer.text
    assert (await still.true(team_.id))["items"]["data"][0]["price"]["id"] == bought_at
    assert (len(await team_.invoices()), await team_.balance()) == (2, 0)


async def test_a_quote_of_a_charge_is_refused_when_it_hides_an_unpaid_credit(still: Shop) -> None:
    team_ = await team(still, 100)
    price = await still.price(unit_amount=30_000)
    invoice = await team_.renewal_fails()
    path = f"/v1/subscriptions/{team_.id}/preview"
    body = {"items": [{"id": team_.item, "price_id": price}]}
    unpaid(await still.service.send("POST", path, team_.owner.headers, body), invoice)


async def test_a_new_interval_is_quoted_with_its_charge_when_the_credit_is_forgone(still: Shop) -> None:
    """M30: a new interval is billed at once, also without prorations; the quote says so and binds it."""
    team_ = await team(still, 10)
    monthly = await still.price(unit_amount=100)
    yearly = await still.price(unit_amount=100_000, recurring={"interval": "year"})
    answer = await team_.change(items=[{"id": team_.item, "price_id": yearly}])
    assert answer.status_code == 200, answer.text
    invoice = await team_.renewal_fails()
    body = {"items": [{"id": team_.item, "price_id": monthly}]}
    quote = await still.preview(team_.owner.headers, team_.id, **body)
    assert (quote["amount_due_now"], quote["credit"]) == (1000, 0)
    assert quote["invoice_unpaid"]["invoice_id"] == invoice["id"]
    await team_.card_works()
    answer = await team_.change(**body, quote_id=quote["quote_id"], forgo_credit=True)
    assert answer.status_code == 200, answer.text
    newest = (await team_.invoices())[0]
    assert (newest["amount_paid"], await team_.balance()) == (1000, 0)


async def test_a_cancellation_now_ends_without_credit_when_the_renewal_is_open(still: Shop) -> None:
    """M1: an admin's `prorate` is held to what was paid; the subscription ends in any case."""
    team_ = await team(still, 100)
    await team_.renewal_fails()
    path = f"/v1/subscriptions/{team_.id}/cancel"
    answer = await still.service.send("POST", path, ADMIN, {"when": "now", "prorate": True})
    assert answer.status_code == 200, answer.text
    assert answer.json()["subscription"]["status"] == "canceled"
    assert answer.json()["credit_forgone"] > 100_000
    assert await team_.balance() == 0


async def test_a_cancellation_now_credits_what_was_paid(still: Shop) -> None:
    team_ = await team(still, 100)
    path = f"/v1/subscriptions/{team_.id}/cancel"
    answer = await still.service.send("POST", path, ADMIN, {"when": "now", "prorate": True})
    assert answer.status_code == 200, answer.text
    assert answer.json()["credit_forgone"] == 0
    assert await team_.balance() == -120_000


# ----------------------------------------------------------------------------------------------------- quotes


async def test_a_quote_of_a_credit_is_good_for_ten_minutes(still: Shop) -> None:
    """M2: used a day later it would credit a day that was used."""
    team_ = await team(still, 100)
    quote = await team_.quote(1)
    await team_.pass_time(int(23.5 * HOUR))
    problem(await team_.set_seats(1, quote_id=quote["quote_id"]), 409, "quote_expired")
    assert (await team_.balance(), await team_.quantity()) == (0, 100)
    fresh = await team_.quote(1)
    assert fresh["credit"] < quote["credit"]
    await team_.pass_time(9 * MINUTE)
    answer = await team_.set_seats(1, quote_id=fresh["quote_id"])
    assert answer.status_code == 200, answer.text
    assert await team_.balance() == -fresh["credit"]


async def test_a_quote_is_kept_when_an_admin_dated_it_before_yesterday(still: Shop) -> None:
    """M28: the date that an admin gives is no sign of the quote's age."""
    team_ = await team(still, 4)
    await team_.pass_time(5 * DAY)
    now = (await still.stripe.control("GET", "clock"))["now"]
    dated = datetime.fromtimestamp(now - 2 * DAY, UTC).isoformat()
    change: dict[str, Any] = {"items": [{"id": team_.item, "quantity": 5}], "proration_date": dated}
    quote = await still.preview(ADMIN, team_.id, **change)
    answer = await still.change(ADMIN, team_.id, **change, quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    (newest, *_) = await team_.invoices()
    assert newest["amount_paid"] == quote["amount_due_now"]


async def test_a_quote_expires_when_the_discount_ends(still: Shop) -> None:
    """M3: 60,000 quoted with half off would be 120,600 without it."""
    coupon = await still.stripe.post("/v1/coupons", percent_off=50, duration="forever")
    team_ = await team(still, 100, discounts=[{"coupon": coupon["id"]}])
    quote = await team_.quote(200)
    assert quote["amount_due_now"] == 60_000
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", discounts="")
    await still.listen()
    problem(await team_.set_seats(200, quote_id=quote["quote_id"]), 409, "quote_expired")
    assert (await team_.quantity(), len(await team_.invoices())) == (100, 1)


async def test_a_quote_expires_when_the_tax_changes(still: Shop) -> None:
    team_ = await team(still, 10)
    quote = await team_.quote(20)
    rate = await still.stripe.post("/v1/tax_rates", display_name="VAT", percentage=19, inclusive=True)
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", default_tax_rates=[rate["id"]])
    await still.listen()
    problem(await team_.set_seats(20, quote_id=quote["quote_id"]), 409, "quote_expired")
    assert await team_.quantity() == 10


async def test_a_quote_expires_when_collection_is_paused(still: Shop) -> None:
    """M3: how the invoice is collected is an input; a paused one may be voided."""
    team_ = await team(still, 10)
    quote = await team_.quote(20)
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", pause_collection={"behavior": "void"})
    problem(await team_.set_seats(20, quote_id=quote["quote_id"]), 409, "quote_expired")
    assert (await team_.quantity(), len(await team_.invoices())) == (10, 1)


@pytest.mark.parametrize("balance", [-1500, 1500], ids=["credit", "debt"])
async def test_a_quote_expires_when_the_balance_moves(still: Shop, balance: int) -> None:
    """M29: the amount due is after the balance, so the balance is an input."""
    team_ = await team(still, 20)
    await still.stripe.post(f"/v1/customers/{team_.owner.customer_id}", balance=-22_002)
    quote = await team_.quote(40)
    assert quote["amount_due_now"] == 1998
    await still.stripe.post(f"/v1/customers/{team_.owner.customer_id}", balance=balance)
    problem(await team_.set_seats(40, quote_id=quote["quote_id"]), 409, "quote_expired")
    assert (await team_.quantity(), len(await team_.invoices())) == (20, 1)


async def test_a_quote_expires_when_the_draft_renewal_takes_the_balance(still: Shop) -> None:
    """M29: the draft of the renewal is finalised within the hour and uses the balance up."""
    team_ = await team(still, 20)
    await still.stripe.post(f"/v1/customers/{team_.owner.customer_id}", balance=-24_000)
    await team_.renewal_is_draft()
    quote = await team_.quote(40)
    await team_.pass_time(2 * HOUR)
    problem(await team_.set_seats(40, quote_id=quote["quote_id"]), 409, "quote_expired")
    assert await team_.quantity() == 20


async def test_the_next_total_is_the_upcoming_invoice_when_items_are_pending(still: Shop) -> None:
    """M4: what the change's own invoice collects is not on the next one."""
    team_ = await team(still, 5)
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", items=[{"id": team_.item, "quantity": 7}])
    await team_.pass_time(5 * DAY)
    quote = await team_.quote(8)
    answer = await team_.set_seats(8, quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    assert (await team_.invoices())[0]["amount_paid"] == quote["amount_due_now"]
    upcoming = await still.upcoming(team_.owner.headers, team_.id)
    assert quote["next_total"] == upcoming["total"] == 8 * 1200


async def test_the_next_total_is_the_upcoming_invoice_when_the_subscription_is_unpaid(still: Shop) -> None:
    """M4: Stripe goes on making invoices for an unpaid subscription, and both reads tell of the next one."""
    team_ = await team(still, 5)
    await team_.renewal_fails()
    await still.stripe.settings(dunning={"retry_days": [1], "final": "unpaid"})
    await team_.pass_time(5 * DAY)
    assert (await still.true(team_.id))["status"] == "unpaid"
    quote = await team_.quote(3)
    upcoming = await still.upcoming(team_.owner.headers, team_.id)
    assert upcoming["total"] == 5 * 1200
    answer = await team_.set_seats(3, quote_id=quote["quote_id"], forgo_credit=True)
    assert answer.status_code == 200, answer.text
    upcoming = await still.upcoming(team_.owner.headers, team_.id)
    assert quote["next_total"] == upcoming["total"] == 3 * 1200


async def test_the_next_total_is_null_when_the_subscription_ends(still: Shop) -> None:
    """M4: with an end set, the pending items are the change's own invoice, and no other follows."""
    team_ = await team(still, 5)
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", items=[{"id": team_.item, "quantity": 7}])
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", cancel_at_period_end=True)
    await team_.pass_time(5 * DAY)
    quote = await team_.quote(8)
    assert quote["next_total"] is None
    answer = await team_.set_seats(8, quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    assert (await team_.invoices())[0]["amount_paid"] == quote["amount_due_now"]


@pytest.mark.parametrize("days", [None, 20, 2000])
async def test_next_total_is_the_upcoming_invoice_when_an_interval_changes_before_an_end(
    still: Shop, days: int | None
) -> None:
    """M4: the new interval begins at once; no invoice follows if the subscription ends with it or within it."""
    team_ = await team(still, 5)
    yearly = await still.price(unit_amount=100_000, recurring={"interval": "year"})
    now = int((await still.stripe.control("GET", "clock"))["now"])
    end = {"cancel_at_period_end": True} if days is None else {"cancel_at": now + days * DAY}
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", proration_behavior="none", **end)
    await still.listen()
    body = {"items": [{"id": team_.item, "price_id": yearly}]}
    quote = await still.preview(team_.owner.headers, team_.id, **body)
    answer = await team_.change(**body, quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    path = "/v1/customers/me/upcoming-invoice"
    answer = await still.service.get(path, team_.owner.headers, subscription_id=team_.id)
    assert answer.status_code == (200 if days == 2000 else 404), answer.text
    assert quote["next_total"] == (answer.json()["invoice"]["total"] if days == 2000 else None)


async def test_the_next_total_is_the_upcoming_invoice_when_a_discount_is_used_up(still: Shop) -> None:
    """M4: a discount for one invoice that the change uses is not on the next one."""
    team_ = await team(still, 5)
    coupon = await still.stripe.post("/v1/coupons", percent_off=50, duration="once")
    promotion = {"type": "coupon", "coupon": coupon["id"]}
    await still.stripe.post("/v1/promotion_codes", promotion=promotion, code="HALF")
    yearly = await still.price(unit_amount=100_000, recurring={"interval": "year"})
    body = {"items": [{"id": team_.item, "price_id": yearly}], "promotion_code": "HALF"}
    quote = await still.preview(team_.owner.headers, team_.id, **body)
    answer = await team_.change(**body, quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    assert (await team_.invoices())[0]["amount_paid"] == quote["amount_due_now"]
    upcoming = await still.upcoming(team_.owner.headers, team_.id)
    assert quote["next_total"] == upcoming["total"]


async def test_the_quoted_date_is_sent_though_the_preview_names_none(still: Shop) -> None:
    """M28: the service dates the preview itself, so the change is charged as quoted an hour later."""
    team_ = await team(still, 5)
    await team_.pass_time(10 * DAY)
    quote = await team_.quote(10)
    (preview,) = [
        entry
        for entry in await still.stripe.requests(method="POST", path="/v1/invoices/create_preview")
        if (entry["params"].get("subscription_details") or {}).get("proration_behavior") == "always_invoice"
    ]
    dated = preview["params"]["subscription_details"]["proration_date"]
    await team_.pass_time(HOUR)
    answer = await team_.set_seats(10, quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    (sent,) = [
        entry["params"]
        for entry in await still.stripe.requests(method="POST", path=f"/v1/subscriptions/{team_.id}")
        if entry["actor"] != "dashboard" and "items" in entry["params"]
    ]
    assert str(sent["proration_date"]) == str(dated)
    assert (await team_.invoices())[0]["amount_paid"] == quote["amount_due_now"]


async def test_a_quote_expires_when_its_price_is_archived(still: Shop) -> None:
    """An input that cannot be previewed any more makes the quote expire; nothing is charged."""
    team_ = await team(still, 5)
    price = await still.price(unit_amount=2400)
    body = {"items": [{"id": team_.item, "price_id": price}]}
    quote = await still.preview(team_.owner.headers, team_.id, **body)
    # The webhook about it is still on its way.
    await still.stripe.post(f"/v1/prices/{price}", active=False)
    problem(await team_.change(**body, quote_id=quote["quote_id"]), 409, "quote_expired")
    assert len(await team_.invoices()) == 1


async def test_seats_for_members_are_bought_as_quoted_or_not_at_all(still: Shop) -> None:
    """M29: the purchase inside a member change keeps its quote as well."""
    team_, _ = await staffed(still, 1, 1)
    body = {"add": [{"email": f"p{n}@example.com"} for n in range(2)]}
    path = f"/v1/shared-subscriptions/{team_.id}"
    answer = await still.service.send("POST", f"{path}/quote", team_.owner.headers, body)
    quote = answer.json()
    assert quote["amount_due_now"] == 2400
    await still.stripe.post(f"/v1/customers/{team_.owner.customer_id}", balance=-1000)
    asked = {**body, "over_capacity": "add_seats", "quote_id": quote["quote_id"]}
    answer = await still.service.send("PATCH", f"{path}/users", team_.owner.headers, asked)
    problem(answer, 409, "quote_expired")
    assert (await team_.quantity(), len(await team_.invoices())) == (1, 1)


# ------------------------------------------------------------------------------------ beside a waiting purchase


@pytest.mark.parametrize("when", ["period_end", "now"])
async def test_a_cancellation_is_not_barred_when_a_purchase_waits_for_its_payment(
    still: Shop, when: str
) -> None:
    """M16, W2: the bank asks for 3-D Secure over more seats; ending the subscription needs no answer to that."""
    team_, members = await staffed(still, 1, 1)
    card = await still.card(team_.owner, CHALLENGED)
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", default_payment_method=card)
    await still.listen()
    answer = await change_members(team_, add=[{"email": "w@example.com"}], over_capacity="add_seats")
    assert answer.status_code == 202, answer.text
    path = f"/v1/subscriptions/{team_.id}/cancel"
    answer = await still.service.send("POST", path, team_.owner.headers, {"when": when})
    assert answer.status_code == 200, answer.text
    assert answer.json()["ends_at"] is not None
    answer = await change_members(team_, remove=members)
    assert answer.json()["results"][0]["outcome"] == "applied", answer.text
    # The purchase is its own operation: it can still be paid until it ends with the subscription.
    assert await team_.quantity() == 1


# ---------------------------------------------------------------------------------------------------- resuming


async def test_a_paused_subscription_stays_paused_until_its_period_is_paid(still: Shop) -> None:
    """T23: nobody gets access for a charge that waits for the next renewal."""
    buyer, card = await still.buyer()
    price = await still.price()
    made = await still.bought(
        ADMIN,
        [{"price_id": price, "quantity": 2}],
        to=buyer.customer_id,
        payment_method_id=card,
        trial_period_days=3,
    )
    await still.stripe.post(f"/v1/subscriptions/{made['id']}/pause", type="subscription")
    bad = await still.card(buyer, DECLINES_LATER)
    await still.stripe.post(f"/v1/subscriptions/{made['id']}", default_payment_method=bad)
    await still.stripe.advance(5 * 86_400)
    await still.listen()
    path = f"/v1/subscriptions/{made['id']}/resume"
    answer = await still.service.send("POST", path, buyer.headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["subscription"]["status"] == "paused"
    assert answer.json()["payment"]["status"] == "requires_payment_method"
    await still.stripe.post(f"/v1/subscriptions/{made['id']}", default_payment_method=card)
    await still.listen()
    answer = await still.service.send("POST", path, buyer.headers)
    assert (answer.json()["subscription"]["status"], answer.json()["payment"]) == ("active", None)
    (newest, *_) = (await still.stripe.get("/v1/invoices", subscription=made["id"]))["data"]
    assert newest["status"] == "paid"
    assert 0 < newest["amount_paid"] <= 2000


async def paused_for_long(shop: Shop, **terms: Any) -> Team:
    """A subscription that was paused, and whose paid period is over since."""
    team_ = await team(shop, 5, **terms)
    await shop.stripe.post(f"/v1/subscriptions/{team_.id}/pause", type="subscription")
    await team_.pass_time(40 * DAY)
    assert (await shop.true(team_.id))["status"] == "paused"
    return team_


async def test_a_quote_is_kept_when_the_paused_periods_are_over(still: Shop) -> None:
    """M16: the change is dated within a period that is long over, which says nothing of the quote's age."""
    team_ = await paused_for_long(still)
    quote = await team_.quote(3)
    answer = await team_.set_seats(3, quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    assert await team_.quantity() == 3


async def test_a_paused_subscription_ends_at_once_when_the_named_end_is_over(still: Shop) -> None:
    """M16, M18: the shorter item's period ended long ago, so nothing is left to run out."""
    team_ = await team(still, 5)
    yearly = await still.price(unit_amount=90_000, recurring={"interval": "year"})
    assert (await team_.change(items=[{"price_id": yearly, "quantity": 1}])).status_code == 200
    await still.stripe.post(f"/v1/subscriptions/{team_.id}/pause", type="subscription")
    await team_.pass_time(40 * DAY)
    path = f"/v1/subscriptions/{team_.id}/cancel"
    sooner = "update subscriptions set items = (select jsonb_agg(jsonb_set(i, '{current_period_end}', "
    sooner += (
        "to_jsonb((i->>'current_period_end')::bigint - 40 * 86400))) from jsonb_array_elements(items) i)"
    )
    await still.service.fetch(f"{sooner} where id = '{team_.id}'")
    answer = await still.service.send("POST", path, team_.owner.headers, {"when": "earliest_period_end"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["subscription"]["status"] == "canceled"


async def test_a_paused_subscription_is_not_resumed_when_invoices_are_sent(still: Shop) -> None:
    """T23: Stripe refuses it, and the answer says what to do."""
    team_ = await paused_for_long(still)
    await still.stripe.post(
        f"/v1/subscriptions/{team_.id}", collection_method="send_invoice", days_until_due=30
    )
    await still.listen()
    path = f"/v1/subscriptions/{team_.id}/resume"
    problem(await still.service.send("POST", path, team_.owner.headers), 409, "subscription_not_active")


async def test_a_change_within_a_trial_makes_no_invoice_when_the_balance_is_a_debt(still: Shop) -> None:
    """M29: an invoice of zero would collect the debt, which the quote did not promise."""
    owner, card = await still.buyer()
    price = await still.price(await still.product(shared=True), unit_amount=1200)
    made = await still.bought(
        ADMIN,
        [{"price_id": price, "quantity": 5}],
        to=owner.customer_id,
        payment_method_id=card,
        trial_period_days=14,
    )
    await still.listen()
    team_ = Team(still, owner, made["id"], made["items"][0]["id"])
    quote = await team_.quote(7)
    assert quote["amount_due_now"] == 0
    await still.stripe.post(f"/v1/customers/{owner.customer_id}", balance=114)
    answer = await team_.set_seats(7, quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    assert (await team_.quantity(), await team_.balance(), len(await team_.invoices())) == (7, 114, 1)


async def test_a_change_within_a_trial_leaves_nothing_pending_when_the_subscription_ends_with_it(
    still: Shop,
) -> None:
    """M4: the quote said that no invoice follows, and a pending item of zero made one."""
    owner, card = await still.buyer()
    price = await still.price(await still.product(shared=True), unit_amount=1200)
    items = [{"price_id": price, "quantity": 5}]
    terms: dict[str, Any] = {"payment_method_id": card, "trial_period_days": 14}
    made = await still.bought(ADMIN, items, to=owner.customer_id, **terms)
    await still.stripe.post(f"/v1/subscriptions/{made['id']}", cancel_at_period_end=True)
    await still.listen()
    change: dict[str, Any] = {
        "items": [{"id": made["items"][0]["id"], "quantity": 3}],
        "proration_behavior": "create_prorations",
    }
    quote = await still.preview(ADMIN, made["id"], **change)
    assert quote["next_total"] is None
    answer = await still.change(ADMIN, made["id"], **change, quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    pending = await still.stripe.get("/v1/invoiceitems", customer=owner.customer_id, pending=True)
    assert pending["data"] == []
    upcoming = await still.service.get(
        "/v1/customers/me/upcoming-invoice", owner.headers, subscription_id=made["id"]
    )
    problem(upcoming, 404, "not_found")


async def test_fewer_seats_wait_for_no_payment_when_pending_items_make_an_invoice_due(still: Shop) -> None:
    """M16: with a card that declines the reduction would wait for ever; it is billed with the next invoice instead."""
    team_, members = await staffed(still, 9, 3)
    await team_.pass_time(9 * DAY)
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", items=[{"id": team_.item, "quantity": 30}])
    await team_.pass_time(9 * DAY)
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", items=[{"id": team_.item, "quantity": 9}])
    await team_.card_fails()
    answer = await change_members(team_, remove=members[:1], release_seats=True)
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][-1]["outcome"] == "applied"
    answer = await team_.set_seats(4)
    assert answer.status_code == 200, answer.text
    assert answer.json()["payment"] is None
    assert (await team_.quantity(), len(await team_.invoices())) == (4, 1)


async def test_a_quote_counts_the_balance_that_a_superseded_purchase_frees(still: Shop) -> None:
    """M29: the purchase that waits for its payment has used the balance up; superseding it gives the balance back."""
    team_ = await team(still, 10)
    await still.stripe.post(f"/v1/customers/{team_.owner.customer_id}", balance=-3000)
    await team_.card_fails()
    answer = await team_.set_seats(20)
    assert answer.json()["payment"]["status"] == "requires_payment_method"
    assert await team_.balance() == 0
    await team_.card_works()
    quote = await team_.quote(15)
    assert quote["amount_due_now"] == 5 * 1200 - 3000
    answer = await team_.set_seats(15, quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    assert (await team_.invoices())[0]["amount_paid"] == quote["amount_due_now"]


# --------------------------------------------------------------------------------- seats of removed members


async def staffed(shop: Shop, seats: int, members: int) -> tuple[Team, list[str]]:
    """A team with members who hold its first seats."""
    team_ = await team(shop, seats)
    body = {"add": [{"email": f"m{number}.{team_.id}@example.com"} for number in range(members)]}
    answer = await change_members(team_, **body)
    assert answer.status_code == 200, answer.text
    await shop.listen()
    return team_, [result["customer_id"] for result in answer.json()["results"]]


async def change_members(team_: Team, who: Any = None, **body: Any) -> httpx.Response:
    path = f"/v1/shared-subscriptions/{team_.id}/users"
    return await team_.shop.service.send("PATCH", path, who or team_.owner.headers, body)


async def test_removed_members_give_their_seats_back_with_credit(still: Shop) -> None:
    """M24: the quote shows the credit, and the change lowers the total once, after the removals."""
    team_, members = await staffed(still, 5, 4)
    body = {"remove": members[:3], "release_seats": True}
    path = f"/v1/shared-subscriptions/{team_.id}/quote"
    answer = await still.service.send("POST", path, team_.owner.headers, body)
    assert answer.status_code == 200, answer.text
    quote = answer.json()
    assert (quote["amount_due_now"], quote["credit"], quote["next_total"]) == (0, 3600, 2400)
    answer = await change_members(team_, **body, quote_id=quote["quote_id"])
    assert answer.status_code == 200, answer.text
    *removals, release = answer.json()["results"]
    assert [result["outcome"] for result in removals] == ["applied"] * 3
    assert (release["action"], release["outcome"], release["total"]) == ("release_seats", "applied", 2)
    assert answer.json()["seats"] == {
        "total": 2,
        "used": 1,
        "reserved": 0,
        "available": 1,
        "over_allocated": 0,
    }
    assert (await team_.quantity(), await team_.balance()) == (2, -3600)


async def test_nobody_is_removed_when_the_seats_to_give_back_were_not_paid(still: Shop) -> None:
    """M24: the credit is tested before anything is sent; forgoing it removes and lowers without a credit."""
    team_, members = await staffed(still, 5, 4)
    invoice = await team_.renewal_fails()
    unpaid(await change_members(team_, remove=members[:2], release_seats=True), invoice)
    await still.listen()
    users = await still.service.get(f"/v1/shared-subscriptions/{team_.id}/users", team_.owner.headers)
    assert users.json()["total_count"] == 5
    answer = await change_members(team_, remove=members[:2], release_seats=True, forgo_credit=True)
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][-1]["outcome"] == "applied"
    assert (await team_.quantity(), await team_.balance()) == (3, 0)


async def test_seats_that_are_still_taken_are_not_given_back(still: Shop) -> None:
    """M24: the floor is what is used and reserved when the removals are done; the total is at least one."""
    team_, members = await staffed(still, 3, 3)
    added = {"add": [{"email": f"new.{team_.id}@example.com"}]}
    answer = await change_members(team_, remove=members[:1], release_seats=True, **added)
    assert answer.status_code == 200, answer.text
    release = answer.json()["results"][-1]
    assert (release["action"], release["outcome"], release["total"]) == ("release_seats", "unchanged", 3)
    rest = [members[1], members[2]]
    answer = await change_members(team_, remove=rest, release_seats=True)
    assert answer.json()["results"][-1]["total"] == 1
    assert await team_.quantity() == 1


async def test_nobody_is_removed_when_the_quoted_seats_were_lowered_elsewhere(still: Shop) -> None:
    """M29: the quote's credit is given, or the call is refused. No event has told of the edit that took the seats."""
    team_, members = await staffed(still, 5, 2)
    body: dict[str, Any] = {"remove": members[:1], "release_seats": True}
    path = f"/v1/shared-subscriptions/{team_.id}/quote"
    quote = (await still.service.send("POST", path, team_.owner.headers, body)).json()
    assert quote["credit"] == 1200
    edit = {"items": [{"id": team_.item, "quantity": 1}], "proration_behavior": "none"}
    await still.stripe.post(f"/v1/subscriptions/{team_.id}", **edit)
    for forgo in ({}, {"forgo_credit": True}):
        answer = await change_members(team_, **body, quote_id=quote["quote_id"], **forgo)
        problem(answer, 409, "quote_expired")
    assert await team_.quantity() == 1
    # A new quote is computed from what Stripe has, though no event has come yet.
    again = (await still.service.send("POST", path, team_.owner.headers, body)).json()
    assert (again["credit"], again["amount_due_now"], again["lines"]) == (0, 0, [])
    await still.listen()
    users = await still.service.get(f"/v1/shared-subscriptions/{team_.id}/users", team_.owner.headers)
    assert members[0] in [row["customer_id"] for row in users.json()["data"]]
    answer = await change_members(team_, **body)
    assert [result["outcome"] for result in answer.json()["results"]] == ["applied", "unchanged"]
    assert await team_.balance() == 0


async def test_giving_seats_back_needs_the_right_to_change_the_quantity(still: Shop) -> None:
    """M24: a manager who may remove people may not lower the quantity, and nobody is removed."""
    team_, members = await staffed(still, 5, 2)
    manager = await still.service.person("manager")
    keys = {
        "billing_shared_subscription_id": team_.id,
        "billing_shared_subscription_role": "manager",
    }
    await still.stripe.post(f"/v1/customers/{manager.customer_id}", metadata=keys)
    await still.listen()
    answer = await change_members(team_, manager.headers, remove=members[:1], release_seats=True)
    problem(answer, 403, "role_required")
    await still.listen()
    assert (await team_.quantity()) == 5
    users = await still.service.get(f"/v1/shared-subscriptions/{team_.id}/users", team_.owner.headers)
    assert members[0] in [row["customer_id"] for row in users.json()["data"]]


@pytest.mark.parametrize(
    "body",
    [
        {"release_seats": True, "add": [{"email": "a@example.com"}]},
        {"release_seats": True, "remove": ["cus_x"], "over_capacity": "add_seats"},
        {"release_seats": "yes", "remove": ["cus_x"]},
        {"remove": ["cus_x"], "forgo_credit": 1},
        {"remove": ["cus_x"], "quote_id": "qt_" + "0" * 32},
    ],
)
async def test_a_release_that_says_nothing_clear_is_refused(still: Shop, body: dict[str, Any]) -> None:
    team_ = await team(still, 5)
    problem(await change_members(team_, **body), 422, "invalid_request")
    assert await team_.quantity() == 5
