"""The people on a shared subscription: members by their metadata, and those whom an operation is adding."""

from __future__ import annotations

from app.cache.database import Connection, Record
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.views import MemberRow

# A person who has never logged in is shown as the one who added him typed him: adding must reveal nothing.
_PEOPLE = """
    with people as (
        select c.id as customer_id,
            case when shown.own then c.email else k.typed_email end as email,
            case when shown.own then c.name end as name,
            c.member_role as role, 'active' as state, k.since, c.id as sort_key
        from customers c
        left join member_records k on k.subscription_id = $1 and k.customer_id = c.id
        cross join lateral (select k.typed_email is null
            or exists (select from identities i where i.customer_id = c.id) as own) shown
        where c.member_of = $1 and c.presence = 'present' and c.id is distinct from $2
        union all
        select v.customer_id, t.email, null, t.role, 'pending', v.created_at, '~' || v.id
        from reservations v
        join operation_steps t on t.operation_id = v.operation_id and t.position = v.position
        left join customers c on c.id = v.customer_id
        where v.subscription_id = $1 and v.released_at is null
          and (c.member_of is distinct from $1 or c.presence <> 'present')
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
    """Rows with their sort keys, the owner left out; `search` is matched in lower case within e-mail and name."""
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
    return int(await connection.fetchval(_COUNT, subscription_id, owner_id, role, _needle(search)) or 0)


async def one(
    connection: Connection,
    subscription_id: SubscriptionId,
    customer_id: CustomerId,
    *,
    owner_id: CustomerId | None,
) -> MemberRow | None:
    row = await connection.fetchrow(_ONE, subscription_id, owner_id, None, None, customer_id)
    return None if row is None else _member(row)


def _needle(search: str | None) -> str | None:
    return search.lower() if search else None


def _member(row: Record) -> MemberRow:
    values = dict(row)
    values.pop("sort_key")
    return MemberRow(**values)
