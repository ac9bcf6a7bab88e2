"""Read the members of a shared subscription: by their metadata, and those that an operation is adding.

The members are the rows of `memberships`, which follow the customers' metadata. Each lookup beside them is limited to
its one row, so that no plan reads a whole table, however large the team is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import Final

from app.domain.ids import CustomerId, SubscriptionId
from app.domain.views import MemberRow
from app.postgres.database import Connection, Record

PROMISED_SEATS: Final = """reservations v
    where v.released_at is null
      and not exists (select from memberships p
          where p.subscription_id = v.subscription_id and p.customer_id = v.moves_from)
      and not exists (select from memberships p
          where p.subscription_id = v.subscription_id and p.customer_id = v.customer_id)
      and not exists (select from customers made
          join memberships p on p.subscription_id = v.subscription_id and p.customer_id = made.id
          where v.customer_id is null and made.operation_id = v.operation_id
            and lower(made.email collate "C") = v.email)"""
"""Reservations `v` without a member yet, to be continued with `and`.

If an operation creates a customer for an e-mail, the customer's event may arrive before the answer. Then the customer
is a member although the operation has not released the reservation.
"""

MOVING_SEATS: Final = """(select count(*) from reservations v
        join memberships f on f.subscription_id = v.subscription_id and f.customer_id = v.moves_from
        join memberships t on t.subscription_id = v.subscription_id and t.customer_id = v.customer_id
        where v.subscription_id = s.id and v.released_at is null and v.moves_from is not null)"""
"""Seats of a subscription `s` that move from one member to another while both are members: they count once."""

NUMBERS_COUNT: Final = """(v.from_quantity is null or exists (
        select from jsonb_to_recordset(s.items) as x(id text, quantity bigint)
        where x.id = v.item_id and x.quantity >= v.from_quantity))"""
"""Condition on a reservation `v` of a subscription `s`: a reservation by number counts after its seats are bought."""

SEARCHED_MEMBERS: Final = 1_000
"""Members that one page of a search looks at. A page that finds few of them says where the next one goes on."""

# A member who has not acted since they joined is shown with the e-mail that was entered, so that adding somebody
# reveals nothing else of them.
_SHOWN = """
    cross join lateral (select c.email, c.name from customers c where c.id = m.customer_id limit 1) c
    left join lateral (select k.typed_email, k.since from member_records k
        where k.subscription_id = m.subscription_id and k.customer_id = m.customer_id limit 1) k on true
    cross join lateral (select r.role from memberships r
        where r.subscription_id = m.subscription_id and r.customer_id = m.customer_id limit 1) r
    cross join lateral (select m.customer_id, coalesce(k.typed_email, c.email) as email,
        case when k.typed_email is null then c.name end as name, r.role,
        case when k.typed_email is null then 'active' else 'unclaimed' end as state, k.since) shown"""

# $1: the subscription, $2: its owner or null, $3: the customer id after which the rows begin. Each variant has an
# index with these columns in the order of the rows. With more columns, another index can seem cheaper for a small team;
# then a large one would be sorted as a whole.
_AFTER = """
    select subscription_id, customer_id from memberships
    where subscription_id = $1 and customer_id is distinct from $2 and customer_id > $3"""
_CONTAINS = """(strpos(lower(coalesce(shown.email, '')), $4) > 0 or strpos(lower(coalesce(shown.name, '')), $4) > 0)"""
_HAS_ADDRESS = """coalesce(lower(shown.email collate "C") = $4 and lower(c.email collate "C") = $4
    and strpos($4, '@') > 0, false)"""

_Variants = dict[tuple[bool, bool], str]


def _variants(statement: str) -> _Variants:
    """Return a statement for all members, of one role, of one state, and of both; each has an index of its own.

    The role and the state are its last parameters.
    """
    found: _Variants = {}
    for by_role, by_state in product((False, True), repeat=2):
        number = max(int(name) for name in re.findall(r"\$(\d+)", statement))
        condition = ""
        for is_asked, column in ((by_role, "role"), (by_state, "unclaimed")):
            if is_asked:
                number += 1
                condition += f" and {column} = ${number}"
        found[by_role, by_state] = statement.replace("{selected}", condition)
    return found


_PAGE = _variants(f"""
    select shown.* from ({_AFTER} {{selected}} order by customer_id limit $4) m {_SHOWN} order by m.customer_id""")

_LOOKED_AT = f"({_AFTER} {{selected}} order by customer_id limit {SEARCHED_MEMBERS})"

_SEARCH = _variants(f"""
    with looked_at as {_LOOKED_AT}
    select matching.*, seen.last_id, seen.number
    from (select max(customer_id) as last_id, count(*) as number from looked_at) seen
    left join (select shown.* from looked_at m {_SHOWN} where {_CONTAINS} and not {_HAS_ADDRESS}
        order by m.customer_id limit $5) matching on true
    order by matching.customer_id""")

_MATCHES = _variants(f"""
    select count(*) from {_LOOKED_AT} m {_SHOWN} where {_CONTAINS}""")

# An index finds a whole address in a team of any size.
_WITH_ADDRESS = _variants(f"""
    select shown.* from customers named
    cross join lateral (select * from ({_AFTER} {{selected}}) p where p.customer_id = named.id limit 1) m {_SHOWN}
    where lower(named.email collate "C") = $4 and {_HAS_ADDRESS}
    order by m.customer_id limit $5""")

_ONE = f"select shown.* from (select * from memberships where subscription_id = $1 and customer_id = $2) m {_SHOWN}"

_PENDING = f"""
    select v.id, t.email, t.role, v.created_at as since
    from (select v.* from {PROMISED_SEATS} and v.subscription_id = $1) v
    join operation_steps t on t.operation_id = v.operation_id and t.position = v.position and not t.awaits_seats
    where v.moves_from is null and ($2::text is null or t.role = $2)
      and ($3::text is null or strpos(lower(coalesce(t.email, '')), $3) > 0)
    order by v.id"""

# An invitation that an operation is filling is shown as the person who is being added.
_INVITED = """
    from reservations v join invitations i on i.id = v.invitation_id
    where v.subscription_id = $1 and v.released_at is null and v.operation_id is null
      and i.state = 'open' and i.expires_at > clock_timestamp() and ($2::text is null or i.role = $2)
      and ($3::text is null or strpos(lower(coalesce(i.email, '')), $3) > 0)"""
_INVITED_PAGE = f"""
    select v.id, i.email, i.role, i.created_at as since, i.id as invitation_id {_INVITED}
      and v.id > $4 order by v.id limit $5"""
_INVITED_COUNT = f"select count(*) {_INVITED}"

# A member who is the owner too counts as the owner only.
_COUNTS = """
    select n.users - coalesce(o.role = 'user', false)::int as users,
        n.managers - coalesce(o.role = 'manager', false)::int as managers,
        u.users - coalesce(o.unclaimed and o.role = 'user', false)::int as unclaimed_users,
        u.managers - coalesce(o.unclaimed and o.role = 'manager', false)::int as unclaimed_managers
    from (select coalesce(sum(users), 0)::bigint as users, coalesce(sum(managers), 0)::bigint as managers
            from membership_counts where subscription_id = $1) n
    cross join (select coalesce(sum(users), 0)::bigint as users, coalesce(sum(managers), 0)::bigint as managers
            from unclaimed_counts where subscription_id = $1) u
    left join memberships o on o.subscription_id = $1 and o.customer_id = $2"""


@dataclass(frozen=True, slots=True)
class MemberQuery:
    """Which members to read: those of a subscription without its owner, of this role or of all.

    `needle`, in lower case, stands in the e-mail or the name that is shown. `unclaimed`: whether the members have acted
    since they joined, None for both.
    """

    subscription_id: SubscriptionId
    owner_id: CustomerId | None
    role: str | None
    needle: str | None
    unclaimed: bool | None = None

    def variant(self, statement: _Variants) -> str:
        """Return the variant of a statement for the role and the state."""
        return statement[self.role is not None, self.unclaimed is not None]

    def arguments(self, *values: object) -> tuple[object, ...]:
        """Return the arguments of such a variant."""
        selected = (one for one in (self.role, self.unclaimed) if one is not None)
        return (self.subscription_id, self.owner_id, *values, *selected)


@dataclass(frozen=True, slots=True)
class SearchedPage:
    """The members that a search found. `last_id`: the last member that it looked at, None if that was the last one."""

    rows: list[MemberRow]
    last_id: str | None


@dataclass(frozen=True, slots=True)
class Pending:
    """A person that an operation is adding. `id` orders them."""

    id: int
    row: MemberRow


async def page(connection: Connection, query: MemberQuery, *, after: str, limit: int) -> list[MemberRow]:
    """Return up to `limit` members by id, after the customer `after`, whatever the needle is."""
    return [
        _member(row) for row in await connection.fetch(query.variant(_PAGE), *query.arguments(after, limit))
    ]


async def search(connection: Connection, query: MemberQuery, *, after: str, limit: int) -> SearchedPage:
    """Return up to `limit` matches by id among the next `SEARCHED_MEMBERS` members after the customer `after`.

    Members whose whole e-mail is the needle are left to `with_address`.
    """
    rows = await connection.fetch(query.variant(_SEARCH), *query.arguments(after, query.needle, limit))
    found = [_member(row) for row in rows if row["customer_id"] is not None]
    return SearchedPage(found, rows[0]["last_id"] if rows[0]["number"] == SEARCHED_MEMBERS else None)


async def with_address(
    connection: Connection, query: MemberQuery, *, after: str, limit: int
) -> list[MemberRow]:
    """Return up to `limit` members by id whose whole e-mail is the needle, after the customer `after`."""
    rows = await connection.fetch(query.variant(_WITH_ADDRESS), *query.arguments(after, query.needle, limit))
    return [_member(row) for row in rows]


async def count(connection: Connection, query: MemberQuery) -> int | None:
    """Return the number of members that the query selects; None if a search had to look at too many to count them."""
    row = await connection.fetchrow(_COUNTS, query.subscription_id, query.owner_id)
    if row is None:
        raise LookupError("a statement that always answers one row answered none")
    number = sum(
        _number(row, of_role, query.unclaimed)
        for role, of_role in (("user", "users"), ("manager", "managers"))
        if query.role in (None, role)
    )
    if query.needle is None:
        return number
    if number > SEARCHED_MEMBERS:
        return None
    return int(await connection.fetchval(query.variant(_MATCHES), *query.arguments("", query.needle)) or 0)


def _number(row: Record, of_role: str, unclaimed: bool | None) -> int:
    """Return the number of members of a role, all of them or those in one state."""
    counted, those = int(row[of_role]), int(row[f"unclaimed_{of_role}"])
    return counted if unclaimed is None else those if unclaimed else counted - those


async def pending(connection: Connection, query: MemberQuery) -> list[Pending]:
    """Return the people that operations are adding, in the order in which they were asked for."""
    rows = await connection.fetch(_PENDING, query.subscription_id, query.role, query.needle)
    return [
        Pending(row["id"], MemberRow(None, row["email"], None, row["role"], "pending", row["since"]))
        for row in rows
    ]


async def invited(
    connection: Connection, query: MemberQuery, *, after: int, limit: int
) -> list[tuple[int, MemberRow]]:
    """Return up to `limit` open invitations after the key `after`, oldest first, each with its key."""
    rows = await connection.fetch(
        _INVITED_PAGE, query.subscription_id, query.role, query.needle, after, limit
    )
    return [
        (
            row["id"],
            MemberRow(None, row["email"], None, row["role"], "invited", row["since"], row["invitation_id"]),
        )
        for row in rows
    ]


async def invited_count(connection: Connection, query: MemberQuery) -> int:
    """Return the number of open invitations that the query selects."""
    found = await connection.fetchval(_INVITED_COUNT, query.subscription_id, query.role, query.needle)
    return int(found or 0)


async def one(
    connection: Connection, subscription_id: SubscriptionId, customer_id: CustomerId
) -> MemberRow | None:
    """Return one member, None if the customer is not a member."""
    row = await connection.fetchrow(_ONE, subscription_id, customer_id)
    return None if row is None else _member(row)


async def record_joined(
    connection: Connection, subscription_id: SubscriptionId, customer_id: CustomerId, typed_email: str | None
) -> bool:
    """Store a new member with the e-mail that was entered. Others see only that until the member acts.

    Return True if a login reaches the member's customer.
    """
    return bool(
        await connection.fetchval(
            """insert into member_records (subscription_id, customer_id, typed_email) values ($1, $2, $3)
            on conflict (subscription_id, customer_id) do update set
                typed_email = coalesce(excluded.typed_email, member_records.typed_email),
                since = clock_timestamp(), left_at = null
            returning exists (select from identities i where i.customer_id = $2)""",
            subscription_id,
            customer_id,
            typed_email,
        )
    )


async def record_left(
    connection: Connection, subscription_id: SubscriptionId, customer_id: CustomerId
) -> None:
    """Store that a member has left. The e-mail that was entered is not kept."""
    await connection.execute(
        """insert into member_records (subscription_id, customer_id, left_at) values ($1, $2, clock_timestamp())
        on conflict (subscription_id, customer_id) do update set typed_email = null, left_at = clock_timestamp()""",
        subscription_id,
        customer_id,
    )


# One subscription at a time, the one that was tried longest ago. Members that an unsettled operation changes are left
# out, and so are those whose last clean-up failed a moment ago. A payer who is the owner because metadata names none
# keeps the keys that their customer may have. An operation that took longer than six pauses is not remembered.
# Each subscription is asked for its own rows, because its team may be almost the whole table.
_IS_CLEARED = """(s.owner_id is not null or m.customer_id <> s.customer_id)
    and (m.subscription_id, m.customer_id) not in (select subscription_id, customer_id from paused)
    and not exists (select from operation_steps t
        where t.customer_id = m.customer_id and t.settled_at is null and not t.awaits_seats)"""
_OF_ENDED = f"""
    with counted as materialized (
        select s.id from subscriptions s
        where s.id = any (array(select n.subscription_id from membership_counts n))
          and s.status = any($1) and s.existence = 'present'
    ), recent as materialized (
        select o.id, c.id as subscription_id, o.created_at, o.settled_at from counted c cross join lateral (
            select id, created_at, settled_at from operations
            where subscription_id = c.id and created_at > statement_timestamp() - $3 * interval '6 seconds'
              and kind = 'cleanup' order by created_at desc limit 2000) o
    ), paused as materialized (
        select o.subscription_id, t.customer_id from recent o join operation_steps t on t.operation_id = o.id
        where (o.settled_at is null or o.settled_at > clock_timestamp() - $3 * interval '1 second')
          and t.settled_at > clock_timestamp() - $3 * interval '1 second'
          and t.state in ('refused', 'failed') and t.customer_id is not null
    ), tried as materialized (
        select subscription_id, max(created_at) as at from recent group by subscription_id
    ), chosen as (
        select s.id from counted c join subscriptions s on s.id = c.id left join tried on tried.subscription_id = c.id
        where (select true from memberships m where m.subscription_id = s.id and {_IS_CLEARED}
            order by m.customer_id limit 1)
        order by tried.at nulls first, s.id limit 1 for update of s skip locked)
    select m.customer_id, s.id as subscription_id from chosen e join subscriptions s on s.id = e.id
    cross join lateral (
        select m.customer_id from memberships m where m.subscription_id = s.id and {_IS_CLEARED}
        order by m.customer_id limit $2) m
    order by m.customer_id"""


async def of_ended_subscription(
    connection: Connection, *, ended: list[str], limit: int, pause: float
) -> tuple[SubscriptionId, list[CustomerId]] | None:
    """Return an ended subscription with up to `limit` of its members, locked until the transaction ends.

    `ended` are the statuses of ended subscriptions. A member whose clean-up has failed is left out for `pause` seconds.
    None if no such subscription has other members.
    """
    rows = await connection.fetch(_OF_ENDED, ended, limit, pause)
    if not rows:
        return None
    return SubscriptionId(rows[0]["subscription_id"]), [CustomerId(row["customer_id"]) for row in rows]


async def is_member(connection: Connection, subscription_id: SubscriptionId, customer_id: CustomerId) -> bool:
    """Return True if the customer exists and is a member of the subscription."""
    return bool(
        await connection.fetchval(
            """select exists (select from memberships where subscription_id = $1 and customer_id = $2)""",
            subscription_id,
            customer_id,
        )
    )


def _member(row: Record) -> MemberRow:
    return MemberRow(*(row[name] for name in ("customer_id", "email", "name", "role", "state", "since")))
