"""`python -m verification.races.bulk`: fifty people in a call, with a failure at every index and of every kind.

Each run adds or removes fifty people of one company while Stripe fails for the one at the run's index; where that
index is even, an added one is a customer that the call has to create. Every outcome that the operation tells once it
is terminal is compared with the stand-in. One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from testkit import seat_world
from testkit.company import Company
from testkit.seat_world import Json, World, role_on
from testkit.service import as_service

PEOPLE = 50
WITHIN_SECONDS = 60.0
"""From the call to a terminal operation, the fault's own time included."""
ATTEMPTS = 4
"""Of one call to Stripe; a fault that strikes as often loses the whole call."""

KINDS: dict[str, Json] = {
    "timeout_before_effect": {"timeout": 0.05, "effect": "before"},
    "timeout_after_effect": {"timeout": 0.05, "effect": "after"},
    "error_500_before_effect": {"status": 500, "effect": "before"},
    "error_500_saved": {"status": 500, "effect": "before", "save": True},
    "error_500_saved_after_effect": {"status": 500, "effect": "after", "save": True},
    "rate_limited": {"status": 429},
    "lock_timeout": {"status": 429, "code": "lock_timeout"},
    "late_execution": {"effect": "after"},
    "deleted_meanwhile": {"latency_s": 0.6},
}


@dataclass(frozen=True, slots=True)
class Run:
    kind: str
    index: int
    remove: bool


@dataclass
class Tally:
    people: int = 0
    true: int = 0
    runs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)
    slowest: float = 0.0


class Place:
    """One company and its fifty people; each is on the plan or not, as the last run left him."""

    def __init__(self, world: World, company: Company, emails: dict[str, str]) -> None:
        self.world, self.company, self.emails = world, company, emails

    async def play(self, run: Run, seed: random.Random, tally: Tally, creating: asyncio.Lock) -> None:
        """`creating`: a fault of creates strikes whoever creates next, so they take turns."""
        stripe, path = self.world.stripe, f"{self.company.path}/users"
        async with creating:
            await self._prepare(run)
        ids = list(self.emails)
        target: str | None = ids[run.index]
        entries: list[Any] = ids if run.remove else [{"email": self.emails[one]} for one in ids]
        if not run.remove and run.index % 2 == 0 and run.kind != "deleted_meanwhile":
            target = None
            entries[run.index] = {"email": f"new.{secrets.token_hex(8)}@example.com"}
        async with creating if target is None else contextlib.nullcontext():
            added = await stripe.add_fault(**self._fault(run, target, seed))
            fault, key, started = added["data"][0]["id"], as_service("write"), time.monotonic()
            call = asyncio.create_task(
                self.world.call(run.index, "PATCH", path, key, {"remove" if run.remove else "add": entries})
            )
            if target is None:
                await self._until_struck(fault, call)
        if run.kind == "deleted_meanwhile":
            await asyncio.sleep(0.3)
            await stripe.delete(f"/v1/customers/{target}")
        answer = await call
        if answer.status_code not in (200, 202):
            tally.misses.append(f"{run}: {answer.status_code} {answer.text[:200]}")
            return
        told = await self.world.settled(answer.json()["operation_id"], key, within=WITHIN_SECONDS)
        await stripe.control("DELETE", "faults", id=fault)
        tally.slowest = max(tally.slowest, time.monotonic() - started)
        if told is None:
            tally.misses.append(f"{run}: not terminal: {answer.json()['operation_id']}")
            return
        await self._judge(run, told, entries, tally)

    def _fault(self, run: Run, target: str | None, seed: random.Random) -> Json:
        where = (
            {"path": "/v1/customers"} if target is None else {"path": "/v1/customers/{id}", "object": target}
        )
        # Half of them outlast every attempt of the call, so that the operation outlives its request; a 5xx
        # does so at once, since a write that was answered 5xx is not tried again before it is looked for.
        lasting = run.index % 4 < 2 and KINDS[run.kind].get("status") != 500
        times = ATTEMPTS if lasting else 1
        fault = {"method": "POST", **where, **KINDS[run.kind], "times": times}
        if run.kind == "late_execution":
            fault |= {"late_s": round(seed.uniform(0.5, 14.0), 1), "times": 1}
        return fault if run.kind != "deleted_meanwhile" else {**fault, "times": 1}

    async def _until_struck(self, fault: int, call: asyncio.Task[Any]) -> None:
        for _ in range(400):
            found = (await self.world.stripe.control("GET", "faults"))["data"]
            if call.done() or all(one["used"] >= one["times"] for one in found if one["id"] == fault):
                return
            await asyncio.sleep(0.05)

    async def _prepare(self, run: Run) -> None:
        """Who was deleted is replaced, and everybody is on the plan (or off it) by an edit in the Dashboard."""
        found = await self.world.customers()
        for one in [one for one in self.emails if found[one].get("deleted")]:
            del self.emails[one]
        while len(self.emails) < PEOPLE:
            person = await self.world.service.person("bulk")
            self.emails[person.customer_id] = person.email
            found[person.customer_id] = {"metadata": {}}
        for one in self.emails:
            if (role_on(found[one], self.company.subscription_id) is not None) is not run.remove:
                value = self.company.subscription_id if run.remove else ""
                marks = {"billing_shared_subscription_id": value}
                await self.world.stripe.post(f"/v1/customers/{one}", metadata=marks)
                await self.world.service.refresh("customer", one)

    async def _judge(self, run: Run, told: Json, entries: list[Any], tally: Tally) -> None:
        truth = await self.world.customers()
        subscription_id, tally.runs = self.company.subscription_id, tally.runs + 1
        results = told["results"]
        if len(results) != len(entries):
            tally.misses.append(f"{run}: {len(results)} results")
        for entry, result in zip(entries, results, strict=False):
            holders = [
                one
                for one in truth.values()
                if role_on(one, subscription_id) is not None
                and (one["id"] == entry if run.remove else one["email"] == entry["email"])
            ]
            done = result["outcome"] in ("applied", "unchanged")
            gone = result["customer_id"] is not None and truth[result["customer_id"]].get("deleted")
            expected = 0 if run.remove == done or (not run.remove and not done) else 1
            tally.people += 1
            tally.outcomes[f"{result['outcome']} {result['code'] or ''}".strip()] += 1
            if len(holders) == (0 if gone else expected) and not (gone and done and not run.remove):
                tally.true += 1
            else:
                tally.misses.append(f"{run}: {result} but {len(holders)} hold a seat")
        for result in results:
            # Created ones take the place of the person whose index they had, and leave with the others.
            if result["email"] not in (None, *self.emails.values()) and result["outcome"] == "applied":
                dropped = list(self.emails)[run.index]
                del self.emails[dropped]
                self.emails[result["customer_id"]] = result["email"]


