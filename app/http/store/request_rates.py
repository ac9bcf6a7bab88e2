"""SQL statements for rates of callers that hold for all processes together.

There is one row for each bucket, by the database's clock. A row holds the instant at which its bucket is full again;
after that instant it means the same as no row. The table is unlogged: counting waits for no disk, and a crash of the
server loses only counts that are seconds old.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.postgres.database import Connection

# Rows are locked in the order of their names, so that two statements cannot deadlock. Another call may have emptied a
# bucket after this statement's snapshot, which then shows it fuller; so the wait is at least that of one request.
_SPEND = """
    with asked as (
        select name, cost * interval '1 second' as cost, slack * interval '1 second' as slack
        from unnest($1::text[], $2::float[], $3::float[]) as asked(name, cost, slack)
        order by name
    ), spent as (
        insert into request_rates as r (name, full_at)
        select name, clock_timestamp() + cost from asked
        on conflict (name) do update set full_at = greatest(r.full_at, clock_timestamp())
            + (select cost from asked where asked.name = excluded.name)
        where r.full_at <= clock_timestamp() + (select slack from asked where asked.name = excluded.name)
        returning name
    )
    select coalesce(max(extract(epoch from
        greatest(r.full_at - clock_timestamp() - asked.slack, asked.cost))), 0)::float
    from asked left join request_rates r using (name)
    where asked.name not in (select name from spent)"""


@dataclass(frozen=True, slots=True)
class Charge:
    """One request against the bucket `name`.

    `cost` and `slack` (the burst) are in seconds of refilling.
    """

    name: str
    cost: float
    slack: float


async def spend(connection: Connection, charges: Sequence[Charge]) -> float:
    """Charge every bucket and return 0.0, or return the seconds to wait.

    They are the seconds until the emptiest bucket has room. In the second case the buckets that have room are charged
    even so.
    """
    wait = await connection.fetchval(
        _SPEND,
        [charge.name for charge in charges],
        [charge.cost for charge in charges],
        [charge.slack for charge in charges],
    )
    return float(wait)
