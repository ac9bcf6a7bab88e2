"""Connections that hold out: heads and bodies that never end, and floods of either. A real process, raw sockets."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.commands.connections import Deadlines, JoinedWrites
from testkit.service import api_process, as_user, service_environment
from testkit.simulator import new_account_key

DEADLINE = 1.0
HEAD = b"POST /v1/customers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
WEBHOOK = b"POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nStripe-Signature: t=1,v1=0\r\n"


@pytest.fixture(scope="module")
def api(stripe_simulator: str, module_database_url: str) -> Iterator[str]:
    environment = service_environment(
        database_url=module_database_url,
        stripe_base=stripe_simulator,
        stripe_key=new_account_key(),
        REQUEST_DEADLINE=str(DEADLINE),
        MAX_REQUESTS="20",
        MAX_WAITING_REQUESTS="20",
    )
    with api_process(environment) as (base_url, _):
        yield base_url


def port_of(api: str) -> int:
    return int(api.rpartition(":")[2])


async def until_closed(
    api: str, first: bytes, drip: bytes = b"", *, every: float = 0.1
) -> tuple[float, bytes]:
    """Sends `first`, then `drip` again and again; seconds until the other side closed, and what it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(api))
    started = time.monotonic()
    writer.write(first)

    async def send() -> None:
        while drip:
            await asyncio.sleep(every)
            writer.write(drip)
            await writer.drain()

    sending = asyncio.create_task(send())
    said = b""
    try:
        async with asyncio.timeout(DEADLINE + 8):
            while chunk := await reader.read(65_536):
                said += chunk
    except ConnectionError:
        pass
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.transport.abort()
    return time.monotonic() - started, said


