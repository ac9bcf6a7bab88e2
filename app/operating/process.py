"""Metrics of one process: what it is, and how full it is."""

from __future__ import annotations

from prometheus_client import Gauge

from app import __version__
from app.http.overload import ConcurrencyLimit
from app.postgres import schema

_BUILD = Gauge("coseat_build_info", "1, with what this process is made of", ["version", "schema"])
_REQUESTS = Gauge(
    "coseat_requests_in_process", "Requests of this process, by state: running or waiting", ["state"]
)
_DELIVERIES = Gauge("coseat_deliveries_in_process", "Deliveries of Stripe that are not committed yet")


def show_build() -> None:
    """Show the version of the service and the number of the schema that it needs."""
    _BUILD.labels(__version__, schema.HEAD).set(1)


def show_load(requests: ConcurrencyLimit, *, deliveries: int) -> None:
    """Show how many requests and deliveries this process has in hand."""
    _REQUESTS.labels("running").set(requests.working)
    _REQUESTS.labels("waiting").set(requests.waiting)
    _DELIVERIES.set(deliveries)
