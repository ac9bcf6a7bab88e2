"""Connections to endpoints are kept open, and one that an endpoint has closed is no failure of the endpoint."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from app.events.sending import Sent, WebhookSender
from testkit.receiver import receiving
from testkit.serving import serving

SECRET = f"whsec_{'A' * 43}="
TAKEN = Sent(204, None)
BROKEN = Sent(None, "the connection broke")


@dataclass
class Host:
    """Answers requests on each connection as `answers` says; `asked` has the number of requests of each connection."""

    answers: Callable[[int], bytes | None]
    port: int = 0
    asked: list[int] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection. The answer None closes it."""
        number = len(self.asked)
        self.asked.append(0)
        try:
            while True:
                await reader.readuntil(b"{}")
                self.asked[number] += 1
                answer = self.answers(self.asked[number])
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def hosting(answers: Callable[[int], bytes | None]) -> AsyncIterator[Host]:
    host = Host(answers)
    async with serving(host.answer) as host.port:
        yield host


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    async with WebhookSender(live=False, seconds=2.0) as sender:
        yield sender


async def sent_to(sender: WebhookSender, host: Host) -> Sent:
    return await sender.send(f"http://127.0.0.1:{host.port}/hooks", "evt_1", b"{}", [SECRET])


def once(number: int) -> bytes | None:
    """Take the first request of a connection, and close it at the next."""
    return b"HTTP/1.1 204 X\r\n\r\n" if number == 1 else None


async def test_event_is_taken_when_the_endpoint_closes_a_connection_that_was_kept_open(
    sender: WebhookSender,
) -> None:
    async with hosting(once) as host:
        assert [await sent_to(sender, host) for _ in range(3)] == [TAKEN] * 3
        assert host.asked == [2, 2, 1]


async def test_event_is_taken_when_the_endpoint_closes_all_connections_that_were_kept_open(
    sender: WebhookSender,
) -> None:
    async with hosting(once) as host:
        assert await asyncio.gather(*(sent_to(sender, host) for _ in range(4))) == [TAKEN] * 4
        assert host.asked == [1] * 4
        assert await sent_to(sender, host) == TAKEN
        assert host.asked == [2, 2, 2, 2, 1]


async def test_event_is_sent_once_when_a_new_connection_breaks(sender: WebhookSender) -> None:
    async with hosting(lambda _: None) as host:
        assert await sent_to(sender, host) == BROKEN
        assert host.asked == [1]


async def test_event_is_sent_once_when_an_answer_breaks_off(sender: WebhookSender) -> None:
    """Its status was told, so the endpoint has had the event."""
    whole, broken = (
        b"HTTP/1.1 204 X\r\n\r\n",
        b"HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
    )
    async with hosting(lambda number: whole if number == 1 else broken) as host:
        assert await sent_to(sender, host) == TAKEN
        assert await sent_to(sender, host) == BROKEN
        assert host.asked == [2]


async def test_every_event_is_taken_when_an_answer_without_content_has_some(sender: WebhookSender) -> None:
    """A 204 has no content. If an endpoint sends some, that is no answer to the next event."""
    async with receiving() as receiver:
        receiver.body = b"taken"
        for _ in range(3):
            assert await sender.send(receiver.url, "evt_1", b"{}", [SECRET]) == TAKEN
