"""From invoice lines to a draft, a finalised and a paid invoice. Amounts are minor units."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .billing import (
    Debit,
    Discount,
    ItemState,
    Line,
    Period,
    apply_discounts,
    apply_taxes,
    compose_invoice,
    net_amount,
    settle,
    share_discounts,
)
from .call import update
from .objects import Obj
from .resources.balances import adjust, balance_in, record, with_balance
from .resources.coupons import running
from .resources.intents import cancel_payment_intent, new_payment_intent, try_payment
from .resources.invoice_objects import blank, blank_item, blank_payment
from .wire import bare, wire
from .world import Transaction

FINALIZE_AFTER_SECONDS = 3600
PREVIEW_ID = "upcoming_in_"
_EXEMPTIONS = {"exempt": "customer_exempt", "reverse": "reverse_charge"}
"""`tax_exempt` of a customer who pays no tax, and the reason that Stripe gives for it on each tax."""


def whole_price(tx: Transaction, identifier: str) -> Obj:
    """The price with what the API only shows when it is expanded."""
    price = tx.need("price", identifier)
    return {**bare(price), "tiers": price["_tiers"], "currency_options": price["_currency_options"]}


def item_state(tx: Transaction, sub: Obj, item: Obj, at: int | None = None) -> ItemState:
    """The item with the discounts that apply to it at the second ``at`` (now, unless given)."""
    shared = _shared_discounts(tx, sub, at)
    state = _own_state(tx, sub, item, at)
    return replace(state, discounts=(*state.discounts, *shared.get(item["id"], ())))


def _own_state(tx: Transaction, sub: Obj, item: Obj, at: int | None) -> ItemState:
    price = whole_price(tx, item["price"])
    product = tx.get("product", price["product"]) or {"name": "Deleted product"}
    discounts = running(tx, item["discounts"], at)
    return ItemState(item["id"], price, product["name"], item["quantity"], sub["currency"], discounts)


def _shared_discounts(tx: Transaction, sub: Obj, at: int | None) -> dict[str, tuple[Discount, ...]]:
    """The subscription's discounts for each of its items; an amount off is shared out among the items.

    Flexible billing shares it in proportion to the items' amounts, classic billing evenly (Stripe's documentation,
    "Compare classic and flexible billing mode").
    """
    discounts = running(tx, sub["discounts"], at)
    if all(discount.coupon.get("percent_off") is not None for discount in discounts):
        return {item["id"]: discounts for item in sub["_items"]}
    states = [_own_state(tx, sub, item, at) for item in sub["_items"]]
    return share_discounts(states, discounts, evenly=sub["billing_mode"]["type"] == "classic")


def full_debit(state: ItemState, period: Period, key: str) -> Debit:
    """What a whole period of a licensed item debits, net of its discounts."""
    amount = net_amount(state.full_amount, state.product_id, state.currency, state.discounts)
    return Debit(amount, period, key)


def pack_debits(debits: Iterable[Debit]) -> list[Obj]:
    return [
        {
            "amount": debit.amount,
            "start": debit.period.start,
            "end": debit.period.end,
            "key": debit.key,
            "credited_from": debit.credited_from,
        }
        for debit in debits
    ]


def unpack_debits(item: Obj) -> tuple[Debit, ...]:
    return tuple(
        Debit(
            stored["amount"], Period(stored["start"], stored["end"]), stored["key"], stored["credited_from"]
        )
        for stored in item["_debits"]
    )


def as_billed(sub: Obj, invoice: Obj) -> Obj:
    """The subscription with its items' debits at what the invoice's lines came to after discounts."""
    amounts = {
        row["id"]: row["amount"] - sum(entry["amount"] for entry in row["discount_amounts"])
        for row in invoice["_lines"]
    }
    items = []
    for item in sub["_items"]:
        debits = [
            {**debit, "amount": amounts.get(debit["key"], debit["amount"])} for debit in item["_debits"]
        ]
        items.append(item if debits == item["_debits"] else {**item, "_debits": debits})
    return {**sub, "_items": items}


def without_debit(sub: Obj, key: str) -> Obj:
    """The subscription without a debit that will never be billed, so that no later change credits it."""
    items = [
        {**item, "_debits": [debit for debit in item["_debits"] if debit["key"] != key]}
        for item in sub["_items"]
    ]
    return {**sub, "_items": items}


def pack_line(line: Line) -> Obj:
    return {
        "amount": line.amount,
        "currency": line.currency,
        "description": line.description,
        "period": [line.period.start, line.period.end],
        "quantity": line.quantity,
        "price": line.price,
        "product": line.product,
        "subscription_item": line.subscription_item,
        "proration": line.proration,
        "discountable": line.discountable,
        "unit_amount_decimal": line.unit_amount_decimal,
        "key": line.key,
        "credits": list(line.credits),
    }


def unpack_line(stored: Obj) -> Line:
    return Line(**{**stored, "period": Period(*stored["period"]), "credits": tuple(stored["credits"])})


def keep_pending(tx: Transaction, sub: Obj, lines: Iterable[Line]) -> None:
    """Leaves proration lines for the subscription's next invoice, as invoice items.

    A credit names what it gives back where that stands now: a pending invoice item, or a line of an invoice.
    """
    for line in lines:
        item = blank_item(tx, sub, line.as_stripe(sub["id"]), line.discountable)
        item["_line"] = pack_line(line)
        item["proration_details"] = {"credited_items": _credited_item(tx, sub, line), "discount_amounts": []}
        tx.store("invoiceitem", item)
        tx.emit("invoiceitem.created", wire(tx, item))


def pending_items(tx: Transaction, sub: Obj) -> list[Obj]:
    """What waits for this subscription's next invoice alone."""
    found = tx.find("invoiceitem", "customer", sub["customer"])
    return [item for item in found if item["invoice"] is None and item["_subscription"] == sub["id"]]


