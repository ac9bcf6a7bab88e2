"""`python -m verification.storms.alerts`: Prometheus with the shipped rules watches the processes while parts fail.

It scrapes an API process and a worker every 2 seconds. First comes a calm under load, in which no alert may fire. Then
one fault after the other: each has to fire its own alert, and none of another part, and to end when the fault does. One
JSON line; the exit code is 1 on a miss. It needs the program `prometheus` (on Debian: `make system-packages`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.settings import inherited_environment
from testkit import seat_world
from testkit.company import signed
from testkit.database_proxy import DatabaseProxy
from testkit.databases import CHECKOUT
from testkit.ports import free_port
from testkit.seat_world import Json, World, progress
from testkit.service import as_user
from verification.storms.slow_clients import requests
from verification.storms.traffic import Caller, Traffic, asking, built

RULES = CHECKOUT / "deploy" / "prometheus" / "alerts.yml"
RATE = 10.0
FIRES_WITHIN = 180.0
"""Seconds: a fault is seen within 30 and told within `for:`, on a machine that is busy."""
ENDS_WITHIN = 420.0
"""Seconds: counters are looked at over 5 minutes."""
_CONFIGURATION = """
global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}}
rule_files: [{rules}]
scrape_configs:
  - {{job_name: coseat, static_configs: [{{targets: ["127.0.0.1:{api}"]}}]}}
  - {{job_name: coseat-worker, static_configs: [{{targets: ["127.0.0.1:{worker}"]}}]}}
"""

Act = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What fails, the alert that it has to fire, and the part that the alert names."""

    name: str
    alert: str
    part: str
    begin: Act
    end: Act


class Prometheus:
    """The running Prometheus."""

    def __init__(self, port: int) -> None:
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False)

    async def until_ready(self) -> None:
        """Wait until it answers."""
        for _ in range(300):
            with suppress(httpx.HTTPError):
                if (await self._client.get("/-/ready")).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(0.2)
        raise TimeoutError("Prometheus does not become ready")

    async def firing(self) -> dict[str, str]:
        """Return the part of each alert that fires, by its name."""
        found = (await self._client.get("/api/v1/alerts")).json()["data"]["alerts"]
        return {
            one["labels"]["alertname"]: one["labels"]["part"] for one in found if one["state"] == "firing"
        }

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()


def faults(world: World, proxy: DatabaseProxy, api: int) -> list[Fault]:
    """Return the faults, the one whose alert lasts longest at the end."""
    caller = Caller()

    def to(name: str, number: int) -> Act:
        async def send() -> None:
            world.children.child(name).send_signal(number)

        return send

    async def silence() -> None:
        proxy.go_silent()

    async def speak() -> None:
        proxy.speak_again()

    async def stripe_away() -> None:
        await world.stripe.add_fault(timeout=2.0, times=0)
        # Many callers at once, as the breaker opens at five failures within five seconds.
        calls = (caller.ask(api, "POST", "/v1/customers", as_user(), {}) for _ in range(20))
        await asyncio.gather(*calls, return_exceptions=True)

    async def give_up() -> None:
        await world.service.fetch(
            """insert into refreshes (id, kind, notifications, notified_at, attempts, last_error, dead_at)
            values ('cus_dead', 'customer', 1, 0, 8, 'planted', now()) returning id"""
        )

    async def forget() -> None:
        await world.service.fetch("delete from refreshes where id = 'cus_dead' returning id")

    async def forge() -> None:
        for _ in range(20):
            body = b"{}"
            await caller.send(
                api, built("POST", "/webhooks/stripe", signed(body, secret="whsec_wrong"), body)
            )
            await asyncio.sleep(1)

    async def nothing() -> None:
        return

    worker, first = "alerts-worker0", "alerts-api0"
    return [
        Fault(
            "a worker that hangs",
            "CoseatNoWorker",
            "worker",
            to(worker, signal.SIGSTOP),
            to(worker, signal.SIGCONT),
        ),
        Fault("PostgreSQL is silent", "CoseatDatabaseDown", "database", silence, speak),
        Fault("Stripe is away", "CoseatStripeAway", "stripe", stripe_away, world.stripe.clear_faults),
        Fault(
            "an API process hangs",
            "CoseatProcessDown",
            "process",
            to(first, signal.SIGSTOP),
            to(first, signal.SIGCONT),
        ),
        Fault("a refresh is given up", "CoseatRefreshesDead", "copy", give_up, forget),
        Fault("a wrong webhook secret", "CoseatDeliveriesRefused", "webhook", forge, nothing),
    ]


