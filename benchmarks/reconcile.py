"""`python -m benchmarks.reconcile`: the first fill of a big account, and the repair of a cache that no event reached.

The stand-in holds the account, answers a page in `--latency` seconds and sends no events. Measured from its request
log: the time of the fill against the endpoint's limit, what reconciling costs, whether the planted drifts and nothing
else was repaired, what a killed run repeats, and that an emptied account empties no cache. One JSON line; the exit
code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from app.commands.child_processes import ChildProcesses
from app.settings import inherited_environment
from testkit import servers
from testkit.memory import memory_of

PER_SECOND = 25
"""Stripe's limit for one endpoint."""
FILL_BAR = 1.15
REQUESTS_BAR = 1.05
CHUNK = 500
SUBSCRIBERS = 5
"""Customers with a plan, beside the others."""
TWO_YEARS = 2 * 365 * 86_400
RUNNERS = 16
"""Ranges that a list scan reads at once; a killed run repeats a page of each at most."""

Json = dict[str, Any]


class Account:
    """The stand-in's account: edited as in the Dashboard, with the controls of the stand-in beside it."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.key = f"sk_test_{secrets.token_hex(8)}"
        self._client = httpx.Client(
            base_url=base_url, headers={"Authorization": f"Bearer {self.key}"}, timeout=120.0
        )

    def control(self, method: str, path: str, /, **fields: Any) -> Any:
        url = f"/_simulator/{path}"
        given = {"json": fields} if method == "POST" else {"params": fields}
        return self._client.request(method, url, **given).raise_for_status().json()  # type: ignore[arg-type]

    def post(self, path: str, **fields: str) -> Json:
        found: Json = self._client.post(path, data=fields).raise_for_status().json()
        return found

    def delete(self, path: str) -> None:
        self._client.delete(path).raise_for_status()

    def requests(self, since: float) -> list[Json]:
        return list(self.control("GET", "requests", since=since)["data"])

    def customers(self) -> dict[str, str | None]:
        """Names by id, None for a deleted one."""
        states = self.control("GET", "state", type="customer")["data"]
        return {one["id"]: None if one.get("deleted") else one["name"] for one in states}


@contextmanager
def account() -> Iterator[Account]:
    lines: list[str] = []
    command = [sys.executable, "-m", "stripe_simulator", "--port", "0", "--memory"]
    with ChildProcesses() as children:
        process = children.spawn("stripe", command, environment=inherited_environment(), on_line=lines.append)
        give_up = time.monotonic() + servers.START_SECONDS
        while not (found := re.search(r"listening on (http://\S+)", "\n".join(lines))):
            if process.poll() is not None or time.monotonic() > give_up:
                raise servers.NotStarted(f"the stand-in did not come up: {lines[-20:]}")
            time.sleep(0.05)
        yield Account(found[1])


def settle_in(account: Account, customers: int) -> None:
    """Customers who came over two years, CHUNK at a time within one second, and a plan for some of them."""
    now = int(time.time())
    account.control("POST", "clock", freeze=now - TWO_YEARS)
    product = account.post("/v1/products", name="Team")["id"]
    price = account.post(
        "/v1/prices", product=product, currency="usd", unit_amount="900", **{"recurring[interval]": "month"}
    )["id"]
    rounds = math.ceil(customers / CHUNK)
    for number in range(rounds):
        account.control("POST", "clock", freeze=now - TWO_YEARS + (number + 1) * TWO_YEARS // (rounds + 1))
        start, count = number * CHUNK, min(CHUNK, customers - number * CHUNK)
        account.control("POST", "bulk", customers=count, start=start, name="Customer {n}")
    plan = {"items": [{"price": price}], "collection_method": "send_invoice", "days_until_due": "30"}
    account.control(
        "POST", "bulk", customers=SUBSCRIBERS, start=customers, name="Customer {n}", subscription=plan
    )
    account.control("POST", "clock", unfreeze=True)


@dataclass(frozen=True, slots=True)
class Run:
    """`seconds` of the whole process; `peak`: megabytes that it held at most, as far as that is known."""

    exit_code: int
    seconds: float
    report: Json
    requests: list[Json]
    peak: float | None


class Operator:
    """Runs the commands as processes, against one database and one account."""

    def __init__(self, database_url: str, account: Account) -> None:
        self.account = account
        self.database_url = database_url
        self._environment = {
            **inherited_environment(),
            "DATABASE_URL": database_url,
            "STRIPE_API_KEY": account.key,
            "STRIPE_API_BASE": account.base_url,
            "STRIPE_RATE_LIMIT": "100",
            "LOG_LEVEL": "warning",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "app", *arguments]
        return subprocess.Popen(
            command, cwd=servers.CHECKOUT, env=self._environment, stdout=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str) -> Run:
        since, started = time.time(), time.monotonic()
        process = self.start(*arguments, "--json")
        peak, output = None, None
        while output is None:
            held = memory_of(process.pid)
            peak = peak if held is None else held.peak
            with suppress(subprocess.TimeoutExpired):
                output, _ = process.communicate(timeout=0.5)
        seconds = time.monotonic() - started
        last = output.strip().splitlines()[-1] if output.strip() else "{}"
        return Run(process.returncode, seconds, json.loads(last), self.account.requests(since), peak)

    def killed_after(self, requests: int, *arguments: str) -> list[Json]:
        """What a run asked that was killed when it had made so many requests."""
        since = time.time()
        process = self.start(*arguments, "--json")
        while process.poll() is None and len(self.account.requests(since)) < requests:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        time.sleep(1.0)  # What it had sent is still answered, and logged.
        return self.account.requests(since)

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return asyncio.run(_fetch(self.database_url, query, *arguments))


async def _fetch(url: str, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query, *arguments)]
    finally:
        await connection.close()


@contextmanager
def settled(customers: int, latency: float, state: Path | None) -> Iterator[Operator]:
    """An empty cache beside an account, whose answers take `latency` seconds, with SUBSCRIBERS more."""
    with servers.database("reconcile", state) as url, account() as stripe:
        settle_in(stripe, customers)
        stripe.control("POST", "faults", method="GET", latency_s=latency, times=0)
        yield Operator(url, stripe)


def plant(operator: Operator, number: int, seed: int) -> set[str]:
    """The ids of `number` drifts: rows lost, customers new, renamed and deleted at Stripe, of which no event tells."""
    rows = operator.rows(
        "select id from customers where existence = 'present' order by md5(id || $1) limit $2",
        str(seed),
        number,
    )
    ids = [row[0] for row in rows]
    quarter = number // 4
    lost, renamed, deleted = ids[:quarter], ids[quarter : 2 * quarter], ids[2 * quarter : 3 * quarter]
    operator.rows("delete from customers where id = any($1) returning id", lost)
    for customer in renamed:
        operator.account.post(f"/v1/customers/{customer}", name=f"Renamed {seed}")
    for customer in deleted:
        operator.account.delete(f"/v1/customers/{customer}")
    new = [
        operator.account.post("/v1/customers", name=f"New {seed}")["id"] for _ in range(number - 3 * quarter)
    ]
    return {*lost, *renamed, *deleted, *new}


def wrong(operator: Operator) -> int:
    """Customers of whom the cache says something else than Stripe."""
    truth = operator.account.customers()
    query = "select id, case when existence = 'present' then name end from customers"
    cached: dict[str, str | None] = {row[0]: row[1] for row in operator.rows(query)}
    return sum(cached.get(one) != name for one, name in truth.items()) + len(cached.keys() - truth.keys())


def touched(operator: Operator, since: Any) -> set[str]:
    return {row[0] for row in operator.rows("select id from customers where synced_at > $1", since)}


def database_now(operator: Operator) -> Any:
    return operator.rows("select clock_timestamp()")[0][0]


def busiest(requests: list[Json]) -> tuple[int, int]:
    """The most requests in any second: to one list, and altogether."""
    alone: dict[str, list[float]] = {}
    for one in requests:
        place = one["path"] if one["path"].count("/") == 2 else one["path"].rpartition("/")[0] + "/{id}"
        alone.setdefault(place, []).append(one["started"])
    return max((_most(times) for times in alone.values()), default=0), _most(
        [one["started"] for one in requests]
    )


def _most(times: list[float]) -> int:
    ordered = sorted(times)
    first = most = 0
    for last, moment in enumerate(ordered):
        while ordered[first] <= moment - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def fill(operator: Operator, customers: int) -> Json:
    """Of an account with so many customers and next to nothing else."""
    pages = math.ceil(customers / 100)
    ran = operator.run("sync")
    floor = pages / PER_SECOND
    endpoint, account_wide = busiest(ran.requests)
    first, last = ran.requests[0]["started"], ran.requests[-1]["ended"] or ran.requests[-1]["started"]
    query = "select count(*), count(distinct id) filter (where name like 'Customer %') from customers"
    whole = operator.rows(query) == [(customers, customers)]
    return {
        "met": ran.exit_code == 0 and whole and ran.seconds <= FILL_BAR * floor,
        "whole": whole,
        "seconds": round(ran.seconds, 2),
        "seconds_asking": round(last - first, 2),
        "floor_seconds": floor,
        "ratio": round(ran.seconds / floor, 3),
        "pages": pages,
        "page_requests": sum(one["path"] == "/v1/customers" for one in ran.requests),
        "busiest_second_endpoint": endpoint,
        "busiest_second": account_wide,
        "objects": ran.report.get("objects"),
        "peak_mb": ran.peak and round(ran.peak),
    }


def repair(operator: Operator, customers: int, drifts: int) -> Json:
    planted, since = plant(operator, drifts, 1), database_now(operator)
    ran = operator.run("reconcile")
    changed = touched(operator, since)
    allowed = math.ceil(customers / 100) + drifts
    endpoint, account_wide = busiest(ran.requests)
    left = wrong(operator)
    return {
        "met": ran.exit_code == 0
        and left == 0
        and changed == planted
        and len(ran.requests) <= REQUESTS_BAR * allowed,
        "planted": len(planted),
        "healed": len(changed & planted),
        "false_repairs": len(changed - planted),
        "still_wrong": left,
        "requests": len(ran.requests),
        "pages_and_drifts": allowed,
        "seconds": round(ran.seconds, 2),
        "busiest_second_endpoint": endpoint,
        "busiest_second": account_wide,
        "report": ran.report,
    }


def interrupted(operator: Operator, customers: int, drifts: int) -> Json:
    planted, since = plant(operator, drifts, 2), database_now(operator)
    first = operator.killed_after(math.ceil(customers / 200), "reconcile")
    second = operator.run("reconcile")
    asked = Counter(
        (one["path"], json.dumps(one["params"], sort_keys=True))
        for one in (*first, *second.requests)
        if one["params"].get("limit")
    )
    repeated = [number for number in asked.values() if number > 1]
    left, changed = wrong(operator), touched(operator, since)
    return {
        "met": second.exit_code == 0
        and left == 0
        and changed == planted
        and len(repeated) <= RUNNERS
        and max(repeated, default=1) <= 2,
        "healed": len(changed & planted),
        "false_repairs": len(changed - planted),
        "still_wrong": left,
        "requests_before": len(first),
        "requests_after": len(second.requests),
        "pages_repeated": len(repeated),
    }


def emptied(operator: Operator) -> Json:
    operator.account.control("POST", "reset")
    since = database_now(operator)
    ran = operator.run("reconcile")
    changed = touched(operator, since)
    return {
        "met": ran.exit_code == 1 and ran.report.get("outcome") == "stopped" and not changed,
        "exit_code": ran.exit_code,
        "removed": len(changed),
        "requests": len(ran.requests),
        "reason": ran.report.get("reason"),
    }


def others(operator: Operator, customers: int, drifts: int) -> dict[str, Json]:
    return {
        "repair": repair(operator, customers, drifts),
        "interrupted": interrupted(operator, customers, drifts),
        "emptied": emptied(operator),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.reconcile", description=__doc__)
    parser.add_argument("--customers", type=int, default=100_000, help="of the account (default 100000)")
    parser.add_argument("--drifts", type=int, default=200, help="planted before each run (default 200)")
    parser.add_argument("--latency", type=float, default=0.3, help="seconds to each answer (default 0.3)")
    parser.add_argument("--fill-only", action="store_true", help="measure the first fill alone")
    parser.add_argument("--state", type=Path, help="keep the benchmarks' PostgreSQL in this directory")
    given = parser.parse_args()
    with settled(given.customers, given.latency, given.state) as operator:
        found = {"fill": fill(operator, given.customers + SUBSCRIBERS)}
        if not given.fill_only:
            found |= others(operator, given.customers + SUBSCRIBERS, given.drifts)
    met = all(part["met"] for part in found.values())
    print(json.dumps({"benchmark": "reconcile", "met": met, "customers": given.customers, **found}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
