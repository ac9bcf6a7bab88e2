"""Decide which events a reader of a stream is shown, by the reader's roles at the moment of sending."""

from __future__ import annotations

from typing import Final

from app.domain.ids import CustomerId
from app.domain.roles import Role
from app.domain.snapshots import JsonObject

EVERYTHING: Final = frozenset({Role.OWNER, Role.MANAGER})
"""Roles that are shown every event."""
_OF_SUBSCRIPTION: Final = frozenset({"subscription.changed", "owner.changed"})
_OF_PAYER: Final = _OF_SUBSCRIPTION | {"seats.changed"}


def concerns(event: JsonObject, reader: CustomerId) -> bool:
    """Return True if the event is about the reader's own seat, access or ownership."""
    if event["type"].startswith(("seat.", "access.")):
        return bool(event["customer_id"] == reader)
    data = event["data"]
    return event["type"] == "owner.changed" and reader in (data["owner_id"], data["previous_owner_id"])


def shown_to(event: JsonObject, reader: CustomerId | None, roles: frozenset[Role]) -> JsonObject | None:
    """Return the event as a reader with these roles is shown it, or None. A service key is no `reader`.

    Owners and managers are shown every event, and of other people's access only what this subscription gives. A user is
    shown their own seat and access, the subscription without prices, and its owner. A payer is shown the subscription,
    the number of seats, and the owner. Readers who are not shown every event get no sequence, because its gaps would
    tell them how many events they are not shown.
    """
    if reader is None:
        return event
    if event.get("is_of_another"):
        # An addition elsewhere clears the keys of ended subscriptions in its own write.
        event = {**event, "data": {**event["data"], "operation_id": None}}
    if roles & EVERYTHING:
        return event if concerns(event, reader) else _without_others(event)
    kind = event["type"]
    is_payer = Role.PAYER in roles
    if not (kind in _OF_SUBSCRIPTION or (is_payer and kind in _OF_PAYER) or concerns(event, reader)):
        return None
    shown = {**event, "sequence": None, "previous_sequence": None}
    if kind == "subscription.changed" and not is_payer:
        items = [{**item, "price_id": None} for item in event["data"]["items"]]
        shown["data"] = {**event["data"], "items": items}
    return shown


def _without_others(event: JsonObject) -> JsonObject:
    """Return the event without the other subscription by which a person has access from now on.

    No read of this subscription names it, so the event says what it would say if the person had no other one. See
    docs/decisions/0078-show-a-stream-only-the-access-that-its-subscription-gives.md.
    """
    data = event["data"]
    if event["type"] != "access.changed" or data["subscription_id"] in (None, event["subscription_id"]):
        return event
    nothing = {"has_access": False, "via": None, "role": None, "subscription_id": None}
    return {**event, "data": {**data, **nothing}}
