"""Event payloads in the layout of an endpoint's API version."""

from typing import Any

from . import API_VERSION
from .objects import Obj

BASIL = "2025-03-31"


def in_version(event: Obj, version: str | None) -> Obj:
    """The event as an endpoint pinned to ``version`` receives it.

    Versions before 2025-03-31 keep the period on the subscription, and on the invoice its subscription and payment
    flag (Stripe's changelog for basil).
    """
    if version is None or version == API_VERSION:
        return event
    event = {**event, "api_version": version}
    if version[:10] >= BASIL:
        return event
    data = {**event["data"], "object": _older(event["data"]["object"])}
    return {**event, "data": data}


def _older(obj: Any) -> Any:
    if obj.get("object") == "subscription" and "items" in obj:
        return _older_subscription(obj)
    if obj.get("object") == "invoice":
        details = (obj.get("parent") or {}).get("subscription_details") or {}
        shown = {name: value for name, value in obj.items() if name not in ("parent", "total_taxes")}
        shown["subscription"] = details.get("subscription")
        shown["paid"] = obj.get("status") == "paid"
        shown["tax"] = sum(tax["amount"] for tax in obj.get("total_taxes") or []) or None
        shown["discount"] = (obj.get("discounts") or [None])[0]
        return shown
    return obj


def _older_subscription(obj: Obj) -> Obj:
    rows = obj["items"]["data"]
    moved = ("current_period_start", "current_period_end", "billed_until", "current_trial")
    items = [{name: value for name, value in row.items() if name not in moved} for row in rows]
    shown = {name: value for name, value in obj.items() if name not in ("billing_mode", "billing_schedules")}
    shown["items"] = {**obj["items"], "data": items}
    if rows:
        shown["current_period_start"] = max(row["current_period_start"] for row in rows)
        shown["current_period_end"] = min(row["current_period_end"] for row in rows)
        shown["plan"] = rows[0]["plan"] if len(rows) == 1 else None
        shown["quantity"] = rows[0].get("quantity") if len(rows) == 1 else None
    shown["discount"] = (obj.get("discounts") or [None])[0]
    return shown
