"""`python -m verification.convergence.odd_list`: a long list with one object that cannot be read.

The first fill and reconcile finish with all the others. Their exit codes and the doctor tell of the one, and the next
rounds of a worker's upkeep are done, the first of them with a reconcile. Commands are processes of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

from app.commands.logs import configure_logs
from app.operating import upkeep
from testkit.company import running_service
from testkit.operator import Operator
from testkit.simulator import Simulator, new_account_key
from verification.adversary.running import finish, parts, tell


async def run(stripe_base: str, database_url: str, *, objects: int) -> list[str]:
    """Return what was missed, in words."""
    async with Simulator(stripe_base, new_account_key()) as stripe:
        odd = (await stripe.control("POST", "bulk", customers=objects))["last"]
        await stripe.show_odd(odd, created=str(int(time.time())))
        operator = Operator(stripe, database_url)
        found: dict[str, Any] = {"sync": await operator.report("sync")}
        tell(f"sync: {found['sync']}")
        found["again"] = await operator.report("sync")
        code, report = await operator.report("reconcile")
        counts = report["kinds"]["customer"]
        found["reconcile"] = (code, report["outcome"], report["drift"], report["unrepaired"])
        found["customers"] = (counts["read"], counts["unreadable"])
        tell(f"reconcile: {found['reconcile']} {found['customers']}")
        code, report = await operator.report("doctor")
        found["doctor"] = (
            code,
            [one["object"] for one in report["findings"] if one["check"] == "unreadable"],
        )
        async with running_service(stripe, database_url) as service:
            await service.fetch("update list_scans set started_at = now() - interval '25 hours' returning id")
            for _ in range(2):
                await upkeep.one_round(service.context)
            found["rounds"] = [
                row["outcome"]
                for row in await service.fetch(
                    "select outcome from list_scans where purpose = 'reconcile' order by id"
                )
            ]
            [row] = await service.fetch(
                "select count(*) as number from customers where existence = 'present'"
            )
            found["rows"] = row["number"]
    wanted: dict[str, Any] = {
        "sync": (1, {"objects": objects - 1, "unrepaired": 1}),
        "again": (0, {"objects": 0, "unrepaired": 0}),
        "reconcile": (1, "finished", 0, 1),
        "customers": (objects - 1, 1),
        "doctor": (1, [odd]),
        "rounds": ["finished", "finished"],
        "rows": objects - 1,
    }
    return [f"{name}: {found[name]}, not {wanted[name]}" for name in wanted if found[name] != wanted[name]]


def main() -> None:
    """Run it once, and exit with 1 if something was missed."""
    parser = argparse.ArgumentParser(prog="verification.convergence.odd_list", description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000, help="objects of the list (default 10000)")
    given = parser.parse_args()
    configure_logs("critical")
    started = time.monotonic()
    with parts() as (stripe_base, database_url):
        misses = asyncio.run(run(stripe_base, database_url, objects=given.objects))
    report = {"check": "odd_list", "objects": given.objects, "seconds": round(time.monotonic() - started)}
    finish(report, misses)


if __name__ == "__main__":
    main()
