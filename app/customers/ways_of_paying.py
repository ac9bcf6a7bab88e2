"""How a subscription is paid: payment behaviour and bounds of a change. Pure.

A change by card is held back until its invoice is paid. A sent invoice or a bank debit is paid days after the change,
so the change stands before its payment, and what one customer may owe that way is bounded.

Sources: Stripe's pages "Pending updates" (only `charge_automatically`; neither sent invoices nor bank debits) and
"Subscription payment methods"; docs/decisions/0003-choose-the-payment-behavior-by-the-way-of-paying.md and
docs/decisions/0004-bound-raises-that-stand-before-their-payment.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

from app.domain.snapshots import Customer, Invoice, JsonObject, Subscription
from app.errors import Conflict

CARD_LIKE = frozenset({"card", "link"})
"""Types of payment method whose updates Stripe holds back. A wallet's card (Apple Pay, Google Pay) is a `card`."""

DELAYED = frozenset(
    {
        "acss_debit",
        "au_becs_debit",
        "bacs_debit",
        "bank_account",
        "nz_bank_account",
        "sepa_debit",
        "us_bank_account",
    }
)
"""Bank debits: the payment is `processing` for days, and the bank may return it."""

SEND_INVOICE = "send_invoice"
SMALLEST_BOUND = 5
"""Seats by which any customer may raise before payment."""


@dataclass(frozen=True, slots=True)
class WayOfPaying:
    """`method_type`: of the payment method that is charged; None if there is none."""

    collection_method: str | None
    method_type: str | None

    @property
    def pays_later(self) -> bool:
        """Return True if a change stands before its invoice is paid."""
        return self.collection_method == SEND_INVOICE or self.method_type in DELAYED


def charged_method(subscription: Subscription, customer: Customer | None) -> str | None:
    """Return the id of the method or source that a subscription is charged to.

    It is None if there is none. Stripe takes the first that is set: the subscription's own default method, its own
    default source, the customer's default method, the customer's default source (Stripe's API reference,
    `Subscription.default_payment_method`).
    """
    own = subscription.default_payment_method_id or subscription.default_source_id
    if own is not None or customer is None:
        return own
    return customer.default_payment_method_id or customer.default_source_id


def behavior_of_update(wanted: str, way: WayOfPaying) -> str:
    """Return the payment behaviour of an update.

    `wanted` is what a card takes: `pending_if_incomplete`, or `error_if_incomplete` if the update has parameters that
    Stripe cannot hold back. With a sent invoice or a bank debit the change stands and its invoice is open. Any other
    method (a wallet with a balance of its own) pays at once or not at all, and Stripe documents no pending updates
    for it: all or nothing.
    """
    if way.pays_later:
        return "allow_incomplete"
    if way.method_type is None or way.method_type in CARD_LIKE:
        return wanted
    return "error_if_incomplete"


def behavior_of_purchase(method_type: str | None) -> str:
    """Return the payment behaviour of a new subscription.

    It is charged to a method of this type. Without a method the page completes the payment. A bank debit cannot be
    known to be paid at once.
    """
    if method_type is None:
        return "default_incomplete"
    return "allow_incomplete" if method_type in DELAYED else "error_if_incomplete"


def raise_by(subscription: Subscription, items: Sequence[Mapping[str, Any]]) -> int:
    """Return by how many units an update raises the quantities; 0 if by none.

    `items` is the parameter of Stripe's update. A removed item sets off a new one, because that is how a price is
    replaced too; an item that is only lowered sets off nothing.
    """
    quantities = {str(item.id): item.quantity or 0 for item in subscription.items}
    raised = added = 0
    for entry in items:
        before = quantities.get(str(entry.get("id")), 0)
        if entry.get("deleted"):
            added -= before
        elif entry.get("quantity") is not None and "id" in entry:
            raised += max(0, int(entry["quantity"]) - before)
        elif entry.get("quantity") is not None:
            added += int(entry["quantity"])
    return raised + max(0, added)


def paid_quantity(subscription: Subscription, invoices: Sequence[Invoice], at: int) -> int:
    """Return the quantity that was paid for the running periods.

    For each item it is the quantity of its newest charge on a paid invoice whose period covers `at` (Unix seconds): a
    raise is billed with the whole new quantity.
    """
    paid: dict[str, int] = {}
    for invoice in sorted(invoices, key=lambda one: one.created):
        if invoice.status != "paid":
            continue
        for line in invoice.lines:
            covers = (line["period_start"] or 0) <= at < (line["period_end"] or 0)
            if covers and line["amount"] > 0 and line["quantity"] is not None:
                paid[str(line["subscription_item_id"])] = line["quantity"]
    return sum(paid.get(str(item.id), 0) for item in subscription.items)


def check_collected(subscription: Subscription, more: int) -> None:
    """Refuse a raise by `more` units while nobody collects its invoice.

    Raises:
        Conflict: `unsecured_raise_limit` with `allowed` 0, while collection is paused.
    """
    if more > 0 and subscription.pause_collection is not None:
        raise Conflict(
            "Collection of this subscription is paused, so a raise would not be paid. "
            "Ask the seller to resume it, or raise the quantity afterwards.",
            code="unsecured_raise_limit",
            members={"allowed": 0},
        )


def check_raise(
    subscription: Subscription, more: int, invoices: Sequence[Invoice], *, at: int, percent: float
) -> None:
    """Refuse a raise before payment by more units than is safe to owe.

    `invoices`: those that are open, and those of the running periods. `percent`: of the paid quantity.

    Raises:
        Conflict: `invoice_unpaid` while an earlier raise is not paid, or any invoice is past its due date;
            `unsecured_raise_limit` with `allowed`, the units by which one raise may go.
    """
    for invoice in invoices:
        if invoice.status != "open":
            continue
        is_overdue = invoice.due_date is not None and invoice.due_date < at
        if is_overdue or (invoice.billing_reason == "subscription_update" and invoice.amount_due > 0):
            raise _unpaid(invoice, is_overdue=is_overdue)
    allowed = max(SMALLEST_BOUND, floor(paid_quantity(subscription, invoices, at) * percent / 100))
    if more > allowed:
        raise Conflict(
            f"A raise by {more} stands before its payment, and one raise may go by {allowed} at most. "
            "Raise by fewer, or change the subscription to a card.",
            code="unsecured_raise_limit",
            members={"allowed": allowed},
        )


def _unpaid(invoice: Invoice, *, is_overdue: bool) -> Conflict:
    why = "is past its due date" if is_overdue else "bills an earlier raise and is not paid yet"
    members: JsonObject = {
        "invoice_id": invoice.id,
        "invoice_status": invoice.status,
        "hosted_invoice_url": invoice.hosted_invoice_url,
        "credit": 0,
    }
    return Conflict(
        f"Invoice {invoice.id} {why}. Pay it before the quantity is raised further.",
        code="invoice_unpaid",
        members=members,
    )
