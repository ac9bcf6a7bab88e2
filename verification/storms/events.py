"""`python -m verification.storms.events`: consumers of events while seats change, and endpoints that fail.

Writers change members in bulk and quantities in the Dashboard, first with one endpoint, then beside one that is dead
and one that answers slowly. All the time the feed is read by several readers, streams are cut and resumed, and the
signing secret is rotated. Afterwards the dead endpoint, for which three days are over, has to catch up in order. When
five days of failures are over, it has to be disabled with its reason, and enabled again it has to go on without a gap.

Nobody may miss an event or see a sequence fall, no signature may be refused, and the p99 from an event's time to its
delivery may be at most three times that of the healthy endpoint alone. One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime

import httpx

from testkit import seat_world
from testkit.company import Company, new_email
from testkit.consumers import ADMIN, DELIVERED, LEFT_OVER, Endpoint, FeedReader, StreamReader, until
from testkit.receiver import Receiver, receiving
from testkit.seat_world import Json, World, percentile, progress

SLOWER, LEAST_SECONDS, STREAM_SECONDS = 3.0, 0.25, 1.0
DEAD = 503
OPENED_AT_ONCE = 100
"""Streams. Each takes a place of its process until its first message, and a process refuses what finds no place."""


@dataclass
class Storm:
    """What runs beside the writers."""

    world: World
    given: argparse.Namespace
    companies: list[Company]
    feeds: list[FeedReader] = field(default_factory=list)
    streams: list[StreamReader] = field(default_factory=list)
    rotations: int = 0
    changes: int = 0

    async def endpoint(self, receiver: Receiver) -> Endpoint:
        """Register a receiver, from now on."""
        return await Endpoint.registered(self.world.clients[0], receiver)

    async def write(self, seconds: float) -> tuple[float, float]:
        """Change seats for so many seconds at the wanted rate, and return the times of the begin and the end."""
        began = time.time()
        share = self.given.rate / len(self.companies)
        await asyncio.gather(*(self._writer(company, seconds, share) for company in self.companies))
        return began, time.time()

    async def _writer(self, company: Company, seconds: float, rate: float) -> None:
        began, done, seated = time.monotonic(), 0, list[str]()
        for number in itertools.count():
            await asyncio.sleep(max(0.0, began + done / rate - time.monotonic()))
            if time.monotonic() - began > seconds:
                break
            if number % 3 == 2:
                item = (await self.world.stripe.get(f"/v1/subscriptions/{company.subscription_id}"))["items"]
                path = f"/v1/subscription_items/{item['data'][0]['id']}"
                await self.world.stripe.post(path, quantity=10_000 + number)
                done += 1
                continue
            if seated:
                body: Json = {"remove": seated}
            else:
                body = {"add": [{"email": new_email("storm")} for _ in range(self.given.bulk)]}
            done += self.given.bulk
            answer = await self.world.call(0, "PATCH", f"{company.path}/users", company.owner.headers, body)
            # A call that is still going on names its people later; the next one adds others.
            settled = answer.status_code == httpx.codes.OK and "add" in body
            seated = [one["customer_id"] for one in answer.json()["results"]] if settled else []
        self.changes += done

    async def rotate(self, consumer: Endpoint) -> None:
        """Rotate the secret again and again. The receiver learns of it half an overlap later."""
        while True:
            await asyncio.sleep(self.given.rotate)
            path = f"/v1/webhook-endpoints/{consumer.endpoint_id}/rotate-secret"
            overlap = {"overlap_seconds": 60}
            answer = await self.world.call(0, "POST", path, ADMIN, overlap)
            await asyncio.sleep(self.given.rotate / 2)
            consumer.secrets = [answer.raise_for_status().json()["secret"], *consumer.secrets[:1]]
            self.rotations += 1

    async def events(self) -> list[Json]:
        """Return the log."""
        rows = await self.world.service.fetch(
            "select id, position, subscription_id, created from events order by 2"
        )
        return [dict(row) for row in rows]

    async def until(self, what: str, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait until a condition holds. Raises TimeoutError that names it."""
        await until(what, condition, within=self.given.rest)

    async def rests(self) -> bool:
        """Return True if nothing is left to be made an event of, and no refresh is to be done."""
        [row] = await self.world.service.fetch(LEFT_OVER)
        return int(row["left_over"]) == 0

    async def status(self, consumer: Endpoint) -> Json:
        """Return what is shown of an endpoint."""
        answer = await self.world.call(0, "GET", f"/v1/webhook-endpoints/{consumer.endpoint_id}", ADMIN)
        found: Json = answer.raise_for_status().json()["webhook_endpoint"]
        return found

    async def pass_days(self, consumer: Endpoint, days: int) -> None:
        """Let days pass for an endpoint that fails: its first failure is so much older, and its next try is due."""
        await self.world.service.fetch(
            """update webhook_queues set due_at = clock_timestamp(),
                failing_since = failing_since - make_interval(days => $2)
            where endpoint_id = $1 and next_position is not null returning 1""",
            consumer.endpoint_id,
            days,
        )


