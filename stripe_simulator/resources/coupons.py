"""Coupons, promotion codes, tax rates, and the discounts that redeeming makes."""

from typing import Any

from ..billing import Discount, discount_end
from ..call import Call, create, metadata, reference, text, update
from ..errors import invalid, missing_parameter, refused
from ..identifiers import token
from ..listing import page
from ..objects import Obj
from ..wire import redeemable, wire
from ..world import Transaction


def create_coupon(call: Call) -> Obj:
    tx, params = call.tx, call.params
    percent, amount = params.get("percent_off"), params.get("amount_off")
    if (percent is None) == (amount is None):
        raise invalid("You must pass either percent_off or amount_off.", "percent_off")
    if percent is not None and not 0 < percent <= 100:
        raise invalid("Invalid decimal: must be greater than 0 and at most 100", "percent_off")
    if amount is not None and not params.get("currency"):
        raise missing_parameter("currency")
    duration = params.get("duration", "once")
    if (duration == "repeating") != ("duration_in_months" in params):
        raise invalid(
            "duration_in_months goes with a repeating duration, and only with it.", "duration_in_months"
        )
    identifier = params.get("id") or token(tx.world.seed, _next(tx), 8)
    if tx.get("coupon", identifier) is not None:
        raise refused("Coupon already exists.", "id", "resource_already_exists")
    coupon = {
        "id": identifier,
        "object": "coupon",
        "amount_off": amount,
        "created": tx.now,
        "currency": params["currency"].lower() if amount is not None else None,
        "duration": duration,
        "duration_in_months": params.get("duration_in_months"),
        "livemode": False,
        "max_redemptions": params.get("max_redemptions"),
        "metadata": metadata({}, params.get("metadata")),
        "name": text(params.get("name")),
        "percent_off": percent,
        "redeem_by": params.get("redeem_by"),
        "times_redeemed": 0,
        "valid": True,
        "_applies_to": params.get("applies_to"),
        "_currency_options": params.get("currency_options") or {},
    }
    return create(tx, coupon, "coupon.created")


def _next(tx: Transaction) -> int:
    tx.world.counter += 1
    return tx.world.counter


def retrieve_coupon(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("coupon", call.id, "coupon"))


