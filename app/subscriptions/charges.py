"""What a change of a subscription charges and credits, asked of Stripe and judged by one rule for quote and change.

Both come through `price`, so what was quoted and what is charged are computed by the same calls at the same date.
The rule on credits is pure and stands in `app.domain.credits`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.context import Context
from app.domain.credits import Bill, BilledLine, Judgement, judge, own_lines
from app.domain.ids import InvoiceId, SubscriptionItemId
from app.domain.payments import Costs
from app.domain.snapshots import JsonObject, Subscription
from app.errors import Conflict, NotFound
from app.mirror.visibility import Seen
from app.stripe.bills import with_items

_PREVIEWED = (
    "items",
    "proration_behavior",
    "proration_date",
    "trial_end",
    "default_tax_rates",
    "cancel_at",
    "cancel_at_period_end",
)
_MOST_EARLIER_BILLS = 30
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class UnpaidInvoice:
    """The invoice for which a change gets no credit. `credit`: what the change would have credited, minor units.

    `retry_after`: seconds until a draft is charged, None for any other status.
    """

    invoice_id: InvoiceId | None
    status: str | None
    hosted_invoice_url: str | None
    credit: int
    retry_after: int | None

    def as_members(self) -> JsonObject:
        """Return the members of a problem document, whose own `status` is the HTTP status."""
        shown: JsonObject = {
            "invoice_id": self.invoice_id,
            "invoice_status": self.status,
            "hosted_invoice_url": self.hosted_invoice_url,
            "credit": self.credit,
        }
        return shown if self.retry_after is None else {**shown, "retry_after": self.retry_after}


@dataclass(frozen=True, slots=True)
class Priced:
    """A change with its price: `params` as they are to be sent, `now` what they cost at once.

    `date`: the second for which the change is prorated, None where nothing is. `crediting`: it lowers what an item
    costs, replaces a price or removes an item. `credit_forgone`: the credit that is not given, minor units, because
    `unpaid` names an invoice that nobody paid.
    """

    params: JsonObject
    now: Costs
    date: int | None
    crediting: bool = False
    credit_forgone: int = 0
    unpaid: UnpaidInvoice | None = None
    is_invoiced: bool = False


async def price(
    context: Context,
    subscription: Subscription,
    at: int,
    params: Mapping[str, Any],
    *,
    restarts: bool,
    forgo_credit: bool,
    date: int | None = None,
) -> Priced:
    """Ask Stripe what the change costs, and compare its credits with what was paid.

    Args:
        context: the clients, the database and the rules.
        subscription: as Stripe has it now.
        at: the second of that answer, by Stripe's clock.
        params: those of Stripe's update.
        restarts: an item's interval changes, so a new period of it begins and is billed at once.
        forgo_credit: the caller takes the change without a credit that was not paid.
        date: the date of the quote that is executed; without one the change is dated now.

    Raises:
        Conflict: `invoice_unpaid` if a credit was not paid, and the caller does not forgo it or it would hide a charge.
        BillingError: what Stripe answers to the preview.
    """
    behavior = str(params.get("proration_behavior") or context.rules.proration_behavior)
    nothing = Costs(subscription.currency, 0, 0, 0, [])
    items: Sequence[Mapping[str, Any]] = params.get("items", ())
    if not _moves_money(subscription, items, params):
        return Priced(_without_charge(subscription, items, params), nothing, None)
    dated = date or params.get("proration_date") or date_within(subscription, items, at)
    params = {**params, "proration_date": dated}
    is_invoiced = behavior == "always_invoice" or restarts or "trial_end" in params
    priced = Priced(params, nothing, dated, is_invoiced=is_invoiced)
    if is_invoiced:
        now = await context.billing.preview(asked(subscription, params, behavior))
        priced = replace(priced, now=await _after_superseding(context, subscription, now))
    if behavior == "none":
        return priced
    prorated = priced.now
    if behavior != "always_invoice":
        prorated = await context.billing.preview(asked(subscription, params, "always_invoice"))
    judgement = await _judged(context, subscription, prorated.billed, _replaced(subscription, items), dated)
    priced = replace(priced, crediting=judgement.crediting)
    if not judgement.is_paid:
        priced = _forgone(priced, judgement, at, restarts=restarts, forgo_credit=forgo_credit)
        return await _without_credit(context, subscription, priced, nothing)
    is_charged = behavior == "always_invoice" and not restarts and "trial_end" not in params
    reduces = (judgement.only_reduces and judgement.net < 0) or _only_lowers(subscription, items)
    return _billed_later(priced, nothing) if is_charged and reduces else priced


def _without_charge(
    subscription: Subscription, items: Sequence[Mapping[str, Any]], params: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the parameters of a change that moves no money."""
    quiet = dict(params)
    if items and subscription.status == "trialing":
        # Nothing is prorated within a trial. An invoice of zero would collect a debt of the balance, and a pending
        # item of zero would make an invoice of a subscription that ends with its trial.
        quiet["proration_behavior"] = "none"
    return quiet


