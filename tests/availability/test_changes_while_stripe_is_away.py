"""Changes that Stripe has to be asked about before they are sent are admitted while it hangs, and judged afterwards."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import httpx
import pytest

from app.operations import runner
from app.operations.runner import drain
from app.stripe import client as client_module
from app.subscriptions.orders import Method
from testkit.company import Company, Person, breaking_service, new_email
from testkit.problems import ok, problem
from testkit.service import as_service
from testkit.simulator import Simulator, new_account_key
from tests.money.shop import CHALLENGED, DECLINED, VISA, Shop, at, settled_by_a_worker, worked_on
from tests.money.test_credits import intent_of
from tests.money.test_promotion_codes import FOREVER, code, texts
from tests.money.test_waiting_purchases import (
    ask_for,
    charge_to,
    company_that_pays_by,
    outcomes,
    pay,
)

DAY = 86_400
_PATCH = pytest.MonkeyPatch()


@pytest.fixture(scope="module")
async def shop(stripe_simulator: str, module_database_url: str) -> AsyncIterator[Shop]:
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        breaking_service(stripe, module_database_url) as service,
    ):
        yield Shop(service)


@pytest.fixture(autouse=True)
async def _back(shop: Shop) -> AsyncIterator[None]:
    yield
    await back(shop)


async def away(shop: Shop) -> None:
    """Stripe hangs, and the breaker of callers is open."""
    await shop.stripe.add_fault(timeout=True, times=0)
    who = as_service("read")
    # The breaker opens within a second. Before and after, a busy machine's answers are not taken for overdue.
    _PATCH.setattr(client_module, "OVERDUE_SECONDS", 0.5)
    await asyncio.gather(*(shop.service.get("/v1/promotion-codes/NOTHING", who) for _ in range(6)))
    assert shop.service.context.breakers["write"].is_open


async def back(shop: Shop) -> None:
    """Stripe answers again, and the process knows it."""
    _PATCH.undo()
    await shop.stripe.clear_faults()
    for kind in ("fresh", "write", "background"):
        shop.service.context.breakers[kind].close()


async def admitted(answer: Awaitable[httpx.Response]) -> httpx.Response:
    """The answer of a change that is admitted although Stripe hangs."""
    found = await answer
    assert found.status_code == 202, found.text
    assert found.json()["state"] == "running"
    return found


async def process_ends() -> None:
    """The process that took the requests ends, and a worker goes on with their operations."""
    for task in list(runner._running):
        task.cancel()
    await drain(5)


async def ended(shop: Shop, answer: httpx.Response) -> list[tuple[str, str | None]]:
    """The outcomes of the operation of a 202, once Stripe is back and a worker has finished it."""
    await back(shop)
    settled = await settled_by_a_worker(shop, answer)
    if settled["state"] == "running":
        # The purchase that waited was settled by its own try at the same moment. A worker tries the change again.
        settled = ok(await worked_on(shop, answer.json()["operation_id"]))
    assert settled["state"] == "settled", settled
    return [(one["outcome"], one["code"]) for one in settled["results"]]


async def subscriber(shop: Shop, **more: Any) -> tuple[Person, str]:
    buyer, card = await shop.buyer()
    made = await shop.bought(
        buyer.headers, [{"price_id": await shop.price()}], payment_method_id=card, **more
    )
    return buyer, str(made["id"])


# ------------------------------------------------------------------------------------- what only Stripe knows


async def test_purchase_is_admitted_when_its_card_and_code_cannot_be_read(shop: Shop) -> None:
    """U4: a purchase that names a card and a code was 503 while Stripe hung."""
    await code(shop, "BUYAWAY")
    buyer, card = await shop.buyer()
    price = await shop.price()
    await away(shop)
    asked = shop.add(buyer.headers, [{"price_id": price}], payment_method_id=card, promotion_code="BUYAWAY")
    assert await ended(shop, await admitted(asked)) == [("applied", None)]
    [made] = await shop.all_of(buyer)
    assert (made["status"], made["default_payment_method"]) == ("active", card)
    shown = await shop.subscription(buyer.headers, made["id"])
    assert texts(shown) == ["BUYAWAY"]
    assert (await shop.stripe.get(f"/v1/invoices/{made['latest_invoice']}"))["amount_paid"] == 700


async def test_purchase_attaches_a_new_card_when_stripe_is_back(shop: Shop) -> None:
    buyer, _ = await shop.buyer(card=None)
    price = await shop.price()
    await away(shop)
    asked = shop.add(buyer.headers, [{"price_id": price}], payment_method_id=VISA)
    assert await ended(shop, await admitted(asked)) == [("applied", None)]
    [made] = await shop.all_of(buyer)
    assert made["status"] == "active" and made["default_payment_method"] is not None


async def test_nothing_is_bought_when_the_card_turns_out_to_be_foreign(shop: Shop) -> None:
    """Who pays: another customer's card is found out before anything is sent."""
    other, foreign = await shop.buyer()
    buyer, _ = await shop.buyer(card=None)
    price = await shop.price()
    await away(shop)
    asked = shop.add(buyer.headers, [{"price_id": price}], payment_method_id=foreign)
    assert await ended(shop, await admitted(asked)) == [("failed", "not_found")]
    assert await shop.all_of(buyer) == []
    assert (await shop.stripe.get(f"/v1/payment_methods/{foreign}"))["customer"] == other.customer_id