def collectable_items(tx: Transaction, sub: Obj) -> list[Obj]:
    """What an invoice of this subscription collects: also items of the customer that name no subscription."""
    found = tx.find("invoiceitem", "customer", sub["customer"])
    return [
        item
        for item in found
        if item["invoice"] is None
        and item["_subscription"] in (None, sub["id"])
        and item["currency"] == sub["currency"]
    ]


def _credited_item(tx: Transaction, sub: Obj, line: Line) -> Obj | None:
    """What a pending credit names, in the form of an invoice item."""
    for item in pending_items(tx, sub):
        if item["_line"]["key"] in line.credits:
            return {"invoice_item": item["id"], "invoice_line_item_details": None, "type": "invoice_item"}
    details = _invoiced_lines(tx, sub, line.credits)
    if details is None:
        return None
    return {"invoice_item": None, "invoice_line_item_details": details, "type": "invoice_line_items"}


def _invoiced_lines(tx: Transaction, sub: Obj, keys: Sequence[str]) -> Obj | None:
    """The stored invoice on which lines with these ids stand, and those lines."""
    if not keys:
        return None
    for invoice in reversed(tx.find("invoice", "_subscription", sub["id"])):
        found = [row["id"] for row in invoice["_lines"] if row["id"] in keys]
        if found:
            return {"invoice": invoice["id"], "invoice_line_items": found}
    return None


def drop_pending(tx: Transaction, sub: Obj) -> None:
    """Remove pending prorations; items made by hand stay, and the customer's next invoice collects them."""
    for item in pending_items(tx, sub):
        if not item["proration"]:
            continue
        tx.emit("invoiceitem.deleted", wire(tx, item))
        tx.remove("invoiceitem", item["id"])


