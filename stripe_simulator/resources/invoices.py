"""Invoices, their lines and payments, invoice items, and previews that share the real invoices' arithmetic."""

from collections.abc import Sequence

from ..billing import Line
from ..call import Call, metadata, reference, text, update
from ..charging import awake, collect, drop_pending_update, drop_resumption, settled, spent, waits_for
from ..errors import ApiError, card_error, invalid, missing_parameter, refused
from ..invoicing import (
    PREVIEW_ID,
    collectable_items,
    compose,
    default_method,
    finalize,
    mark_paid,
    pending_items,
    void,
    write_off,
)
from ..listing import page, sequence
from ..objects import Obj
from ..rebilling import first_lines, recurring_lines, renewed, unused_time
from ..usage import accrued_lines
from ..wire import invoice as wire_invoice
from ..wire import wire
from ..world import Transaction
from . import subscriptions
from .payment_methods import resolve


def retrieve_invoice(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("invoice", call.id, "invoice"))


def list_invoices(call: Call) -> Obj:
    params = call.params
    among = None
    if "customer" in params:
        among = call.tx.world.collection("invoice").find("customer", params["customer"])
    elif "subscription" in params:
        among = call.tx.world.collection("invoice").find("_subscription", params["subscription"])

    def match(invoice: Obj) -> bool:
        return (
            ("status" not in params or invoice["status"] == params["status"])
            and ("subscription" not in params or invoice["_subscription"] == params["subscription"])
            and (
                "collection_method" not in params
                or invoice["collection_method"] == params["collection_method"]
            )
        )

    return page(call.tx, "invoice", params, "/v1/invoices", wire, among=among, match=match)


def list_lines(call: Call) -> Obj:
    """Of a stored invoice, or of one of the latest previews, whose longer lists are paged by their id too."""
    lines = call.tx.world.previews.get(call.id)
    if lines is None:
        lines = call.tx.need("invoice", call.id, "invoice")["_lines"]
    return sequence(lines, call.params, f"/v1/invoices/{call.id}/lines", "line_item")


def list_payments(call: Call) -> Obj:
    params = call.params
    among = None
    if "invoice" in params:
        among = call.tx.world.collection("invoice_payment").find("invoice", params["invoice"])

    def match(payment: Obj) -> bool:
        return "status" not in params or payment["status"] == params["status"]

    return page(call.tx, "invoice_payment", params, "/v1/invoice_payments", wire, among=among, match=match)


def retrieve_payment(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("invoice_payment", call.id, "invoice_payment"))


