"""A change of a subscription's members: admitted under the subscription's lock, then run, then answered per person."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from app.cache import operations, subscriptions
from app.cache.database import Connection, UniqueViolation
from app.cache.operations import FoundPerson
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.member_changes import (
    Action,
    Decision,
    MemberChange,
    Person,
    Verdict,
    admit,
    permissions_needed,
)
from app.domain.roles import Role, require
from app.domain.seats import is_shareable
from app.domain.snapshots import JsonObject
from app.domain.statuses import ENDED, standing
from app.domain.views import SubscriptionView
from app.errors import Conflict, FieldError, InvalidRequest
from app.services.actors import Actor
from app.services.context import Context
from app.services.subscriptions import read

OPERATION_LEASE_SECONDS = 30.0
_ADMISSION_TRIES = 5


@dataclass(frozen=True, slots=True)
class AskedChange:
    """One change as the caller wrote it: an add names an e-mail (lower case) or a customer, others a customer."""

    action: Action
    pointer: str
    email: str | None = None
    customer_id: CustomerId | None = None
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    operation_id: str
    lease_token: UUID
    decisions: list[Decision]

    @property
    def anything_accepted(self) -> bool:
        return any(decision.verdict is not Verdict.REFUSED for decision in self.decisions)


async def admit_changes(
    context: Context, actor: Actor, subscription_id: SubscriptionId, asked: Sequence[AskedChange]
) -> Admitted:
    """Judges the call in one transaction and writes the operation with its steps and reservations.

    Raises NotFound, Forbidden `role_required`, Conflict `not_shareable`, InvalidRequest for one person named twice.
    """
    for last_try in (False,) * (_ADMISSION_TRIES - 1) + (True,):
        try:
            async with context.database.transaction() as connection:
                await subscriptions.lock(connection, subscription_id)
                return await _admit(context, connection, actor, subscription_id, asked)
        except UniqueViolation:
            # Another subscription's operation promised one of these people a seat since we looked: look again.
            if last_try:
                raise Conflict("These people are being added elsewhere right now.") from None
    raise AssertionError("the last try returns or raises")


async def _admit(
    context: Context,
    connection: Connection,
    actor: Actor,
    subscription_id: SubscriptionId,
    asked: Sequence[AskedChange],
) -> Admitted:
    seen = await read(connection, actor, subscription_id, context.rules)
    changes = await _find_people(connection, actor, seen.view, asked)
    require(seen.granted, *sorted(permissions_needed(changes)))
    if not is_shareable(seen.view.seat_items()) and any(c.action is Action.ADD for c in changes):
        raise Conflict("No product of this subscription supports sharing.", code="not_shareable")
    seats = seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat)
    target = await operations.lowest_target(connection, subscription_id)
    decisions = admit(
        changes,
        seats=seats,
        capacity=seats.total if target is None else min(seats.total, target),
        standing=standing(
            seen.view.status, past_due_allows_new_seats=context.rules.past_due_allows_new_seats
        ),
    )
    admitted = Admitted(f"op_{secrets.token_hex(12)}", uuid4(), decisions)
    await operations.insert(
        connection,
        operation_id=admitted.operation_id,
        subscription_id=subscription_id,
        kind="member_change",
        principal=actor.principal.key,
        actor_id=actor.customer_id,
        door="api",
        request={"changes": len(asked)},
        steps=[_step(position, decision) for position, decision in enumerate(decisions)],
        lease_token=admitted.lease_token,
        lease_seconds=OPERATION_LEASE_SECONDS,
    )
    await operations.finish_if_settled(connection, admitted.operation_id)
    return admitted


def _step(position: int, decision: Decision) -> JsonObject:
    change, person = decision.change, decision.change.person
    state = "planned" if decision.verdict is Verdict.RUN else decision.verdict.value
    return {
        "position": position,
        "action": change.action.value,
        "customer_id": person.customer_id,
        "email": person.email,
        "role": change.role,
        "role_before": person.member_role,
        "state": state,
        "code": decision.code,
        "figures": decision.figures,
    }


async def _find_people(
    connection: Connection, actor: Actor, view: SubscriptionView, asked: Sequence[AskedChange]
) -> list[MemberChange]:
    ids = sorted({change.customer_id for change in asked if change.customer_id is not None})
    emails = sorted({change.email for change in asked if change.email is not None})
    by_id = {
        p.customer_id: p for p in await operations.people_by_id(connection, view.id, ids, ended=sorted(ENDED))
    }
    by_email: dict[str, list[FoundPerson]] = {}
    for found in await operations.people_by_email(connection, view.id, emails, ended=sorted(ENDED)):
        by_email.setdefault(found.email or "", []).append(found)
    promised = await operations.promised_emails(connection, emails)
    changes = []
    for change in asked:
        if change.email is not None:
            person = _by_email(change.email, by_email.get(change.email, []), promised.get(change.email), view)
        else:
            person = _by_id(change, by_id.get(change.customer_id or CustomerId("")), actor, view)
        changes.append(
            MemberChange(change.action, person, None if change.role is None else change.role.value)
        )
    _refuse_twice(changes, asked)
    return changes


def _by_email(
    email: str, candidates: list[FoundPerson], promised_on: SubscriptionId | None, view: SubscriptionView
) -> Person:
    if len(candidates) > 1:
        return Person(None, email, ambiguous=True)
    if candidates:
        return _person(candidates[0], view, email)
    return Person(
        None, email, busy=promised_on == view.id, elsewhere=promised_on is not None and promised_on != view.id
    )


def _by_id(change: AskedChange, found: FoundPerson | None, actor: Actor, view: SubscriptionView) -> Person:
    """End users may add by id only whom this subscription has had before: an id must not be a way to anybody."""
    if found is None:
        return Person(change.customer_id, known=False)
    known_here = found.member_role is not None or found.former_member
    if change.action is Action.ADD and not actor.is_service and not known_here:
        return Person(change.customer_id, known=False)
    return _person(found, view, None)


def _person(found: FoundPerson, view: SubscriptionView, email: str | None) -> Person:
    return Person(
        customer_id=found.customer_id,
        email=email,
        member_role=found.member_role,
        former_member=found.former_member,
        elsewhere=found.elsewhere,
        busy=found.busy,
        is_owner=view.owner is not None and found.customer_id == view.owner.customer_id,
    )


def _refuse_twice(changes: Sequence[MemberChange], asked: Sequence[AskedChange]) -> None:
    """One person named twice, be it once by e-mail and once by id: what was meant cannot be known."""
    seen: set[str] = set()
    errors = []
    for change, source in zip(changes, asked, strict=True):
        name = change.person.customer_id or change.person.email or ""
        if name in seen:
            errors.append(FieldError(source.pointer, "duplicate", "This person is named twice in one call."))
        seen.add(name)
    if errors:
        raise InvalidRequest("One person is named twice.", errors=errors)
