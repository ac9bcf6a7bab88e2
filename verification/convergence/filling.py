"""`python -m verification.convergence.filling`: what is told of the first fill of a big account.

`coseat sync` fills the copy with many shared subscriptions, beside an API process and a worker. From before the fill
until after it members and quantities are edited in the Dashboard, and a consumer asks for the snapshot. As soon as it
is given, the consumer reads it to its end and goes on in the feed.

No event may come before `sync.completed`, which comes once. Later ones may only be about what was edited. The consumer
must know the members, roles, seats, owners, statuses and access of the copy, and these must be what the stand-in has.
One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.events.places import position_of
from app.settings import inherited_environment
from testkit import seat_world
from testkit.consumers import LEFT_OVER, READ, FeedReader, until
from testkit.event_fold import Beginner, mismatches, state_now
from testkit.seat_world import Json, World, progress
from testkit.simulator import Simulator
from verification.simulation.truth import roles_of

CHUNK = 500
SEATS = 20
ASK_SECONDS = 0.25
REST_SECONDS = 600.0
PLAN, ROLE = "billing_shared_subscription_id", "billing_shared_subscription_role"


@dataclass
class Account:
    """Subscriptions, and the members of each. `edited` are the ids of what was edited."""

    stripe: Simulator
    subscriptions: list[str] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    edited: set[str] = field(default_factory=set)
    edits: int = 0

    async def settle_in(self, number: int, members: int) -> None:
        """Make the account. No delivery tells of it."""
        flag = {"billing_supports_shared_subscriptions": "true"}
        product = await self.stripe.post("/v1/products", name="Team", metadata=flag)
        price = await self.stripe.post(
            "/v1/prices",
            product=product["id"],
            currency="usd",
            unit_amount=900,
            recurring={"interval": "month"},
        )
        plan = {
            "items": [{"price": price["id"], "quantity": str(SEATS)}],
            "collection_method": "send_invoice",
            "days_until_due": "30",
            "metadata": {"billing_shared_subscription_owner": "{customer}"},
        }
        for first in range(0, number, CHUNK):
            count = min(CHUNK, number - first)
            made = await self._bulk(count, first, subscription=plan)
            self.subscriptions += made["subscriptions"]
        marks = {PLAN: "{subscription}", ROLE: "user"}
        for first in range(0, number * members, CHUNK):
            count = min(CHUNK, number * members - first)
            made = await self._bulk(
                count,
                first,
                email="member{n}@example.com",
                metadata=marks,
                subscriptions=self.subscriptions,
            )
            self.members += made["ids"]

    async def _bulk(self, count: int, first: int, **fields: Any) -> Json:
        made: Json = await self.stripe.control(
            "POST", "bulk", customers=count, start=first, ids=True, **fields
        )
        return made

    async def edit(self, rate: float, seed: int, stop: asyncio.Event) -> None:
        """Edit seats in the Dashboard until `stop` is set."""
        rng = random.Random(seed)
        while not stop.is_set():
            number = rng.randrange(len(self.members))
            await self._edit(number, rng.choice(("manager", "", "quantity")))
            self.edits += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(1 / rate):
                    await stop.wait()

    async def _edit(self, number: int, what: str) -> None:
        plan, member = self.subscriptions[number % len(self.subscriptions)], self.members[number]
        if what == "quantity":
            self.edited.add(plan)
            item = (await self.stripe.get(f"/v1/subscriptions/{plan}"))["items"]["data"][0]
            await self.stripe.post(f"/v1/subscription_items/{item['id']}", quantity=item["quantity"] + 1)
            return
        self.edited.add(member)
        marks = {PLAN: plan if what else "", ROLE: what}
        await self.stripe.post(f"/v1/customers/{member}", metadata=marks)

    async def state(self) -> Json:
        """Return members, seats, owners and statuses as the stand-in has them."""
        plans = {one["id"]: one for one in await self.stripe.state("subscription")}
        seats = {
            (plan, one["id"]): role
            for one in await self.stripe.state("customer")
            for plan, role in roles_of(one).items()
        }
        return {
            "seats": seats,
            "totals": {
                one: sum(item["quantity"] for item in plan["items"]["data"]) for one, plan in plans.items()
            },
            "owners": {
                one: plan["metadata"]["billing_shared_subscription_owner"] for one, plan in plans.items()
            },
            "statuses": {one: plan["status"] for one, plan in plans.items()},
        }


@dataclass
class Consumer:
    """Asks for the snapshot until it is given, and goes on in the feed. `refusals` counts the other answers by code."""

    client: httpx.AsyncClient
    known: Beginner = field(default_factory=Beginner)
    refusals: Counter[str] = field(default_factory=Counter)

    async def begin(self) -> FeedReader:
        """Read the snapshot, and return who reads on from its place."""
        cursor: dict[str, str] = {}
        while True:
            params = {"limit": "100", **cursor}
            answer = await self.client.get("/v1/events/snapshot", headers=READ, params=params)
            page = answer.json()
            if answer.status_code != httpx.codes.OK:
                self.refusals[page["code"]] += 1
                await asyncio.sleep(ASK_SECONDS)
                continue
            for row in page["data"]:
                self.known.take_row(row)
            if not page["has_more"]:
                return FeedReader(place=page["after"], take=self.known.take)
            cursor = {"cursor": page["next_cursor"]}


async def fill(world: World) -> tuple[int | None, float]:
    """Run `coseat sync`, and return its exit code and seconds."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "sync", "--json"),
        env={**inherited_environment(), **world.environment},
        stdout=asyncio.subprocess.PIPE,
    )
    await process.communicate()
    return process.returncode, time.monotonic() - began