async def play(world: World, given: argparse.Namespace) -> Json:
    companies = [await world.service.company(seats=10_000, users=0) for _ in range(given.subscriptions)]
    await world.service.fill()
    storm = Storm(world, given, companies)
    await storm.until("the beginning", storm.rests)
    async with AsyncExitStack() as stack:
        receivers = [await stack.enter_async_context(receiving()) for _ in range(3)]
        healthy = await storm.endpoint(receivers[0])
        begin = [event["id"] for event in await storm.events()]
        limits = httpx.Limits(max_connections=None)
        url = str(world.clients[0].base_url).rstrip("/")
        client = await stack.enter_async_context(httpx.AsyncClient(limits=limits, timeout=None))
        storm.streams = [StreamReader(companies[number % len(companies)]) for number in range(given.streams)]
        storm.feeds = [FeedReader() for _ in range(given.feeds)]
        tasks = []
        for first in range(0, given.streams, OPENED_AT_ONCE):
            group = storm.streams[first : first + OPENED_AT_ONCE]
            tasks += [
                asyncio.create_task(one.read(client, lambda: url, cut_seconds=given.cut)) for one in group
            ]
            await asyncio.gather(*(one.opened.wait() for one in group))
        progress(f"{given.streams} streams are open")
        tasks += [asyncio.create_task(one.follow(world.clients[0])) for one in storm.feeds]
        tasks.append(asyncio.create_task(storm.rotate(healthy)))
        alone = await storm.write(given.seconds / 2)
        slow, dead = [await storm.endpoint(receiver) for receiver in receivers[1:]]
        slow.receiver.seconds, dead.answer = given.slow, DEAD
        from_dead = len(await storm.events())
        beside = await storm.write(given.seconds / 2)
        progress(f"{storm.changes} changes")
        await storm.until("the events of all changes", storm.rests)
        log = await storm.events()

        async def have_all() -> bool:
            return len(healthy.arrived) >= len(log) - len(begin) and all(
                len(feed.order) >= len(log) for feed in storm.feeds
            )

        with suppress(TimeoutError):
            await storm.until("the healthy endpoint and the feed", have_all)
        # A stream shows an event within a second of its time, and one that was just cut a moment later.
        await asyncio.sleep(3)
        read = judged(storm, healthy, log[len(begin) :], log, (alone, beside))
        failing = await endpoint_lives(storm, dead, log[from_dead:])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    found = {**read, **failing, "load_average": seat_world.load_average()}
    return {"met": _is_met(found), **found}


def judged(
    storm: Storm,
    healthy: Endpoint,
    sent: Sequence[Json],
    log: Sequence[Json],
    spans: Sequence[tuple[float, float]],
) -> Json:
    """Return what each consumer missed, and how long deliveries took."""
    took: list[list[float]] = [[], []]
    for event in sent:
        created: datetime = event["created"]
        for number, (begin, end) in enumerate(spans):
            if begin <= created.timestamp() <= end and event["id"] in healthy.arrived:
                took[number].append(healthy.arrived[event["id"]] - created.timestamp())
    order = [event["id"] for event in log]
    missed, seen_after = 0, list[float]()
    for reader in storm.streams:
        own = [event for event in sent if event["subscription_id"] == reader.company.subscription_id]
        missed += sum(event["id"] not in reader.seen for event in own)
        seen_after += [
            reader.seen[event["id"]] - event["created"].timestamp()
            for event in own
            if event["id"] in reader.seen
        ]
    refusals = [*(one.refusals for one in storm.feeds), *(one.refusals for one in storm.streams)]
    return {
        "changes": storm.changes,
        "events": len(sent),
        "measured_alone": len(took[0]),
        "measured_beside": len(took[1]),
        "p99_alone_s": round(percentile(took[0], 0.99), 3),
        "p99_beside_s": round(percentile(took[1], 0.99), 3),
        "not_delivered": sum(event["id"] not in healthy.arrived for event in sent),
        "sequence_fell": healthy.falls,
        "refused_signatures": healthy.refused,
        "rotations": storm.rotations,
        "feed_skipped": sum(feed.order[: len(order)] != order for feed in storm.feeds),
        "streams_missed": missed,
        "streams_fell": sum(reader.falls for reader in storm.streams),
        "readers_refused": sum(one.total() for one in refusals),
        "stream_p50_s": round(percentile(seen_after, 0.5), 3),
        "stream_p99_s": round(percentile(seen_after, 0.99), 3),
    }


