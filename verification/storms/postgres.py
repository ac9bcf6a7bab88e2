"""`python -m verification.storms.postgres`: PostgreSQL fails in every way that it knows, under load.

    restarts      fast and immediate, under 200 events a second and member changes
    commits       the connection is cut after a COMMIT was sent and before its answer, again and again
    read_only     `default_transaction_read_only` on a living server
    full          every table raises SQLSTATE 53100
    connections   other clients hold all connections of the server
    failover      the first of two hosts is demoted and keeps its sessions
    vanished      the first of two hosts goes silent, without FIN, also inside transactions

No answer may be 500, nothing that was acknowledged may be lost or done twice, no process may end, and writes must work
within 10 s of a server that takes them (5 s after a restart). While a server answers, every read must be answered. One
JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg

from app.commands.local_postgres import LocalPostgres
from testkit import databases, seat_world, servers
from testkit.database_proxy import DatabaseProxy, proxied
from testkit.seat_world import Json
from verification.storms.world import World, lost, storm_world, under_load

HEALTHY_AFTER_RESTART = 5.0
WRITABLE_AFTER = 10.0
WRITES = "-c default_transaction_read_only=off"
CALM_SECONDS = 2.0
REFUSE_WRITES = """
    create function refuse_writes() returns trigger language plpgsql as $$
        begin raise exception 'the disk is full' using errcode = '53100'; end $$"""
ON_EACH_TABLE = "before insert or update or delete on {} for each statement execute function refuse_writes()"
TABLES = "select quote_ident(tablename) from pg_tables where schemaname = 'public'"
END_SESSIONS = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'coseat'"""


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url, server_settings={"default_transaction_read_only": "off"})
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def set_read_only(server: LocalPostgres, *, on: bool) -> None:
    setting = f"alter system set default_transaction_read_only = {'on' if on else 'off'}"
    await execute(server.url("postgres"), setting, "select pg_reload_conf()")


async def refuse_writes(url: str, *, on: bool) -> None:
    """Raise 53100 in every table. Each is a transaction of its own, so that none waits with locks of others."""
    connection = await asyncpg.connect(url)
    try:
        tables = [row[0] for row in await connection.fetch(TABLES)]
    finally:
        await connection.close()
    if on:
        await execute(
            url, REFUSE_WRITES, *(f"create trigger refuse {ON_EACH_TABLE.format(one)}" for one in tables)
        )
    else:
        await execute(
            url, *(f"drop trigger refuse on {one}" for one in tables), "drop function refuse_writes()"
        )


class Storms:
    """`seconds`: how long a state lasts. `number`: how many restarts or cut commits there are. `events` a second."""

    def __init__(
        self, server: LocalPostgres, *, seconds: float, restarts: int, cuts: int, events: float
    ) -> None:
        self.server = server
        self.seconds = seconds
        self.number_of_restarts = restarts
        self.cuts = cuts
        self.events = events

    async def restarts(self, url: str) -> Json:
        async with storm_world(url) as world:
            healthy: list[float] = []
            async with under_load(world, events=self.events):
                for number in range(self.number_of_restarts):
                    await asyncio.sleep(CALM_SECONDS)
                    await asyncio.to_thread(self.server.restart, "fast" if number % 2 else "immediate")
                    healthy.append(await world.until_healthy())
            return await judged(world, healthy, HEALTHY_AFTER_RESTART, reads=False)

    async def commits(self, url: str) -> Json:
        async with proxied(url) as proxy, storm_world(url, configured=proxy.url) as world:
            async with under_load(world, events=self.events / 4):
                for _ in range(self.cuts):
                    await proxy.cut_after(b"COMMIT")
            return await judged(world, [await world.until_healthy()], WRITABLE_AFTER, reads=False)

    async def read_only(self, url: str) -> Json:
        async with storm_world(url) as world:
            return await self._during(world, lambda: set_read_only(self.server, on=True), self._writable)

    async def full(self, url: str) -> Json:
        async with storm_world(url) as world:
            return await self._during(
                world,
                lambda: refuse_writes(url, on=True),
                lambda: refuse_writes(url, on=False),
            )

    async def connections(self, url: str) -> Json:
        held: list[asyncpg.Connection[asyncpg.Record]] = []

        async def hold_all() -> None:
            held.append(await asyncpg.connect(url))
            # The places of sessions that are ended are taken before the service takes them again.
            for _ in range(3):
                with suppress(asyncpg.TooManyConnectionsError):
                    while True:
                        held.append(await asyncpg.connect(self.server.url("postgres")))
                await held[0].execute(END_SESSIONS)

        async def release_all() -> None:
            await asyncio.gather(*(connection.close() for connection in held))

        async with storm_world(url) as world:
            return await self._during(world, hold_all, release_all, reads=False)

    async def failover(self, url: str) -> Json:
        async with two_hosts(url) as (configured, _), storm_world(url, configured=configured) as world:
            found = await self._during(world, lambda: set_read_only(self.server, on=True), nothing)
            await self._writable()
            return found

    async def vanished(self, url: str) -> Json:
        async with two_hosts(url) as (configured, first), storm_world(url, configured=configured) as world:

            async def go_silent() -> None:
                first.go_silent()

            found = await self._during(world, go_silent, nothing, reads=False)
            first.speak_again()
            return found

    async def _writable(self) -> None:
        await set_read_only(self.server, on=False)

    async def _during(
        self,
        world: World,
        begin: Callable[[], Awaitable[None]],
        end: Callable[[], Awaitable[None]],
        *,
        reads: bool = True,
    ) -> Json:
        """Judge the answers while a state lasts, and the time until writes work after it."""
        async with under_load(world, events=self.events / 4):
            await asyncio.sleep(CALM_SECONDS)
            await begin()
            if end is not nothing:
                await asyncio.sleep(self.seconds)
                await end()
            healthy = await world.until_healthy()
            await asyncio.sleep(CALM_SECONDS)
        return await judged(world, [healthy], WRITABLE_AFTER, reads=reads)