async def test_codes_cannot_be_guessed_when_stripe_is_away(shop: Shop) -> None:
    """A guess counts when it is judged: the sixth one is not looked up any more."""
    buyer, card = await shop.buyer()
    price = await shop.price()
    await code(shop, "SECRETCODE")
    await away(shop)
    answers = [
        await admitted(
            shop.add(
                buyer.headers,
                [{"price_id": price}],
                payment_method_id=card,
                promotion_code=guess,
                allow_duplicate=True,
            )
        )
        for guess in (*(f"GUESS{number}" for number in range(5)), "SECRETCODE")
    ]
    found = [await ended(shop, answer) for answer in answers]
    assert found == [[("failed", "invalid_request")]] * 5 + [[("failed", "too_many_declines")]]
    assert await shop.all_of(buyer) == []


async def test_cards_cannot_be_tried_out_when_stripe_is_away(shop: Shop) -> None:
    """A decline counts when it comes, as at once: the sixth card is not charged, although it is good."""
    buyer, good = await shop.buyer()
    bad = await shop.card(buyer, DECLINED)
    price = await shop.price()
    await away(shop)
    answers = [
        await admitted(
            shop.add(buyer.headers, [{"price_id": price}], payment_method_id=card, allow_duplicate=True)
        )
        for card in (*[bad] * 5, good)
    ]
    found = [await ended(shop, answer) for answer in answers]
    assert found == [[("failed", "card_declined")]] * 5 + [[("failed", "too_many_declines")]]
    assert await shop.all_of(buyer) == []


async def test_release_before_cannot_run_what_asks_first_when_both_run(shop: Shop) -> None:
    """Who pays: it knows no such step, and would send the change without the card and the code that were named."""
    buyer, mine = await subscriber(shop)
    card = await shop.card(buyer)
    await away(shop)
    answer = await admitted(shop.change(buyer.headers, mine, payment_method_id=card))
    (row,) = await shop.service.fetch(
        "select details ->> 'method' as method from operation_steps where operation_id = $1",
        answer.json()["operation_id"],
    )
    with pytest.raises(ValueError, match="ask_first"):
        Method(row["method"])
    assert await ended(shop, answer) == [("applied", None)]
    assert (await shop.true(mine))["default_payment_method"] == card


async def test_answer_is_the_same_when_a_refused_change_is_sent_again(shop: Shop) -> None:
    buyer, mine = await subscriber(shop)
    await away(shop)
    first = await admitted(shop.change(buyer.headers, mine, key="again-1", promotion_code="NOSUCH"))
    assert await ended(shop, first) == [("failed", "invalid_request")]
    again = await shop.change(buyer.headers, mine, key="again-1", promotion_code="NOSUCH")
    assert again.status_code == 202 and again.json()["operation_id"] == first.json()["operation_id"]


async def test_change_is_admitted_when_its_card_and_code_cannot_be_read(shop: Shop) -> None:
    """U4: the new card is charged for the new quantity, less the code's discount."""
    await code(shop, "CHANGEAWAY")
    buyer, mine = await subscriber(shop)
    card = await shop.card(buyer)
    [item] = (await shop.subscription(buyer.headers, mine))["items"]
    await away(shop)
    asked = shop.change(
        buyer.headers,
        mine,
        items=[{"id": item["id"], "quantity": 3}],
        payment_method_id=card,
        promotion_code="CHANGEAWAY",
    )
    assert await ended(shop, await admitted(asked)) == [("applied", None)]
    true = await shop.true(mine)
    assert true["default_payment_method"] == card and len(true["discounts"]) == 1
    assert true["items"]["data"][0]["quantity"] == 3
    await shop.cache_is_true()


