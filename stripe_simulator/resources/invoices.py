"""Invoices."""

from ..billing.amounts import quantity_amount
from ..call import Call
from ..listing import page, sequence
from ..wire import wire
from ..world import Obj, Transaction


def blank(tx: Transaction, customer: Obj, currency: str) -> Obj:
    return {
        "id": tx.new_id("in_"),
        "object": "invoice",
        "account_country": "US",
        "account_name": "Simulated account",
        "account_tax_ids": None,
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_remaining": 0,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": False,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": None,
        "billing_reason": "manual",
        "collection_method": "charge_automatically",
        "created": tx.now,
        "currency": currency,
        "custom_fields": None,
        "customer": customer["id"],
        "customer_account": None,
        "customer_address": customer.get("address"),
        "customer_email": customer.get("email"),
        "customer_name": customer.get("name"),
        "customer_phone": customer.get("phone"),
        "customer_shipping": customer.get("shipping"),
        "customer_tax_exempt": customer.get("tax_exempt", "none"),
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "on_behalf_of": None,
        "parent": None,
        "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
        "period_end": tx.now,
        "period_start": tx.now,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": 0,
        "statement_descriptor": None,
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": 0,
        "subtotal_excluding_tax": 0,
        "test_clock": None,
        "total": 0,
        "total_discount_amounts": [],
        "total_excluding_tax": 0,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": None,
        "_lines": [],
        "_subscription": None,
    }


def issue_stage_one(tx: Transaction, sub: Obj, reason: str) -> Obj:
    """A paid invoice for the current period of every licensed item."""
    customer = tx.need("customer", sub["customer"])
    invoice = blank(tx, customer, sub["currency"])
    lines = []
    for item in sub["_items"]:
        price = tx.need("price", item["price"])
        if item["quantity"] is None:
            continue
        whole_price = {**price, "tiers": price["_tiers"], "currency_options": price["_currency_options"]}
        amount = quantity_amount(whole_price, item["quantity"], sub["currency"])
        lines.append(
            {
                "id": tx.new_id("il_"),
                "object": "line_item",
                "amount": amount,
                "currency": sub["currency"],
                "description": f"{item['quantity']} x subscription",
                "discount_amounts": [],
                "discountable": True,
                "discounts": [],
                "invoice": invoice["id"],
                "livemode": False,
                "metadata": {},
                "parent": {
                    "invoice_item_details": None,
                    "subscription_item_details": {
                        "invoice_item": None,
                        "proration": False,
                        "proration_details": {"credited_items": None},
                        "subscription": sub["id"],
                        "subscription_item": item["id"],
                    },
                    "type": "subscription_item_details",
                },
                "period": {"start": item["current_period_start"], "end": item["current_period_end"]},
                "pretax_credit_amounts": [],
                "pricing": {
                    "price_details": {"price": price["id"], "product": price["product"]},
                    "type": "price_details",
                    "unit_amount_decimal": price["unit_amount_decimal"],
                },
                "quantity": item["quantity"],
                "quantity_decimal": str(item["quantity"]),
                "subscription": sub["id"],
                "subtotal": amount,
                "taxes": [],
            }
        )
    total = sum(line["amount"] for line in lines)
    invoice.update(
        amount_due=total,
        amount_paid=total,
        subtotal=total,
        subtotal_excluding_tax=total,
        total=total,
        total_excluding_tax=total,
        attempted=True,
        attempt_count=1,
        billing_reason=reason,
        effective_at=tx.now,
        ending_balance=0,
        number=f"{customer['invoice_prefix']}-0001",
        parent={
            "quote_details": None,
            "subscription_details": {
                "metadata": sub["metadata"],
                "subscription": sub["id"],
                "subscription_proration_date": None,
            },
            "type": "subscription_details",
        },
        status="paid",
        _lines=lines,
        _subscription=sub["id"],
    )
    invoice["status_transitions"] = {**invoice["status_transitions"], "finalized_at": tx.now, "paid_at": tx.now}
    tx.store("invoice", invoice)
    shown = wire(tx, invoice)
    for event in ("invoice.created", "invoice.finalized", "invoice.paid", "invoice.payment_succeeded"):
        tx.emit(event, shown)
    return invoice


def retrieve_invoice(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("invoice", call.id))


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
            and ("collection_method" not in params or invoice["collection_method"] == params["collection_method"])
        )

    return page(call.tx, "invoice", params, "/v1/invoices", wire, among=among, match=match)


def list_lines(call: Call) -> Obj:
    invoice = call.tx.need("invoice", call.id)
    return sequence(invoice["_lines"], call.params, f"/v1/invoices/{call.id}/lines", "line_item")
