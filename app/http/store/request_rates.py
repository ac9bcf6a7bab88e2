"""Callers' rates that hold for all processes together: one row a bucket, counted by the database's clock.

A row holds the instant at which its bucket is full again; once that has passed it says no more than no row does. The
table is unlogged: a count waits for no disk, and a crash of the server forgets what is seconds old anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.postgres.database import Connection

# In the order of names, so that two callers never wait for each other's rows. A bucket that another call has just
# emptied may look fuller here than it was found: its wait is one request's at least.
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
    """One request against the bucket `name`: `cost` seconds until it is given back, `slack` seconds of burst."""

    name: str
    cost: float
    slack: float


async def spend(connection: Connection, charges: Sequence[Charge]) -> float:
    """0.0 and every bucket is charged, or the seconds until the emptiest has room; the others are charged then too."""
    wait = await connection.fetchval(
        _SPEND,
        [charge.name for charge in charges],
        [charge.cost for charge in charges],
        [charge.slack for charge in charges],
    )
    return float(wait)