async def endpoint_lives(storm: Storm, dead: Endpoint, owed: Sequence[Json]) -> Json:
    """Let days pass for the dead endpoint: it catches up after three, and is disabled after five more."""

    async def has(events: Sequence[Json]) -> bool:
        return all(event["id"] in dead.arrived for event in events)

    await storm.pass_days(dead, 3)
    await asyncio.sleep(3)
    enabled = (await storm.status(dead))["status"] == "enabled" and not dead.arrived
    dead.answer = DELIVERED
    await storm.pass_days(dead, 0)
    await storm.until("the dead endpoint catches up", lambda: has(owed))
    progress(f"the dead endpoint has caught up with {len(owed)} events")

    dead.answer, began = DEAD, len(await storm.events())
    await storm.write(2.0)
    await storm.until("the events of the last changes", storm.rests)
    later = (await storm.events())[began:]

    async def is_disabled() -> bool:
        await storm.pass_days(dead, 5)
        return bool((await storm.status(dead))["status"] == "disabled")

    await storm.until("the endpoint is disabled", is_disabled)
    reason = (await storm.status(dead))["disabled_reason"]
    dead.answer = DELIVERED
    path = f"/v1/webhook-endpoints/{dead.endpoint_id}"
    (await storm.world.call(0, "PATCH", path, ADMIN, {"status": "enabled"})).raise_for_status()
    await storm.until("the enabled endpoint goes on", lambda: has(later))
    return {
        "kept_for_three_days": enabled,
        "caught_up": len(owed),
        "disabled_reason": reason,
        "resumed": len(later),
        "dead_sequence_fell": dead.falls,
    }


def _is_met(found: Json) -> bool:
    nothing = (
        "not_delivered",
        "sequence_fell",
        "refused_signatures",
        "feed_skipped",
        "streams_missed",
        "streams_fell",
        "readers_refused",
        "dead_sequence_fell",
    )
    some = ("measured_alone", "measured_beside", "rotations", "caught_up", "resumed")
    return (
        not any(found[name] for name in nothing)
        and all(found[name] > 0 for name in some)
        and found["p99_beside_s"] <= SLOWER * max(found["p99_alone_s"], LEAST_SECONDS)
        and found["stream_p99_s"] <= STREAM_SECONDS
        and found["kept_for_three_days"]
        and bool(found["disabled_reason"])
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.storms.events", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=240.0, help="of changes, in both halves (default 240)"
    )
    parser.add_argument("--rate", type=float, default=100.0, help="changes a second (default 100)")
    parser.add_argument("--bulk", type=int, default=10, help="people in one call (default 10)")
    parser.add_argument("--subscriptions", type=int, default=100, help="each with a writer (default 100)")
    parser.add_argument("--streams", type=int, default=500, help="default 500")
    parser.add_argument("--feeds", type=int, default=4, help="readers of the feed (default 4)")
    parser.add_argument("--cut", type=float, default=20.0, help="seconds before a stream is cut (default 20)")
    parser.add_argument("--slow", type=float, default=10.0, help="seconds of the slow endpoint (default 10)")
    parser.add_argument("--rotate", type=float, default=10.0, help="seconds between rotations (default 10)")
    parser.add_argument("--rest", type=float, default=300.0, help="seconds to come to rest (default 300)")
    seat_world.state_option(parser)
    given = parser.parse_args()
    found = seat_world.run(
        "events", given.state, lambda world: play(world, given), STREAMS_PER_CALLER="10000"
    )
    print(json.dumps({"storm": "events", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
