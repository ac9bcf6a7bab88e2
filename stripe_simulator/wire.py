"""Stored objects as they go over the wire, and the ``expand`` parameter."""

from collections.abc import Callable
from typing import Any

from .errors import invalid, refused
from .objects import Obj
from .world import Transaction

EMBEDDED_LIST_SIZE = 10
MAX_EXPAND_DEPTH = 4

_INCLUDABLE = {"price": ("tiers", "currency_options")}


def bare(obj: Obj) -> Obj:
    """The object without the simulator's own keys."""
    for key in obj:
        if key[0] == "_":
            return {key: value for key, value in obj.items() if key[0] != "_"}
    return obj


def wire(tx: Transaction, obj: Obj) -> Obj:
    kind = obj["object"]
    if kind == "subscription" and "_items" in obj:
        return subscription(tx, obj)
    if kind == "subscription_item":
        return subscription_item(tx, obj)
    if kind == "invoice" and "_lines" in obj:
        return invoice(tx, obj)
    if kind == "promotion_code":
        return {**bare(obj), "active": active_code(tx, obj)}
    if kind == "credit_note" and "_lines" in obj:
        return _credit_note(obj)
    if kind == "coupon":
        return {**bare(obj), "valid": redeemable(tx, obj)}
    return bare(obj)


def _credit_note(obj: Obj) -> Obj:
    shown = bare(obj)
    lines = [bare(line) for line in obj["_lines"]]
    shown["lines"] = {
        "object": "list",
        "data": lines[:EMBEDDED_LIST_SIZE],
        "has_more": len(lines) > EMBEDDED_LIST_SIZE,
        "url": f"/v1/credit_notes/{obj['id']}/lines",
    }
    return shown


def active_code(tx: Transaction, code: Obj) -> bool:
    """Whether a promotion code is active as Stripe shows it: neither it nor its coupon is off, expired or used up."""
    coupon = tx.get("coupon", code["promotion"]["coupon"])
    spent = code["max_redemptions"] is not None and code["times_redeemed"] >= code["max_redemptions"]
    over = code["expires_at"] is not None and code["expires_at"] <= tx.now
    return code["active"] and not spent and not over and coupon is not None and redeemable(tx, coupon)


def card_source(method: Obj) -> Obj:
    """A payment method `card_…` in the form of a source, the older one of Stripe's two."""
    card, address = method["card"], method["billing_details"]["address"]
    checks = card["checks"]
    return {
        "id": method["id"],
        "object": "card",
        "address_city": address["city"],
        "address_country": address["country"],
        "address_line1": address["line1"],
        "address_line1_check": checks["address_line1_check"],
        "address_line2": address["line2"],
        "address_state": address["state"],
        "address_zip": address["postal_code"],
        "address_zip_check": checks["address_postal_code_check"],
        "brand": {"visa": "Visa", "mastercard": "MasterCard", "amex": "American Express"}.get(
            card["brand"], "Discover"
        ),
        "country": card["country"],
        "customer": method["customer"],
        "cvc_check": checks["cvc_check"],
        "dynamic_last4": None,
        "exp_month": card["exp_month"],
        "exp_year": card["exp_year"],
        "fingerprint": card["fingerprint"],
        "funding": card["funding"],
        "last4": card["last4"],
        "metadata": method["metadata"],
        "name": method["billing_details"]["name"],
        "regulated_status": card["regulated_status"],
        "tokenization_method": None,
    }


def source_cards(tx: Transaction, customer: Obj) -> list[Obj]:
    """The customer's sources, the default first and then the youngest first."""
    found = [
        method
        for method in reversed(tx.find("payment_method", "customer", customer["id"]))
        if method["id"].startswith("card_")
    ]
    found.sort(key=lambda method: method["id"] != customer["default_source"])
    return [card_source(method) for method in found]


def redeemable(tx: Transaction, coupon: Obj) -> bool:
    """Whether a coupon can still be redeemed: neither used up nor past its date."""
    used_up = coupon["max_redemptions"] is not None and coupon["times_redeemed"] >= coupon["max_redemptions"]
    return not used_up and (coupon["redeem_by"] is None or coupon["redeem_by"] > tx.now)


def plan(price: Obj) -> Obj:
    """The legacy plan that mirrors a recurring price."""
    recurring = price["recurring"] or {}
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring.get("interval"),
        "interval_count": recurring.get("interval_count"),
        "livemode": False,
        "metadata": price["metadata"],
        "meter": recurring.get("meter"),
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": price["tiers_mode"],
        "transform_usage": price["transform_quantity"],
        "trial_period_days": recurring.get("trial_period_days"),
        "usage_type": recurring.get("usage_type"),
    }


def tax_rates(tx: Transaction, ids: list[str]) -> list[Obj]:
    return [bare(rate) for identifier in ids if (rate := tx.get("tax_rate", identifier)) is not None]


def subscription_item(tx: Transaction, item: Obj) -> Obj:
    price = tx.need("price", item["price"])
    shown = bare(item)
    if shown is item:
        shown = dict(item)
    shown["price"] = bare(price)
    shown["plan"] = plan(price)
    shown["tax_rates"] = tax_rates(tx, item["tax_rates"])
    if shown["quantity"] is None:
        del shown["quantity"]
    return shown


