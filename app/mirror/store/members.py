"""Read the members of a shared subscription: by their metadata, and those that an operation is adding."""

from __future__ import annotations

from typing import Final

from app.domain.ids import CustomerId, SubscriptionId
from app.domain.views import MemberRow
from app.postgres.database import Connection, Record

PROMISED_SEATS = """reservations v left join customers c on c.id = v.customer_id
    where v.released_at is null
      and (c.member_of is distinct from v.subscription_id or c.existence <> 'present')
      and not exists (select from customers made
          where v.customer_id is null and made.operation_id = v.operation_id and made.existence = 'present'
            and made.member_of = v.subscription_id and lower(made.email collate "C") = v.email)"""
"""Reservations `v` without a member yet, to be continued with `and`.

If an operation creates a customer for an e-mail, the customer's event may arrive before the answer. Then the customer
is a member although the operation has not released the reservation.
"""

NUMBERS_COUNT: Final = """(v.from_quantity is null or exists (
        select from jsonb_to_recordset(s.items) as x(id text, quantity bigint)
        where x.id = v.item_id and x.quantity >= v.from_quantity))"""
"""Condition on a reservation `v` of a subscription `s`: a reservation by number counts after its seats are bought."""


# A member who has never logged in is shown with the e-mail that was entered, so that adding reveals nothing else.
_PEOPLE = f"""
    with people as (
        select c.id as customer_id,
            case when shown.own then c.email else k.typed_email end as email,
            case when shown.own then c.name end as name,
            c.member_role as role, 'active' as state, k.since, c.id as sort_key
        from customers c
        left join member_records k on k.subscription_id = $1 and k.customer_id = c.id
        cross join lateral (select k.typed_email is null
            or exists (select from identities i where i.customer_id = c.id) as own) shown
        where c.member_of = $1 and c.existence = 'present' and c.id is distinct from $2
        union all
        select v.customer_id, t.email, null, t.role, 'pending', v.created_at, '~' || v.id
        from (select v.* from {PROMISED_SEATS} and v.subscription_id = $1) v
        join operation_steps t on t.operation_id = v.operation_id and t.position = v.position and not t.awaits_seats
    ), matching as (
        select * from people
        where ($3::text is null or role = $3)
          and ($4::text is null or strpos(lower(coalesce(email, '')), $4) > 0
               or strpos(lower(coalesce(name, '')), $4) > 0)
    )"""

_PAGE = (
    _PEOPLE
    + """
    select * from matching where ($5::text is null or sort_key > $5) order by sort_key limit $6"""
)
_COUNT = _PEOPLE + " select count(*) from matching"
_ONE = _PEOPLE + " select * from matching where customer_id = $5"


async def page(
    connection: Connection,
    subscription_id: SubscriptionId,
    *,
    owner_id: CustomerId | None,
    role: str | None,
    search: str | None,
    after: str | None,
    limit: int,
) -> list[tuple[str, MemberRow]]:
    """Return up to `limit` members without the owner, each with its sort key, after the sort key `after`.

    `search` is looked for within e-mail and name, without regard to case.
    """
    rows = await connection.fetch(_PAGE, subscription_id, owner_id, role, _needle(search), after, limit)
    return [(row["sort_key"], _member(row)) for row in rows]


async def count(
    connection: Connection,
    subscription_id: SubscriptionId,
    *,
    owner_id: CustomerId | None,
    role: str | None,
    search: str | None,
) -> int:
    """Return the number of members without the owner; `role` and `search` select as in `page`."""
    return int(await connection.fetchval(_COUNT, subscription_id, owner_id, role, _needle(search)) or 0)


async def one(
    connection: Connection,
    subscription_id: SubscriptionId,
    customer_id: CustomerId,
    *,
    owner_id: CustomerId | None,
) -> MemberRow | None:
    """Return one member, None if the customer is not a member or is the owner."""
    row = await connection.fetchrow(_ONE, subscription_id, owner_id, None, None, customer_id)
    return None if row is None else _member(row)


async def record_joined(
    connection: Connection, subscription_id: SubscriptionId, customer_id: CustomerId, typed_email: str | None
) -> None:
    """Store a new member with the e-mail that was entered. Others see only that until the member logs in."""
    await connection.execute(
        """insert into member_records (subscription_id, customer_id, typed_email) values ($1, $2, $3)
        on conflict (subscription_id, customer_id) do update set
            typed_email = coalesce(excluded.typed_email, member_records.typed_email),
            since = clock_timestamp(), left_at = null""",
        subscription_id,
        customer_id,
        typed_email,
    )


async def record_left(
    connection: Connection, subscription_id: SubscriptionId, customer_id: CustomerId
) -> None:
    """Store that a member has left."""
    await connection.execute(
        """insert into member_records (subscription_id, customer_id, left_at) values ($1, $2, clock_timestamp())
        on conflict (subscription_id, customer_id) do update set left_at = clock_timestamp()""",
        subscription_id,
        customer_id,
    )


# One subscription at a time, without members that an unsettled operation already changes. A payer who is the owner
# because metadata names none keeps the keys that their customer may have.
_OF_ENDED = """
    with ended as (
        select s.id from subscriptions s
        where s.status = any($1) and s.existence = 'present' and exists (
            select from customers c where c.member_of = s.id and c.existence = 'present'
              and (s.owner_id is not null or c.id <> s.customer_id) and not exists (
                select from operation_steps t
                    where t.customer_id = c.id and t.settled_at is null and not t.awaits_seats))
        limit 1 for update skip locked)
    select c.id, c.member_of from customers c join ended e on c.member_of = e.id
    join subscriptions s on s.id = e.id
    where c.existence = 'present' and (s.owner_id is not null or c.id <> s.customer_id) and not exists (
        select from operation_steps t
            where t.customer_id = c.id and t.settled_at is null and not t.awaits_seats)
    order by c.id limit $2"""


async def of_ended_subscription(
    connection: Connection, *, ended: list[str], limit: int
) -> tuple[SubscriptionId, list[CustomerId]] | None:
    """Return an ended subscription with up to `limit` of its members, locked until the transaction ends.

    `ended` are the statuses of ended subscriptions. None if no such subscription has members.
    """
    rows = await connection.fetch(_OF_ENDED, ended, limit)
    if not rows:
        return None
    return SubscriptionId(rows[0]["member_of"]), [CustomerId(row["id"]) for row in rows]


async def is_member(connection: Connection, subscription_id: SubscriptionId, customer_id: CustomerId) -> bool:
    """Return True if the customer exists and is a member of the subscription."""
    return bool(
        await connection.fetchval(
            """select exists (select from customers
            where id = $2 and member_of = $1 and existence = 'present')""",
            subscription_id,
            customer_id,
        )
    )


def _needle(search: str | None) -> str | None:
    return search.lower() if search else None


def _member(row: Record) -> MemberRow:
    values = dict(row)
    values.pop("sort_key")
    return MemberRow(**values)
