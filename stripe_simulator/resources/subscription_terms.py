"""The terms that creating and updating a subscription share: payment, discounts, taxes, trials and endings."""

from typing import Any

from ..billing import Cadence, next_period_end
from ..call import metadata, reference, text
from ..errors import invalid, missing_parameter, refused
from ..objects import Obj
from ..rebilling import first_lines, in_trial
from ..request_parameters import whole
from ..world import Transaction
from .coupons import checked_rates, redeem
from .currencies import check_currency, fixed_currency
from .sources import owned_source

PRORATIONS = ("create_prorations", "always_invoice", "none")

DAY = 86_400

_UNSIMULATED = (
    "add_invoice_items",
    "application_fee_percent",
    "automatic_tax",
    "backdate_start_date",
    "billing_cycle_anchor_config",
    "billing_schedules",
    "billing_thresholds",
    "customer_account",
    "managed_payments",
    "on_behalf_of",
    "pending_invoice_item_interval",
    "transfer_data",
    "trial_from_plan",
)


def simulated(params: Obj) -> None:
    """Refuses what this stand-in would otherwise ignore in silence."""
    for name in _UNSIMULATED:
        if name in params and params[name] not in ("", False, {"enabled": False}):
            raise refused(f"The simulator does not simulate the parameter {name}.", name)


def word(params: Obj, name: str, allowed: tuple[str, ...], default: str) -> str:
    value = params.get(name, default)
    if value not in allowed:
        raise invalid(f"Invalid {name}: must be one of {', '.join(allowed)}", name)
    return str(value)


def currency_of(tx: Transaction, customer: Obj, items: list[Obj], asked: str | None) -> str:
    """The subscription's currency: the one asked for, else the customer's if the price has it, else the price's.

    Raises 400 when something of the customer is billed in another currency.
    """
    price = tx.need("price", items[0]["price"])
    usual = fixed_currency(tx, customer) or customer["currency"]
    wanted = asked.lower() if asked else None
    if wanted is None:
        wanted = usual if usual in price["_currency_options"] else price["currency"]
    check_currency(tx, customer, str(wanted), "currency")
    return str(wanted)


def _payment_method(tx: Transaction, customer: str, identifier: str) -> str:
    method = reference(tx, "payment_method", identifier, "default_payment_method")
    if method["customer"] != customer:
        raise refused(
            f"The customer does not have a payment method with the ID {identifier}. The payment method must be "
            "attached to the customer.",
            "default_payment_method",
            "resource_missing",
        )
    return str(method["id"])


def _take_payers(tx: Transaction, new: Obj, params: Obj) -> None:
    if "default_payment_method" in params:
        identifier = text(params["default_payment_method"])
        new["default_payment_method"] = (
            None if identifier is None else _payment_method(tx, new["customer"], identifier)
        )
    if "default_source" in params:
        identifier = text(params["default_source"])
        if identifier is not None:
            owned_source(tx, new["customer"], identifier, "default_source")
        new["default_source"] = identifier


def take_terms(tx: Transaction, new: Obj, params: Obj) -> None:
    """The plain fields that create and update share."""
    new["metadata"] = metadata(new["metadata"], params.get("metadata"))
    if "description" in params:
        new["description"] = text(params["description"])
    if "collection_method" in params:
        new["collection_method"] = params["collection_method"]
    if "days_until_due" in params:
        new["days_until_due"] = params["days_until_due"]
    if new["collection_method"] == "send_invoice" and new["days_until_due"] is None:
        raise missing_parameter("days_until_due")
    _take_payers(tx, new, params)
    if "default_tax_rates" in params:
        new["default_tax_rates"] = checked_rates(tx, params["default_tax_rates"], "default_tax_rates")
    if "discounts" in params:
        new["discounts"] = redeem(
            tx,
            params["discounts"],
            new["discounts"],
            "discounts",
            customer=new["customer"],
            subscription=new["id"],
            item=None,
        )
    if "payment_settings" in params:
        new["payment_settings"] = {**new["payment_settings"], **params["payment_settings"]}
    if "invoice_settings" in params:
        new["invoice_settings"] = {**new["invoice_settings"], **params["invoice_settings"]}
    if "trial_settings" in params:
        new["trial_settings"] = params["trial_settings"]


def take_trial(tx: Transaction, new: Obj, params: Obj) -> None:
    days = params.get("trial_period_days")
    end: Any = params.get("trial_end")
    if days is not None and end is not None:
        raise invalid("You cannot set both trial_end and trial_period_days.", "trial_period_days")
    if days is not None:
        if int(days) < 1:
            raise invalid("Invalid positive integer", "trial_period_days", "parameter_invalid_integer")
        end = tx.now + int(days) * DAY
    if end is None:
        return
    if end == "now":
        if in_trial(new, tx.now):
            new["trial_end"] = tx.now
        return
    moment = whole(end, "trial_end")
    if moment <= tx.now:
        raise refused("The trial_end timestamp must be in the future.", "trial_end")
    if not in_trial(new, tx.now):
        new["trial_start"] = tx.now
    new["trial_end"] = moment
    new["_trial_warned"] = False


def future_anchor(tx: Transaction, sub: Obj, anchor: int) -> int:
    if anchor <= tx.now:
        raise refused("billing_cycle_anchor must be in the future.", "billing_cycle_anchor")
    for item in sub["_items"]:
        cadence = Cadence.of(tx.need("price", item["price"]))
        if anchor > next_period_end(tx.now, cadence, tx.now):
            raise refused(
                "billing_cycle_anchor cannot be later than next natural billing date.", "billing_cycle_anchor"
            )
    return anchor


def take_ending(tx: Transaction, new: Obj, params: Obj) -> Obj:
    """``cancel_at_period_end`` and ``cancel_at``, of which one is given.

    The first is the earliest end of an item and follows later changes; the words of the second are fixed when set.
    """
    if "cancel_at_period_end" not in params and "cancel_at" not in params:
        return new
    if params.get("cancel_at_period_end") and params.get("cancel_at"):
        raise invalid("You cannot set both cancel_at and cancel_at_period_end.", "cancel_at")
    new = dict(new)
    ends = [item["current_period_end"] for item in new["_items"]]
    if ends and max(ends) <= tx.now:
        change = first_lines(tx, new, "none")
        ends = [item["current_period_end"] for item in change.items]
    moment: int | None = None
    if params.get("cancel_at_period_end"):
        moment = min(ends)
    elif params.get("cancel_at"):
        words = {"min_period_end": min(ends), "max_period_end": max(ends), "max_billed_until": max(ends)}
        moment = words.get(params["cancel_at"]) or whole(params["cancel_at"], "cancel_at")
        if moment <= tx.now:
            raise refused("cancel_at must be in the future.", "cancel_at")
    new["cancel_at_period_end"] = bool(params.get("cancel_at_period_end"))
    new["cancel_at"] = moment
    new["canceled_at"] = tx.now if moment is not None else None
    reason = "cancellation_requested" if moment is not None else None
    new["cancellation_details"] = {**new["cancellation_details"], "reason": reason}
    return new


def cancellation_details(old: Obj, params: Obj) -> Obj:
    given = {name: text(value) for name, value in (params.get("cancellation_details") or {}).items()}
    return {"cancellation_details": {**old["cancellation_details"], **given}}
