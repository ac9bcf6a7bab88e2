"""Invoicing a subscription's change at once, by payment behaviour, and what a payment later does to it."""

import itertools
from dataclasses import dataclass
from typing import Any

from .call import metadata, update
from .errors import ApiError, card_error, refused
from .invoicing import (
    as_billed,
    attempt,
    collectable_items,
    compose,
    default_method,
    finalize,
    mark_paid,
    pending_items,
    schedule_finalization,
    store_draft,
    unpaid,
    void,
)
from .objects import Obj
from .rebilling import Rebill, in_trial
from .resources.coupons import without_spent
from .resources.intents import finish_debit, new_setup_intent
from .wire import wire
from .world import Transaction

PENDING_UPDATE_SECONDS = 23 * 3600
MINUTE, HOUR, DAY = 60, 3600, 86_400
ON_ATTEMPT, ON_SUCCESS = "resume_on_payment_attempt", "resume_on_payment_success"
INVOICES_PER_MINUTE, INVOICES_PER_DAY, QUANTITY_UPDATES_PER_HOUR = 10, 20, 200


@dataclass(slots=True)
class Charged:
    """A change that was invoiced.

    ``outcome`` is paid, open (nothing was tried), processing (a bank debit), failed, action (the cardholder must act),
    or none (there is no invoice).
    """

    sub: Obj
    invoice: Obj | None
    outcome: str


def limited(sub: Obj, limit: str) -> ApiError:
    return ApiError(
        429,
        f"Subscription {sub['id']} has reached its limit of {limit}. Please try again later.",
        code="rate_limit",
        stored=False,
        headers={"Stripe-Rate-Limited-Reason": "resource-specific"},
    )


def check_invoice_limits(tx: Transaction, sub: Obj) -> None:
    """Stripe's bounds on new invoices of one subscription, where the account's knob asks for them."""
    if not tx.world.settings.get("subscription_limits"):
        return
    moments = [invoice["created"] for invoice in tx.find("invoice", "_subscription", sub["id"])]
    if sum(moment > tx.now - MINUTE for moment in moments) >= INVOICES_PER_MINUTE:
        raise limited(sub, f"{INVOICES_PER_MINUTE} new invoices per minute")
    if sum(moment > tx.now - DAY for moment in moments) >= INVOICES_PER_DAY:
        raise limited(sub, f"{INVOICES_PER_DAY} new invoices per day")


def check_quantity_limit(tx: Transaction, old: Obj, new: Obj) -> None:
    if not tx.world.settings.get("subscription_limits") or quantities(old) == quantities(new):
        return
    recent = []
    for number in reversed(tx.world.versions_of.get(old["id"], [])):
        version = tx.world.versions[number]
        recent.append(quantities(version.state or old))
        if version.at <= tx.at - HOUR:
            break
    if sum(later != earlier for later, earlier in itertools.pairwise(recent)) >= QUANTITY_UPDATES_PER_HOUR:
        raise limited(old, f"{QUANTITY_UPDATES_PER_HOUR} quantity updates per hour")


def quantities(sub: Obj) -> list[tuple[str, int | None]]:
    return [(item["id"], item["quantity"]) for item in sub["_items"]]


def charge(
    tx: Transaction,
    change: Rebill,
    *,
    reason: str,
    behavior: str,
    proration_date: int | None = None,
) -> Charged:
    """Makes, finalises and (by behaviour) collects the invoice of a change. Raises 402 for ``error_if_incomplete``."""
    sub = change.sub
    if not change.lines and not pending_items(tx, sub):
        return Charged(sub, None, "none")
    check_invoice_limits(tx, sub)
    draft = compose(
        tx,
        sub,
        change.lines,
        reason=reason,
        pending=collectable_items(tx, sub),
        items=change.items,
        proration_date=proration_date,
    )
    pause = (sub["pause_collection"] or {}).get("behavior")
    # "When you create a subscription with collection_method=charge_automatically, the first invoice is finalized as
    # part of the request" (SDK); any other first invoice is a draft for an hour.
    later = reason == "subscription_create" and sub["collection_method"] == "send_invoice"
    if later:
        schedule_finalization(tx, draft)
    invoice = store_draft(tx, draft)
    if not later and pause != "keep_as_draft":
        invoice = finalize(tx, invoice, pause)
    sub = {**spent(tx, as_billed(sub, invoice)), "latest_invoice": invoice["id"]}
    if pause is not None:
        return Charged(sub, invoice, "none")
    if invoice["status"] == "paid":
        return Charged(sub, invoice, "paid")
    if sub["collection_method"] == "send_invoice" or behavior == "default_incomplete":
        return Charged(sub, invoice, "open")
    method = default_method(tx, sub)
    if method is None and (reason == "subscription_create" or behavior == "error_if_incomplete"):
        raise refused(
            "This customer has no attached payment source or default payment method. Please consider adding a default "
            "payment method. For more information, visit https://stripe.com/docs/billing/subscriptions/payment.",
            code="resource_missing",
        )
    invoice, decline = attempt(tx, invoice, method, automatic=False)
    if decline is None:
        return Charged(sub, invoice, "paid")
    if decline == "processing":
        return Charged(sub, invoice, "processing")
    if behavior == "error_if_incomplete":
        raise _incomplete(decline)
    return Charged(sub, invoice, "action" if decline == "authentication_required" else "failed")


