"""Key ids that nobody has, a thousand a second, while the host that publishes the keys hangs.

`python -m verification.adversary.key_flood` floods a real server from a process of its own for more than a minute,
and sends valid tokens beside it: they must be answered as ever, and the host be asked at most once in 30 s. Then the
keys are rotated, and the time is measured until the new one counts and the old one does not. The p99 is that of this
machine: the report names its load.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import secrets
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from app.errors import ServiceUnavailable
from app.identity.jwks import FETCH_INTERVAL, KEEP_LIMIT, JwksKeys
from testkit.company import Company, running_service
from testkit.issuing import AUDIENCE, ISSUER, RS256, Signer, well_formed
from testkit.key_server import KeyServer, key_server
from testkit.service import api_process
from testkit.simulator import Simulator, new_account_key
from verification.adversary.raw import port_of
from verification.adversary.running import finish, parts, quantile, tell
from verification.adversary.world import environment_of

ROTATION_SECONDS = 35.0
VALID_A_SECOND = 50
VALID_P99_SECONDS = 0.050
CONNECTIONS = 160
_SLACK = 0.05


@dataclass
class Seen:
    asked: Counter[int] = field(default_factory=Counter)
    """Answers to unknown key ids, by status."""
    valid: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    rate: float = 0.0
    fetches: list[float] = field(default_factory=list)
    server_share: float = 0.0
    """Of one core, during the flood."""
    rotated: float = 0.0
    revoked: float = 0.0
    misses: list[str] = field(default_factory=list)


class Connection:
    """One kept connection; raises ConnectionError and IncompleteReadError where the server ends it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str, token: bytes) -> int:
        """The answer's status."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            writer.write(
                b"GET %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % (path.encode(), token)
            )
            answer = await reader.readuntil(b"\r\n\r\n")
            lower = answer.lower()
            at = lower.find(b"content-length: ")
            if at >= 0:
                await reader.readexactly(int(lower[at + 16 : lower.index(b"\r\n", at)]))
        except (ConnectionError, asyncio.IncompleteReadError):
            self.close()
            raise
        return int(answer[9:12])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def unknown_token(tail: bytes) -> bytes:
    head = json.dumps({"alg": "RS256", "kid": secrets.token_hex(8)}).encode()
    return base64.urlsafe_b64encode(head).rstrip(b"=") + tail


async def _flood(port: int, path: str, rate: int, seconds: float) -> tuple[dict[int, int], float]:
    """Sends at a steady pace whatever comes back; the answers by status (0: none), and the pace that was kept."""
    tail = b"." + RS256.token(well_formed()).encode().partition(b".")[2]
    answers: Counter[int] = Counter()
    began = time.monotonic()
    sent = 0

    async def caller() -> None:
        nonlocal sent
        with closing(Connection(port)) as connection:
            while time.monotonic() < began + seconds:
                due = began + sent / rate
                sent += 1
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                try:
                    answers[await connection.get(path, unknown_token(tail))] += 1
                except (ConnectionError, asyncio.IncompleteReadError):
                    answers[0] += 1

    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    return dict(answers), sum(answers.values()) / (time.monotonic() - began)


def _flood_process(port: int, path: str, rate: int, seconds: float, told: Any) -> None:
    told.put(asyncio.run(_flood(port, path, rate, seconds)))


async def _valid(port: int, path: str, token: bytes, seconds: float, seen: Seen) -> None:
    """Valid tokens at a steady pace on a few connections, each answer's time taken."""
    began = time.monotonic()

    async def caller(number: int, callers: int) -> None:
        with closing(Connection(port)) as connection:
            for turn in range(number, int(seconds * VALID_A_SECOND), callers):
                if (wait := began + turn / VALID_A_SECOND - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                started = time.monotonic()
                seen.valid[await connection.get(path, token)] += 1
                seen.seconds.append(time.monotonic() - started)

    await asyncio.gather(*(caller(number, 4) for number in range(4)))


async def _watch(server: KeyServer, seen: Seen) -> None:
    """Notes when the host is asked."""
    known = server.requests
    while True:
        while known < server.requests:
            known += 1
            seen.fetches.append(time.monotonic())
        await asyncio.sleep(0.01)


async def _flooded(port: int, path: str, token: bytes, rate: int, seconds: float, seen: Seen) -> None:
    spawned = multiprocessing.get_context("spawn")
    told: Any = spawned.Queue()
    process = spawned.Process(target=_flood_process, args=(port, path, rate, seconds, told))
    process.start()
    try:
        await _valid(port, path, token, seconds, seen)
        for _ in range(600):
            try:
                answers, seen.rate = told.get_nowait()
                break
            except Empty:
                await asyncio.sleep(0.1)
        else:
            seen.misses.append("the flood did not end")
            return
        seen.asked.update(answers)
    finally:
        process.join(timeout=5)
        if process.is_alive():
            process.kill()


async def _until(port: int, path: str, token: bytes, status: int, within: float) -> float:
    """Seconds until the token is answered so, asked four times a second; infinite if it never is."""
    began = time.monotonic()
    with closing(Connection(port)) as connection:
        while (passed := time.monotonic() - began) < within:
            if await connection.get(path, token) == status:
                return passed
            await asyncio.sleep(0.25)
    return float("inf")


def cpu_seconds(pid: int) -> float:
    """What the process has worked so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _rotation(server: KeyServer, port: int, path: str, old: bytes, subject: str, seen: Seen) -> None:
    """The host answers again, with another key: the new one must count, and the old one must not."""
    other = Signer("RS256", rsa.generate_private_key(65537, 2048))
    server.keys, server.mode = [other.jwk("second")], "keys"
    new = other.token(well_formed(sub=subject, exp=int(time.time()) + 3600), {"kid": "second"}).encode()
    seen.rotated = await _until(port, path, new, 200, within=40.0)
    seen.revoked = await _until(port, path, old, 401, within=40.0)
    if seen.rotated > ROTATION_SECONDS or seen.revoked > ROTATION_SECONDS:
        seen.misses.append(
            f"the new key counted after {seen.rotated:.0f} s, the old one for {seen.revoked:.0f} s"
        )


async def keeps_its_last_set(server: KeyServer) -> list[str]:
    """A good set outlives an outage for the stated time by the verifier's clock, and not a second longer."""
    now = 1000.0
    server.keys, server.mode = [RS256.jwk("first")], "keys"
    keys = JwksKeys(server.url, clock=lambda: now)
    misses = []
    try:
        if await keys.find("RS256", "first") is None:
            misses.append("the set was not read")
        server.mode = "reset"
        for after, kept in ((FETCH_INTERVAL, True), (KEEP_LIMIT - 1, True), (KEEP_LIMIT + 1, False)):
            now = 1000.0 + after
            try:
                found = await keys.find("RS256", "first") is not None
            except ServiceUnavailable:
                found = False
            if found != kept:
                misses.append(f"{after:.0f} s into an outage the set was {'kept' if found else 'gone'}")
    finally:
        await keys.aclose()
    return misses


async def run(stripe_base: str, database_url: str, *, rate: int, seconds: float, rotation: bool) -> Seen:
    """The whole story before one server; without `rotation` only the flood."""
    seen = Seen()
    async with key_server() as server, Simulator(stripe_base, new_account_key()) as stripe:
        server.keys = [RS256.jwk("first")]
        environment = environment_of(
            stripe, database_url, AUTH_JWKS_URL=server.url, AUTH_ISSUER=ISSUER, AUTH_AUDIENCE=AUDIENCE
        )
        del environment["AUTH_JWT_SECRET"]
        async with running_service(stripe, database_url) as service:
            company: Company = await service.company()
        subject = company.owner.subject
        token = RS256.token(well_formed(sub=subject, exp=int(time.time()) + 3600), {"kid": "first"}).encode()
        with api_process(environment) as (base_url, process):
            port = port_of(base_url)
            with closing(Connection(port)) as connection:
                if await connection.get(company.path, token) != 200:
                    seen.misses.append("the valid token was refused before the flood")
            server.mode = "hang"
            watching = asyncio.create_task(_watch(server, seen))
            tell(f"{rate} unknown key ids a second for {seconds:.0f} s, and the host hangs")
            worked, began = cpu_seconds(process.process.pid), time.monotonic()
            await _flooded(port, company.path, token, rate, seconds, seen)
            seen.server_share = (cpu_seconds(process.process.pid) - worked) / (time.monotonic() - began)
            watching.cancel()
            if rotation:
                tell("the keys are rotated")
                await _rotation(server, port, company.path, token, subject, seen)
        seen.misses += await keeps_its_last_set(server)
    _judge(seen)
    return seen


def _judge(seen: Seen) -> None:
    gaps = [later - sooner for sooner, later in zip(seen.fetches, seen.fetches[1:], strict=False)]
    if gaps and min(gaps) < FETCH_INTERVAL - _SLACK:
        seen.misses.append(f"the host was asked after {min(gaps):.1f} s")
    if set(seen.valid) != {200}:
        seen.misses.append(f"valid tokens were answered {dict(seen.valid)}")
    if set(seen.asked) - {401}:
        seen.misses.append(f"unknown key ids were answered {dict(seen.asked)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else None)
    parser.add_argument("--rate", type=int, default=1000, help="unknown key ids a second")
    parser.add_argument("--seconds", type=float, default=65.0, help="how long the flood lasts")
    given = parser.parse_args()
    with parts() as (stripe_base, database_url):
        seen = asyncio.run(
            run(stripe_base, database_url, rate=given.rate, seconds=given.seconds, rotation=True)
        )
    p99 = quantile(seen.seconds, 0.99)
    if p99 > VALID_P99_SECONDS:
        seen.misses.append(f"the p99 of valid tokens was {p99 * 1000:.1f} ms")
    if seen.rate < 0.95 * given.rate:
        seen.misses.append(f"only {seen.rate:.0f} key ids a second were sent")
    report = {
        "check": "key_flood",
        "unknown_key_ids": sum(seen.asked.values()),
        "a_second": round(seen.rate),
        "answers": {str(status): number for status, number in sorted(seen.asked.items())},
        "valid": {str(status): number for status, number in sorted(seen.valid.items())},
        "valid_p50_ms": round(quantile(seen.seconds, 0.5) * 1000, 2),
        "valid_p99_ms": round(p99 * 1000, 2),
        "fetches": len(seen.fetches),
        "fetches_apart_s": [round(b - a, 1) for a, b in zip(seen.fetches, seen.fetches[1:], strict=False)],
        "new_key_after_s": round(seen.rotated, 1),
        "old_key_until_s": round(seen.rotated + seen.revoked, 1),
        "server_share_of_a_core": round(seen.server_share, 2),
        "load": round(os.getloadavg()[0], 1),
    }
    finish(report, seen.misses)


if __name__ == "__main__":
    main()
