"""The payer's word that the owner may buy in their name: given and withdrawn at any time, for one owner.

Rules: docs/decisions/0006-keep-the-payers-end-and-permission-theirs.md. A purchase that was not sent to Stripe yet
rests on the permission and ends with it, and so does one that waits for its payment. The right is checked again
at each sending (`app.subscriptions.subscription_rules`).
"""

from __future__ import annotations

from app.context import Context
from app.domain.ids import SubscriptionId
from app.domain.roles import Permission, require
from app.errors import Conflict
from app.identity.actors import Actor
from app.mirror.store import audit, subscriptions
from app.mirror.visibility import Seen, read
from app.operations import waiting_store
from app.operations.endings import PAYMENT_ABANDONED
from app.postgres.database import Connection
from app.sharing import store as transfers


async def give(context: Context, actor: Actor, subscription_id: SubscriptionId) -> Seen:
    """Let the present owner buy on the payer's account; again changes nothing.

    Raises:
        NotFound: there is no such subscription, or the actor may not see it.
        Forbidden: `role_required` for anybody but the payer and service keys.
        Conflict: `not_shareable` if nobody owns the subscription.
    """
    async with subscriptions.admitting(context.database, subscription_id) as connection:
        seen = await _shown(context, connection, actor, subscription_id)
        owner = seen.view.owner
        if owner is None:
            raise Conflict(
                "Nobody owns this subscription, so nobody can be allowed to buy. Name an owner first.",
                code="not_shareable",
            )
        if owner.customer_id != seen.view.customer_id and not seen.view.owner_may_purchase:
            await transfers.grant_purchases(
                connection,
                subscription_id,
                payer_id=seen.view.customer_id,
                owner_id=owner.customer_id,
                allowed=True,
            )
            await _record(connection, actor, subscription_id, "purchases_allowed", allowed=True)
        return await read(connection, actor, subscription_id, context.rules)


async def withdraw(context: Context, actor: Actor, subscription_id: SubscriptionId) -> None:
    """End the permission, and what rests on it; again changes nothing.

    An open offer of ownership no longer carries the permission, and a transfer under way does not bring it.
    Raises as `give`, but never Conflict.
    """
    async with subscriptions.admitting(context.database, subscription_id) as connection:
        seen = await _shown(context, connection, actor, subscription_id)
        await transfers.withdraw_purchases(connection, subscription_id)
        if seen.view.owner_may_purchase:
            needs = [permission.value for permission in _RESTING]
            await transfers.abandon_purchases(
                connection, subscription_id, payer_id=seen.view.customer_id, needs=needs
            )
            await waiting_store.end_those_resting(
                connection,
                subscription_id,
                payer_id=seen.view.customer_id,
                code=PAYMENT_ABANDONED,
                needs=needs,
            )
            await _record(connection, actor, subscription_id, "purchases_withdrawn", allowed=False)


_RESTING = (
    Permission.BUY_SEATS,
    Permission.LOWER_QUANTITY,
    Permission.CHANGE_SUBSCRIPTION,
    Permission.CANCEL_NOW,
    Permission.RESUME,
)


async def _shown(
    context: Context, connection: Connection, actor: Actor, subscription_id: SubscriptionId
) -> Seen:
    seen = await read(connection, actor, subscription_id, context.rules)
    if actor.customer_id != seen.view.customer_id:
        require(seen.granted, Permission.GRANT_PURCHASES)
    return seen


async def _record(
    connection: Connection, actor: Actor, subscription_id: SubscriptionId, action: str, *, allowed: bool
) -> None:
    await audit.record(
        connection,
        subscription_id=subscription_id,
        principal=actor.principal.key,
        actor_id=actor.customer_id,
        action=action,
        before={"owner_may_purchase": not allowed},
        after={"owner_may_purchase": allowed},
    )
