"""Look up the addresses of endpoints' hosts, in threads of their own.

A name server that drops packets keeps a look-up for up to half a minute, and nothing can stop the thread in which it
runs. The event loop's threads are few, and the names of Stripe and PostgreSQL are looked up in them too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Final

LOOK_UPS: Final = 64
"""Look-ups of one process at the same time, each of another host."""


class Resolver:
    """Looks up hosts. Tries that ask for one host at the same time share one look-up."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(LOOK_UPS)
        self._running: dict[str, asyncio.Task[list[str]]] = {}

    async def addresses(self, host: str) -> list[str]:
        """Return the addresses of a host. If the caller is cancelled, the look-up goes on for those that ask next.

        Raises:
            OSError: the host is unknown.
            UnicodeError: the host is no name.
        """
        running = self._running.get(host)
        if running is None:
            running = asyncio.create_task(self._look_up(host))
            self._running[host] = running
            running.add_done_callback(lambda ended: self._note_end(host, ended))
        return await asyncio.shield(running)

    def _note_end(self, host: str, ended: asyncio.Task[list[str]]) -> None:
        del self._running[host]
        if not ended.cancelled():
            ended.exception()  # Nobody may wait for it any more, and asyncio would log it as lost.

    async def _look_up(self, host: str) -> list[str]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()
        async with self._places:
            # A thread of an executor would keep the process from ending.
            threading.Thread(target=_resolve, args=(host, loop, found), name="look-up", daemon=True).start()
            return await found


def _resolve(host: str, loop: asyncio.AbstractEventLoop, found: asyncio.Future[list[str]]) -> None:
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses, failure = list(dict.fromkeys(str(entry[4][0]) for entry in entries)), None
    except Exception as error:  # noqa: BLE001 - it is raised where the addresses are awaited
        addresses, failure = [], error
    with contextlib.suppress(RuntimeError):  # The event loop may have ended.
        loop.call_soon_threadsafe(_hand_over, found, addresses, failure)


def _hand_over(found: asyncio.Future[list[str]], addresses: list[str], failure: Exception | None) -> None:
    if found.done():
        return
    if failure is None:
        found.set_result(addresses)
    else:
        found.set_exception(failure)