async def nothing() -> None:
    """The state does not end: another host takes over at once."""


@asynccontextmanager
async def two_hosts(url: str) -> AsyncIterator[tuple[str, DatabaseProxy]]:
    """A URL of two hosts; the second takes writes even if the server's default is to take none."""
    async with proxied(url) as first, proxied(url, options=WRITES) as second:
        yield first.url.replace(first.address, f"{first.address},{second.address}"), first


async def judged(world: World, healthy: list[float], bar: float, *, reads: bool) -> Json:
    """`reads`: every read must have been answered 200."""
    found = await lost(world)
    tally = world.tally
    ended = world.ended()
    return {
        "answers": dict(sorted(tally.answers.items())),
        "failed_reads": tally.failed_reads,
        "bad": len(tally.bad),
        "first_bad": tally.bad[:1],
        "healthy_after_s": round(max(healthy), 1),
        "ended": ended,
        **found,
        "met": not (tally.bad or ended or any(found.values()) or (reads and tally.failed_reads))
        and max(healthy) <= bar,
    }


STORMS = ("restarts", "commits", "read_only", "full", "connections", "failover", "vanished")


async def play(storms: Storms, names: Sequence[str]) -> Json:
    found: Json = {}
    maintenance = storms.server.url("postgres")
    template = await asyncio.to_thread(databases.ensure_template, maintenance)
    for name in names:
        seat_world.progress(f"{name}…")
        url = await asyncio.to_thread(databases.clone, maintenance, template)
        found[name] = await getattr(storms, name)(url)
        await asyncio.to_thread(databases.drop, maintenance, url)
    found["met"] = all(one["met"] for one in found.values())
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("storms", nargs="*", choices=[[], *STORMS], help="some of them (all)")
    parser.add_argument("--restarts", type=int, default=20, help="of PostgreSQL (20)")
    parser.add_argument("--cuts", type=int, default=200, help="of a COMMIT in flight (200)")
    parser.add_argument("--seconds", type=float, default=20.0, help="that any other state lasts (20)")
    parser.add_argument("--events", type=float, default=200.0, help="deliveries a second (200)")
    seat_world.state_option(parser)
    given = parser.parse_args(arguments)
    state: Path | None = given.state
    server = LocalPostgres(servers.directory(state) / "postgres-storms")
    server.start()
    storms = Storms(
        server, seconds=given.seconds, restarts=given.restarts, cuts=given.cuts, events=given.events
    )
    try:
        asyncio.run(set_read_only(server, on=False))
        found = asyncio.run(play(storms, given.storms or STORMS))
    finally:
        server.stop()
    print(json.dumps(found))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
