"""SQL statements that count what is not finished: operations and the seats that they reserve."""

from __future__ import annotations

from dataclasses import dataclass

from app.postgres.database import Connection

_UNSETTLED = """
    select count(*) filter (where not waits) as running, count(*) filter (where waits) as awaiting_payment,
        coalesce(extract(epoch from clock_timestamp() - min(created_at) filter (where not waits)), 0)::float as oldest,
        (select count(*) from reservations where released_at is null) as reservations
    from (
        select o.created_at, exists (select from operation_steps t
            where t.operation_id = o.id and t.state = 'awaiting_payment') as waits
        from operations o where o.settled_at is null) unsettled"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is not settled.

    `oldest`: seconds since the oldest running operation was admitted, 0 if there is none. An operation that waits for
    its payment is not counted as running. `reservations`: seats that operations hold.
    """

    running: int
    awaiting_payment: int
    oldest: float
    reservations: int


async def backlog(connection: Connection) -> Backlog:
    """Count the operations that are not settled, and their reservations."""
    row = await connection.fetchrow(_UNSETTLED)
    return Backlog(**row) if row is not None else Backlog(0, 0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class Unending:
    """An operation that has run for long. `age`: seconds since its admission."""

    id: str
    subscription_id: str
    kind: str
    age: float


async def unending(connection: Connection, *, seconds: float, limit: int) -> list[Unending]:
    """Return operations that have run for more than so many seconds and wait for no payment, oldest first."""
    rows = await connection.fetch(
        """select o.id, o.subscription_id, o.kind::text,
            extract(epoch from clock_timestamp() - o.created_at)::float as age
        from operations o
        where o.settled_at is null and o.created_at < clock_timestamp() - $1 * interval '1 second'
          and not exists (select from operation_steps t where t.operation_id = o.id and t.state = 'awaiting_payment')
        order by o.created_at limit $2""",
        seconds,
        limit,
    )
    return [Unending(**dict(row)) for row in rows]
