"""Accept an invitation: an operation that adds the accepting customer to the seat that the invitation reserved.

The right to add them is the inviter's, not the caller's. It is checked at the admission and again at the sending
(`app.sharing.people_rules`), and the invitation ends in the transaction that settles the addition.
"""

from __future__ import annotations

from app.context import Context
from app.customers.store import customers
from app.domain.emails import ascii_lowered
from app.domain.ids import CustomerId
from app.domain.roles import Role
from app.domain.seats import is_shareable
from app.domain.snapshots import JsonObject
from app.domain.statuses import ENDED, entitlements
from app.domain.views import SubscriptionView
from app.errors import Conflict, Forbidden, NotFound
from app.identity.actors import Actor
from app.identity.principals import EndUser
from app.mirror.store import subscriptions
from app.operations import people_store
from app.operations import store as operations
from app.postgres.database import Connection, UniqueViolation
from app.sharing import invitation_store as invitations
from app.sharing.admission import Admitted, insert_steps
from app.sharing.invitation_store import ACCEPT_INVITATION, Invitation
from app.sharing.invitation_tokens import TokenName
from app.sharing.invitations import ended, of_token
from app.sharing.member_changes import Action, Decision, MemberChange, Verdict, judge
from app.sharing.people import as_person
from app.sharing.people_rules import may_invite
from app.sharing.seat_changes import seats_lacking


async def check_usable(context: Context, actor: Actor, name: TokenName) -> None:
    """Check, before a customer is created for the caller, that the token opens something for them.

    Raises:
        NotFound: the token is unknown or superseded.
        Conflict: `invitation_ended`.
        Forbidden: `invitation_for_another`, if the setting binds invitations to their address.
    """
    async with context.database.connection() as connection:
        found = await of_token(connection, name)
        if found.state != "open" and not _was_accepted_by(actor.customer_id, found):
            raise ended()
        if context.rules.invitation_email_must_match:
            await _check_address(connection, actor, found)


def _was_accepted_by(customer_id: CustomerId | None, found: Invitation) -> bool:
    return found.state == "accepted" and customer_id is not None and found.acceptor_id == customer_id


async def _check_address(connection: Connection, actor: Actor, found: Invitation) -> None:
    """Check that the invitation was sent to the caller's address: their token's verified one, or the customer's."""
    if isinstance(actor.principal, EndUser):
        email = actor.principal.email if actor.principal.email_verified else None
    else:
        profile = (
            None if actor.customer_id is None else await customers.profile(connection, actor.customer_id)
        )
        email = None if profile is None else profile["email"]
    if email is None or found.email is None or ascii_lowered(email) != ascii_lowered(found.email):
        raise Forbidden(
            "This invitation was sent to another address. Sign in with the address that it was sent to.",
            code="invitation_for_another",
        )


async def accept(context: Context, actor: Actor, name: TokenName, operation_id: str) -> Admitted:
    """Admit the acceptance by the actor's customer; the same person again gets the same operation.

    Raises:
        NotFound: the token is unknown or superseded.
        Conflict: `invitation_ended`, also if the inviter has lost the right to invite; `operation_in_progress` while
            somebody is being added to its seat. `seat_limit_reached`, `cannot_be_added`, `not_shareable` and
            `subscription_not_active` leave it open.
    """
    try:
        with subscriptions.refused_if_locked():
            async with context.database.transaction() as connection:
                admitted = await _accepted(context, connection, actor, name, operation_id)
    except UniqueViolation:
        raise Conflict("This person is being added elsewhere right now.", retry_after=2) from None
    if admitted is None:
        # Raised only here, after the commit: a rollback would leave the invitation open.
        raise ended()
    return admitted