async def test_nothing_is_changed_when_the_card_or_code_turns_out_to_be_wrong(shop: Shop) -> None:
    await code(shop, "HELD")
    await code(shop, "SECOND")
    _, foreign = await shop.buyer()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"payment_method_id": foreign}, "not_found"),
        ({"payment_method_id": "pm_absent"}, "not_found"),
        ({"promotion_code": "NOSUCH"}, "invalid_request"),
        ({"promotion_code": "SECOND"}, "promotion_code_in_use"),
    ]
    held = {"promotion_code": "HELD"}
    made = [
        (*await subscriber(shop, **(held if refusal == "promotion_code_in_use" else {})), body, refusal)
        for body, refusal in cases
    ]
    before = [await shop.true(mine) for _, mine, _, _ in made]
    items = [(await shop.subscription(buyer.headers, mine))["items"][0]["id"] for buyer, mine, _, _ in made]
    await away(shop)
    answers = [
        await admitted(shop.change(buyer.headers, mine, items=[{"id": item, "quantity": 2}], **body))
        for (buyer, mine, body, _), item in zip(made, items, strict=True)
    ]
    for answer, (_, _, body, refusal) in zip(answers, made, strict=True):
        assert await ended(shop, answer) == [("failed", refusal)], body
    assert [await shop.true(mine) for _, mine, _, _ in made] == before


async def test_nothing_is_sent_when_the_code_applies_already(shop: Shop) -> None:
    await code(shop, "SAMEAWAY")
    buyer, mine = await subscriber(shop, promotion_code="SAMEAWAY")
    writes = await shop.asked("POST", f"/v1/subscriptions/{mine}")
    await away(shop)
    asked = shop.change(buyer.headers, mine, promotion_code="sameaway")
    assert await ended(shop, await admitted(asked)) == [("unchanged", None)]
    assert await shop.asked("POST", f"/v1/subscriptions/{mine}") == writes


@pytest.mark.parametrize("applies", [False, True], ids=["new", "applies already"])
async def test_code_stays_beside_discounts_when_an_admin_named_both_without_stripe(
    shop: Shop, applies: bool
) -> None:
    text = f"BOTHAWAY{applies}"
    await code(shop, text)
    buyer, mine = await subscriber(shop, **({"promotion_code": text} if applies else {}))
    coupon = await shop.stripe.post("/v1/coupons", percent_off=10, duration="forever")
    await away(shop)
    asked = shop.change(as_service("admin"), mine, discounts=[{"coupon": coupon["id"]}], promotion_code=text)
    assert await ended(shop, await admitted(asked)) == [("applied", None)]
    shown = await shop.subscription(buyer.headers, mine)
    assert [discount["promotion_code"] for discount in shown["discounts"]] == [None, text]


async def test_quote_is_kept_when_its_change_is_admitted_without_stripe(shop: Shop) -> None:
    await code(shop, "QUOTEAWAY", coupon=FOREVER)
    buyer, mine = await subscriber(shop)
    [item] = (await shop.subscription(buyer.headers, mine))["items"]
    body: dict[str, Any] = {
        "items": [{"id": item["id"], "quantity": 4}],
        "promotion_code": "QUOTEAWAY",
    }
    quoted = await shop.preview(buyer.headers, mine, **body)
    await away(shop)
    answer = await admitted(shop.change(buyer.headers, mine, quote_id=quoted["quote_id"], **body))
    assert await ended(shop, answer) == [("applied", None)]
    # Not the first of the list: the purchase and its change may be of one second.
    invoices = await shop.invoices(buyer.headers, mine)
    [changed] = [one for one in invoices if one["billing_reason"] == "subscription_update"]
    assert changed["amount_paid"] == quoted["amount_due_now"]


async def test_stranger_learns_nothing_when_stripe_is_away(shop: Shop) -> None:
    """Rights are judged at once: no operation is stored for somebody who may not make the change."""
    company = await shop.service.company(seats=3)
    path = f"/v1/subscriptions/{company.subscription_id}"
    await away(shop)
    body = {"payment_method_id": "pm_absent"}
    problem(await shop.service.send("PATCH", path, company.user.headers, body), 403, "role_required")
    problem(await shop.service.send("PATCH", path, company.stranger.headers, body), 404, "not_found")


# ------------------------------------------------------------------------------------- a purchase that waits


async def seats(shop: Shop, company: Company, total: int) -> httpx.Response:
    return await shop.service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": total})


async def cancelled(shop: Shop, company: Company, **body: Any) -> httpx.Response:
    path = f"/v1/subscriptions/{company.subscription_id}/cancel"
    return await shop.service.send("POST", path, company.owner.headers, body)


