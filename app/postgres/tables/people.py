"""The tables of logins, and of who is or becomes a member or an owner."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
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
    Column("kept_at", DateTime(timezone=True), comment="when it was found to be in use at Stripe"),
    Column("emptied_at", DateTime(timezone=True), comment="when its last membership ended"),
)
Index(None, seat_customers.c.email, postgresql_where=seat_customers.c.claimed_at.is_(None))
Index(
    "ix_seat_customers_unclaimed",
    seat_customers.c.created_at,
    postgresql_where=seat_customers.c.claimed_at.is_(None),
)

Index(
    "ix_seat_customers_emptied",
    seat_customers.c.emptied_at,
    postgresql_where=text("emptied_at is not null and claimed_at is null and kept_at is null"),
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

invitations = Table(
    "invitations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    text_column("subscription_id", required=True),
    Column("email", Text, comment="as it was typed; null 30 days after the end, and at the person's erasure"),
    text_column("role", required=True),
    text_column("state", required=True),
    text_column("reason"),
    Column("generation", Integer, nullable=False, server_default=text("1")),
    Column("inviter_id", Text, comment="the customer on whose right it rests; null: a service key"),
    instant("created_at", default=True),
    instant("expires_at", nullable=False),
    instant("ended_at"),
    Column("acceptor_id", Text, comment="the customer of the last acceptance"),
    Column("operation_id", Text, comment="the operation of the last acceptance"),
    CheckConstraint("role in ('manager', 'user')", name="role"),
    CheckConstraint("state in ('open', 'accepted', 'declined', 'expired', 'revoked')", name="state"),
    CheckConstraint("(state = 'open') = (ended_at is null)", name="ended"),
    CheckConstraint("generation >= 1", name="generation"),
    CheckConstraint("(acceptor_id is null) = (operation_id is null)", name="acceptance"),
)
Index(None, invitations.c.subscription_id, invitations.c.number.desc())
Index(
    "uq_invitations_open_email",
    invitations.c.subscription_id,
    func.lower(collate(invitations.c.email, "C")),
    unique=True,
    postgresql_where=text("state = 'open'"),
)
Index(
    "ix_invitations_open_inviter",
    invitations.c.inviter_id,
    postgresql_where=text("state = 'open' and inviter_id is not null"),
)
Index("ix_invitations_open_expires_at", invitations.c.expires_at, postgresql_where=text("state = 'open'"))
Index(
    "ix_invitations_email_lower",
    func.lower(collate(invitations.c.email, "C")),
    postgresql_where=invitations.c.email.is_not(None),
)
Index(
    "ix_invitations_ended_at",
    invitations.c.ended_at,
    postgresql_where=text("email is not null and ended_at is not null"),
)
