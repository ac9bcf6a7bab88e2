"""Run one side of `benchmarks.against` inside a checkout, on that checkout's own code.

`benchmarks.against` starts this file with the checkout's interpreter and folder. So it imports nothing of the
checkout that it belongs to, and it finds the modules of the other one under the names of either tree.

It writes one JSON line when it is ready, and one for each line that it reads. It ends when its input is closed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from testkit.ports import free_port

ROOMS = ("testkit", "benchmarks")
"""Packages that hold the shared modules of the measurements: today's first, then the older one."""


def module(name: str) -> ModuleType:
    """Import the checkout's module `name` from the room that holds it. Raises ModuleNotFoundError."""
    for room in ROOMS:
        try:
            return importlib.import_module(f"{room}.{name}")
        except ModuleNotFoundError as error:
            if error.name not in (room, f"{room}.{name}"):
                raise
    raise ModuleNotFoundError(f"The checkout has no module `{name}` in {' or '.join(ROOMS)}.")


class Lines:
    """The two ends of the conversation. What else is printed goes to standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, what: Any) -> None:
        print(json.dumps(what), file=self._out, flush=True)

    def hear(self) -> Any:
        """Return the next request, or None at the end of the input."""
        line = sys.stdin.readline()
        return json.loads(line) if line else None


def serve(lines: Lines, name: str, state: Path) -> None:
    """One API process over a database that this checkout migrates and seeds; the requests are its hot owners' own."""
    seeding, servers = module("seeding"), module("servers")
    with servers.database(f"against_{name}", state) as url, servers.ChildProcesses() as children:
        seeding.fill(url, seeding.HOT, issuer=servers.ISSUER)
        port = free_port()
        environment = servers.service_environment(url, port)
        server = servers.start(
            children,
            f"against-{name}",
            ["app", "serve"],
            port=port,
            environment=environment,
            logs=servers.directory(state),
        )
        requests = [
            (
                f"/v1/shared-subscriptions/{seeding.subscription_id(number)}",
                servers.token(environment, seeding.owner_subject(number)),
            )
            for number in seeding.hot_numbers(seeding.HOT)
        ]
        lines.say({"port": port, "pid": server.pid, "database_url": url, "requests": requests})
        lines.hear()


def add(lines: Lines, name: str, state: Path) -> None:
    """The world of `benchmarks.hundred`, in which each request adds a hundred people."""
    hundred = importlib.import_module("benchmarks.hundred")

    async def play(world: Any) -> dict[str, Any]:
        lines.say({})
        while (request := await asyncio.to_thread(lines.hear)) is not None:
            lines.say(await hundred.add(world, known=request["known"]))
        return {}

    module("seat_world").run(f"against_{name}", state, play, STRIPE_RATE_LIMIT="100")


def main() -> None:
    # Ended from outside, too, the servers stop and the database is dropped.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    side, name, state = sys.argv[1:]
    {"serve": serve, "add": add}[side](Lines(), name, Path(state))


if __name__ == "__main__":
    main()