def subscription(tx: Transaction, obj: Obj, embedded: int = EMBEDDED_LIST_SIZE) -> Obj:
    shown = bare(obj)
    items = obj["_items"]
    shown["default_tax_rates"] = tax_rates(tx, obj["default_tax_rates"])
    shown["items"] = {
        "object": "list",
        "data": [subscription_item(tx, item) for item in items[:embedded]],
        "has_more": len(items) > embedded,
        "url": f"/v1/subscription_items?subscription={obj['id']}",
    }
    update = obj["pending_update"]
    if update is not None and update["subscription_items"] is not None:
        shown["pending_update"] = {
            **update,
            "subscription_items": [subscription_item(tx, item) for item in update["subscription_items"]],
        }
    return shown


def invoice(tx: Transaction, obj: Obj, embedded: int = EMBEDDED_LIST_SIZE) -> Obj:
    shown = bare(obj)
    lines = obj["_lines"]
    shown["default_tax_rates"] = tax_rates(tx, obj["default_tax_rates"])
    shown["lines"] = {
        "object": "list",
        "data": lines[:embedded],
        "has_more": len(lines) > embedded,
        "url": f"/v1/invoices/{obj['id']}/lines",
    }
    return shown


def changed(old: Any, new: Any) -> Obj:
    """What ``previous_attributes`` shows: the old values of the keys that differ, nested objects key by key."""
    differences: Obj = {}
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if before is after or before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict) and before.get("id") == after.get("id"):
            differences[key] = changed(before, after)
        else:
            differences[key] = before
    return differences


_REFERENCES: dict[str, dict[str, str]] = {
    "product": {"default_price": "price"},
    "price": {"product": "product"},
    "plan": {"product": "product"},
    "customer": {"invoice_settings.default_payment_method": "payment_method", "default_source": "source"},
    "payment_method": {"customer": "customer"},
    "subscription": {
        "customer": "customer",
        "default_payment_method": "payment_method",
        "default_source": "source",
        "schedule": "subscription_schedule",
        "latest_invoice": "invoice",
        "pending_setup_intent": "setup_intent",
        "discounts": "discount",
    },
    "subscription_item": {"discounts": "discount"},
    "invoice": {
        "customer": "customer",
        "default_payment_method": "payment_method",
        "discounts": "discount",
        "parent.subscription_details.subscription": "subscription",
        "total_discount_amounts.discount": "discount",
    },
    "line_item": {
        "discounts": "discount",
        "pricing.price_details.price": "price",
        "discount_amounts.discount": "discount",
    },
    "invoiceitem": {"customer": "customer", "invoice": "invoice", "discounts": "discount"},
    "setup_intent": {"customer": "customer", "payment_method": "payment_method"},
    "payment_intent": {
        "customer": "customer",
        "latest_charge": "charge",
        "payment_method": "payment_method",
    },
    "charge": {"customer": "customer", "payment_intent": "payment_intent"},
    "refund": {
        "charge": "charge",
        "customer": "customer",
        "payment_intent": "payment_intent",
        "payment_method": "payment_method",
    },
    "dispute": {"charge": "charge", "payment_intent": "payment_intent"},
    "credit_note": {
        "customer": "customer",
        "customer_balance_transaction": "customer_balance_transaction",
        "invoice": "invoice",
        "refunds.refund": "refund",
    },
    "customer_balance_transaction": {
        "credit_note": "credit_note",
        "customer": "customer",
        "invoice": "invoice",
    },
    "subscription_schedule": {"customer": "customer", "subscription": "subscription"},
    "card": {"customer": "customer"},
    "discount": {"customer": "customer", "source.coupon": "coupon", "promotion_code": "promotion_code"},
    "promotion_code": {"customer": "customer", "promotion.coupon": "coupon"},
    "invoice_payment": {"invoice": "invoice", "payment.payment_intent": "payment_intent"},
}
_SCALAR_REFERENCES = {
    "customer": ("test_clock",),
    "subscription": ("test_clock", "application", "on_behalf_of"),
    "invoice": ("default_source", "test_clock", "application", "on_behalf_of", "latest_revision"),
    "setup_intent": ("latest_attempt", "mandate", "application", "on_behalf_of", "single_use_mandate"),
    "charge": ("application", "application_fee", "balance_transaction", "on_behalf_of", "review"),
    "payment_intent": ("application", "on_behalf_of", "review", "source"),
    "product": ("tax_code",),
}


