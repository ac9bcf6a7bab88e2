"""`python -m benchmarks.growth`: what a team of 100,000 costs beside a team of 100, among 30,000 subscriptions.

Reads are timed one by one over one connection, in turn over the teams, so that the machine's speed drifts for all of
them alike. What counts is the ratio of the medians within a round. Additions and removals run against the stand-in.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

from app.commands.child_processes import ChildProcesses
from app.domain.ids import CustomerId
from app.identity import store as identities
from app.mirror.store import rows as mirror
from app.postgres.database import Connection, Database
from app.stripe.parsing import PARSERS
from benchmarks.verdicts import Bar, Part, print_verdicts
from testkit import growth, seat_world, seeding, servers
from testkit.company import Company
from testkit.ports import free_port
from testkit.seat_world import World
from testkit.servers import Server
from testkit.service import as_service

SIZES = (100, 1_000, 10_000, 100_000)
OTHERS = 30_000
BARS = {
    "read": 1.5,
    "page": 1.5,
    "next page": 1.5,
    "page by state": 1.5,
    "access": 1.5,
    "search": 5.0,
    "add": 1.5,
    "remove": 1.5,
}
"""The most that a larger team may take, as a multiple of a team of 100."""
BESIDE_BAR = 1.15
SEVERAL = 20
SEVERAL_BAR = 1.5
REPEATS = 25
"""Requests of each kind and team in a round."""
CHANGES = 4
"""Additions, and as many removals, of each team in a round."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One GET request at one server."""

    port: int
    path: str
    token: str


class Clock:
    """One kept-alive connection a server, and the milliseconds of each answer. `failed`: answers that are not 200."""

    def __init__(self) -> None:
        self._connections: dict[int, http.client.HTTPConnection] = {}
        self.failed = 0

    def timed(self, asked: Asked) -> tuple[float, Json]:
        connection = self._connections.setdefault(
            asked.port, http.client.HTTPConnection("127.0.0.1", asked.port, timeout=30)
        )
        started = time.perf_counter()
        connection.request("GET", asked.path, headers={"Authorization": f"Bearer {asked.token}"})
        answer = connection.getresponse()
        body = answer.read()
        milliseconds = (time.perf_counter() - started) * 1e3
        self.failed += answer.status != http.client.OK
        return milliseconds, json.loads(body)

    def medians(self, asked: Mapping[Any, Sequence[Asked]], number: int) -> dict[Any, float]:
        """Ask each name's requests in turn, `number` of them, and return the median of each name."""
        found: dict[Any, list[float]] = {name: [] for name in asked}
        for turn in range(number):
            for name in list(asked) if turn % 2 == 0 else reversed(list(asked)):
                requests = asked[name]
                found[name].append(self.timed(requests[turn % len(requests)])[0])
        return {name: median(values) for name, values in found.items()}


def measure(*, rounds: int, state: Path | None) -> Part:
    part = Part("growth")
    with ExitStack() as stack:
        url = stack.enter_context(servers.database("bench_growth", state))
        alone = stack.enter_context(servers.database("bench_growth_alone", state))
        children = stack.enter_context(ChildProcesses())
        for database, sizes in ((url, SIZES), (alone, SIZES[:1])):
            seeding.fill(database, OTHERS, issuer=servers.ISSUER)
            asyncio.run(_grow(database, sizes))
        logs = servers.directory(state)
        beside = [_serve(children, name, of, logs) for name, of in (("growth", url), ("growth-alone", alone))]
        clock = Clock()
        _reads(part, clock, beside[0], rounds)
        _beside(part, clock, beside, rounds)
        _several(part, clock, beside[0], rounds)
        part.failed += clock.failed
    found = seat_world.run(
        "bench_growth_changes", state, lambda world: _changes(world, rounds), STRIPE_RATE_LIMIT="10000"
    )
    part.failed += int(found["failed"])
    for what in ("add", "remove"):
        _team_bars(part, what, [{int(size): ms for size, ms in one.items()} for one in found[what]])
    return part