def _forgone(priced: Priced, judgement: Judgement, at: int, *, restarts: bool, forgo_credit: bool) -> Priced:
    """Return the change with the credit that it does not give, and the invoice that is not paid.

    Raises Conflict `invoice_unpaid` unless the caller forgoes the credit, and the change has no charge that this hides.
    """
    unpaid = _unpaid(judgement, at)
    if not (forgo_credit and judgement.only_reduces):
        raise invoice_unpaid(unpaid, may_forgo=judgement.only_reduces)
    forgone = judgement.credited if restarts else -judgement.net
    return replace(priced, credit_forgone=forgone, unpaid=unpaid, is_invoiced=restarts)


def _billed_later(priced: Priced, nothing: Costs) -> Priced:
    """Return a change that reduces so that it waits for no payment: it is billed with the next invoice.

    Pending items, a debt, or a discount that has ended may make an invoice of its own due.
    """
    if priced.now.amount_due <= 0:
        return priced
    params = {**priced.params, "proration_behavior": "create_prorations"}
    return replace(priced, params=params, now=nothing, is_invoiced=False)


async def _without_credit(
    context: Context, subscription: Subscription, priced: Priced, nothing: Costs
) -> Priced:
    """Return the change without prorations. A new interval begins and is billed at once even so."""
    params = {name: value for name, value in priced.params.items() if name != "proration_date"}
    params["proration_behavior"] = "none"
    if not priced.is_invoiced:
        return replace(priced, params=params, now=nothing)
    now = await context.billing.preview(asked(subscription, params, "none"))
    return replace(priced, params=params, now=await _after_superseding(context, subscription, now))


async def _after_superseding(context: Context, subscription: Subscription, costs: Costs) -> Costs:
    """Return the costs once the update that waits for its payment is superseded.

    Its void invoice frees the balance.
    """
    if subscription.pending_update is None or subscription.latest_invoice_id is None:
        return costs
    waiting = await context.billing.bills.one(InvoiceId(subscription.latest_invoice_id))
    if waiting.status != "open":
        return costs
    balance = costs.starting_balance - (waiting.total - waiting.amount_due)
    return replace(costs, amount_due=max(0, costs.total + balance))


async def credits_unpaid_on_cancel(
    context: Context, subscription: Subscription, at: int
) -> UnpaidInvoice | None:
    """Return the unpaid invoice that an immediate cancellation would credit, or None."""
    details = {"cancel_now": True, "proration_behavior": "always_invoice"}
    try:
        preview = await context.billing.preview(
            {"subscription": subscription.id, "subscription_details": details}
        )
    except NotFound:
        return None
    everything = frozenset(item.id for item in subscription.items)
    judgement = await _judged(context, subscription, preview.billed, everything, at)
    return None if judgement.is_paid else _unpaid(judgement, at)


def invoice_unpaid(unpaid: UnpaidInvoice, *, may_forgo: bool) -> Conflict:
    """Return the refusal of a credit that was not paid."""
    named = "An invoice of this subscription" if unpaid.invoice_id is None else f"Invoice {unpaid.invoice_id}"
    status = "was not paid in full" if unpaid.status in (None, "paid") else f"is {unpaid.status}"
    remedy = (
        "Pay it first, or send forgo_credit: true to reduce now without credit."
        if may_forgo
        else "Pay it first. A change that also charges cannot forgo its credit: split it."
    )
    return Conflict(
        f"{named} {status}, and this change would credit what it bills. {remedy}",
        code="invoice_unpaid",
        members=unpaid.as_members(),
        retry_after=unpaid.retry_after,
    )


def as_seen(refusal: Conflict, seen: Seen) -> Conflict:
    """Hide the link to the payer's invoice from a manager, who may buy seats and see amounts."""
    if refusal.code == "invoice_unpaid" and not seen.sees_payers_own:
        refusal.members["hosted_invoice_url"] = None
    return refusal


def asked(subscription: Subscription, params: Mapping[str, Any], behavior: str) -> dict[str, Any]:
    """Return the parameters of the preview of a change."""
    details = {name: params[name] for name in _PREVIEWED if name in params}
    details["proration_behavior"] = behavior
    found: dict[str, Any] = {"subscription": subscription.id, "subscription_details": details}
    if "discounts" in params:
        found["discounts"] = params["discounts"]
    return found


def date_within(subscription: Subscription, items: Sequence[Mapping[str, Any]], at: int) -> int:
    """Return `at` within the current periods of the items that change, as Stripe demands of a proration date."""
    named = {entry.get("id") for entry in items}
    changed = [item for item in subscription.items if item.id in named] if None not in named else []
    concerned = changed or subscription.items
    starts = [item.current_period_start for item in concerned if item.current_period_start is not None]
    ends = [item.current_period_end for item in concerned if item.current_period_end is not None]
    return min(max([at, *starts]), *ends) if ends else max([at, *starts])


