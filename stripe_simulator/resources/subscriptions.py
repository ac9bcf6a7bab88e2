"""Subscriptions and their items."""

from typing import Any

from ..billing import next_period_end, period_at
from ..billing.periods import Cadence
from ..call import Call, metadata, reference, text, update
from ..charging import (
    charge,
    check_quantity_limit,
    drop_pending_update,
    make_pending,
    needs_setup,
    started_status,
)
from ..errors import invalid, missing_parameter, no_such, refused
from ..invoicing import default_method, drop_pending, keep_pending, void
from ..listing import page, sequence, time_bounds
from ..rebilling import Rebill, first_lines, in_trial, mode_of, rebill, renewed, unused_time
from ..request_parameters import whole
from ..wire import subscription_item, wire
from ..world import Obj, Transaction
from .coupons import checked_rates, redeem
from .subscription_objects import blank, change_items, check_count, check_items, new_item

ENDED = ("canceled", "incomplete_expired")
DAY = 86_400
BEHAVIORS = ("allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete")
PRORATIONS = ("create_prorations", "always_invoice", "none")
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
_UNSIMULATED = (
    "add_invoice_items",
    "application_fee_percent",
    "automatic_tax",
    "backdate_start_date",
    "billing_cycle_anchor_config",
    "billing_schedules",
    "billing_thresholds",
    "customer_account",
    "default_source",
    "managed_payments",
    "on_behalf_of",
    "pending_invoice_item_interval",
    "transfer_data",
)


def _simulated(params: Obj) -> None:
    """Refuses what this stand-in would otherwise ignore in silence."""
    for name in _UNSIMULATED:
        if name in params and params[name] not in ("", {"enabled": False}):
            raise refused(f"The simulator does not simulate the parameter {name}.", name)


def _word(params: Obj, name: str, allowed: tuple[str, ...], default: str) -> str:
    value = params.get(name, default)
    if value not in allowed:
        raise invalid(f"Invalid {name}: must be one of {', '.join(allowed)}", name)
    return str(value)


def _currency(tx: Transaction, customer: Obj, items: list[Obj], asked: str | None) -> str:
    """The subscription's currency; the customer's first subscription fixed theirs."""
    price = tx.need("price", items[0]["price"])
    fixed = customer["currency"]
    wanted = asked.lower() if asked else None
    if wanted is None:
        wanted = fixed if fixed in price["_currency_options"] else price["currency"]
    if fixed is not None and wanted != fixed:
        raise refused(
            "You cannot combine currencies on a single customer. This customer has an active subscription, subscription "
            f"schedule, discount, quote, or invoice item with currency {fixed}",
            "currency",
        )
    return str(wanted)


def _payment_method(tx: Transaction, customer: str, identifier: str) -> str:
    method = reference(tx, "payment_method", identifier, "default_payment_method")
    if method["customer"] != customer:
        raise refused(
            f"The customer does not have a payment method with the ID {identifier}. The payment method must be attached "
            "to the customer.",
            "default_payment_method",
            "resource_missing",
        )
    return str(method["id"])


def _terms(tx: Transaction, new: Obj, params: Obj) -> None:
    """The plain fields that create and update share."""
    new["metadata"] = metadata(new["metadata"], params.get("metadata"))
    if "description" in params:
        new["description"] = text(params["description"])
    if "collection_method" in params:
        new["collection_method"] = params["collection_method"]
    if "days_until_due" in params:
        new["days_until_due"] = params["days_until_due"]
    if new["collection_method"] == "send_invoice" and new["days_until_due"] is None:
        raise missing_parameter("days_until_due")
    if "default_payment_method" in params:
        identifier = text(params["default_payment_method"])
        new["default_payment_method"] = (
            None if identifier is None else _payment_method(tx, new["customer"], identifier)
        )
    if "default_tax_rates" in params:
        new["default_tax_rates"] = checked_rates(tx, params["default_tax_rates"], "default_tax_rates")
    if "discounts" in params:
        new["discounts"] = redeem(
            tx,
            params["discounts"],
            new["discounts"],
            "discounts",
            customer=new["customer"],
            subscription=new["id"],
            item=None,
        )
    if "payment_settings" in params:
        new["payment_settings"] = {**new["payment_settings"], **params["payment_settings"]}
    if "invoice_settings" in params:
        new["invoice_settings"] = {**new["invoice_settings"], **params["invoice_settings"]}
    if "trial_settings" in params:
        new["trial_settings"] = params["trial_settings"]


