"""Creating, changing, ending and listing subscriptions."""

from typing import Any

from ..call import Call, metadata, reference, text, update
from ..charging import (
    charge,
    check_quantity_limit,
    drop_pending_update,
    make_pending,
    needs_setup,
    started_status,
)
from ..errors import missing_parameter, no_such, refused
from ..invoicing import default_method, drop_pending, item_state, keep_pending, void
from ..listing import page, time_bounds
from ..objects import Obj
from ..rebilling import Rebill, first_lines, in_trial, rebill, shortened, unused_time
from ..request_parameters import whole
from ..search import search
from ..usage import accrued_lines
from ..wire import wire
from ..world import Transaction
from .coupons import check_discounts
from .payment_methods import settles_later
from .subscription_objects import blank, change_items, check_count, check_items, new_item
from .subscription_terms import (
    PRORATIONS,
    cancellation_details,
    currency_of,
    future_anchor,
    simulated,
    take_ending,
    take_terms,
    take_trial,
    word,
)

ENDED = ("canceled", "incomplete_expired")

BEHAVIORS = ("allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete")

_WITH_PENDING = {
    "items",
    "payment_behavior",
    "proration_behavior",
    "proration_date",
    "billing_cycle_anchor",
    "trial_end",
    "trial_from_plan",
    "metadata",
    "off_session",
    "expand",
}


def create_subscription(call: Call) -> Obj:
    tx, params = call.tx, call.params
    made, behavior = _new(call, call.ids[0] if call.ids else tx.new_id("sub_"))
    tx.store("subscription", made)
    proration = word(params, "proration_behavior", PRORATIONS, "create_prorations")
    change = first_lines(tx, made, proration)
    tx.store("subscription", change.sub)
    charged = charge(tx, change, reason="subscription_create", behavior=behavior)
    new = {**charged.sub, "status": started_status(tx, charged.sub, charged.outcome)}
    if charged.outcome in ("paid", "none") and (charged.invoice or {"amount_due": 0})["amount_due"] == 0:
        new = needs_setup(tx, new, behavior)
    if (
        charged.outcome == "paid"
        and new["payment_settings"].get("save_default_payment_method") == "on_subscription"
    ):
        method = default_method(tx, new)
        if method is not None and charged.invoice is not None and charged.invoice["amount_due"]:
            new["default_payment_method"] = method["id"]
    tx.store("subscription", new)
    shown = wire(tx, new)
    tx.emit("customer.subscription.created", shown)
    return shown


def _new(call: Call, identifier: str) -> tuple[Obj, str]:
    """A subscription as the parameters ask for it, not yet billed, and its payment behaviour."""
    tx, params = call.tx, call.params
    simulated(params)
    behavior = word(params, "payment_behavior", BEHAVIORS, "allow_incomplete")
    if behavior == "pending_if_incomplete":
        raise refused("payment_behavior pending_if_incomplete is only for updates.", "payment_behavior")
    if not params.get("customer"):
        raise missing_parameter("customer")
    customer = reference(tx, "customer", params["customer"], "customer")
    given = params.get("items") or []
    if not given:
        raise missing_parameter("items")
    check_count(given)
    made = blank(identifier, customer["id"], "", tx.now)
    made["_items"] = [new_item(tx, made, entry, f"items[{index}]") for index, entry in enumerate(given)]
    made["currency"] = currency_of(tx, customer, made["_items"], params.get("currency"))
    kind = (params.get("billing_mode") or {}).get("type", "flexible")
    if kind == "classic":
        made["billing_mode"] = {"flexible": None, "type": "classic"}
    check_items(tx, made)
    take_terms(tx, made, params)
    check_discounts(tx, made, lambda: order_of(tx, made))
    take_trial(tx, made, params)
    if in_trial(made, tx.now):
        made["billing_cycle_anchor"] = made["trial_end"]
    elif params.get("billing_cycle_anchor") is not None:
        made["billing_cycle_anchor"] = future_anchor(
            tx, made, whole(params["billing_cycle_anchor"], "billing_cycle_anchor")
        )
    return take_ending(tx, made, params), behavior


