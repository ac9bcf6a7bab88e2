"""Gauges of the whole installation, the same in each process.

They are read from the database when a process is scraped.
"""

from __future__ import annotations

import asyncio
import time

from prometheus_client import REGISTRY, Gauge

from app.context import Context
from app.errors import BillingError
from app.events.store import deliveries
from app.mirror.store import event_looks, refreshes, unreadable
from app.mirror.store import scans as scan_rows
from app.operating import installation, workers_store
from app.operations import waiting_store


class KnownGauge:
    """A gauge that is shown only while its value is known: 0 would say that it is fine."""

    def __init__(self, gauge: Gauge) -> None:
        """Take a gauge that is in no registry."""
        self._gauge = gauge
        self._shown = False

    def set(self, value: float | None) -> None:
        """Show this value; with None show the gauge no more."""
        if value is not None:
            self._gauge.set(value)
        if (value is not None) == self._shown:
            return
        (REGISTRY.unregister if self._shown else REGISTRY.register)(self._gauge)
        self._shown = value is not None


_UP = Gauge(
    "coseat_database_up",
    "1 while the database answers; otherwise the other gauges keep the values of its last answer",
)
_WRITABLE = Gauge(
    "coseat_database_writable",
    "1 while the database takes writes, 0 if it only answers reads: then no worker can report that it runs",
)
_WANTED = Gauge("coseat_refreshes_wanted", "Objects that will be fetched again, including those not due yet")
_DUE = Gauge("coseat_refreshes_due", "Objects whose refresh may start now")
_OLDEST = Gauge("coseat_refreshes_oldest_due_seconds", "Seconds for which the oldest due refresh has waited")
_DEAD = Gauge("coseat_refreshes_dead", "Refreshes that were given up until they are replayed")
_UNREADABLE = Gauge("coseat_unreadable_objects", "Objects of Stripe that cannot be read: see `coseat doctor`")
_PAID_WITHOUT_EFFECT = Gauge(
    "coseat_paid_without_effect",
    "Purchases that were paid, never took effect and are not acknowledged: see `coseat doctor`",
)
_DRIFT = KnownGauge(
    Gauge(
        "coseat_reconcile_drift",
        "Rows that the last reconcile found missing, stale or orphaned, dry runs aside; absent until one ran",
        registry=None,
    )
)
_AGE = KnownGauge(
    Gauge(
        "coseat_reconcile_age_seconds",
        "Time since the last reconcile ended, dry runs aside; absent until one ran",
        registry=None,
    )
)
_EVENTS_LOST = KnownGauge(
    Gauge(
        "coseat_events_lost",
        "Events of the last hourly look that never arrived; absent until a worker looked",
        registry=None,
    )
)
_LAST_ACCEPTED = KnownGauge(
    Gauge(
        "coseat_events_last_accepted_seconds",
        "Time since an event of this account and mode was accepted; absent until one was",
        registry=None,
    )
)
_CLOCK_SKEW = Gauge(
    "coseat_clock_skew_seconds",
    "Seconds by which the clock of this process is ahead of another clock, negative if it is behind",
    ["against"],
)


ANSWER_SECONDS = 1.5
"""Seconds after which the database counts as away. A scrape that waited longer would be given up, and a process that
lives would look dead."""

_UNDELIVERED = Gauge(
    "coseat_events_oldest_undelivered_seconds",
    "Age of the oldest event that an enabled endpoint has not taken",
)
_FAILURES = Gauge(
    "coseat_webhook_endpoint_failures",
    "Tries in a row that failed, over all queues of an endpoint",
    ["endpoint"],
)
_UNTOLD = Gauge("coseat_events_oldest_untold_seconds", "Age of the oldest change of which no event was made")


async def update(context: Context) -> None:
    """Read all gauges from the database, within ANSWER_SECONDS."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS), context.database.reading() as connection:
            state = await refreshes.state(connection)
            last = await scan_rows.last_reconcile(connection, dry_runs=False)
            look = await event_looks.last(connection)
            last_accepted = await event_looks.last_accepted(connection)
            ahead = await event_looks.clock_ahead(connection, now=time.time())
            cannot_be_read = await unreadable.count(connection)
            without_effect = await waiting_store.paid_without_effect(connection)
            backlog = await deliveries.backlog(connection)
            untold = await deliveries.oldest_fact(connection)
            installed = await installation.read(connection)
    except (BillingError, TimeoutError):
        _UP.set(0)
        return
    installation.COLLECTOR.show(installed)
    _UP.set(1)
    # A worker's report is proof. Without one, the database or the workers may be at fault.
    _WRITABLE.set(installed.workers.number > 0 or await workers_store.can_report(context.database))
    _WANTED.set(state.wanted)
    _DUE.set(state.due)
    _OLDEST.set(max(0.0, state.oldest))
    _DEAD.set(state.dead)
    _UNREADABLE.set(cannot_be_read)
    _EVENTS_LOST.set(None if look is None else look.lost)
    _LAST_ACCEPTED.set(last_accepted)
    _CLOCK_SKEW.labels("postgres").set(ahead)
    if (skew := context.stripe.clock_skew) is not None:
        _CLOCK_SKEW.labels("stripe").set(skew)
    _PAID_WITHOUT_EFFECT.set(without_effect)
    _UNTOLD.set(untold)
    enabled = [one for one in backlog if one["status"] == "enabled"]
    _UNDELIVERED.set(max((one["oldest_seconds"] or 0.0 for one in enabled), default=0.0))
    _FAILURES.clear()
    for one in enabled:
        _FAILURES.labels(one["id"]).set(one["failures"])
    _DRIFT.set(None if last is None else (last["report"] or {}).get("drift", 0))
    _AGE.set(None if last is None else last["age"])
