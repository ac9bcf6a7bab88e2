"""`python -m benchmarks.hundred`: a hundred people added in one call, while each answer of Stripe takes 300 ms.

Once people whom nobody knows yet, whose customers the call creates, and once customers who exist: each is then read
and written. Measured are the seconds to the last outcome and, by the stand-in's request log, the busiest second of
each endpoint. One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections import defaultdict
from collections.abc import Sequence

from testkit import seat_world
from testkit.seat_world import Json, World, role_on
from testkit.service import as_service

PEOPLE = 100
BAR_SECONDS = 9.0
PER_SECOND = 25
"""Stripe's limit for one endpoint."""


def busiest(requests: Sequence[Json]) -> dict[str, int]:
    """The most requests that began within one second, by endpoint."""
    times: dict[str, list[float]] = defaultdict(list)
    for one in requests:
        head, _, tail = one["path"].removeprefix("/v1/").partition("/")
        times[f"{one['method']} {head}{'/{id}' if tail else ''}"].append(one["started"])
    found = {}
    for place, moments in times.items():
        moments.sort()
        first = most = 0
        for last, moment in enumerate(moments):
            while moments[first] <= moment - 1.0:
                first += 1
            most = max(most, last - first + 1)
        found[place] = most
    return found


async def add(world: World, *, known: bool) -> Json:
    company = await world.service.company(seats=PEOPLE + 10, users=0)
    emails = [f"{secrets.token_hex(8)}@example.com" for _ in range(PEOPLE)]
    if known:
        emails = [(await world.service.person("known")).email for _ in range(PEOPLE)]
    await world.call(0, "GET", company.path, company.owner.headers)
    await world.stripe.settings(latency_s=LATENCY)
    wall, started = time.time(), time.monotonic()
    body = {"add": [{"email": one} for one in emails]}
    answer = await world.call(0, "PATCH", f"{company.path}/users", company.owner.headers, body)
    answered = time.monotonic() - started
    told = await world.settled(answer.json()["operation_id"], as_service("read"), within=60.0)
    seconds = time.monotonic() - started
    await world.stripe.settings(latency_s=0.0)
    requests = [one for one in await world.stripe.requests(since=wall) if one["actor"] == "api"]
    seated = {
        one["email"]
        for one in (await world.customers()).values()
        if role_on(one, company.subscription_id) == "user"
    }
    outcomes = [] if told is None else [result["outcome"] for result in told["results"]]
    peak = busiest(requests)
    right = outcomes == ["applied"] * PEOPLE and seated == set(emails)
    return {
        "met": right and seconds < BAR_SECONDS and max(peak.values()) <= PER_SECOND,
        "status": answer.status_code,
        "answered_s": round(answered, 2),
        "seconds": round(seconds, 2),
        "applied": outcomes.count("applied"),
        "seated": len(seated),
        "requests": len(requests),
        "busiest_second": peak,
        "load_average": seat_world.load_average(),
    }


LATENCY = 0.3


async def play(world: World) -> Json:
    return {"created": await add(world, known=False), "known": await add(world, known=True)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.hundred", description=__doc__)
    parser.add_argument("--rate", type=int, default=100, help="STRIPE_RATE_LIMIT (default 100, Stripe's own)")
    seat_world.state_option(parser)
    given = parser.parse_args()
    found = seat_world.run("hundred", given.state, play, STRIPE_RATE_LIMIT=str(given.rate))
    met = all(part["met"] for part in found.values())
    print(json.dumps({"benchmark": "hundred", "met": met, **found}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
