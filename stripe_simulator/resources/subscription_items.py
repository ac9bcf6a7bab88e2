"""Subscription items on their own paths; every change goes through an update of the subscription."""

from ..call import Call, reference
from ..listing import sequence
from ..objects import Obj
from ..wire import subscription_item
from ..world import Transaction
from .subscriptions import update_subscription


def list_items(call: Call) -> Obj:
    params = call.params
    sub = reference(call.tx, "subscription", params["subscription"], "subscription")
    rows = [subscription_item(call.tx, item) for item in sub["_items"]]
    url = f"/v1/subscription_items?subscription={sub['id']}"
    return sequence(rows, params, url, "subscription_item")


def _parent(tx: Transaction, item_id: str) -> tuple[Obj, Obj]:
    parent = tx.get("subscription", tx.world.item_parents.get(item_id))
    if parent is not None:
        for item in parent["_items"]:
            if item["id"] == item_id:
                return parent, item
    return {}, tx.need("subscription_item", item_id)


def retrieve_item(call: Call) -> Obj:
    return subscription_item(call.tx, _parent(call.tx, call.id)[1])


_BILLING_FIELDS = ("proration_behavior", "proration_date", "payment_behavior", "off_session")

_ITEM_FIELDS = ("price", "price_data", "plan", "quantity", "metadata", "tax_rates", "discounts")


def _through(call: Call, sub: Obj, entry: Obj) -> None:
    params = {name: call.params[name] for name in _BILLING_FIELDS if name in call.params}
    update_subscription(Call(call.tx, {**params, "items": [entry]}, [sub["id"]]))


def update_item(call: Call) -> Obj:
    sub, item = _parent(call.tx, call.id)
    entry = {name: call.params[name] for name in _ITEM_FIELDS if name in call.params}
    _through(call, sub, {**entry, "id": item["id"]})
    return retrieve_item(call)


def create_item(call: Call) -> Obj:
    sub = reference(call.tx, "subscription", call.params["subscription"], "subscription")
    entry = {name: call.params[name] for name in _ITEM_FIELDS if name in call.params}
    before = {item["id"] for item in sub["_items"]}
    _through(call, sub, entry)
    after = call.tx.need("subscription", sub["id"])
    made = next(item for item in after["_items"] if item["id"] not in before)
    return subscription_item(call.tx, made)


def delete_item(call: Call) -> Obj:
    sub, item = _parent(call.tx, call.id)
    _through(call, sub, {"id": item["id"], "deleted": True})
    return {"id": item["id"], "object": "subscription_item", "deleted": True}