def _trial(tx: Transaction, new: Obj, params: Obj) -> None:
    days = params.get("trial_period_days")
    end: Any = params.get("trial_end")
    if days is not None and end is not None:
        raise invalid("You cannot set both trial_end and trial_period_days.", "trial_period_days")
    if days is not None:
        if int(days) < 1:
            raise invalid("Invalid positive integer", "trial_period_days", "parameter_invalid_integer")
        end = tx.now + int(days) * DAY
    if end is None:
        return
    if end == "now":
        new["trial_end"] = tx.now if new["trial_end"] is not None else None
        return
    moment = whole(end, "trial_end")
    if moment <= tx.now:
        raise refused("The trial_end timestamp must be in the future.", "trial_end")
    if not in_trial(new, tx.now):
        new["trial_start"] = tx.now
    new["trial_end"] = moment
    new["_trial_warned"] = False


def create_subscription(call: Call) -> Obj:
    tx, params = call.tx, call.params
    made, behavior = _new(call, call.ids[0] if call.ids else tx.new_id("sub_"))
    tx.store("subscription", made)
    proration = _word(params, "proration_behavior", PRORATIONS, "create_prorations")
    change = first_lines(tx, made, proration)
    tx.store("subscription", change.sub)
    charged = charge(tx, change, reason="subscription_create", behavior=behavior, pending=False)
    new = {**charged.sub, "status": started_status(tx, charged.sub, charged.outcome)}
    if charged.outcome in ("paid", "none") and (charged.invoice or {"amount_due": 0})["amount_due"] == 0:
        new = needs_setup(tx, new, behavior)
    if charged.outcome == "paid" and new["payment_settings"].get("save_default_payment_method") == "on_subscription":
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
    _simulated(params)
    behavior = _word(params, "payment_behavior", BEHAVIORS, "allow_incomplete")
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
    made["currency"] = _currency(tx, customer, made["_items"], params.get("currency"))
    kind = (params.get("billing_mode") or {}).get("type", "flexible")
    if kind == "classic":
        made["billing_mode"] = {"flexible": None, "type": "classic"}
    check_items(tx, made)
    _terms(tx, made, params)
    _trial(tx, made, params)
    if in_trial(made, tx.now):
        made["billing_cycle_anchor"] = made["trial_end"]
    elif params.get("billing_cycle_anchor") is not None:
        made["billing_cycle_anchor"] = _future_anchor(tx, made, whole(params["billing_cycle_anchor"], "billing_cycle_anchor"))
    return _ending(tx, made, params), behavior


def planned(call: Call) -> Obj:
    """A subscription that is only looked at."""
    return _new(call, call.tx.new_id("sub_"))[0]


def _future_anchor(tx: Transaction, sub: Obj, anchor: int) -> int:
    if anchor <= tx.now:
        raise refused("billing_cycle_anchor must be in the future.", "billing_cycle_anchor")
    for item in sub["_items"]:
        cadence = Cadence.of(tx.need("price", item["price"]))
        if anchor > next_period_end(tx.now, cadence, tx.now):
            raise refused(
                "billing_cycle_anchor cannot be later than next natural billing date.", "billing_cycle_anchor"
            )
    return anchor


def _ending(tx: Transaction, new: Obj, params: Obj) -> Obj:
    """``cancel_at_period_end`` and ``cancel_at``, of which one is given."""
    if "cancel_at_period_end" not in params and "cancel_at" not in params:
        return new
    if params.get("cancel_at_period_end") and params.get("cancel_at"):
        raise invalid("You cannot set both cancel_at and cancel_at_period_end.", "cancel_at")
    new = dict(new)
    ends = [item["current_period_end"] for item in new["_items"]]
    if ends and max(ends) <= tx.now:
        change = first_lines(tx, new, "none")
        ends = [item["current_period_end"] for item in change.items]
    moment: int | None = None
    if params.get("cancel_at_period_end"):
        if len(set(ends)) > 1:
            raise refused(
                "cancel_at_period_end cannot be used where items end at different times; use cancel_at with "
                "min_period_end or max_period_end.",
                "cancel_at_period_end",
            )
        moment = ends[0]
    elif params.get("cancel_at"):
        words = {"min_period_end": min(ends), "max_period_end": max(ends), "max_billed_until": max(ends)}
        moment = words.get(params["cancel_at"]) or whole(params["cancel_at"], "cancel_at")
        if moment <= tx.now:
            raise refused("cancel_at must be in the future.", "cancel_at")
    new["cancel_at_period_end"] = bool(params.get("cancel_at_period_end"))
    new["cancel_at"] = moment
    new["canceled_at"] = tx.now if moment is not None else None
    reason = "cancellation_requested" if moment is not None else None
    new["cancellation_details"] = {**new["cancellation_details"], "reason": reason}
    return new


