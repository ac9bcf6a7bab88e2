"""Products and prices."""

from decimal import Decimal, InvalidOperation
from typing import Any

from ..call import Call, create, metadata, reference, text, update
from ..errors import invalid, missing_parameter, refused
from ..listing import page
from ..objects import Obj
from ..request_parameters import whole
from ..wire import wire
from ..world import Transaction


def create_product(call: Call) -> Obj:
    tx, params = call.tx, call.params
    identifier = params.get("id") or tx.new_id("prod_")
    if tx.get("product", identifier) is not None:
        raise refused("Product already exists.", "id", "resource_already_exists")
    product = {
        "id": identifier,
        "object": "product",
        "active": params.get("active", True),
        "created": tx.now,
        "default_price": None,
        "description": text(params.get("description")),
        "images": params.get("images") or [],
        "livemode": False,
        "marketing_features": params.get("marketing_features") or [],
        "metadata": metadata({}, params.get("metadata")),
        "name": _name(params["name"]),
        "package_dimensions": params.get("package_dimensions"),
        "shippable": params.get("shippable"),
        "statement_descriptor": params.get("statement_descriptor"),
        "tax_code": params.get("tax_code"),
        "type": params.get("type", "service"),
        "unit_label": text(params.get("unit_label")),
        "updated": tx.now,
        "url": params.get("url"),
    }
    if "default_price_data" in params:
        price = _price(tx, {**params["default_price_data"], "product": identifier}, identifier)
        product["default_price"] = price["id"]
        create(tx, product, "product.created")
        create(tx, price, "price.created")
        return wire(tx, product)
    return create(tx, product, "product.created")


def _name(given: str) -> str:
    """A product's name, which every product has. Raises 400 for an empty one."""
    if given == "":
        raise invalid(
            "You passed an empty string for 'name'. We assume empty values are an attempt to unset a parameter; "
            "however 'name' cannot be unset. You should remove 'name' from your request or supply a non-empty value.",
            "name",
            "parameter_invalid_empty",
        )
    return given


def retrieve_product(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("product", call.id))


