"""`python -m verification.storms.restarts`: rolling restarts under load, through a balancer that reads /readyz.

Three API processes, of which one after the other is ended by SIGTERM and started again, `--restarts` times. All the
time 100 requests a second are sent, every other one over a connection of its own, to the processes that were ready half
a second ago. Writers add and remove members throughout, and pages hold streams of these changes open. A stream that
ends is opened again after the pause that it named, at another place of the balancer, with `Last-Event-ID`.

No request may be dropped or answered 5xx, and each process has to end with exit code 0 in under 30 seconds. What Stripe
has at the end has to be what the last answers said. No stream may miss an event, see a sequence fall, be refused, or
be cut instead of ended. One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import secrets
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from testkit import seat_world
from testkit.company import Company, new_email
from testkit.consumers import LEFT_OVER, StreamReader, until
from testkit.seat_world import Json, World, progress, role_on
from verification.storms.slow_clients import requests
from verification.storms.traffic import Caller, Dropped, Traffic, asking

PROCESSES = 3
RATE = 100.0
WRITERS = 4
"""Of the first subscription. Each further one has a writer who changes it less often."""
PAUSE_SECONDS, LONG_PAUSE_SECONDS = 0.5, 10.0
PROBE_SECONDS = 0.5
LONGEST_END = 30.0
DRAIN_SECONDS = 5
REST_SECONDS = 120.0
SHOWN_SECONDS = 15.0
"""For a stream that has just ended it takes its pause and a connection until it shows an event."""


class Balancer:
    """The ports whose last probe of /readyz was answered 200, as a front would use them."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self._ready = list(ports)
        self._caller = Caller()

    def ports(self) -> list[int]:
        """Return the ports in service, all of them if none is."""
        return self._ready or self._ports

    async def until_ready(self, port: int) -> None:
        """Wait until a probe of the port is answered 200."""
        for _ in range(600):
            if port in self._ready:
                return
            await asyncio.sleep(0.1)
        raise TimeoutError(f"port {port} does not become ready")

    async def probe(self) -> None:
        """Probe all ports every PROBE_SECONDS until it is cancelled."""
        while True:
            found = await asyncio.gather(*(self._one(port) for port in self._ports))
            self._ready = [port for port, ready in zip(self._ports, found, strict=True) if ready]
            await asyncio.sleep(PROBE_SECONDS)

    async def _one(self, port: int) -> bool:
        try:
            async with asyncio.timeout(2):
                return (await self._caller.ask(port, "GET", "/readyz", {}, keeps=False)).status == 200
        except (Dropped, TimeoutError):
            return False


@dataclass
class Writer:
    """Adds and removes one person, again and again, and knows what the last answer said.

    `seated` is None after an answer that did not say it. `pause` is in seconds.
    """

    company: Company
    pause: float = PAUSE_SECONDS
    email: str = field(default_factory=lambda: new_email("writer"))
    statuses: Counter[str] = field(default_factory=Counter)
    customer_id: str | None = None
    seated: bool | None = False

    async def run(self, balancer: Balancer, stop: asyncio.Event) -> None:
        """Write until `stop` is set."""
        caller, number = Caller(), 0
        while not stop.is_set():
            number += 1
            removing = self.seated is True and self.customer_id is not None
            body = {"remove": [self.customer_id]} if removing else {"add": [{"email": self.email}]}
            await self._write(caller, balancer, body, removing=removing, keeps=number % 2 == 0)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.pause):
                    await stop.wait()
        caller.close()

    async def _write(
        self, caller: Caller, balancer: Balancer, body: Json, *, removing: bool, keeps: bool
    ) -> None:
        ports, path = balancer.ports(), f"{self.company.path}/users"
        who: Mapping[str, str] = {**self.company.owner.headers, "Idempotency-Key": secrets.token_hex(12)}
        try:
            answer = await caller.ask(
                ports[hash(self.email) % len(ports)], "PATCH", path, who, body, keeps=keeps
            )
        except Dropped as dropped:
            self.statuses[f"dropped: {dropped}"] += 1
            self.seated = None
            return
        self.statuses[str(answer.status)] += 1
        result = (answer.document or {}).get("results", [{}])[0]
        if answer.status == 200 and result.get("outcome") in ("applied", "unchanged"):
            self.seated = not removing
            self.customer_id = result.get("customer_id") or self.customer_id
        else:
            self.seated = None


@dataclass
class Restarts:
    """The exit codes of the processes that were ended, and how long each took to end."""

    codes: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    async def roll(self, world: World, balancer: Balancer, ports: list[int], number: int) -> None:
        """End and start one process after the other, `number` times in all."""
        running = {port: f"restarts-api{place}" for place, port in enumerate(ports)}
        for turn in range(number):
            port = ports[turn % len(ports)]
            await self._end(world, running[port])
            running[port] = f"restarts-{port}-{turn}"
            await asyncio.to_thread(world.start_api, running[port], port)
            await balancer.until_ready(port)
            progress(f"restart {turn + 1}: exit codes {dict(self.codes)}, {self.seconds[-1]:.1f} s")

    async def _end(self, world: World, name: str) -> None:
        child, began = world.children.child(name), time.monotonic()
        child.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(child.wait, 2 * LONGEST_END)
        self.seconds.append(time.monotonic() - began)
        self.codes[code] += 1


