"""Metrics of the whole installation that are read from the database: counts, operations and workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.mirror import late_effects, refused_deliveries
from app.operating import workers_store
from app.operating.workers_store import Workers
from app.operations import backlog_store
from app.operations.backlog_store import Backlog
from app.postgres import installation_counts
from app.postgres.database import Connection

Totals = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Installation:
    """The state of the installation, as the database had it."""

    backlog: Backlog
    workers: Workers
    counts: Mapping[str, Totals]


async def read(connection: Connection) -> Installation:
    """Read the state in three statements on small indexes and small tables."""
    return Installation(
        await backlog_store.backlog(connection),
        await workers_store.workers(connection),
        await installation_counts.totals(connection),
    )


def families(state: Installation) -> Iterable[Metric]:
    """Yield the metrics of a state. One without a value is left out: 0 would say that it is fine."""
    operations = GaugeMetricFamily(
        "coseat_operations", "Operations that are not settled, by state", labels=["state"]
    )
    operations.add_metric(["running"], state.backlog.running)
    operations.add_metric(["awaiting_payment"], state.backlog.awaiting_payment)
    yield operations
    yield GaugeMetricFamily(
        "coseat_operations_oldest_seconds",
        "Time since the oldest running operation was admitted, 0 if none runs",
        state.backlog.oldest,
    )
    yield GaugeMetricFamily(
        "coseat_reservations",
        "Seats that unsettled operations and open invitations reserve",
        state.backlog.reservations,
    )
    yield GaugeMetricFamily("coseat_workers", "Workers that reported within 30 seconds", state.workers.number)
    if state.workers.last is not None:
        yield GaugeMetricFamily(
            "coseat_worker_last_report_seconds",
            "Time since the newest report of a worker",
            state.workers.last,
        )
    refused = CounterMetricFamily(
        "coseat_webhook_refused", "Deliveries that were refused, by reason", labels=["reason"]
    )
    late = CounterMetricFamily(
        "coseat_late_effects",
        "Writes that took effect after their operation was settled, by kind of object",
        labels=["kind"],
    )
    for family, name, known in (
        (refused, refused_deliveries.NAME, refused_deliveries.REMEDIES),
        (late, late_effects.NAME, late_effects.KINDS),
    ):
        for label, number in {**dict.fromkeys(known, 0), **state.counts.get(name, {})}.items():
            family.add_metric([label], number)
        yield family


class InstallationCollector(Collector):
    """Shows the state that was read last. Before the first reading it shows nothing."""

    def __init__(self) -> None:
        self._state: Installation | None = None

    def show(self, state: Installation) -> None:
        """Show this state from now on."""
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of the state."""
        return () if self._state is None else families(self._state)


COLLECTOR = InstallationCollector()
REGISTRY.register(COLLECTOR)
