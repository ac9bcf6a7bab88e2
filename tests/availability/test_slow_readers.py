"""Clients that do not read their answers: they hold no place, and their connections end."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from testkit.service import api_process, as_user, service_environment
from testkit.simulator import new_account_key

DEADLINE = 1.0
PLACES = 20
HEAD = b" HTTP/1.1\r\nHost: x\r\n"
REFUSED = b"GET /v1/customers/me" + HEAD + b"\r\n"
LARGE = b"GET /openapi.json" + HEAD + b"\r\n"


@pytest.fixture(scope="module")
def api(stripe_simulator: str, module_database_url: str) -> Iterator[str]:
    environment = service_environment(
        database_url=module_database_url,
        stripe_base=stripe_simulator,
        stripe_key=new_account_key(),
        REQUEST_DEADLINE=str(DEADLINE),
        MAX_REQUESTS=str(PLACES),
        MAX_WAITING_REQUESTS="0",
        DOCS="true",
    )
    with api_process(environment) as (base_url, _):
        yield base_url


async def connected(api: str) -> socket.socket:
    """Return a connection whose receive buffer holds little, so that an answer soon stays at the server."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", int(api.rpartition(":")[2])))
    return made


@asynccontextmanager
async def never_reading(api: str, number: int, sent: bytes) -> AsyncIterator[list[socket.socket]]:
    """Open connections that send `sent`, as much of it as the server takes, and read nothing."""
    loop = asyncio.get_running_loop()
    connections = [await connected(api) for _ in range(number)]
    sending = [asyncio.create_task(loop.sock_sendall(one, sent)) for one in connections]
    try:
        await asyncio.wait(sending, timeout=DEADLINE / 2)
        yield connections
    finally:
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        for one in connections:
            one.close()


async def rest_of(connection: socket.socket) -> bytes:
    """Return all that still arrives before the connection ends, also if it ends with a reset."""
    loop, found = asyncio.get_running_loop(), b""
    try:
        while chunk := await loop.sock_recv(connection, 65_536):
            found += chunk
    except ConnectionError:
        pass
    return found


@pytest.mark.parametrize(
    "sent", [REFUSED * 20_000, LARGE * 200, LARGE], ids=["refusals", "large answers", "one large answer"]
)
@pytest.mark.timed
async def test_other_callers_are_answered_when_answers_are_never_read(api: str, sent: bytes) -> None:
    """C13: 22 connections that pipelined and never read kept all places for as long as they liked."""
    async with (
        never_reading(api, PLACES + 5, sent),
        httpx.AsyncClient(base_url=api, headers=as_user("somebody")) as client,
    ):
        # Nothing may wait for a place in this process, so a place that is kept is a 503 at once.
        for _ in range(20):
            assert (await client.get("/v1/products")).status_code == 200


ENOUGH = 6
"""Answers of LARGE that are more than the buffers of both kernels hold."""


async def ask_one_after_another(connections: list[socket.socket]) -> None:
    """Send requests that each come after the answer before was handed over, so that none is pipelined."""
    loop = asyncio.get_running_loop()
    for _ in range(ENOUGH):
        for one in connections:
            with suppress(ConnectionError):
                await loop.sock_sendall(one, LARGE)
        await asyncio.sleep(0.02)


@pytest.mark.timed
async def test_other_callers_are_answered_when_a_next_answer_waits_for_unread_ones(api: str) -> None:
    """C13: an answer that cannot be written yet waits outside of the places."""
    async with never_reading(api, PLACES + 5, LARGE) as connections:
        await ask_one_after_another(connections)
        async with httpx.AsyncClient(base_url=api, headers=as_user("somebody")) as client:
            answers = await asyncio.gather(*(client.get("/v1/products") for _ in range(5)))
        assert {one.status_code for one in answers} == {200}


@pytest.mark.timed
async def test_connection_is_aborted_when_answers_are_not_taken_in_time(api: str) -> None:
    """C13: what the client has not taken after the deadline is thrown away, and the connection is reset."""
    async with httpx.AsyncClient(base_url=api) as client:
        length = len((await client.get("/openapi.json")).content)
    async with never_reading(api, 1, LARGE) as [connection]:
        await ask_one_after_another([connection])
        await asyncio.sleep(DEADLINE + 2.5)
        began = time.monotonic()
        async with asyncio.timeout(5):
            found = await rest_of(connection)
        assert found.count(b"HTTP/1.1 200 ") < ENOUGH and len(found) % length
        assert time.monotonic() - began < 1


async def test_answer_closes_the_connection_when_the_next_request_came_before_it(api: str) -> None:
    """C13: requests are not pipelined. The later ones are not run, so their caller may send them again."""
    connection = await connected(api)
    await asyncio.get_running_loop().sock_sendall(connection, REFUSED * 3)
    async with asyncio.timeout(5):
        answer = (await rest_of(connection)).lower()
    connection.close()
    assert answer.count(b"http/1.1 401 ") == 1 and answer.count(b"http/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in answer


async def test_connection_is_kept_when_the_next_request_follows_the_answer(api: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.rpartition(":")[2]))
    for _ in range(3):
        writer.write(REFUSED)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 401 ") and b"connection: close" not in head
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
        await reader.readexactly(int(length.partition(b": ")[2]))
    writer.close()
    await writer.wait_closed()
