"""Credit notes: what is taken off a finalised invoice before or after it was paid. Amounts are minor units."""

from fractions import Fraction
from typing import Any

from ..billing.money import round_half_up
from ..call import Call, metadata, reference, text, update
from ..charging import settled
from ..errors import invalid, missing_parameter, refused
from ..invoicing import mark_paid
from ..listing import page, sequence
from ..objects import Obj
from ..wire import wire
from ..world import Transaction
from .balances import adjust
from .intents import cancel_payment_intent
from .refunds import refund

_UNSIMULATED = ("effective_at", "shipping_cost")


def create_credit_note(call: Call) -> Obj:
    """Lower what is due first; what exceeds that is refunded, credited to the balance or settled out of band."""
    tx, params = call.tx, call.params
    for name in _UNSIMULATED:
        if name in params:
            raise refused(f"The simulator does not simulate the parameter {name}.", name)
    invoice = reference(tx, "invoice", params["invoice"], "invoice")
    if invoice["status"] not in ("open", "paid"):
        raise refused(
            f"Credit notes can only be issued for open or paid invoices. This one is {invoice['status']}.",
            "invoice",
        )
    lines = _lines(tx, invoice, params)
    total = sum(line["_total"] for line in lines)
    if total < 1:
        raise invalid("The total of a credit note must be greater than 0.", "amount")
    if total > (most := creditable(tx, invoice)):
        raise refused(
            f"The sum of credit note amounts ({total}) exceeds the amount that can be credited ({most}).",
            "amount",
        )
    before_payment = min(total, invoice["amount_remaining"])
    if before_payment and _processing(tx, invoice):
        raise refused("A payment of this invoice is processing.", "invoice")
    note = _blank(tx, invoice, params, lines, total, before_payment)
    _give_back(tx, params, note, invoice)
    tx.store("credit_note", note)
    tx.emit("credit_note.created", wire(tx, note))
    _apply(tx, invoice, note, 1)
    return wire(tx, note)


def creditable(tx: Transaction, invoice: Obj) -> int:
    """What further credit notes may come to: the total less earlier notes and refunds that no note made."""
    notes = [note for note in tx.find("credit_note", "invoice", invoice["id"]) if note["status"] == "issued"]
    linked = {entry["refund"] for note in notes for entry in note["refunds"]}
    charges = tx.find("charge", "payment_intent", invoice["_payment_intent"])
    others = sum(
        made["amount"]
        for charge in charges
        for made in tx.find("refund", "charge", charge["id"])
        if made["id"] not in linked
    )
    noted = sum(note["total"] for note in notes)
    return int(invoice["total"] - noted - others)


def _processing(tx: Transaction, invoice: Obj) -> bool:
    intent = tx.get("payment_intent", invoice["_payment_intent"])
    return intent is not None and intent["status"] == "processing"


def _lines(tx: Transaction, invoice: Obj, params: Obj) -> list[Obj]:
    if "lines" in params:
        return [_line(tx, invoice, entry, f"lines[{index}]") for index, entry in enumerate(params["lines"])]
    if "amount" not in params:
        raise missing_parameter("amount")
    return [_custom(tx, {"description": None, "quantity": 1, "unit_amount": params["amount"]})]


def _line(tx: Transaction, invoice: Obj, given: Obj, place: str) -> Obj:
    """A share of an invoice's line with the same share of its discounts and taxes, or a line of its own."""
    if given["type"] == "custom_line_item":
        if "unit_amount" not in given:
            raise missing_parameter(f"{place}[unit_amount]")
        return _custom(tx, given)
    row = next((row for row in invoice["_lines"] if row["id"] == given.get("invoice_line_item")), None)
    if row is None:
        raise refused(
            "The line is not one of the invoice.", f"{place}[invoice_line_item]", "resource_missing"
        )
    if "amount" in given:
        amount = int(given["amount"])
    else:
        quantity = int(given.get("quantity", row["quantity"]))
        amount = round_half_up(Fraction(row["amount"] * quantity, row["quantity"] or 1))
    share = Fraction(amount, row["amount"]) if row["amount"] else Fraction(0)
    discounts = [
        {**entry, "amount": round_half_up(entry["amount"] * share)} for entry in row["discount_amounts"]
    ]
    taxes = [
        {
            **tax,
            "amount": round_half_up(tax["amount"] * share),
            "taxable_amount": round_half_up(tax["taxable_amount"] * share),
        }
        for tax in row["taxes"]
    ]
    return _row(
        tx,
        amount,
        description=row["description"],
        discount_amounts=discounts,
        invoice_line_item=row["id"],
        quantity=given.get("quantity"),
        taxes=taxes,
        type="invoice_line_item",
    )


