"""`python -m benchmarks`: runs the benchmarks and prints a table and one JSON line.

The exit code is 1 when a benchmark misses its bar or a request failed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from statistics import median

from benchmarks import reads
from benchmarks.rounds import Comparison, Round

HEADER = (
    f"{'target':<9} {'c':>3} {'requests/s':>11} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>7}   ratio (min..max)"
)


def _middle(turns: list[Round]) -> dict[str, float | None]:
    cpu = [turn.cpu for turn in turns if turn.cpu is not None]
    return {
        "rate": round(median(turn.measured.rate for turn in turns), 1),
        "p50_ms": round(median(turn.measured.p50 for turn in turns), 2),
        "p99_ms": round(median(turn.measured.p99 for turn in turns), 2),
        "cpu_us": round(median(cpu)) if cpu else None,
    }


def _row(name: str, connections: int, turns: list[Round], ratio: str) -> str:
    middle = _middle(turns)
    cpu = "-" if middle["cpu_us"] is None else f"{middle['cpu_us']:.0f}"
    figures = f"{middle['rate']:>11.0f} {middle['p50_ms']:>8.2f} {middle['p99_ms']:>8.2f} {cpu:>7}"
    return f"{name:<9} {connections:>3} {figures}   {ratio}"


def _report(found: list[Comparison], bar: float) -> bool:
    """Prints the table; whether every ratio reaches the bar and nothing failed."""
    print(HEADER)
    for one in found:
        print(_row("bare join", one.connections, one.reference, "1"))
        spread = f"{one.ratio:.2f} ({min(one.ratios):.2f}..{max(one.ratios):.2f})"
        print(_row("service", one.connections, one.subject, spread))
    failed = sum(one.failed for one in found)
    met = failed == 0 and all(one.ratio >= bar for one in found)
    print(
        f"bar: ratio {bar:.2f} at every concurrency, no failed request ({failed} failed): {'met' if met else 'MISSED'}"
    )
    return met


def _dumped(found: list[Comparison]) -> list[dict[str, object]]:
    return [
        {
            "connections": one.connections,
            "ratio": round(one.ratio, 3),
            "ratios": [round(ratio, 3) for ratio in one.ratios],
            "service": _middle(one.subject),
            "reference": _middle(one.reference),
            "failed": one.failed,
        }
        for one in found
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="two rounds of one second: a look, not a measurement"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds a concurrency (default 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds a target and round (default 3)")
    parser.add_argument("--state", type=Path, help="keep the benchmarks' PostgreSQL in this directory")
    given = parser.parse_args()
    rounds, seconds = (2, 1.0) if given.quick else (given.rounds, given.seconds)
    if rounds < 1 or seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    print(
        f"reads: getSharedSubscription, {reads.SUBSCRIPTIONS} subscriptions, {rounds} rounds of {seconds:g} s"
    )
    # Ended from outside, too, the servers stop and the database is dropped.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    found = reads.run(rounds=rounds, seconds=seconds, state=given.state)
    met = _report(found, reads.BAR)
    print(json.dumps({"benchmark": "reads", "met": met, "bar": reads.BAR, "results": _dumped(found)}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
