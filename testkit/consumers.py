"""Consumers of events: a webhook endpoint, a reader of the feed, and a page that shows a stream.

Each remembers what has reached it, so that it can be held against the log.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from standardwebhooks.webhooks import WebhookVerificationError

from testkit.company import Company
from testkit.receiver import Received, Receiver
from testkit.service import as_service

Json = dict[str, Any]
ADMIN, READ = as_service("admin"), as_service("read")
DELIVERED = 204

LEFT_OVER = """
    select (select count(*) from event_facts) + (select count(*) from event_expansions)
        + (select count(*) from refreshes where notifications > 0 and dead_at is null)
        + (select count(*) from operations where settled_at is null) as left_over"""
"""What the service has still to do before the log is complete."""


@dataclass
class Endpoint:
    """An endpoint with what has arrived there. `secrets` are those it knows, `arrived` the first time of each event."""

    receiver: Receiver
    endpoint_id: str
    secrets: list[str]
    answer: int = DELIVERED
    arrived: dict[str, float] = field(default_factory=dict)
    order: list[Json] = field(default_factory=list)
    refused: int = 0

    @classmethod
    async def registered(cls, client: httpx.AsyncClient, receiver: Receiver, **more: Any) -> Endpoint:
        """Register a receiver, from now on or from the place `after`."""
        body = {"url": receiver.url, **more}
        answer = await client.post("/v1/webhook-endpoints", headers=ADMIN, json=body)
        made = answer.raise_for_status().json()
        found = cls(receiver, made["webhook_endpoint"]["id"], [made["secret"]])
        receiver.status = found.status
        return found

    def status(self, one: Received) -> int:
        """Answer one delivery, and remember it if it is taken."""
        if not any(_fits(one, secret) for secret in self.secrets):
            self.refused += 1
            return 401
        if self.answer == DELIVERED and one.event["id"] not in self.arrived:
            self.arrived[one.event["id"]] = time.time()
            self.order.append(one.event)
        return self.answer

    @property
    def falls(self) -> int:
        """How often a sequence was not above the one before it of the same subscription."""
        last: dict[str, int] = defaultdict(int)
        found = 0
        for event in self.order:
            if event["subscription_id"] is not None:
                found += event["sequence"] <= last[event["subscription_id"]]
                last[event["subscription_id"]] = event["sequence"]
        return found


def _fits(one: Received, secret: str) -> bool:
    try:
        one.verified(secret)
    except WebhookVerificationError:
        return False
    return True


@dataclass
class FeedReader:
    """A reader of the feed, who asks for the same page again if it is not answered.

    `place` is where to begin, empty for the beginning. `order` has the ids that were read. `take` is given each event.
    `refusals` counts the answers that no repetition mends.
    """

    place: str = ""
    order: list[str] = field(default_factory=list)
    take: Callable[[Json], None] = lambda _: None
    refusals: Counter[str] = field(default_factory=Counter)

    async def follow(self, client: httpx.AsyncClient) -> None:
        """Read until it is cancelled."""
        while True:
            page = await self._page(client)
            if page is None:
                await asyncio.sleep(0.2)
                continue
            for event in page["data"]:
                self.order.append(event["id"])
                self.take(event)
            self.place = page["next_cursor"]
            await asyncio.sleep(0.0 if page["has_more"] else 0.05)

    async def _page(self, client: httpx.AsyncClient) -> Json | None:
        after = {"after": self.place} if self.place else {}
        try:
            answer = await client.get("/v1/events", headers=READ, params={"limit": 100, **after})
        except httpx.TransportError:
            return None
        if answer.status_code == httpx.codes.OK:
            page: Json = answer.json()
            return page
        if not answer.is_server_error:
            self.refusals[str(answer.status_code)] += 1
        return None


@dataclass
class StreamReader:
    """A page that shows the stream of one subscription to its owner, and connects again after its last place.

    `seen` is the time at which each event was shown first. `falls` counts sequences that were not above the one before.
    `refusals` counts connections that were refused, and answers other than 200.
    """

    company: Company
    place: str = ""
    seen: dict[str, float] = field(default_factory=dict)
    falls: int = 0
    connections: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    _sequence: int = 0
    _pause: float = 0.0

    async def read(
        self, client: httpx.AsyncClient, base_url: Callable[[], str], *, cut_seconds: float | None = None
    ) -> None:
        """Read until it is cancelled. The stream is cut after about `cut_seconds`."""
        while True:
            limit = None if cut_seconds is None else cut_seconds * random.uniform(0.5, 1.5)
            self._pause = 0.05
            try:
                async with asyncio.timeout(limit):
                    await self._once(client, f"{base_url()}{self.company.path}/events")
            except TimeoutError:
                continue
            await asyncio.sleep(self._pause)

    async def _once(self, client: httpx.AsyncClient, url: str) -> None:
        headers = {**self.company.owner.headers, **({"Last-Event-ID": self.place} if self.place else {})}
        try:
            async with client.stream("GET", url, headers=headers) as answer:
                if answer.status_code != httpx.codes.OK:
                    self.refusals[str(answer.status_code)] += 1
                    return
                self.connections += 1
                await self._messages(answer)
        except httpx.ConnectError:
            self.refusals["no connection"] += 1
        except httpx.TransportError as error:
            self.refusals[type(error).__name__] += 1

    async def _messages(self, answer: httpx.Response) -> None:
        """Take the messages of one connection. One that is cut before its end counts for nothing."""
        message: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                message[name] = value
                continue
            if "data" in message:
                self._take(json.loads(message["data"]))
            if "id" in message:
                self.place = message["id"]
                self.opened.set()
            if "retry" in message:
                self._pause = int(message["retry"]) / 1000
            message = {}

    def _take(self, event: Json) -> None:
        self.seen.setdefault(event["id"], time.time())
        self.falls += event["sequence"] <= self._sequence
        self._sequence = event["sequence"]


async def until(what: str, condition: Callable[[], Awaitable[bool]], *, within: float) -> None:
    """Wait until a condition holds. Raises TimeoutError that names it."""
    give_up = time.monotonic() + within
    while not await condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what}: not within {within:g} s")
        await asyncio.sleep(0.5)
