"""Pausing, resuming, and moving to flexible billing."""

from ..billing import Cadence, Line, period_at
from ..call import Call, update
from ..charging import ON_ATTEMPT, ON_SUCCESS, awake, charge, drop_resumption
from ..errors import refused
from ..invoicing import keep_pending, next_attempt
from ..objects import Obj
from ..rebilling import Rebill, first_lines, mode_of, resumed, unused_time
from ..usage import accrued_lines
from ..world import Transaction
from .subscription_terms import PRORATIONS, word
from .subscriptions import ENDED

RESUMPTION_SECONDS = 23 * 3600
"""How long a resumption invoice waits for a first attempt to pay it."""


def pause_subscription(call: Call) -> Obj:
    """Needs flexible billing; the service stops until it is resumed, and no invoices are made."""
    tx, params = call.tx, call.params
    old = tx.need("subscription", call.id)
    if mode_of(old).value != "flexible":
        raise refused("Only subscriptions with billing_mode flexible can be paused.", "id")
    if old["status"] not in ("active", "trialing", "past_due"):
        raise refused(f"You cannot pause a subscription with the status {old['status']}.", "id")
    bill_for = params.get("bill_for") or {}
    through = (bill_for.get("outstanding_usage_through") or {}).get("type", "now")
    unused = (bill_for.get("unused_time_from") or {}).get("type", "now")
    current, lines = old, list[Line]()
    if through == "now":
        lines += accrued_lines(tx, old, tx.now, final=True)
        current = {**old, "_items": [{**item, "_usage_from": tx.now + 1} for item in old["_items"]]}
    if unused != "none":
        whole = unused == "item_current_period_start"
        credited = unused_time(tx, current, None if whole else tx.now)
        lines += credited.lines
        current = credited.sub
    if lines and params.get("invoicing_behavior") == "invoice":
        change = Rebill(current, lines, False, current["_items"])
        current = charge(tx, change, reason="subscription_update", behavior="allow_incomplete").sub
    else:
        keep_pending(tx, old, lines)
    new = {
        **current,
        "status": "paused",
        "status_details": {
            "paused": {
                "subscription": {"type": "pause_requested"},
                "transitioned_at": tx.now,
                "type": "subscription",
            }
        },
    }
    return paused(tx, old, new)


def paused(tx: Transaction, old: Obj, new: Obj) -> Obj:
    shown = update(tx, old, new, "customer.subscription.updated")
    tx.emit("customer.subscription.paused", shown)
    return shown


def resume_subscription(call: Call) -> Obj:
    """Wake a paused subscription: at once if nothing is invoiced, else as its resumption invoice and behaviour say.

    Source: the SDK's texts of resume and its parameters, and the changelog of 2026-05-27 ("Adds the subscription pause
    endpoint"). Raises 400 for a subscription that is not paused, or whose invoices are sent.
    """
    tx, params = call.tx, call.params
    old = tx.need("subscription", call.id)
    if old["status"] != "paused":
        raise refused("Only paused subscriptions can be resumed.", "id")
    if old["collection_method"] != "charge_automatically":
        raise refused("Only subscriptions that are charged automatically can be resumed.", "id")
    behavior = word(params, "payment_behavior", (ON_ATTEMPT, ON_SUCCESS), ON_ATTEMPT)
    proration = word(params, "proration_behavior", PRORATIONS, "create_prorations")
    base = {**drop_resumption(tx, old), "trial_end": _past_trial(tx, old)}
    if (params.get("billing_cycle_anchor") or {}).get("type", "now") == "now":
        items = [_restarted(tx, item) for item in base["_items"]]
        change = first_lines(
            tx, {**base, "billing_cycle_anchor": tx.now, "_items": items}, "create_prorations"
        )
        proration = "always_invoice"
    else:
        change = resumed(tx, base, int(params.get("proration_date", tx.now)), proration)
    if not change.lines or proration != "always_invoice":
        keep_pending(tx, change.sub, change.lines)
        return awake(tx, old, change.sub)
    # To resume on success is to try in this request; otherwise the payer pays the invoice.
    payment = "allow_incomplete" if behavior == ON_SUCCESS else "default_incomplete"
    charged = charge(tx, change, reason="subscription_update", behavior=payment)
    if charged.invoice is None or charged.outcome in ("paid", "none", "processing"):
        return awake(tx, old, charged.sub)
    invoice = charged.invoice
    until = None
    if behavior == ON_SUCCESS:
        retried = {**invoice, "next_payment_attempt": next_attempt(tx, invoice)}
        update(tx, invoice, retried, "invoice.updated")
    else:
        until = tx.now + RESUMPTION_SECONDS
    new = {**old, "latest_invoice": invoice["id"]}
    held = ("_items", "billing_cycle_anchor", "discounts", "trial_end")
    new["_resuming"] = {
        "invoice": invoice["id"],
        "behavior": behavior,
        "until": until,
        "state": {name: charged.sub[name] for name in held},
    }
    return update(tx, old, new, "customer.subscription.updated")


def _past_trial(tx: Transaction, sub: Obj) -> int | None:
    return min(sub["trial_end"], tx.now) if sub["trial_end"] is not None else None


def _restarted(tx: Transaction, item: Obj) -> Obj:
    period = period_at(tx.now, Cadence.of(tx.need("price", item["price"])), tx.now)
    return {**item, "current_period_start": period.start, "current_period_end": period.end, "_debits": []}


def migrate_subscription(call: Call) -> Obj:
    """From classic to flexible billing; there is no way back."""
    tx, params = call.tx, call.params
    old = tx.need("subscription", call.id)
    if old["status"] in ENDED:
        raise refused("You cannot migrate a canceled subscription.", "id")
    if old["billing_mode"]["type"] == "flexible":
        raise refused("The subscription already has billing_mode flexible.", "billing_mode")
    discounts = (params["billing_mode"].get("flexible") or {}).get("proration_discounts", "included")
    mode = {"flexible": {"proration_discounts": discounts}, "type": "flexible", "updated_at": tx.now}
    return update(tx, old, {**old, "billing_mode": mode}, "customer.subscription.updated")
