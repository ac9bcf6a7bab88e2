"""The refresh table against PostgreSQL: leases, spacing, back-off, death, and many takers at once."""

import asyncio
from typing import Any

from app.mirror.store import refreshes
from app.mirror.store.refreshes import Lease
from app.postgres.database import Connection, Database

LONG = 30.0


async def note(connection: Connection, *ids: str, at: int = 1000) -> None:
    for object_id in ids:
        await refreshes.note(connection, "customer", object_id, notified_at=at)


async def due(connection: Connection, *, limit: int = 10, seconds: float = LONG) -> list[Lease]:
    return await refreshes.due(connection, limit=limit, lease_seconds=seconds)


async def state(connection: Connection, object_id: str) -> dict[str, Any]:
    found = await connection.fetchrow(
        """select *, extract(epoch from not_before - clock_timestamp())::float as starts_in
        from refreshes where id = $1""",
        object_id,
    )
    assert found is not None
    return dict(found)


async def make_due(connection: Connection) -> None:
    await connection.execute("update refreshes set not_before = clock_timestamp()")


async def expire_leases(connection: Connection) -> None:
    await connection.execute("update refreshes set lease_until = clock_timestamp() - interval '1 ms'")


async def test_what_is_noted_is_due_at_once_and_leased_once(connection: Connection) -> None:
    await note(connection, "cus_1", "cus_2", "cus_1")
    leases = await due(connection)
    assert sorted((lease.id, lease.kind, lease.notifications) for lease in leases) == [
        ("cus_1", "customer", 2),
        ("cus_2", "customer", 1),
    ]
    assert await due(connection) == []


async def test_no_more_than_the_limit_and_the_longest_waiting_first(connection: Connection) -> None:
    for number in range(5):
        await note(connection, f"cus_{number}")
    assert {lease.id for lease in await due(connection, limit=2)} == {"cus_0", "cus_1"}
    assert {lease.id for lease in await due(connection, limit=2)} == {"cus_2", "cus_3"}


async def test_takers_at_once_never_hold_the_same_lease(database: Database) -> None:
    async with database.connection() as connection:
        await note(connection, *(f"cus_{number}" for number in range(60)))

    async def take() -> list[Lease]:
        found: list[Lease] = []
        async with database.connection() as connection:
            while len(got := await due(connection, limit=7)):
                found += got
        return found

    taken = [lease for some in await asyncio.gather(*(take() for _ in range(6))) for lease in some]
    assert len(taken) == len({lease.id for lease in taken}) == 60


async def test_writers_at_once_never_hold_the_same_lease(database: Database) -> None:
    """Writers of our own and the worker, for one object: somebody holds it, and one alone."""
    async with database.connection() as connection:
        await note(connection, "cus_1")

    async def write() -> list[Lease]:
        async with database.connection() as connection:
            lease = await refreshes.take(connection, "customer", "cus_1", lease_seconds=LONG)
            return [] if lease is None else [lease]

    async def work() -> list[Lease]:
        async with database.connection() as connection:
            return await due(connection)

    for _ in range(15):
        outcomes = await asyncio.gather(*(write() for _ in range(4)), work(), work())
        (lease,) = [lease for held in outcomes for lease in held]
        async with database.connection() as connection:
            assert await refreshes.still_held(connection, lease)
            await refreshes.run_again(connection, lease)
            await make_due(connection)


async def test_a_lease_that_ran_out_is_free_and_its_late_holder_is_refused(connection: Connection) -> None:
    await note(connection, "cus_1")
    (late,) = await due(connection)
    assert await refreshes.take(connection, "customer", "cus_1", lease_seconds=LONG) is None
    await expire_leases(connection)
    assert await refreshes.still_held(connection, late), "nobody else has taken it yet"
    (now,) = await due(connection)
    assert not await refreshes.still_held(connection, late)
    for finish in (
        refreshes.mark_applied(connection, late),
        refreshes.run_again(connection, late),
        refreshes.failed(connection, late, "late"),
    ):
        await finish
    assert await refreshes.still_held(connection, now)
    after = await state(connection, "cus_1")
    assert (after["notifications"], after["attempts"], after["last_error"]) == (1, 0, None)


