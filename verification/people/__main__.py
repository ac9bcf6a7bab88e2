"""`python -m verification.people`: seeded orders of what happens to people and their seats, judged at rest.

verification/README.md explains what is real and what each invariant means.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from testkit import servers
from verification.people.defects import DEFECTS
from verification.people.playing import catch, run
from verification.shares import each, end

FEWEST_DEFECTS = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.people", description=__doc__)
    parser.add_argument("--orders", type=int, default=2_000)
    parser.add_argument("--seed", default="20261127", help="the first part of every order's own seed")
    parser.add_argument("--replay", metavar="SEED", help="play one order and print it if something is wrong")
    parser.add_argument("--processes", type=int, default=1, help="orders played at the same time")
    parser.add_argument(
        "--defects", action="store_true", help="plant the defects as well; each must be caught"
    )
    parser.add_argument("--defect-orders", type=int, default=100, help="orders a defect, at most")
    parser.add_argument("--state", type=Path, help="keep PostgreSQL in this directory")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, end)
    started = time.monotonic()
    seeds = [given.replay] if given.replay else [f"{given.seed}/{n}" for n in range(given.orders)]
    tried = [f"{given.seed}/{n}" for n in range(given.defect_orders)]
    with ExitStack() as stack:
        urls = [
            stack.enter_context(servers.database(f"orders{number}", given.state, fast=True))
            for number in range(given.processes)
        ]
        found = each(urls, run, seeds)
        caught = each(urls, partial(catch, seeds=tried), list(DEFECTS)) if given.defects else []
    is_met = not found and all(first for _, first in caught)
    result = {
        "verification": "people",
        "met": is_met and (not given.defects or len(caught) >= FEWEST_DEFECTS),
        "orders": len(seeds),
        "violations": dict(sorted(Counter(one.split()[1] for one in found).items())),
        "shown": found[:40],
        "defects": len(caught),
        "defects_not_caught": [name for name, first in caught if first is None],
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(result))
    return 0 if result["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
