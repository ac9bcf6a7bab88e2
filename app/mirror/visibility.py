"""Reading subscriptions: who may see one, as what, and with which rights."""

from __future__ import annotations

from dataclasses import dataclass

from app.context import Context, Rules
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.roles import Permission, Role, permissions_of_all
from app.domain.views import SubscriptionView
from app.errors import NotFound
from app.identity import store as identities
from app.identity.actors import Actor, identify_on
from app.identity.principals import EndUser, Principal
from app.mirror.store import subscriptions
from app.postgres.database import Connection

_EVERYTHING = frozenset(Permission)
_OWNERS_MATTER = frozenset({Permission.CHANGE_USERS, Permission.CHANGE_MANAGERS, Permission.BUY_SEATS})


@dataclass(frozen=True, slots=True)
class Seen:
    """A subscription as one actor may see it; `role` is None for a service key that acts for nobody."""

    view: SubscriptionView
    role: Role | None
    granted: frozenset[Permission]

    @property
    def sees_payers_own(self) -> bool:
        """True if payment methods and links to invoices are shown: not to a manager, unless they pay themselves."""
        return self.role is not Role.MANAGER or Permission.GRANT_PURCHASES in self.granted


def see(view: SubscriptionView, actor: Actor, rules: Rules) -> Seen | None:
    """None where the actor may not know of it: the caller answers as for an absent id."""
    if actor.is_service:
        return Seen(view, None, _EVERYTHING)
    return None if actor.customer_id is None else see_as(view, actor.customer_id, rules)


def see_as(view: SubscriptionView, customer_id: CustomerId, rules: Rules) -> Seen | None:
    """What one customer may see; the view must have been read for that customer."""
    role = view.role_of(customer_id)
    return None if role is None else Seen(view, role, _granted(view, customer_id, rules))


def _granted(view: SubscriptionView, customer_id: CustomerId, rules: Rules) -> frozenset[Permission]:
    """The rights of every role that the customer has; while nobody owns a shared plan, its people are not managed."""
    roles = view.roles_of(customer_id)
    if view.owner is None:
        # Without an owner only the payer of a subscription of their own may buy: a manager has nobody to buy for.
        may_purchase = Role.OWNER in roles
    else:
        may_purchase = view.owner.customer_id == view.customer_id or view.owner_may_purchase
    granted = permissions_of_all(roles, rules.roles, owner_may_purchase=may_purchase)
    return granted - _OWNERS_MATTER if view.owner is None and view.is_shared() else granted


async def read(connection: Connection, actor: Actor, subscription_id: SubscriptionId, rules: Rules) -> Seen:
    """Raises NotFound for an absent id and for one that the actor has no role on, alike."""
    view = await subscriptions.subscription_view(connection, subscription_id, asker=actor.customer_id)
    seen = None if view is None else see(view, actor, rules)
    if seen is None:
        raise NotFound()
    return seen


async def get(context: Context, actor: Actor, subscription_id: SubscriptionId) -> Seen:
    async with context.database.connection() as connection:
        return await read(connection, actor, subscription_id, context.rules)


async def get_as(context: Context, principal: Principal, subscription_id: SubscriptionId) -> Seen:
    """The hot read: who asks and what he sees in one statement, once a login is linked."""
    async with context.database.connection() as connection:
        if isinstance(principal, EndUser):
            linked, view = await subscriptions.view_for_login(
                connection, subscription_id, issuer=principal.issuer, subject=principal.subject
            )
            if linked is not None and principal.customer_claim in (None, linked):
                seen = None if view is None else see_as(view, linked, context.rules)
                if seen is None:
                    raise NotFound()
                return seen
        actor = await identify_on(connection, principal)
        actor.require_scope("read")
        return await read(connection, actor, subscription_id, context.rules)


async def of_customer(
    context: Context, customer_id: CustomerId, *, statuses: list[str] | None, role: Role | None
) -> list[Seen]:
    """Every subscription that the customer pays for, owns or is a member of, newest first, as he may see it."""
    async with context.database.connection() as connection:
        views = await subscriptions.customer_subscriptions(connection, customer_id, statuses=statuses)
        if not views and not await identities.is_present(connection, customer_id):
            raise NotFound()
    found = []
    for view in views:
        seen = see_as(view, customer_id, context.rules)
        if seen is not None and role in (None, seen.role):
            found.append(seen)
    return found