@dataclass
class Pages:
    """Streams that are open all the time, held against the log at the end."""

    world: World
    streams: list[StreamReader]
    begin: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def open(self, client: httpx.AsyncClient, balancer: Balancer) -> None:
        """Open every stream. The log counts from now on."""
        await until("the beginning", self._rests, within=REST_SECONDS)
        self.begin = len(await self._log())
        turn = itertools.count()

        def base_url() -> str:
            ports = balancer.ports()
            return f"http://127.0.0.1:{ports[next(turn) % len(ports)]}"

        self.tasks = [asyncio.create_task(one.read(client, base_url)) for one in self.streams]
        async with asyncio.timeout(REST_SECONDS):
            await asyncio.gather(*(one.opened.wait() for one in self.streams))
        progress(f"{len(self.streams)} streams are open")

    async def close(self) -> Json:
        """Wait for what is still to be shown, close the streams, and return what they have missed."""
        await until("the events of all changes", self._rests, within=REST_SECONDS)
        of_subscription: dict[str, list[str]] = defaultdict(list)
        log = (await self._log())[self.begin :]
        for event in log:
            of_subscription[event["subscription_id"]].append(event["id"])

        def missed() -> int:
            return sum(
                one not in stream.seen
                for stream in self.streams
                for one in of_subscription[stream.company.subscription_id]
            )

        async def have_all() -> bool:
            return missed() == 0

        with suppress(TimeoutError):
            await until("the streams", have_all, within=SHOWN_SECONDS)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        refused: Counter[str] = sum((one.refusals for one in self.streams), Counter())
        return {
            "streams": len(self.streams),
            "events": len(log),
            "events_shown": sum(len(one.seen) for one in self.streams),
            "streams_opened": sum(one.connections for one in self.streams),
            "streams_missed": missed(),
            "streams_fell": sum(one.falls for one in self.streams),
            "streams_refused_or_cut": dict(refused),
        }

    async def _rests(self) -> bool:
        [row] = await self.world.service.fetch(LEFT_OVER)
        return int(row["left_over"]) == 0

    async def _log(self) -> list[Json]:
        rows = await self.world.service.fetch("select id, subscription_id from events order by position")
        return [dict(row) for row in rows]


async def play(world: World, given: argparse.Namespace) -> Json:
    ports = [int(str(client.base_url.port)) for client in world.clients]
    company, *others = [
        await world.service.company(seats=WRITERS + 5, users=0) for _ in range(max(1, given.subscriptions))
    ]
    await world.service.fill()
    balancer = Balancer(ports)
    writers = [Writer(company) for _ in range(WRITERS)]
    writers += [Writer(other, LONG_PAUSE_SECONDS) for other in others]
    stop, restarts = asyncio.Event(), Restarts()
    probing = asyncio.create_task(balancer.probe())
    streams = itertools.islice(itertools.cycle([company, *others]), given.streams)
    pages = Pages(world, [StreamReader(one) for one in streams])
    # Each stream has a connection of its own, since a process that ends closes those that are kept.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits, timeout=None) as client:
        await pages.open(client, balancer)
        traffic = Traffic(asking(requests(company)), balancer.ports, rate=given.rate, fresh_half=True)
        reading = asyncio.create_task(traffic.run_until(stop))
        writing = [asyncio.create_task(writer.run(balancer, stop)) for writer in writers]
        began = time.monotonic()
        await restarts.roll(world, balancer, ports, given.restarts)
        seconds = time.monotonic() - began
        stop.set()
        await asyncio.gather(*writing)
        seen = await reading
        shown = await pages.close()
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)
    traffic.close()
    written: Counter[str] = sum((writer.statuses for writer in writers), Counter())
    bad = {name: number for name, number in written.items() if not name.startswith(("2", "409"))}
    untrue = await untrue_answers(world, writers)
    longest = max(restarts.seconds, default=0.0)
    return {
        "met": not seen.failed
        and not bad
        and not untrue
        and set(restarts.codes) == {0}
        and longest < LONGEST_END
        and sum(restarts.codes.values()) == given.restarts
        and not any(shown[name] for name in ("streams_missed", "streams_fell", "streams_refused_or_cut")),
        "restarts": given.restarts,
        "requests": len(seen.seconds),
        "failed": {name: number for name, number in seen.statuses.items() if not name.startswith("2")},
        "writes": dict(written),
        "answers_that_are_not_so": untrue,
        "exit_codes": dict(restarts.codes),
        "longest_end_s": round(longest, 1),
        **shown,
        "seconds": round(seconds, 1),
        "load_average": seat_world.load_average(),
    }


async def untrue_answers(world: World, writers: list[Writer]) -> int:
    """Return how many writers' people are at Stripe not as their last answer said, once nothing runs any more."""
    for _ in range(300):
        if not await world.live_reservations():
            break
        await asyncio.sleep(0.2)
    untrue = 0
    for writer in writers:
        if writer.seated is not None and writer.customer_id is not None:
            customer = await world.stripe.get(f"/v1/customers/{writer.customer_id}")
            untrue += (role_on(customer, writer.company.subscription_id) is not None) != writer.seated
    return untrue


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.storms.restarts", description=__doc__)
    parser.add_argument("--restarts", type=int, default=50, help="of one process each (default 50)")
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second (default 100)")
    parser.add_argument("--streams", type=int, default=500, help="open all the time (default 500)")
    parser.add_argument("--subscriptions", type=int, default=50, help="that are changed (default 50)")
    seat_world.state_option(parser)
    given = parser.parse_args()
    found = seat_world.run(
        "restarts",
        given.state,
        lambda world: play(world, given),
        apis=PROCESSES,
        DRAIN_SECONDS=str(DRAIN_SECONDS),
        STREAMS_PER_CALLER="10000",
    )
    print(json.dumps({"storm": "restarts", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
