"""Invite people to a subscription: an invitation reserves a seat by number, and writes nothing at Stripe.

The person may accept it as whatever customer they are. See docs/decisions/0040-compute-the-token-of-an-invitation.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from app.context import Context
from app.domain.emails import ascii_lowered
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.roles import Permission, require
from app.domain.seats import Seats, is_shareable
from app.domain.statuses import entitlements
from app.domain.views import SubscriptionView
from app.errors import Conflict, NotFound
from app.identity.actors import Actor
from app.mirror.store import audit, members, subscriptions
from app.mirror.store.members import MemberQuery
from app.mirror.visibility import Seen, read
from app.postgres.database import Connection
from app.sharing import invitation_store as invitations
from app.sharing.invitation_store import Invitation
from app.sharing.invitation_tokens import TokenName
from app.sharing.member_changes import Action, MemberChange, Person, permissions_needed
from app.sharing.seat_changes import check_owner_is_certain, seats_lacking


@dataclass(frozen=True, slots=True)
class NewInvitation:
    """What a caller asks for. `email` is as it was typed, `role` is `user` or `manager`."""

    email: str
    role: str


class Invited(NamedTuple):
    """An invitation, and the seats of its subscription."""

    invitation: Invitation
    seats: Seats


class Looked(NamedTuple):
    """An open invitation as its token shows it, without a login."""

    invitation: Invitation
    product_id: str
    product_name: str | None


async def create(
    context: Context, actor: Actor, subscription_id: SubscriptionId, asked: NewInvitation, invitation_id: str
) -> Invited:
    """Invite an address, and reserve a seat until the invitation ends.

    A second call with the same `invitation_id` returns the invitation of the first.

    Raises:
        NotFound: the actor may not see the subscription.
        Forbidden: `role_required`.
        Conflict: `not_shareable`, `subscription_not_active`, `already_invited`, `already_member`,
            `operation_in_progress` while the owner is being changed, or `seat_limit_reached` with the numbers.
    """
    async with subscriptions.admitting(context.database, subscription_id) as connection:
        seen = await _inviting(context, connection, actor, subscription_id, asked.role)
        again = await invitations.one(connection, invitation_id)
        if again is not None:
            return Invited(again, seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat))
        _check_open(context, seen.view)
        await _check_address(connection, seen.view, asked.email)
        await check_owner_is_certain(context, connection, seen.view)
        details = await seats_lacking(context, connection, seen.view, added=1)
        if details is not None:
            raise Conflict(
                "There is no free seat for this invitation. Buy a seat, or revoke an open invitation.",
                code="seat_limit_reached",
                members=details,
            )
        await invitations.create(
            connection,
            invitation_id,
            subscription_id=subscription_id,
            email=asked.email,
            role=asked.role,
            inviter_id=actor.customer_id,
            days=context.rules.invitation_days,
        )
        invitation = await _existing(connection, subscription_id, invitation_id)
        await _record(connection, actor, invitation, "invitation_created")
        return Invited(invitation, await _seats(context, connection, actor, subscription_id))


async def _inviting(
    context: Context, connection: Connection, actor: Actor, subscription_id: SubscriptionId, role: str
) -> Seen:
    """Free the seats of invitations whose term is over, and check that the actor may invite.

    Their membership cannot end in between, so its end sees the invitation and revokes it.
    """
    await invitations.expire_due(connection, subscription_id=subscription_id)
    if actor.customer_id is not None:
        await invitations.hold_inviter(connection, subscription_id, actor.customer_id)
    seen = await read(connection, actor, subscription_id, context.rules)
    require(seen.granted, *_permissions(role))
    return seen


def _permissions(role: str) -> list[Permission]:
    return sorted(permissions_needed([MemberChange(Action.ADD, Person(None), role)]))


def _check_open(context: Context, view: SubscriptionView) -> None:
    """Check that the subscription takes new members now."""
    if not is_shareable(view.seat_items()):
        raise Conflict("No product of this subscription supports sharing.", code="not_shareable")
    if view.owner is None:
        raise Conflict(
            "Nobody owns this subscription, so nobody can be invited. Name an owner first.",
            code="not_shareable",
        )
    allowed = entitlements(view.status, past_due_allows_new_seats=context.rules.past_due_allows_new_seats)
    if not allowed.new_seats:
        raise Conflict(
            "The subscription's status does not allow new members.", code="subscription_not_active"
        )


async def _check_address(connection: Connection, view: SubscriptionView, email: str) -> None:
    """Check that nobody with this address is invited, or is shown among the people of the subscription."""
    address = ascii_lowered(email)
    for invitation in (await invitations.open_to(connection, view.id, [address])).values():
        raise Conflict(
            "email: there is an open invitation to this address. Resend or revoke it.",
            code="already_invited",
            members={"invitation_id": invitation.id},
        )
    if await _is_shown(connection, view, address):
        raise Conflict(
            "email: somebody with this address is on the subscription already. Change their role instead.",
            code="already_member",
        )


async def _is_shown(connection: Connection, view: SubscriptionView, address: str) -> bool:
    """Return True if the list of people shows this address, as it was typed or as the member's own."""
    owner_id = None if view.owner is None else view.owner.customer_id
    selected = MemberQuery(view.id, owner_id, None, address)
    shown = [None if view.owner is None else view.owner.email]
    shown += [row.email for row in await members.with_address(connection, selected, after="", limit=1)]
    shown += [one.row.email for one in await members.pending(connection, selected)]
    return address in (ascii_lowered(email) for email in shown if email is not None)


