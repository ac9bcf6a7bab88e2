"""SQL statements for the links between logins and customers.

A login is (issuer, subject). Links are unique both ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from app.domain.ids import CustomerId
from app.identity.principals import EndUser
from app.postgres.database import Connection, UniqueViolation

_LINK = """
    insert into identities (issuer, subject, customer_id, linked_by, linked_at)
    values ($1, $2, $3, $4, clock_timestamp())
    on conflict (issuer, subject) do update set customer_id = excluded.customer_id, linked_by = excluded.linked_by,
        linked_at = excluded.linked_at
    where identities.customer_id is null or exists (select from customers c
        where c.id = identities.customer_id and c.existence = 'deleted')
    returning customer_id"""

# Stripe never restores a deleted customer, so a link to one does not count.
_CUSTOMER_OF = """
    select i.customer_id, coalesce(i.email is distinct from $3::text and $3 is not null, false)
        or exists (select from member_records k where k.customer_id = i.customer_id and k.typed_email is not null)
        as has_news
    from identities i
    where i.issuer = $1 and i.subject = $2
      and not exists (select from customers c where c.id = i.customer_id and c.existence = 'deleted')"""

_DELETED_CUSTOMER_OF = """
    select i.customer_id from identities i join customers c on c.id = i.customer_id
    where i.issuer = $1 and i.subject = $2 and c.existence = 'deleted'"""

_END_LINK = "delete from identities where customer_id = $1 returning issuer, subject"

_RECORD_ENDED = """
    insert into audit_events (subscription_id, source, principal, action, customer_id, before, after)
    values ('', 'api', $1, 'customer_unlinked', $2, $3, '{}')"""

# If two customers name one user, neither is linked. A customer that is linked to another login is not returned.
_BY_USER_ID = """
    select min(c.id) from customers c
    where c.user_id = $1 and c.existence = 'present'
    having count(*) = 1 and not exists (select from identities i where i.customer_id = min(c.id))"""

_TAKE_CREATION = """
    insert into identities as i (issuer, subject, lease_until)
    values ($1, $2, clock_timestamp() + $3 * interval '1 second')
    on conflict (issuer, subject) do update set lease_until = excluded.lease_until, customer_id = null,
        creation_key = case when i.customer_id is null then i.creation_key else gen_random_uuid() end
    where case when i.customer_id is null then i.lease_until is null or i.lease_until < clock_timestamp()
        else exists (select from customers c where c.id = i.customer_id and c.existence = 'deleted') end
    returning creation_key"""

# A seat that moves to another login's customer is not taken over, and neither is a customer that is being deleted. The
# column is compared again once a concurrent operation has written it.
UNCLAIMED: Final = """s.claimed_at is null and s.deleting_at is null
      and (s.moved_by is null or exists (select from operations o where o.id = s.moved_by and o.state = 'settled'))
      and c.id = s.customer_id and c.existence = 'present'
      and not exists (select from identities i where i.customer_id = s.customer_id)"""
"""Condition on a seat customer `s` and its customer `c`: it was created for a seat, and nobody has reached it."""

_CLAIM_SEAT_CUSTOMER = f"""
    update seat_customers s set claimed_at = clock_timestamp()
    from customers c
    where s.customer_id = (
            select s.customer_id from seat_customers s join customers c on c.id = s.customer_id
            where s.email = $1 and lower(c.email collate "C") = s.email and {UNCLAIMED}
            order by exists (select from memberships m where m.customer_id = s.customer_id) desc, s.created_at desc
            limit 1)
      and {UNCLAIMED}
    returning s.customer_id"""

# An address belongs to the login whose token verified it last. Calls with one address wait for each other before they
# lock any row, and lock their rows in one order, so that no two of them wait in a circle.
_ONE_AT_A_TIME = "select pg_advisory_xact_lock(hashtextextended($1, 39))"
_LOCK_FOR_EMAIL = """
    select from identities where email = $3 or (issuer = $1 and subject = $2) order by issuer, subject for update"""
_RELEASE_EMAIL = "update identities set email = null where email = $3 and (issuer, subject) <> ($1, $2)"
_KEEP_EMAIL = """
    update identities set email = $3, email_at = clock_timestamp(), seats_due = clock_timestamp()
    where issuer = $1 and subject = $2 and email is distinct from $3"""

# An event that ends several memberships locks their records in the same order.
_RECORD_ACT = """
    with acted as (
        update identities set acted_at = clock_timestamp() where issuer = $1 and subject = $2 returning customer_id
    ), unclaimed as (
        select k.subscription_id, k.customer_id from member_records k join acted on k.customer_id = acted.customer_id
        where k.typed_email is not null order by k.subscription_id for update of k
    )
    update member_records k set typed_email = null from unclaimed
    where k.subscription_id = unclaimed.subscription_id and k.customer_id = unclaimed.customer_id"""


@dataclass(frozen=True, slots=True)
class Creation:
    """The right to create the one customer of a login.

    A process that takes it over after the lease has run out gets the same `key`, so Stripe creates one customer.
    """

    key: UUID


@dataclass(frozen=True, slots=True)
class Link:
    """The customer of a login.

    `has_news`: the token verifies another address than the one that is kept, or the person has a seat on which they
    have not acted yet.
    """

    customer_id: CustomerId
    has_news: bool


async def link_of(
    connection: Connection, issuer: str, subject: str, verified_email: str | None
) -> Link | None:
    """Return the link of a login, or None. One to a customer that was deleted at Stripe does not count."""
    row = await connection.fetchrow(_CUSTOMER_OF, issuer, subject, verified_email)
    return None if row is None or row["customer_id"] is None else Link(**dict(row))


async def customer_of(connection: Connection, issuer: str, subject: str) -> CustomerId | None:
    """Return the customer that a login is linked to, or None. One that was deleted at Stripe does not count."""
    found = await link_of(connection, issuer, subject, None)
    return None if found is None else found.customer_id


async def keep_email(connection: Connection, issuer: str, subject: str, email: str) -> None:
    """Keep a verified address, ASCII-lowered, as this login's, and take it from every other one.

    Call it in a transaction. Unless it was this login's already, its unclaimed seats are due.
    """
    await connection.execute(_ONE_AT_A_TIME, email)
    await connection.execute(_LOCK_FOR_EMAIL, issuer, subject, email)
    await connection.execute(_RELEASE_EMAIL, issuer, subject, email)
    await connection.execute(_KEEP_EMAIL, issuer, subject, email)


async def look_again(connection: Connection, email: str) -> None:
    """Let a worker look for the unclaimed seats of an address, ASCII-lowered, because one was given just now.

    Call it in the transaction that stores the seat. A login that verifies the address at the same moment waits for the
    end of it, and is looked at afterwards.
    """
    await connection.execute(_ONE_AT_A_TIME, email)
    await connection.execute(
        "update identities set seats_due = clock_timestamp() where email = $1 and customer_id is not null",
        email,
    )


async def record_act(connection: Connection, issuer: str, subject: str) -> None:
    """Record that a login acts, so that its seats are not unclaimed any more."""
    await connection.execute(_RECORD_ACT, issuer, subject)


async def deleted_customer_of(connection: Connection, issuer: str, subject: str) -> CustomerId | None:
    """Return the customer that a login was linked to and that was deleted at Stripe, or None."""
    return _customer_id(await connection.fetchval(_DELETED_CUSTOMER_OF, issuer, subject))


async def subject_of(connection: Connection, customer_id: CustomerId) -> str | None:
    """Return the subject of the login that is linked to a customer, or None."""
    found: str | None = await connection.fetchval(
        "select subject from identities where customer_id = $1", customer_id
    )
    return found


async def end_link(connection: Connection, customer_id: CustomerId, *, principal: str) -> str | None:
    """End the link of a customer, and record it in the audit trail.

    Return the subject of the login, or None if there was no link.
    """
    ended = await connection.fetchrow(_END_LINK, customer_id)
    if ended is None:
        return None
    await record_ended(connection, ended["issuer"], ended["subject"], customer_id, principal=principal)
    return str(ended["subject"])


async def record_ended(
    connection: Connection, issuer: str, subject: str, customer_id: CustomerId, *, principal: str
) -> None:
    """Record that a login is not linked to a customer any more.

    The entry belongs to no subscription. It names the login by the hash that `principal` of its own entries is.
    """
    login = EndUser(issuer, subject).key
    await connection.execute(_RECORD_ENDED, principal, customer_id, {"login": login})


async def is_present(connection: Connection, customer_id: str) -> bool:
    """Return True if the customer exists at Stripe, according to the cache."""
    return (
        await connection.fetchval(
            "select 1 from customers where id = $1 and existence = 'present'", customer_id
        )
        is not None
    )


LinkedBy = Literal["claim", "user_id", "key", "trigger"]
"""What made a link: the token's claim, the customer's metadata, a service key, or the login's own new-user trigger."""


