"""Invoice items: prorations that wait, and amounts of either sign that are added by hand. Amounts are minor units."""

from ..billing import Line, Period
from ..call import Call, create, metadata, reference, text, update
from ..errors import invalid, missing_parameter, refused
from ..invoicing import pack_line, without_debit
from ..listing import page
from ..objects import Obj
from ..request_parameters import whole
from ..wire import wire
from ..world import Transaction
from .currencies import check_currency

_UNSIMULATED = (
    "customer_account",
    "discounts",
    "invoice",
    "price_data",
    "quantity_decimal",
    "tax_behavior",
    "tax_code",
    "tax_rates",
    "unit_amount_decimal",
)


def create_invoice_item(call: Call) -> Obj:
    """Add an amount to the next invoice of ``subscription``, or of the customer if none is named."""
    tx, params = call.tx, call.params
    for name in _UNSIMULATED:
        if params.get(name):
            raise refused(f"The simulator does not simulate the parameter {name}.", name)
    if not params.get("customer"):
        raise missing_parameter("customer")
    customer = reference(tx, "customer", params["customer"], "customer")
    sub = _subscription(tx, params, customer)
    amount, price, currency, quantity = _amount(tx, params)
    if sub is not None and sub["currency"] != currency:
        raise refused(f"The currency of the subscription is {sub['currency']}.", "currency")
    check_currency(tx, customer, currency, "currency")
    given = params.get("period") or {"start": tx.now, "end": tx.now}
    period = Period(whole(given["start"], "period[start]"), whole(given["end"], "period[end]"))
    line = Line(
        amount=amount,
        currency=currency,
        description=text(params.get("description")) or (_name(tx, price) if price else "Invoice item"),
        period=period,
        quantity=quantity,
        price=price["id"] if price else None,
        product=price["product"] if price else None,
        subscription_item=None,
        discountable=bool(params.get("discountable", amount > 0)),
        unit_amount_decimal=str(amount // quantity) if quantity else None,
    )
    shown = line.as_stripe(None)
    item = {
        "id": tx.new_id("ii_"),
        "object": "invoiceitem",
        "amount": amount,
        "currency": currency,
        "customer": customer["id"],
        "customer_account": None,
        "date": tx.now,
        "description": text(params.get("description")),
        "discountable": line.discountable,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": metadata({}, params.get("metadata")),
        "net_amount": amount,
        "parent": None
        if sub is None
        else {"subscription_details": {"subscription": sub["id"]}, "type": "subscription_details"},
        "period": shown["period"],
        "pricing": shown["pricing"],
        "proration": False,
        "proration_details": None,
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "tax_rates": [],
        "test_clock": None,
        "_line": pack_line(line),
        "_subscription": None if sub is None else sub["id"],
    }
    return create(tx, item, "invoiceitem.created")


def _subscription(tx: Transaction, params: Obj, customer: Obj) -> Obj | None:
    if not params.get("subscription"):
        return None
    sub = reference(tx, "subscription", params["subscription"], "subscription")
    if sub["customer"] != customer["id"]:
        raise refused("The subscription does not belong to the customer.", "subscription")
    if sub["status"] in ("canceled", "incomplete_expired"):
        raise refused("You cannot add an invoice item to a canceled subscription.", "subscription")
    return sub


def _amount(tx: Transaction, params: Obj) -> tuple[int, Obj | None, str, int]:
    """Amount, price (None for a bare amount), currency and quantity of a new item."""
    identifier = (params.get("pricing") or {}).get("price")
    if not identifier:
        if "amount" not in params:
            raise missing_parameter("amount")
        if not params.get("currency"):
            raise missing_parameter("currency")
        if "quantity" in params:
            raise invalid("You may only specify one of these parameters: amount, quantity.", "amount")
        return int(params["amount"]), None, params["currency"].lower(), 1
    price = reference(tx, "price", identifier, "pricing[price]")
    if price["type"] != "one_time":
        raise refused(
            "The price specified is set to `type=recurring` but this field only accepts prices with `type=one_time`.",
            "pricing[price]",
        )
    currency = (params.get("currency") or price["currency"]).lower()
    option = price["_currency_options"].get(currency)
    if option is None or option.get("unit_amount") is None:
        raise refused(f"The price has no amount in {currency}.", "currency")
    quantity = int(params.get("quantity", 1))
    return int(option["unit_amount"]) * quantity, price, currency, quantity


def _name(tx: Transaction, price: Obj) -> str:
    return str((tx.get("product", price["product"]) or {"name": "Deleted product"})["name"])


def update_invoice_item(call: Call) -> Obj:
    """``amount``, ``description`` and ``metadata`` of an item that still waits."""
    tx, params = call.tx, call.params
    old = tx.need("invoiceitem", call.id, "invoiceitem")
    strange = sorted(set(params) - {"amount", "description", "metadata"})
    if strange:
        raise refused(f"The simulator does not simulate the parameter {strange[0]}.", strange[0])
    if old["invoice"] is not None:
        raise refused("You can't change an invoice item that is attached to an invoice.", "invoiceitem")
    new = {**old, "metadata": metadata(old["metadata"], params.get("metadata"))}
    line = dict(old["_line"])
    if "description" in params:
        new["description"] = text(params["description"])
        line["description"] = new["description"] or line["description"]
    if "amount" in params:
        new.update(amount=params["amount"], net_amount=params["amount"])
        line["amount"] = params["amount"]
    return update(tx, old, {**new, "_line": line}, "invoiceitem.updated")


def list_invoice_items(call: Call) -> Obj:
    params = call.params
    among = None
    if "customer" in params:
        among = call.tx.world.collection("invoiceitem").find("customer", params["customer"])

    def match(item: Obj) -> bool:
        return ("pending" not in params or (item["invoice"] is None) == params["pending"]) and (
            "invoice" not in params or item["invoice"] == params["invoice"]
        )

    return page(call.tx, "invoiceitem", params, "/v1/invoiceitems", wire, among=among, match=match)


def retrieve_invoice_item(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("invoiceitem", call.id, "invoiceitem"))


def delete_invoice_item(call: Call) -> Obj:
    tx = call.tx
    item = tx.need("invoiceitem", call.id, "invoiceitem")
    if item["invoice"] is not None:
        raise refused("You can't delete an invoice item that is attached to an invoice.", "invoiceitem")
    tx.emit("invoiceitem.deleted", wire(tx, item))
    tx.remove("invoiceitem", item["id"])
    sub = tx.get("subscription", item["_subscription"])
    if sub is not None and item["proration"]:
        tx.store("subscription", without_debit(sub, item["_line"]["key"]))
    return {"id": item["id"], "object": "invoiceitem", "deleted": True}
