"""Gauges of the whole installation, the same in each process.

They are read from the database when a process is scraped.
"""

from __future__ import annotations

from prometheus_client import Gauge

from app.context import Context
from app.errors import BillingError
from app.mirror.store import refreshes
from app.mirror.store import scans as scan_rows
from app.operations import waiting_store

_UP = Gauge(
    "coseat_database_up",
    "1 while the database answers; otherwise the other gauges keep the values of its last answer",
)
_WANTED = Gauge("coseat_refreshes_wanted", "Objects that will be fetched again, including those not due yet")
_DUE = Gauge("coseat_refreshes_due", "Objects whose refresh may start now")
_OLDEST = Gauge("coseat_refreshes_oldest_due_seconds", "Seconds for which the oldest due refresh has waited")
_DEAD = Gauge("coseat_refreshes_dead", "Refreshes that were given up until they are replayed")
_DRIFT = Gauge("coseat_reconcile_drift", "Rows that the last reconcile found missing, stale or orphaned")
_AGE = Gauge("coseat_reconcile_age_seconds", "Time since the last reconcile ended")


_PAID_WITHOUT_EFFECT = Gauge(
    "coseat_paid_without_effect", "Purchases that were paid and never took effect: see `coseat doctor`"
)


async def update(context: Context) -> None:
    """Read all gauges from the database, in three statements on small indexes."""
    try:
        async with context.database.connection() as connection:
            state = await refreshes.state(connection)
            last = await scan_rows.last_reconcile(connection)
            without_effect = await waiting_store.paid_without_effect(connection)
    except BillingError:
        _UP.set(0)
        return
    _UP.set(1)
    _WANTED.set(state.wanted)
    _DUE.set(state.due)
    _OLDEST.set(max(0.0, state.oldest))
    _DEAD.set(state.dead)
    _PAID_WITHOUT_EFFECT.set(without_effect)
    if last is not None:
        _DRIFT.set((last["report"] or {}).get("drift", 0))
        _AGE.set(last["age"])
