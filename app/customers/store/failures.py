"""Count the failures of a login: declined cards and unknown codes.

They are counted for all processes together. A login has LIMIT slots. An attempt takes a free slot before Stripe is
asked; a failure keeps it for WINDOW_SECONDS, and anything else gives it back. So there are never more than LIMIT
failures in a window, however many attempts race. Slots are rows of `request_rates` (a name, and the instant from which
the slot is free again).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.postgres.database import Connection

LIMIT: Final = 5
WINDOW_SECONDS: Final = 600
ATTEMPT_SECONDS: Final = 60
"""Seconds after which the slot of an attempt whose process died is free again."""

_LOCK = "select pg_advisory_xact_lock(hashtextextended($1, 7203911661))"
_TAKEN = """
    select name, extract(epoch from full_at - clock_timestamp())::float as left from request_rates
    where name = any($1) and full_at > clock_timestamp()"""
_KEEP = """
    insert into request_rates (name, full_at) values ($1, clock_timestamp() + $2 * interval '1 second')
    on conflict (name) do update set full_at = excluded.full_at"""


@dataclass(frozen=True, slots=True)
class Slots:
    """`taken` is the slot of this attempt, None if none is free.

    `blocked_for`: seconds, while all hold failures.
    """

    taken: int | None
    blocked_for: float | None


def _failure(login: str, slot: int) -> str:
    return f"failure:{login}:{slot}"


def _attempt(login: str, slot: int) -> str:
    return f"attempt:{login}:{slot}"


async def blocked_for(connection: Connection, login: str) -> float | None:
    """Return for how many seconds the login may attempt nothing, or None."""
    rows = await connection.fetch(_TAKEN, [_failure(login, slot) for slot in range(LIMIT)])
    return min(row["left"] for row in rows) if len(rows) == LIMIT else None


async def begin(connection: Connection, login: str) -> Slots:
    """Take a slot, within the caller's transaction."""
    await connection.execute(_LOCK, login)
    if (seconds := await blocked_for(connection, login)) is not None:
        return Slots(None, seconds)
    names = [name(login, slot) for slot in range(LIMIT) for name in (_failure, _attempt)]
    taken = {row["name"] for row in await connection.fetch(_TAKEN, names)}
    for slot in range(LIMIT):
        if taken.isdisjoint((_failure(login, slot), _attempt(login, slot))):
            await connection.execute(_KEEP, _attempt(login, slot), ATTEMPT_SECONDS)
            return Slots(slot, None)
    return Slots(None, None)


async def end(connection: Connection, login: str, slot: int, *, failed: bool) -> None:
    """Give the slot back, or keep it as a failure."""
    if failed:
        await connection.execute(_KEEP, _failure(login, slot), WINDOW_SECONDS)
    await connection.execute("delete from request_rates where name = $1", _attempt(login, slot))
