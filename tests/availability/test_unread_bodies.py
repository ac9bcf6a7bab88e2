"""Bodies that are refused before their end: the answer arrives, and the client's next calls are not hit."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from app.stripe.webhooks import MAXIMUM_BODY_BYTES
from testkit.service import api_process, as_user, service_environment
from testkit.simulator import new_account_key

CALLS = 40
MEBIBYTE = 1024 * 1024
TOO_LARGE = {"of a delivery": MAXIMUM_BODY_BYTES + 1}
"""Bytes of a body; 1 MiB of the others."""
DEADLINE = 1.0
PATCH = "/v1/shared-subscriptions/sub_any/users"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def api(stripe_simulator: str, module_database_url: str) -> Iterator[str]:
    environment = service_environment(
        database_url=module_database_url,
        stripe_base=stripe_simulator,
        stripe_key=new_account_key(),
        REQUEST_DEADLINE=str(DEADLINE),
    )
    with api_process(environment) as (base_url, _):
        yield base_url


async def in_pieces() -> AsyncIterator[bytes]:
    for _ in range(16):
        yield b" " * (MEBIBYTE // 16)


BODIES: dict[str, tuple[str, str, int, dict[str, str]]] = {
    "with its length": ("PATCH", PATCH, 413, JSON),
    "in chunks": ("PATCH", PATCH, 413, JSON),
    "not JSON": ("PATCH", PATCH, 415, {"Content-Type": "text/plain"}),
    "of a delivery": ("POST", "/webhooks/stripe", 413, {**JSON, "Stripe-Signature": "t=1,v1=0"}),
}


@pytest.mark.parametrize("name", BODIES)
async def test_the_next_calls_of_a_pooled_client_succeed_when_a_body_was_refused(api: str, name: str) -> None:
    """H3: too much is refused on a kept-alive connection, and 40 of 40 calls of the same client succeed."""
    method, path, status, headers = BODIES[name]
    limits = httpx.Limits(max_connections=2, max_keepalive_connections=2)
    async with httpx.AsyncClient(base_url=api, headers=as_user("somebody"), limits=limits) as client:
        for _ in range(CALLS):
            content = (
                in_pieces() if name in ("in chunks", "not JSON") else b" " * TOO_LARGE.get(name, MEBIBYTE)
            )
            refused = await client.request(method, path, content=content, headers=headers)
            assert refused.status_code == status
            assert refused.headers["connection"] == "close"
            answers = await asyncio.gather(*(client.get("/v1/products") for _ in range(2)))
            assert [one.status_code for one in answers] == [200, 200]


HEAD = f"PATCH {PATCH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def exchange(api: str, sent: bytes) -> tuple[bytes, float]:
    """All that is answered until the connection ends without a reset, and the seconds until then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.rpartition(":")[2]))
    began = time.monotonic()
    writer.write(sent)
    async with asyncio.timeout(DEADLINE + 5):
        answer = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    return answer, time.monotonic() - began


@pytest.mark.parametrize(
    ("body", "status", "longest"),
    [
        (f"Content-Length: {MEBIBYTE}\r\n\r\n".encode() + b" " * MEBIBYTE, 413, 0.9),
        (f"Content-Length: {MEBIBYTE}\r\n\r\n".encode() + b" " * 1000, 413, 1.9),
        (b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", 413, 1.9),
        (b"Content-Length: 100\r\n\r\n{", 408, DEADLINE + 1.9),
    ],
    ids=["all of it", "a body that stops", "a body that asks first", "a body that is late"],
)
@pytest.mark.timed
async def test_the_connection_ends_without_a_reset_when_a_body_is_not_read(
    api: str, body: bytes, status: int, longest: float
) -> None:
    """H3: the answer comes first, the rest is read away for 1 s at most, and then the connection is closed."""
    answer, seconds = await exchange(api, HEAD.encode() + body)
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert head.startswith(b"http/1.1 %d " % status), answer[:200]
    assert b"connection: close" in head.split(b"\r\n")
    assert b'"request_id"' in answer
    assert seconds < longest


async def test_a_connection_is_kept_when_a_refused_body_was_read(api: str) -> None:
    """H3: an answer closes the connection only if something of the body is left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.rpartition(":")[2]))
    for _ in range(3):
        writer.write(HEAD.encode() + b"Content-Length: 2\r\n\r\n{}")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 401 ") and b"connection: close" not in head
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
        await reader.readexactly(int(length.partition(b": ")[2]))
    writer.close()
    await writer.wait_closed()
