"""Customers and the search over them."""

from typing import Any

from ..call import Call, create, metadata, reference, text, update
from ..errors import invalid
from ..listing import page
from ..objects import Obj
from ..search import search
from ..wire import bare, wire
from ..world import Transaction
from .balances import record

_TEXTS = ("business_name", "description", "email", "individual_name", "name", "phone")


def blank(identifier: str, created: int, prefix: str) -> Obj:
    return {
        "id": identifier,
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": created,
        "currency": None,
        "customer_account": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": prefix,
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def _address(given: Any) -> Obj | None:
    if given in (None, ""):
        return None
    names = ("city", "country", "line1", "line2", "postal_code", "state")
    return {name: text(given.get(name)) for name in names}


def _fill(tx: Transaction, old: Obj, params: Obj) -> Obj:
    new = dict(old)
    for name in _TEXTS:
        if name in params:
            new[name] = text(params[name])
    if new["email"] and ("@" not in new["email"] or len(new["email"]) > 512):
        raise invalid(f"Invalid email address: {new['email']}", "email", "email_invalid")
    if "address" in params:
        new["address"] = _address(params["address"])
    if "shipping" in params:
        shipping = params["shipping"]
        new["shipping"] = (
            None if shipping == "" else {**shipping, "address": _address(shipping.get("address"))}
        )
    for name, cleared in (("tax_exempt", "none"), ("preferred_locales", [])):
        if name in params:
            new[name] = params[name] or cleared
    for name in ("balance", "invoice_prefix", "next_invoice_sequence"):
        if name in params:
            new[name] = params[name]
    if params.get("invoice_settings") is not None:
        new["invoice_settings"] = _settings(tx, old, params["invoice_settings"])
    new["metadata"] = metadata(old["metadata"], params.get("metadata"))
    return new


def _settings(tx: Transaction, old: Obj, given: Obj) -> Obj:
    merged = dict(old["invoice_settings"])
    if "default_payment_method" in given:
        merged["default_payment_method"] = _default_method(tx, old, text(given["default_payment_method"]))
    for name in ("custom_fields", "footer", "rendering_options"):
        if name in given:
            merged[name] = given[name] or None
    return merged


def _default_method(tx: Transaction, customer: Obj, identifier: str | None) -> str | None:
    if identifier is None:
        return None
    param = "invoice_settings[default_payment_method]"
    method = reference(tx, "payment_method", identifier, param)
    if method["customer"] != customer["id"]:
        raise invalid(
            "The customer does not have a payment method with the ID "
            f"{identifier}. The payment method must be attached to the customer.",
            param,
            "resource_missing",
        )
    return str(method["id"])


def create_customer(call: Call) -> Obj:
    from . import payment_methods
    from .sources import take_sources

    tx, params = call.tx, dict(call.params)
    identifier = call.ids[0] if call.ids else tx.new_id("cus_")
    method_token = params.pop("payment_method", None)
    settings = params.get("invoice_settings") or {}
    default = settings.get("default_payment_method") if method_token else None
    if default is not None:
        params["invoice_settings"] = {k: v for k, v in settings.items() if k != "default_payment_method"}
    customer = _fill(tx, blank(identifier, tx.now, identifier[-8:].upper()), params)
    opening = customer["balance"]
    shown = create(tx, customer, "customer.created")
    if opening:
        record(tx, customer, opening, opening, "initial")
    if params.get("source"):
        customer = take_sources(tx, customer, params)
        shown = wire(tx, customer)
    if method_token is None:
        return shown
    method = payment_methods.attach_to(tx, method_token, identifier)
    if default in (method_token, method["id"]):
        new_settings = {**customer["invoice_settings"], "default_payment_method": method["id"]}
        return update(tx, customer, {**customer, "invoice_settings": new_settings}, "customer.updated")
    return shown


def retrieve_customer(call: Call) -> Obj:
    found = call.tx.get("customer", call.id)
    if found is None:
        found = call.tx.need("customer", call.id)
    return bare(found)


def update_customer(call: Call) -> Obj:
    from .sources import take_sources

    tx = call.tx
    old = tx.need("customer", call.id)
    new = _fill(tx, old, call.params)
    if new["balance"] != old["balance"]:
        record(tx, new, new["balance"] - old["balance"], new["balance"], "adjustment")
    shown = update(tx, old, new, "customer.updated")
    if "source" in call.params or "default_source" in call.params:
        return wire(tx, take_sources(tx, new, call.params))
    return shown


def delete_customer(call: Call) -> Obj:
    """Leaves a stub and cancels the customer's subscriptions at once."""
    from .subscriptions import end_subscription

    tx = call.tx
    customer = tx.need("customer", call.id)
    for subscription in tx.find("subscription", "customer", customer["id"]):
        if subscription["status"] not in ("canceled", "incomplete_expired"):
            end_subscription(tx, subscription, reason="cancellation_requested")
    stub = {"id": customer["id"], "object": "customer", "deleted": True}
    tx.emit("customer.deleted", bare(customer))
    tx.store("customer", stub)
    for method in tx.find("payment_method", "customer", customer["id"]):
        update(tx, method, {**method, "customer": None}, "payment_method.detached")
    return stub


def list_customers(call: Call) -> Obj:
    params = call.params
    among = None
    if "email" in params:
        among = call.tx.world.collection("customer").find("email", params["email"])
    match = None
    if "test_clock" in params:
        match = lambda customer: customer["test_clock"] == params["test_clock"]  # noqa: E731
    return page(call.tx, "customer", params, "/v1/customers", wire, among=among, match=match)


def search_customers(call: Call) -> Obj:
    return search(call, "customer", "/v1/customers/search")