def update_invoice(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("invoice", call.id, "invoice")
    new = {**old, "metadata": metadata(old["metadata"], params.get("metadata"))}
    for name in ("description", "footer"):
        if name in params:
            new[name] = text(params[name])
    if "auto_advance" in params:
        new["auto_advance"] = params["auto_advance"]
    if "default_payment_method" in params:
        identifier = text(params["default_payment_method"])
        if identifier is not None:
            reference(tx, "payment_method", identifier, "default_payment_method")
        new["default_payment_method"] = identifier
    return update(tx, old, new, "invoice.updated")


def _of_status(tx: Transaction, identifier: str, *statuses: str) -> Obj:
    invoice = tx.need("invoice", identifier, "invoice")
    if invoice["status"] not in statuses:
        raise refused(
            f"This invoice has the status {invoice['status']}; this needs one of: {', '.join(statuses)}.",
            "invoice",
            "invoice_not_editable" if invoice["status"] == "draft" else None,
        )
    return invoice


def finalize_invoice(call: Call) -> Obj:
    tx = call.tx
    invoice = finalize(tx, _of_status(tx, call.id, "draft"))
    if invoice["status"] == "paid":
        settled(tx, invoice, None)
    return wire(tx, invoice)


def pay_invoice(call: Call) -> Obj:
    """Collects now. A decline is HTTP 402, and the attempt counts."""
    tx, params = call.tx, call.params
    invoice = tx.need("invoice", call.id, "invoice")
    if invoice["status"] == "paid":
        raise refused("Invoice is already paid")
    if invoice["status"] == "draft":
        invoice = finalize(tx, invoice)
    if invoice["status"] not in ("open", "uncollectible"):
        if invoice["status"] == "paid":
            return wire(tx, invoice)
        raise refused(f"This invoice can no longer be paid: its status is {invoice['status']}.", "invoice")
    if params.get("paid_out_of_band"):
        invoice = mark_paid(tx, invoice)
        settled(tx, invoice, None)
        return wire(tx, invoice)
    sub = tx.get("subscription", invoice["_subscription"]) or {}
    if params.get("payment_method"):
        method = resolve(tx, params["payment_method"], "payment_method", 400)
        if method["customer"] != invoice["customer"]:
            raise refused("The payment method must be attached to the customer.", "payment_method")
    else:
        own = tx.get("payment_method", invoice["default_payment_method"])
        chosen = own or default_method(tx, sub)
        if chosen is None:
            raise refused(
                "There is no `default_payment_method` set on this Customer or Invoice. Please set a "
                "default_payment_method on the Customer or Invoice, or pass one.",
                code="resource_missing",
            )
        method = chosen
    invoice, decline = collect(tx, invoice, method, automatic=False)
    if decline == "authentication_required":
        raise ApiError(
            402,
            "This payment requires additional user action before it can be completed successfully.",
            code="invoice_payment_intent_requires_action",
            commit=True,
        )
    if decline not in (None, "processing"):
        raise card_error(decline, commit=True)
    return wire(tx, invoice)


def void_invoice(call: Call) -> Obj:
    invoice = _of_status(call.tx, call.id, "open", "uncollectible")
    intent = call.tx.get("payment_intent", invoice["_payment_intent"])
    if intent is not None and intent["status"] == "processing":
        raise refused("You cannot void this invoice because a payment of it is processing.", "invoice")
    sub = call.tx.get("subscription", invoice["_subscription"])
    voided = void(call.tx, invoice)
    if sub is not None and sub["status"] == "incomplete":
        subscriptions.end_subscription(call.tx, sub, reason="expired")
    elif sub is not None and sub["_pending"] is not None and sub["_pending"]["invoice"] == invoice["id"]:
        # To cancel a pending update is to void the invoice that it made (Stripe's documentation, "Pending updates").
        update(call.tx, sub, drop_pending_update(call.tx, sub), "customer.subscription.updated")
    elif sub is not None and waits_for(sub, invoice):
        call.tx.store("subscription", drop_resumption(call.tx, sub))
    return wire(call.tx, voided)


def mark_uncollectible(call: Call) -> Obj:
    tx = call.tx
    old = _of_status(tx, call.id, "open")
    written_off = write_off(tx, old)
    sub = tx.get("subscription", old["_subscription"])
    if sub is not None and waits_for(sub, old):
        awake(tx, sub, sub)
    return wire(tx, written_off)


def delete_invoice(call: Call) -> Obj:
    tx = call.tx
    invoice = _of_status(tx, call.id, "draft")
    if invoice["_subscription"] is not None:
        raise refused("You can't delete invoices created by subscriptions.", "invoice")
    tx.remove("invoice", invoice["id"])
    tx.emit("invoice.deleted", wire(tx, invoice))
    return {"id": invoice["id"], "object": "invoice", "deleted": True}


_DETAILS = (
    "items",
    "billing_cycle_anchor",
    "cancel_at",
    "cancel_at_period_end",
    "default_tax_rates",
    "proration_behavior",
    "proration_date",
    "trial_end",
    "billing_mode",
)
_UNSIMULATED = ("invoice_items", "schedule", "schedule_details", "automatic_tax", "customer_account")


def create_preview(call: Call) -> Obj:
    """The invoice that a change would make at once, or else the one at the end of the period. Only its lines are kept.

    The change runs through the same functions as a real one, in a transaction that is thrown away.
    """
    params = call.params
    for name in _UNSIMULATED:
        if name in params:
            raise refused(f"The simulator does not simulate the parameter {name}.", name)
    scratch = call.lookup = Transaction(call.tx.world, call.tx.actor)
    details = params.get("subscription_details") or {}
    strange = set(details) - set(_DETAILS) - {"cancel_now", "resume_at", "start_date"}
    if strange:
        raise refused(
            f"The simulator does not simulate {min(strange)}.", f"subscription_details[{min(strange)}]"
        )
    wanted = {name: details[name] for name in _DETAILS if name in details}
    if "discounts" in params:
        wanted["discounts"] = params["discounts"]
    if params.get("subscription"):
        draft = _preview_existing(scratch, params, details, wanted)
    elif params.get("customer"):
        draft = _preview_new(scratch, params, wanted)
    else:
        raise missing_parameter("customer")
    draft["id"] = draft["id"] if draft["id"].startswith(PREVIEW_ID) else PREVIEW_ID + draft["id"][3:]
    call.tx.world.keep_preview(draft["id"], draft["_lines"])
    return wire_invoice(scratch, draft)


def _preview_new(tx: Transaction, params: Obj, wanted: Obj) -> Obj:
    given = {**wanted, "customer": params["customer"]}
    if "currency" in params:
        given["currency"] = params["currency"]
    anchor = given.get("billing_cycle_anchor")
    if isinstance(anchor, dict):
        moment = anchor.get("timestamp")
        given.pop("billing_cycle_anchor")
        if moment is not None:
            given["billing_cycle_anchor"] = moment
    sub = subscriptions.planned(Call(tx, given, []))
    sub["_scratch"] = True
    tx.store("subscription", sub)
    change = first_lines(tx, sub, given.get("proration_behavior", "create_prorations"))
    if params.get("preview_mode") == "recurring":
        return _recurring(tx, change.sub, change.items)
    return compose(
        tx,
        change.sub,
        change.lines,
        reason="upcoming",
        pending=collectable_items(tx, change.sub),
        items=change.items,
        preview=True,
    )


def _recurring(tx: Transaction, sub: Obj, items: list[Obj]) -> Obj:
    """What a whole period costs, without the discounts that are used up or have ended by then."""
    lines = recurring_lines(tx, sub)
    moment = min(line.period.start for line in lines)
    return compose(tx, spent(tx, sub), lines, reason="upcoming", items=items, preview=True, at=moment)


def _preview_existing(tx: Transaction, params: Obj, details: Obj, wanted: Obj) -> Obj:
    old = reference(tx, "subscription", params["subscription"], "subscription")
    if params.get("customer") and params["customer"] != old["customer"]:
        raise invalid("The subscription does not belong to the customer.", "customer")
    if old["status"] in subscriptions.ENDED:
        raise refused(
            "You cannot preview the upcoming invoice for a canceled subscription.",
            "subscription",
            "invoice_upcoming_none",
        )
    if details.get("cancel_now"):
        at = int(details.get("proration_date", tx.now))
        lines = [*accrued_lines(tx, old, at, final=True), *unused_time(tx, old, at).lines]
        return compose(tx, old, lines, reason="upcoming", pending=collectable_items(tx, old), preview=True)
    anchor = wanted.get("billing_cycle_anchor")
    if isinstance(anchor, dict) and anchor.get("type") == "timestamp":
        raise refused(
            "The simulator does not preview an anchor at a timestamp.",
            "subscription_details[billing_cycle_anchor]",
        )
    new, change, proration, at = subscriptions.proposed(tx, old, wanted)
    date = at if change is not None else None
    items = [*new["_items"], *old["_items"]]
    if params.get("preview_mode") == "recurring":
        return _recurring(tx, new, items)
    if change is not None and (change.whole or proration == "always_invoice"):
        tx.store("subscription", new)
        pending = collectable_items(tx, new)
        return compose(
            tx,
            new,
            change.lines,
            reason="upcoming",
            pending=pending,
            items=items,
            proration_date=date,
            preview=True,
        )
    own = [] if change is None else change.lines
    return upcoming(tx, new, items, date, own)


def upcoming(
    tx: Transaction, sub: Obj, items: list[Obj], proration_date: int | None, own: Sequence[Line]
) -> Obj:
    """The invoice at the end of the current period; ``own`` are the prorations of a change that is only previewed."""
    pending = collectable_items(tx, sub)
    moment = min(item["current_period_end"] for item in sub["_items"])
    ends = sub["cancel_at"] is not None and sub["cancel_at"] <= moment
    if ends:
        used = accrued_lines(tx, sub, int(sub["cancel_at"]))
        if not (used or pending_items(tx, sub) or own):
            raise refused(
                "No upcoming invoices for customer", code="invoice_upcoming_none", param="subscription"
            )
        return compose(
            tx,
            sub,
            [*own, *used],
            reason="upcoming",
            pending=pending,
            items=items,
            proration_date=proration_date,
            preview=True,
        )
    moved, lines = renewed(tx, sub, moment)
    draft = compose(
        tx,
        moved,
        [*own, *lines],
        reason="upcoming",
        at=moment,
        pending=pending,
        items=items,
        proration_date=proration_date,
        preview=True,
    )
    draft["period_start"] = min(item["current_period_start"] for item in sub["_items"])
    draft["period_end"] = moment
    draft["next_payment_attempt"] = moment + 3600
    return draft
