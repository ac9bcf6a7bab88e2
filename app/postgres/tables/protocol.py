"""The tables of the write protocol: operations, their steps, and the seats that they reserve."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    collate,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ENUM, JSONB, UUID

from app.postgres.tables.columns import instant, json_column, metadata, text_column

OPERATION_KINDS = (
    "member_change",
    "leave",
    "transfer",
    "accept_invitation",
    "cleanup",
    "move",
    "add_subscription",
    "update_subscription",
    "cancel_subscription",
    "resume_subscription",
)
STEP_ACTIONS = (
    "set_owner",
    "remove",
    "update",
    "buy_seats",
    "add",
    "release_seats",
    "add_subscription",
    "update_subscription",
    "cancel_subscription",
    "resume_subscription",
)


# The states and what they mean are in app/operations/lifecycle.py; a test compares the names.
UNSETTLED_STATES = ("planned", "in_flight", "ambiguous", "expired", "awaiting_payment")
SETTLED_STATES = ("applied", "unchanged", "refused", "failed")


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


operations = Table(
    "operations",
    metadata,
    Column("id", Text, primary_key=True),
    text_column("subscription_id", required=True),
    Column("kind", ENUM(*OPERATION_KINDS, name="operation_kind"), nullable=False),
    text_column("state", required=True),
    text_column("principal", required=True),
    text_column("actor_id"),
    text_column("source", required=True),
    json_column("request", required=True),
    Column("lease_token", UUID(as_uuid=True)),
    instant("lease_until"),
    instant("created_at", default=True),
    instant("settled_at"),
    Column("seat_total", BigInteger, comment="the seats after it, where it changes their number"),
    Column("trace_context", Text, comment="the trace of its request, in the form of a traceparent header"),
    CheckConstraint("state in ('running', 'settled')", name="state"),
    CheckConstraint("(state = 'settled') = (settled_at is not null)", name="settled"),
    # A settled operation has no lease. A running one has that of its runner, or an old one until a worker takes it.
    CheckConstraint("(state = 'running') = (lease_until is not null)", name="lease_until"),
    CheckConstraint("(lease_token is null) = (lease_until is null)", name="lease_token"),
    CheckConstraint("seat_total >= 0", name="seat_total"),
)
Index(None, operations.c.subscription_id, operations.c.created_at.desc(), operations.c.id)
Index(
    "ix_operations_unsettled",
    operations.c.created_at,
    postgresql_where=text("settled_at is null"),
)
# Retention finds the oldest by it.
Index(
    "ix_operations_settled",
    operations.c.settled_at,
    postgresql_where=text("settled_at is not null"),
)

operation_steps = Table(
    "operation_steps",
    metadata,
    Column("operation_id", Text, primary_key=True),
    Column("position", SmallInteger, primary_key=True),
    text_column("subscription_id", required=True),
    text_column("action", required=True),
    text_column("customer_id"),
    text_column("email"),
    text_column("role"),
    text_column("role_before"),
    text_column("state", required=True),
    text_column("code"),
    json_column("details", required=True),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    instant("sent_at"),
    Column(
        "unanswered_at",
        DateTime(timezone=True),
        comment="when the last request without an answer was sent",
    ),
    instant("settled_at"),
    Column("invoice_id", Text, comment="the invoice that proves the payment of a purchase that waits for it"),
    Column("update_expires_at", BigInteger, comment="Unix seconds: when Stripe drops a change that waits"),
    instant("payment_until"),
    Column("end_code", Text, comment="why a purchase that waits is to end"),
    Column("awaits_seats", Boolean, nullable=False, server_default=text("false")),
    Column("invitation_id", Text, comment="the invitation that it accepts, or whose seat it fills"),
    Column(
        "writes", JSONB, comment="the metadata that every attempt writes, chosen before the first sending"
    ),
    # `sent_at` belongs to the key of the current attempt. It is null before the first key and between two keys.
    CheckConstraint(f"state in ({_quoted(UNSETTLED_STATES + SETTLED_STATES)})", name="state"),
    CheckConstraint(f"(state in ({_quoted(SETTLED_STATES)})) = (settled_at is not null)", name="settled"),
    CheckConstraint("state <> 'in_flight' or sent_at is not null", name="in_flight"),
    CheckConstraint(
        "state not in ('planned', 'ambiguous', 'expired') or sent_at is null", name="not_in_flight"
    ),
    CheckConstraint("sent_at is not null or unanswered_at is null", name="unanswered"),
    CheckConstraint("attempt >= 0 and (state <> 'planned' or attempt = 0)", name="attempt"),
    CheckConstraint("state not in ('ambiguous', 'expired') or attempt > 0", name="later_attempt"),
    CheckConstraint("(state in ('refused', 'failed')) = (code is not null)", name="code"),
    CheckConstraint(f"action in ({_quoted(STEP_ACTIONS)})", name="action"),
    CheckConstraint(
        "action not in ('add', 'remove', 'update') or customer_id is not null or email is not null",
        name="person",
    ),
    CheckConstraint("role in ('manager', 'user') and role_before in ('manager', 'user')", name="role"),
    CheckConstraint("state <> 'awaiting_payment' or invoice_id is not null", name="invoice"),
    CheckConstraint("not awaits_seats or action = 'add'", name="awaits_seats"),
    CheckConstraint("invitation_id is null or action in ('add', 'update')", name="invitation"),
)
Index(
    "ix_operation_steps_paid_without_effect",
    operation_steps.c.settled_at,
    postgresql_where=text("code = 'paid_without_effect' and invoice_id is not null"),
)
Index(
    "ix_operation_steps_awaiting_payment",
    operation_steps.c.subscription_id,
    postgresql_where=text("state = 'awaiting_payment'"),
)
# Erasure finds steps by the person that they name.
Index(
    "ix_operation_steps_named_customer",
    operation_steps.c.customer_id,
    postgresql_where=text("email is not null"),
)
Index(
    "ix_operation_steps_email_lower",
    func.lower(collate(operation_steps.c.email, "C")),
    postgresql_where=text("email is not null"),
)
Index(
    "ix_operation_steps_unsettled_customer",
    operation_steps.c.customer_id,
    postgresql_where=text("settled_at is null"),
)
Index(
    "ix_operation_steps_unsettled_invitation",
    operation_steps.c.invitation_id,
    postgresql_where=text("settled_at is null and invitation_id is not null"),
)

reservations = Table(
    "reservations",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    text_column("operation_id"),
    Column("position", SmallInteger),
    text_column("subscription_id", required=True),
    text_column("customer_id"),
    text_column("email"),
    instant("created_at", default=True),
    instant("released_at"),
    Column("item_id", Text, comment="the item that is to give the seat, for one that is bought first"),
    Column("from_quantity", BigInteger, comment="the item's quantity from which such a seat counts"),
    Column("moves_from", Text, comment="the member whose seat moves to this customer: both count as one"),
    Column(
        "invitation_id", Text, comment="the invitation whose seat it is; it names nobody between acceptances"
    ),
    Column("slot", Text, comment="the metadata key that the addition writes, from its first sending"),
    UniqueConstraint("operation_id", "position"),
    # A seat that is bought first names nobody until it is paid, and neither does the seat of an open invitation.
    CheckConstraint(
        "(customer_id is null and email is null) = (from_quantity is not null or operation_id is null)",
        name="person",
    ),
    CheckConstraint("(operation_id is null) = (position is null)", name="step"),
    CheckConstraint("operation_id is not null or invitation_id is not null", name="holder"),
    CheckConstraint("(item_id is null) = (from_quantity is null)", name="item"),
)
# A person is promised a seat of a subscription once. A slot of a customer, and the creation of an e-mail's customer,
# belong to one addition until nothing of it may take effect any more.
Index(
    "uq_reservations_live_customer",
    reservations.c.customer_id,
    reservations.c.subscription_id,
    unique=True,
    postgresql_where=text("released_at is null and customer_id is not null"),
)
Index(
    "uq_reservations_live_email",
    reservations.c.email,
    reservations.c.subscription_id,
    unique=True,
    postgresql_where=text("released_at is null and customer_id is null"),
)
Index(
    "uq_reservations_live_invitation",
    reservations.c.invitation_id,
    unique=True,
    postgresql_where=text("released_at is null and invitation_id is not null"),
)
Index(
    "uq_reservations_live_slot",
    reservations.c.customer_id,
    reservations.c.slot,
    unique=True,
    postgresql_where=text("released_at is null and customer_id is not null and slot is not null"),
)
Index(
    "uq_reservations_live_creation",
    reservations.c.email,
    unique=True,
    postgresql_where=text("released_at is null and customer_id is null and slot is not null"),
)
Index(None, reservations.c.subscription_id, postgresql_where=text("released_at is null"))
Index(
    "ix_reservations_released",
    reservations.c.released_at,
    postgresql_where=text("released_at is not null"),
)
