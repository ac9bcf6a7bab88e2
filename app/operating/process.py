"""Metrics of one process: what it is, and how full it is."""

from __future__ import annotations

import hmac

from prometheus_client import Gauge

from app import __version__
from app.http.overload import ConcurrencyLimit
from app.postgres import schema
from app.postgres.database import Database

_BUILD = Gauge("coseat_build_info", "1, with what this process is made of", ["version", "schema"])
_REQUESTS = Gauge(
    "coseat_requests_in_process", "Requests of this process, by state: running or waiting", ["state"]
)
_CONNECTIONS = Gauge(
    "coseat_database_connections",
    "Connections of this process by pool and state (busy or idle), and callers that are waiting for one",
    ["pool", "state"],
)
_DELIVERIES = Gauge("coseat_deliveries_in_process", "Deliveries of Stripe that are not committed yet")


def may_read_metrics(authorization: bytes, token: str | None) -> bool:
    """Return True if a request's Authorization header has METRICS_TOKEN as its bearer, or if no token is set."""
    return token is None or hmac.compare_digest(authorization, f"Bearer {token}".encode())


def show_build() -> None:
    """Show the version of the service and the number of the schema that it needs."""
    _BUILD.labels(__version__, schema.HEAD).set(1)


def show_connections(database: Database) -> None:
    """Show how many connections to the database are busy and idle."""
    for pool, usage in database.usage().items():
        for state, number in usage._asdict().items():
            _CONNECTIONS.labels(pool, state).set(number)


def show_load(database: Database, requests: ConcurrencyLimit, *, deliveries: int) -> None:
    """Show how many requests, deliveries and connections to the database this process has in hand."""
    show_connections(database)
    _REQUESTS.labels("running").set(requests.working)
    _REQUESTS.labels("waiting").set(requests.waiting)
    _DELIVERIES.set(deliveries)