async def link(
    connection: Connection, issuer: str, subject: str, customer_id: CustomerId, *, by: LinkedBy
) -> bool:
    """Link a login to a customer, in a savepoint.

    Return False if either is linked already.
    """
    try:
        async with connection.transaction():
            linked = await connection.fetchval(_LINK, issuer, subject, customer_id, by)
    except UniqueViolation:
        return False
    return linked is not None


async def customer_by_user_id(connection: Connection, subject: str) -> CustomerId | None:
    """Return the only unlinked customer whose metadata names this subject, or None."""
    return _customer_id(await connection.fetchval(_BY_USER_ID, subject))


async def names_subject(connection: Connection, customer_id: CustomerId, subject: str) -> bool:
    """Return True if the customer's metadata still names this subject.

    It locks the customer's row until the transaction ends. The transaction that ends a link removes the subject from
    that row, so a link by the subject is made either before it, and ended by it, or not at all.
    """
    return (
        await connection.fetchval(
            "select 1 from customers where id = $1 and user_id = $2 and existence = 'present' for share",
            customer_id,
            subject,
        )
        is not None
    )


async def take_creation(
    connection: Connection, issuer: str, subject: str, *, lease_seconds: float
) -> Creation | None:
    """Take the right to create a login's customer.

    It locks the login's row until the transaction ends, and ends a link to a deleted customer. Return None if the login
    is linked, or while another call creates its customer.
    """
    key = await connection.fetchval(_TAKE_CREATION, issuer, subject, lease_seconds)
    return None if key is None else Creation(key)


async def give_creation_back(connection: Connection, issuer: str, subject: str) -> None:
    """Give back the right that `take_creation` took, so that the next call need not wait for its lease to end."""
    await connection.execute(
        "update identities set lease_until = null where issuer = $1 and subject = $2", issuer, subject
    )


async def claim_seat_customer(connection: Connection, email: str) -> CustomerId | None:
    """Claim the unlinked customer that was created for a seat of this e-mail.

    It succeeds once for each e-mail. The caller links the customer in the same transaction.
    """
    return _customer_id(await connection.fetchval(_CLAIM_SEAT_CUSTOMER, email))


def _customer_id(value: str | None) -> CustomerId | None:
    return None if value is None else CustomerId(value)
