"""Receive webhook events: apply the payload, or count a notification so that the object is fetched again.

See docs/decisions/0021-apply-a-payload-only-when-clearly-newer.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache

from prometheus_client import Counter

from app.context import Context
from app.domain.ids import is_id_of
from app.domain.snapshots import Snapshot
from app.mirror import late_effects
from app.mirror.ingest import Ingest
from app.mirror.store import inbox
from app.mirror.store.rows import EventRecord
from app.postgres.database import StatementRefused
from app.stripe import parsing, webhooks
from app.stripe.client import API_VERSION
from app.stripe.parsing import MalformedObject
from app.stripe.webhooks import Event

EVENTS = Counter("coseat_webhook_events", "Deliveries that were verified, by what was done", ["outcome"])

_DELETED = frozenset({"customer.deleted", "product.deleted", "price.deleted", "invoice.deleted"})
_OWN_OBJECT = {
    "customer.subscription.": "subscription",
    "customer.discount.": "",
    "customer.source.": "",
    "customer.tax_id.": "",
    "customer.": "customer",
    # A preview of the next invoice. It is no invoice yet, although it may have an id.
    "invoice.upcoming": "",
    "invoice.": "invoice",
    "payment_method.": "payment_method",
    "product.": "product",
    "price.": "price",
}


def kind_of(event_type: str) -> str:
    """Return the kind of the object in events of this type, "" if it is not mirrored."""
    for prefix, kind in _OWN_OBJECT.items():
        if event_type.startswith(prefix):
            return kind
    return ""


def notified_objects(event: Event) -> list[tuple[str, str]]:
    """Return the kind and id of mirrored objects that an event about another object has changed.

    The object may have named them only before the event: a detached payment method does not name its former customer,
    whose default payment method it may have been.
    """
    found = [
        (kind, value)
        for kind in ("customer", "subscription")
        if parsing.is_id(value := event.previous.get(kind)) and is_id_of(kind, value)
    ]
    references = {
        "customer.discount.": ("customer", "subscription"),
        "customer.source.": ("customer",),
        "invoice_payment.": ("invoice",),
    }
    for prefix, kinds in references.items():
        if event.type.startswith(prefix):
            named = ((kind, event.object.get(kind)) for kind in kinds)
            found += [
                (kind, value) for kind, value in named if parsing.is_id(value) and is_id_of(kind, value)
            ]
    if event.type.startswith("customer.source."):
        # Stripe lists a source as a payment method too, and sends no event of the payment method.
        source_id = event.object.get("id")
        if parsing.is_id(source_id) and is_id_of("payment_method", source_id):
            found.append(("payment_method", source_id))
    return found


def news_of(event: Event) -> list[tuple[str, str]]:
    """Return the kind and id of every mirrored object that an event has changed."""
    kind, object_id = kind_of(event.type), event.object.get("id")
    is_own = event.object.get("object") == kind and parsing.is_id(object_id) and is_id_of(kind, object_id)
    return [*notified_objects(event), *([(kind, str(object_id))] if kind and is_own else [])]


async def receive(
    context: Context,
    ingest: Ingest,
    *,
    body: bytes,
    signature: str | None,
    secrets: Sequence[str],
    livemode: bool,
) -> str:
    """Verify and apply one delivery; return the outcome as `webhook_events.outcome` records it.

    When this returns the event is durable, so the route may answer 2xx. A duplicate changes nothing. `livemode` is the
    mode of this service; events of the other mode are ignored.

    Raises:
        InvalidWebhook: the signature is missing, wrong or old, or the body is no event.
        ServiceUnavailable: the database does not answer.
    """
    webhooks.verify(body, signature, secrets)
    event = webhooks.read(body)
    outcome = (
        "ignored: thin event" if event is None else await _take(context, ingest, event, livemode=livemode)
    )
    _counter(outcome).inc()
    return outcome


@lru_cache(maxsize=64)
def _counter(outcome: str) -> Counter:
    """Return the counter of an outcome without the library's slower look-up. There are few outcomes."""
    return EVENTS.labels(outcome.partition(":")[0])


async def _take(context: Context, ingest: Ingest, event: Event, *, livemode: bool) -> str:
    kind = kind_of(event.type)
    if event.livemode != livemode:
        return await _claim(context, event, "foreign: other mode")
    if event.accounts and set(event.accounts) != {await ingest.own_account(context)}:
        return await _claim(context, event, "foreign: other account")
    notifications = notified_objects(event)
    if not kind or event.object.get("object") != kind:
        return await _claim(
            context,
            event,
            "noted: related" if notifications else "ignored: not kept",
            notifications,
        )
    object_id = event.object.get("id")
    if not parsing.is_id(object_id) or not is_id_of(kind, object_id):
        return await _claim(context, event, "ignored: not its id", notifications)
    await late_effects.watch(context, event, kind)
    reason = "changes others" if notifications else _distrust(event)
    snapshot = None if notifications else _parsed(event, kind)
    if snapshot is None:
        # The payload changes several objects, is malformed, or has another version's layout. Ids are enough to fetch.
        return await _claim(
            context, event, f"noted: {reason or 'unreadable'}", [(kind, object_id), *notifications]
        )
    record = EventRecord(
        event.id, event.type, object_id, event.created, usable=reason is None, reason=f"noted: {reason}"
    )
    try:
        effect = await ingest.apply(context.database, record, snapshot, margin=context.rules.margin)
    except StatementRefused:
        return await _claim(context, event, "noted: not storable", [(kind, object_id), *notifications])
    return effect.outcome


def _distrust(event: Event) -> str | None:
    """Return why the payload cannot be applied, None if it can. A deletion is complete in every version."""
    if event.type in _DELETED:
        return None
    if event.api_version != API_VERSION:
        return "other version"
    try:
        return None if parsing.is_complete(event.object) else "list cut short"
    except MalformedObject:
        return "unreadable"


def _parsed(event: Event, kind: str) -> Snapshot | None:
    source = {**event.object, "deleted": True} if event.type in _DELETED else event.object
    if kind == "customer" and event.type in _DELETED:
        source = {"id": event.object.get("id"), "created": event.object.get("created"), "deleted": True}
    try:
        snapshot = parsing.snapshot(kind, source)
    except MalformedObject:
        return None
    return dataclasses.replace(snapshot, deleted=True) if event.type in _DELETED else snapshot


async def _claim(
    context: Context, event: Event, outcome: str, notifications: Sequence[tuple[str, str]] = ()
) -> str:
    object_id = event.object.get("id")
    async with context.database.connection() as connection:
        claimed = await inbox.claim(
            connection,
            event_id=event.id,
            event_type=event.type,
            object_id=object_id if parsing.is_id(object_id) else None,
            created=event.created,
            outcome=outcome,
            notifications=list(notifications),
        )
    return outcome if claimed else "duplicate"