def _moves_money(
    subscription: Subscription, items: Sequence[Mapping[str, Any]], params: Mapping[str, Any]
) -> bool:
    if "trial_end" in params:
        return True
    return subscription.status != "trialing" and any(_alters(subscription, entry) for entry in items)


def _alters(subscription: Subscription, entry: Mapping[str, Any]) -> bool:
    """Stripe bills nothing for an item that is set to what it is already."""
    before = next((item for item in subscription.items if item.id == entry.get("id")), None)
    if before is None or entry.get("deleted"):
        return True
    wanted = (entry.get("price", before.price_id), entry.get("quantity", before.quantity))
    return wanted != (before.price_id, before.quantity)


def _only_lowers(subscription: Subscription, items: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if items are removed or lowered, and nothing else changes."""
    before = {item.id: item for item in subscription.items}

    def lowers(entry: Mapping[str, Any]) -> bool:
        item = before.get(entry.get("id", ""))
        if item is None or entry.get("deleted"):
            return item is not None
        same_price = entry.get("price", item.price_id) == item.price_id
        return same_price and (entry.get("quantity", item.quantity) or 0) <= (item.quantity or 0)

    return bool(items) and all(lowers(entry) for entry in items)


def _replaced(
    subscription: Subscription, items: Sequence[Mapping[str, Any]]
) -> frozenset[SubscriptionItemId]:
    """Return the items that are removed or get another price."""
    prices = {item.id: item.price_id for item in subscription.items}
    return frozenset(
        SubscriptionItemId(entry["id"])
        for entry in items
        if entry.get("id") in prices
        and (entry.get("deleted") or entry.get("price", prices[entry["id"]]) != prices[entry["id"]])
    )


async def _judged(
    context: Context,
    subscription: Subscription,
    previewed: Sequence[BilledLine],
    replaced: Collection[SubscriptionItemId],
    at: int,
) -> Judgement:
    """Hold the change's credits against what was paid. Invoices are read only where credits need it."""
    bills = context.billing.bills
    pending: Sequence[BilledLine] = ()
    if any(line.invoice_item_id is not None for line in previewed):
        pending = await bills.pending(subscription.customer_id)
    lines = own_lines(with_items(previewed, pending), pending)
    first = judge(lines, replaced=replaced, bills=(), pending=pending, at=at)
    if first.is_paid:
        return first
    if not pending:
        # Credits of a change may name pending items that the preview does not collect.
        pending = await bills.pending(subscription.customer_id)
    found = await _bills_of(context, subscription, lines)
    judgement = judge(lines, replaced=replaced, bills=found, pending=pending, at=at)
    if not judgement.is_paid:
        return judgement
    settled = [
        replace(bill, reversed=await bills.reversed_of(bill)) if bill.id in judgement.rests_on else bill
        for bill in found
    ]
    return judge(lines, replaced=replaced, bills=settled, pending=pending, at=at)


async def _bills_of(context: Context, subscription: Subscription, lines: Sequence[BilledLine]) -> list[Bill]:
    """Return the invoices of the running periods and of their credits, oldest first."""
    starts = [item.current_period_start for item in subscription.items if item.current_period_start]
    since = min(starts, default=subscription.created) - _DAY
    bills = context.billing.bills
    found = {bill.id: bill for bill in await bills.of_subscription(subscription.id, created_from=since)}
    asked_for: set[InvoiceId] = set()
    wanted = _named(lines)
    while True:
        wanted |= {name for bill in found.values() for name in _named(bill.lines)}
        missing = wanted - found.keys() - asked_for
        if not missing or len(asked_for) >= _MOST_EARLIER_BILLS:
            # What a longer chain rests on stays unread, and counts as unpaid.
            return sorted(found.values(), key=lambda bill: bill.created)
        for invoice_id in sorted(missing):
            asked_for.add(invoice_id)
            try:
                found[invoice_id] = await bills.one(invoice_id)
            except NotFound:
                continue


def _named(lines: Sequence[BilledLine]) -> set[InvoiceId]:
    credited = (line.credited for line in lines if line.credited is not None)
    return {one.invoice_id for one in credited if one.invoice_id is not None}


def _unpaid(judgement: Judgement, at: int) -> UnpaidInvoice:
    bill = judgement.unpaid
    credit = -judgement.net if judgement.net < 0 else judgement.credited
    if bill is None:
        return UnpaidInvoice(None, None, None, credit, None)
    is_payable = bill.shown_status in ("open", "draft")
    waits = bill.finalizes_at is not None and bill.status == "draft"
    return UnpaidInvoice(
        invoice_id=bill.id,
        status=bill.shown_status,
        hosted_invoice_url=bill.hosted_invoice_url if is_payable else None,
        credit=credit,
        retry_after=max(1, (bill.finalizes_at or at) - at) if waits else None,
    )
