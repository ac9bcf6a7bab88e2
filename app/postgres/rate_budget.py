"""Draw grants for calls to Stripe from the account's rate budget, by the database's clock.

All processes share the budget. The function of app/postgres/sql/draw_stripe_requests.sql decides and holds its lock
for one statement only. See docs/decisions/0031-grant-stripes-rate-call-by-call.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.postgres.database import Connection

_DRAW = """
    select granted, spare, first_seconds, gap_seconds, wait_seconds
    from draw_stripe_requests($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"""

# Several refusals within a second count once.
_SLOW_DOWN = """
    insert into rate_slowdown as s (single, factor, since) values (true, $1, clock_timestamp())
    on conflict (single) do update set since = clock_timestamp(),
        factor = greatest($2, least(1, s.factor + extract(epoch from clock_timestamp() - s.since) / $3) * $1)
    where s.since < clock_timestamp() - interval '1 second'"""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the budget.

    `account` is the limit of all processes in calls a second. `shares` is the fraction of it, 0 to 1, that each kind of
    work can always use. `keep_seconds` is the lifetime of a spare grant. `delay_seconds` is the largest difference in
    network delay between two calls. `ahead_seconds` is how far into the future steady grants are given.
    `recovery_seconds` is the time after which a lowered rate is back at its limit.
    """

    account: int
    shares: Mapping[str, float]
    keep_seconds: float
    delay_seconds: float
    ahead_seconds: float
    recovery_seconds: float


@dataclass(frozen=True, slots=True)
class Draw:
    """The result of one draw.

    `granted` calls may begin within `spend_seconds`, and `spare` further calls within `keep_seconds`. The first steady
    call begins in `first_seconds` and each further one `gap_seconds` later. Another draw may succeed in `wait_seconds`.
    """

    granted: int
    spare: int
    first_seconds: float
    gap_seconds: float
    wait_seconds: float


async def draw(
    connection: Connection,
    limits: Limits,
    *,
    spend_seconds: float,
    work: str,
    endpoint: str,
    wanted: int,
    wanted_spare: int,
    endpoint_limit: int,
    steady: bool,
) -> Draw:
    """Draw up to `wanted` grants, and up to `wanted_spare` further ones, for calls to one endpoint.

    `endpoint_limit` is in calls a second. With `steady` the grants are evenly spaced; otherwise they may be used at
    once. A grant is lost if its call has not begun after `spend_seconds`.
    """
    row = await connection.fetchrow(
        _DRAW,
        work,
        endpoint,
        wanted,
        wanted_spare,
        float(limits.account),
        dict(limits.shares),
        float(endpoint_limit),
        steady,
        spend_seconds,
        limits.keep_seconds,
        limits.delay_seconds,
        limits.ahead_seconds,
        limits.recovery_seconds,
    )
    if row is None:
        raise LookupError("a function that always answers one row answered none")
    return Draw(**dict(row))


async def slow_down(connection: Connection, *, factor: float, lowest: float, recovery_seconds: float) -> None:
    """Multiply the limits of all processes by `factor` (0 to 1) after Stripe answered 429.

    The product is never below `lowest`, and recovers fully in `recovery_seconds`.
    """
    await connection.execute(_SLOW_DOWN, factor, lowest, recovery_seconds)
