"""The people that a change of members names, as the mirror has them.

For an admission, the caller holds the subscription's lock.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from app.domain.emails import ascii_lowered
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.roles import Role
from app.domain.statuses import ENDED
from app.domain.views import SubscriptionView
from app.errors import FieldError, InvalidRequest
from app.identity.actors import Actor
from app.operations import people_store
from app.operations.people_store import FoundPerson
from app.postgres.database import Connection
from app.sharing import invitation_store
from app.sharing.invitation_store import Invitation
from app.sharing.member_changes import (
    Action,
    MemberChange,
    Person,
)


async def find_addition(
    connection: Connection,
    view: SubscriptionView,
    *,
    email: str | None,
    customer_id: CustomerId | None,
    limit: int,
    invitation: Invitation | None = None,
) -> Person:
    """Find the person to add now, by the given e-mail or by the customer's id. Call it in a transaction.

    `limit`: how many memberships one person may have. `invitation`: the open one to that e-mail.
    """
    ended = sorted(ENDED)
    if email is not None:
        address = ascii_lowered(email)
        found = await people_store.people_by_email(connection, view.id, [address], ended=ended, lock=True)
        promised = await people_store.promised_emails(connection, [address])
        return by_email(email, found, promised.get(address, set()), view, limit, invitation)
    known = await people_store.people_by_id(connection, view.id, [customer_id or ""], ended=ended)
    return as_person(known[0], view, None, limit) if known else Person(customer_id, known=False)


def by_email(
    email: str,
    candidates: Sequence[FoundPerson],
    promised_on: Set[SubscriptionId],
    view: SubscriptionView,
    limit: int,
    invitation: Invitation | None,
) -> Person:
    """Return the person that an e-mail names, among the customers that have it; it stays as it was typed.

    `promised_on`: the subscriptions on which the e-mail is promised a seat, while its customer is created.
    `invitation`: the open one to that e-mail.
    """
    if len(candidates) > 1:
        return Person(None, email, ambiguous=True)
    if candidates:
        person = as_person(candidates[0], view, email, limit)
    else:
        is_full = len(promised_on) >= people_store.unclaimed_limit(limit)
        is_here = view.id in promised_on
        person = Person(None, email, busy=is_here, elsewhere=not is_here and is_full)
    if invitation is None:
        return person
    return replace(person, invitation_id=invitation.id, busy=person.busy or invitation.is_used)


def as_person(found: FoundPerson, view: SubscriptionView, email: str | None, limit: int) -> Person:
    """Return a customer as the rules of a member change see them.

    `email`: the e-mail by which they were named.
    """
    return Person(
        customer_id=found.customer_id,
        email=email,
        member_role=found.member_role,
        former_member=found.former_member,
        elsewhere=found.is_full(limit, is_by_email=email is not None),
        busy=found.busy,
        is_owner=view.owner is not None and found.customer_id == view.owner.customer_id,
    )


@dataclass(frozen=True, slots=True)
class AskedChange:
    """One change as the caller wrote it.

    An addition names an e-mail or a customer; other changes name a customer.
    """

    action: Action
    pointer: str
    email: str | None = None
    customer_id: CustomerId | None = None
    role: Role | None = None

    @property
    def address(self) -> str | None:
        """Return the e-mail as it is compared."""
        return None if self.email is None else ascii_lowered(self.email)


async def find_people(
    connection: Connection,
    actor: Actor,
    view: SubscriptionView,
    asked: Sequence[AskedChange],
    *,
    limit: int,
    lock: bool,
) -> list[MemberChange]:
    """Return the changes with the person that each of them names, in their order.

    `limit`: how many memberships one person may have. `lock`: keep what they rest on as it is until the transaction
    ends, for an admission.
    """
    ids = sorted({change.customer_id for change in asked if change.customer_id is not None})
    addresses = sorted({change.address for change in asked if change.address is not None})
    by_id = {
        p.customer_id: p
        for p in await people_store.people_by_id(connection, view.id, ids, ended=sorted(ENDED))
    }
    with_email: dict[str, list[FoundPerson]] = {}
    for found in await people_store.people_by_email(
        connection, view.id, addresses, ended=sorted(ENDED), lock=lock
    ):
        with_email.setdefault(found.email or "", []).append(found)
    promised = await people_store.promised_emails(connection, addresses)
    if lock:
        await invitation_store.lock_open_to(connection, view.id, addresses)
    invited = await invitation_store.open_to(connection, view.id, addresses)
    changes = []
    for change in asked:
        address = change.address
        if change.email is not None and address is not None:
            candidates, promised_on = with_email.get(address, []), promised.get(address, set())
            person = by_email(change.email, candidates, promised_on, view, limit, invited.get(address))
        else:
            person = _by_id(change, by_id.get(change.customer_id or CustomerId("")), actor, view, limit)
        changes.append(
            MemberChange(change.action, person, None if change.role is None else change.role.value)
        )
    return changes


def _by_id(
    change: AskedChange, found: FoundPerson | None, actor: Actor, view: SubscriptionView, limit: int
) -> Person:
    """Return the person that an id names.

    End users may add by id only people that this subscription has had: nobody may find out by id who exists.
    """
    if found is None:
        return Person(change.customer_id, known=False)
    known_here = found.member_role is not None or found.former_member
    if change.action is Action.ADD and not actor.is_service and not known_here:
        return Person(change.customer_id, known=False)
    return as_person(found, view, None, limit)


def refuse_twice(changes: Sequence[MemberChange], asked: Sequence[AskedChange], actor: Actor) -> None:
    """Raise InvalidRequest if one person is named twice, by e-mail or by id.

    An end user learns that an e-mail and an id are one person only of people that this subscription has had.
    """
    seen: set[str] = set()
    errors = []
    for change, source in zip(changes, asked, strict=True):
        person = change.person
        is_shown = (
            actor.is_service or person.is_owner or person.former_member or person.member_role is not None
        )
        name = (person.customer_id if is_shown or source.email is None else None) or source.address or ""
        if name in seen:
            errors.append(FieldError(source.pointer, "duplicate", "This person is named twice in one call."))
        seen.add(name)
    if errors:
        raise InvalidRequest("One person is named twice.", errors=errors)
