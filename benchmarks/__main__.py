"""`python -m benchmarks`: reads, ingest, the first fill and the growth of teams, as one table and one JSON line.

Rounds are interleaved and ratios are taken within a round; what counts is their median. The exit code is 1 when a
bar is missed or a request failed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import first_fill, growth, ingest, reads
from benchmarks.verdicts import Part, print_verdicts
from testkit import seeding

PARTS = ("reads", "ingest", "fill", "growth")
QUICK_LARGE = 20_000
QUICK_CUSTOMERS = 20_000


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], help="these parts alone")
    parser.add_argument(
        "--quick", action="store_true", help="few and short rounds, small caches: a look, not a measurement"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds a concurrency (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds a target and round (default 3)")
    parser.add_argument(
        "--large", type=int, default=ingest.LARGE, help="subscriptions of the large cache, 0: none"
    )
    parser.add_argument("--fill-customers", type=int, default=first_fill.CUSTOMERS, help="of the first fill")
    parser.add_argument("--no-supabase", action="store_true", help="leave Supabase's engine out")
    parser.add_argument("--state", type=Path, help="keep the benchmarks' PostgreSQL in this directory")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.seconds = 2, 1.0
        given.large, given.fill_customers = QUICK_LARGE, QUICK_CUSTOMERS
    if given.rounds < 1 or given.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    if given.large % seeding.HOT:
        parser.error(f"--large must be a multiple of {seeding.HOT}")
    return given


def _run(given: argparse.Namespace) -> list[Part]:
    with ExitStack() as stack:
        needs_large = given.large and {"reads", "ingest"} & set(given.only)
        large = stack.enter_context(seeding.filled(given.large, given.state)) if needs_large else None
        runs: dict[str, Callable[[], Part]] = {
            "reads": lambda: reads.measure(
                rounds=given.rounds, seconds=given.seconds, state=given.state, large=large
            ),
            "ingest": lambda: ingest.measure(
                state=given.state,
                supabase=not given.no_supabase and ingest.has_npm(),
                large=large,
                connections=[*ingest.CONNECTIONS],
                rounds=given.rounds,
                seconds=given.seconds,
            ),
            "fill": lambda: first_fill.measure(customers=given.fill_customers, state=given.state),
            "growth": lambda: growth.measure(rounds=given.rounds, state=given.state),
        }
        parts = []
        for name in PARTS:
            if name in given.only:
                print(f"\n{name}", flush=True)
                parts.append(runs[name]())
    return parts


def main() -> int:
    given = _arguments()
    # Ended from outside, too, the servers stop and the databases are dropped.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    started = time.monotonic()
    parts = _run(given)
    met = all(part.met for part in parts)
    print_verdicts(parts)
    print(f"{time.monotonic() - started:.0f} s: {'every bar is met' if met else 'MISSED'}")
    print(json.dumps({"benchmark": "all", "met": met, **{part.name: part.dumped() for part in parts}}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