def update_product(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("product", call.id)
    new = dict(old)
    if "name" in params:
        new["name"] = _name(params["name"])
    for name in ("active", "shippable", "package_dimensions"):
        if name in params:
            new[name] = params[name] if params[name] != "" else None
    for name in ("description", "statement_descriptor", "tax_code", "unit_label", "url"):
        if name in params:
            new[name] = text(params[name])
    for name in ("images", "marketing_features"):
        if name in params:
            new[name] = params[name] or []
    if "default_price" in params:
        price = reference(tx, "price", params["default_price"], "default_price")
        if price["product"] != old["id"]:
            raise refused("The price specified does not belong to this product.", "default_price")
        new["default_price"] = price["id"]
    new["metadata"] = metadata(old["metadata"], params.get("metadata"))
    if new != old:
        new["updated"] = tx.now
    return update(tx, old, new, "product.updated")


def delete_product(call: Call) -> Obj:
    tx = call.tx
    product = tx.need("product", call.id)
    if tx.find("price", "product", product["id"]):
        raise refused(
            "This product cannot be deleted because it has one or more user-created prices.",
            "id",
        )
    tx.remove("product", product["id"])
    tx.emit("product.deleted", wire(tx, product))
    return {"id": product["id"], "object": "product", "deleted": True}


def list_products(call: Call) -> Obj:
    params = call.params
    ids = params.get("ids")

    def match(product: Obj) -> bool:
        return (
            ("active" not in params or product["active"] == params["active"])
            and ("shippable" not in params or product["shippable"] == params["shippable"])
            and ("url" not in params or product["url"] == params["url"])
            and ("type" not in params or product["type"] == params["type"])
            and (ids is None or product["id"] in ids)
        )

    return page(call.tx, "product", params, "/v1/products", wire, match=match)


def _amount(given: Obj, where: str) -> tuple[int | None, str | None]:
    """``unit_amount`` in minor units and ``unit_amount_decimal``, of which a caller gives one."""
    if given.get("unit_amount") is not None:
        amount = whole(given["unit_amount"], f"{where}unit_amount")
        if amount < 0:
            raise invalid("Invalid non-negative integer", f"{where}unit_amount", "parameter_invalid_integer")
        return amount, str(amount)
    raw = given.get("unit_amount_decimal")
    if raw is None:
        return None, None
    try:
        value = Decimal(str(raw))
    except InvalidOperation:
        raise invalid(f"Invalid decimal: {raw}", f"{where}unit_amount_decimal") from None
    shown = format(value.normalize(), "f")
    return (int(value) if value == value.to_integral_value() else None), shown


def _tiers(given: Any, where: str) -> list[Obj] | None:
    if given is None:
        return None
    tiers = []
    for index, tier in enumerate(given):
        place = f"{where}tiers[{index}]"
        flat = tier.get("flat_amount")
        flat_decimal = tier.get("flat_amount_decimal")
        unit, unit_decimal = _amount(tier, f"{place}")
        up_to = tier["up_to"]
        tiers.append(
            {
                "flat_amount": None if flat is None else int(flat),
                "flat_amount_decimal": str(flat) if flat is not None else _plain(flat_decimal),
                "unit_amount": unit,
                "unit_amount_decimal": unit_decimal,
                "up_to": None if up_to == "inf" else whole(up_to, f"{place}[up_to]"),
            }
        )
    if not tiers or tiers[-1]["up_to"] is not None:
        raise invalid("The last tier must have up_to set to inf.", f"{where}tiers")
    return tiers


def _plain(value: Any) -> str | None:
    return None if value is None else format(Decimal(str(value)).normalize(), "f")


def _price(tx: Transaction, params: Obj, product: str) -> Obj:
    unit, unit_decimal = _amount(params, "")
    scheme = params.get("billing_scheme") or ("tiered" if params.get("tiers") else "per_unit")
    tiers = _tiers(params.get("tiers"), "")
    if scheme == "tiered":
        if tiers is None:
            raise missing_parameter("tiers")
        if params.get("tiers_mode") not in ("graduated", "volume"):
            raise missing_parameter("tiers_mode")
        if params.get("transform_quantity"):
            raise invalid("transform_quantity cannot be combined with tiers.", "transform_quantity")
    elif unit_decimal is None and not params.get("custom_unit_amount"):
        raise missing_parameter("unit_amount")
    recurring = params.get("recurring")
    currency = str(params["currency"]).lower()
    own = {
        "custom_unit_amount": None,
        "tax_behavior": params.get("tax_behavior", "unspecified"),
        "unit_amount": unit,
        "unit_amount_decimal": unit_decimal,
    }
    options = {currency: own if tiers is None else {**own, "tiers": tiers}}
    for code, option in (params.get("currency_options") or {}).items():
        amount, decimal = _amount(option, f"currency_options[{code}]")
        shown = {
            "custom_unit_amount": None,
            "tax_behavior": option.get("tax_behavior", "unspecified"),
            "unit_amount": amount,
            "unit_amount_decimal": decimal,
        }
        if option.get("tiers"):
            shown["tiers"] = _tiers(option["tiers"], f"currency_options[{code}]")
        options[str(code).lower()] = shown
    price: Obj = {
        "id": tx.new_id("price_"),
        "object": "price",
        "active": params.get("active", True),
        "billing_scheme": scheme,
        "created": tx.now,
        "currency": currency,
        "custom_unit_amount": params.get("custom_unit_amount"),
        "livemode": False,
        "lookup_key": None,
        "metadata": metadata({}, params.get("metadata")),
        "nickname": text(params.get("nickname")),
        "product": product,
        "recurring": None if recurring is None else _recurring(tx, recurring),
        "tax_behavior": params.get("tax_behavior", "unspecified"),
        "tiers_mode": params.get("tiers_mode") if scheme == "tiered" else None,
        "transform_quantity": params.get("transform_quantity"),
        "type": "one_time" if recurring is None else "recurring",
        "unit_amount": unit,
        "unit_amount_decimal": unit_decimal,
        "_tiers": tiers,
        "_currency_options": options,
    }
    if params.get("lookup_key"):
        _take_lookup_key(tx, params["lookup_key"], params.get("transfer_lookup_key", False), price["id"])
        price["lookup_key"] = params["lookup_key"]
    return price


def _recurring(tx: Transaction, given: Obj) -> Obj:
    usage = given.get("usage_type", "licensed")
    if usage == "metered" and not given.get("meter"):
        raise invalid("Prices with usage_type=metered must be backed by a meter.", "recurring[meter]")
    if given.get("meter"):
        if usage != "metered":
            raise invalid("A meter is only for prices with usage_type=metered.", "recurring[meter]")
        if reference(tx, "billing.meter", given["meter"], "recurring[meter]")["status"] != "active":
            raise refused("The meter is inactive.", "recurring[meter]")
    if given["interval"] not in ("day", "week", "month", "year"):
        raise invalid(f"Invalid recurring[interval]: {given['interval']}", "recurring[interval]")
    count = int(given.get("interval_count", 1))
    if count < 1:
        raise invalid("Invalid positive integer", "recurring[interval_count]", "parameter_invalid_integer")
    return {
        "interval": given["interval"],
        "interval_count": count,
        "meter": given.get("meter"),
        "trial_period_days": given.get("trial_period_days"),
        "usage_type": usage,
    }


def _take_lookup_key(tx: Transaction, key: str, transfer: bool, taker: str) -> None:
    for holder in tx.find("price", "lookup_key", key):
        if holder["id"] == taker:
            continue
        if not transfer:
            raise refused(f"A price with the lookup key `{key}` already exists.", "lookup_key")
        update(tx, holder, {**holder, "lookup_key": None}, "price.updated")


def create_price(call: Call) -> Obj:
    tx, params = call.tx, call.params
    if "product_data" in params:
        data = params["product_data"]
        product = create_product(
            Call(
                tx,
                {"name": data["name"], **{k: data[k] for k in ("active", "metadata", "id") if k in data}},
                [],
            )
        )["id"]
    elif "product" in params:
        product = reference(tx, "product", params["product"], "product")["id"]
    else:
        raise missing_parameter("product")
    price = _price(tx, params, product)
    if call.ids:
        price["id"] = call.ids[0]
    return create(tx, price, "price.created")


def price_from_data(tx: Transaction, data: Obj) -> Obj:
    """An inline price (``price_data``): stored like any other, but inactive, as at Stripe."""
    product = reference(tx, "product", data["product"], "price_data[product]")["id"]
    price = _price(tx, {**data, "active": False}, product)
    create(tx, price, "price.created")
    return price


def retrieve_price(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("price", call.id))


def update_price(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("price", call.id)
    new = dict(old)
    for name in ("active", "tax_behavior"):
        if name in params:
            new[name] = params[name]
    if "nickname" in params:
        new["nickname"] = text(params["nickname"])
    if "lookup_key" in params:
        if text(params["lookup_key"]):
            _take_lookup_key(tx, params["lookup_key"], params.get("transfer_lookup_key", False), old["id"])
        new["lookup_key"] = text(params["lookup_key"])
    if params.get("currency_options"):
        options = dict(old["_currency_options"])
        for code, option in params["currency_options"].items():
            amount, decimal = _amount(option, f"currency_options[{code}]")
            options[code] = {
                "custom_unit_amount": None,
                "tax_behavior": option.get("tax_behavior", "unspecified"),
                "unit_amount": amount,
                "unit_amount_decimal": decimal,
            }
            if option.get("tiers"):
                options[code]["tiers"] = _tiers(option["tiers"], f"currency_options[{code}]")
        new["_currency_options"] = options
    new["metadata"] = metadata(old["metadata"], params.get("metadata"))
    return update(tx, old, new, "price.updated")


def list_prices(call: Call) -> Obj:
    params = call.params
    among = None
    if "product" in params:
        among = call.tx.world.collection("price").find("product", params["product"])
    recurring = params.get("recurring") or {}
    keys = params.get("lookup_keys")

    def match(price: Obj) -> bool:
        return (
            ("active" not in params or price["active"] == params["active"])
            and ("currency" not in params or price["currency"] == params["currency"].lower())
            and ("type" not in params or price["type"] == params["type"])
            and (keys is None or price["lookup_key"] in keys)
            and all((price["recurring"] or {}).get(name) == value for name, value in recurring.items())
        )

    return page(call.tx, "price", params, "/v1/prices", wire, among=among, match=match)
