"""create webhook endpoints

Revision: 0017, after 0016. Created: 2026-11-27.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '1s'"  # A waiting ALTER TABLE makes every query behind it wait.

INSTANT = sa.DateTime(timezone=True)
JSONB = postgresql.JSONB()
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "types",
            postgresql.ARRAY(sa.Text()),
            nullable=True,
            comment="the types of events that are sent; null: all",
        ),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("secret", sa.Text(), nullable=False, comment="encrypted"),
        sa.Column(
            "former_secret", sa.Text(), nullable=True, comment="encrypted; of before the last rotation"
        ),
        sa.Column("former_until", INSTANT, nullable=True),
        sa.Column(
            "queued_to",
            sa.BigInteger(),
            nullable=False,
            comment="the position up to which the queues are filled",
        ),
        sa.Column("created_at", INSTANT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
        sa.CheckConstraint("status in ('enabled', 'disabled')", name=op.f("ck_webhook_endpoints_status")),
    )
    op.create_table(
        "webhook_queues",
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column(
            "subscription_id", sa.Text(), nullable=False, comment="empty: events without a subscription"
        ),
        sa.Column("delivered_to", sa.BigInteger(), nullable=False),
        sa.Column(
            "next_position",
            sa.BigInteger(),
            nullable=True,
            comment="of the event at the head; null: all were delivered",
        ),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False, comment="of the event at the head"),
        sa.Column("failing_since", INSTANT, nullable=True),
        sa.Column("lease_token", sa.UUID(), nullable=True),
        sa.Column("lease_until", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("endpoint_id", "subscription_id", name="pk_webhook_queues"),
    )
    op.execute(
        "create index ix_webhook_queues_due on webhook_queues (endpoint_id, due_at) where next_position is not null"
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", JSONB, nullable=False),
        sa.Column("again_at", INSTANT, nullable=True, comment="when an operator wants it to be sent again"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.UniqueConstraint("endpoint_id", "position", name="uq_webhook_deliveries_endpoint_id_position"),
        sa.CheckConstraint("state in ('pending', 'delivered')", name=op.f("ck_webhook_deliveries_state")),
    )
    op.execute(
        "create index ix_webhook_deliveries_again on webhook_deliveries (endpoint_id) where again_at is not null"
    )
    # The log is young, so the index is made in no time.
    op.execute(
        "create index ix_events_without_subscription on events (position) where subscription_id is null"
    )


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    for name in ("webhook_deliveries", "webhook_queues", "webhook_endpoints"):
        op.execute(f"drop table {name}")
    op.execute("drop index ix_events_without_subscription")