def _custom(tx: Transaction, given: Obj) -> Obj:
    quantity = int(given.get("quantity", 1))
    return _row(
        tx,
        int(given["unit_amount"]) * quantity,
        description=given.get("description"),
        quantity=quantity,
        type="custom_line_item",
        unit_amount=int(given["unit_amount"]),
        unit_amount_decimal=str(given["unit_amount"]),
    )


def _row(tx: Transaction, amount: int, **given: Any) -> Obj:
    row: Obj = {
        "id": tx.new_id("cnli_"),
        "object": "credit_note_line_item",
        "amount": amount,
        "description": None,
        "discount_amount": 0,
        "discount_amounts": [],
        "invoice_line_item": None,
        "livemode": False,
        "metadata": {},
        "pretax_credit_amounts": [],
        "quantity": None,
        "tax_rates": [],
        "taxes": [],
        "unit_amount": None,
        "unit_amount_decimal": None,
        **given,
    }
    row["discount_amount"] = sum(entry["amount"] for entry in row["discount_amounts"])
    row["pretax_credit_amounts"] = [{**entry, "type": "discount"} for entry in row["discount_amounts"]]
    exclusive = sum(tax["amount"] for tax in row["taxes"] if tax["tax_behavior"] == "exclusive")
    row["_total"] = amount - row["discount_amount"] + exclusive
    return row


def _blank(
    tx: Transaction, invoice: Obj, params: Obj, lines: list[Obj], total: int, before_payment: int
) -> Obj:
    identifier = tx.new_id("cn_")
    taxes = [tax for line in lines for tax in line["taxes"]]
    after = total - before_payment
    earlier = len(tx.find("credit_note", "invoice", invoice["id"]))
    return {
        "id": identifier,
        "object": "credit_note",
        "amount": total,
        "amount_shipping": 0,
        "created": tx.now,
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "customer_account": None,
        "customer_balance_transaction": None,
        "discount_amount": sum(line["discount_amount"] for line in lines),
        "discount_amounts": [entry for line in lines for entry in line["discount_amounts"]],
        "effective_at": tx.now,
        "invoice": invoice["id"],
        "livemode": False,
        "memo": text(params.get("memo")),
        "metadata": metadata({}, params.get("metadata")),
        "number": f"{invoice['number']}-CN-{earlier + 1:02d}",
        "out_of_band_amount": params.get("out_of_band_amount"),
        "pdf": f"https://pay.stripe.com/credit_notes/{tx.world.account_id}/test_{identifier}/pdf",
        "post_payment_amount": after,
        "pre_payment_amount": before_payment,
        "pretax_credit_amounts": [entry for line in lines for entry in line["pretax_credit_amounts"]],
        "reason": params.get("reason"),
        "refunds": [],
        "shipping_cost": None,
        "status": "issued",
        "subtotal": sum(line["amount"] for line in lines),
        "subtotal_excluding_tax": sum(line["amount"] for line in lines),
        "total": total,
        "total_excluding_tax": total - sum(tax["amount"] for tax in taxes),
        "total_taxes": taxes,
        "type": "mixed" if after and before_payment else "pre_payment" if before_payment else "post_payment",
        "voided_at": None,
        "_lines": lines,
    }


