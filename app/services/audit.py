"""Who did what to whom on a subscription, before and after, by which door."""

from __future__ import annotations

from app.cache import audit
from app.domain.ids import SubscriptionId
from app.domain.roles import Permission, require
from app.domain.snapshots import JsonObject
from app.services.actors import Actor
from app.services.context import Context
from app.services.subscriptions import read


async def events(
    context: Context, actor: Actor, subscription_id: SubscriptionId, *, before: int | None, limit: int
) -> list[JsonObject]:
    """Newest first, for whoever may see the members. Raises NotFound and Forbidden `role_required`."""
    async with context.database.connection() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        require(seen.granted, Permission.SEE_MEMBERS)
        return await audit.page(connection, subscription_id, before=before, limit=limit)