async def quantity(company: Company) -> int:
    return int((await company.state())["items"]["data"][0]["quantity"])


async def to_another_price(shop: Shop, company: Company) -> tuple[str, dict[str, Any]]:
    """Another price, and the change to it that names no quantity."""
    price = await shop.price(company.product_id, unit_amount=2000)
    item = (await company.state())["items"]["data"][0]["id"]
    return price, {"items": [{"id": item, "price_id": price}]}


async def pay_by_bank(shop: Shop, document: dict[str, Any]) -> None:
    """The payment is processing from then on."""
    secret = document["payment"]["client_secret"]
    await shop.stripe.control("POST", "confirm", client_secret=secret, payment_method="pm_usBankAccount")


async def purchase(shop: Shop, document: dict[str, Any]) -> list[tuple[str, str | None]]:
    """The outcomes of a purchase of seats that waited, after a worker has looked at it."""
    shown = ok(await worked_on(shop, document["operation_id"]))
    return outcomes(shown, "seats")


async def test_waiting_purchase_ends_when_a_change_was_admitted_without_stripe(shop: Shop) -> None:
    """U4: a change that supersedes a waiting purchase was 503 while Stripe hung."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await away(shop)
    answer = await admitted(seats(shop, company, 3))
    await back(shop)
    await charge_to(shop, company, VISA)
    assert await ended(shop, answer) == [("applied", None)]
    assert await purchase(shop, document) == [("failed", "payment_abandoned")]
    assert await quantity(company) == 3
    await shop.cache_is_true()


async def test_change_is_judged_by_what_was_paid_when_the_payment_came_while_stripe_was_away(
    shop: Shop,
) -> None:
    """Was it paid: the purchase is applied, and the change is made of what it left."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await away(shop)
    answer = await admitted(seats(shop, company, 9))
    await back(shop)
    await pay(shop, document["payment"])
    await charge_to(shop, company, VISA)
    assert await ended(shop, answer) == [("applied", None)]
    assert await purchase(shop, document) == [("applied", None)]
    assert await quantity(company) == 9


async def test_processing_payment_is_not_voided_when_a_change_was_admitted_without_stripe(
    shop: Shop,
) -> None:
    """W4: its money would buy nothing, so the change is refused as with Stripe there."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await away(shop)
    answer = await admitted(seats(shop, company, 3))
    await back(shop)
    await pay_by_bank(shop, document)
    assert await ended(shop, answer) == [("failed", "operation_in_progress")]
    assert await quantity(company) == 2


async def test_etag_is_not_outdated_when_the_payment_that_waits_cannot_be_read(shop: Shop) -> None:
    """It was 412 `version_conflict`, although nothing had changed."""
    company = await company_that_pays_by(shop, CHALLENGED)
    await ask_for(company)
    shown = await shop.service.get(f"/v1/subscriptions/{company.subscription_id}", company.owner.headers)
    change: dict[str, Any] = {"match": shown.headers["etag"], "cancel_at_period_end": True}
    await away(shop)
    refused = await shop.change(company.owner.headers, company.subscription_id, **change)
    problem(refused, 503, "stripe_unavailable")
    await back(shop)
    ok(await shop.change(company.owner.headers, company.subscription_id, **change))


async def test_refused_change_supersedes_nothing_when_stripe_was_away(shop: Shop) -> None:
    """W2: the price is compared with its quote before anything ends."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    owner, path = company.owner.headers, f"{company.path}/seats"
    quote = ok(await shop.service.send("POST", f"{company.path}/quote", owner, {"total": 9}))
    balance = f"/v1/customers/{company.payer.customer_id}/balance_transactions"
    await shop.stripe.post(balance, amount=-700, currency="usd")
    await away(shop)
    body = {"total": 9, "quote_id": quote["quote_id"]}
    answer = await admitted(shop.service.send("PUT", path, owner, body))
    assert await ended(shop, answer) == [("failed", "quote_expired")]
    assert await purchase(shop, document) == [("pending", None)]
    assert await quantity(company) == 2


async def test_lost_right_supersedes_nothing_when_stripe_was_away(shop: Shop) -> None:
    """The owner asked for the change, and gave the subscription away before Stripe was back."""
    company = await company_that_pays_by(shop, CHALLENGED, payer_is_owner=False)
    permission = f"{company.path}/purchase-permission"
    ok(await shop.service.send("PUT", permission, company.payer.headers))
    document = await ask_for(company, who=as_service("write"))
    await away(shop)
    answer = await admitted(seats(shop, company, 9))
    await back(shop)
    owner = {"billing_shared_subscription_owner": company.manager.customer_id}
    await shop.stripe.post(f"/v1/subscriptions/{company.subscription_id}", metadata=owner)
    assert await ended(shop, answer) == [("failed", "role_required")]
    assert await purchase(shop, document) == [("pending", None)]
    assert await quantity(company) == 2


