"""The tables of the events that the application learns of.

See docs/decisions/0052-number-events-after-their-transaction.md.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from app.postgres.tables.columns import instant, json_column, metadata, text_column, whole, yes_no

# Written by triggers in the transaction of the fact, deleted by the transaction that writes its events.
event_facts = Table(
    "event_facts",
    metadata,
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column(
        "kind", Text, nullable=False, comment="an event's type, or `owner` or `product`: look at it again"
    ),
    text_column("subscription_id"),
    text_column("customer_id"),
    text_column("product_id"),
    text_column("source", required=True),
    text_column("operation_id"),
    json_column("data", required=True),
    instant("at", default=True),
)

events = Table(
    "events",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    text_column("id", required=True),
    text_column("type", required=True),
    instant("created", nullable=False),
    text_column("subscription_id"),
    whole("sequence"),
    whole("previous_sequence"),
    text_column("customer_id"),
    json_column("data", required=True),
    UniqueConstraint("subscription_id", "sequence"),
)
Index(None, events.c.id)
Index(
    None,
    events.c.subscription_id,
    events.c.position,
    postgresql_where=events.c.subscription_id.is_not(None),
)

# One row. The writer of events holds its lock, so that positions are committed in their order.
event_log = Table(
    "event_log",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("position", BigInteger, nullable=False, comment="of the newest event"),
    Column("purged_to", BigInteger, nullable=False, comment="of the newest event that was deleted"),
    Column(
        "sequence_floor",
        BigInteger,
        nullable=False,
        comment="no later event has this sequence or a lower one",
    ),
    Column(
        "filled_until",
        BigInteger,
        comment="transactions before this one may not know that the copy is filled",
    ),
    Column(
        "opened_to", Text, comment="the last subscription whose state was taken in before the first event"
    ),
    instant("opened_at"),
)

event_streams = Table(
    "event_streams",
    metadata,
    Column("subscription_id", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False, comment="of its newest event"),
    Column("owner_id", Text, comment="as the last event said"),
    Column("total", BigInteger, comment="of seats, as the last event said; null: it was never shared"),
)

access_states = Table(
    "access_states",
    metadata,
    Column("customer_id", Text, primary_key=True),
    Column("product_id", Text, primary_key=True),
    whole("revision", required=True),
    yes_no("has_access"),
    text_column("via"),
    text_column("role"),
    text_column("subscription_id"),
)
Index(
    None,
    access_states.c.subscription_id,
    access_states.c.customer_id,
    postgresql_where=access_states.c.subscription_id.is_not(None),
)

event_expansions = Table(
    "event_expansions",
    metadata,
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column("subscription_id", Text, comment="whose customers' access is judged again"),
    Column("product_id", Text, comment="whose subscriptions' seats are counted again"),
    text_column("source", required=True),
    text_column("operation_id"),
    Column("of_product", Boolean, nullable=False, comment="its cause is a product, not the subscription"),
    Column("reached", Text, nullable=False, comment="the last customer, or subscription, that was looked at"),
    UniqueConstraint("subscription_id"),
    UniqueConstraint("product_id"),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    text_column("url", required=True),
    text_column("description"),
    Column("types", ARRAY(Text), comment="the types of events that are sent; null: all"),
    text_column("status", required=True),
    text_column("disabled_reason"),
    Column("secret", Text, nullable=False, comment="encrypted"),
    Column("former_secret", Text, comment="encrypted; of before the last rotation"),
    instant("former_until"),
    Column("queued_to", BigInteger, nullable=False, comment="the position up to which the queues are filled"),
    instant("created_at", default=True),
    CheckConstraint("status in ('enabled', 'disabled')", name="status"),
)

webhook_queues = Table(
    "webhook_queues",
    metadata,
    Column("endpoint_id", Text, primary_key=True),
    Column("subscription_id", Text, primary_key=True, comment="empty: events without a subscription"),
    whole("delivered_to", required=True),
    Column("next_position", BigInteger, comment="of the event at the head; null: all were delivered"),
    instant("due_at", nullable=False),
    Column("failures", Integer, nullable=False, comment="of the event at the head"),
    instant("failing_since"),
    Column("lease_token", UUID(as_uuid=True)),
    instant("lease_until"),
)
Index(
    "ix_webhook_queues_due",
    webhook_queues.c.endpoint_id,
    webhook_queues.c.due_at,
    postgresql_where=webhook_queues.c.next_position.is_not(None),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    text_column("endpoint_id", required=True),
    whole("position", required=True),
    text_column("event_id", required=True),
    text_column("state", required=True),
    json_column("attempts", required=True),
    Column("again_at", DateTime(timezone=True), comment="when an operator wants it to be sent again"),
    UniqueConstraint("endpoint_id", "position"),
    CheckConstraint("state in ('pending', 'delivered')", name="state"),
)
Index(
    "ix_webhook_deliveries_again",
    webhook_deliveries.c.endpoint_id,
    postgresql_where=webhook_deliveries.c.again_at.is_not(None),
)
Index(
    "ix_events_without_subscription", events.c.position, postgresql_where=events.c.subscription_id.is_(None)
)
