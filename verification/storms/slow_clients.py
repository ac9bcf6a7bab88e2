"""`python -m verification.storms.slow_clients`: hundreds of slow senders and slow readers beside healthy callers.

One API process with its default limits. In rounds, healthy callers are measured first alone and then beside `--clients`
connections that send a byte a second, and as many that ask for large answers and never read them. Every healthy request
has to be answered 2xx, and their p99 may rise to three times that of the calm. Every slow connection has to be ended
within 15 seconds. One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field

from testkit import seat_world
from testkit.company import Company
from testkit.seat_world import Json, World, progress
from testkit.service import as_service
from verification.storms.traffic import Caller, Request, Seen, Traffic, asking

RATE = 100.0
P99_BAR = 3.0
LEAST_SECONDS = 0.01
"""A calm p99 below this counts as this: a scheduler's slice would else be a multiple of it."""
ENDED_WITHIN = 15.0
ANSWERS = 4
_SENDERS = (
    b"POST /v1/customers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{",
    b"POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nStripe-Signature: t=1,v1=0\r\nContent-Length: 60000\r\n\r\n{",
    b"GET /v1/products HTTP/1.1\r\nHost: x\r\nX-Slow: ",
)
_LARGE = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Slow:
    """The slow connections of one storm, and the seconds after which each was ended."""

    port: int
    ended: dict[str, list[float]] = field(default_factory=lambda: {"senders": [], "readers": []})
    never: int = 0

    async def send_slowly(self, number: int, stop: asyncio.Event) -> None:
        """Send a byte a second until the server ends the connection, again and again."""
        while not stop.is_set():
            began = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                continue
            writer.write(_SENDERS[number % len(_SENDERS)])
            ending = asyncio.create_task(reader.read(65_536))
            while not stop.is_set() and not ending.done():
                await asyncio.wait({ending}, timeout=1.0)
                writer.write(b"a")
            if ending.done():
                ending.exception()
                self.ended["senders"].append(time.monotonic() - began)
            else:
                ending.cancel()
                await asyncio.gather(ending, return_exceptions=True)
            writer.transport.abort()

    async def never_read(self, stop: asyncio.Event) -> None:
        """Ask for large answers and read nothing until the server resets the connection, again and again."""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            began = time.monotonic()
            with socket.socket() as made:
                # As on a network: the kernels hold little, and the rest stays with the server.
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
                made.setblocking(False)
                with suppress(OSError):
                    await loop.sock_connect(made, ("127.0.0.1", self.port))
                    for _ in range(ANSWERS):
                        await loop.sock_sendall(made, _LARGE)
                        await asyncio.sleep(0.25)
                    if await self._is_reset(made, stop, began):
                        self.ended["readers"].append(time.monotonic() - began)

    async def _is_reset(self, made: socket.socket, stop: asyncio.Event, began: float) -> bool:
        """Wait for the end of the connection, and return False if the storm ends first."""
        while not stop.is_set():
            if made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in _ALIVE:
                return True
            if time.monotonic() - began > ENDED_WITHIN + 5:
                self.never += 1
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await stop.wait()
        return False


_ALIVE = frozenset({1})
"""The state of TCP_INFO while neither side has ended the connection (Linux)."""


def requests(company: Company) -> list[Request]:
    owner, path = company.owner.headers, company.path
    return [
        ("GET", path, owner, None),
        ("GET", f"{path}/users", owner, None),
        ("GET", "/v1/products", {}, None),
        ("GET", f"/v1/customers/{company.owner.customer_id}", as_service("read"), None),
        ("GET", "/v1/customers/me/subscriptions", company.manager.headers, None),
    ]


async def play(world: World, given: argparse.Namespace) -> Json:
    port = int(str(world.clients[0].base_url.port))
    company = await world.service.company(seats=5)
    traffic = Traffic(asking(requests(company)), lambda: [port], rate=given.rate)
    await traffic.run(3)
    # The document is made at the first request for it, which takes long.
    await Caller().send(port, _LARGE, keeps=False)
    calm, storm, slow = [], [], Slow(port)
    for number in range(given.rounds):
        calm.append(await traffic.run(given.seconds))
        stop = asyncio.Event()
        crowd = [asyncio.create_task(slow.send_slowly(one, stop)) for one in range(given.clients)]
        crowd += [asyncio.create_task(slow.never_read(stop)) for _ in range(given.clients)]
        await asyncio.sleep(2)
        storm.append(await traffic.run(given.seconds))
        stop.set()
        await asyncio.gather(*crowd)
        progress(
            f"round {number + 1}: p99 {calm[-1].p99() * 1000:.0f} ms calm, {storm[-1].p99() * 1000:.0f} ms"
        )
        await asyncio.sleep(1)
    traffic.close()
    return verdict(calm, storm, slow, given.clients)


def verdict(calm: list[Seen], storm: list[Seen], slow: Slow, clients: int) -> Json:
    failed = sum(one.failed for one in (*calm, *storm))
    base = statistics.median(one.p99() for one in calm)
    under = statistics.median(one.p99() for one in storm)
    slowest = {name: round(max(seconds, default=0.0), 1) for name, seconds in slow.ended.items()}
    late = slow.never + sum(second > ENDED_WITHIN for found in slow.ended.values() for second in found)
    return {
        "met": not failed
        and not late
        and all(slow.ended.values())
        and under <= P99_BAR * max(base, LEAST_SECONDS),
        "healthy": sum(len(one.seconds) for one in storm),
        "failed": failed,
        "p99_calm_ms": round(base * 1000, 1),
        "p99_storm_ms": round(under * 1000, 1),
        "clients_of_each_kind": clients,
        "ended": {name: len(found) for name, found in slow.ended.items()},
        "slowest_end_s": slowest,
        "ended_late": late,
        "load_average": seat_world.load_average(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.storms.slow_clients", description=__doc__)
    parser.add_argument(
        "--clients", type=int, default=300, help="slow senders, and as many readers (default 300)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="a calm and a storm each (default 5)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each calm and storm (default 30)")
    parser.add_argument("--rate", type=float, default=RATE, help="healthy requests a second (default 100)")
    seat_world.state_option(parser)
    given = parser.parse_args()
    found = seat_world.run("slow_clients", given.state, lambda world: play(world, given), DOCS="true")
    print(json.dumps({"storm": "slow_clients", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
