"""`python -m verification.storms.stripe`: Stripe fails in every way at once, while people are added and removed.

Of the writes at Stripe 20 % get a 5xx and half of these are executed, 5 % get a 502 or 504 from in front of Stripe
and half of these are executed 1 to 20 s later, 10 % get no answer and half of these are executed late, and 5 % get a
429. In half of the cases a person who was added is removed right after. One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx

from testkit import seat_world
from testkit.company import Company, new_email
from testkit.seat_world import Json, World, progress, role_on
from testkit.service import as_service

ENDS_WITHIN = 120.0
"""Seconds after the storm in which every operation has to end."""
ADMITTED, APPLIED = 0.99, 0.95
_POST = {"method": "POST", "times": 0}


def faults() -> list[Json]:
    """Return the faults of the storm. Stripe keeps its own 5xx under the key; what a proxy answers it does not."""
    late = [
        {"status": status, "proxy": True, "late_s": after}
        for status, after in ((504, 1), (502, 7), (504, 20))
    ]
    shares: list[tuple[float, Json]] = [
        (0.10, {"status": 500, "save": True}),
        (0.10, {"status": 500, "save": True, "effect": "after"}),
        (0.025, {"status": 504, "proxy": True}),
        *((0.025 / len(late), one) for one in late),
        (0.05, {"timeout": True}),
        (0.05, {"late_s": 3.0}),
        (0.05, {"status": 429}),
    ]
    found, left = [], 1.0
    for share, fault in shares:
        # Each fault is asked only for the requests that the faults before it left.
        found.append({**_POST, **fault, "probability": share / left})
        left -= share
    return found


@dataclass
class Storm:
    """What was asked for, in order, and what was answered."""

    world: World
    answers: Counter[int] = field(default_factory=Counter)
    operations: list[str] = field(default_factory=list)
    wishes: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)
    """The operations of each address on a subscription, as (operation, action)."""
    who: dict[str, str] = field(default_factory=lambda: as_service("write"))

    async def change(self, company: Company, action: str, email: str, body: Json) -> str | None:
        """Send one change, and return its operation; None if it was refused."""
        answer = await self.world.call(0, "PATCH", f"{company.path}/users", self.who, body)
        self.answers[answer.status_code] += 1
        if answer.status_code not in (httpx.codes.OK, httpx.codes.ACCEPTED):
            return None
        found = str(answer.json()["operation_id"])
        self.operations.append(found)
        self.wishes.setdefault((company.subscription_id, email), []).append((found, action))
        return found

    async def person(self, company: Company) -> None:
        """Add somebody, and in half of the cases remove them as soon as it is known who they are."""
        email = new_email("storm")
        added = await self.change(company, "add", email, {"add": [{"email": email}]})
        if added is None or random.random() < 0.5:
            return
        for _ in range(100):
            shown = await self.world.call(0, "GET", f"/v1/operations/{added}", self.who)
            (result,) = shown.json()["results"]
            if result["customer_id"] is not None:
                await self.change(company, "remove", email, {"remove": [result["customer_id"]]})
                return
            await asyncio.sleep(0.5)


async def play(world: World, given: argparse.Namespace) -> Json:
    companies = [await world.service.company(seats=10_000) for _ in range(given.subscriptions)]
    await world.service.fill()
    for fault in faults():
        await world.stripe.add_fault(**fault)
    storm = Storm(world)
    until, sent = time.monotonic() + given.minutes * 60, []
    while time.monotonic() < until:
        sent.append(asyncio.create_task(storm.person(random.choice(companies))))
        await asyncio.sleep(1 / given.rate)
    await asyncio.gather(*sent)
    await world.stripe.clear_faults()
    progress(f"the storm is over: {sum(storm.answers.values())} changes")
    calm_at = time.monotonic()
    settled: dict[str, Json] = {}
    for operation_id in storm.operations:
        left = max(1.0, calm_at + ENDS_WITHIN - time.monotonic())
        found = await world.settled(operation_id, storm.who, within=left)
        if found is not None:
            settled[operation_id] = found
    return await verdict(world, storm, settled, time.monotonic() - calm_at)


async def verdict(world: World, storm: Storm, settled: dict[str, Json], seconds: float) -> Json:
    """Judge the storm by what the stand-in shows."""
    customers = list((await world.customers()).values())
    by_email: dict[str, list[Json]] = {}
    for customer in customers:
        by_email.setdefault(str(customer.get("email")), []).append(customer)
    outcomes = Counter(
        str(result["code"] or result["outcome"]) for one in settled.values() for result in one["results"]
    )
    undone = doubled = 0
    for (subscription_id, email), wishes in storm.wishes.items():
        shown = [one for one in by_email.get(email, []) if role_on(one, subscription_id)]
        applied = [
            action
            for operation_id, action in wishes
            if any(
                result["outcome"] == "applied" for result in settled.get(operation_id, {}).get("results", [])
            )
        ]
        doubled += len(by_email.get(email, [])) > 1
        undone += bool(applied) and bool(shown) != (applied[-1] == "add")
    (late,) = await world.service.fetch(
        "select count(*) as n from audit_events where action = 'late_effect' and operation_id is not null"
    )
    asked = sum(storm.answers.values())
    admitted = len(storm.operations) / max(asked, 1)
    applied_share = outcomes["applied"] / max(sum(outcomes.values()), 1)
    unended = len(storm.operations) - len(settled)
    return {
        "met": not (undone or doubled or unended) and admitted >= ADMITTED and applied_share >= APPLIED,
        "changes": asked,
        "answers": {str(status): number for status, number in sorted(storm.answers.items())},
        "admitted": round(admitted, 4),
        "applied": round(applied_share, 4),
        "outcomes": dict(outcomes),
        "outcomes_undone": undone,
        "second_objects": doubled,
        "late_effects": int(late["n"]),
        "not_ended": unended,
        "ended_after_s": round(seconds, 1),
        "load_average": seat_world.load_average(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.storms.stripe", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of storm (default 10)")
    parser.add_argument("--rate", type=float, default=4.0, help="people a second (default 4)")
    parser.add_argument("--subscriptions", type=int, default=40, help="default 40")
    seat_world.state_option(parser)
    given = parser.parse_args()
    found = seat_world.run(
        "stripe_storm", given.state, lambda world: play(world, given), workers=2, LATE_WINDOW="30"
    )
    print(json.dumps({"storm": "stripe", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
