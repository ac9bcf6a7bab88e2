"""Billing meters and the usage that is reported to them."""

import re
from typing import Any

from ..billing import Period
from ..call import Call, create, reference, text, update
from ..errors import invalid, no_such, refused
from ..listing import page, sequence
from ..objects import Obj
from ..usage import aggregated, stream
from ..wire import wire
from ..world import Transaction

CUSTOMER_KEY, VALUE_KEY = "stripe_customer_id", "value"
OLDEST_SECONDS, NEWEST_SECONDS = 35 * 86_400, 300
IDENTIFIER_SECONDS = 86_400
FORMULAS = ("sum", "count", "last")
MINUTE = 60


def create_meter(call: Call) -> Obj:
    """Sums what is reported, counts the reports, or takes the last value of a period."""
    tx, params = call.tx, call.params
    formula = params["default_aggregation"]["formula"]
    if formula not in FORMULAS:
        raise invalid(
            f"Invalid default_aggregation[formula]: must be one of {', '.join(FORMULAS)}",
            "default_aggregation[formula]",
        )
    if "event_time_window" in params:
        raise refused("The simulator does not simulate event_time_window.", "event_time_window")
    _check_free(tx, params["event_name"])
    meter: Obj = {
        "id": tx.new_id("mtr_"),
        "object": "billing.meter",
        "created": tx.now,
        "customer_mapping": params.get("customer_mapping")
        or {"event_payload_key": CUSTOMER_KEY, "type": "by_id"},
        "default_aggregation": {"formula": formula},
        "display_name": params["display_name"],
        "event_name": params["event_name"],
        "event_time_window": None,
        "livemode": False,
        "status": "active",
        "status_transitions": {"deactivated_at": None},
        "updated": tx.now,
        "value_settings": params.get("value_settings") or {"event_payload_key": VALUE_KEY},
    }
    return create(tx, meter, "billing.meter.created")


def _active(tx: Transaction, event_name: str) -> Obj | None:
    found = tx.find("billing.meter", "event_name", event_name)
    return next((meter for meter in found if meter["status"] == "active"), None)


def _check_free(tx: Transaction, event_name: str) -> None:
    if _active(tx, event_name) is not None:
        raise refused(f"An active meter with the event name {event_name} already exists.", "event_name")


def retrieve_meter(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("billing.meter", call.id))


def list_meters(call: Call) -> Obj:
    params = call.params

    def match(meter: Obj) -> bool:
        return "status" not in params or meter["status"] == params["status"]

    return page(call.tx, "billing.meter", params, "/v1/billing/meters", wire, match=match)


def update_meter(call: Call) -> Obj:
    tx = call.tx
    old = tx.need("billing.meter", call.id)
    new = {**old, "display_name": call.params.get("display_name", old["display_name"])}
    return update(tx, old, new if new == old else {**new, "updated": tx.now}, "billing.meter.updated")


def deactivate_meter(call: Call) -> Obj:
    """Takes no more events; prices of it bill what was reported before."""
    tx = call.tx
    old = tx.need("billing.meter", call.id)
    if old["status"] != "active":
        raise refused("The meter is already inactive.", "id")
    new = {**old, "status": "inactive", "status_transitions": {"deactivated_at": tx.now}, "updated": tx.now}
    return update(tx, old, new, "billing.meter.deactivated")


def reactivate_meter(call: Call) -> Obj:
    tx = call.tx
    old = tx.need("billing.meter", call.id)
    if old["status"] == "active":
        raise refused("The meter is already active.", "id")
    _check_free(tx, old["event_name"])
    new = {**old, "status": "active", "status_transitions": {"deactivated_at": None}, "updated": tx.now}
    return update(tx, old, new, "billing.meter.reactivated")


def create_meter_event(call: Call) -> Obj:
    """One report of usage. At Stripe it takes a while until a report counts; here it counts at once."""
    tx, params = call.tx, call.params
    meter = _active(tx, params["event_name"])
    if meter is None:
        raise no_such("billing.meter", params["event_name"], "event_name", 400)
    moment: Any = params.get("timestamp", tx.now)
    if not tx.now - OLDEST_SECONDS <= moment <= tx.now + NEWEST_SECONDS:
        raise refused(
            "The timestamp must be within the past 35 days or up to 5 minutes in the future.", "timestamp"
        )
    payload = params["payload"]
    customer = reference(
        tx, "customer", payload.get(meter["customer_mapping"]["event_payload_key"], ""), "payload"
    )
    value = 1
    if meter["default_aggregation"]["formula"] != "count":
        value = _value(payload, meter["value_settings"]["event_payload_key"])
    own = tx.new_id("mev_")
    identifier = text(params.get("identifier")) or own
    if _recent(tx, identifier) is not None:
        raise refused(f"An event already exists with identifier {identifier}.", "identifier")
    event: Obj = {
        "id": own,
        "object": "billing.meter_event",
        "created": tx.now,
        "event_name": params["event_name"],
        "identifier": identifier,
        "livemode": False,
        "payload": payload,
        "timestamp": moment,
        "_stream": stream(customer["id"], meter["id"]),
        "_value": value,
    }
    shown = dict(wire(tx, tx.store("billing.meter_event", event)))
    del shown["id"]
    return shown


def _value(payload: Obj, key: str) -> int:
    """Stripe takes whole numbers only; negative ones correct earlier reports."""
    given = str(payload.get(key, ""))
    if not re.fullmatch(r"[+-]?[0-9]{1,15}", given):
        raise invalid(f"Invalid integer: {given}", f"payload[{key}]", "parameter_invalid_integer")
    return int(given)


def _recent(tx: Transaction, identifier: str) -> Obj | None:
    """The event of an identifier, which Stripe keeps unique for a day."""
    found = tx.find("billing.meter_event", "identifier", identifier)
    return next((event for event in found if event["created"] > tx.now - IDENTIFIER_SECONDS), None)


def create_adjustment(call: Call) -> Obj:
    """Cancels an event that was received within the past 24 hours, as if it had not been reported."""
    tx, params = call.tx, call.params
    identifier = (params.get("cancel") or {}).get("identifier")
    event = _recent(tx, identifier or "")
    if event is None or event["event_name"] != params["event_name"]:
        raise no_such("billing.meter_event", identifier or "", "cancel[identifier]", 400)
    tx.remove("billing.meter_event", event["id"])
    return {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": identifier},
        "event_name": params["event_name"],
        "livemode": False,
        "status": "complete",
        "type": "cancel",
    }


def list_summaries(call: Call) -> Obj:
    """One customer's usage from ``start_time`` up to ``end_time``, as a single summary."""
    tx, params = call.tx, call.params
    meter = tx.need("billing.meter", call.id)
    if "value_grouping_window" in params:
        raise refused("The simulator does not simulate value_grouping_window.", "value_grouping_window")
    customer = reference(tx, "customer", params["customer"], "customer")
    start, end = params["start_time"], params["end_time"]
    for name, moment in (("start_time", start), ("end_time", end)):
        if moment % MINUTE:
            raise invalid(f"{name} must be aligned with minute boundaries.", name)
    if end <= start:
        raise invalid("end_time must be later than start_time.", "end_time")
    summary = {
        "id": tx.new_id("mes_"),
        "object": "billing.meter_event_summary",
        "aggregated_value": float(aggregated(tx, customer["id"], meter, Period(start, end))),
        "end_time": end,
        "livemode": False,
        "meter": meter["id"],
        "start_time": start,
    }
    url = f"/v1/billing/meters/{meter['id']}/event_summaries"
    return sequence([summary], params, url, "billing.meter_event_summary")
