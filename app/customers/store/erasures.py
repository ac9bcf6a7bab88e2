"""SQL statements that erase the addresses of a deleted customer outside of the customer's own row."""

from __future__ import annotations

import json

from app.postgres.database import Connection

# The addresses of a person are that of their customer, the one that their login verified last, and those by which seats
# were given to them. The last ones may belong to somebody else by now, so these are left out then.
#
# A step that is not settled still needs its e-mail to find what it created. The erasure is tried again until it is.
_TAKE = """
    select e.customer_id, p.addresses from erasures e
    cross join lateral (
        select coalesce(array_agg(address order by address), '{}') as addresses from (
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
    where not exists (select from operation_steps t where t.settled_at is null and t.email is not null
        and (t.customer_id = e.customer_id or lower(t.email collate "C") = any(p.addresses)))
    order by e.noted_at limit $1 for update of e skip locked"""

# The trigger of the deletion has ended the invitations to the address of the customer's own row. One statement ends the
# others, so that the seats of all are locked in one order.
_END_INVITATIONS = """
    select end_invitations(array(
            select id from invitations where lower(email collate "C") = any($1::text[]) and state = 'open'),
        'revoked', 'person_erased', 'dashboard', null, null, null)"""
_BLANK_INVITATIONS = """
    update invitations set email = null where lower(email collate "C") = any($1::text[])"""

# A step keeps that it named an address: by an address nobody finds the id of a person who did not become a member.
_BY_ID = (
    "update member_records set typed_email = null where customer_id = $1 and typed_email is not null",
    "delete from seat_customers where customer_id = $1",
    "update identities set email = null, seats_due = null where customer_id = $1",
    "update operation_steps set email = '' where customer_id = $1 and email is not null",
    "update reservations set email = null where customer_id = $1 and email is not null",
)
_BY_EMAIL = (
    """update operation_steps set email = '' where lower(email collate "C") = $1""",
    """delete from reservations where email = $1 and customer_id is null and released_at is not null""",
    # A caller may have made a key of the address. Such a key cannot stay.
    """delete from idempotency_keys where status is not null and position($1 in lower(key collate "C")) > 0""",
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


async def erase(connection: Connection, *, limit: int) -> int:
    """Erase up to `limit` deleted customers, and return their number. Call it in a transaction."""
    rows = await connection.fetch(_TAKE, limit)
    everybodys = [address for row in rows for address in row["addresses"]]
    if everybodys:
        await connection.execute(_END_INVITATIONS, everybodys)
        await connection.execute(_BLANK_INVITATIONS, everybodys)
    for row in rows:
        customer_id, addresses = row["customer_id"], row["addresses"]
        for statement in _BY_ID:
            await connection.execute(statement, customer_id)
        for address in addresses:
            for statement in _BY_EMAIL:
                await connection.execute(statement, address)
        await connection.execute(_ANSWERS, customer_id, _written([customer_id]), _written(addresses))
        await connection.execute("delete from erasures where customer_id = $1", customer_id)
    return len(rows)


def _written(values: list[str]) -> list[str]:
    """Return the values and, beside each, how JSON writes it: with a backslash before a quote or a backslash."""
    return sorted({form for value in values for form in (value, json.dumps(value, ensure_ascii=False)[1:-1])})