async def _grow(url: str, sizes: Sequence[int]) -> None:
    """Put the teams on the first subscriptions that no load is about, and make the people of the last part."""
    database = await Database.connect(url, pool_size=1)
    try:
        async with database.unhurried() as connection:
            await connection.execute("set statement_timeout = 0")
            for number, size in enumerate(sizes, 1):
                await growth.add_members(
                    connection,
                    seeding.subscription_id(number),
                    f"team{number}x",
                    size,
                    issuer=servers.ISSUER,
                )
            await _add_people(connection)
            await connection.execute("vacuum analyze", timeout=600)
            await connection.execute("checkpoint", timeout=600)
    finally:
        await database.close()


async def _add_people(connection: Connection) -> None:
    """Add one person on 20 subscriptions, one on a single one, and one who pays for 20."""
    of_several = [seeding.subscription_id(number) for number in range(10, 10 + SEVERAL)]
    for name, metadata in (
        ("several", {f"billing_{one}": "user" for one in of_several}),
        ("single", {f"billing_{of_several[0]}": "user"}),
        ("payer", {}),
    ):
        source = {"id": f"cus_growth{name}", "created": 1_700_000_000, "name": name, "metadata": metadata}
        await mirror.apply_page(connection, [PARSERS["customer"](source)], marker=0)
        await identities.link(
            connection, servers.ISSUER, f"growth-{name}", CustomerId(f"cus_growth{name}"), by="user_id"
        )
    await connection.execute(
        "update subscriptions set customer_id = 'cus_growthpayer', owner_id = 'cus_growthpayer' where id = any($1)",
        [seeding.subscription_id(number) for number in range(31, 31 + SEVERAL)],
    )


@dataclass(frozen=True, slots=True)
class Served:
    """A server over one of the databases."""

    server: Server
    environment: Mapping[str, str]

    def ask(self, path: str, subject: str, **query: str | int) -> Asked:
        text = f"?{urlencode(query)}" if query else ""
        return Asked(self.server.port, f"/v1{path}{text}", servers.token(self.environment, subject))

    def team(self, number: int, path: str = "", **query: str | int) -> Asked:
        """A request of a team's owner about the team."""
        route = f"/shared-subscriptions/{seeding.subscription_id(number)}{path}"
        return self.ask(route, seeding.owner_subject(number), **query)


def _serve(children: ChildProcesses, name: str, url: str, logs: Path) -> Served:
    port = free_port()
    environment = servers.service_environment(url, port)
    return Served(
        servers.start(children, name, ["app", "serve"], port=port, environment=environment, logs=logs),
        environment,
    )


def _reads(part: Part, clock: Clock, served: Served, rounds: int) -> None:
    teams = dict(enumerate(SIZES, 1))
    cursors = {
        number: clock.timed(served.team(number, "/users", limit=20))[1]["next_cursor"] for number in teams
    }
    kinds = {
        "read": {size: [served.team(number)] for number, size in teams.items()},
        "page": {size: [served.team(number, "/users", limit=20)] for number, size in teams.items()},
        "next page": {
            size: [served.team(number, "/users", limit=20, cursor=cursors[number])]
            for number, size in teams.items()
        },
        "page by state": {
            size: [served.team(number, "/users", limit=20, state=one) for one in ("active", "unclaimed")]
            for number, size in teams.items()
        },
        "access": {
            size: [_access(served, f"cus_team{number}x{of_ten:06}0") for of_ten in range(10)]
            for number, size in teams.items()
        },
        "search": {size: _searches(served, number, size) for number, size in teams.items()},
    }
    for what, asked in kinds.items():
        clock.medians(asked, 5)
        _team_bars(part, what, [clock.medians(asked, REPEATS) for _ in range(rounds)])


def _access(served: Served, subject: str) -> Asked:
    return served.ask("/customers/me/access", subject, product_id="prod_team")


def _searches(served: Served, number: int, size: int) -> list[Asked]:
    """For a text that all members have, one that none has, a whole address, and one that few have."""
    last = growth.member_email(f"team{number}x", size - 1)
    needles = ("member", "nobody has this", last, f"{size - 1:07}")
    return [served.team(number, "/users", limit=20, search=needle) for needle in needles]