async def one_fault(prometheus: Prometheus, fault: Fault) -> Json:
    """Begin a fault, wait for its alert, end it, and wait for silence."""
    others: set[str] = set()
    began = time.monotonic()
    acting = asyncio.ensure_future(fault.begin())
    fired: float | None = None
    while time.monotonic() - began < FIRES_WITHIN and fired is None:
        found = await prometheus.firing()
        others |= {name for name, part in found.items() if part != fault.part}
        fired = time.monotonic() - began if fault.alert in found else None
        await asyncio.sleep(1)
    await acting
    await fault.end()
    found = await prometheus.firing()
    for _ in range(int(ENDS_WITHIN)):
        if not found:
            break
        await asyncio.sleep(1)
        found = await prometheus.firing()
    progress(f"{fault.name}: fired after {fired and round(fired)} s, others: {sorted(others) or 'none'}")
    return {
        "met": fired is not None and not others and not found,
        "alert": fault.alert,
        "fired_after_s": None if fired is None else round(fired),
        "others": sorted(others),
        "left": sorted(found),
    }


async def calm(prometheus: Prometheus, seconds: float) -> list[str]:
    """Return the alerts that fire within so many seconds of calm."""
    found: set[str] = set()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found |= set(await prometheus.firing())
        await asyncio.sleep(2)
    return sorted(found)


async def play(world: World, given: argparse.Namespace) -> Json:
    proxy = world.proxy
    if proxy is None:
        raise LookupError("the world has no proxy")
    api = int(str(world.clients[0].base_url.port))
    worker, port = int(world.environment["WORKER_PORT"]), free_port()
    company = await world.service.company(seats=5)
    await world.service.fill()
    traffic, stop = Traffic(asking(requests(company)), lambda: [api], rate=RATE), asyncio.Event()
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "prometheus.yml"
        configuration.write_text(_CONFIGURATION.format(rules=RULES, api=api, worker=worker))
        command = [
            "prometheus",
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
        world.children.spawn("prometheus", command, environment=inherited_environment())
        prometheus = Prometheus(port)
        await prometheus.until_ready()
        loading = asyncio.create_task(traffic.run_until(stop))
        in_calm = await calm(prometheus, given.calm * 60)
        chosen = [one for one in faults(world, proxy, api) if not given.only or one.alert in given.only]
        found = {one.name: await one_fault(prometheus, one) for one in chosen}
        stop.set()
        await loading
        await prometheus.aclose()
        traffic.close()
    return {
        "met": not in_calm and all(one["met"] for one in found.values()),
        "calm_minutes": given.calm,
        "fired_in_calm": in_calm,
        "faults": found,
        "load_average": seat_world.load_average(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.storms.alerts", description=__doc__)
    parser.add_argument("--calm", type=float, default=30.0, help="minutes of calm under load (default 30)")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="ALERT", help="the faults of these alerts only"
    )
    seat_world.state_option(parser)
    given = parser.parse_args()
    if shutil.which("prometheus") is None:
        sys.exit("prometheus is missing: `make system-packages` installs it.")
    found = seat_world.run(
        "alerts",
        given.state,
        lambda world: play(world, given),
        proxied=True,
        WORKER_PORT=str(free_port()),
    )
    print(json.dumps({"storm": "alerts", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
