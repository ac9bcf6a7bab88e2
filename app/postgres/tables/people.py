"""The tables of logins, and of who is or becomes a member or an owner."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Table,
    Text,
    collate,
    func,
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
    Column("linked_by", Text, comment="`claim`, `user_id`, `key` or `trigger`"),
    Column("email", Text, comment="the address that this login's token verified last, while it is theirs"),
    Column(
        "email_at", DateTime(timezone=True), comment="when a token of this login last verified an address"
    ),
    Column("seats_due", DateTime(timezone=True), comment="when to look for unclaimed seats of the address"),
    Column("acted_at", DateTime(timezone=True), comment="when an act of this login was last recorded"),
    CheckConstraint("linked_by in ('claim', 'user_id', 'key', 'trigger')", name="linked_by"),
)
Index(None, identities.c.customer_id, unique=True)
Index(None, identities.c.email, postgresql_where=identities.c.email.is_not(None))
Index(None, identities.c.seats_due, postgresql_where=identities.c.seats_due.is_not(None))

seat_customers = Table(
    "seat_customers",
    metadata,
    Column("customer_id", Text, primary_key=True),
    text_column("email", required=True),
    text_column("operation_id", required=True),
    instant("created_at", default=True),
    instant("claimed_at"),
    Column(
        "moved_by", Text, comment="the last operation that moves, or has moved, a seat to a login's customer"
    ),
    Column("deleting_at", DateTime(timezone=True), comment="when its deletion at Stripe began"),
)
Index(None, seat_customers.c.email, postgresql_where=seat_customers.c.claimed_at.is_(None))
Index(
    "ix_seat_customers_unclaimed",
    seat_customers.c.created_at,
    postgresql_where=seat_customers.c.claimed_at.is_(None),
)

member_records = Table(
    "member_records",
    metadata,
    Column("subscription_id", Text, primary_key=True),
    Column("customer_id", Text, primary_key=True),
    Column("typed_email", Text, comment="the address by which the seat was given, until its person acts"),
    instant("since", default=True),
    instant("left_at"),
)
Index(None, member_records.c.customer_id, postgresql_where=member_records.c.typed_email.is_not(None))
Index(
    "ix_member_records_typed_email_lower",
    func.lower(collate(member_records.c.typed_email, "C")),
    postgresql_where=member_records.c.typed_email.is_not(None),
)

erasures = Table(
    "erasures",
    metadata,
    Column("customer_id", Text, primary_key=True),
    Column("email", Text, comment="of the deleted customer, until it is erased elsewhere"),
    instant("noted_at", default=True),
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