def compose(
    tx: Transaction,
    sub: Obj,
    lines: Sequence[Line],
    *,
    reason: str,
    pending: Sequence[Obj] = (),
    items: Sequence[Obj] = (),
    proration_date: int | None = None,
    preview: bool = False,
    at: int | None = None,
) -> Obj:
    """The draft of an invoice, stored nowhere: previews and real invoices both come from here.

    ``items`` are the subscription items that lines may name, removed ones included; their discounts and tax rates hold.
    Discounts that have ended by the second ``at`` (now, unless given) are left out.
    """
    customer = tx.need("customer", sub["customer"], "customer", 400)
    known = {item["id"]: item for item in (*items, *sub["_items"])}
    every = [*(unpack_line(item["_line"]) for item in pending), *lines]
    discounted = apply_discounts(
        every,
        subscription_discounts=running(tx, sub["discounts"], at),
        item_discounts={
            key: running(tx, item["discounts"], at) for key, item in known.items() if item["discounts"]
        },
        evenly=sub["billing_mode"]["type"] == "classic",
    )
    taxed = apply_taxes(
        discounted,
        default_rates=_rates(tx, sub["default_tax_rates"]),
        item_rates={key: _rates(tx, item["tax_rates"]) for key, item in known.items() if item["tax_rates"]},
        exempt=_EXEMPTIONS.get(customer["tax_exempt"]),
    )
    totals = compose_invoice(
        taxed, currency=sub["currency"], starting_balance=balance_in(customer, sub["currency"])
    )
    invoice = blank(tx, customer, sub["currency"])
    if preview:
        invoice["id"] = PREVIEW_ID + invoice["id"][3:]
    sources: list[Obj | None] = [*pending, *([None] * len(lines))]
    ids = [_line_id(tx, line, preview) for line in totals.lines]
    own = {line.key: identifier for line, identifier in zip(totals.lines, ids, strict=True)}
    rows = [
        {"id": identifier, **_row(tx, sub, line, invoice["id"], source, own)}
        for line, identifier, source in zip(totals.lines, ids, sources, strict=True)
    ]
    invoice.update(
        totals.as_stripe(),
        amount_remaining=totals.amount_due,
        automatically_finalizes_at=None,
        billing_reason=reason,
        collection_method=sub["collection_method"],
        default_payment_method=None,
        default_tax_rates=sub["default_tax_rates"],
        description=sub["invoice_settings"]["description"],
        discounts=[discount.id for discount in running(tx, sub["discounts"], at)],
        payment_settings={**invoice["payment_settings"], "payment_method_types": None},
        parent={
            "quote_details": None,
            "subscription_details": {
                "metadata": sub["metadata"],
                "subscription": None if preview and sub.get("_scratch") else sub["id"],
                "subscription_proration_date": proration_date,
            },
            "type": "subscription_details",
        },
        _ending_balance=totals.ending_balance,
        _lines=rows,
        _subscription=sub["id"],
        _items=[item["id"] for item in pending],
    )
    # Until it is finalised nobody's balance has moved.
    invoice["ending_balance"] = totals.ending_balance if preview else None
    if sub["collection_method"] == "send_invoice":
        invoice["due_date"] = tx.now + int(sub["days_until_due"] or 0) * 86_400
    if lines or pending:
        starts = [row["period"]["start"] for row in rows]
        ends = [row["period"]["end"] for row in rows]
        invoice["period_start"], invoice["period_end"] = min(tx.now, *starts), min(tx.now, *ends)
        if reason == "subscription_cycle":
            invoice["period_start"] = min(item["_previous_start"] or tx.now for item in sub["_items"])
            invoice["period_end"] = tx.now
        elif reason in ("subscription_create", "subscription_update"):
            invoice["period_start"] = invoice["period_end"] = tx.now
    return invoice


def _rates(tx: Transaction, ids: Iterable[str]) -> list[Obj]:
    return [rate for identifier in ids if (rate := tx.get("tax_rate", identifier)) is not None]


def _line_id(tx: Transaction, line: Line, preview: bool) -> str:
    identifier = line.key or tx.new_id("il_")
    return "il_tmp_" + identifier[3:] if preview else identifier


def _row(
    tx: Transaction, sub: Obj, line: Line, invoice: str, source: Obj | None, own: Mapping[str | None, str]
) -> Obj:
    """The line in Stripe's form. A credit names lines of this invoice by ``own``, others where they are stored."""
    here = [own[key] for key in line.credits if key in own]
    credited = {"invoice": invoice, "invoice_line_items": here} if here else None
    subscription = sub["id"] if source is None else source["_subscription"]
    credited = credited or _invoiced_lines(tx, sub, line.credits)
    row = line.as_stripe(subscription, None if source is None else source["id"], credited)
    data = {} if line.proration else sub["metadata"] if source is None else source["metadata"]
    return {
        **row,
        "discounts": [entry["discount"] for entry in row["discount_amounts"]],
        "invoice": invoice,
        "livemode": False,
        "metadata": data,
        "subscription": subscription,
    }