def _give_back(tx: Transaction, params: Obj, note: Obj, invoice: Obj) -> None:
    """Refund, credit or set down what was paid already; the three must come to the note's post-payment amount."""
    linked = [
        (reference(tx, "refund", entry["refund"], f"refunds[{index}][refund]"), entry.get("amount_refunded"))
        for index, entry in enumerate(params.get("refunds") or [])
    ]
    given = sum(int(amount if amount is not None else made["amount"]) for made, amount in linked)
    given += sum(
        int(params.get(name, 0)) for name in ("refund_amount", "credit_amount", "out_of_band_amount")
    )
    if given != note["post_payment_amount"]:
        raise refused(
            "The sum of credit amount, refund amount, and out of band amount "
            f"({given}) must equal the post payment amount ({note['post_payment_amount']}).",
            "amount",
        )
    if params.get("refund_amount"):
        intent = tx.get("payment_intent", invoice["_payment_intent"]) or {}
        charge = tx.get("charge", intent.get("latest_charge"))
        if charge is None:
            raise refused("The invoice has no charge to refund.", "refund_amount")
        made = refund(tx, charge, int(params["refund_amount"]))
        linked.append((made, made["amount"]))
    note["refunds"] = [
        {
            "amount_refunded": int(amount if amount is not None else made["amount"]),
            "payment_record_refund": None,
            "refund": made["id"],
            "type": "refund",
        }
        for made, amount in linked
    ]
    if params.get("credit_amount"):
        customer = tx.need("customer", invoice["customer"])
        made = adjust(
            tx,
            customer,
            -int(params["credit_amount"]),
            "credit_note",
            currency=invoice["currency"],
            credit_note=note["id"],
            invoice=invoice["id"],
        )
        note["customer_balance_transaction"] = made["id"]


def _apply(tx: Transaction, invoice: Obj, note: Obj, sign: int) -> None:
    """Count the note on its invoice (or take it back, sign -1); an invoice with nothing left to pay is paid."""
    before, after = sign * note["pre_payment_amount"], sign * note["post_payment_amount"]
    new = {
        **invoice,
        "amount_due": invoice["amount_due"] - before,
        "amount_remaining": invoice["amount_remaining"] - before,
        "pre_payment_credit_notes_amount": invoice["pre_payment_credit_notes_amount"] + before,
        "post_payment_credit_notes_amount": invoice["post_payment_credit_notes_amount"] + after,
    }
    update(tx, invoice, new, "invoice.updated")
    if not before:
        return
    left = new["amount_remaining"]
    intent = tx.get("payment_intent", invoice["_payment_intent"])
    if left and intent is not None:
        tx.store("payment_intent", {**intent, "amount": left})
        for payment in tx.find("invoice_payment", "invoice", invoice["id"]):
            tx.store("invoice_payment", {**payment, "amount_requested": left})
    if not left:
        for payment in tx.find("invoice_payment", "invoice", invoice["id"]):
            moments = {"canceled_at": tx.now, "paid_at": None}
            tx.store("invoice_payment", {**payment, "status": "canceled", "status_transitions": moments})
        if intent is not None:
            cancel_payment_intent(tx, intent["id"], "void_invoice")
        settled(tx, mark_paid(tx, new), None)


def retrieve_credit_note(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("credit_note", call.id, "credit_note"))


def list_credit_notes(call: Call) -> Obj:
    params = call.params
    among = None
    if "invoice" in params:
        among = call.tx.world.collection("credit_note").find("invoice", params["invoice"])

    def match(note: Obj) -> bool:
        return "customer" not in params or note["customer"] == params["customer"]

    return page(call.tx, "credit_note", params, "/v1/credit_notes", wire, among=among, match=match)


def list_credit_note_lines(call: Call) -> Obj:
    shown = wire(call.tx, call.tx.need("credit_note", call.id, "credit_note"))
    url = f"/v1/credit_notes/{call.id}/lines"
    return sequence(shown["lines"]["data"], call.params, url, "credit_note_line_item")


def void_credit_note(call: Call) -> Obj:
    """Take a note back; possible only while its invoice is open."""
    tx = call.tx
    old = tx.need("credit_note", call.id, "credit_note")
    invoice = tx.need("invoice", old["invoice"])
    if old["status"] == "void" or invoice["status"] != "open" or old["post_payment_amount"]:
        raise refused("Only an issued credit note of an open invoice can be voided.", "id")
    new = {**old, "status": "void", "voided_at": tx.now}
    tx.store("credit_note", new)
    shown = wire(tx, new)
    tx.emit("credit_note.voided", shown)
    _apply(tx, invoice, old, -1)
    return shown
