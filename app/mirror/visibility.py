"""Read subscriptions as an actor may see them: with the actor's role and permissions, or not at all.

See docs/decisions/0025-answer-alike-for-absent-and-hidden-objects.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.context import Context, Rules
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.roles import Permission, Role, permissions_of_all
from app.domain.views import SubscriptionView
from app.errors import NotFound
from app.identity import acts
from app.identity import store as identities
from app.identity.actors import Actor, identify_on
from app.identity.principals import EndUser, Principal
from app.mirror.store import subscriptions
from app.postgres.database import Connection

_EVERYTHING = frozenset(Permission)
_OWNERS_MATTER = frozenset({Permission.CHANGE_USERS, Permission.CHANGE_MANAGERS, Permission.BUY_SEATS})


@dataclass(frozen=True, slots=True)
class Seen:
    """A subscription as one actor may see it. `role` is None for a service key that acts for no customer."""

    view: SubscriptionView
    role: Role | None
    granted: frozenset[Permission]

    @property
    def sees_payers_own(self) -> bool:
        """Return True if payment methods and invoice links are shown: to all but managers who do not pay."""
        return self.role is not Role.MANAGER or Permission.GRANT_PURCHASES in self.granted


def see(view: SubscriptionView, actor: Actor, rules: Rules) -> Seen | None:
    """Return what the actor may see, None if the actor must not know that the subscription exists."""
    if actor.is_service:
        return Seen(view, None, _EVERYTHING)
    return None if actor.customer_id is None else see_as(view, actor.customer_id, rules)


def see_as(view: SubscriptionView, customer_id: CustomerId, rules: Rules) -> Seen | None:
    """Return what one customer may see, None for nothing. The view must have been read for that customer."""
    role = view.role_of(customer_id)
    return None if role is None else Seen(view, role, _granted(view, customer_id, rules))


def _granted(view: SubscriptionView, customer_id: CustomerId, rules: Rules) -> frozenset[Permission]:
    """Return the permissions of all roles of the customer. Without an owner, members cannot be managed."""
    roles = view.roles_of(customer_id)
    if view.owner is None:
        # Without an owner only the payer of an unshared subscription may buy, because a manager buys for the owner.
        may_purchase = Role.OWNER in roles
    else:
        may_purchase = view.owner.customer_id == view.customer_id or view.owner_may_purchase
    granted = permissions_of_all(roles, rules.roles, owner_may_purchase=may_purchase)
    return granted - _OWNERS_MATTER if view.owner is None and view.is_shared() else granted


async def read(connection: Connection, actor: Actor, subscription_id: SubscriptionId, rules: Rules) -> Seen:
    """Return a subscription as the actor may see it.

    Raises:
        NotFound: the id is absent, or the actor has no role on the subscription.
    """
    view = await subscriptions.subscription_view(connection, subscription_id, asker=actor.customer_id)
    seen = None if view is None else see(view, actor, rules)
    if seen is None:
        raise NotFound()
    return seen


async def get(context: Context, actor: Actor, subscription_id: SubscriptionId) -> Seen:
    """Return a subscription as the actor may see it. Raises NotFound, as `read` does, and ServiceUnavailable."""
    async with context.database.reading() as connection:
        return await read(connection, actor, subscription_id, context.rules)


async def get_as(context: Context, principal: Principal, subscription_id: SubscriptionId) -> Seen:
    """Return a subscription as a principal may see it, with one statement if a linked login sees it.

    Raises:
        NotFound: the id is absent, or the actor has no role on the subscription.
        Forbidden: the principal lacks the scope `read`.
        ServiceUnavailable: the database does not answer.
        BillingError: what `app.identity.actors.identify_on` raises.
    """
    async with context.database.reading() as connection:
        if isinstance(principal, EndUser):
            linked, view = await subscriptions.view_for_login(connection, subscription_id, principal)
            if linked is not None and principal.customer_claim in (None, linked.customer_id):
                seen = None if view is None else see_as(view, linked.customer_id, context.rules)
                if seen is not None:
                    if linked.has_news:
                        acts.note(context, principal)
                    return seen
        # Nothing was found, or the customer of the link was deleted: then the login may have another one by now.
        actor = await identify_on(context, connection, principal, reads=True)
        actor.require_scope("read")
        return await read(connection, actor, subscription_id, context.rules)


async def of_customer(
    context: Context, customer_id: CustomerId, *, statuses: Sequence[str] | None, role: Role | None
) -> list[Seen]:
    """Return every subscription that the customer pays for, owns or is a member of, newest first.

    Raises:
        NotFound: there is no such customer.
        ServiceUnavailable: the database does not answer.
    """
    async with context.database.reading() as connection:
        views = await subscriptions.customer_subscriptions(connection, customer_id, statuses=statuses)
        if not views and not await identities.is_present(connection, customer_id):
            raise NotFound()
    found = []
    for view in views:
        seen = see_as(view, customer_id, context.rules)
        if seen is not None and role in (None, seen.role):
            found.append(seen)
    return found
