"""`python -m verification.storms.hostile_queue`: one tenant fills the worker's queues with work that is dead slow.

Stripe takes 3 s for each request about one of that tenant's members. A refresh of each of 1,000 members is due, and
1,000 changes of their roles were left to the worker. Other tenants' changes and refreshes are left to the same worker,
in the calm before and beside that backlog. The 99th percentile of the seconds until theirs are done has to be at most
twice that of the calm. One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import httpx

from app.mirror.store import refreshes
from testkit import seat_world
from testkit.company import Company, Person
from testkit.seat_world import Json, World, percentile, progress
from testkit.service import as_service

SLOWER = 2.0
DEAD_SLOW_SECONDS = 3.0
"""Less than the seconds after which a request counts as a failure and a breaker may open."""
DONE_WITHIN = 60.0
LOOK_SECONDS = 0.2
USERS = 8
"""Members of each other tenant: one is not refreshed twice within the pause that a refresh needs."""
_SENDERS = 8
_KEY = as_service("write")


@dataclass
class Waited:
    """The seconds until the jobs of other tenants were done, by kind of job. `undone`: those that never were."""

    changes: list[float] = field(default_factory=list)
    refreshes: list[float] = field(default_factory=list)
    undone: int = 0


@dataclass
class Watched:
    """Jobs that are not done: the changes by operation, and the refreshes by customer, with when they were left."""

    changes: dict[str, float] = field(default_factory=dict)
    refreshes: dict[str, float] = field(default_factory=dict)


@contextmanager
def no_room(world: World) -> Iterator[None]:
    """Leave every change to the worker, as if too many requests of this process waited for Stripe already."""
    waits = world.service.context.stripe_waits
    with ExitStack() as taken:
        while not waits.is_full:
            taken.enter_context(waits.one_more())
        yield


async def leave_change(world: World, company: Company, person: Person, role: str) -> str:
    """Admit a change of a role, and return its operation."""
    body = {"update": [{"customer_id": person.customer_id, "role": role}]}
    answer = await world.service.send("PATCH", f"{company.path}/users", _KEY, body)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return str(answer.json()["operation_id"])


async def note_refreshes(world: World, people: Iterable[Person]) -> None:
    async with world.service.context.database.connection() as connection:
        for person in people:
            await refreshes.note(connection, "customer", person.customer_id, notified_at=int(time.time()))


async def watch(world: World, open_jobs: Watched, waited: Waited, ended: asyncio.Event) -> None:
    """Note the seconds of each job once it is done, until `ended` is set and none is left."""
    give_up = math.inf
    while (open_jobs.changes or open_jobs.refreshes or not ended.is_set()) and time.monotonic() < give_up:
        if ended.is_set() and give_up == math.inf:
            give_up = time.monotonic() + DONE_WITHIN
        await asyncio.sleep(LOOK_SECONDS)
        settled = await world.service.fetch(
            "select id from operations where id = any($1) and settled_at is not null", list(open_jobs.changes)
        )
        applied = await world.service.fetch(
            "select id from refreshes where id = any($1) and notifications = 0", list(open_jobs.refreshes)
        )
        now = time.monotonic()
        waited.changes += [now - open_jobs.changes.pop(row["id"]) for row in settled]
        waited.refreshes += [now - open_jobs.refreshes.pop(row["id"]) for row in applied]
    waited.undone += len(open_jobs.changes) + len(open_jobs.refreshes)


Turn = tuple[Company, int, str]


def turns(others: list[Company]) -> Iterator[Turn]:
    """Give tenants in rotation, each with a user and the role that the user does not have yet."""
    for role in itertools.cycle(("manager", "user")):
        for number in range(USERS):
            for company in others:
                yield company, number, role


async def window(world: World, coming: Iterator[Turn], given: argparse.Namespace) -> Waited:
    """Leave jobs of the other tenants to the worker for so many seconds, and wait until each is done."""
    waited, open_jobs, ended = Waited(), Watched(), asyncio.Event()
    watching = asyncio.create_task(watch(world, open_jobs, waited, ended))
    began = time.monotonic()
    for number in range(int(given.seconds * given.rate)):
        await asyncio.sleep(max(0.0, began + number / given.rate - time.monotonic()))
        company, index, role = next(coming)
        operation_id = await leave_change(world, company, company.users[index], role)
        open_jobs.changes[operation_id] = time.monotonic()
        refreshed = company.users[index - 1]
        if refreshed.customer_id not in open_jobs.refreshes:
            await note_refreshes(world, [refreshed])
            open_jobs.refreshes[refreshed.customer_id] = time.monotonic()
    ended.set()
    await watching
    return waited


async def fill_queues(world: World, hostile: Company) -> None:
    """Let Stripe be dead slow about the tenant's members, and leave a refresh and a change of each to the worker."""
    limit = asyncio.Semaphore(_SENDERS)

    async def left(person: Person) -> None:
        async with limit:
            await world.stripe.add_fault(
                path="/v1/customers/{id}",
                object=person.customer_id,
                latency_s=DEAD_SLOW_SECONDS,
                times=0,
            )
            await leave_change(world, hostile, person, "manager")

    await asyncio.gather(*(left(person) for person in hostile.users))
    await note_refreshes(world, hostile.users)


