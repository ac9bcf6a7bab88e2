"""Coupons, promotion codes, tax rates, and the discounts that redeeming makes."""

from collections.abc import Callable
from typing import Any

from ..billing import Discount, discount_end
from ..call import Call, create, metadata, reference, text, update
from ..errors import ApiError, invalid, missing_parameter, refused
from ..identifiers import token
from ..listing import page
from ..objects import Obj
from ..wire import active_code, redeemable, wire
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
    if params.get("customer"):
        reference(tx, "customer", params["customer"], "customer")
    code = params.get("code") or token(tx.world.seed, _next(tx), 8).upper()
    restrictions = params.get("restrictions") or {}
    if ("minimum_amount" in restrictions) != ("minimum_amount_currency" in restrictions):
        raise missing_parameter("restrictions[minimum_amount_currency]")
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
        "_code": code.lower(),
        "_minimum_amounts": restrictions.get("currency_options") or {},
    }
    _check_unique(tx, promotion_code)
    return create(tx, promotion_code, "promotion_code.created")


def _check_unique(tx: Transaction, code: Obj) -> None:
    """A text is unique, whatever its case, among the active codes of each customer, and among those of all customers.

    Raises 400 for another active code of the same customer, or of nobody if this one names no customer.
    """
    if not code["active"]:
        return
    for found in tx.find("promotion_code", "_code", code["_code"]):
        if found["id"] != code["id"] and found["customer"] == code["customer"] and active_code(tx, found):
            raise refused(f"An active promotion code with `code: {code['code']}` already exists.", "code")


def retrieve_promotion_code(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("promotion_code", call.id, "promotion_code"))


def update_promotion_code(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("promotion_code", call.id, "promotion_code")
    new = {**old, "metadata": metadata(old["metadata"], params.get("metadata"))}
    if "active" in params:
        new["active"] = params["active"]
        _check_unique(tx, new)
    return update(tx, old, new, "promotion_code.updated")


def list_promotion_codes(call: Call) -> Obj:
    tx, params = call.tx, call.params
    among = None
    if "code" in params:
        among = tx.world.collection("promotion_code").find("_code", params["code"].lower())

    def match(code: Obj) -> bool:
        return (
            ("active" not in params or active_code(tx, code) == params["active"])
            and ("coupon" not in params or code["promotion"]["coupon"] == params["coupon"])
            and ("customer" not in params or code["customer"] == params["customer"])
        )

    return page(tx, "promotion_code", params, "/v1/promotion_codes", wire, among=among, match=match)


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
            "_place": place,
        }
        create(tx, discount, "customer.discount.created")
        ids.append(str(discount["id"]))
    return ids


def _redeemed(tx: Transaction, entry: Obj, place: str, customer: str) -> tuple[Obj, str | None]:
    code_id: str | None = None
    if entry.get("promotion_code"):
        code = reference(tx, "promotion_code", entry["promotion_code"], f"{place}[promotion_code]")
        code_id = code["id"]
        why = _why_not(tx, code, customer)
        if why is not None:
            raise _not_redeemable(why, place)
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


def _not_redeemable(why: str, place: str) -> ApiError:
    return refused(f"This promotion code cannot be redeemed because {why}.", f"{place}[promotion_code]")


def _why_not(tx: Transaction, code: Obj, customer: str) -> str | None:
    """Why the customer cannot redeem the code at all, or None."""
    if not code["active"]:
        return "it is inactive"
    if code["expires_at"] is not None and code["expires_at"] <= tx.now:
        return "it has expired"
    if code["max_redemptions"] is not None and code["times_redeemed"] >= code["max_redemptions"]:
        return "it has been used the maximum number of times"
    if not active_code(tx, code):
        return "the coupon is inactive"
    if code["customer"] not in (None, customer):
        return "it belongs to another customer"
    if code["restrictions"]["first_time_transaction"] and _has_bought(tx, customer):
        return "the associated customer has prior transactions"
    return None


def _has_bought(tx: Transaction, customer: str) -> bool:
    """Any invoice that was finalised and not voided, as `restrictions.first_time_transaction` counts."""
    invoices = tx.find("invoice", "customer", customer)
    return any(invoice["status"] in ("open", "paid", "uncollectible") for invoice in invoices)


def check_discounts(tx: Transaction, sub: Obj, order: Callable[[], int]) -> None:
    """Check the discounts redeemed in this request against the subscription's currency and its ``order``.

    ``order`` gives what a whole period of its items costs before discounts, minor units. Raises 400 for an amount off
    in another currency, and for a promotion code whose minimum is not reached.
    """
    for identifier in (*sub["discounts"], *(key for item in sub["_items"] for key in item["discounts"])):
        discount = tx.changes.get(("discount", identifier))
        if discount is None:
            continue
        coupon, place = discount["_coupon"], discount["_place"]
        currencies = {coupon["currency"], *coupon["currency_options"]}
        if coupon["amount_off"] is not None and sub["currency"] not in currencies:
            name = "promotion_code" if discount["promotion_code"] else "coupon"
            raise refused(
                f"The coupon takes an amount off in {coupon['currency']}, which does not match the currency "
                f"{sub['currency']} of the subscription.",
                f"{place}[{name}]",
            )
        code = tx.get("promotion_code", discount["promotion_code"])
        if code is not None and not _reaches_minimum(code, sub["currency"], order()):
            raise _not_redeemable("the order does not reach its minimum amount", place)


def _reaches_minimum(code: Obj, currency: str, order: int) -> bool:
    """False below the minimum, and in a currency for which the code has none."""
    restrictions = code["restrictions"]
    if restrictions["minimum_amount"] is None:
        return True
    minimums = {key: option["minimum_amount"] for key, option in code["_minimum_amounts"].items()}
    minimums[restrictions["minimum_amount_currency"]] = restrictions["minimum_amount"]
    return currency in minimums and order >= int(minimums[currency])


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
