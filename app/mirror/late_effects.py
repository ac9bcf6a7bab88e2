"""Find our own writes that took effect after their operation was settled, by the key on their event.

This happens only if a process was stopped between the check and the request and resumed much later.
"""

from __future__ import annotations

import re

import structlog

from app.context import Context
from app.mirror.store import audit
from app.stripe.webhooks import Event

log = structlog.get_logger(__name__)


NAME = "late_effects"
KINDS = ("customer", "subscription")

_OUR_KEY = re.compile(r"(op_[0-9a-f]{24})/(\d{1,4})/\d+(?:/waiting|/end)?")


async def watch(context: Context, event: Event, kind: str) -> None:
    """Record and count an event that is the effect of a settled operation. `kind` is the kind of the event's object.

    Raises:
        ServiceUnavailable: the database does not answer.
    """
    key = None if event.idempotency_key is None else _OUR_KEY.fullmatch(event.idempotency_key)
    object_id = event.object.get("id")
    if key is None or kind not in KINDS or not isinstance(object_id, str):
        return
    async with context.database.connection() as connection:
        late = await audit.record_late_effect(
            connection,
            event_id=event.id,
            event_type=event.type,
            operation_id=key[1],
            position=int(key[2]),
            created=event.created,
            subscription_id=object_id if kind == "subscription" else "",
            customer_id=object_id if kind == "customer" else None,
            margin=context.rules.margin,
        )
    if late:
        context.counts.add(NAME, kind)
        log.error("late_effect", operation_id=key[1], event_id=event.id)
