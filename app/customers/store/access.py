"""SQL statement of the access check: whether a customer may use a product."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.ids import CustomerId, ProductId, SubscriptionId
from app.postgres.database import Connection

# The owner of a subscription has access to all its products, and a member to those that support sharing. The payer is
# the owner while metadata names none. A payer of a subscription with another owner has no seat by paying, so they have
# access only to the products that are not shared. If the named owner does not exist, the payer keeps access to all.
_ACCESS = """
    with mine as (
        select s.*, case when o.id = $1 then 'owner' when s.customer_id = $1 then 'payer' end as role, 'own' as via,
            o.id is null as is_ownerless
        from subscriptions s
        left join customers o on o.id = coalesce(s.owner_id, s.customer_id) and o.existence = 'present'
        where (s.customer_id = $1 or s.owner_id = $1) and s.existence = 'present'
        union all
        select s.*, m.role, 'shared', false
        from memberships m join subscriptions s on s.id = m.subscription_id and s.existence = 'present'
        where m.customer_id = $1 and coalesce(s.owner_id, s.customer_id) <> $1
    ), giving as (
        select m.id, m.status, m.role, m.via, m.cancel_at, m.is_ownerless,
            (x.item ->> 'current_period_end')::bigint as period_end,
            coalesce(p.supports_sharing, false) as shareable,
            exists (select from jsonb_array_elements(m.items) y
                join products q on q.id = y ->> 'product_id' and q.supports_sharing) as any_shared
        from mine m
        cross join jsonb_array_elements(m.items) as x(item)
        left join products p on p.id = x.item ->> 'product_id'
        where x.item ->> 'product_id' = $2
    )
    select id, status, role, via, least(period_end, cancel_at) as valid_until, any_shared
    from giving
    where (via = 'shared' and shareable) or role = 'owner' or (role = 'payer' and (not shareable or is_ownerless))
    order by status = any($3) desc, via, valid_until desc nulls last, id
    limit 1"""


@dataclass(frozen=True, slots=True)
class AccessRow:
    """The subscription that gives access.

    `valid_until` (Unix seconds) ends the paid period or is its earlier end.
    """

    subscription_id: SubscriptionId
    status: str
    role: str
    via: str
    valid_until: int | None


async def best_access(
    connection: Connection, customer_id: CustomerId, product_id: ProductId, *, open_statuses: list[str]
) -> AccessRow | None:
    """Return the subscription that gives the best access to the product, or None.

    One whose status is in `open_statuses` comes before all others, and one of the customer's own before a seat.
    """
    row = await connection.fetchrow(_ACCESS, customer_id, product_id, open_statuses)
    if row is None:
        return None
    role = "owner" if row["role"] == "payer" and not row["any_shared"] else row["role"]
    return AccessRow(SubscriptionId(row["id"]), row["status"], role, row["via"], row["valid_until"])
