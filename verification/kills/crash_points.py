"""`python -m verification.kills.crash_points`: kill -9 at named points of an operation, and what becomes of it.

Each trial calls an API process and kills it at the point: the stand-in holds an answer or a request there, or the
database shows that the point is reached. Nothing in the service helps. Another process takes its place at once, and a
worker runs beside it. Every operation must be terminal within 60 s of that restart, what it tells must be
so at the stand-in, and no seat may be lost or doubled. One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx

from testkit import seat_world
from testkit.company import Company
from testkit.ports import free_port
from testkit.seat_world import Json, World, role_on
from testkit.service import as_service

WITHIN_SECONDS = 60.0
HOLD = 15.0
"""Seconds for which the stand-in holds what a trial waits at; the process is killed long before."""
HOLD_TO_LOCK = 2.0
"""Seconds for which the stand-in holds an answer while the trial locks a row."""


@dataclass(frozen=True, slots=True)
class Point:
    """`fault` holds the request at the point, `reached` is true once it is time to kill.

    `at`: which object the fault is about: the plan, the person, nobody yet (a create), or the payer.
    """

    name: str
    action: str
    fault: Json | None
    reached: str
    """A statement over the trial's operation ($1) or a request in the stand-in's log, see `_is_reached`."""
    people: int = 1


READ_PLAN = {"method": "GET", "path": "/v1/subscriptions/{id}", "at": "plan"}
READ_PERSON = {"method": "GET", "path": "/v1/customers/{id}", "at": "person"}
WRITE_PERSON = {"method": "POST", "path": "/v1/customers/{id}", "at": "person"}
CREATE = {"method": "POST", "path": "/v1/customers"}
WRITE_PLAN = {"method": "POST", "path": "/v1/subscriptions/{id}", "at": "plan"}
BEFORE, AFTER = {"latency_s": HOLD}, {"answer_s": HOLD}

POINTS = (
    Point("after admission commit", "add", {**READ_PLAN, **BEFORE}, "admitted"),
    Point("after the person's lease, before his reading", "add", {**READ_PERSON, **BEFORE}, "asked"),
    Point("after the reading, before the write", "add", {**READ_PERSON, **AFTER}, "asked"),
    Point("write sent, not carried out", "add", {**WRITE_PERSON, **BEFORE}, "sending"),
    Point("write carried out, no reply", "add", {**WRITE_PERSON, **AFTER}, "done"),
    Point("create sent, not carried out", "create", {**CREATE, **BEFORE}, "sending"),
    Point("create carried out, no reply", "create", {**CREATE, **AFTER}, "done"),
    Point("reply read, before commit", "add", {**WRITE_PERSON, "answer_s": HOLD_TO_LOCK}, "row locked"),
    Point("after commit, before the response", "add", None, "settled"),
    Point("removal carried out, no reply", "remove", {**WRITE_PERSON, **AFTER}, "done"),
    Point("mid-bulk", "bulk", None, "half", people=12),
    Point("before the quantity write", "buy", {**WRITE_PLAN, **BEFORE}, "asked"),
    Point("after the quantity write, no reply", "buy", {**WRITE_PLAN, **AFTER}, "done"),
    Point("lowering carried out, no reply", "lower", {**WRITE_PLAN, **AFTER}, "done"),
    Point("seats bought, before the add", "buy", {**CREATE, **BEFORE}, "asked"),
)


@dataclass
class Trial:
    """`before`: members and quantity before the call."""

    point: Point
    company: Company
    emails: list[str]
    operation_id: str
    restarted_at: float
    before: tuple[dict[str, str], int]


@dataclass
class Tally:
    outcomes: Counter[str] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Bench:
    def __init__(self, world: World) -> None:
        self.world = world
        self.started = 0

    async def start(self) -> None:
        """The process that the next trial kills, in the place of the last one."""
        self.started += 1
        name = f"crash_points-victim{self.started}"
        self.victim = await asyncio.to_thread(self.world.start_api, name, free_port())

    async def trial(self, point: Point) -> Trial | str:
        """Kills at the point; the trial to be judged later, or why the point was not reached."""
        world, stripe = self.world, self.world.stripe
        seats = {"buy": 2, "bulk": point.people + 4}.get(point.action, 4)
        company = await world.service.company(seats=seats, users=1)
        person = company.stranger if point.action != "remove" else company.user
        emails = [f"{secrets.token_hex(8)}@example.com" for _ in range(point.people)]
        before = (await company.members(), await world.quantity(company))
        if point.fault is not None:
            fault = dict(point.fault)
            target = {"plan": company.subscription_id, "person": person.customer_id}.get(fault.pop("at", ""))
            await stripe.add_fault(**fault, **({} if target is None else {"object": target}))
        body = {
            "add": {"add": [{"email": person.email}]},
            "create": {"add": [{"email": emails[0]}]},
            "remove": {"remove": [person.customer_id]},
            "bulk": {"add": [{"email": email} for email in emails]},
            "buy": {"add": [{"email": emails[0]}], "over_capacity": "add_seats"},
            "lower": {"total": 3},
        }[point.action]
        seats_path = point.action == "lower"
        method, path = ("PUT", "/seats") if seats_path else ("PATCH", "/users")
        since = time.time()
        if point.action == "bulk":
            await stripe.settings(latency_s=0.15)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.victim.port}", timeout=60.0) as client:
            url = f"{company.path}{path}"
            call = asyncio.create_task(client.request(method, url, headers=as_service("admin"), json=body))
            blocker = None
            if point.reached == "row locked" and await self._until(
                lambda: self._was_asked(point, company, since)
            ):
                blocker = await self._lock(person.customer_id)
            reached = await self._until(lambda: self._is_reached(point, company, since))
            os.kill(self.victim.pid, signal.SIGKILL)
            if blocker is not None:
                await blocker.close()
            await asyncio.gather(call, return_exceptions=True)
        await stripe.clear_faults()
        await stripe.settings(latency_s=0.0)
        # The stand-in itself goes on with what it had been sent: that is what a late execution is.
        await self.start()
        restarted = time.monotonic()
        operation_id = await self._operation(company)
        if not reached or operation_id is None:
            return f"{point.name}: not reached"
        known = [person.email] if point.action == "add" else emails
        return Trial(point, company, known, operation_id, restarted, before)

    async def _lock(self, customer_id: str) -> asyncpg.Connection:
        """Hold the person's row, so that the reply is read and its commit waits. Admission locks the row too."""
        connection = await asyncpg.connect(self.world.service.database_url)
        await connection.execute("begin")
        await connection.execute("select 1 from customers where id = $1 for update", customer_id)
        return connection

    async def _until(self, condition: Callable[[], Awaitable[bool]]) -> bool:
        for _ in range(800):
            if await condition():
                return True
            await asyncio.sleep(0.01)
        return False

    async def _operation(self, company: Company) -> str | None:
        found = await self.world.service.fetch(
            "select id from operations where subscription_id = $1 order by created_at desc limit 1",
            company.subscription_id,
        )
        return None if not found else str(found[0]["id"])

    async def _is_reached(self, point: Point, company: Company, since: float) -> bool:
        operation_id = await self._operation(company)
        if operation_id is None:
            return False
        if point.reached == "admitted":
            return True
        rows = await self.world.service.fetch(
            "select state, settled_at from operation_steps where operation_id = $1", operation_id
        )
        if point.reached == "settled":
            return all(row["settled_at"] is not None for row in rows)
        if point.reached == "half":
            return sum(str(row["state"]) == "applied" for row in rows) >= len(rows) // 3
        sending = any(row["state"] == "in_flight" for row in rows)
        if point.reached == "sending":
            return sending and await self._was_asked(point, company, since)
        if point.reached == "row locked":
            waiting = await self.world.service.fetch(
                "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
            return sending and bool(waiting)
        return await self._was_asked(point, company, since)

    async def _was_asked(self, point: Point, company: Company, since: float) -> bool:
        """The request that the fault holds is in the stand-in's log; carried out where the point says so."""
        fault = point.fault or {}
        found = await self.world.stripe.requests(method=fault["method"], since=since)
        prefix = fault["path"].removesuffix("{id}")
        asked = [
            one
            for one in found
            if one["actor"] == "api" and one["status"] is None and one["path"].startswith(prefix)
        ]
        if point.reached in ("done", "row locked"):
            return any(one["last_version"] for one in asked)
        return bool(asked)

    async def judge(self, trial: Trial, tally: Tally) -> None:
        point, company = trial.point, trial.company
        left = WITHIN_SECONDS - (time.monotonic() - trial.restarted_at)
        told = await self.world.settled(trial.operation_id, as_service("admin"), within=max(left, 1.0))
        if told is None:
            tally.misses.append(f"{point.name}: {trial.operation_id} is not terminal")
            return
        rows = await self.world.service.fetch(
            "select extract(epoch from clock_timestamp() - settled_at)::float as ago from operations where id = $1",
            trial.operation_id,
        )
        ago = rows[0]["ago"]
        if ago is None:
            tally.misses.append(f"{point.name}: {trial.operation_id} is settled in part")
            return
        tally.seconds.append(max(0.0, time.monotonic() - trial.restarted_at - ago))
        people, quantity = await self.world.customers(), await self.world.quantity(company)
        members = {one["id"] for one in people.values() if role_on(one, company.subscription_id) is not None}
        members_before, quantity_before = trial.before
        wrong = []
        for result in told["results"]:
            tally.outcomes[f"{result['outcome']} {result['code'] or ''}".strip()] += 1
            done = result["outcome"] in ("applied", "unchanged")
            holders = [
                one
                for one in members
                if one == result["customer_id"] or people[one]["email"] == result["email"]
            ]
            if len(holders) != (done if result["action"] == "add" else not done):
                wrong.append(f"{result['outcome']} but {len(holders)} hold a seat")
        gained = sum(r["outcome"] == "applied" for r in told["results"] if r["action"] == "add")
        lost = sum(r["outcome"] == "applied" for r in told["results"] if r["action"] == "remove")
        if len(members) != len(members_before) + gained - lost:
            wrong.append(f"{len(members)} members")
        written = await self.world.service.fetch(
            """select state from operation_steps
            where operation_id = $1 and action in ('buy_seats', 'update_subscription')""",
            trial.operation_id,
        )
        state = written[0]["state"] if written else None
        change = {"buy": 1, "lower": -1}.get(point.action, 0) if state == "applied" else 0
        if quantity != quantity_before + change:
            wrong.append(f"quantity {quantity_before} to {quantity}, told {state}")
        if len(members) > quantity:
            wrong.append("more members than seats")
        tally.misses += [f"{point.name}: {trial.operation_id}: {one}" for one in wrong]


async def play(world: World, given: argparse.Namespace) -> Json:
    bench, tally, judging = Bench(world), Tally(), []
    chosen = [point for point in POINTS if given.only is None or given.only in point.name]
    reached: Counter[str] = Counter()
    started = time.monotonic()
    # Deliveries would have the worker read what a fault waits for the victim to read.
    await world.stripe.deliveries(drop=1.0)
    await bench.start()
    for _ in range(given.times):
        for point in chosen:
            trial = await bench.trial(point)
            if isinstance(trial, str):
                tally.misses.append(trial)
                continue
            seat_world.progress(f"{point.name}: killed; {len(tally.seconds)} terminal, {tally.misses}")
            reached[point.name] += 1
            judging.append(asyncio.create_task(bench.judge(trial, tally)))
    await asyncio.gather(*judging)
    reservations = await world.live_reservations()
    return {
        "met": not tally.misses and reservations == 0,
        "points": len(chosen),
        "kills": sum(reached.values()),
        "told": dict(tally.outcomes),
        "terminal_after_s": {
            "p50": round(seat_world.percentile(tally.seconds, 0.5), 1),
            "max": round(max(tally.seconds, default=0.0), 1),
        },
        "reservations_left": reservations,
        "seconds": round(time.monotonic() - started, 1),
        "load_average": seat_world.load_average(),
        "misses": tally.misses[:10],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.kills.crash_points", description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="kills at each point (default 10)")
    parser.add_argument("--only", help="points whose name contains this")
    parser.add_argument("--lease", type=int, default=3, help="OPERATION_LEASE in seconds (default 3)")
    seat_world.state_option(parser)
    given = parser.parse_args()
    found: dict[str, Any] = seat_world.run(
        "crash_points", given.state, lambda world: play(world, given), OPERATION_LEASE=str(given.lease)
    )
    print(json.dumps({"benchmark": "crash_points", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
