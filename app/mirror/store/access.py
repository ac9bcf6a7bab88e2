"""SQL of the access rule: which subscription lets a customer use a product."""

from __future__ import annotations


def best_access(*, customer: str, product: str, open_statuses: str) -> str:
    """Return the query of the subscription that gives a customer the best access to a product, at most one row.

    The arguments are SQL expressions, which use none of the query's own short names. A subscription whose status is in
    `open_statuses` comes before all others, and one of the customer's own before a seat.

    The owner of a subscription has access to all its products, and a member to those that support sharing. The payer is
    the owner while metadata names none. A payer of a subscription with another owner has no seat by paying, so they
    have access only to the products that are not shared. If the named owner does not exist, the payer keeps access to
    all.
    """
    return f"""
    with mine as (
        select s.*, case when o.id = {customer} then 'owner' when s.customer_id = {customer} then 'payer' end as role,
            'own' as via, o.id is null as is_ownerless
        from subscriptions s
        left join customers o on o.id = coalesce(s.owner_id, s.customer_id) and o.existence = 'present'
        where (s.customer_id = {customer} or s.owner_id = {customer}) and s.existence = 'present'
        union all
        select s.*, m.role, 'shared', false
        from memberships m join subscriptions s on s.id = m.subscription_id and s.existence = 'present'
        where m.customer_id = {customer} and coalesce(s.owner_id, s.customer_id) <> {customer}
    ), giving as (
        select m.id, m.status, m.role, m.via, m.cancel_at, m.is_ownerless,
            (x.item ->> 'current_period_end')::bigint as period_end,
            coalesce(p.supports_sharing, false) as shareable,
            exists (select from jsonb_array_elements(m.items) y
                join products q on q.id = y ->> 'product_id' and q.supports_sharing) as any_shared
        from mine m
        cross join jsonb_array_elements(m.items) as x(item)
        left join products p on p.id = x.item ->> 'product_id'
        where x.item ->> 'product_id' = {product}
    )
    select id, status, case when role = 'payer' and not any_shared then 'owner' else role end as role, via,
        least(period_end, cancel_at) as valid_until
    from giving
    where (via = 'shared' and shareable) or role = 'owner' or (role = 'payer' and (not shareable or is_ownerless))
    order by status = any({open_statuses}) desc, via, valid_until desc nulls last, id
    limit 1"""
