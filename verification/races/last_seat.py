"""`python -m verification.races.last_seat`: many add somebody to the last seat at once, over several API processes.

Each round `--racers` calls race for one free seat: exactly one is accepted, the others are clean refusals, and the
member is at Stripe. Then rounds in which the number of seats is lowered while people are added: never more members
than seats, and every answer true. One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import sys
from collections import Counter

from testkit import seat_world
from testkit.company import Company
from testkit.seat_world import Json, World, percentile, role_on
from testkit.service import as_service

P99_BAR = 2.0
SEATS, LOWERED, ADDERS = 4, 2, 6
"""Of a lowering round: seats before and after, and the calls that add one person each; one seat is taken."""


def doors(company: Company) -> list[dict[str, str]]:
    return [
        dict(company.owner.headers),
        dict(company.manager.headers),
        as_service("write"),
        as_service("write", acting_for=company.owner.customer_id),
    ]


async def one_round(world: World, company: Company, racers: int, told: Counter[str]) -> None:
    path, who = f"{company.path}/users", doors(company)
    mark = secrets.token_hex(6)
    answers = await asyncio.gather(
        *(
            world.call(
                n, "PATCH", path, who[n // 4 % len(who)], {"add": [{"email": f"r{n}.{mark}@example.com"}]}
            )
            for n in range(racers)
        )
    )
    kinds = Counter(f"{answer.status_code} {answer.json().get('code') or 'ok'}" for answer in answers)
    told.update(kinds)
    won = [answer.json()["results"][0] for answer in answers if answer.status_code == 200]
    clean = kinds == {"200 ok": 1, "409 seat_limit_reached": racers - 1}
    if not clean or won[0]["outcome"] != "applied":
        told["wrong rounds"] += 1
    for result in won:
        customer = await world.stripe.get(f"/v1/customers/{result['customer_id']}")
        if role_on(customer, company.subscription_id) != "user" or customer["email"] != result["email"]:
            told["answers that are not so"] += 1
    freed = await world.call(
        random.randrange(8), "PATCH", path, who[0], {"remove": [result["customer_id"] for result in won]}
    )
    if freed.status_code != 200 or any(r["outcome"] != "applied" for r in freed.json()["results"]):
        told["seats not given back"] += 1


async def race(world: World, rounds: int, racers: int) -> Json:
    company = await world.service.company(seats=2, users=0)
    told: Counter[str] = Counter()
    for api in range(len(world.clients)):
        await world.call(api, "GET", company.path, company.owner.headers)
    world.seconds.clear()
    for number in range(rounds):
        await one_round(world, company, racers, told)
        if number % 50 == 49:
            p99 = percentile(world.seconds, 0.99)
            seat_world.progress(f"{number + 1} rounds, p99 {p99:.2f} s, {dict(told)}")
    at_rest = await company.members() == {company.manager.customer_id: "manager"}
    p99 = percentile(world.seconds, 0.99)
    bad = told["wrong rounds"] + told["answers that are not so"] + told["seats not given back"]
    return {
        "met": not bad and at_rest and p99 <= P99_BAR and await world.live_reservations() == 0,
        "rounds": rounds,
        "racers": racers,
        "answers": dict(told),
        "p50_s": round(percentile(world.seconds, 0.5), 3),
        "p99_s": round(p99, 3),
        "slowest_s": round(max(world.seconds, default=0.0), 3),
        "load_average": seat_world.load_average(),
    }


async def one_lowering(world: World, company: Company, seed: random.Random, told: Counter[str]) -> None:
    path, who = f"{company.path}/users", doors(company)
    mark = secrets.token_hex(6)

    async def add(number: int) -> Json | None:
        await asyncio.sleep(seed.uniform(0.0, 0.08))
        body = {"add": [{"email": f"l{number}.{mark}@example.com"}]}
        answer = await world.call(number, "PATCH", path, who[number % len(who)], body)
        told[f"add {answer.status_code} {answer.json().get('code') or 'ok'}"] += 1
        result: Json = answer.json()["results"][0] if answer.status_code == 200 else {}
        return result or None

    async def lower() -> bool:
        await asyncio.sleep(seed.uniform(0.0, 0.08))
        number = seed.randrange(8)
        answer = await world.call(number, "PUT", f"{company.path}/seats", who[0], {"total": LOWERED})
        told[f"lower {answer.status_code} {answer.json().get('code') or 'ok'}"] += 1
        return answer.status_code == 200

    lowered, *added = await asyncio.gather(lower(), *(add(number) for number in range(ADDERS)))
    members, quantity = await company.members(), await world.quantity(company)
    seated = {result["customer_id"] for result in added if isinstance(result, dict)}
    if len(members) > quantity:
        told["more members than seats"] += 1
    if (
        quantity != (LOWERED if lowered else SEATS)
        or members.keys() - {company.manager.customer_id} != seated
    ):
        told["answers that are not so"] += 1
    for method, where, body in (
        ("PATCH", path, {"remove": sorted(seated)}),
        ("PUT", f"{company.path}/seats", {"total": SEATS}),
    ):
        if (seated if method == "PATCH" else lowered) and (
            await world.call(0, method, where, who[0], body)
        ).status_code != 200:
            told["not put back"] += 1


async def lowering(world: World, rounds: int) -> Json:
    told: Counter[str] = Counter()
    seed = random.Random(1)
    world.seconds.clear()
    company = await world.service.company(seats=SEATS, users=0)
    for _ in range(rounds):
        await one_lowering(world, company, seed, told)
    wrong = told["more members than seats"] + told["answers that are not so"] + told["not put back"]
    clean = {"add 200 ok", "add 409 seat_limit_reached", "lower 200 ok", "lower 409 seats_in_use"}
    strange = [told_so for told_so in told if told_so.startswith(("add", "lower")) and told_so not in clean]
    p99 = percentile(world.seconds, 0.99)
    return {
        "met": not wrong and not strange and p99 <= P99_BAR and await world.live_reservations() == 0,
        "rounds": rounds,
        "answers": dict(told),
        "p99_s": round(p99, 3),
        "load_average": seat_world.load_average(),
    }


async def play(world: World, given: argparse.Namespace) -> Json:
    found = {"race": await race(world, given.rounds, given.racers)}
    return found | {"lowering": await lowering(world, given.lowering_rounds)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.races.last_seat", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000, help="for the last seat (default 1000)")
    parser.add_argument("--racers", type=int, default=32, help="calls a round (default 32)")
    parser.add_argument("--apis", type=int, default=4, help="API processes (default 4)")
    parser.add_argument("--lowering-rounds", type=int, default=300, help="(default 300)")
    seat_world.state_option(parser)
    given = parser.parse_args()
    found = seat_world.run("last_seat", given.state, lambda world: play(world, given), apis=given.apis)
    met = all(part["met"] for part in found.values())
    print(json.dumps({"benchmark": "last_seat", "met": met, **found}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
