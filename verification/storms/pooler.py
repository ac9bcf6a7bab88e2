"""`python -m verification.storms.pooler`: an API process and two workers behind PgBouncer with four connections.

Members are added over HTTP, edits are made in the Dashboard, and the copy is reconciled three times. Every
answer must succeed, every edit must show, each reconcile must end, and no advisory lock may be left when all
clients are gone. One JSON line; the exit code is 1 on a miss, and 2 if this machine has no PgBouncer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from app.commands.local_postgres import LocalPostgres
from app.settings import inherited_environment
from testkit import seat_world, servers
from testkit.databases import CHECKOUT
from testkit.pooler import PoolerMissing, advisory_locks, pooled
from testkit.seat_world import Json, World

SHOWN_WITHIN = 30.0
RECONCILES = 3
EDITS = 5


async def added(world: World, company_path: str, headers: dict[str, str], number: int) -> Counter[str]:
    told: Counter[str] = Counter()
    for index in range(number):
        body = {"add": [{"email": f"pooled{index}@example.com"}]}
        answer = await world.call(0, "PATCH", f"{company_path}/users", headers, body)
        told[str(answer.status_code)] += 1
        told[str((await world.call(0, "GET", company_path, headers)).status_code)] += 1
    return told


async def reconciled(world: World) -> list[Json]:
    """The reports of several runs, one after the other."""
    reports = []
    for _ in range(RECONCILES):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app",
            "reconcile",
            "--json",
            env={**inherited_environment(), **world.environment, "LOG_LEVEL": "error"},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        reports.append({"exit": process.returncode, **json.loads(output.splitlines()[-1])})
    return reports


async def shown(world: World, customer_id: str, name: str) -> bool:
    """Does the copy show an edit of the Dashboard within some seconds?"""
    for _ in range(int(SHOWN_WITHIN / 0.2)):
        rows = await world.service.fetch(
            "select 1 from customers where id = $1 and name = $2", customer_id, name
        )
        if rows:
            return True
        await asyncio.sleep(0.2)
    return False


async def play(world: World, number: int) -> Json:
    company = await world.service.company(seats=number + 10)
    headers = dict(company.owner.headers)
    await world.service.fill()
    told, reports = await asyncio.gather(added(world, company.path, headers, number), reconciled(world))
    edits = []
    for index in range(EDITS):
        person = company.user.customer_id
        await world.stripe.post(f"/v1/customers/{person}", name=f"Edited {index}")
        edits.append(await shown(world, person, f"Edited {index}"))
    world.children.stop()
    return {
        "answers": dict(told),
        "reconciles": [report["exit"] for report in reports],
        "outcomes": [report.get("outcome") or report.get("error") for report in reports],
        "edits_shown": sum(edits),
        "locks_left": await advisory_locks(world.service.database_url),
    }


def contract(server_url: str) -> int:
    """Run the contract's tests, and return pytest's exit code."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist=loadfile", "tests/contract"]
    environment = {**os.environ, "TEST_DATABASE_URL": server_url}
    return subprocess.run(command, cwd=CHECKOUT, env=environment, stdout=sys.stderr, check=False).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=40, help="member changes (40)")
    parser.add_argument("--contract", action="store_true", help="run the contract's tests behind it first")
    seat_world.state_option(parser)
    given = parser.parse_args(arguments)
    state: Path | None = given.state
    found: Json = {}

    async def played(world: World) -> Json:
        return await play(world, given.changes)

    with ExitStack() as stack:
        server = LocalPostgres(servers.directory(state) / "postgres-fast", fast=True)
        server.start()
        stack.callback(server.stop)
        try:
            os.environ["TEST_POOLER"] = stack.enter_context(pooled(server.url("postgres")))
        except PoolerMissing as error:
            print(error, file=sys.stderr)
            return 2
        if given.contract:
            found["contract"] = contract(server.url("postgres"))
        found |= seat_world.run("pooler", state, played, workers=2)
    found["met"] = (
        found.get("contract", 0) == 0
        and found["answers"] == {"200": 2 * given.changes}
        and found["reconciles"] == [0] * RECONCILES
        and found["edits_shown"] == EDITS
        and found["locks_left"] == 0
    )
    print(json.dumps(found))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