def retrieve_subscription(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("subscription", call.id))


def update_subscription(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("subscription", call.id)
    if old["status"] in ENDED:
        return _update_ended(tx, old, params)
    _simulated(params)
    behavior = _word(params, "payment_behavior", BEHAVIORS, "allow_incomplete")
    if behavior == "pending_if_incomplete":
        strange = sorted(set(params) - _WITH_PENDING)
        if strange:
            raise refused(f"{strange[0]} is not supported when payment_behavior is pending_if_incomplete.", strange[0])
    old_plain = drop_pending_update(tx, old) if "items" in params else old
    new, change, proration, at = proposed(tx, old_plain, params)
    check_quantity_limit(tx, old, new)
    if change is not None:
        new = _rebilled(tx, old_plain, change, behavior, proration, at if "proration_date" in params else None)
    return update(tx, old, new, "customer.subscription.updated")


def _update_ended(tx: Transaction, old: Obj, params: Obj) -> Obj:
    strange = sorted(set(params) - {"metadata", "cancellation_details"})
    if strange:
        raise refused(
            "A canceled subscription can only update its cancellation_details and metadata.", strange[0]
        )
    new = {**old, "metadata": metadata(old["metadata"], params.get("metadata")), **_details(old, params)}
    return update(tx, old, new, "customer.subscription.updated")


def _details(old: Obj, params: Obj) -> Obj:
    given = {name: text(value) for name, value in (params.get("cancellation_details") or {}).items()}
    return {"cancellation_details": {**old["cancellation_details"], **given}}


def proposed(tx: Transaction, old: Obj, params: Obj) -> tuple[Obj, Rebill | None, str, int]:
    """The subscription as an update asks for it, what that bills (None when nothing about billing changes), the
    proration behaviour and the second from which it counts. A real update and a preview both start here."""
    proration = _word(params, "proration_behavior", PRORATIONS, "create_prorations")
    at = int(params.get("proration_date", tx.now))
    new = {**old, **_details(old, params)}
    _terms(tx, new, params)
    if "pause_collection" in params:
        given = params["pause_collection"]
        new["pause_collection"] = None if given == "" else {"resumes_at": None, **given}
    if "items" in params:
        if old["status"] == "incomplete":
            raise refused("You cannot change the items of an incomplete subscription; pay or cancel it first.", "items")
        new["_items"] = change_items(tx, new, params["items"])
        check_items(tx, new)
    if "trial_end" in params:
        _trial(tx, new, params)
    anchor = params.get("billing_cycle_anchor")
    reset = anchor is not None and (anchor if isinstance(anchor, str) else anchor.get("type")) == "now"
    billed = ("price", "quantity", "discounts")
    before = {item["id"]: tuple(str(item[name]) for name in billed) for item in old["_items"]}
    after = {item["id"]: tuple(str(item[name]) for name in billed) for item in new["_items"]}
    change = None
    if before != after or reset or new["trial_end"] != old["trial_end"]:
        when = tx.now if reset or new["trial_end"] != old["trial_end"] else at
        change = rebill(tx, old, new, proration=proration, at=when, reset=reset)
        new = change.sub
        if new["status"] in ("trialing", "active"):
            new["status"] = "trialing" if in_trial(new, tx.now) else "active"
    ended = _ending(tx, new, params)
    if change is not None:
        change.sub = ended
    return ended, change, proration, at


def _rebilled(
    tx: Transaction, old: Obj, change: Rebill, behavior: str, proration: str, proration_date: int | None
) -> Obj:
    """Bills the change now or leaves its prorations for later; gives the subscription afterwards."""
    if not (change.whole or proration == "always_invoice"):
        keep_pending(tx, change.sub, change.lines)
        return change.sub
    tx.store("subscription", change.sub)
    charged = charge(
        tx, change, reason="subscription_update", behavior=behavior, proration_date=proration_date
    )
    if charged.outcome in ("paid", "none"):
        return charged.sub
    assert charged.invoice is not None
    if behavior == "pending_if_incomplete":
        change.sub = charged.sub
        return make_pending(tx, old, change, charged.invoice)
    if charged.outcome == "open" and charged.sub["collection_method"] == "send_invoice":
        return charged.sub
    return {**charged.sub, "status": "past_due" if charged.sub["status"] == "active" else charged.sub["status"]}


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
            halted = {**invoice, "auto_advance": False, "next_payment_attempt": None, "_finalize_at": None}
            update(tx, invoice, halted, "invoice.updated")
    return shown


def cancel_subscription(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("subscription", call.id)
    if old["status"] in ENDED:
        raise no_such("subscription", call.id)
    prorate, invoice_now = params.get("prorate", False), params.get("invoice_now", False)
    if prorate:
        keep_pending(tx, old, unused_time(tx, old, tx.now))
    current = old
    if invoice_now:
        charged = charge(
            tx, Rebill(old, [], False, old["_items"]), reason="subscription_update", behavior="allow_incomplete"
        )
        current = charged.sub
        tx.store("subscription", current)
    elif not prorate:
        drop_pending(tx, old)
    details = {name: text(value) for name, value in (params.get("cancellation_details") or {}).items()}
    return end_subscription(tx, current, reason="cancellation_requested", details=details)


def pause_subscription(call: Call) -> Obj:
    """Needs flexible billing; the service stops until it is resumed, and no invoices are made."""
    tx, params = call.tx, call.params
    old = tx.need("subscription", call.id)
    if mode_of(old).value != "flexible":
        raise refused("Only subscriptions with billing_mode flexible can be paused.", "id")
    if old["status"] not in ("active", "trialing", "past_due"):
        raise refused(f"You cannot pause a subscription with the status {old['status']}.", "id")
    unused = ((params.get("bill_for") or {}).get("unused_time_from") or {}).get("type", "none")
    current = old
    if unused in ("now", "item_current_period_start"):
        credits_ = unused_time(tx, old, tx.now)
        if params.get("invoicing_behavior") == "invoice":
            change = Rebill(old, credits_, False, old["_items"])
            current = charge(tx, change, reason="subscription_update", behavior="allow_incomplete").sub
        else:
            keep_pending(tx, old, credits_)
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
        change = first_lines(tx, {**base, "billing_cycle_anchor": tx.now, "_items": items}, "create_prorations")
    else:
        moved, lines = base, []
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
    return {**item, "current_period_start": period.start, "current_period_end": period.end, "_debit": None}


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


def list_items(call: Call) -> Obj:
    params = call.params
    sub = reference(call.tx, "subscription", params["subscription"], "subscription")
    rows = [subscription_item(call.tx, item) for item in sub["_items"]]
    url = f"/v1/subscription_items?subscription={sub['id']}"
    return sequence(rows, params, url, "subscription_item")


def _parent(tx: Transaction, item_id: str) -> tuple[Obj, Obj]:
    parent = tx.get("subscription", tx.world.item_parents.get(item_id))
    if parent is not None:
        for item in parent["_items"]:
            if item["id"] == item_id:
                return parent, item
    return {}, tx.need("subscription_item", item_id)


def retrieve_item(call: Call) -> Obj:
    return subscription_item(call.tx, _parent(call.tx, call.id)[1])


_BILLING_FIELDS = ("proration_behavior", "proration_date", "payment_behavior", "off_session")
_ITEM_FIELDS = ("price", "price_data", "plan", "quantity", "metadata", "tax_rates", "discounts")


def _through(call: Call, sub: Obj, entry: Obj) -> None:
    params = {name: call.params[name] for name in _BILLING_FIELDS if name in call.params}
    update_subscription(Call(call.tx, {**params, "items": [entry]}, [sub["id"]]))


def update_item(call: Call) -> Obj:
    sub, item = _parent(call.tx, call.id)
    entry = {name: call.params[name] for name in _ITEM_FIELDS if name in call.params}
    _through(call, sub, {**entry, "id": item["id"]})
    return retrieve_item(call)


def create_item(call: Call) -> Obj:
    sub = reference(call.tx, "subscription", call.params["subscription"], "subscription")
    entry = {name: call.params[name] for name in _ITEM_FIELDS if name in call.params}
    before = {item["id"] for item in sub["_items"]}
    _through(call, sub, entry)
    after = call.tx.need("subscription", sub["id"])
    made = next(item for item in after["_items"] if item["id"] not in before)
    return subscription_item(call.tx, made)


def delete_item(call: Call) -> Obj:
    sub, item = _parent(call.tx, call.id)
    _through(call, sub, {"id": item["id"], "deleted": True})
    return {"id": item["id"], "object": "subscription_item", "deleted": True}