async def play(world: World, given: argparse.Namespace) -> Json:
    seed, tally = random.Random(given.seed), Tally()
    places = []
    for _ in range(given.places):
        company = await world.service.company(seats=PEOPLE + 10, users=0)
        people = [await world.service.person("bulk") for _ in range(PEOPLE)]
        places.append(Place(world, company, {one.customer_id: one.email for one in people}))
    kinds = list(KINDS)
    runs = [
        Run(kind, index, remove=(index + number) % 2 == 1)
        for index in range(PEOPLE)
        for number, kind in enumerate(kinds)
    ]
    seed.shuffle(runs)
    queue, creating = deque(runs[: given.runs]), asyncio.Lock()

    async def work(place: Place) -> None:
        while queue:
            await place.play(queue.popleft(), seed, tally, creating)
            seat_world.progress(f"{tally.runs} runs, {tally.true} of {tally.people} outcomes true")

    started = time.monotonic()
    await asyncio.gather(*(work(place) for place in places))
    reservations = await world.live_reservations()
    met = not tally.misses and tally.true == tally.people and reservations == 0
    return {
        "met": met,
        "runs": tally.runs,
        "outcomes": tally.people,
        "true": tally.true,
        "told": dict(tally.outcomes),
        "reservations_left": reservations,
        "slowest_operation_s": round(tally.slowest, 1),
        "seconds": round(time.monotonic() - started, 1),
        "load_average": seat_world.load_average(),
        "misses": tally.misses[:10],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.races.bulk", description=__doc__)
    parser.add_argument("--runs", type=int, default=450, help="of nine kinds at fifty indices (default 450)")
    parser.add_argument("--places", type=int, default=6, help="companies at once (default 6)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the runs (default 1)")
    seat_world.state_option(parser)
    given = parser.parse_args()
    found = seat_world.run(
        "bulk", given.state, lambda world: play(world, given), apis=1, OPERATION_LEASE="3", LATE_WINDOW="20"
    )
    print(json.dumps({"benchmark": "bulk", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
