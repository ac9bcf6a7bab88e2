"""Transfer of ownership in two steps: the owner offers, the new owner accepts.

Control moves, and the paying customer stays: they decide whether the new owner may buy on their account.
"""

from __future__ import annotations

import secrets

from app.context import Context
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.roles import Permission, Role
from app.domain.seats import owner_takes_seat
from app.domain.snapshots import JsonObject
from app.domain.statuses import ENDED, entitlements
from app.errors import Conflict, FieldError, Forbidden, NotFound
from app.identity.actors import Actor
from app.mirror.store import members, subscriptions
from app.mirror.visibility import Seen, get, read
from app.operations import people_store
from app.operations import store as operations
from app.operations.step_kinds import StepKind
from app.postgres.database import Connection, UniqueViolation
from app.sharing import owners
from app.sharing import store as transfers
from app.sharing.admission import Admitted, insert_steps
from app.sharing.seat_changes import seats_lacking
from app.sharing.store import Transfer


async def current(context: Context, actor: Actor, subscription_id: SubscriptionId) -> Transfer | None:
    """Return the newest offer, or None.

    Only its giver, its receiver, the owner and a service key see it.

    Raises:
        NotFound: the actor may not see the subscription.
    """
    async with context.database.reading() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        found = await transfers.newest(connection, subscription_id)
    if found is None or actor.is_service or seen.role is Role.OWNER:
        return found
    return found if actor.customer_id in (found.from_id, found.to_id) else None


async def offer(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    *,
    to_id: CustomerId,
    allow_purchases: bool,
    keep_me_as: str | None,
    operation_id: str,
) -> Admitted | None:
    """Offer ownership; return the operation if the payer becomes the owner at once.

    That is so if the subscription has no owner and the payer names themselves. Their seat is not asked for: until they
    own the subscription they can neither buy a seat nor free one. See
    docs/decisions/0064-repair-a-missing-owner-even-if-no-seat-is-free.md.

    Raises:
        NotFound: the actor may not see the subscription, or the receiver.
        Forbidden: `role_required` or `field_not_allowed`.
        Conflict: `subscription_not_active`, `already_member` or `operation_in_progress`.
        ServiceUnavailable: Stripe does not say whether the named owner exists.
    """
    if to_id == actor.customer_id:
        shown = await get(context, actor, subscription_id)
        # Nobody else may learn from the answer, or from its time, that the named owner is unconfirmed.
        if to_id == shown.view.customer_id and Permission.REPAIR_OWNER in shown.granted:
            await owners.confirm_absent(context, shown.view)
    async with subscriptions.admitting(context.database, subscription_id) as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        view = seen.view
        owner_id = None if view.owner is None else view.owner.customer_id
        # A payer who also has a seat may repair it too.
        repairs = owner_id is None and to_id == view.customer_id and Permission.REPAIR_OWNER in seen.granted
        if not (repairs or actor.is_service or seen.role is Role.OWNER):
            raise Forbidden("Only the owner can give a subscription away.")
        if view.status in ENDED:
            raise Conflict("This subscription has ended.", code="subscription_not_active")
        if repairs:
            return await _move(context, connection, actor, seen, operation_id, to_id=to_id, transfer=None)
        if to_id == owner_id:
            raise Conflict("This customer is the owner already.", code="already_member")
        await _check_receiver(connection, actor, subscription_id, to_id)
        _check_purchases(actor, seen, allow_purchases=allow_purchases)
        await transfers.offer(
            connection,
            f"tr_{secrets.token_hex(12)}",
            subscription_id=subscription_id,
            from_id=owner_id,
            to_id=to_id,
            allow_purchases=allow_purchases,
            keep_me_as=keep_me_as,
        )
    return None


async def _check_receiver(
    connection: Connection, actor: Actor, subscription_id: SubscriptionId, to_id: CustomerId
) -> None:
    """Check that the receiver is a member.

    An end user must not find out by id who exists.
    """
    found = await people_store.people_by_id(connection, subscription_id, [to_id], ended=sorted(ENDED))
    if not found or (found[0].member_role is None and not actor.is_service):
        raise NotFound("There is no such member.")


def _check_purchases(actor: Actor, seen: Seen, *, allow_purchases: bool) -> None:
    """Check that the actor may let the new owner buy on the payer's account.

    Only the payer and a service key may. A new owner who pays needs no permission.
    """
    pays = actor.customer_id == seen.view.customer_id
    if allow_purchases and not (actor.is_service or pays):
        detail = "Only the paying customer can allow purchases."
        raise Forbidden(
            detail,
            code="field_not_allowed",
            errors=[FieldError("/allow_purchases", "field_not_allowed", detail)],
        )


async def accept(
    context: Context, actor: Actor, subscription_id: SubscriptionId, operation_id: str
) -> Admitted:
    """Accept the offer: control moves, the new owner gives their seat back, the old owner stays as they asked for.

    Raises:
        NotFound: nothing is offered to the actor.
        Conflict: `version_conflict`: somebody else became owner since the offer, which is withdrawn by that;
            `seat_limit_reached`: it would take more seats than there are; `member_elsewhere`: the old owner cannot
            stay; `operation_in_progress` while another change of the subscription or of the old owner's seat runs.
    """
    try:
        async with subscriptions.admitting(context.database, subscription_id) as connection:
            admitted = await _accepted(context, connection, actor, subscription_id, operation_id)
    except UniqueViolation:
        # Another subscription's operation has promised the old owner a seat since they were read.
        raise Conflict("The old owner is being added elsewhere right now.", retry_after=2) from None
    if admitted is None:
        # Raised only here, after the commit: a rollback would leave the offer open, to be accepted weeks later.
        raise Conflict(
            "The owner has changed since this was offered, so the offer is withdrawn. Ask the owner for a new one.",
            code="version_conflict",
        )
    return admitted


