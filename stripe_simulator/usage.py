"""What the meters were told of an item: the usage of a period, and the lines of a period that ends early.

Source: Stripe's documentation, "Manage your usage-based billing setup" and "Record usage for billing".
"""

from .billing import Line, Period, is_metered, usage_line
from .invoicing import item_state
from .objects import Obj
from .world import Transaction


def stream(customer: str, meter: str) -> str:
    """The key under which one customer's events of one meter are found."""
    return f"{customer} {meter}"


def aggregated(tx: Transaction, customer: str, meter: Obj, period: Period) -> int:
    """The meter's sum, count or last value of the period; corrections may make it negative.

    Of several last values in one second, the one reported last holds.
    """
    events = [
        event
        for event in tx.find("billing.meter_event", "_stream", stream(customer, meter["id"]))
        if period.start <= event["timestamp"] < period.end
    ]
    formula = meter["default_aggregation"]["formula"]
    if formula == "count":
        return len(events)
    events.sort(key=lambda event: event["timestamp"])
    values = [int(event["_value"]) for event in events]
    return sum(values) if formula == "sum" else sum(values[-1:])


def item_usage(tx: Transaction, sub: Obj, item: Obj, until: int, *, final: bool = False) -> Line | None:
    """The line of a metered item for its current period up to ``until``; None for a licensed item.

    What was reported before the item had its price is not its usage, and a negative total bills nothing. ``final``
    counts the second ``until`` too, since no later period will.
    """
    state = item_state(tx, sub, item)
    if not is_metered(state.price):
        return None
    start = max(item["current_period_start"], item.get("_usage_from") or 0)
    period = Period(min(start, until), until)
    meter = tx.need("billing.meter", state.price["recurring"]["meter"], "meter", 400)
    counted = Period(period.start, until + 1) if final else period
    return usage_line(state, max(0, aggregated(tx, sub["customer"], meter, counted)), period)


def accrued_lines(tx: Transaction, sub: Obj, until: int, *, final: bool = False) -> list[Line]:
    """The usage that a subscription which ends or pauses at ``until`` has not been billed for, without empty lines."""
    if sub["trial_end"] is not None and sub["trial_end"] > until:
        return []
    lines = (item_usage(tx, sub, item, until, final=final) for item in sub["_items"])
    return [line for line in lines if line is not None and (line.amount or line.quantity)]