async def test_seats_of_a_call_supersede_when_stripe_was_away(shop: Shop) -> None:
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await away(shop)
    asked = company.change(company.owner.headers, add=[new_email()], over_capacity="add_seats")
    answer = await admitted(asked)
    [(details,)] = await shop.service.fetch(
        "select details from operation_steps where operation_id = $1 and action = 'buy_seats'",
        answer.json()["operation_id"],
    )
    assert "quantity" not in details, "a release before would send the raise over what waits"
    await back(shop)
    await charge_to(shop, company, VISA)
    assert await ended(shop, answer) == [("applied", None)] * 2
    assert await purchase(shop, document) == [("failed", "payment_abandoned")]
    assert await quantity(company) == 3 and len(await company.members()) == 3


@pytest.mark.parametrize("is_first", [True, False], ids=["purchase_first", "change_first"])
async def test_seats_are_theirs_who_paid_when_a_call_was_admitted_without_stripe(
    shop: Shop, is_first: bool
) -> None:
    """Was it paid: the people of the paid purchase get its seats, whichever of the two a worker takes up first."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await away(shop)
    asked = company.change(
        company.owner.headers, add=[new_email() for _ in range(3)], over_capacity="add_seats"
    )
    answer = await admitted(asked)
    await drain(20)
    await back(shop)
    await pay(shop, document["payment"])
    await shop.service.fetch(
        "update operations set lease_until = now() + interval '1 minute' where id = $1",
        answer.json()["operation_id"] if is_first else document["operation_id"],
    )
    if is_first:
        ok(await worked_on(shop, document["operation_id"]))
    refused = ok(await worked_on(shop, answer.json()["operation_id"]))["results"]
    assert [(one["outcome"], one["code"]) for one in refused] == [("refused", "subscription_not_active")] * 4
    shown = ok(await worked_on(shop, document["operation_id"]))
    assert outcomes(shown, "seats") == [("applied", None)] and outcomes(shown) == [("applied", None)] * 3
    assert await quantity(company) == 5 and len(await company.members()) == 5


async def test_owner_gets_out_when_a_purchase_waits_and_stripe_is_away(shop: Shop) -> None:
    """Can they get out: an end is admitted beside the purchase, which ends with it."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await away(shop)
    answer = await admitted(cancelled(shop, company))
    assert await ended(shop, answer) == [("applied", None)]
    assert await purchase(shop, document) == [("failed", "payment_abandoned")]
    assert (await company.state())["cancel_at_period_end"] is True


async def test_subscription_ends_now_when_a_purchase_waits_and_stripe_is_away(shop: Shop) -> None:
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await away(shop)
    answer = await admitted(cancelled(shop, company, when="now"))
    assert await ended(shop, answer) == [("applied", None)]
    assert await purchase(shop, document) == [("failed", "payment_abandoned")]
    assert (await company.state())["status"] == "canceled"


# ------------------------------------------------------------------------------------- an end that stands


async def test_cancel_is_admitted_when_the_end_stands_and_stripe_is_away(shop: Shop) -> None:
    """U4: asking again for an end that stands was 503 while Stripe hung. Nothing is written for it."""
    company = await shop.service.company(seats=3)
    ok(await cancelled(shop, company))
    writes = await shop.asked("POST", f"/v1/subscriptions/{company.subscription_id}")
    await away(shop)
    answer = await admitted(cancelled(shop, company))
    assert await ended(shop, answer) == [("unchanged", None)]
    assert await shop.asked("POST", f"/v1/subscriptions/{company.subscription_id}") == writes


async def test_subscription_ends_when_its_end_was_taken_back_in_the_dashboard_unseen(shop: Shop) -> None:
    """Can they get out: the end that the copy still showed is set again."""
    company = await shop.service.company(seats=3)
    ok(await cancelled(shop, company))
    path = f"/v1/subscriptions/{company.subscription_id}"
    await shop.stripe.post(path, cancel_at_period_end=False)
    await away(shop)
    answer = await admitted(cancelled(shop, company))
    assert await ended(shop, answer) == [("applied", None)]
    assert (await company.state())["cancel_at_period_end"] is True


