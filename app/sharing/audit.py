"""The audit trail of a subscription: who changed what, before and after."""

from __future__ import annotations

from typing import Final

from app.context import Context
from app.domain.ids import SubscriptionId
from app.domain.roles import Permission, require
from app.domain.snapshots import JsonObject
from app.identity.actors import Actor
from app.mirror.store import audit
from app.mirror.visibility import read

_NOBODY: Final[JsonObject] = {"operation_id": None, "principal": None, "actor_id": None}


async def events(
    context: Context, actor: Actor, subscription_id: SubscriptionId, *, before: int | None, limit: int
) -> list[JsonObject]:
    """Return the entries before the one with this number, newest first.

    A payer who is not the owner sees what was bought, changed and ended in their name, and no members. An operation on
    another subscription may end a membership of an ended one. Only a service key that acts for nobody sees whose it is.

    Raises:
        NotFound: the actor may not see the subscription.
        Forbidden: `role_required`.
    """
    async with context.database.reading() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        require(seen.granted, Permission.SEE_PURCHASES)
        with_members = Permission.SEE_MEMBERS in seen.granted
        found = await audit.page(
            connection, subscription_id, with_members=with_members, before=before, limit=limit
        )
    if actor.is_service:
        return found
    found = [row | _NOBODY if row["is_of_another"] else row for row in found]
    if with_members:
        return found
    view = seen.view
    shown = {view.customer_id, None if view.owner is None else view.owner.customer_id}
    return [row if row["actor_id"] in shown else {**row, "actor_id": None} for row in found]