def _beside(part: Part, clock: Clock, beside: Sequence[Served], rounds: int) -> None:
    asked = {
        name: [served.team(1, "/users", limit=20)]
        for name, served in zip(("with", "without"), beside, strict=True)
    }
    clock.medians(asked, 5)
    found = [clock.medians(asked, 2 * REPEATS) for _ in range(rounds)]
    ratios = [one["with"] / one["without"] for one in found]
    part.bars.append(Bar("growth: page of 100 beside a team of 100,000", ratios, BESIDE_BAR, at_most=True))


def _several(part: Part, clock: Clock, served: Served, rounds: int) -> None:
    kinds = {
        "access of a person on 20, beside one": {
            name: [_access(served, f"growth-{name}")] for name in ("several", "single")
        },
        "list of a person on 20, beside a payer of 20": {
            name: [served.ask("/customers/me/subscriptions", f"growth-{name}")]
            for name in ("several", "payer")
        },
    }
    for what, asked in kinds.items():
        clock.medians(asked, 5)
        found = [clock.medians(asked, REPEATS) for _ in range(rounds)]
        first, second = asked
        ratios = [one[first] / one[second] for one in found]
        part.bars.append(Bar(f"growth: {what}", ratios, SEVERAL_BAR, at_most=True))


def _team_bars(part: Part, what: str, rounds: Sequence[Mapping[int, float]]) -> None:
    for size in SIZES[1:]:
        ratios = [one[size] / one[SIZES[0]] for one in rounds]
        part.bars.append(
            Bar(f"growth: {what}, {size:,} members beside {SIZES[0]}", ratios, BARS[what], at_most=True)
        )
    taken = {size: round(median(one[size] for one in rounds), 2) for size in SIZES}
    print(f"{what:<10} {'  '.join(f'{size:,}: {ms:.1f} ms' for size, ms in taken.items())}", flush=True)
    part.figures.append({"what": what, "median_ms": taken})


async def _changes(world: World, rounds: int) -> Json:
    """Add a person to each team in turn, and remove them again, as often as the rounds say."""
    companies = {size: await world.service.company(seats=size + 50, users=0) for size in SIZES}
    async with world.service.context.database.unhurried() as connection:
        await connection.execute("set statement_timeout = 0")
        for size, company in companies.items():
            await growth.add_members(connection, company.subscription_id, f"change{size}x", size)
        await connection.execute("vacuum analyze", timeout=600)
    person = (await world.service.person("growing")).customer_id
    found: Json = {"add": [], "remove": [], "failed": 0}
    for _ in range(rounds + 1):
        times: dict[str, dict[int, list[float]]] = {
            what: {size: [] for size in SIZES} for what in ("add", "remove")
        }
        for turn in range(CHANGES):
            for size in SIZES if turn % 2 else reversed(SIZES):
                for what in ("add", "remove"):
                    seconds, is_done = await _change(world, companies[size], what, person)
                    times[what][size].append(seconds * 1e3)
                    found["failed"] += not is_done
        for what, of_size in times.items():
            found[what].append({str(size): median(values) for size, values in of_size.items()})
    # The first round fills caches of the processes and of PostgreSQL.
    return {**found, "add": found["add"][1:], "remove": found["remove"][1:]}


async def _change(world: World, company: Company, what: str, person: str) -> tuple[float, bool]:
    body = {"add": [{"customer_id": person}]} if what == "add" else {"remove": [person]}
    answer = await world.call(0, "PATCH", f"{company.path}/users", as_service("write"), body)
    outcomes = [result["outcome"] for result in answer.json().get("results", [])]
    return world.seconds[-1], outcomes == ["applied"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each kind of request (default 5)")
    seat_world.state_option(parser)
    given = parser.parse_args()
    part = measure(rounds=given.rounds, state=given.state)
    print_verdicts([part])
    print(json.dumps({"benchmark": "growth", **part.dumped()}))
    return 0 if part.met else 1


if __name__ == "__main__":
    sys.exit(main())