@pytest.mark.parametrize(("days", "becomes"), [(-1, "refused"), (400, "applied")])
async def test_earlier_end_stays_when_it_was_set_in_the_dashboard_unseen(
    shop: Shop, days: int, becomes: str
) -> None:
    """Who may move an earlier end was not judged; a later one is moved to the end that was asked for."""
    company = await shop.service.company(seats=3)
    asked = at(ok(await cancelled(shop, company))["ends_at"])
    other = asked + days * DAY
    await shop.stripe.post(f"/v1/subscriptions/{company.subscription_id}", cancel_at=other)
    await away(shop)
    answer = await admitted(cancelled(shop, company))
    code = "version_conflict" if becomes == "refused" else None
    assert await ended(shop, answer) == [(becomes, code)]
    assert (await company.state())["cancel_at"] == (other if becomes == "refused" else asked)


async def test_resume_changes_nothing_when_stripe_was_away(shop: Shop) -> None:
    """There was nothing to take back; an end that the copy has not seen is not taken back unjudged."""
    first, second = [await shop.service.company(seats=3) for _ in range(2)]
    await shop.stripe.post(f"/v1/subscriptions/{second.subscription_id}", cancel_at_period_end=True)
    await away(shop)
    answers = [
        await admitted(
            shop.service.send("POST", f"/v1/subscriptions/{one.subscription_id}/resume", one.owner.headers)
        )
        for one in (first, second)
    ]
    assert await ended(shop, answers[0]) == [("unchanged", None)]
    assert await ended(shop, answers[1]) == [("refused", "version_conflict")]
    assert (await second.state())["cancel_at_period_end"] is True


# ------------------------------------------------------------------------------------- seats that are given back


async def test_seats_are_given_back_when_stripe_was_away(shop: Shop) -> None:
    """U4: a removal that gives its seat back was 503 while Stripe hung."""
    company = await shop.service.company(seats=2)
    await away(shop)
    asked = company.change(company.owner.headers, remove=[company.user.customer_id], release_seats=True)
    assert await ended(shop, await admitted(asked)) == [("applied", None)] * 2
    assert await quantity(company) == 1 and len(await company.members()) == 1
    await shop.cache_is_true()


async def test_nobody_is_removed_when_the_seats_turn_out_to_be_unpaid(shop: Shop) -> None:
    """Was it paid: the credit is tested before anybody is removed, as with Stripe there."""
    company = await shop.service.company(seats=2)
    intent = await intent_of(shop, {"id": company.invoice_id})
    await shop.stripe.post("/v1/refunds", payment_intent=intent)
    await away(shop)
    asked = company.change(company.owner.headers, remove=[company.user.customer_id], release_seats=True)
    assert await ended(shop, await admitted(asked)) == [("refused", "invoice_unpaid")] * 2
    assert await quantity(company) == 2 and len(await company.members()) == 2


async def test_paid_seats_stay_when_a_change_that_names_no_quantity_was_admitted_without_stripe(
    shop: Shop,
) -> None:
    """Was it paid: the change was sent with the quantity from before the payment, and took the paid seats away."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = ok(await seats(shop, company, 9), 202)
    price, change = await to_another_price(shop, company)
    await away(shop)
    answer = await admitted(shop.change(as_service("admin"), company.subscription_id, **change))
    await back(shop)
    await pay(shop, document["payment"])
    await charge_to(shop, company, VISA)
    assert await ended(shop, answer) == [("failed", "version_conflict")]
    [paid] = ok(await worked_on(shop, document["operation_id"]))["results"]
    assert (paid["outcome"], await quantity(company)) == ("applied", 9)
    ok(await shop.change(as_service("admin"), company.subscription_id, **change))
    [changed] = (await company.state())["items"]["data"]
    assert (changed["price"]["id"], changed["quantity"]) == (price, 9)


async def test_change_that_names_no_quantity_is_made_when_the_purchase_was_not_paid(shop: Shop) -> None:
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    price, change = await to_another_price(shop, company)
    await away(shop)
    answer = await admitted(shop.change(as_service("admin"), company.subscription_id, **change))
    await back(shop)
    await charge_to(shop, company, VISA)
    assert await ended(shop, answer) == [("applied", None)]
    assert await purchase(shop, document) == [("failed", "payment_abandoned")]
    [changed] = (await company.state())["items"]["data"]
    assert (changed["price"]["id"], changed["quantity"]) == (price, 2)


async def test_refused_end_supersedes_nothing_when_stripe_was_away(shop: Shop) -> None:
    """The purchase was noted to end before the code beside the end was judged."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await away(shop)
    change: dict[str, Any] = {"cancel_at_period_end": True, "promotion_code": "NOSUCHCODE"}
    answer = await admitted(shop.change(company.owner.headers, company.subscription_id, **change))
    assert await ended(shop, answer) == [("failed", "invalid_request")]
    assert await purchase(shop, document) == [("pending", None)]
    assert (await company.state())["cancel_at_period_end"] is False


