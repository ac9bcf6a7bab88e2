"""The one currency of a customer, which holds only as long as something of theirs is billed in it."""

from ..errors import refused
from ..objects import Obj
from ..world import Transaction


def fixed_currency(tx: Transaction, customer: Obj) -> str | None:
    """Currency that the customer's subscriptions (schedules manage them) or waiting invoice items fix, or None."""
    for sub in tx.find("subscription", "customer", customer["id"]):
        if sub["status"] not in ("canceled", "incomplete_expired") and sub["currency"]:
            return str(sub["currency"])
    for item in tx.find("invoiceitem", "customer", customer["id"]):
        if item["invoice"] is None:
            return str(item["currency"])
    return None


def check_currency(tx: Transaction, customer: Obj, wanted: str, param: str) -> None:
    """Raises 400 when something of the customer is billed in another currency."""
    fixed = fixed_currency(tx, customer)
    if fixed is not None and wanted != fixed:
        raise refused(
            "You cannot combine currencies on a single customer. This customer has an active subscription, "
            f"subscription schedule, discount, quote, or invoice item with currency {fixed}",
            param,
        )
