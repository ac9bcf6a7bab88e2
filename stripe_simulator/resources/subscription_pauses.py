"""Pausing, resuming, and moving to flexible billing."""

from ..billing import Cadence, Line, period_at
from ..call import Call, update
from ..charging import charge
from ..errors import refused
from ..invoicing import keep_pending
from ..objects import Obj
from ..rebilling import Rebill, first_lines, mode_of, renewed, unused_time
from ..usage import accrued_lines
from ..world import Transaction
from .subscriptions import ENDED


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
    unused = (bill_for.get("unused_time_from") or {}).get("type", "none")
    current, lines = old, list[Line]()
    if through == "now":
        lines += accrued_lines(tx, old, tx.now, final=True)
        current = {**old, "_items": [{**item, "_usage_from": tx.now + 1} for item in old["_items"]]}
    if unused in ("now", "item_current_period_start"):
        credited = unused_time(tx, current, tx.now)
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
    tx, params = call.tx, call.params
    old = tx.need("subscription", call.id)
    if old["status"] != "paused":
        raise refused("Only paused subscriptions can be resumed.", "id")
    anchor = (params.get("billing_cycle_anchor") or {}).get("type", "now")
    base = {**old, "status": "active", "status_details": None, "trial_end": _past_trial(tx, old)}
    if anchor == "now":
        items = [_restarted(tx, item) for item in base["_items"]]
        change = first_lines(
            tx, {**base, "billing_cycle_anchor": tx.now, "_items": items}, "create_prorations"
        )
    else:
        moved: Obj = base
        lines: list[Line] = []
        while min(item["current_period_end"] for item in moved["_items"]) <= tx.now:
            moved, lines = renewed(tx, moved, min(item["current_period_end"] for item in moved["_items"]))
        change = Rebill(moved, lines, bool(lines), moved["_items"])
    tx.store("subscription", change.sub)
    charged = charge(tx, change, reason="subscription_update", behavior="allow_incomplete")
    new = charged.sub
    if charged.outcome in ("failed", "action"):
        new = {**new, "status": old["status"], "status_details": old["status_details"]}
        return update(tx, old, new, "customer.subscription.updated")
    shown = update(tx, old, new, "customer.subscription.updated")
    tx.emit("customer.subscription.resumed", shown)
    return shown


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