def store_draft(tx: Transaction, invoice: Obj) -> Obj:
    """Takes the draft's invoice items off the pending list and tells of the draft."""
    for identifier in invoice["_items"]:
        item = tx.need("invoiceitem", identifier)
        tx.store("invoiceitem", {**item, "invoice": invoice["id"]})
    tx.store("invoice", invoice)
    tx.emit("invoice.created", wire(tx, invoice))
    return invoice


def _settled_with(invoice: Obj, balance: int) -> Obj:
    """The draft settled with the balance of now, which another invoice or an edit may have changed since."""
    due, ending, _ = settle(invoice["total"], balance, invoice["currency"])
    return {
        **invoice,
        "amount_due": due,
        "amount_remaining": due,
        "starting_balance": balance,
        "_ending_balance": ending,
    }


def schedule_finalization(tx: Transaction, invoice: Obj) -> None:
    """Let a draft be finalised in an hour; until then it can be changed."""
    moment = tx.now + FINALIZE_AFTER_SECONDS
    invoice.update(auto_advance=True, automatically_finalizes_at=moment, _finalize_at=moment)


def finalize(tx: Transaction, invoice: Obj, pause: str | None = None) -> Obj:
    """Open the draft: number, balance, and the payment intent of what is due. Nothing due means paid.

    An invoice of a subscription whose collection is paused is not collected: ``pause`` (``void`` or
    ``mark_uncollectible``) says what becomes of it instead. A credit is still given.
    """
    customer = tx.need("customer", invoice["customer"], "customer", 400)
    currency = invoice["currency"]
    invoice = _settled_with(invoice, balance_in(customer, currency))
    ending = invoice["_ending_balance"]
    applied = ending - invoice["starting_balance"]
    if applied:
        kind = "applied_to_invoice"
        record(tx, customer, applied, ending, kind, currency=currency, invoice=invoice["id"])
    sequence = customer["next_invoice_sequence"]
    update(
        tx,
        customer,
        {**with_balance(customer, currency, ending), "next_invoice_sequence": sequence + 1},
        "customer.updated",
    )
    opened = {
        **invoice,
        "auto_advance": True,
        "automatically_finalizes_at": None,
        "effective_at": tx.now,
        "ending_balance": invoice["_ending_balance"],
        "hosted_invoice_url": f"https://invoice.stripe.com/i/{tx.world.account_id}/test_{invoice['id']}",
        "invoice_pdf": f"https://pay.stripe.com/invoice/{tx.world.account_id}/test_{invoice['id']}/pdf",
        "number": f"{customer['invoice_prefix']}-{sequence:04d}",
        "status": "open",
        "status_transitions": {**invoice["status_transitions"], "finalized_at": tx.now},
    }
    if invoice["amount_due"] > 0:
        intent = new_payment_intent(tx, opened)
        opened["_payment_intent"] = intent["id"]
        opened["_confirmation_secret"] = {"client_secret": intent["client_secret"], "type": "payment_intent"}
        tx.store("invoice_payment", blank_payment(tx, opened, intent["id"]))
    tx.store("invoice", opened)
    tx.emit("invoice.finalized", wire(tx, opened))
    if pause == "void" and invoice["total"] > 0:
        return void(tx, opened)
    if invoice["amount_due"] == 0:
        return mark_paid(tx, opened, attempted=True)
    return opened if pause is None else write_off(tx, opened)


def mark_paid(tx: Transaction, invoice: Obj, *, attempted: bool = True) -> Obj:
    paid = {
        **invoice,
        "amount_paid": invoice["amount_due"],
        "amount_remaining": 0,
        "attempted": attempted,
        "auto_advance": False,
        "next_payment_attempt": None,
        "status": "paid",
        "status_transitions": {**invoice["status_transitions"], "paid_at": tx.now},
        "_confirmation_secret": None,
    }
    tx.store("invoice", paid)
    for payment in tx.find("invoice_payment", "invoice", paid["id"]):
        if payment["status"] != "open":
            continue
        done = {
            **payment,
            "amount_paid": paid["amount_due"],
            "status": "paid",
            "status_transitions": {"canceled_at": None, "paid_at": tx.now},
        }
        tx.store("invoice_payment", done)
        tx.emit("invoice_payment.paid", wire(tx, done))
    shown = wire(tx, paid)
    tx.emit("invoice.paid", shown)
    tx.emit("invoice.payment_succeeded", shown)
    customer = tx.need("customer", paid["customer"], "customer", 400)
    if customer["delinquent"]:
        update(tx, customer, {**customer, "delinquent": False}, "customer.updated")
    return paid


