"""`python -m verification.soak`: an hour of ordinary load, after which nothing has grown.

Four API processes and a worker take 50 requests and 50 events a second. The resident memory of each process is sampled.
Over the second half it may rise by 4 MiB an hour, and in the last quarter by half of what it rose in the second one.
Descriptors and sessions of the database stay flat, no transaction is idle for 250 ms, and the queue is empty at the
end. A fifth API process leaks 1 kB a request on purpose, and the same measure has to catch it. One JSON line; the exit
code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import asyncpg

from testkit import seat_world, servers
from testkit.company import event_of, signed
from testkit.memory import descriptors_of, memory_of
from testkit.ports import free_port
from testkit.seat_world import Json, World, known_people, progress
from verification.storms.slow_clients import requests
from verification.storms.traffic import Making, Seen, Traffic, asking, built

PROCESSES = 4
RATE = 50.0
PEOPLE = 200
"""Customers that events are about. Each has one in 4 seconds, so that its payload is clearly newer than the last."""
SLOPE_BAR = 4.0
"""MiB an hour, over the second half."""
SHARE_BAR = 0.5
"""Of the growth in the second quarter, which the last one may have."""
LEAST_GROWTH = 0.5
"""MiB below which a quarter's growth counts as none."""
MORE_DESCRIPTORS = 10
MORE_SESSIONS = 4
IDLE_BAR = 0.25
SAMPLE_SECONDS = 5.0
_WATCH = """
    select count(*) as sessions,
        coalesce(max(extract(epoch from clock_timestamp() - state_change)) filter (
            where state like 'idle in transaction%'), 0)::float as idle
    from pg_stat_activity where datname = current_database() and application_name = 'coseat'"""
LEAKING = "leaking"


@dataclass
class Samples:
    """What was seen over time. `at` is in hours since the beginning; resident memory is in MiB."""

    at: list[float] = field(default_factory=list)
    resident: dict[str, list[float]] = field(default_factory=dict)
    descriptors: dict[str, list[int]] = field(default_factory=dict)
    sessions: list[int] = field(default_factory=list)
    longest_idle: float = 0.0

    async def watch(self, pids: dict[str, int], url: str) -> None:
        """Sample every SAMPLE_SECONDS until it is cancelled."""
        began = time.monotonic()
        connection = await asyncpg.connect(url)
        try:
            while True:
                self.at.append((time.monotonic() - began) / 3600)
                for name, pid in pids.items():
                    memory = memory_of(pid)
                    if memory is None:
                        raise LookupError(f"{name} is gone")
                    self.resident.setdefault(name, []).append(memory.resident)
                    self.descriptors.setdefault(name, []).append(descriptors_of(pid))
                row = await connection.fetchrow(_WATCH)
                if row is not None:
                    self.sessions.append(row["sessions"])
                    self.longest_idle = max(self.longest_idle, row["idle"])
                await asyncio.sleep(SAMPLE_SECONDS)
        finally:
            await connection.close()


@dataclass(frozen=True, slots=True)
class Growth:
    """The growth of one process: MiB an hour over the second half, and MiB in the second and the last quarter."""

    slope: float
    second: float
    last: float

    @property
    def is_flat(self) -> bool:
        """Return True if it keeps the bars."""
        return self.slope <= SLOPE_BAR and self.last <= max(SHARE_BAR * self.second, LEAST_GROWTH)


def growth_of(at: Sequence[float], resident: Sequence[float]) -> Growth:
    """Return the growth, from at least eight samples."""
    half, quarter = len(at) // 2, len(at) // 4
    slope = statistics.linear_regression(at[half:], resident[half:]).slope
    return Growth(slope, _rise(resident[quarter:half]), _rise(resident[-quarter:]))