async def _seats(
    context: Context, connection: Connection, actor: Actor, subscription_id: SubscriptionId
) -> Seats:
    seen = await read(connection, actor, subscription_id, context.rules)
    return seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat)


async def _existing(
    connection: Connection, subscription_id: SubscriptionId, invitation_id: str, *, locked: bool = False
) -> Invitation:
    look = invitations.lock if locked else invitations.one
    found = await look(connection, invitation_id)
    if found is None or found.subscription_id != subscription_id:
        raise NotFound()
    return found


async def _record(connection: Connection, actor: Actor, invitation: Invitation, action: str) -> None:
    await audit.record(
        connection,
        subscription_id=invitation.subscription_id,
        principal=actor.principal.key,
        actor_id=actor.customer_id,
        action=action,
        before={},
        after=invitations.recorded(invitation),
    )


async def page(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    *,
    states: Sequence[str],
    before: int | None,
    limit: int,
) -> list[Invitation]:
    """Return the invitations older than number `before` in these states, newest first.

    Raises:
        NotFound: the actor may not see the subscription.
        Forbidden: `role_required`.
    """
    async with context.database.reading() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        require(seen.granted, Permission.SEE_MEMBERS)
        return await invitations.page(connection, subscription_id, states=states, before=before, limit=limit)


async def resend(
    context: Context, actor: Actor, subscription_id: SubscriptionId, invitation_id: str
) -> Invited:
    """Make the old token void and begin a new term. The inviter stays the same.

    Raises:
        NotFound: the actor may not see the subscription, or it has no such invitation.
        Forbidden: `role_required`.
        Conflict: `invitation_ended`; `operation_in_progress` while somebody is being added to its seat, because the
            person who accepts may send the same token again.
    """
    async with subscriptions.admitting(context.database, subscription_id) as connection:
        seen = await _inviting(context, connection, actor, subscription_id, "user")
        found = await _existing(connection, subscription_id, invitation_id, locked=True)
        require(seen.granted, *_permissions(found.role))
        if found.state != "open":
            raise ended()
        if found.is_used:
            raise _in_use()
        await invitations.restart(connection, invitation_id, days=context.rules.invitation_days)
        invitation = await _existing(connection, subscription_id, invitation_id)
        await _record(connection, actor, invitation, "invitation_resent")
        return Invited(invitation, seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat))


async def revoke(context: Context, actor: Actor, subscription_id: SubscriptionId, invitation_id: str) -> None:
    """End an open invitation and free its seat; again changes nothing.

    Raises:
        NotFound: the actor may not see the subscription, or it has no such invitation.
        Forbidden: `role_required`.
        Conflict: `invitation_ended` if it ended otherwise; `operation_in_progress` while its acceptance is at Stripe.
    """
    async with subscriptions.admitting(context.database, subscription_id) as connection:
        seen = await _inviting(context, connection, actor, subscription_id, "user")
        found = await _existing(connection, subscription_id, invitation_id, locked=True)
        require(seen.granted, *_permissions(found.role))
        await _end(connection, found, "revoked", principal=actor.principal.key, actor_id=actor.customer_id)


async def _end(
    connection: Connection,
    found: Invitation,
    state: str,
    *,
    principal: str,
    actor_id: CustomerId | None = None,
) -> None:
    if found.state == state:
        return
    if found.state != "open":
        raise ended()
    if found.was_sent:
        raise _in_use()
    await invitations.end(connection, found.id, state, principal=principal, actor_id=actor_id)


def _in_use() -> Conflict:
    return Conflict(
        "Somebody is being added to the seat of this invitation. Ask again in a moment.", retry_after=2
    )


def ended() -> Conflict:
    """Return the error for an invitation that cannot be used any more."""
    return Conflict(
        "This invitation has ended. Ask for a new one, which an owner or manager of the subscription sends.",
        code="invitation_ended",
    )


async def of_token(connection: Connection, name: TokenName, *, locked: bool = False) -> Invitation:
    """Return the invitation that a verified token names.

    Raises:
        NotFound: there is no such invitation, or it was resent since.
    """
    look = invitations.lock if locked else invitations.one
    found = await look(connection, name.invitation_id)
    if found is None or found.generation != name.generation:
        raise NotFound()
    return found


async def look_up(context: Context, name: TokenName) -> Looked:
    """Return what an open invitation is for. It changes nothing: mail scanners follow links too.

    Raises:
        NotFound: the token is unknown or superseded.
        Conflict: `invitation_ended`.
    """
    async with context.database.reading() as connection:
        found = await of_token(connection, name)
        view = await subscriptions.subscription_view(connection, found.subscription_id, asker=None)
    if found.state != "open" or view is None:
        raise ended()
    products = [item["product"] for item in view.items]
    shared = [product for product in products if product["supports_shared_subscriptions"]] or products
    return Looked(found, shared[0]["id"], shared[0]["name"])


async def decline(context: Context, name: TokenName, *, principal: str) -> None:
    """Decline an open invitation, which frees its seat; again changes nothing.

    `principal`: the caller's name in the audit trail.

    Raises:
        NotFound: the token is unknown or superseded.
        Conflict: `invitation_ended` if it ended otherwise; `operation_in_progress` while its acceptance is at Stripe.
    """
    with subscriptions.refused_if_locked():
        async with context.database.transaction() as connection:
            known = await of_token(connection, name)
            await subscriptions.lock(connection, known.subscription_id)
            found = await of_token(connection, name, locked=True)
            await _end(connection, found, "declined", principal=principal)
