"""Bodies without end: how much of one is taken before it is refused, and what it costs the server.

`python -m verification.adversary.big_body` offers 1 GiB in chunks to a route of the API and to the webhook: the
answer is 413, the connection is closed, and neither the bytes that went through nor the server's memory grow with
what is offered. Then bodies that come a byte at a time: they end at the deadline.
"""

import argparse
import asyncio
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testkit.service import api_process, as_service
from testkit.simulator import Simulator, new_account_key
from tests.stripe.test_webhooks import NEW, header
from verification.adversary.raw import Header, RawAnswer, head, parsed, port_of
from verification.adversary.running import finish, parts, tell
from verification.adversary.world import environment_of

PIECE = b"x" * 65_536
SENT_BOUND = 16 * 2**20
"""What the sockets of both sides hold is not what the server reads, but it is sent; a few MiB on Linux."""
MEMORY_BOUND = 16 * 2**20
PATIENCE = 10.0
"""Seconds in which nothing more is taken, after which the client gives up: then the connection was left open."""
SLOW_BOUND = 15.0
"""Seconds: the deadline for a body, and some to notice."""


@dataclass(frozen=True)
class Body:
    """`framing` is how the length is told: in chunks of 64 KiB, in one chunk, or beforehand."""

    name: str
    path: str
    headers: tuple[Header, ...]
    framing: str


@dataclass(frozen=True)
class Told:
    """`sent`: bytes of the body that the client got rid of before the connection ended."""

    name: str
    answer: RawAnswer
    sent: int
    grown: int
    closed: bool
    seconds: float


JSON: Header = ("Content-Type", b"application/json")
KEY: Header = ("Authorization", as_service("admin")["Authorization"].encode())


def bodies() -> list[Body]:
    signature: Header = ("Stripe-Signature", header(at=int(time.time())).encode())
    to_api: Sequence[tuple[str, tuple[Header, ...]]] = (("a key", (JSON, KEY)), ("nobody", (JSON,)))
    made = [
        Body(f"API, {who}, {framing}", "/v1/customers", headers, framing)
        for who, headers in to_api
        for framing in ("chunks", "one chunk", "a length")
    ]
    made += [
        Body(f"webhook, {framing}", "/webhooks/stripe", (JSON, signature), framing)
        for framing in ("chunks", "one chunk", "a length")
    ]
    return made


def memory_of(pid: int) -> int:
    """Resident bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def offer(port: int, body: Body, size: int, pid: int) -> Told:
    """Sends until the server has had enough, and reads whatever it says meanwhile; blocks."""
    before = most = memory_of(pid)
    started = time.monotonic()
    framing: Header = (
        ("Content-Length", str(size).encode())
        if body.framing == "a length"
        else ("Transfer-Encoding", b"chunked")
    )
    piece = b"10000\r\n" + PIECE + b"\r\n" if body.framing == "chunks" else PIECE
    received, sent, closed = bytearray(), 0, False
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head("POST", body.path, [*body.headers, framing]))
        if body.framing == "one chunk":
            connection.sendall(b"%x\r\n" % size)
        connection.setblocking(False)
        quiet = time.monotonic()
        while not closed and sent < size and time.monotonic() < quiet + PATIENCE:
            readable, writable, _ = select.select([connection], [connection], [], 1.0)
            if readable:
                closed = not _read(connection, received)
            elif writable:
                try:
                    sent += connection.send(piece[sent % len(piece) :])
                    quiet = time.monotonic()
                except ConnectionError:
                    closed = True
                most = max(most, memory_of(pid))
        while _read(connection, received):
            pass
    answer = parsed(bytes(received))
    return Told(body.name, answer, sent, most - before, closed, time.monotonic() - started)


def _read(connection: socket.socket, into: bytearray) -> bool:
    """False where the connection has ended, or has nothing more to say now."""
    try:
        some = connection.recv(65_536)
    except (ConnectionError, BlockingIOError):
        return False
    into.extend(some)
    return bool(some)


async def trickle(port: int, path: str, headers: Sequence[Header], within: float) -> tuple[int, float]:
    """A byte each half second; the answer's status and the seconds until the connection ended."""
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head("POST", path, [*headers, ("Content-Length", b"1000")]))
    received = bytearray()

    async def read() -> None:
        try:
            while some := await reader.read(65_536):
                received.extend(some)
        except ConnectionError:
            pass

    reading = asyncio.create_task(read())
    while not reading.done() and time.monotonic() < started + within:
        if not received:
            writer.write(b"x")
        await asyncio.wait([reading], timeout=0.5)
    ended = time.monotonic() - started
    reading.cancel()
    writer.close()
    return parsed(bytes(received)).status, ended


def judge(told: Told) -> list[str]:
    misses = []
    if told.answer.status != 413 or told.answer.code != "payload_too_large":
        misses.append(f"{told.name}: {told.answer.status} {told.answer.body[:200]!r}")
    if told.sent > SENT_BOUND:
        misses.append(f"{told.name}: {told.sent:,} bytes went through")
    if told.grown > MEMORY_BOUND:
        misses.append(f"{told.name}: the server grew by {told.grown:,} bytes")
    if not told.closed:
        misses.append(f"{told.name}: the connection stayed open")
    return misses


async def run(
    stripe_base: str, database_url: str, *, size: int, slow: bool
) -> tuple[list[Told], dict[str, float], list[str]]:
    """What became of each body, the seconds after which slow ones ended, and the misses."""
    misses: list[str] = []
    found, ended = [], {}
    async with Simulator(stripe_base, new_account_key()) as stripe:
        environment = environment_of(stripe, database_url, STRIPE_WEBHOOK_SECRETS=NEW)
        with api_process(environment) as (base_url, process):
            port = port_of(base_url)
            for body in bodies():
                told = await asyncio.to_thread(offer, port, body, size, process.process.pid)
                tell(
                    f"{told.name}: {told.answer.status} after {told.sent:,} bytes, {told.grown:,} bytes of memory"
                )
                found.append(told)
                misses += judge(told)
            if slow:
                tell("bodies that come a byte at a time")
                slowly = await asyncio.gather(
                    *(
                        trickle(port, path, [JSON, KEY], SLOW_BOUND + 5)
                        for path in ("/v1/customers", "/webhooks/stripe")
                    )
                )
                for path, (status, seconds) in zip(("API", "webhook"), slowly, strict=True):
                    ended[path] = seconds
                    if status != 408 or seconds > SLOW_BOUND:
                        misses.append(f"slow body to the {path}: {status} after {seconds:.1f} s")
    return found, ended, misses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else None)
    parser.add_argument("--mebibytes", type=int, default=1024, help="the size of the bodies that are offered")
    given = parser.parse_args()
    with parts() as (stripe_base, database_url):
        found, ended, misses = asyncio.run(
            run(stripe_base, database_url, size=given.mebibytes * 2**20, slow=True)
        )
    report = {
        "check": "big_body",
        "offered_bytes": given.mebibytes * 2**20,
        "answers": {told.name: told.answer.status for told in found},
        "most_sent_bytes": max(told.sent for told in found),
        "most_memory_bytes": max(told.grown for told in found),
        "slow_seconds": {name: round(seconds, 1) for name, seconds in ended.items()},
    }
    finish(report, misses)


if __name__ == "__main__":
    main()