def _incomplete(decline: str) -> ApiError:
    if decline == "authentication_required":
        return ApiError(
            402,
            "Payment for this subscription requires additional user action before it can be completed successfully. "
            "Payment can be completed using the PaymentIntent associated with `subscription.latest_invoice`.",
            code="subscription_payment_intent_requires_action",
        )
    return card_error(decline)


def spent(tx: Transaction, sub: Obj) -> Obj:
    """The subscription without discounts that an invoice has used up."""
    discounts = without_spent(tx, sub["discounts"], billed=True)
    items = [
        item
        if not item["discounts"]
        else {**item, "discounts": without_spent(tx, item["discounts"], billed=True)}
        for item in sub["_items"]
    ]
    return {**sub, "discounts": discounts, "_items": items}


def needs_setup(tx: Transaction, sub: Obj, behavior: str) -> Obj:
    """A setup intent where nothing is due now, so that the browser can save a card for later."""
    if sub["collection_method"] != "charge_automatically":
        return sub
    if behavior != "default_incomplete" and default_method(tx, sub) is not None:
        return sub
    intent = new_setup_intent(tx, sub["customer"], {}, sub["id"])
    return {**sub, "pending_setup_intent": intent["id"]}


def started_status(tx: Transaction, sub: Obj, outcome: str) -> str:
    if outcome in ("failed", "action") or (outcome == "open" and sub["collection_method"] != "send_invoice"):
        return "incomplete"
    return "trialing" if in_trial(sub, tx.now) else "active"


def make_pending(tx: Transaction, old: Obj, change: Rebill, invoice: Obj, given: Any) -> Obj:
    """The old subscription with the change held back until its invoice is paid.

    ``given`` is the metadata of the request: it is kept as sent, and merged only when the change is applied.
    """
    new = change.sub
    held = {
        name: new[name]
        for name in ("_items", "billing_cycle_anchor", "trial_end", "trial_start", "discounts")
        if new[name] != old[name]
    }
    update_ = {
        "billing_cycle_anchor": held.get("billing_cycle_anchor"),
        "cancel_at_period_end": None,
        "discount": None,
        "discounts": held.get("discounts"),
        "expires_at": _expiry(tx, old),
        "metadata": given or None,
        "subscription_items": held.get("_items"),
        "trial_end": held.get("trial_end"),
        "trial_from_plan": None,
    }
    return {
        **old,
        "latest_invoice": invoice["id"],
        "pending_update": update_,
        "_pending": {"state": held, "invoice": invoice["id"], "metadata": given},
    }


def _expiry(tx: Transaction, sub: Obj) -> int:
    """When a held-back change lapses: at the trial's end, the first item period's end, or after 23 hours."""
    moments = [tx.now + PENDING_UPDATE_SECONDS, *(item["current_period_end"] for item in sub["_items"])]
    if in_trial(sub, tx.now):
        moments.append(sub["trial_end"])
    return min(int(moment) for moment in moments)


def drop_pending_update(tx: Transaction, sub: Obj) -> Obj:
    """Voids the invoice that a held-back change waits for."""
    if sub["_pending"] is None:
        return sub
    invoice = tx.get("invoice", sub["_pending"]["invoice"])
    if invoice is not None and invoice["status"] == "open":
        void(tx, invoice)
    return {**sub, "pending_update": None, "_pending": None}


def settled(tx: Transaction, invoice: Obj, method: Obj | None) -> None:
    """What the payment of an invoice does to its subscription."""
    old = tx.get("subscription", invoice["_subscription"])
    if old is None or old["status"] in ("canceled", "incomplete_expired"):
        return
    new = dict(old)
    applied = old["_pending"] is not None and old["_pending"]["invoice"] == invoice["id"]
    if applied:
        held = old["_pending"]
        new.update(held["state"], pending_update=None, _pending=None)
        new["metadata"] = metadata(old["metadata"], held["metadata"])
    first = old["status"] == "incomplete"
    latest = old["latest_invoice"] == invoice["id"]
    if first or (old["status"] in ("past_due", "unpaid") and latest):
        new["status"] = "trialing" if in_trial(old, tx.now) else "active"
    resumes = waits_for(old, invoice)
    if resumes:
        new.update(_awake(new))
    if method is not None and old["payment_settings"]["save_default_payment_method"] == "on_subscription":
        new["default_payment_method"] = method["id"]
    update(tx, old, new, "customer.subscription.updated")
    if resumes:
        tx.emit("customer.subscription.resumed", wire(tx, new))
    if applied:
        tx.emit("customer.subscription.pending_update_applied", wire(tx, new))