def attempt(tx: Transaction, invoice: Obj, method: Obj | None, *, automatic: bool) -> tuple[Obj, str | None]:
    """Tries to collect an open invoice; gives it afterwards, and why it was not paid.

    The reason is None when it was paid, and ``processing`` while a bank debit is on its way.
    """
    # After the first attempt of any kind only automatic ones count (SDK, Invoice.attempt_count).
    count = invoice["attempt_count"]
    tried = {**invoice, "attempted": True, "attempt_count": count + 1 if automatic or count == 0 else count}
    decline = "no_payment_method" if method is None else try_payment(tx, invoice["_payment_intent"], method)
    if decline is None:
        return mark_paid(tx, tried), None
    if decline == "processing":
        tried["next_payment_attempt"] = None
        update(tx, invoice, tried, "invoice.updated")
        return tried, decline
    return unpaid(tx, tried, decline, automatic=automatic), decline


def unpaid(tx: Transaction, tried: Obj, decline: str, *, automatic: bool) -> Obj:
    """Records a failed attempt on its invoice, and when the next one follows."""
    if automatic:
        tried["next_payment_attempt"] = next_attempt(tx, tried)
    tx.store("invoice", tried)
    shown = wire(tx, tried)
    tx.emit("invoice.payment_failed", shown)
    if decline == "authentication_required":
        tx.emit("invoice.payment_action_required", shown)
    customer = tx.need("customer", tried["customer"], "customer", 400)
    if automatic and not customer["delinquent"]:
        update(tx, customer, {**customer, "delinquent": True}, "customer.updated")
    return tried


DEFAULT_RETRY_DAYS = [3, 5, 7]


def next_attempt(tx: Transaction, invoice: Obj) -> int | None:
    """The moment of the next automatic try, from the account's dunning settings; None after the last."""
    days = (tx.world.settings.get("dunning") or {}).get("retry_days", DEFAULT_RETRY_DAYS)
    tries = invoice["attempt_count"] - 1
    return tx.now + int(days[tries] * 86_400) if tries < len(days) else None


def write_off(tx: Transaction, invoice: Obj) -> Obj:
    """Mark an open invoice uncollectible."""
    written_off = {
        **invoice,
        "auto_advance": False,
        "next_payment_attempt": None,
        "status": "uncollectible",
        "status_transitions": {**invoice["status_transitions"], "marked_uncollectible_at": tx.now},
    }
    tx.store("invoice", written_off)
    tx.emit("invoice.marked_uncollectible", wire(tx, written_off))
    return written_off


def void(tx: Transaction, invoice: Obj) -> Obj:
    """Cancel what is due and its payment intent; the balance that the invoice took is given back."""
    voided = {
        **invoice,
        "auto_advance": False,
        "next_payment_attempt": None,
        "status": "void",
        "status_transitions": {**invoice["status_transitions"], "voided_at": tx.now},
        "_confirmation_secret": None,
    }
    tx.store("invoice", voided)
    if invoice.get("_payment_intent"):
        cancel_payment_intent(tx, invoice["_payment_intent"], "void_invoice")
    applied = (invoice["ending_balance"] or 0) - invoice["starting_balance"]
    if invoice["ending_balance"] is not None and applied:
        customer = tx.need("customer", invoice["customer"], "customer", 400)
        kind = "unapplied_from_invoice"
        adjust(tx, customer, -applied, kind, currency=invoice["currency"], invoice=invoice["id"])
    tx.emit("invoice.voided", wire(tx, voided))
    return voided


def default_method(tx: Transaction, sub: Obj) -> Obj | None:
    """What pays the subscription's invoices: its own method, then its source, then the customer's in that order."""
    customer = tx.get("customer", sub["customer"]) or {}
    settings: Any = customer.get("invoice_settings") or {}
    for identifier in (
        sub["default_payment_method"],
        sub["default_source"],
        settings.get("default_payment_method"),
        customer.get("default_source"),
    ):
        method = tx.get("payment_method", identifier)
        if method is not None and method["customer"] == sub["customer"]:
            return method
    return None
