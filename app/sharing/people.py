"""Whom a change of members is about, as the cache knows them under the subscription's lock."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.ids import CustomerId, SubscriptionId
from app.domain.statuses import ENDED
from app.domain.views import SubscriptionView
from app.operations import people_store
from app.operations.people_store import FoundPerson
from app.postgres.database import Connection
from app.sharing.member_changes import Person


async def find_addition(
    connection: Connection, view: SubscriptionView, *, email: str | None, customer_id: CustomerId | None
) -> Person:
    """Find who is to be added now, by the address that was given or by the customer's id."""
    ended = sorted(ENDED)
    if email is not None:
        found = await people_store.people_by_email(connection, view.id, [email], ended=ended)
        promised = await people_store.promised_emails(connection, [email])
        return by_email(email, found, promised.get(email), view)
    known = await people_store.people_by_id(connection, view.id, [customer_id or ""], ended=ended)
    return as_person(known[0], view, None) if known else Person(customer_id, known=False)


def by_email(
    email: str, candidates: Sequence[FoundPerson], promised_on: SubscriptionId | None, view: SubscriptionView
) -> Person:
    """Return whom an address names among the customers that have it. `promised_on`: where it is promised a seat."""
    if len(candidates) > 1:
        return Person(None, email, ambiguous=True)
    if candidates:
        return as_person(candidates[0], view, email)
    return Person(
        None, email, busy=promised_on == view.id, elsewhere=promised_on is not None and promised_on != view.id
    )


def as_person(found: FoundPerson, view: SubscriptionView, email: str | None) -> Person:
    """Return a customer as the rules of a member change see them. `email`: the address by which they were named."""
    return Person(
        customer_id=found.customer_id,
        email=email,
        member_role=found.member_role,
        former_member=found.former_member,
        elsewhere=found.elsewhere,
        busy=found.busy,
        is_owner=view.owner is not None and found.customer_id == view.owner.customer_id,
    )
