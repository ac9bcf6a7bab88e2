"""An endpoint that receives events over HTTP and answers as a test wants."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks.webhooks import Webhook

from testkit.serving import serving


@dataclass(frozen=True)
class Received:
    """One request. `event` is its body, `path` has the query too."""

    headers: dict[str, str]
    body: bytes
    path: str = "/hooks"

    @property
    def event(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    def verified(self, secret: str) -> dict[str, Any]:
        """The event, if the library's own verifier accepts its signature; otherwise it raises."""
        return dict(Webhook(secret).verify(self.body, self.headers))


@dataclass
class Receiver:
    """`status` decides the answer to each request; `seconds` is how long it takes.

    `most_of_one` is the largest number of requests at once for one subscription.
    """

    url: str = ""
    received: list[Received] = field(default_factory=list)
    status: Callable[[Received], int] = lambda _: 204
    seconds: float = 0.0
    headers: str = ""
    body: bytes = b""
    at_once: int = 0
    most_at_once: int = 0
    of_each: Counter[str | None] = field(default_factory=Counter)
    most_of_one: int = 0

    @property
    def events(self) -> list[dict[str, Any]]:
        return [one.event for one in self.received]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.split(": ", 1) for line in head[1:] if line)
                body = await reader.readexactly(int(headers["content-length"]))
                request = Received(headers, body, head[0].split(" ")[1])
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                subscription = request.event.get("subscription_id")
                self.of_each[subscription] += 1
                self.most_of_one = max(self.most_of_one, self.of_each[subscription])
                await asyncio.sleep(self.seconds)
                self.at_once -= 1
                self.of_each[subscription] -= 1
                self.received.append(request)
                status = self.status(request)
                writer.write(
                    f"HTTP/1.1 {status} X\r\n{self.headers}content-length: {len(self.body)}\r\n\r\n".encode()
                    + self.body
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a port of this host."""
    receiver = Receiver()
    async with serving(receiver.answer) as port:
        receiver.url = f"http://127.0.0.1:{port}/hooks"
        yield receiver
