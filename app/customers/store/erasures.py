"""SQL statements that erase the addresses of a deleted customer outside of the customer's own row."""

from __future__ import annotations

import json

from app.postgres.database import Connection

RETRY_SECONDS = 10
"""Seconds after which a customer whose erasure failed is tried again. Those who were noted until then come first."""

# The addresses of a person are that of their customer, the one that their login verified last, and those by which seats
# were given to them. The last ones may belong to somebody else by now, so these are left out then.
#
# A step that is not settled still needs its e-mail to find what it created. The erasure is tried again until it is.
_ERASABLE = """
    select e.customer_id, p.addresses from erasures e
    cross join lateral (
        select coalesce(array_agg(address order by address), '{{}}') as addresses from (
            select e.email as address where e.email is not null
            union
            select i.email from identities i where i.customer_id = e.customer_id and i.email is not null
            union
            select given.address from (
                select s.email as address from seat_customers s where s.customer_id = e.customer_id
                union
                select lower(k.typed_email collate "C") from member_records k
                where k.customer_id = e.customer_id and k.typed_email is not null
                union
                select lower(t.email collate "C") from operation_steps t
                where t.customer_id = e.customer_id and t.email <> ''
            ) given
            where not exists (select from customers c
                    where lower(c.email collate "C") = given.address and c.existence = 'present')
              and not exists (select from identities i
                    where i.email = given.address and i.customer_id is distinct from e.customer_id)
        ) theirs
    ) p
    where {chosen} and not exists (select from operation_steps t where t.settled_at is null and t.email is not null
        and (t.customer_id = e.customer_id or lower(t.email collate "C") = any(p.addresses)))"""
_DUE = _ERASABLE.format(chosen="e.noted_at <= clock_timestamp()") + " order by e.noted_at limit $1"
_TAKE = _ERASABLE.format(chosen="e.customer_id = $1") + " for update of e skip locked"

# Once the steps were looked at, an address is free to be used again: what has begun since keeps it. That is an open
# invitation, or a step that is not settled.
#
# The trigger of the deletion has ended the invitations to the address of the customer's own row. One statement ends the
# others, so that the seats of all are locked in one order.
_END_INVITATIONS = """
    select end_invitations(array(
            select id from invitations where lower(email collate "C") = any($1::text[]) and state = 'open'),
        'revoked', 'person_erased', 'dashboard', null, null, null)"""
_BLANK_INVITATIONS = """
    update invitations set email = null where lower(email collate "C") = any($1::text[]) and state <> 'open'"""

# A step keeps that it named an address: by an address nobody finds the id of a person who did not become a member.
_BY_ID = (
    "update member_records set typed_email = null where customer_id = $1 and typed_email is not null",
    "delete from seat_customers where customer_id = $1",
    "update identities set email = null, seats_due = null where customer_id = $1",
    "update operation_steps set email = '' where customer_id = $1 and email is not null and settled_at is not null",
    "update reservations set email = null where customer_id = $1 and email is not null",
)
_BY_ADDRESS = (
    """update operation_steps set email = ''
    where lower(email collate "C") = any($1::text[]) and settled_at is not null""",
    """delete from reservations where email = any($1::text[]) and customer_id is null and released_at is not null""",
    # A caller may have made a key of the address. Such a key cannot stay.
    """delete from idempotency_keys where status is not null
      and exists (select from unnest($1::text[]) as written(address)
          where position(written.address in lower(key collate "C")) > 0)""",
)
# Answers of other callers may show the person too, with the address as it was typed. The key stays without its answer:
# another request under it is refused, and the same request may claim it at once and finds its operation by its own id.
# A principal that acts for the customer ends with the id. It is compared as text, because an id may have characters
# that are special in a pattern.
_ANSWERS = """
    update idempotency_keys set status = null, headers = null, body = null,
        created_at = least(created_at, clock_timestamp() - interval '60 seconds')
    where status is not null
      and (right(principal, length($1) + 1) = ':' || $1
        or exists (select from unnest($2::text[]) as written(id)
            where position(convert_to(written.id, 'UTF8') in body) > 0)
        or exists (select from unnest($3::text[]) as written(address)
            where position(written.address in lower(convert_from(body, 'UTF8') collate "C")) > 0))"""


async def due(connection: Connection, *, limit: int) -> list[str]:
    """Return up to `limit` deleted customers that can be erased now, in the order in which they were noted."""
    return [row["customer_id"] for row in await connection.fetch(_DUE, limit)]


async def erase(connection: Connection, customer_id: str) -> bool:
    """Erase a deleted customer. Return False if another process does it, or if it has to wait for a step.

    Call it in a transaction.
    """
    row = await connection.fetchrow(_TAKE, customer_id)
    if row is None:
        return False
    addresses = row["addresses"]
    if addresses:
        for statement in (_END_INVITATIONS, _BLANK_INVITATIONS, *_BY_ADDRESS):
            await connection.execute(statement, addresses)
    for statement in _BY_ID:
        await connection.execute(statement, customer_id)
    await connection.execute(_ANSWERS, customer_id, _written([customer_id]), _written(addresses))
    await connection.execute("delete from erasures where customer_id = $1", customer_id)
    return True


async def postpone(connection: Connection, customer_id: str) -> None:
    """Try the erasure of a customer again after RETRY_SECONDS."""
    await connection.execute(
        "update erasures set noted_at = clock_timestamp() + $2 * interval '1 second' where customer_id = $1",
        customer_id,
        RETRY_SECONDS,
    )


def _written(values: list[str]) -> list[str]:
    """Return the values and, beside each, how JSON writes it: with a backslash before a quote or a backslash."""
    return sorted({form for value in values for form in (value, json.dumps(value, ensure_ascii=False)[1:-1])})