def update_coupon(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("coupon", call.id, "coupon")
    new = {**old, "metadata": metadata(old["metadata"], params.get("metadata"))}
    if "name" in params:
        new["name"] = text(params["name"])
    return update(tx, old, new, "coupon.updated")


def delete_coupon(call: Call) -> Obj:
    """Only stops new redemptions: discounts that were made from it keep working."""
    tx = call.tx
    coupon = tx.need("coupon", call.id, "coupon")
    tx.emit("coupon.deleted", wire(tx, coupon))
    tx.remove("coupon", coupon["id"])
    return {"id": coupon["id"], "object": "coupon", "deleted": True}


def list_coupons(call: Call) -> Obj:
    return page(call.tx, "coupon", call.params, "/v1/coupons", wire)


def create_promotion_code(call: Call) -> Obj:
    tx, params = call.tx, call.params
    coupon = reference(tx, "coupon", params["promotion"].get("coupon", ""), "promotion[coupon]")
    code = params.get("code") or token(tx.world.seed, _next(tx), 8).upper()
    if any(found["active"] for found in tx.find("promotion_code", "code", code)):
        raise refused("An active promotion code with `code: " + code + "` already exists.", "code")
    restrictions = params.get("restrictions") or {}
    promotion_code = {
        "id": tx.new_id("promo_"),
        "object": "promotion_code",
        "active": params.get("active", True),
        "code": code,
        "created": tx.now,
        "customer": params.get("customer"),
        "customer_account": None,
        "expires_at": params.get("expires_at"),
        "livemode": False,
        "max_redemptions": params.get("max_redemptions"),
        "metadata": metadata({}, params.get("metadata")),
        "promotion": {"coupon": coupon["id"], "type": "coupon"},
        "restrictions": {
            "first_time_transaction": restrictions.get("first_time_transaction", False),
            "minimum_amount": restrictions.get("minimum_amount"),
            "minimum_amount_currency": restrictions.get("minimum_amount_currency"),
        },
        "times_redeemed": 0,
    }
    return create(tx, promotion_code, "promotion_code.created")


def retrieve_promotion_code(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("promotion_code", call.id, "promotion_code"))


def update_promotion_code(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("promotion_code", call.id, "promotion_code")
    new = {**old, "metadata": metadata(old["metadata"], params.get("metadata"))}
    if "active" in params:
        new["active"] = params["active"]
    return update(tx, old, new, "promotion_code.updated")


def list_promotion_codes(call: Call) -> Obj:
    params = call.params

    def match(code: Obj) -> bool:
        return (
            ("code" not in params or code["code"].lower() == params["code"].lower())
            and ("active" not in params or code["active"] == params["active"])
            and ("coupon" not in params or code["promotion"]["coupon"] == params["coupon"])
            and ("customer" not in params or code["customer"] == params["customer"])
        )

    return page(call.tx, "promotion_code", params, "/v1/promotion_codes", wire, match=match)


def create_tax_rate(call: Call) -> Obj:
    tx, params = call.tx, call.params
    if not 0 <= params["percentage"] <= 100:
        raise invalid("Invalid decimal: must be between 0 and 100", "percentage")
    rate = {
        "id": tx.new_id("txr_"),
        "object": "tax_rate",
        "active": params.get("active", True),
        "country": params.get("country"),
        "created": tx.now,
        "description": params.get("description"),
        "display_name": params["display_name"],
        "effective_percentage": None,
        "flat_amount": None,
        "inclusive": params["inclusive"],
        "jurisdiction": params.get("jurisdiction"),
        "jurisdiction_level": None,
        "livemode": False,
        "metadata": metadata({}, params.get("metadata")),
        "percentage": params["percentage"],
        "rate_type": "percentage",
        "state": params.get("state"),
        "tax_type": params.get("tax_type"),
    }
    return create(tx, rate, "tax_rate.created")


def retrieve_tax_rate(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("tax_rate", call.id, "tax_rate"))


def update_tax_rate(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("tax_rate", call.id, "tax_rate")
    new = {**old, "metadata": metadata(old["metadata"], params.get("metadata"))}
    for name in ("active", "country", "description", "display_name", "jurisdiction", "state", "tax_type"):
        if name in params:
            new[name] = params[name] if params[name] != "" else None
    return update(tx, old, new, "tax_rate.updated")


def list_tax_rates(call: Call) -> Obj:
    params = call.params

    def match(rate: Obj) -> bool:
        return ("active" not in params or rate["active"] == params["active"]) and (
            "inclusive" not in params or rate["inclusive"] == params["inclusive"]
        )

    return page(call.tx, "tax_rate", params, "/v1/tax_rates", wire, match=match)


def checked_rates(tx: Transaction, given: Any, param: str) -> list[str]:
    """Ids of existing tax rates; ``""`` clears."""
    ids = []
    for index, identifier in enumerate(given or []):
        rate = reference(tx, "tax_rate", identifier, f"{param}[{index}]")
        if not rate["active"]:
            raise refused(f"The tax rate {identifier} is archived.", f"{param}[{index}]")
        ids.append(rate["id"])
    return ids


def redeem(
    tx: Transaction,
    given: Any,
    kept: list[str],
    param: str,
    *,
    customer: str,
    subscription: str,
    item: str | None,
) -> list[str]:
    """The ids of an object's discounts after ``discounts`` was given: kept ones, and new ones made from coupons."""
    ids: list[str] = []
    for index, entry in enumerate(given or []):
        place = f"{param}[{index}]"
        if entry.get("discount"):
            if entry["discount"] not in kept:
                raise refused(
                    f"No such discount: '{entry['discount']}'", f"{place}[discount]", "resource_missing"
                )
            ids.append(str(entry["discount"]))
            continue
        coupon, code = _redeemed(tx, entry, place, customer)
        discount = {
            "id": tx.new_id("di_"),
            "object": "discount",
            "checkout_session": None,
            "customer": customer,
            "customer_account": None,
            "end": discount_end(coupon, tx.now),
            "invoice": None,
            "invoice_item": None,
            "promotion_code": code,
            "source": {"coupon": coupon["id"], "type": "coupon"},
            "start": tx.now,
            "subscription": None if item else subscription,
            "subscription_item": item,
            "_coupon": {
                **{name: value for name, value in coupon.items() if name[0] != "_"},
                "applies_to": coupon["_applies_to"],
                "currency_options": coupon["_currency_options"],
            },
        }
        create(tx, discount, "customer.discount.created")
        ids.append(str(discount["id"]))
    return ids


def _redeemed(tx: Transaction, entry: Obj, place: str, customer: str) -> tuple[Obj, str | None]:
    code_id: str | None = None
    if entry.get("promotion_code"):
        code = reference(tx, "promotion_code", entry["promotion_code"], f"{place}[promotion_code]")
        code_id = code["id"]
        dead = not code["active"] or (code["expires_at"] is not None and code["expires_at"] <= tx.now)
        spent = code["max_redemptions"] is not None and code["times_redeemed"] >= code["max_redemptions"]
        if dead or spent or code["customer"] not in (None, customer):
            raise refused(
                "This promotion code cannot be redeemed.",
                f"{place}[promotion_code]",
                "promotion_code_expired",
            )
        tx.store("promotion_code", {**code, "times_redeemed": code["times_redeemed"] + 1})
        coupon_id = code["promotion"]["coupon"]
    elif entry.get("coupon"):
        coupon_id = entry["coupon"]
    else:
        raise missing_parameter(f"{place}[coupon]")
    coupon = reference(tx, "coupon", coupon_id, f"{place}[coupon]")
    if not redeemable(tx, coupon):
        raise refused(f"Coupon expired: {coupon['id']}", f"{place}[coupon]", "coupon_expired")
    redeemed = {**coupon, "times_redeemed": coupon["times_redeemed"] + 1}
    tx.store("coupon", redeemed)
    return redeemed, code_id


def running(tx: Transaction, ids: list[str], at: int | None = None) -> tuple[Discount, ...]:
    """The discounts that still apply at the second ``at`` (now, unless given), in their order."""
    found = []
    moment = tx.now if at is None else at
    for identifier in ids:
        discount = tx.get("discount", identifier)
        if discount is not None and (discount["end"] is None or discount["end"] > moment):
            found.append(Discount(discount["id"], discount["_coupon"]))
    return tuple(found)


def without_spent(tx: Transaction, ids: list[str], *, billed: bool) -> list[str]:
    """Ids without those that have ended, and after an invoice without those that count once."""
    kept = []
    for identifier in ids:
        discount = tx.get("discount", identifier)
        if discount is None:
            continue
        over = discount["end"] is not None and discount["end"] <= tx.now
        if over or (billed and discount["_coupon"]["duration"] == "once"):
            tx.emit("customer.discount.deleted", wire(tx, discount))
            continue
        kept.append(identifier)
    return kept