def _rise(values: Sequence[float]) -> float:
    """Return the rise from the first tenth to the last, by medians: a single sample may be a collection's."""
    share = max(1, len(values) // 10)
    return statistics.median(values[-share:]) - statistics.median(values[:share])


def is_flat(values: Sequence[int], more: int) -> bool:
    """Return True if the last quarter's highest is at most `more` above that of the second quarter."""
    quarter = len(values) // 4
    return max(values[-quarter:]) <= max(values[quarter : len(values) // 2]) + more


def events(people: Sequence[Json], secret: str) -> Making:
    """Return what makes deliveries about these customers, in rotation, each with another name."""
    numbers = count()

    def make(number: int, keeps: bool) -> bytes:
        state = {**people[number % len(people)], "name": f"Soak {next(numbers)}"}
        body = json.dumps(event_of("customer.updated", state, created=int(time.time()))).encode()
        return built("POST", "/webhooks/stripe", signed(body, secret=secret), body, keeps=keeps)

    return make


async def play(world: World, given: argparse.Namespace) -> Json:
    ports = [int(str(client.base_url.port)) for client in world.clients]
    leak = free_port()
    environment = {**world.environment, "PORT": str(leak)}
    servers.start(
        world.children,
        LEAKING,
        ["verification.leaking", "serve"],
        port=leak,
        environment=environment,
        logs=world.logs,
    )
    company = await world.service.company(seats=5)
    people = [
        await world.stripe.get(f"/v1/customers/{one.customer_id}")
        for one in await known_people(world, PEOPLE, "soak")
    ]
    pids = {
        name: world.children.child(name).pid
        for name in (*(f"soak-api{number}" for number in range(PROCESSES)), "soak-worker0", LEAKING)
    }
    secret = world.environment["STRIPE_WEBHOOK_SECRETS"].split(",")[0]
    samples, seconds = Samples(), given.minutes * 60

    def steady(make: Making, to: Sequence[int]) -> Traffic:
        return Traffic(make, lambda: to, rate=given.rate)

    # The leaking process takes the share of one in five.
    reads, deliveries = (
        steady(asking(requests(company)), [*ports, leak]),
        steady(events(people, secret), ports),
    )
    await asyncio.gather(reads.run(given.warm_up), deliveries.run(given.warm_up))
    watching = asyncio.create_task(samples.watch(pids, world.service.database_url))
    seen = await asyncio.gather(reads.run(seconds), deliveries.run(seconds))
    watching.cancel()
    ended = await asyncio.gather(watching, return_exceptions=True)
    for traffic in (reads, deliveries):
        traffic.close()
    left = await queue_left(world)
    return verdict(samples, seen, left, ended[0], tell=progress)


async def queue_left(world: World) -> int:
    """Return how many refreshes are left a minute after the load."""
    left = 1
    for _ in range(60):
        rows = await world.service.fetch("select count(*) as n from refreshes where notifications > 0")
        if not (left := int(rows[0]["n"])):
            break
        await asyncio.sleep(1)
    return left


def verdict(
    samples: Samples, seen: Sequence[Seen], left: int, ended: object, *, tell: Callable[[str], None]
) -> Json:
    growth = {name: growth_of(samples.at, values) for name, values in samples.resident.items()}
    for name, found in growth.items():
        quarters = f"{found.second:.1f} MiB in the second quarter, {found.last:.1f} in the last"
        tell(f"{name}: {found.slope:.1f} MiB/h, {quarters}")
    sound = {name: found for name, found in growth.items() if name != LEAKING}
    descriptors = {name: is_flat(values, MORE_DESCRIPTORS) for name, values in samples.descriptors.items()}
    failed = sum(one.failed for one in seen)
    met = {
        "memory": all(found.is_flat for found in sound.values()),
        "leak_is_caught": not growth[LEAKING].is_flat,
        "descriptors": all(descriptors.values()),
        "sessions": is_flat(samples.sessions, MORE_SESSIONS),
        "idle_transactions": samples.longest_idle <= IDLE_BAR,
        "queue": not left,
        "answers": not failed,
        "watched": isinstance(ended, asyncio.CancelledError),
    }
    return {
        "met": all(met.values()),
        "parts": met,
        "slope_mib_per_hour": {name: round(found.slope, 2) for name, found in growth.items()},
        "quarters_mib": {
            name: [round(found.second, 2), round(found.last, 2)] for name, found in growth.items()
        },
        "requests": sum(seen[0].statuses.values()),
        "events": sum(seen[1].statuses.values()),
        "failed": failed,
        "longest_idle_s": round(samples.longest_idle, 3),
        "queue_left": left,
        "load_average": seat_world.load_average(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of load that is measured (default 60)")
    parser.add_argument("--warm-up", type=float, default=60.0, help="seconds of load before (default 60)")
    parser.add_argument(
        "--rate", type=float, default=RATE, help="requests, and events, a second (default 50)"
    )
    seat_world.state_option(parser)
    given = parser.parse_args()
    found = seat_world.run("soak", given.state, lambda world: play(world, given), apis=PROCESSES)
    print(json.dumps({"storm": "soak", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
