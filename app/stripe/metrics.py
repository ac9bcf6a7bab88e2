"""Metrics of the calls of this process to Stripe.

`call` is a method with a path template, and never a path, so no id appears. See docs/reference/metrics.md.
"""

from __future__ import annotations

from typing import Final, Literal

from prometheus_client import Counter, Gauge, Histogram

Outcome = Literal[
    "ok", "rejected", "limited", "error", "unauthorized", "unreachable", "timeout", "unreadable"
]

CALLS: Final = Counter("coseat_stripe_calls", "Requests to Stripe, by call and outcome", ["call", "outcome"])
SECONDS: Final = Histogram(
    "coseat_stripe_call_seconds",
    "Time of a request to Stripe, by call",
    ["call"],
    buckets=(0.1, 0.25, 0.5, 1, 2, 4, 8),
)
BREAKER: Final = Gauge(
    "coseat_stripe_breaker", "Breaker of a kind of work: 0 closed, 1 a probe is on its way, 2 open", ["kind"]
)