async def _accepted(
    context: Context, connection: Connection, actor: Actor, name: TokenName, operation_id: str
) -> Admitted | None:
    """Admit the acceptance. Returns None if the inviter's right is lost; then the invitation is revoked."""
    known = await of_token(connection, name)
    await subscriptions.lock(connection, known.subscription_id)
    found = await of_token(connection, name, locked=True)
    customer_id = CustomerId(str(actor.customer_id))
    if _was_accepted_by(customer_id, found) or (found.is_used and found.acceptor_id == customer_id):
        return Admitted.before(str(found.operation_id))
    if found.state != "open":
        raise ended()
    if found.is_used:
        raise Conflict(
            "Somebody is being added to this seat right now. Try again in a moment.", retry_after=2
        )
    if await operations.operation(connection, operation_id) is not None:
        return Admitted.before(operation_id)
    view = await subscriptions.subscription_view(connection, found.subscription_id, asker=customer_id)
    if view is None or not await _holds(context, connection, found):
        await invitations.end(
            connection, found.id, "revoked", reason="right_lost", principal=invitations.SYSTEM
        )
        return None
    step = await _step(context, connection, view, found, customer_id)
    request = {"invitation_id": found.id, "inviter_id": found.inviter_id}
    admitted = await insert_steps(
        context, connection, actor, view.id, operation_id, ACCEPT_INVITATION, [step], request
    )
    await invitations.begin_acceptance(
        connection, found.id, acceptor_id=customer_id, operation_id=operation_id
    )
    if not admitted.anything_to_run:
        await invitations.accepted(connection, found.id, principal=actor.principal.key)
    return admitted


async def _holds(context: Context, connection: Connection, found: Invitation) -> bool:
    """Return True while the inviter may invite somebody in this role. A service key's invitation rests on itself."""
    if found.inviter_id is None:
        return True
    seen = await subscriptions.subscription_view(connection, found.subscription_id, asker=found.inviter_id)
    return seen is not None and may_invite(seen, found.inviter_id, found.role, context.rules)


async def _step(
    context: Context,
    connection: Connection,
    view: SubscriptionView,
    found: Invitation,
    customer_id: CustomerId,
) -> JsonObject:
    """Return the one step of an acceptance.

    An owner, or a member with this role or a higher one, uses the invitation up. A member with a lower role is raised.
    """
    role = view.role_of(customer_id)
    before = None if role is Role.OWNER else view.asker_role
    step: JsonObject = {
        "position": 0,
        "action": Action.ADD.value,
        "customer_id": customer_id,
        "role": found.role,
        "role_before": before,
        "state": "planned",
        "details": {},
        "invitation_id": found.id,
    }
    if role is Role.OWNER or before in (Role.MANAGER, found.role):
        return {**step, "role": before, "state": "unchanged"}
    if not is_shareable(view.seat_items()) or view.owner is None:
        raise Conflict("This subscription takes no members now.", code="not_shareable")
    allowed = entitlements(view.status, past_due_allows_new_seats=context.rules.past_due_allows_new_seats)
    action = Action.ADD if before is None else Action.UPDATE
    people = await people_store.people_by_id(connection, view.id, [customer_id], ended=sorted(ENDED))
    if not people:
        raise NotFound()
    person = as_person(people[0], view, None, context.rules.memberships_per_customer)
    _check_verdict(judge(MemberChange(action, person, found.role), allowed))
    if action is Action.ADD and await seats_lacking(context, connection, view) is not None:
        # The caller is no member, so the numbers are not theirs to see.
        raise Conflict(
            "The subscription has more members than seats. Ask its owner to free a seat, then accept again.",
            code="seat_limit_reached",
        )
    return {**step, "action": action.value}


def _check_verdict(decision: Decision) -> None:
    """Check what the rules say of adding the caller, or of raising them."""
    if decision.verdict is Verdict.RUN:
        return
    if decision.code == "subscription_not_active":
        raise Conflict(
            "The subscription's status does not allow new members. Ask its owner, then accept again.",
            code="subscription_not_active",
        )
    if decision.code == "operation_in_progress":
        raise Conflict("Another change of this person is still running.", retry_after=2)
    raise Conflict(
        "You are on as many other shared subscriptions as one person may be. Leave one of them, then accept again.",
        code="cannot_be_added",
    )
