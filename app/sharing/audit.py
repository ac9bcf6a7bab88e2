"""Who did what to whom on a subscription, before and after, by which door."""

from __future__ import annotations

import re

import structlog
from prometheus_client import Counter

from app.cache import audit
from app.domain.ids import SubscriptionId
from app.domain.roles import Permission, require
from app.domain.snapshots import JsonObject
from app.services.actors import Actor
from app.services.context import Context
from app.services.subscriptions import read
from app.stripe_gateway.webhooks import Event

log = structlog.get_logger(__name__)

LATE = Counter(
    "coseat_late_effects",
    "Writes that took effect after their operation was settled: a process had been stopped",
)

_OUR_KEY = re.compile(r"(op_[0-9a-f]{24})/(\d{1,4})/\d+(?:/waiting|/end)?")


async def events(
    context: Context, actor: Actor, subscription_id: SubscriptionId, *, before: int | None, limit: int
) -> list[JsonObject]:
    """Newest first. A payer who is not owner sees what was bought, changed and ended in their name, and no members.

    Raises NotFound and Forbidden `role_required`.
    """
    async with context.database.connection() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        require(seen.granted, Permission.SEE_PURCHASES)
        with_members = Permission.SEE_MEMBERS in seen.granted
        found = await audit.page(
            connection, subscription_id, with_members=with_members, before=before, limit=limit
        )
    if with_members:
        return found
    view = seen.view
    shown = {view.customer_id, None if view.owner is None else view.owner.customer_id}
    return [row if row["actor_id"] in shown else {**row, "actor_id": None} for row in found]


async def watch(context: Context, event: Event, kind: str) -> None:
    """Tells by an event's key whether it is an effect that came after its operation was settled."""
    key = None if event.idempotency_key is None else _OUR_KEY.fullmatch(event.idempotency_key)
    object_id = event.object.get("id")
    if key is None or kind not in ("customer", "subscription") or not isinstance(object_id, str):
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
        LATE.inc()
        log.error("late_effect", operation_id=key[1], event_id=event.id)
