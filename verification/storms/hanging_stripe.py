"""`python -m verification.storms.hanging_stripe`: Stripe hangs while callers change, read freshly and read the cache.

Each round is a calm and a hang. Changes add people, and some name a card, which Stripe has to be asked for. From 5 s
after the beginning of a hang changes have to be 202 and fresh reads 503 in under a second, and before that nothing may
take longer than 8 s. All cached reads have to be answered, their p99 at most twice that of the calm. Afterwards one
probe has to close the breakers within 10 s. One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from testkit import seat_world
from testkit.company import Company, new_email
from testkit.seat_world import Json, World, progress
from testkit.service import as_service

SHORT, LONG, SETTLED_AFTER, CLOSED_WITHIN, SLOWER = 1.0, 8.0, 5.0, 10.0, 2.0
CACHED_RATE = 50.0
NAMING_EVERY = 30
LEAST_SECONDS = 0.005
"""Below this p99 of the calm the comparison says nothing."""


@dataclass
class Round:
    """What callers saw in one hang, and in the calm before it."""

    wrong: Counter[str] = field(default_factory=Counter)
    slowest_early: float = 0.0
    slowest_late: float = 0.0
    calm: list[float] = field(default_factory=list)
    hung: list[float] = field(default_factory=list)
    closed_after: float = 0.0


class Callers:
    """The callers of one API process."""

    def __init__(self, world: World, companies: list[Company]) -> None:
        self.world = world
        self._companies = itertools.cycle(companies)
        self._unnamed = iter(companies)
        self._writes = 0
        self._people = itertools.cycle([user for company in companies for user in company.users])
        self._who = as_service("write")

    async def write(self) -> int:
        """Add a person. Each NAMING_EVERY-th change names the card of a subscription, each subscription once."""
        self._writes += 1
        unnamed = next(self._unnamed, None) if self._writes % NAMING_EVERY == 0 else None
        if unnamed is not None:
            card: Json = {"payment_method_id": unnamed.payment_method_id}
            path = f"/v1/subscriptions/{unnamed.subscription_id}"
            return (await self.world.call(0, "PATCH", path, self._who, card)).status_code
        company = next(self._companies)
        body: Json = {"add": [{"email": new_email("hang")}]}
        return (await self.world.call(0, "PATCH", f"{company.path}/users", self._who, body)).status_code

    async def fresh(self) -> int:
        path, who = "/v1/customers/me?fresh=true", next(self._people).headers
        return (await self.world.call(0, "GET", path, who)).status_code

    async def cached(self) -> int:
        company = next(self._companies)
        return (await self.world.call(0, "GET", company.path, company.owner.headers)).status_code


async def window(
    callers: Callers, seconds: float, given: argparse.Namespace, into: Round, *, hangs: bool
) -> None:
    """Send requests for so many seconds, and judge each by its kind and moment."""
    began, tasks = time.monotonic(), []

    async def one(kind: str) -> None:
        started = time.monotonic()
        status = await getattr(callers, kind)()
        took = time.monotonic() - started
        if kind == "cached":
            (into.hung if hangs else into.calm).append(took)
            into.wrong[f"cached {status}"] += status != 200
        elif hangs and started - began >= SETTLED_AFTER:
            expected = 202 if kind == "write" else 503
            into.wrong[f"{kind} {status}"] += status != expected
            into.slowest_late = max(into.slowest_late, took)
        elif hangs:
            into.slowest_early = max(into.slowest_early, took)

    async def stream(kind: str, rate: float) -> None:
        for number in range(int(seconds * rate)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            tasks.append(asyncio.create_task(one(kind)))

    streams = [stream("cached", CACHED_RATE)]
    if hangs:
        streams += [stream("write", given.writes), stream("fresh", given.fresh)]
    await asyncio.gather(*streams)
    await asyncio.gather(*tasks)


async def closed(world: World) -> float:
    """Return the seconds until every breaker of the API process is closed."""
    began = time.monotonic()
    while time.monotonic() - began < 3 * CLOSED_WITHIN:
        shown = (await world.clients[0].get("/metrics")).text
        if not [
            one
            for one in shown.splitlines()
            if one.startswith("coseat_stripe_breaker{") and one[-3:] != "0.0"
        ]:
            break
        await asyncio.sleep(0.1)
    return time.monotonic() - began


async def play(world: World, given: argparse.Namespace) -> Json:
    companies = [await world.service.company(seats=10_000) for _ in range(given.subscriptions)]
    await world.service.fill()
    callers, rounds = Callers(world, companies), []
    for number in range(given.rounds):
        into = Round()
        await world.service.fetch(
            "update customers set synced_at = synced_at - interval '1 hour' returning id"
        )
        await window(callers, given.seconds / given.rounds / 2, given, into, hangs=False)
        await world.stripe.add_fault(timeout=True, times=0)
        await window(callers, given.seconds / given.rounds, given, into, hangs=True)
        await world.stripe.clear_faults()
        into.closed_after = await closed(world)
        rounds.append(into)
        progress(f"round {number + 1}: slowest {into.slowest_early:.1f} s, then {into.slowest_late:.2f} s")
    return verdict(rounds)


def verdict(rounds: list[Round]) -> Json:
    wrong = sum((one.wrong for one in rounds), Counter[str]())
    calm = statistics.median(statistics.quantiles(one.calm, n=100)[-1] for one in rounds)
    hung = statistics.median(statistics.quantiles(one.hung, n=100)[-1] for one in rounds)
    early, late = max(one.slowest_early for one in rounds), max(one.slowest_late for one in rounds)
    closed_after = max(one.closed_after for one in rounds)
    return {
        "met": not +wrong
        and early <= LONG
        and late < SHORT
        and closed_after <= CLOSED_WITHIN
        and hung <= SLOWER * max(calm, LEAST_SECONDS),
        "wrong_answers": dict(+wrong),
        "slowest_in_5_s": round(early, 2),
        "slowest_after_5_s": round(late, 2),
        "closed_after_s": round(closed_after, 1),
        "p99_calm_ms": round(calm * 1000, 1),
        "p99_hung_ms": round(hung * 1000, 1),
        "cached_reads": sum(len(one.hung) for one in rounds),
        "load_average": seat_world.load_average(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.storms.hanging_stripe", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="of hanging, in all rounds (default 120)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--writes", type=float, default=50.0, help="changes a second (default 50)")
    parser.add_argument("--fresh", type=float, default=20.0, help="fresh reads a second (default 20)")
    parser.add_argument("--subscriptions", type=int, default=200, help="default 200")
    seat_world.state_option(parser)
    given = parser.parse_args()
    found = seat_world.run("hanging_stripe", given.state, lambda world: play(world, given))
    print(json.dumps({"storm": "hanging_stripe", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
