"""Statements of the one poller that feeds all event streams of a process."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from app.domain.ids import CustomerId, SubscriptionId
from app.domain.roles import Relations, Role, roles_of
from app.domain.snapshots import JsonObject
from app.events.store.feed import COLUMNS
from app.identity.principals import EndUser
from app.postgres.database import Connection

PAGE: Final = 1000

# A login has the roles of its customer while it is linked to them. While the database takes no writes, a login may be
# served without a stored link, because its claim or the customer's metadata names the other one.
_IS_LINKED = """
    x.subject is null
        or (not exists (select from customers c where c.id = x.customer_id and c.existence = 'deleted')
            and (exists (select from identities i
                    where i.issuer = x.issuer and i.subject = x.subject and i.customer_id = x.customer_id)
                or ((x.is_claimed
                        or exists (select from customers c where c.id = x.customer_id and c.user_id = x.subject))
                    and not exists (select from identities i where i.customer_id = x.customer_id)
                    and not exists (select from identities i where i.issuer = x.issuer
                        and i.subject = x.subject and i.customer_id is not null))))"""

_ROLES = f"""
    select s.customer_id as payer_id, o.id as owner_id, m.role as member_role,
        s.id is not null and ({_IS_LINKED}) as is_present,
        exists (select from jsonb_array_elements(s.items) i
            join products p on p.id = i ->> 'product_id' and p.supports_sharing
            where not coalesce((i ->> 'metered')::boolean, false)) as shareable
    from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[])
        with ordinality as x(subscription_id, customer_id, issuer, subject, is_claimed, number)
    left join subscriptions s on s.id = x.subscription_id and s.existence = 'present'
    left join customers o on o.id = coalesce(s.owner_id, s.customer_id) and o.existence = 'present'
    left join memberships m on m.subscription_id = x.subscription_id and m.customer_id = x.customer_id
    order by x.number"""


class Reader(NamedTuple):
    """A customer who reads a subscription. `login` is None for a service key that acts for them."""

    subscription_id: SubscriptionId
    customer_id: CustomerId
    login: EndUser | None


async def newest(connection: Connection) -> int:
    """Return the position of the newest event."""
    return int(await connection.fetchval("select position from event_log"))


async def events_between(
    connection: Connection, after: int, until: int, subscription_ids: Collection[str]
) -> list[JsonObject]:
    """Return the first events of these subscriptions after a position, up to another one and up to PAGE.

    `is_of_another` tells that the operation which caused the event is one on another subscription.
    """
    rows = await connection.fetch(
        f"""select {COLUMNS}, coalesce((select o.subscription_id not in ('', events.subscription_id)
            from operations o where o.id = events.data ->> 'operation_id'), false) as is_of_another
        from events where position > $1 and position <= $2 and subscription_id = any($3)
        order by position limit {PAGE}""",
        after,
        until,
        list(subscription_ids),
    )
    return [dict(row) for row in rows]


async def roles(connection: Connection, readers: Sequence[Reader]) -> list[frozenset[Role]]:
    """Return the roles that each reader has now: none if their login is not linked to the customer any more."""
    logins = [one.login for one in readers]
    rows = await connection.fetch(
        _ROLES,
        [one.subscription_id for one in readers],
        [one.customer_id for one in readers],
        [None if login is None else login.issuer for login in logins],
        [None if login is None else login.subject for login in logins],
        [one.login is not None and one.login.customer_claim == one.customer_id for one in readers],
    )
    return [
        roles_of(
            one.customer_id,
            Relations(row["payer_id"], row["owner_id"], row["shareable"]),
            row["member_role"],
        )
        if row["is_present"]
        else frozenset()
        for one, row in zip(readers, rows, strict=True)
    ]