async def _accepted(
    context: Context, connection: Connection, actor: Actor, subscription_id: SubscriptionId, operation_id: str
) -> Admitted | None:
    """Admit the move of control. Returns None if the offer is found to be outdated; then it is withdrawn."""
    seen = await read(connection, actor, subscription_id, context.rules)
    found = await transfers.newest(connection, subscription_id)
    if found is not None and found.operation_id == operation_id:
        return Admitted.before(operation_id)
    offered = _offered_to(actor, found)
    owner_id = None if seen.view.owner is None else seen.view.owner.customer_id
    if owner_id != offered.from_id:
        await transfers.decide(connection, offered.id, state="withdrawn")
        return None
    if offered.keep_me_as is not None and owner_id is not None:
        await _check_stay(context, connection, seen, owner_id)
    await _check_seats(context, connection, seen, to_id=offered.to_id, keeps=offered.keep_me_as is not None)
    await transfers.decide(connection, offered.id, state="accepted", operation_id=operation_id)
    return await _move(context, connection, actor, seen, operation_id, to_id=offered.to_id, transfer=offered)


def _offered_to(actor: Actor, found: Transfer | None) -> Transfer:
    if found is None or found.state != "offered":
        raise NotFound("No transfer is offered to you.")
    if not (actor.is_service or actor.customer_id == found.to_id):
        raise NotFound("No transfer is offered to you.")
    return found


async def _check_stay(context: Context, connection: Connection, seen: Seen, owner_id: CustomerId) -> None:
    """Check that the old owner may become a member, whatever seats there are."""
    view, rules = seen.view, context.rules
    found = await people_store.people_by_id(connection, view.id, [owner_id], ended=sorted(ENDED))
    if not found or found[0].is_full(rules.memberships_per_customer, is_by_email=False):
        raise Conflict(
            "The old owner is on as many other shared subscriptions as one person may be.",
            code="member_elsewhere",
        )
    if found[0].busy:
        raise Conflict("A change of the old owner's own seat is still running.", retry_after=2)
    allowed = entitlements(view.status, past_due_allows_new_seats=rules.past_due_allows_new_seats)
    if not allowed.new_seats:
        raise Conflict("The subscription's status does not allow this.", code="subscription_not_active")


async def _check_seats(
    context: Context, connection: Connection, seen: Seen, *, to_id: CustomerId, keeps: bool
) -> None:
    """Check that there are seats for the new owner, and for the old one as a member.

    The receiver gives their seat as a member back. The old owner needs one if they stay, and also if their metadata
    makes them a member already, which counts for nothing while they are the owner. An owner who takes a seat has it
    from the old owner, if there is one. A change that takes no seat more is not refused.
    """
    view = seen.view
    owner_id = None if view.owner is None else view.owner.customer_id
    freed = int(await members.is_member(connection, view.id, to_id))
    stays = keeps or (owner_id is not None and await members.is_member(connection, view.id, owner_id))
    takes = owner_takes_seat(view.seat_items(), default=context.rules.owner_uses_seat)
    added = int(stays) + int(takes and owner_id is None)
    if not keeps and added <= freed:
        return
    details = await seats_lacking(context, connection, view, freed=freed, added=added)
    if details is not None:
        raise Conflict(
            f"No seat is free for the {'old' if stays else 'new'} owner. Add a seat or remove a member first.",
            code="seat_limit_reached",
            members=details,
        )


async def _move(
    context: Context,
    connection: Connection,
    actor: Actor,
    seen: Seen,
    operation_id: str,
    *,
    to_id: CustomerId,
    transfer: Transfer | None,
) -> Admitted:
    if await operations.operation(connection, operation_id) is not None:
        return Admitted.before(operation_id)
    if await operations.subscription_change_runs(connection, seen.view.id, beside_payment=True):
        raise Conflict("Another change of this subscription is still running.", retry_after=2)
    steps: list[JsonObject] = [_step(0, StepKind.SET_OWNER, None)]
    if await members.is_member(connection, seen.view.id, to_id):
        steps.append(_step(1, StepKind.REMOVE, to_id))
    if transfer is not None and transfer.keep_me_as is not None and transfer.from_id is not None:
        steps.append({**_step(len(steps), StepKind.ADD, transfer.from_id), "role": transfer.keep_me_as})
    request = {
        "from_id": None if transfer is None else transfer.from_id,
        "to_id": to_id,
        "allow_purchases": transfer is not None and transfer.allow_purchases,
    }
    return await insert_steps(
        context, connection, actor, seen.view.id, operation_id, "transfer", steps, request
    )


def _step(position: int, kind: StepKind, customer_id: CustomerId | None) -> JsonObject:
    return {
        "position": position,
        "action": kind.value,
        "customer_id": customer_id,
        "state": "planned",
        "details": {},
    }


async def decline(context: Context, actor: Actor, subscription_id: SubscriptionId) -> Transfer:
    """Decline an offer as its receiver, or withdraw it as its giver.

    Raises:
        NotFound: the actor may not see the subscription, or no offer is open to them.
    """
    async with subscriptions.admitting(context.database, subscription_id) as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        found = await transfers.newest(connection, subscription_id)
        if found is None or found.state != "offered":
            raise NotFound("No transfer is offered to you.")
        if actor.customer_id == found.to_id or actor.is_service:
            await transfers.decide(connection, found.id, state="declined")
        elif seen.role is Role.OWNER:
            await transfers.decide(connection, found.id, state="withdrawn")
        else:
            raise NotFound("No transfer is offered to you.")
        decided = await transfers.newest(connection, subscription_id)
    if decided is None:
        raise LookupError("the transfer vanished")
    return decided