async def left_over(world: World, hostile: Company) -> dict[str, int]:
    """Return how much of the tenant's work is still to be done."""
    [row] = await world.service.fetch(
        """select (select count(*) from operations where settled_at is null and subscription_id = $1) as changes,
            (select count(*) from refreshes r join memberships m on m.customer_id = r.id
                where m.subscription_id = $1 and r.notifications > 0) as refreshes""",
        hostile.subscription_id,
    )
    return dict(row)


async def play(world: World, given: argparse.Namespace) -> Json:
    others = [await world.service.company(seats=2 * USERS, users=USERS) for _ in range(given.tenants)]
    hostile = await world.service.company(seats=2 * given.backlog, users=0)
    limit = asyncio.Semaphore(_SENDERS)

    async def seated() -> None:
        async with limit:
            hostile.users.append(await hostile.seated("hostile", "user"))

    await asyncio.gather(*(seated() for _ in range(given.backlog)))
    await world.service.fill()
    coming = turns(others)
    with no_room(world):
        progress("the calm")
        calm = await window(world, coming, given)
        progress("the backlog")
        await fill_queues(world, hostile)
        progress(f"the storm: {await left_over(world, hostile)} left")
        storm = await window(world, coming, given)
    return verdict(calm, storm, await left_over(world, hostile))


def verdict(calm: Waited, storm: Waited, left: dict[str, int]) -> Json:
    """Compare the storm with the calm. Without a backlog at its end the storm says nothing."""
    pairs = {"changes": (calm.changes, storm.changes), "refreshes": (calm.refreshes, storm.refreshes)}
    p99 = {kind: [percentile(values, 0.99) for values in pair] for kind, pair in pairs.items()}
    undone = calm.undone + storm.undone
    return {
        "met": all(hung <= SLOWER * still for still, hung in p99.values())
        and not undone
        and min(left.values()) > 0,
        "undone": undone,
        **{f"p99_{kind}_calm_s": round(still, 2) for kind, (still, _) in p99.items()},
        **{f"p99_{kind}_storm_s": round(hung, 2) for kind, (_, hung) in p99.items()},
        "jobs": {kind: len(pair[1]) for kind, pair in pairs.items()},
        "left_of_the_backlog": left,
        "load_average": seat_world.load_average(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.storms.hostile_queue", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="of the calm, and of the storm (default 120)"
    )
    parser.add_argument("--backlog", type=int, default=1000, help="refreshes, and changes (default 1000)")
    parser.add_argument("--tenants", type=int, default=20, help="others (default 20)")
    parser.add_argument("--rate", type=float, default=4.0, help="changes and refreshes a second (default 4)")
    seat_world.state_option(parser)
    given = parser.parse_args()
    found = seat_world.run("hostile_queue", given.state, lambda world: play(world, given))
    print(json.dumps({"storm": "hostile_queue", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
