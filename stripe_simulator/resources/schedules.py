"""Subscription schedules: made from a subscription, shown on it, released or cancelled with it."""

from ..call import Call, metadata, reference, update
from ..charging import charge
from ..errors import missing_parameter, refused
from ..invoicing import keep_pending
from ..listing import page
from ..objects import Obj
from ..rebilling import Rebill, unused_time
from ..usage import accrued_lines
from ..wire import wire
from ..world import Transaction
from .subscriptions import ENDED, end_subscription

OVER = ("canceled", "completed", "released")


def create_schedule(call: Call) -> Obj:
    """Put a subscription under a schedule with one phase, its current period, which then releases it."""
    tx, params = call.tx, call.params
    strange = sorted(set(params) - {"from_subscription", "metadata"})
    if params.get("from_subscription") and strange:
        raise refused(
            "You cannot set the following parameters when using `from_subscription`: " + ", ".join(strange),
            strange[0],
        )
    if not params.get("from_subscription"):
        raise missing_parameter("from_subscription")
    sub = reference(tx, "subscription", params["from_subscription"], "from_subscription")
    if sub["status"] in ENDED or sub["status"] == "incomplete":
        raise refused(
            f"You cannot migrate a subscription that is {sub['status']} to a schedule.", "from_subscription"
        )
    if sub["schedule"] is not None:
        raise refused(
            "You cannot migrate a subscription that is already attached to a schedule: " + sub["schedule"],
            "from_subscription",
        )
    schedule = _blank(tx, sub)
    schedule["metadata"] = metadata({}, params.get("metadata"))
    tx.store("subscription_schedule", schedule)
    tx.emit("subscription_schedule.created", wire(tx, schedule))
    update(tx, sub, {**sub, "schedule": schedule["id"]}, "customer.subscription.updated")
    return wire(tx, schedule)


def _blank(tx: Transaction, sub: Obj) -> Obj:
    start = max(item["current_period_start"] for item in sub["_items"])
    end = min(item["current_period_end"] for item in sub["_items"])
    settings = {
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": "automatic",
        "billing_thresholds": None,
        "collection_method": sub["collection_method"],
        "default_payment_method": sub["default_payment_method"],
        "description": None,
        "invoice_settings": {"account_tax_ids": None, "days_until_due": None, "issuer": {"type": "self"}},
        "on_behalf_of": None,
        "transfer_data": None,
    }
    phase = {
        "add_invoice_items": [],
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": None,
        "billing_thresholds": None,
        "collection_method": None,
        "currency": sub["currency"],
        "default_payment_method": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "end_date": end,
        "invoice_settings": None,
        "items": [
            {
                "billing_thresholds": None,
                "discounts": [],
                "metadata": item["metadata"],
                "plan": item["price"],
                "price": item["price"],
                "quantity": item["quantity"],
                "tax_rates": [],
            }
            for item in sub["_items"]
        ],
        "metadata": {},
        "on_behalf_of": None,
        "proration_behavior": "create_prorations",
        "start_date": start,
        "transfer_data": None,
        "trial_end": sub["trial_end"],
    }
    return {
        "id": tx.new_id("sub_sched_"),
        "object": "subscription_schedule",
        "application": None,
        "billing_mode": sub["billing_mode"],
        "canceled_at": None,
        "completed_at": None,
        "created": tx.now,
        "current_phase": {"end_date": end, "start_date": start},
        "customer": sub["customer"],
        "customer_account": None,
        "default_settings": settings,
        "end_behavior": "release",
        "livemode": False,
        "metadata": {},
        "pause_schedules": [],
        "phases": [phase],
        "released_at": None,
        "released_subscription": None,
        "status": "active",
        "subscription": sub["id"],
        "test_clock": None,
    }


def _active(tx: Transaction, identifier: str, verb: str) -> Obj:
    schedule = tx.need("subscription_schedule", identifier, "schedule")
    if schedule["status"] in OVER:
        raise refused(
            f"You cannot {verb} a subscription schedule that is currently in the `{schedule['status']}` status. "
            f"It must be in `not_started`, `active` status to be {verb}d.",
            "schedule",
        )
    return schedule


def update_schedule(call: Call) -> Obj:
    """``metadata`` and ``end_behavior``: a schedule that cancels shows its end on the subscription."""
    tx, params = call.tx, call.params
    old = _active(tx, call.id, "update")
    for name in ("default_settings", "pause_schedules", "phases"):
        if name in params:
            raise refused(f"The simulator does not simulate the parameter {name}.", name)
    new = {**old, "metadata": metadata(old["metadata"], params.get("metadata"))}
    if "end_behavior" in params:
        if params["end_behavior"] not in ("release", "cancel"):
            raise refused("The simulator's schedules end with release or cancel.", "end_behavior")
        new["end_behavior"] = params["end_behavior"]
        sub = tx.need("subscription", old["subscription"])
        end = old["current_phase"]["end_date"] if new["end_behavior"] == "cancel" else None
        canceled = tx.now if end is not None else None
        update(tx, sub, {**sub, "cancel_at": end, "canceled_at": canceled}, "customer.subscription.updated")
    return update(tx, old, new, "subscription_schedule.updated")


def release_schedule(call: Call) -> Obj:
    """Let the subscription go on by itself."""
    tx = call.tx
    schedule = _active(tx, call.id, "release")
    return released(tx, schedule, keep_end=bool(call.params.get("preserve_cancel_date")))


def released(tx: Transaction, schedule: Obj, *, keep_end: bool = False) -> Obj:
    sub = tx.need("subscription", schedule["subscription"])
    free = {**sub, "schedule": None}
    if not keep_end and schedule["end_behavior"] == "cancel":
        free.update(cancel_at=None, canceled_at=None)
    update(tx, sub, free, "customer.subscription.updated")
    new = {
        **schedule,
        "current_phase": None,
        "released_at": tx.now,
        "released_subscription": sub["id"],
        "status": "released",
        "subscription": None,
    }
    tx.store("subscription_schedule", new)
    shown = wire(tx, new)
    tx.emit("subscription_schedule.released", shown)
    return shown


def cancel_schedule(call: Call) -> Obj:
    """Cancel the schedule and its subscription at once; what was not used is credited unless ``prorate`` is false."""
    tx, params = call.tx, call.params
    schedule = _active(tx, call.id, "cancel")
    sub = tx.need("subscription", schedule["subscription"])
    if params.get("prorate", True):
        keep_pending(tx, sub, unused_time(tx, sub, tx.now).lines)
    if params.get("invoice_now", True):
        used = [] if sub["status"] == "paused" else accrued_lines(tx, sub, tx.now, final=True)
        last = Rebill(sub, used, False, sub["_items"])
        sub = charge(tx, last, reason="subscription_update", behavior="allow_incomplete").sub
    end_subscription(tx, sub, reason="cancellation_requested")
    return wire(tx, tx.need("subscription_schedule", schedule["id"]))


def retrieve_schedule(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("subscription_schedule", call.id, "schedule"))


def list_schedules(call: Call) -> Obj:
    params = call.params
    for name in ("canceled_at", "completed_at", "released_at", "scheduled"):
        if name in params:
            raise refused(f"The simulator does not simulate the parameter {name}.", name)

    def match(schedule: Obj) -> bool:
        return "customer" not in params or schedule["customer"] == params["customer"]

    return page(call.tx, "subscription_schedule", params, "/v1/subscription_schedules", wire, match=match)