SLOW: dict[str, tuple[bytes, bytes]] = {
    "silent": (b"", b""),
    "a head that stops": (b"GET /healthz HT", b""),
    "a head by the byte": (b"GET /healthz HTTP/1.1\r\nX-A: ", b"a"),
    "a header by the line": (b"GET /healthz HTTP/1.1\r\n", b"X-A: 1\r\n"),
    "a body that stops": (HEAD + b"Content-Length: 10\r\n\r\n{", b""),
    "a body by the byte": (HEAD + b"Content-Length: 60000\r\n\r\n{", b" "),
    "a chunked body by the byte": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a delivery that stops": (WEBHOOK + b"Content-Length: 10\r\n\r\n{", b""),
    "a delivery by the byte": (WEBHOOK + b"Content-Length: 60000\r\n\r\n{", b" "),
    "the body of a read": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{", b" "),
}


@pytest.mark.timed
async def test_slow_connections_are_ended_and_hold_nobody_up(api: str) -> None:
    """Sixty of them, three times as many as may be at work, while others are answered at once."""
    asked = {name: asyncio.create_task(until_closed(api, *SLOW[name])) for name in SLOW}
    crowd = [asyncio.create_task(until_closed(api, *SLOW["a body by the byte"])) for _ in range(50)]
    slowest = 0.0
    async with httpx.AsyncClient(base_url=api, headers=as_user("somebody")) as client:
        for _ in range(20):
            started = time.monotonic()
            assert (await client.get("/v1/products")).status_code == 200
            slowest = max(slowest, time.monotonic() - started)
            await asyncio.sleep(0.05)
    for name, task in asked.items():
        seconds, said = await task
        assert DEADLINE * 0.8 <= seconds < DEADLINE + 6, (name, seconds, said)
        if ("body" in name and "read" not in name) or "delivery" in name:
            assert b" 408 " in said and b"request_timeout" in said, (name, said)
    for task in crowd:
        assert b" 408 " in (await task)[1]
    assert slowest < 1


FLOODS: dict[str, tuple[bytes, bytes]] = {
    "one endless header": (b"GET /healthz HTTP/1.1\r\nX-A: ", b"a" * 65_536),
    "headers without end": (b"GET /healthz HTTP/1.1\r\n", b"X-A: 1\r\n" * 8192),
    "an endless path": (b"GET /", b"a" * 65_536),
    "the body of a refused request": (HEAD + b"Content-Length: 1000000000\r\n\r\n", b" " * 65_536),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_floods_are_cut_off(api: str, name: str) -> None:
    sent = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(api))
    first, more = FLOODS[name]
    writer.write(first)
    try:
        for _ in range(1000):
            writer.write(more)
            await writer.drain()
            sent += len(more)
    except ConnectionError:
        pass
    writer.transport.abort()
    # What the kernels on both sides hold comes on top of what the server reads.
    assert sent < 16 * 1024 * 1024
    async with httpx.AsyncClient(base_url=api) as client:
        assert (await client.get("/healthz")).status_code == 200
    del reader


async def test_nothing_tells_what_the_server_is_and_no_upgrade_is_taken(api: str) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
        "Sec-WebSocket-Version": "13",
    }
    async with httpx.AsyncClient(base_url=api) as client:
        for headers in ({}, upgrade):
            answer = await client.get("/healthz", headers=headers)
            assert answer.status_code == 200
            assert "server" not in answer.headers


@dataclass(eq=False)
class Connection:
    """As much of a connection as is looked at."""

    cycle: Any
    unread: int = 0
    ended: str = ""
    transport: Any = None


def connection(cycle: Any = None) -> Connection:
    made = Connection(cycle)
    made.transport = SimpleNamespace(
        close=lambda: setattr(made, "ended", "closed"),
        abort=lambda: setattr(made, "ended", "aborted"),
        get_write_buffer_size=lambda: made.unread,
    )
    return made


def test_connection_is_closed_when_no_request_runs_for_too_long() -> None:
    now = [0.0]
    deadlines = Deadlines(seconds=10, clock=lambda: now[0])
    silent, working = connection(), connection(SimpleNamespace(response_complete=False))
    busy = connection(SimpleNamespace(response_complete=True))
    everybody = [silent, working, busy]
    for second in range(30):
        now[0] = float(second)
        # One request after another, each answered between two looks.
        busy.cycle = SimpleNamespace(response_complete=True)
        deadlines.enforce(one for one in everybody if not one.ended)
    assert [one.ended for one in everybody] == ["closed", "", ""]
    working.cycle.response_complete = True
    for second in range(30, 40):
        now[0] = float(second)
        assert deadlines.enforce([working]) == 0
    now[0] = 40.0
    assert deadlines.enforce([working]) == 1 and working.ended == "closed"


def test_connection_is_aborted_when_its_client_takes_nothing_for_too_long() -> None:
    """C13: closing would wait for the client, whether a request runs or not."""
    now = [0.0]
    deadlines = Deadlines(seconds=10, clock=lambda: now[0])
    cycle = SimpleNamespace(response_complete=True)
    stuck, slow = connection(cycle), connection(SimpleNamespace(response_complete=False))
    stuck.unread = slow.unread = 100
    for second in range(11):
        now[0] = float(second)
        # The slow client has taken everything now and then.
        slow.unread = 0 if second == 5 else 100
        assert deadlines.enforce(one for one in (stuck, slow) if not one.ended) == (second == 10)
    assert (stuck.ended, slow.ended) == ("aborted", "")


class Recorded(asyncio.Transport):
    """A connection whose writes are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.sent.append(b"closed")


async def test_head_and_body_are_sent_together_when_written_in_one_turn() -> None:
    inner = Recorded()
    joined = JoinedWrites(inner, asyncio.get_running_loop())
    joined.write(b"head ")
    assert inner.sent == []
    joined.write(b"body")
    assert inner.sent == [b"head body"]
    await asyncio.sleep(0)
    assert inner.sent == [b"head body"]


async def test_head_is_sent_without_its_body_when_the_body_is_empty_or_comes_later() -> None:
    inner = Recorded()
    joined = JoinedWrites(inner, asyncio.get_running_loop())
    joined.write(b"head")
    joined.write(b"")
    assert inner.sent == [b"head"]
    joined.write(b"late head")
    await asyncio.sleep(0)
    assert inner.sent == [b"head", b"late head"]
    joined.write(b"chunk")
    joined.close()
    assert inner.sent == [b"head", b"late head", b"chunk", b"closed"]


async def test_body_is_asked_for_when_a_client_waits_for_100_continue(api: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(api))
    writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    async with asyncio.timeout(DEADLINE):
        assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    writer.write(b"{}")
    assert await reader.readline() == b"\r\n"
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()
    await writer.wait_closed()
