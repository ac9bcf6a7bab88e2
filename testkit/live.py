"""The service as it runs: API and worker processes that the stand-in delivers signed webhooks to."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from testkit.simulator import Simulator
from testkit.truth import at_rest, cached_rows


@dataclass(frozen=True, slots=True)
class Live:
    stripe: Simulator
    database_url: str
    base_url: str

    async def at_rest(self) -> None:
        await at_rest(self.stripe, self.database_url)

    async def row(self, kind: str, object_id: str) -> dict[str, Any]:
        """The cached row, empty where there is none."""
        return (await cached_rows(self.database_url, kind, [object_id])).get(object_id, {})

    async def until(self, condition: Callable[[], Awaitable[bool]], *, within: float = 15.0) -> float:
        """The seconds until `condition` held. Raises AssertionError if it does not `within` so many."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        while not await condition():
            assert loop.time() - started < within, f"not so within {within} s"
            await asyncio.sleep(0.02)
        return loop.time() - started

    async def post(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        """A delivery that somebody else than the stand-in makes."""
        async with httpx.AsyncClient(base_url=self.base_url, timeout=20.0) as client:
            return await client.post("/webhooks/stripe", content=body, headers=headers)