async def play(world: World, given: argparse.Namespace) -> Json:
    """Fill, and judge."""
    account = Account(world.stripe)
    await account.settle_in(given.subscriptions, given.members)
    progress(f"{len(account.subscriptions)} subscriptions, {len(account.members)} members")
    stop = asyncio.Event()
    editing = asyncio.create_task(account.edit(given.rate, given.seed, stop))
    consumer = Consumer(world.clients[0])
    beginning = asyncio.create_task(consumer.begin())
    code, seconds = await fill(world)
    progress(f"filled in {seconds:.1f} s; the consumer was refused {dict(consumer.refusals)}")
    reader = await asyncio.wait_for(beginning, REST_SECONDS)
    progress(f"the snapshot has {consumer.known.rows} rows")
    following = asyncio.create_task(reader.follow(world.clients[0]))
    await asyncio.sleep(given.after)
    stop.set()
    await editing
    log: list[Json] = []

    async def has_all() -> bool:
        [left] = await world.service.fetch(LEFT_OVER)
        if left["left_over"] or (await world.stripe.deliveries())["pending"]:
            return False
        log[:] = [
            dict(row)
            for row in await world.service.fetch(
                "select position, type, subscription_id, customer_id from events order by position"
            )
        ]
        return position_of(reader.place) == int(log[-1]["position"])

    await until("the consumer has the log", has_all, within=REST_SECONDS)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    misses = await judged(world, account, consumer)
    stray = strays(log, account.edited)
    return {
        "met": code == 0
        and not misses
        and not stray
        and not reader.refusals
        and set(consumer.refusals) == {"not_filled"}
        and account.edits > 0,
        "subscriptions": len(account.subscriptions),
        "members": len(account.members),
        "edits": account.edits,
        "fill_exit_code": code,
        "fill_s": round(seconds, 1),
        "refused_before_the_snapshot": dict(consumer.refusals),
        "snapshot_rows": consumer.known.rows,
        "events": dict(Counter(one["type"] for one in log)),
        "read_after_the_snapshot": len(reader.order),
        "strays": stray[:10],
        "misses": misses[:10],
        "load_average": seat_world.load_average(),
    }


def strays(log: Sequence[Json], edited: set[str]) -> list[str]:
    """Say which events the fill has told: all before `sync.completed`, and those of what nobody has edited."""
    completed = [number for number, one in enumerate(log) if one["type"] == "sync.completed"]
    found = [] if completed == [0] else [f"sync.completed stands at {completed} of {len(log)}"]
    for one in log:
        about = one["customer_id"] if one["type"].startswith(("seat.", "access.")) else one["subscription_id"]
        if one["type"] != "sync.completed" and about not in edited:
            found.append(f"{one['type']} of {about}, which nobody has edited")
    return found


async def judged(world: World, account: Account, consumer: Consumer) -> list[str]:
    """Say where the consumer does not know the copy, or the copy is not what the stand-in has."""
    copy = await state_now(world.service.fetch)
    found = [f"consumer: {one}" for one in mismatches(consumer.known.state, copy)]
    for name, true in (await account.state()).items():
        found += [
            f"copy: {name} {key}: {copy[name].get(key)}, not {true.get(key)}"
            for key in true.keys() | copy[name].keys()
            if true.get(key) != copy[name].get(key)
        ]
    return found


def options() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="verification.convergence.filling", description=__doc__)
    parser.add_argument("--subscriptions", type=int, default=30_000, help="default 30000")
    parser.add_argument("--members", type=int, default=2, help="of each subscription (default 2)")
    parser.add_argument("--rate", type=float, default=5.0, help="edits a second (default 5)")
    parser.add_argument(
        "--after", type=float, default=10.0, help="seconds of edits after the snapshot was read (default 10)"
    )
    parser.add_argument("--seed", type=int, default=1)
    seat_world.state_option(parser)
    return parser


def main() -> int:
    """Run it once."""
    given = options().parse_args()
    found = seat_world.run("filling", given.state, lambda world: play(world, given))
    print(json.dumps({"check": "filling", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