def waits_for(sub: Obj, invoice: Obj) -> bool:
    """True if the subscription is paused until this invoice, made to resume it, is paid."""
    waiting = sub["_resuming"]
    return sub["status"] == "paused" and waiting is not None and bool(waiting["invoice"] == invoice["id"])


def _awake(sub: Obj) -> Obj:
    """The subscription as active again, in the periods that its resumption invoice is for."""
    held = {} if sub["_resuming"] is None else sub["_resuming"]["state"]
    return {**sub, **held, "status": "active", "status_details": None, "_resuming": None}


def drop_resumption(tx: Transaction, sub: Obj) -> Obj:
    """The subscription without the invoice that was to resume it: that is voided, and it stays paused as it was."""
    if sub["_resuming"] is None:
        return sub
    invoice = tx.need("invoice", sub["_resuming"]["invoice"])
    if invoice["status"] == "open":
        void(tx, invoice)
    return {**sub, "_resuming": None}


def awake(tx: Transaction, old: Obj, new: Obj) -> Obj:
    """Store the subscription as active again and report it."""
    shown = update(tx, old, _awake(new), "customer.subscription.updated")
    tx.emit("customer.subscription.resumed", shown)
    return shown


def resumption_failed(tx: Transaction, invoice: Obj) -> None:
    """A failed attempt resumes a subscription as past due if an attempt is what it was to resume on."""
    old = tx.get("subscription", invoice["_subscription"])
    if old is None or not waits_for(old, invoice) or old["_resuming"]["behavior"] != ON_ATTEMPT:
        return
    new = {**_awake(old), "status": "past_due"}
    shown = update(tx, old, new, "customer.subscription.updated")
    tx.emit("customer.subscription.resumed", shown)


def collect(tx: Transaction, invoice: Obj, method: Obj | None, *, automatic: bool) -> tuple[Obj, str | None]:
    """Tries an open invoice later on, and settles the subscription by the result."""
    invoice, decline = attempt(tx, invoice, method, automatic=automatic)
    if decline is None:
        settled(tx, invoice, method)
    elif decline == "processing":
        begun(tx, invoice)
    elif automatic:
        overdue(tx, invoice)
    else:
        resumption_failed(tx, invoice)
    return invoice, decline


def begun(tx: Transaction, invoice: Obj) -> None:
    """A bank debit is on its way: Stripe counts the first invoice's subscription as active from here on."""
    old = tx.get("subscription", invoice["_subscription"])
    if old is not None and waits_for(old, invoice):
        awake(tx, old, old)
        return
    if old is not None and old["status"] == "incomplete":
        status = "trialing" if in_trial(old, tx.now) else "active"
        update(tx, old, {**old, "status": status}, "customer.subscription.updated")


def debit_due(tx: Transaction, intent: Obj) -> None:
    """The bank answers a processing debit: its invoice is paid, or the attempt has failed after all."""
    method = tx.need("payment_method", intent["payment_method"])
    decline = finish_debit(tx, intent, method)
    invoice = tx.need("invoice", intent["_invoice"])
    gone = (tx.get("customer", invoice["customer"]) or {}).get("deleted")
    if gone or invoice["status"] not in ("open", "uncollectible"):
        # The customer was deleted, or the invoice was paid out of band since: only the charge has a result.
        return
    if decline is None:
        settled(tx, mark_paid(tx, invoice), method)
        return
    automatic = invoice["collection_method"] == "charge_automatically"
    invoice = unpaid(tx, dict(invoice), decline, automatic=automatic)
    if automatic:
        overdue(tx, invoice)


def overdue(tx: Transaction, invoice: Obj) -> None:
    """A failed automatic try: past due, and after the last try what the account's dunning settings say."""
    old = tx.get("subscription", invoice["_subscription"])
    if old is None or old["status"] not in ("active", "past_due", "trialing"):
        return
    status = "past_due"
    if invoice["next_payment_attempt"] is None:
        status = (tx.world.settings.get("dunning") or {}).get("final", "canceled")
    if status == "canceled":
        from .resources.subscriptions import end_subscription

        end_subscription(tx, old, reason="payment_failed")
        return
    update(tx, old, {**old, "status": status}, "customer.subscription.updated")


def issue_cycle(tx: Transaction, sub: Obj, lines: Rebill, reason: str) -> Obj:
    """The draft of a renewal; Stripe leaves it open to changes for an hour."""
    waiting = collectable_items(tx, sub)
    invoice = compose(tx, sub, lines.lines, reason=reason, pending=waiting, items=lines.items)
    behavior = (sub["pause_collection"] or {}).get("behavior")
    if behavior != "keep_as_draft" and sub["status"] != "unpaid":
        schedule_finalization(tx, invoice)
        invoice["_pause"] = behavior
    return store_draft(tx, invoice)