async def test_lost_right_to_end_supersedes_nothing_when_stripe_was_away(shop: Shop) -> None:
    company = await company_that_pays_by(shop, CHALLENGED, payer_is_owner=False)
    permission = f"{company.path}/purchase-permission"
    ok(await shop.service.send("PUT", permission, company.payer.headers))
    document = await ask_for(company, who=as_service("write"))
    await away(shop)
    answer = await admitted(cancelled(shop, company))
    await back(shop)
    owner = {"billing_shared_subscription_owner": company.manager.customer_id}
    await shop.stripe.post(f"/v1/subscriptions/{company.subscription_id}", metadata=owner)
    assert await ended(shop, answer) == [("failed", "role_required")]
    assert await purchase(shop, document) == [("pending", None)]
    assert (await company.state())["cancel_at_period_end"] is False


async def test_end_is_set_beside_a_payment_that_is_processing_when_stripe_was_away(shop: Shop) -> None:
    """Can they get out: the end does not wait for the bank, and the purchase ends if its payment fails."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await away(shop)
    answer = await admitted(cancelled(shop, company))
    await back(shop)
    await pay_by_bank(shop, document)
    assert await ended(shop, answer) == [("applied", None)]
    assert (await company.state())["cancel_at_period_end"] is True
    assert await purchase(shop, document) == [("pending", None)]


async def test_withdrawn_permission_supersedes_nothing_when_a_call_was_admitted_without_stripe(
    shop: Shop,
) -> None:
    """The payer withdraws it after the call began to run: the raise ended the purchase, and was refused then."""
    company = await company_that_pays_by(shop, CHALLENGED, payer_is_owner=False)
    permission = f"{company.path}/purchase-permission"
    ok(await shop.service.send("PUT", permission, company.payer.headers))
    document = await ask_for(company, who=as_service("write"))
    await away(shop)
    update = [{"customer_id": company.user.customer_id, "role": "manager"}]
    asked = company.change(company.owner.headers, add=[new_email()], update=update, over_capacity="add_seats")
    answer = await admitted(asked)
    await back(shop)
    await shop.stripe.add_fault(method="POST", path="/v1/customers/{id}", latency_s=1.5)
    work = asyncio.create_task(settled_by_a_worker(shop, answer))
    await asyncio.sleep(0.7)
    withdrawn = await shop.service.send("DELETE", permission, company.payer.headers)
    assert withdrawn.status_code == 204, withdrawn.text
    settled = await work
    assert outcomes(settled, "seats") == [("refused", "role_required")], settled
    assert await purchase(shop, document) == [("pending", None)]
    assert await quantity(company) == 2


@pytest.mark.parametrize(
    ("code", "status"),
    [("operation_in_progress", 409), ("promotion_code_in_use", 409), ("too_many_declines", 429)],
)
async def test_refusal_is_told_again_when_its_answer_was_lost(shop: Shop, code: str, status: int) -> None:
    """It was 502, and the same for each repetition. How it was refused makes no difference to that."""
    company = await company_that_pays_by(shop, CHALLENGED)
    document = await ask_for(company)
    await away(shop)
    path, body, key = f"{company.path}/seats", {"total": 3}, {"Idempotency_Key": f"lost-{code}"}
    answer = await admitted(shop.service.send("PUT", path, company.owner.headers, body, **key))
    await back(shop)
    await pay_by_bank(shop, document)
    assert await ended(shop, answer) == [("failed", "operation_in_progress")]
    operation_id = answer.json()["operation_id"]
    await shop.service.fetch(
        "update operation_steps set code = $2 where operation_id = $1", operation_id, code
    )
    await shop.service.fetch("delete from idempotency_keys")
    problem(await shop.service.send("PUT", path, company.owner.headers, body, **key), status, code)


async def test_owner_takes_their_end_back_when_a_back_end_asked_for_it_again_without_stripe(
    shop: Shop,
) -> None:
    """Can they get out: the repetition set nothing, and took the owner's right to take the end back."""
    company = await company_that_pays_by(shop, CHALLENGED, payer_is_owner=False)
    ok(await cancelled(shop, company))
    path = f"/v1/subscriptions/{company.subscription_id}"
    await away(shop)
    answer = await admitted(shop.service.send("POST", f"{path}/cancel", as_service("write"), {}))
    assert await ended(shop, answer) == [("unchanged", None)]
    ok(await shop.service.send("POST", f"{path}/resume", company.owner.headers))
    assert (await company.state())["cancel_at_period_end"] is False


