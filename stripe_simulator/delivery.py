"""Webhook deliveries: signed, at least once, retried with back-off, bounded per endpoint."""

import asyncio
import hashlib
import hmac
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import orjson

from .history import EventRecord
from .layouts import in_version
from .objects import Obj
from .posting import FAILURES, Poster
from .world import World, Worlds

logger = logging.getLogger("stripe_simulator.delivery")

CONCURRENT_PER_ENDPOINT = 16
TIMEOUT_SECONDS = 10.0
BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
GIVE_UP_SECONDS = 3600.0


def signature(body: bytes, secret: str, moment: int) -> str:
    """The ``Stripe-Signature`` header: HMAC-SHA256 over ``<t>.<body>``."""
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


@dataclass(slots=True)
class Job:
    world: World
    record: EventRecord
    endpoint: str
    attempts: int = 0
    first: float = 0.0
    extra: bool = False


class Queue:
    """One endpoint's deliveries that are due, and how many are under way."""

    def __init__(self) -> None:
        self.ready: deque[Job] = deque()
        self.active = 0


class Deliveries:
    def __init__(self, worlds: Worlds) -> None:
        self._worlds = worlds
        self._queues: dict[str, Queue] = {}
        self._held: dict[str, list[Job]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._poster = Poster(TIMEOUT_SECONDS)
        self._stopped = False
        self.running = False
        self.counts: dict[str, dict[str, int]] = {}

    def start(self) -> None:
        """Takes up what was undelivered when the last process ended."""
        self.running = True
        for world in self._worlds.by_key.values():
            for record in world.events:
                if record.waiting and not record.failed:
                    self.enqueue(world, [record])

    async def stop(self) -> None:
        self._stopped = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._poster.close()

    def count(self, world: World, name: str) -> None:
        counts = self.counts.setdefault(world.api_key, {})
        counts[name] = counts.get(name, 0) + 1

    def enqueue(self, world: World, records: list[EventRecord]) -> None:
        policy = world.settings.get("deliveries") or {}
        for record in records:
            for endpoint in sorted(record.waiting):
                self._plan(world, record, endpoint, policy)

    def _plan(self, world: World, record: EventRecord, endpoint: str, policy: Obj) -> None:
        draw = world.random.random
        if policy.get("drop") and draw() < float(policy["drop"]):
            self._settle(world, record, endpoint, failed=True)
            self.count(world, "dropped")
            return
        copies = 1
        if policy.get("duplicate") and draw() < float(policy["duplicate"]):
            copies = 2
        for copy in range(copies):
            job = Job(world, record, endpoint, extra=copy > 0)
            if policy.get("hold"):
                self._held.setdefault(world.api_key, []).append(job)
                continue
            self._schedule(job, self._delay(world, policy))

    def _delay(self, world: World, policy: Obj) -> float:
        delay = float(policy.get("delay_s") or 0.0)
        reorder = policy.get("reorder")
        if reorder:
            delay += world.random.uniform(0.0, 0.5 if reorder is True else float(reorder))
        return delay

    def held(self, world: World) -> list[Obj]:
        return [
            {"event": job.record.id, "type": job.record.type, "endpoint": job.endpoint}
            for job in self._held.get(world.api_key, [])
        ]

    def release(self, world: World, given: Obj) -> int:
        """Sends held deliveries: all, the first ``count``, or those of ``events``; ``order`` fifo, lifo or random."""
        held = self._held.get(world.api_key, [])
        chosen = held
        if given.get("events") is not None:
            wanted = {identifier: index for index, identifier in enumerate(given["events"])}
            chosen = sorted(
                (job for job in held if job.record.id in wanted),
                key=lambda job: wanted[job.record.id],
            )
        if given.get("order") == "lifo":
            chosen = chosen[::-1]
        elif given.get("order") == "random":
            chosen = world.random.sample(chosen, len(chosen))
        if given.get("count") is not None:
            chosen = chosen[: int(given["count"])]
        taken = {id(job) for job in chosen}
        self._held[world.api_key] = [job for job in held if id(job) not in taken]
        for index, job in enumerate(chosen):
            # A held copy leaves in the order that was asked for, even where deliveries run side by side.
            self._schedule(job, index * float(given.get("spacing_s") or 0.0))
        return len(chosen)

    def _schedule(self, job: Job, delay: float) -> None:
        if delay > 0:
            asyncio.get_running_loop().call_later(delay, self._due, job)
        else:
            self._due(job)

    def _due(self, job: Job) -> None:
        if self._stopped:
            return
        queue = self._queues.setdefault(job.endpoint, Queue())
        queue.ready.append(job)
        self._pump(queue)

    def _pump(self, queue: Queue) -> None:
        while queue.ready and queue.active < CONCURRENT_PER_ENDPOINT and not self._stopped:
            queue.active += 1
            task = asyncio.get_running_loop().create_task(self._deliver(queue, queue.ready.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, queue: Queue, job: Job) -> None:
        try:
            await self._attempt(job)
        finally:
            queue.active -= 1
            self._pump(queue)

    async def _attempt(self, job: Job) -> None:
        world, record = job.world, job.record
        endpoint = world.get("webhook_endpoint", job.endpoint)
        if endpoint is None or endpoint["status"] != "enabled":
            self._settle(world, record, job.endpoint, failed=True)
            return
        if not job.attempts:
            job.first = time.monotonic()
        job.attempts += 1
        self.count(world, "attempts")
        if await self._post(world, endpoint, record):
            self.count(world, "duplicates" if job.extra else "delivered")
            self._settle(world, record, job.endpoint, failed=False)
            return
        if job.extra:
            return
        if time.monotonic() - job.first > GIVE_UP_SECONDS:
            self.count(world, "failed")
            self._settle(world, record, job.endpoint, failed=True)
            return
        delay = BACKOFF_SECONDS[min(job.attempts, len(BACKOFF_SECONDS)) - 1]
        self._schedule(job, delay)

    async def _post(self, world: World, endpoint: Obj, record: EventRecord) -> bool:
        event = {**record.event, "pending_webhooks": len(record.waiting)}
        if endpoint.get("_organisation"):
            event["context"] = world.account_id
        body = orjson.dumps(in_version(event, endpoint["api_version"]))
        # The receiver checks the signature's age against real time, whatever the account's clock says.
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "Stripe-Signature": signature(body, endpoint["_secret"], int(time.time())),
        }
        try:
            status = await self._poster.post(endpoint["url"], body, headers)
        except FAILURES as failure:
            logger.debug("delivery of %s failed: %r", event["id"], failure)
            return False
        return 200 <= status < 300

    def _settle(self, world: World, record: EventRecord, endpoint: str, *, failed: bool) -> None:
        if endpoint not in record.waiting:
            return
        record.settle(endpoint, failed=failed)
        world.journal.append({"account": world.api_key, "delivered": [record.id, endpoint, failed]})

    def summary(self, world: World) -> dict[str, Any]:
        held = self._held.get(world.api_key, [])
        pending = sum(len(record.waiting) for record in world.events)
        names = ("delivered", "duplicates", "failed", "dropped", "attempts")
        counts = self.counts.get(world.api_key, {})
        return {"pending": pending, "held": len(held), **{name: counts.get(name, 0) for name in names}}

    def forget(self, world: World) -> None:
        """Drops what is queued for an account that is being emptied."""
        self._held.pop(world.api_key, None)
        self.counts.pop(world.api_key, None)
        for queue in self._queues.values():
            queue.ready = deque(job for job in queue.ready if job.world is not world)
