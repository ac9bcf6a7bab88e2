"""The first fill of an account with many customers, against the time that Stripe's limit of its list leaves."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import reconcile
from benchmarks.reconcile import FILL_BAR, PER_SECOND
from benchmarks.verdicts import Bar, Part

CUSTOMERS = 100_000
"""With fewer, the start of a process and the last pages are a part of the time that a big account's fill has not."""
LATENCY_SECONDS = 0.3


def measure(*, customers: int, state: Path | None) -> Part:
    """From the start of the process to its end, at 25 pages a second of 0.3 seconds each."""
    part = Part("first fill")
    started = time.monotonic()
    with reconcile.settled(customers - reconcile.SUBSCRIBERS, LATENCY_SECONDS, state) as operator:
        made = time.monotonic() - started
        found = reconcile.fill(operator, customers)
    part.failed = 0 if found["whole"] else 1
    if customers >= CUSTOMERS:
        what = f"first fill of {customers:,} customers: times the floor of the rate"
        part.bars.append(Bar(what, [found["ratio"]], FILL_BAR, at_most=True))
    part.notes = [
        f"{found['seconds']:.1f} s, {found['seconds_asking']:.1f} s of them asking",
        f"the floor of the rate is {found['floor_seconds']:.1f} s",
        f"{found['page_requests']:,} pages asked for {found['pages']:,} full ones",
        f"memory of the process: {found['peak_mb'] or 'unknown'} MB at most",
        f"the busiest second of one list saw {found['busiest_second_endpoint']} calls of {PER_SECOND}",
        f"the account was made in {made:.0f} s",
    ]
    part.figures = [found]
    return part
