"""`python -m benchmarks.expansion`: what a team of 100,000 costs the webhook that ends it, beside a team of ten.

Three things are timed in turn for both teams: a signed delivery that ends the subscription, one that takes the seats
from its product, and the transaction in which a worker applies a fetched subscription that has ended. Each is undone
in SQL before the next. A commit does not wait for the disk, because that takes equally long for both teams and would
hide a difference.

Then one subscription of each size ends, and one product of each loses its seats, while a worker runs and an endpoint
listens. Each customer's `access.changed` has to be in the log exactly once, and has to arrive exactly once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median

import httpx

from benchmarks.teams import Ground, Json, Team, seeded, until
from benchmarks.verdicts import Bar, Part, print_verdicts
from testkit import seat_world, servers
from testkit.receiver import Received, Receiver, receiving
from testkit.service import as_service

MEMBERS, OTHERS = 100_000, 30_000
BAR = 1.5
"""The most that the large team may take, as a multiple of a team of ten."""
ROUNDS = 9
REPEATS = 5
"""Of each kind and team in a round."""
AGAIN_SECONDS = 2.0
"""Time in which an event that is delivered twice would come again."""
WRONG = ("missing", "too_many", "still_have_access", "not_delivered", "delivered_again")


async def timed(ground: Ground, rounds: int) -> Part:
    """What each kind takes for the large team, as a multiple of the team of ten."""
    part = Part("expansion")

    async def end(team: Team) -> float:
        async with ground.undone("subscriptions", team.subscription_id):
            return ground.end(team)

    async def switch(team: Team) -> float:
        async with ground.undone("products", team.product_id):
            return ground.switch(team)

    async def apply(team: Team) -> float:
        async with ground.undone("subscriptions", team.subscription_id):
            return await ground.apply_end(team)

    for what, act, teams in (
        ("delivered end", end, ground.teams.ended),
        ("delivered switch", switch, ground.teams.switched),
        ("fetched end", apply, ground.teams.ended),
    ):
        await _medians(act, teams)
        found = [await _medians(act, teams) for _ in range(rounds)]
        small, large = teams
        ratios = [one[large.name] / one[small.name] for one in found]
        members = f"{large.members:,} members beside {small.members}"
        part.bars.append(Bar(f"expansion: {what}, {members}", ratios, BAR, at_most=True))
        taken = {team.members: round(median(one[team.name] for one in found), 2) for team in teams}
        print(f"{what:<17} {'  '.join(f'{size:,}: {ms:.2f} ms' for size, ms in taken.items())}", flush=True)
        part.figures.append({"what": what, "median_ms": taken})
    return part


async def _medians(act: Callable[[Team], Awaitable[float]], teams: Sequence[Team]) -> dict[str, float]:
    """Do it several times for each team in turn."""
    found: dict[str, list[float]] = {team.name: [] for team in teams}
    for turn in range(REPEATS):
        for team in teams if turn % 2 == 0 else reversed(teams):
            found[team.name].append(await act(team))
    return {name: median(values) for name, values in found.items()}


async def told(ground: Ground) -> Json:
    """Let it all happen, and return what is wrong in the log and at the endpoint, and how long each took."""
    arrived: Counter[str] = Counter()
    async with receiving() as receiver:
        secret = await _endpoint(ground, receiver)

        def take(one: Received) -> int:
            arrived[one.verified(secret)["id"]] += 1
            receiver.received.clear()
            return 204

        receiver.status = take
        before = await ground.position()
        async with ground.worker():
            started = time.monotonic()
            for team in ground.teams.ended:
                await asyncio.to_thread(ground.end, team)
            for team in ground.teams.switched:
                await asyncio.to_thread(ground.switch, team)
            await ground.rest()
            made = time.monotonic() - started
            seat_world.progress(f"the events were made within {made:.0f} s")
            rows = await ground.fetch(
                "select id, type, subscription_id, customer_id, data from events where position > $1", before
            )

            async def progress() -> tuple[bool, object]:
                return len(arrived) >= len(rows), arrived.total()

            await until("the deliveries", progress)
            delivered = time.monotonic() - started
            await asyncio.sleep(AGAIN_SECONDS)
    changes = [row for row in rows if row["type"] == "access.changed"]
    found = Counter((row["subscription_id"], row["customer_id"]) for row in changes)
    expected = ground.teams.losing()
    return {
        "access_changed": len(changes),
        "missing": (expected - found).total(),
        "too_many": (found - expected).total(),
        "still_have_access": sum(row["data"]["has_access"] for row in changes),
        "not_delivered": sum(arrived[row["id"]] == 0 for row in rows),
        "delivered_again": arrived.total() - len(arrived),
        "made_s": round(made, 1),
        "delivered_s": round(delivered, 1),
    }


async def _endpoint(ground: Ground, receiver: Receiver) -> str:
    """Register the receiver, and return its secret."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ground.port}") as client:
        body = {"url": receiver.url}
        answer = await client.post("/v1/webhook-endpoints", headers=as_service("admin"), json=body)
        return str(answer.raise_for_status().json()["secret"])


async def measure(
    url: str, *, members: int = MEMBERS, others: int = OTHERS, rounds: int = ROUNDS, logs: Path
) -> Part:
    """Both halves, in a fresh database."""
    async with seeded(url, members, others, logs) as ground:
        part = await timed(ground, rounds)
        found = await told(ground)
    part.figures.append(found)
    wrong = sum(found[name] for name in WRONG)
    part.bars.append(Bar("expansion: events missing, wrong or doubled", [wrong], 0, at_most=True))
    part.notes.append(
        f"{found['access_changed']:,} access.changed, made within {found['made_s']:,} s, "
        f"delivered within {found['delivered_s']:,} s"
    )
    return part


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.expansion", description=__doc__)
    parser.add_argument("--members", type=int, default=MEMBERS, help=f"of a large team (default {MEMBERS:,})")
    parser.add_argument(
        "--others", type=int, default=OTHERS, help=f"subscriptions besides, 0: none (default {OTHERS:,})"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    seat_world.state_option(parser)
    given = parser.parse_args()
    # Ended from outside, too, the servers stop and the database is dropped.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with servers.database("bench_expansion", given.state, fast=True) as url:
        logs = servers.directory(given.state)
        part = asyncio.run(
            measure(url, members=given.members, others=given.others, rounds=given.rounds, logs=logs)
        )
    print_verdicts([part])
    print(json.dumps({"benchmark": "expansion", "load_average": seat_world.load_average(), **part.dumped()}))
    return 0 if part.met else 1


if __name__ == "__main__":
    sys.exit(main())
