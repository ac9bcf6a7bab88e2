"""`python -m verification.storms.restarts`: rolling restarts under load, through a balancer that reads /readyz.

Three API processes, of which one after the other is ended by SIGTERM and started again, `--restarts` times. All the
time 100 requests a second are sent, every other one over a connection of its own, to the processes that were ready half
a second ago. Writers add and remove members throughout. No request may be dropped or answered 5xx, and each process has
to end with exit code 0 in under 30 seconds. What Stripe has at the end has to be what the last answers said. One JSON
line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from testkit import seat_world
from testkit.company import Company
from testkit.seat_world import Json, World, progress, role_on
from verification.storms.slow_clients import requests
from verification.storms.traffic import Caller, Dropped, Traffic, asking

PROCESSES = 3
RATE = 100.0
WRITERS = 4
PROBE_SECONDS = 0.5
LONGEST_END = 30.0
DRAIN_SECONDS = 5


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

    `seated` is None after an answer that did not say it.
    """

    company: Company
    email: str
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
                async with asyncio.timeout(0.5):
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


async def play(world: World, given: argparse.Namespace) -> Json:
    ports = [int(str(client.base_url.port)) for client in world.clients]
    company = await world.service.company(seats=WRITERS + 5)
    balancer = Balancer(ports)
    writers = [
        Writer(company, f"writer{number}.{secrets.token_hex(4)}@example.com") for number in range(WRITERS)
    ]
    stop, restarts = asyncio.Event(), Restarts()
    probing = asyncio.create_task(balancer.probe())
    traffic = Traffic(asking(requests(company)), balancer.ports, rate=given.rate, fresh_half=True)
    reading = asyncio.create_task(traffic.run_until(stop))
    writing = [asyncio.create_task(writer.run(balancer, stop)) for writer in writers]
    began = time.monotonic()
    await restarts.roll(world, balancer, ports, given.restarts)
    seconds = time.monotonic() - began
    stop.set()
    await asyncio.gather(*writing)
    seen = await reading
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)
    traffic.close()
    written: Counter[str] = sum((writer.statuses for writer in writers), Counter())
    bad = {name: number for name, number in written.items() if not name.startswith(("2", "409"))}
    untrue = await untrue_answers(world, company, writers)
    longest = max(restarts.seconds, default=0.0)
    return {
        "met": not seen.failed
        and not bad
        and not untrue
        and set(restarts.codes) == {0}
        and longest < LONGEST_END
        and sum(restarts.codes.values()) == given.restarts,
        "restarts": given.restarts,
        "requests": len(seen.seconds),
        "failed": {name: number for name, number in seen.statuses.items() if not name.startswith("2")},
        "writes": dict(written),
        "answers_that_are_not_so": untrue,
        "exit_codes": dict(restarts.codes),
        "longest_end_s": round(longest, 1),
        "seconds": round(seconds, 1),
        "load_average": seat_world.load_average(),
    }


async def untrue_answers(world: World, company: Company, writers: list[Writer]) -> int:
    """Return how many writers' people are at Stripe not as their last answer said, once nothing runs any more."""
    for _ in range(300):
        if not await world.live_reservations():
            break
        await asyncio.sleep(0.2)
    untrue = 0
    for writer in writers:
        if writer.seated is not None and writer.customer_id is not None:
            customer = await world.stripe.get(f"/v1/customers/{writer.customer_id}")
            untrue += (role_on(customer, company.subscription_id) is not None) != writer.seated
    return untrue


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.storms.restarts", description=__doc__)
    parser.add_argument("--restarts", type=int, default=50, help="of one process each (default 50)")
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second (default 100)")
    seat_world.state_option(parser)
    given = parser.parse_args()
    found = seat_world.run(
        "restarts",
        given.state,
        lambda world: play(world, given),
        apis=PROCESSES,
        DRAIN_SECONDS=str(DRAIN_SECONDS),
    )
    print(json.dumps({"storm": "restarts", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