def order_of(tx: Transaction, sub: Obj) -> int:
    """What a whole period of the licensed items costs before discounts, in minor units."""
    states = [item_state(tx, sub, item) for item in sub["_items"]]
    return sum(state.full_amount for state in states if state.quantity is not None)


def planned(call: Call) -> Obj:
    """A subscription that is only looked at."""
    return _new(call, call.tx.new_id("sub_"))[0]


def retrieve_subscription(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("subscription", call.id))


def update_subscription(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("subscription", call.id)
    if old["status"] in ENDED:
        return _update_ended(tx, old, params)
    simulated(params)
    _check_incomplete(old, params)
    behavior = word(params, "payment_behavior", BEHAVIORS, "allow_incomplete")
    if behavior == "pending_if_incomplete":
        strange = sorted(set(params) - _WITH_PENDING)
        if strange:
            raise refused(
                f"{strange[0]} is not supported when payment_behavior is pending_if_incomplete.", strange[0]
            )
        _check_pending_updates(tx, old)
    _check_schedule(tx, old, params)
    old_plain = drop_pending_update(tx, old) if "items" in params else old
    new, change, proration, _ = proposed(tx, old_plain, params)
    check_quantity_limit(tx, old, new)
    if change is not None:
        new = _rebilled(tx, old_plain, change, behavior, proration, params)
    return update(tx, old, new, "customer.subscription.updated")


def _check_incomplete(sub: Obj, params: Obj) -> None:
    """Until its first payment a subscription "can only have metadata and default_source updated" (SDK, `status`)."""
    strange = sorted(set(params) - {"metadata", "default_source"})
    if sub["status"] == "incomplete" and strange:
        raise refused(
            f"You cannot update {strange[0]} of a subscription that is incomplete: only its metadata and "
            "default_source can be updated.",
            strange[0],
        )


def _check_schedule(tx: Transaction, sub: Obj, params: Obj) -> None:
    """Raises 400 for what only the schedule of a managed subscription may change.

    Stripe refuses the end. Whether it refuses other changes is not documented: the account's setting
    ``schedule_refuses`` names further parameters.
    """
    held = ("cancel_at_period_end", "cancel_at", *(tx.world.settings.get("schedule_refuses") or ()))
    if sub["schedule"] is None or not any(name in params for name in held):
        return
    raise refused(
        f"The subscription is managed by the subscription schedule `{sub['schedule']}`, and updating any cancelation "
        "behavior directly is not allowed. Please update the schedule instead."
    )


def _check_pending_updates(tx: Transaction, sub: Obj) -> None:
    """Stripe holds an update back only where it charges a card (documentation, "Pending updates").

    Raises 400 for a subscription whose invoices are sent, and for one that a bank debit pays.
    """
    if sub["collection_method"] != "charge_automatically":
        raise refused(
            "payment_behavior pending_if_incomplete can only be used when collection_method is "
            "charge_automatically.",
            "payment_behavior",
        )
    method = default_method(tx, sub)
    if method is not None and settles_later(method):
        raise refused(
            "payment_behavior pending_if_incomplete is not supported for payment methods of type "
            f"{method['type']}.",
            "payment_behavior",
        )


def _update_ended(tx: Transaction, old: Obj, params: Obj) -> Obj:
    strange = sorted(set(params) - {"metadata", "cancellation_details"})
    if strange:
        raise refused(
            "A canceled subscription can only update its cancellation_details and metadata.",
            strange[0],
            "invalid_canceled_subscription_fields",
        )
    new = {
        **old,
        "metadata": metadata(old["metadata"], params.get("metadata")),
        **cancellation_details(old, params),
    }
    return update(tx, old, new, "customer.subscription.updated")


def proposed(tx: Transaction, old: Obj, params: Obj) -> tuple[Obj, Rebill | None, str, int]:
    """The subscription as an update asks for it, what that bills (None when nothing about billing changes), the
    proration behaviour and the second from which it counts. A real update and a preview both start here."""
    proration = word(params, "proration_behavior", PRORATIONS, "create_prorations")
    at = int(params.get("proration_date", tx.now))
    new = {**old, **cancellation_details(old, params)}
    take_terms(tx, new, params)
    if "pause_collection" in params:
        given = params["pause_collection"]
        new["pause_collection"] = None if given == "" else {"resumes_at": None, **given}
    rebilling = [name for name in ("items", "trial_end", "billing_cycle_anchor") if name in params]
    if old["status"] == "paused":
        # Nothing is invoiced before it resumes. That Stripe refuses other items during a pause is documented nowhere.
        proration = "none"
    held = old["status"] == "incomplete" or (old["status"] == "paused" and rebilling != ["items"])
    if rebilling and held:
        raise refused(
            f"You cannot change the {rebilling[0]} of a subscription that is {old['status']}.", rebilling[0]
        )
    if "items" in params:
        new["_items"] = change_items(tx, new, params["items"])
        check_items(tx, new)
    check_discounts(tx, new, lambda: order_of(tx, new))
    if "trial_end" in params:
        take_trial(tx, new, params)
    anchor = params.get("billing_cycle_anchor")
    reset = anchor is not None and (anchor if isinstance(anchor, str) else anchor.get("type")) == "now"
    billed = ("price", "quantity", "discounts")
    before = {item["id"]: tuple(str(item[name]) for name in billed) for item in old["_items"]}
    after = {item["id"]: tuple(str(item[name]) for name in billed) for item in new["_items"]}
    change = None
    if before != after or reset or new["trial_end"] != old["trial_end"]:
        when = tx.now if new["trial_end"] != old["trial_end"] else at
        change = rebill(tx, old, new, proration=proration, at=when, reset=reset)
        new = change.sub
        if new["status"] in ("trialing", "active"):
            new["status"] = "trialing" if in_trial(new, tx.now) else "active"
        if new["cancel_at_period_end"]:
            new["cancel_at"] = min(item["current_period_end"] for item in new["_items"])
    ended = take_ending(tx, new, params)
    if change is not None:
        change.sub = ended
    if _ends_early(tx, ended, params):
        cut = shortened(tx, ended, ended["cancel_at"])
        lines = [*(change.lines if change else []), *(cut.lines if proration != "none" else [])]
        change = Rebill(cut.sub, lines, change is not None and change.whole, [*cut.items, *old["_items"]])
        ended = cut.sub
    return ended, change, proration, at


def _ends_early(tx: Transaction, sub: Obj, params: Obj) -> bool:
    """True if the update sets an end within the period of a classic subscription, which resets its anchor."""
    if sub["billing_mode"]["type"] != "classic" or not params.get("cancel_at"):
        return False
    ends = [item["current_period_end"] for item in sub["_items"]]
    return bool(tx.now < sub["cancel_at"] < min(ends))


def _rebilled(tx: Transaction, old: Obj, change: Rebill, behavior: str, proration: str, params: Obj) -> Obj:
    """Bills the change now or leaves its prorations for later; gives the subscription afterwards."""
    if not (change.whole or proration == "always_invoice"):
        keep_pending(tx, change.sub, change.lines)
        return change.sub
    tx.store("subscription", change.sub)
    charged = charge(
        tx,
        change,
        reason="subscription_update",
        behavior=behavior,
        proration_date=params.get("proration_date"),
    )
    if charged.outcome in ("paid", "none", "processing") or charged.invoice is None:
        return charged.sub
    if behavior == "pending_if_incomplete":
        change.sub = charged.sub
        return make_pending(tx, old, change, charged.invoice, params.get("metadata"))
    if charged.outcome == "open" and charged.sub["collection_method"] == "send_invoice":
        return charged.sub
    return {
        **charged.sub,
        "status": "past_due" if charged.sub["status"] == "active" else charged.sub["status"],
    }


def end_subscription(tx: Transaction, old: Obj, *, reason: str | None, details: Obj | None = None) -> Obj:
    """Ends it at once, for good. An unfinished one that ran out of time ends as ``incomplete_expired``."""
    expired = reason == "expired"
    old = drop_pending_update(tx, old)
    new = {
        **old,
        "status": "incomplete_expired" if expired else "canceled",
        "cancel_at_period_end": old["cancel_at_period_end"],
        "canceled_at": old["canceled_at"] or tx.now,
        "ended_at": tx.now,
        "cancellation_details": {
            **old["cancellation_details"],
            **(details or {}),
            "reason": old["cancellation_details"]["reason"] if expired else reason,
        },
    }
    new["schedule"] = _end_schedule(tx, old)
    tx.store("subscription", new)
    shown = wire(tx, new)
    if expired:
        tx.emit("customer.subscription.updated", shown, {"status": old["status"], "ended_at": None})
    else:
        tx.emit("customer.subscription.deleted", shown)
    for invoice in tx.find("invoice", "_subscription", new["id"]):
        if invoice["status"] == "open" and (expired or old["status"] == "incomplete"):
            void(tx, invoice)
        elif invoice["status"] in ("open", "draft") and invoice["auto_advance"]:
            # Stripe stops collecting once the subscription is gone; the invoices themselves stay.
            halted = {
                **invoice,
                "auto_advance": False,
                "automatically_finalizes_at": None,
                "next_payment_attempt": None,
                "_finalize_at": None,
            }
            update(tx, invoice, halted, "invoice.updated")
    return shown


def _end_schedule(tx: Transaction, sub: Obj) -> str | None:
    """End the schedule with its subscription; returns what the subscription then names."""
    schedule = tx.get("subscription_schedule", sub["schedule"])
    if schedule is not None and schedule["status"] == "active":
        own_end = schedule["end_behavior"] == "cancel" and schedule["current_phase"]["end_date"] <= tx.now
        status, moment = ("completed", "completed_at") if own_end else ("canceled", "canceled_at")
        ended = {**schedule, moment: tx.now, "current_phase": None, "status": status}
        tx.store("subscription_schedule", ended)
        tx.emit(f"subscription_schedule.{status}", wire(tx, ended))
    return None if schedule is None else str(schedule["id"])


def cancel_subscription(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("subscription", call.id)
    if old["status"] in ENDED:
        raise no_such("subscription", call.id)
    prorate, invoice_now = params.get("prorate", False), params.get("invoice_now", False)
    if prorate:
        keep_pending(tx, old, unused_time(tx, old, tx.now).lines)
    current = old
    if invoice_now:
        unbilled = [] if old["status"] == "paused" else accrued_lines(tx, old, tx.now, final=True)
        charged = charge(
            tx,
            Rebill(old, unbilled, False, old["_items"]),
            reason="subscription_update",
            behavior="allow_incomplete",
        )
        current = charged.sub
        tx.store("subscription", current)
    elif not prorate:
        drop_pending(tx, old)
    details = {name: text(value) for name, value in (params.get("cancellation_details") or {}).items()}
    return end_subscription(tx, current, reason="cancellation_requested", details=details)


def delete_discount(call: Call) -> Obj:
    tx = call.tx
    old = tx.need("subscription", call.id)
    for identifier in old["discounts"]:
        discount = tx.need("discount", identifier)
        tx.emit("customer.discount.deleted", wire(tx, discount))
        tx.remove("discount", identifier)
    update(tx, old, {**old, "discounts": []}, "customer.subscription.updated")
    identifier = old["discounts"][0] if old["discounts"] else tx.need("discount", "")["id"]
    return {"id": identifier, "object": "discount", "deleted": True}


def list_subscriptions(call: Call) -> Obj:
    params = call.params
    among = None
    if "customer" in params:
        among = call.tx.world.collection("subscription").find("customer", params["customer"])
    status: Any = params.get("status")
    ends = time_bounds(params.get("current_period_end"), "current_period_end")
    starts = time_bounds(params.get("current_period_start"), "current_period_start")

    def match(sub: Obj) -> bool:
        if status == "ended":
            fits = sub["status"] in ENDED
        elif status is None:
            fits = sub["status"] != "canceled"
        else:
            fits = status in ("all", sub["status"])
        return (
            fits
            and ("price" not in params or any(item["price"] == params["price"] for item in sub["_items"]))
            and ("collection_method" not in params or sub["collection_method"] == params["collection_method"])
            and ends[0] <= min(item["current_period_end"] for item in sub["_items"]) <= ends[1]
            and starts[0] <= max(item["current_period_start"] for item in sub["_items"]) <= starts[1]
        )

    return page(call.tx, "subscription", params, "/v1/subscriptions", wire, among=among, match=match)


def search_subscriptions(call: Call) -> Obj:
    return search(call, "subscription", "/v1/subscriptions/search")
