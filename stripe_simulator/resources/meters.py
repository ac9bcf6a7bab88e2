"""Billing meters and the usage that is reported to them."""

from typing import Any

from ..call import Call, text
from ..errors import invalid, no_such, refused
from ..listing import page
from ..objects import Obj
from ..request_parameters import whole
from ..wire import wire

CUSTOMER_KEY, VALUE_KEY = "stripe_customer_id", "value"
OLDEST_SECONDS, NEWEST_SECONDS = 35 * 86_400, 300


def create_meter(call: Call) -> Obj:
    """Sums what is reported, or (formula ``count``) counts the reports; the last value alone is not simulated."""
    tx, params = call.tx, call.params
    formula = params["default_aggregation"]["formula"]
    if formula not in ("sum", "count"):
        raise refused("The simulator does not simulate this formula.", "default_aggregation[formula]")
    if any(found["event_name"] == params["event_name"] for found in tx.all("billing.meter")):
        raise refused(
            f"An active meter with the event name {params['event_name']} already exists.", "event_name"
        )
    meter: Obj = {
        "id": tx.new_id("mtr_"),
        "object": "billing.meter",
        "created": tx.now,
        "customer_mapping": params.get("customer_mapping")
        or {"event_payload_key": CUSTOMER_KEY, "type": "by_id"},
        "default_aggregation": {"formula": formula},
        "display_name": params["display_name"],
        "event_name": params["event_name"],
        "event_time_window": text(params.get("event_time_window")),
        "livemode": False,
        "status": "active",
        "status_transitions": {"deactivated_at": None},
        "updated": tx.now,
        "value_settings": params.get("value_settings") or {"event_payload_key": VALUE_KEY},
    }
    return wire(tx, tx.store("billing.meter", meter))


def retrieve_meter(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("billing.meter", call.id))


def list_meters(call: Call) -> Obj:
    params = call.params

    def match(meter: Obj) -> bool:
        return "status" not in params or meter["status"] == params["status"]

    return page(call.tx, "billing.meter", params, "/v1/billing/meters", wire, match=match)


def create_meter_event(call: Call) -> Obj:
    """One report of usage. At Stripe it takes a while until a report counts; here it counts at once."""
    tx, params = call.tx, call.params
    meter = next((m for m in tx.all("billing.meter") if m["event_name"] == params["event_name"]), None)
    if meter is None:
        raise no_such("billing.meter", params["event_name"], "event_name", 400)
    moment: Any = params.get("timestamp", tx.now)
    if not tx.now - OLDEST_SECONDS <= moment <= tx.now + NEWEST_SECONDS:
        raise refused(
            "The timestamp must be within the past 35 days or up to 5 minutes in the future.", "timestamp"
        )
    payload = params["payload"]
    customer = payload.get(meter["customer_mapping"]["event_payload_key"], "")
    if tx.get("customer", customer) is None:
        raise no_such("customer", customer, "payload", 400)
    value = 1
    if meter["default_aggregation"]["formula"] == "sum":
        key = meter["value_settings"]["event_payload_key"]
        value = whole(payload.get(key), f"payload[{key}]")
    if value < 0:
        raise invalid("Invalid non-negative integer", "payload", "parameter_invalid_integer")
    identifier = params.get("identifier") or tx.new_id("mev_")
    if tx.get("billing.meter_event", identifier) is not None:
        raise refused(f"An event already exists with identifier {identifier}.", "identifier")
    event: Obj = {
        "id": identifier,
        "object": "billing.meter_event",
        "created": tx.now,
        "event_name": params["event_name"],
        "identifier": identifier,
        "livemode": False,
        "payload": payload,
        "timestamp": moment,
        "_customer": customer,
        "_meter": meter["id"],
        "_value": value,
    }
    shown = dict(wire(tx, tx.store("billing.meter_event", event)))
    del shown["id"]
    return shown
