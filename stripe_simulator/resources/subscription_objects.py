"""Blank subscriptions, and what an ``items`` parameter makes of a subscription's items."""

from ..billing import Cadence, is_metered
from ..call import metadata, reference
from ..errors import invalid, missing_parameter, refused
from ..objects import Obj
from ..request_parameters import whole
from ..world import Transaction
from .catalogue import price_from_data
from .coupons import checked_rates, redeem

MAX_ITEMS = 20
MAX_QUANTITY = 999_999


def blank(identifier: str, customer: str, currency: str, now: int) -> Obj:
    return {
        "id": identifier,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": now,
        "billing_cycle_anchor_config": None,
        "billing_mode": {
            "flexible": {"proration_discounts": "included"},
            "type": "flexible",
            "updated_at": None,
        },
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "feedback_option": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now,
        "currency": currency,
        "customer": customer,
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": {"type": "self"},
        },
        "latest_invoice": None,
        "livemode": False,
        "managed_payments": {"enabled": False},
        "metadata": {},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": now,
        "status": "active",
        "status_details": None,
        "test_clock": None,
        "transfer_data": None,
        "trial_end": None,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": None,
        "_items": [],
        "_pending": None,
        "_resuming": None,
        "_trial_warned": False,
    }


def new_item(tx: Transaction, sub: Obj, given: Obj, place: str) -> Obj:
    price = item_price(tx, given, place)
    identifier = tx.new_id("si_")
    return {
        "id": identifier,
        "object": "subscription_item",
        "billed_until": None,
        "billing_thresholds": None,
        "created": tx.now,
        "current_period_end": tx.now,
        "current_period_start": tx.now,
        "current_trial": None,
        "discounts": redeem(
            tx,
            given.get("discounts"),
            [],
            f"{place}[discounts]",
            customer=sub["customer"],
            subscription=sub["id"],
            item=identifier,
        ),
        "metadata": metadata({}, given.get("metadata")),
        "price": price["id"],
        "quantity": item_quantity(price, given, place, 1),
        "subscription": sub["id"],
        "tax_rates": checked_rates(tx, given.get("tax_rates"), f"{place}[tax_rates]"),
        "_anchor": None,
        "_debits": [],
        "_previous_start": None,
    }


def item_price(tx: Transaction, given: Obj, place: str) -> Obj:
    identifier = given.get("price") or given.get("plan")
    if identifier:
        price = reference(tx, "price", identifier, f"{place}[price]")
        if not price["active"]:
            raise refused(
                f"The price specified is inactive. This field only accepts active prices: {identifier}",
                f"{place}[price]",
            )
    elif given.get("price_data"):
        price = price_from_data(tx, given["price_data"])
    else:
        raise missing_parameter(f"{place}[price]")
    if price["type"] != "recurring":
        raise refused(
            "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.",
            f"{place}[price]",
        )
    return price


def item_quantity(price: Obj, given: Obj, place: str, default: int) -> int | None:
    if is_metered(price):
        if "quantity" in given:
            raise refused("You cannot set the quantity for metered plans.", f"{place}[quantity]")
        return None
    quantity = whole(given.get("quantity", default), f"{place}[quantity]")
    if quantity < 0:
        raise invalid("Invalid non-negative integer", f"{place}[quantity]", "parameter_invalid_integer")
    if quantity > MAX_QUANTITY:
        raise invalid(
            f"Quantity exceeds the maximum of {MAX_QUANTITY}.",
            f"{place}[quantity]",
            "parameter_invalid_integer",
        )
    return quantity


def change_items(tx: Transaction, sub: Obj, given: list[Obj]) -> list[Obj]:
    """The items after an update: an entry with an id changes that item, one without adds another."""
    check_count(given)
    items = list(sub["_items"])
    for index, entry in enumerate(given):
        place = f"items[{index}]"
        if not entry.get("id"):
            items.append(new_item(tx, sub, entry, place))
            continue
        position = next((n for n, item in enumerate(items) if item["id"] == entry["id"]), None)
        if position is None:
            raise refused(f"No such subscription item: '{entry['id']}'", f"{place}[id]", "resource_missing")
        if entry.get("deleted"):
            del items[position]
        else:
            items[position] = _changed_item(tx, sub, items[position], entry, place)
    if not items:
        raise refused(
            "A subscription must have at least one active plan. To cancel it, use the cancel API.", "items"
        )
    if len(items) > MAX_ITEMS:
        raise refused(f"Subscriptions can have at most {MAX_ITEMS} items.", "items")
    return items


def check_count(given: list[Obj]) -> None:
    if len(given) > MAX_ITEMS:
        raise invalid(f"Array of size {len(given)} exceeded maximum size of {MAX_ITEMS}.", "items")


def _changed_item(tx: Transaction, sub: Obj, item: Obj, entry: Obj, place: str) -> Obj:
    """A new price without a quantity resets the quantity to 1, as at Stripe."""
    new = dict(item)
    wanted = entry.get("price") or entry.get("plan")
    if (wanted and wanted != item["price"]) or entry.get("price_data"):
        price = item_price(tx, entry, place)
        new["price"] = price["id"]
        new["quantity"] = item_quantity(price, entry, place, 1)
    else:
        price = tx.need("price", item["price"])
        new["quantity"] = item_quantity(price, entry, place, item["quantity"] or 0)
    if "tax_rates" in entry:
        new["tax_rates"] = checked_rates(tx, entry["tax_rates"], f"{place}[tax_rates]")
    if "discounts" in entry:
        new["discounts"] = redeem(
            tx,
            entry["discounts"],
            item["discounts"],
            f"{place}[discounts]",
            customer=sub["customer"],
            subscription=sub["id"],
            item=item["id"],
        )
    new["metadata"] = metadata(item["metadata"], entry.get("metadata"))
    return new


def check_items(tx: Transaction, sub: Obj) -> None:
    """One currency, no price twice, and one interval, or in flexible billing mode multiples of the shortest one.

    Raises 400 for anything else (Stripe's documentation, "Mixed interval subscriptions").
    """
    seen: set[str] = set()
    cadences: set[Cadence] = set()
    for index, item in enumerate(sub["_items"]):
        price = tx.need("price", item["price"])
        if price["id"] in seen:
            raise refused(
                f"Cannot add multiple subscription items with the same plan: {price['id']}",
                f"items[{index}][price]",
            )
        seen.add(price["id"])
        if sub["currency"] not in price["_currency_options"]:
            only = "`, `".join(price["_currency_options"])
            raise refused(
                f"The price specified only supports `{only}`. This doesn't match the expected currency: "
                f"`{sub['currency']}`.",
                f"items[{index}][price]",
            )
        cadences.add(Cadence.of(price))
    if len(cadences) > 1 and sub["billing_mode"]["type"] == "classic":
        raise refused(
            "All items on a subscription must have the same billing interval unless billing_mode is flexible.",
            "items",
        )
    if not any(all(one.is_multiple_of(base) for one in cadences) for base in cadences):
        raise refused(
            "The intervals of all items on a subscription must be multiples of the shortest one.", "items"
        )