def _included(tx: Transaction, holder: Obj, name: str) -> Callable[[], Any] | None:
    """Fields that exist only when they are asked for."""
    kind = holder.get("object")
    raw = tx.get(str(kind), holder.get("id")) if kind else None
    if kind in _INCLUDABLE and name in _INCLUDABLE[kind]:
        return lambda: (raw or {}).get("_" + name)
    if kind == "customer" and name == "subscriptions":
        return lambda: _of_customer(tx, holder["id"])
    if kind == "customer" and name == "sources":
        return lambda: _short(source_cards(tx, holder), f"/v1/customers/{holder['id']}/sources")
    if kind == "customer" and name == "tax_ids":
        return lambda: _short([], f"/v1/customers/{holder['id']}/tax_ids")
    if kind == "charge" and name == "refunds":
        refunds = reversed(tx.find("refund", "charge", holder["id"]))
        return lambda: _short([bare(made) for made in refunds], f"/v1/charges/{holder['id']}/refunds")
    if kind == "invoice" and name == "confirmation_secret":
        return lambda: (raw or {}).get("_confirmation_secret")
    if kind == "invoice" and name == "payments":
        return lambda: _payments(tx, holder["id"])
    if kind == "coupon" and name in ("applies_to", "currency_options"):
        return lambda: (raw or {}).get("_" + name)
    return None


def _currency_options(tx: Transaction, price: Obj, rest: list[str]) -> Obj:
    """A price's options; the tiers of one come only by ``currency_options.<currency>.tiers``."""
    whole: Obj = (tx.get("price", price["id"]) or {}).get("_currency_options") or {}
    shown = price.get("currency_options") or {
        currency: {name: value for name, value in option.items() if name != "tiers"}
        for currency, option in whole.items()
    }
    if len(rest) == 2 and rest[1] == "tiers" and rest[0] in whole:
        shown = {**shown, rest[0]: {**shown[rest[0]], "tiers": whole[rest[0]].get("tiers")}}
    return shown


def _short(rows: list[Obj], url: str) -> Obj:
    more = len(rows) > EMBEDDED_LIST_SIZE
    return {"object": "list", "data": rows[:EMBEDDED_LIST_SIZE], "has_more": more, "url": url}


def _of_customer(tx: Transaction, customer: str) -> Obj:
    found = [
        sub for sub in reversed(tx.find("subscription", "customer", customer)) if sub["status"] != "canceled"
    ]
    return {
        "object": "list",
        "data": [subscription(tx, sub) for sub in found[:EMBEDDED_LIST_SIZE]],
        "has_more": len(found) > EMBEDDED_LIST_SIZE,
        "url": f"/v1/customers/{customer}/subscriptions",
    }


def _payments(tx: Transaction, invoice_id: str) -> Obj:
    found = tx.find("invoice_payment", "invoice", invoice_id)
    return {
        "object": "list",
        "data": [bare(payment) for payment in reversed(found)],
        "has_more": False,
        "url": "/v1/invoice_payments",
    }


def expand(tx: Transaction, answer: Obj, paths: list[str]) -> Obj:
    """The answer with the asked references resolved. Raises 400 for a path that cannot be expanded or is too deep."""
    for path in paths:
        parts = path.split(".")
        if len(parts) > MAX_EXPAND_DEPTH + (parts[0] == "data"):
            raise invalid(
                f"You cannot expand more than {MAX_EXPAND_DEPTH} levels of a property. Property: {path}",
                "expand",
            )
        answer = _expand(tx, answer, parts, path, None, "")
    return answer


def _expand(tx: Transaction, node: Any, parts: list[str], path: str, owner: str | None, inside: str) -> Any:
    if isinstance(node, list):
        return [_expand(tx, entry, parts, path, owner, inside) for entry in node]
    if node is None or not parts:
        return node
    if not isinstance(node, dict):
        raise refused(f"This property cannot be expanded ({path}).", "expand")
    kind = node.get("object")
    if kind is not None and kind != "list":
        owner, inside = kind, ""
    name, rest = parts[0], parts[1:]
    if kind == "price" and name == "currency_options":
        return {**node, name: _currency_options(tx, node, rest)}
    if kind == "promotion_code" and parts == ["restrictions", "currency_options"]:
        amounts = (tx.get("promotion_code", node["id"]) or {}).get("_minimum_amounts")
        return {**node, name: {**node[name], "currency_options": amounts}}
    include = _included(tx, node, name) if name not in node else None
    if include is not None:
        value = include()
    elif name in node:
        value = _resolve(tx, node[name], owner, inside + name, path, bool(rest))
    else:
        raise invalid(
            f"This property cannot be expanded ({path}). You may want to try expanding a different property.",
            "expand",
        )
    return {**node, name: _expand(tx, value, rest, path, owner, inside + name + ".")}


def _resolve(tx: Transaction, value: Any, owner: str | None, place: str, path: str, deeper: bool) -> Any:
    kind = _REFERENCES.get(owner or "", {}).get(place)
    if kind is not None:
        if isinstance(value, list):
            return [_reference(tx, kind, entry) for entry in value]
        return _reference(tx, kind, value)
    if place in _SCALAR_REFERENCES.get(owner or "", ()) or isinstance(value, (dict, list)):
        return value
    if deeper and value is None:
        return None
    raise invalid(f"This property cannot be expanded ({path}).", "expand")


def _reference(tx: Transaction, kind: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if kind == "source":
        method = tx.get("payment_method", value)
        return value if method is None else card_source(method)
    found = tx.get(kind, value)
    if found is None and kind == "coupon":
        # A deleted coupon's discounts go on.
        return {"id": value, "object": "coupon", "deleted": True}
    return value if found is None else wire(tx, found)
