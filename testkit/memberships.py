"""That the projection of memberships equals what the customers' rows say, and the counts equal the rows.

Which memberships nobody has claimed equals the records that have a typed address.
"""

from typing import Any

from app.postgres.database import Connection

MISMATCHES = """
    with named as (
        select m.subscription_id, c.id as customer_id, m.role
        from customers c cross join lateral (
            select c.member_of as subscription_id, c.member_role as role where c.member_of is not null
            union all
            select key, value from jsonb_each_text(c.further_memberships) where key is distinct from c.member_of) m
        where c.existence = 'present'
    ), kept as (
        select subscription_id, customer_id, role from memberships
    ), counted as (
        select subscription_id, count(*) filter (where role = 'user') as users,
            count(*) filter (where role = 'manager') as managers
        from named group by subscription_id
    ), counts as (
        select subscription_id, sum(users)::bigint as users, sum(managers)::bigint as managers
        from membership_counts group by subscription_id having sum(users) <> 0 or sum(managers) <> 0
    ), typed as (
        select m.subscription_id, m.customer_id, m.role from memberships m
        join member_records k on k.subscription_id = m.subscription_id and k.customer_id = m.customer_id
        where k.typed_email is not null
    ), unclaimed as (
        select subscription_id, customer_id, role from memberships where unclaimed
    ), typed_counted as (
        select subscription_id, count(*) filter (where role = 'user') as users,
            count(*) filter (where role = 'manager') as managers
        from typed group by subscription_id
    ), unclaimed_counted as (
        select subscription_id, sum(users)::bigint as users, sum(managers)::bigint as managers
        from unclaimed_counts group by subscription_id having sum(users) <> 0 or sum(managers) <> 0
    )
    select 'not kept' as problem, to_jsonb(x) as row from (select * from named except select * from kept) x
    union all select 'kept without reason', to_jsonb(x) from (select * from kept except select * from named) x
    union all select 'not counted', to_jsonb(x) from (select * from counted except select * from counts) x
    union all select 'counted without reason', to_jsonb(x) from (select * from counts except select * from counted) x
    union all select 'not unclaimed', to_jsonb(x) from (select * from typed except select * from unclaimed) x
    union all select 'unclaimed without reason', to_jsonb(x) from (select * from unclaimed except select * from typed) x
    union all select 'unclaimed not counted', to_jsonb(x)
        from (select * from typed_counted except select * from unclaimed_counted) x
    union all select 'unclaimed counted without reason', to_jsonb(x)
        from (select * from unclaimed_counted except select * from typed_counted) x"""


async def membership_mismatches(connection: Connection) -> list[dict[str, Any]]:
    """Return what the projection lacks, and what it has beyond the customers' rows; empty if both are equal."""
    return [dict(row) for row in await connection.fetch(MISMATCHES)]
