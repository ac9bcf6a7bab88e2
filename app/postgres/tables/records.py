"""The tables of what was done, quoted, answered and counted."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from app.postgres.tables.columns import instant, json_column, metadata, text_column, whole, yes_no

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    text_column("subscription_id", required=True),
    instant("at", default=True),
    text_column("source", required=True),
    text_column("operation_id"),
    text_column("principal"),
    text_column("actor_id"),
    text_column("action", required=True),
    text_column("customer_id"),
    json_column("before", required=True),
    json_column("after", required=True),
)
Index(None, audit_events.c.subscription_id, audit_events.c.id.desc())

quotes = Table(
    "quotes",
    metadata,
    Column("id", Text, primary_key=True),
    text_column("subscription_id", required=True),
    text_column("principal", required=True),
    Column("change_hash", LargeBinary, nullable=False),
    Column("state_hash", LargeBinary, nullable=False),
    Column("proration_date", BigInteger, nullable=False),
    instant("expires_at", nullable=False),
    instant("used_at"),
    whole("quoted_at", required=True),
    text_column("currency", required=True),
    whole("amount_due", required=True),
    whole("credit", required=True),
    whole("credit_forgone", required=True),
    whole("tax", required=True),
    yes_no("crediting"),
)
Index(None, quotes.c.expires_at)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_hash", LargeBinary, nullable=False),
    Column("status", SmallInteger),
    json_column("headers"),
    Column("body", LargeBinary),
    instant("created_at", default=True),
    Column(
        "reused_at",
        DateTime(timezone=True),
        comment="when the key was used again, after an earlier use of it had expired",
    ),
)
Index(None, idempotency_keys.c.created_at)

request_rates = Table(
    "request_rates",
    metadata,
    Column("name", Text, primary_key=True),
    instant("full_at", nullable=False),
    prefixes=["unlogged"],
)

installation_counts = Table(
    "installation_counts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("since", DateTime(timezone=True), primary_key=True),
    whole("number", required=True),
)

workers = Table(
    "workers",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    text_column("host", required=True),
    instant("started_at", default=True),
    instant("reported_at", default=True),
)

schema_floor = Table(
    "schema_floor",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("number", Integer, nullable=False),
)
