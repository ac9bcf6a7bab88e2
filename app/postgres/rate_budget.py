"""The account's request budget: grants that every process draws from one place, by the database's clock.

The function `draw_stripe_requests` (migration 0004) decides; no row is locked longer than its one statement takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.postgres.database import Connection

_DRAW = """
    select granted, spare, first_seconds, gap_seconds, wait_seconds
    from draw_stripe_requests($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"""

# Refusals that come together are one: the rate is lowered once a second at most.
_SLOW_DOWN = """
    insert into rate_slowdown as s (single, factor, since) values (true, $1, clock_timestamp())
    on conflict (single) do update set since = clock_timestamp(),
        factor = greatest($2, least(1, s.factor + extract(epoch from clock_timestamp() - s.since) / $3) * $1)
    where s.since < clock_timestamp() - interval '1 second'"""


@dataclass(frozen=True, slots=True)
class Limits:
    """`account`: calls a second of all processes; `shares`: the part of it that each kind of work can count on.

    `delay_seconds`: what the way to Stripe may take longer for one call than for another.
    `ahead_seconds`: how far into the future steady grants are given.
    """

    account: int
    shares: Mapping[str, float]
    keep_seconds: float
    delay_seconds: float
    ahead_seconds: float
    recovery_seconds: float


@dataclass(frozen=True, slots=True)
class Draw:
    """`granted` calls may begin within `spend_seconds`, `spare` ones within `keep_seconds`.

    Steady grants begin in `first_seconds` and then at every `gap_seconds`.
    `wait_seconds`: when another draw may find something free.
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
    """`steady` spaces the grants evenly; else all that is free is given at once."""
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
    """Stripe has answered 429: the limits of all processes are multiplied by `factor`, and recover with time."""
    await connection.execute(_SLOW_DOWN, factor, lowest, recovery_seconds)
