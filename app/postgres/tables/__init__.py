"""Describe the tables. A test compares the migrations with this metadata; statements are SQL texts beside their use.

Instants from Stripe are whole Unix seconds; our own are timestamptz by the database's clock.
"""

from app.postgres.tables.columns import metadata
from app.postgres.tables.mirrored import (
    MIRRORED,
    customers,
    invoices,
    membership_counts,
    memberships,
    payment_methods,
    prices,
    products,
    subscriptions,
    unclaimed_counts,
)
from app.postgres.tables.people import (
    erasures,
    identities,
    invitations,
    member_records,
    purchase_grants,
    seat_customers,
    transfers,
)
from app.postgres.tables.protocol import (
    OPERATION_KINDS,
    SETTLED_STATES,
    STEP_ACTIONS,
    UNSETTLED_STATES,
    operation_steps,
    operations,
    reservations,
)
from app.postgres.tables.records import audit_events, idempotency_keys, quotes, request_rates, schema_floor
from app.postgres.tables.synchronisation import (
    account,
    list_scan_findings,
    list_scan_ranges,
    list_scans,
    payment_method_fills,
    rate_grants,
    rate_slowdown,
    refreshes,
    webhook_events,
)

__all__ = [
    "MIRRORED",
    "OPERATION_KINDS",
    "SETTLED_STATES",
    "STEP_ACTIONS",
    "UNSETTLED_STATES",
    "account",
    "audit_events",
    "customers",
    "erasures",
    "idempotency_keys",
    "identities",
    "invitations",
    "invoices",
    "list_scan_findings",
    "list_scan_ranges",
    "list_scans",
    "member_records",
    "membership_counts",
    "memberships",
    "metadata",
    "operation_steps",
    "operations",
    "payment_method_fills",
    "payment_methods",
    "prices",
    "products",
    "purchase_grants",
    "quotes",
    "rate_grants",
    "rate_slowdown",
    "refreshes",
    "request_rates",
    "reservations",
    "schema_floor",
    "seat_customers",
    "subscriptions",
    "transfers",
    "unclaimed_counts",
    "webhook_events",
]