async def test_taking_an_object_never_noted_wants_no_refresh(connection: Connection) -> None:
    lease = await refreshes.take(connection, "customer", "cus_1", lease_seconds=LONG)
    assert lease is not None
    assert lease.notifications == 0
    await refreshes.mark_applied(connection, lease)
    await make_due(connection)
    assert await due(connection) == []


async def test_a_refresh_starts_no_sooner_than_two_seconds_after_the_last(connection: Connection) -> None:
    await note(connection, "cus_1")
    (lease,) = await due(connection)
    await refreshes.mark_applied(connection, lease)
    assert (await state(connection, "cus_1"))["notifications"] == 0
    await note(connection, "cus_1")
    assert await due(connection) == []
    assert 1.0 < (await state(connection, "cus_1"))["starts_in"] <= 2.0
    await make_due(connection)
    assert len(await due(connection)) == 1


async def test_a_hint_that_came_while_fetching_is_fetched_again(connection: Connection) -> None:
    await note(connection, "cus_1", at=1000)
    (lease,) = await due(connection)
    await note(connection, "cus_1", at=1001)
    await refreshes.mark_applied(connection, lease)
    assert (await state(connection, "cus_1"))["notifications"] > 0
    await make_due(connection)
    (lease,) = await due(connection)
    await refreshes.mark_applied(connection, lease)
    assert (await state(connection, "cus_1"))["notifications"] == 0


async def test_a_row_that_changed_meanwhile_is_fetched_once_more(connection: Connection) -> None:
    lease = await refreshes.take(connection, "customer", "cus_1", lease_seconds=LONG)
    assert lease is not None
    await refreshes.run_again(connection, lease)
    after = await state(connection, "cus_1")
    assert (after["notifications"], after["lease_token"], after["attempts"]) == (1, None, 0)


async def test_failures_back_off_and_the_eighth_is_the_last(connection: Connection) -> None:
    await note(connection, "cus_1")
    for attempt in range(refreshes.MAX_ATTEMPTS):
        (lease,) = await due(connection)
        assert lease.attempts == attempt
        await refreshes.failed(connection, lease, "stripe_unavailable")
        after = await state(connection, "cus_1")
        assert after["last_error"] == "stripe_unavailable"
        assert (after["dead_at"] is not None) is (attempt + 1 == 8)
        assert 2**attempt * 0.5 - 0.5 < after["starts_in"] <= min(300, 2**attempt)
        assert await due(connection) == []
        await make_due(connection)
    assert await due(connection) == []
    await note(connection, "cus_1")
    [lease] = await due(connection)
    assert lease.attempts == 0, "C4: a new event is a new reason to try"
    assert (await state(connection, "cus_1"))["dead_at"] is None


async def test_a_success_forgets_the_failures(connection: Connection) -> None:
    await note(connection, "cus_1")
    (lease,) = await due(connection)
    await refreshes.failed(connection, lease, "stripe_unavailable")
    await make_due(connection)
    (lease,) = await due(connection)
    await refreshes.mark_applied(connection, lease)
    after = await state(connection, "cus_1")
    assert (after["attempts"], after["last_error"], after["dead_at"], after["notifications"]) == (
        0,
        None,
        None,
        0,
    )


async def test_a_dead_object_can_still_be_written(connection: Connection) -> None:
    await note(connection, "cus_1")
    await connection.execute("update refreshes set dead_at = clock_timestamp(), attempts = 8")
    lease = await refreshes.take(connection, "customer", "cus_1", lease_seconds=LONG)
    assert lease is not None
    await refreshes.mark_applied(connection, lease)
    after = await state(connection, "cus_1")
    assert (after["dead_at"], after["notifications"]) == (None, 0)


async def test_one_poisoned_object_holds_up_no_other(connection: Connection) -> None:
    await note(connection, "cus_bad", "cus_good")
    for lease in await due(connection):
        if lease.id == "cus_bad":
            await refreshes.failed(connection, lease, "is malformed")
        else:
            await refreshes.mark_applied(connection, lease)
    await note(connection, "cus_good")
    await make_due(connection)
    assert {lease.id for lease in await due(connection)} == {"cus_bad", "cus_good"}
