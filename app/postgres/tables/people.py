"""The tables of logins, and of who is or becomes a member or an owner."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Index,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from app.postgres.tables.columns import instant, metadata, text_column, yes_no

identities = Table(
    "identities",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    text_column("customer_id"),
    Column("creation_key", UUID(as_uuid=True), nullable=False, server_default=text("gen_random_uuid()")),
    instant("lease_until"),
    instant("created_at", default=True),
    instant("linked_at"),
)
Index(None, identities.c.customer_id, unique=True)

seat_customers = Table(
    "seat_customers",
    metadata,
    Column("customer_id", Text, primary_key=True),
    text_column("email", required=True),
    text_column("operation_id", required=True),
    instant("created_at", default=True),
    instant("claimed_at"),
)
Index(None, seat_customers.c.email, unique=True, postgresql_where=seat_customers.c.claimed_at.is_(None))

member_records = Table(
    "member_records",
    metadata,
    Column("subscription_id", Text, primary_key=True),
    Column("customer_id", Text, primary_key=True),
    text_column("typed_email"),
    instant("since", default=True),
    instant("left_at"),
)

transfers = Table(
    "transfers",
    metadata,
    Column("id", Text, primary_key=True),
    text_column("subscription_id", required=True),
    text_column("from_id"),
    text_column("to_id", required=True),
    yes_no("allow_purchases"),
    text_column("keep_me_as"),
    text_column("state", required=True),
    text_column("operation_id"),
    instant("created_at", default=True),
    instant("expires_at", nullable=False),
    instant("decided_at"),
)
Index(
    "uq_transfers_open",
    transfers.c.subscription_id,
    unique=True,
    postgresql_where=text("state = 'offered'"),
)

purchase_grants = Table(
    "purchase_grants",
    metadata,
    Column("subscription_id", Text, primary_key=True),
    text_column("payer_id", required=True),
    text_column("owner_id", required=True),
    instant("granted_at", default=True),
)
