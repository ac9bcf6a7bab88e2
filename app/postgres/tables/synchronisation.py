"""The tables by which the copy follows Stripe, and the budget of requests to it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from app.postgres.tables.columns import instant, json_column, metadata, seconds, text_column, whole, yes_no

webhook_events = Table(
    "webhook_events",
    metadata,
    Column("id", Text, primary_key=True),
    text_column("type", required=True),
    text_column("object_id"),
    seconds("created"),
    text_column("outcome", required=True),
    instant("received_at", default=True),
)
Index(None, webhook_events.c.received_at)

refreshes = Table(
    "refreshes",
    metadata,
    Column("id", Text, primary_key=True),
    text_column("kind", required=True),
    Column(
        "notifications",
        BigInteger,
        nullable=False,
        comment="not applied yet; 0: nothing is to be fetched",
    ),
    Column(
        "notified_at",
        BigInteger,
        nullable=False,
        comment="created, or Date, of the newest notification",
    ),
    instant("not_before", default=True),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("lease_token", UUID(as_uuid=True)),
    instant("lease_until"),
    text_column("last_error"),
    instant("dead_at"),
)
Index(
    "ix_refreshes_due",
    refreshes.c.not_before,
    postgresql_where=text("notifications > 0 and dead_at is null"),
)
# Without `lease_token`: a lease that is taken or released changes no column of an index.
Index(
    "ix_refreshes_applied",
    refreshes.c.not_before,
    postgresql_where=text("notifications = 0 and dead_at is null"),
)
Index("ix_refreshes_dead", refreshes.c.dead_at, postgresql_where=refreshes.c.dead_at.is_not(None))

unreadable_objects = Table(
    "unreadable_objects",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    text_column("reason", required=True),
    instant("since", default=True),
)

event_looks = Table(
    "event_looks",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    instant("looked_at", nullable=False),
    Column("reached", BigInteger, nullable=False, comment="by Stripe's clock"),
    whole("seen", required=True),
    whole("lost", required=True),
    yes_no("is_complete"),
)

payment_method_fills = Table(
    "payment_method_fills",
    metadata,
    Column("customer_id", Text, primary_key=True),
    instant("filled_at", default=True),
)

account = Table(
    "account",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    text_column("id", required=True),
    yes_no("livemode"),
    instant("filled_at"),
)

exclusive_work = Table(
    "exclusive_work",
    metadata,
    Column("name", Text, primary_key=True),
    Column("lease_token", UUID(as_uuid=True), nullable=False),
    instant("lease_until", nullable=False),
)

list_scans = Table(
    "list_scans",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    text_column("purpose", required=True),
    yes_no("dry_run"),
    Column("fence", BigInteger, nullable=False, comment="counted up by every process that takes the scan"),
    Column("planned_at", BigInteger, nullable=False, comment="by Stripe's clock"),
    instant("started_at", default=True),
    instant("finished_at"),
    text_column("outcome"),
    json_column("report"),
)
Index(None, list_scans.c.purpose, list_scans.c.id.desc())

list_scan_ranges = Table(
    "list_scan_ranges",
    metadata,
    Column("scan_id", BigInteger, primary_key=True),
    Column("position", Integer, primary_key=True),
    text_column("kind", required=True),
    Column("created_from", BigInteger, nullable=False),
    Column("created_to", BigInteger, comment="inclusive; null: up to now"),
    text_column("last_id"),
    seconds("last_created"),
    Column(
        "open_ids",
        ARRAY(Text),
        nullable=False,
        comment="seen in second `last_created`, with which the next page may begin",
    ),
    whole("pages", required=True),
    whole("objects", required=True),
    instant("finished_at"),
)

list_scan_findings = Table(
    "list_scan_findings",
    metadata,
    Column("scan_id", BigInteger, primary_key=True),
    Column("object_id", Text, primary_key=True),
    text_column("kind", required=True),
    text_column("finding", required=True),
    text_column("outcome"),
)

rate_grants = Table(
    "rate_grants",
    metadata,
    instant("granted_at", nullable=False),
    instant("counts_until", nullable=False),
    text_column("work", required=True),
    text_column("endpoint", required=True),
    Column("number", Integer, nullable=False),
    prefixes=["unlogged"],
)

rate_slowdown = Table(
    "rate_slowdown",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("factor", Float, nullable=False),
    instant("since", nullable=False),
    prefixes=["unlogged"],
)