# ------------------------------------------------------------------------------- what was accepted is withdrawn


@pytest.mark.parametrize("by", ["total", "people"])
async def test_purchase_that_was_not_sent_is_withdrawn(shop: Shop, by: str) -> None:
    """An owner who had asked for 50 seats had no way back: each change was 409, and they were bought hours later."""
    company = await company_that_pays_by(shop, VISA)
    path = f"{company.path}/seats"
    await away(shop)
    if by == "total":
        asked = shop.service.send("PUT", path, company.owner.headers, {"total": 50})
    else:
        asked = company.change(
            company.owner.headers, add=[new_email() for _ in range(3)], over_capacity="add_seats"
        )
    operation_id = (await admitted(asked)).json()["operation_id"]
    cancel = f"/v1/operations/{operation_id}/cancel"
    problem(await shop.service.send("POST", cancel, company.stranger.headers), 404, "not_found")
    for _ in range(2):
        answer = await shop.service.send("POST", cancel, company.owner.headers)
        assert answer.status_code in (200, 202), answer.text
    shown = ok(await shop.service.get(f"/v1/operations/{operation_id}", company.owner.headers))
    assert ("failed", "payment_abandoned") in [(one["outcome"], one["code"]) for one in shown["results"]]
    await process_ends()
    smaller = await admitted(shop.service.send("PUT", path, company.owner.headers, {"total": 3}))
    assert await ended(shop, smaller) == [("applied", None)]
    await worked_on(shop, operation_id)
    assert (await company.state())["items"]["data"][0]["quantity"] == 3
    sent = await shop.stripe.requests(method="POST", path=f"/v1/subscriptions/{company.subscription_id}")
    assert not [one for one in sent if (one["idempotency_key"] or "").startswith(operation_id)]


async def a_window_later(shop: Shop, answer: httpx.Response) -> list[tuple[str, str | None]]:
    """The outcomes of an operation that nobody could send within `PAYMENT_WINDOW`."""
    await process_ends()
    await shop.service.fetch(
        "update operations set created_at = created_at - interval '2 hours' where id = $1",
        answer.json()["operation_id"],
    )
    return await ended(shop, answer)


@pytest.mark.parametrize("by", ["total", "item removed"])
async def test_less_is_made_when_stripe_is_back_after_the_payment_window(shop: Shop, by: str) -> None:
    """Nobody goes on paying because an outage was long: what only reduces charges nobody."""
    company = await company_that_pays_by(shop, VISA, seats=5)
    path = f"/v1/subscriptions/{company.subscription_id}"
    await shop.stripe.post(path, items=[{"price": await shop.price(), "quantity": 1}])
    await shop.service.refresh("subscription", company.subscription_id)
    seats, other = (await company.state())["items"]["data"]
    await away(shop)
    if by == "total":
        asked = shop.service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 3})
    else:
        body = {"items": [{"id": other["id"], "deleted": True}, {"id": seats["id"], "quantity": 3}]}
        asked = shop.service.send("PATCH", path, company.owner.headers, body)
    assert await a_window_later(shop, await admitted(asked)) == [("applied", None)]
    assert (await company.state())["items"]["data"][0]["quantity"] == 3


@pytest.mark.parametrize("by", ["total", "people", "item"])
async def test_seats_are_not_bought_when_stripe_is_back_after_the_payment_window(shop: Shop, by: str) -> None:
    """A raise was sent whenever Stripe came back: days later the card was charged for seats that nobody expected."""
    company = await company_that_pays_by(shop, VISA)
    [item] = (await company.state())["items"]["data"]
    await away(shop)
    match by:
        case "total":
            asked = shop.service.send("PUT", f"{company.path}/seats", company.owner.headers, {"total": 9})
        case "item":
            body = {"items": [{"id": item["id"], "quantity": 9}]}
            path = f"/v1/subscriptions/{company.subscription_id}"
            asked = shop.service.send("PATCH", path, company.owner.headers, body)
        case _:
            people = [new_email() for _ in range(3)]
            asked = company.change(company.owner.headers, add=people, over_capacity="add_seats")
    outcomes_ = await a_window_later(shop, await admitted(asked))
    assert ("failed", "operation_expired") in outcomes_
    assert ("applied", None) not in outcomes_
    assert (await company.state())["items"]["data"][0]["quantity"] == 2
