"""Faults planted on purpose: each is one slip of the service, and an invariant has to notice it.

Some of them are what the service did before exact money: their names begin with the fault's id in
docs/decisions/0001-credit-only-what-was-paid.md and its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from app.customers import payment_details
from app.domain.credits import Bill, _Books
from app.errors import Conflict, PaymentRequired
from app.operations import store as operation_rows
from app.operations import waiting
from app.stripe.billing import BillingCalls
from app.stripe.client import Write
from app.subscriptions import (
    change_operations,
    charges,
    ending,
    previews,
    quotes,
    superseding,
)
from app.subscriptions import (
    payment_bounds as ways_of_paying,
)
from app.subscriptions.ends import When
from app.subscriptions.store.quotes import LIFETIME_SECONDS, Promise
from verification.planting import Change


@dataclass(frozen=True, slots=True)
class Defect:
    """`breaks`: the letters of the invariants that must notice it."""

    breaks: str
    changes: Callable[[], list[Change]]


def _paid_in_full(*statuses: str) -> list[Change]:
    """Invoices of these statuses count as paid in full."""
    paid_share = vars(Bill)["paid_share"].fget

    def share(self: Bill) -> Fraction:
        found: Fraction = Fraction(1) if self.status in statuses else paid_share(self)
        return found

    return [(Bill, "paid_share", property(share))]


def _everything_billed_is_paid() -> list[Change]:
    return _paid_in_full("draft", "open", "paid", "void", "uncollectible")


def _drafts_are_paid() -> list[Change]:
    return _paid_in_full("draft")


def _open_invoices_are_paid() -> list[Change]:
    return _paid_in_full("open")


def _money_that_went_back_is_paid() -> list[Change]:
    return _paid_in_full("paid")


def _chain_not_followed() -> list[Change]:
    return [(_Books, "_hollow", lambda *_: Fraction(0))]


def _charge_hides_a_credit() -> list[Change]:
    return [(charges, "_replaced", lambda *_: frozenset())]


def _cancel_not_tested() -> list[Change]:
    async def nothing_unpaid(*_: Any) -> None:
        return None

    return [(charges, "credits_unpaid_on_cancel", nothing_unpaid)]


def _credit_quoted_for_a_day() -> list[Change]:
    return [(Promise, "lifetime", property(lambda _: LIFETIME_SECONDS))]


def _quote_not_compared() -> list[Change]:
    return [(quotes, "check_kept", lambda *_: None)]


def _balance_not_compared() -> list[Change]:
    def check_kept(quoted: Any, priced: Any) -> None:
        if (quoted.currency, quoted.credit, quoted.tax) != (
            priced.now.currency,
            priced.now.credit,
            priced.now.tax,
        ):
            raise quotes.expired()

    return [(quotes, "check_kept", check_kept)]


def _sent_without_its_date() -> list[Change]:
    update = BillingCalls.subscription_update

    def undated(self: Any, subscription_id: Any, params: Any) -> Write[Any]:
        left = {name: value for name, value in params.items() if name != "proration_date"}
        return update(self, subscription_id, left)

    return [(BillingCalls, "subscription_update", undated)]


def _spent_discount_counts_again() -> list[Change]:
    return [(previews, "_without_spent", lambda asked, *_: asked)]


def _pending_items_count_again() -> list[Change]:
    total = previews._total

    async def with_pending(context: Any, asked: Any, **_: Any) -> int | None:
        return await total(context, asked)

    return [(previews, "_total", with_pending)]


def _applied_change_told_as_declined() -> list[Change]:
    carry_out = change_operations.carry_out_change

    async def declined(context: Any, actor: Any, begun: Any) -> Any:
        done = await carry_out(context, actor, begun)
        if "items" in begun.order.params:
            raise PaymentRequired(code="card_declined")
        return done

    return [(change_operations, "carry_out_change", declined)]


def _any_end_is_the_end_asked_for() -> list[Change]:
    return [(ending, "stands_already", lambda view, _: ending.ends_at(view) is not None)]


def _named_end_not_heard() -> list[Change]:
    params_for = ending.params_for

    def as_if_unnamed(view: Any, _: When, *, pointer: str = "/when") -> Any:
        return params_for(view, When.PERIOD_END, pointer=pointer)

    return [(ending, "params_for", as_if_unnamed)]


def _one_way_of_paying() -> list[Change]:
    return [(ways_of_paying, "behavior_of_update", lambda wanted, _: wanted)]


def _codes_add_up() -> list[Change]:
    return [(payment_details, "applied_codes", lambda *_, **__: [])]


def _abandoned_without_voiding() -> list[Change]:
    async def void(context: Any, purchase: Any, invoice: Any) -> Any:
        return replace(invoice, status="void", payment=None)

    return [(waiting, "_void", void)]


def _names_reserved_before_payment() -> list[Change]:
    named = """
        insert into reservations (operation_id, position, subscription_id, customer_id, email)
        select operation_id, position, subscription_id, customer_id, email from operation_steps
        where operation_id = $1 and action = 'add' and state = 'planned'
          and coalesce($2::text, '') is not null and coalesce($3::bigint, 0) is not null
        order by coalesce(customer_id, email)"""
    return [(operation_rows, "_INSERT_RESERVATIONS", named)]


def _waiting_purchase_bars_other_changes() -> list[Change]:
    async def supersede(*_: Any) -> None:
        raise Conflict("Another change of this subscription is still running.", retry_after=2)

    return [(superseding, "supersede", supersede)]


DEFECTS: dict[str, Defect] = {
    "M1 everything that was billed counts as paid": Defect("a", _everything_billed_is_paid),
    "M1 a renewal's draft counts as paid": Defect("a", _drafts_are_paid),
    "M1 an open invoice, sent or debited, counts as paid": Defect("a", _open_invoices_are_paid),
    "M1 what was refunded or disputed counts as paid": Defect("a", _money_that_went_back_is_paid),
    "M30 a charge for another price hides an unpaid credit": Defect("a", _charge_hides_a_credit),
    "M31 the chain of credits is not followed": Defect("a", _chain_not_followed),
    "M2 a credit is quoted for a day": Defect("a", _credit_quoted_for_a_day),
    "M3 a quote's price is not compared": Defect("b", _quote_not_compared),
    "M29 the balance of a quote is not compared": Defect("b", _balance_not_compared),
    "M28 a change is sent without its date": Defect("b", _sent_without_its_date),
    "M4 a spent discount is on the next invoice again": Defect("c", _spent_discount_counts_again),
    "M4 pending items are on the next invoice again": Defect("c", _pending_items_count_again),
    "M5 any end passes for the one that is asked for": Defect("e", _any_end_is_the_end_asked_for),
    "M8 every way of paying is a card": Defect("f", _one_way_of_paying),
    "M13 promotion codes add up": Defect("g", _codes_add_up),
    "W2 a purchase is abandoned without voiding its invoice": Defect("e", _abandoned_without_voiding),
    "W2 a purchase that waits bars every other change": Defect("e", _waiting_purchase_bars_other_changes),
    "W3 people are reserved by name before they are paid for": Defect("f", _names_reserved_before_payment),
    "M18 an end that is named is not heard": Defect("e", _named_end_not_heard),
    "an immediate cancel credits what nobody paid": Defect("a", _cancel_not_tested),
    "a change that was applied is told as declined": Defect("d", _applied_change_told_as_declined),
}
"""By name; those with an id are faults that the service had before exact money."""
