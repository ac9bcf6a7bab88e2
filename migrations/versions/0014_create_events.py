"""create events

Revision: 0014, after 0013. Created: 2026-11-27.

It only adds: an older release goes on writing what it did, and the triggers note its facts.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.postgres.sql_files import read_statements

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '1s'"  # A waiting ALTER TABLE makes every query behind it wait.

INSTANT = sa.DateTime(timezone=True)
JSONB = postgresql.JSONB()
NOW = sa.text("clock_timestamp()")

TABLES = ("event_facts", "events", "event_log", "event_streams", "access_states", "event_expansions")
SQL_FILES = ("record_fact", "record_membership_change", "record_subscription_change", "record_facts")


def create_facts() -> None:
    op.create_table(
        "event_facts",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment="an event's type, or `owner` or `product`: look at it again",
        ),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("product_id", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.Text(), nullable=True),
        sa.Column("data", JSONB, nullable=False),
        sa.Column("at", INSTANT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("number", name="pk_event_facts"),
    )
    # Each fact is deleted soon. A vacuum after the usual fifth of the table would come too late for its index.
    op.execute(
        "alter table event_facts set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)"
    )


def create_log() -> None:
    op.create_table(
        "events",
        sa.Column("position", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("previous_sequence", sa.BigInteger(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("data", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_events"),
        sa.UniqueConstraint("subscription_id", "sequence", name="uq_events_subscription_id_sequence"),
    )
    op.execute(
        "create index ix_events_subscription_id_position on events (subscription_id, position)"
        " where subscription_id is not null"
    )
    op.create_table(
        "event_log",
        sa.Column("single", sa.Boolean(), nullable=False, server_default=sa.text("true")),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="of the newest event"),
        sa.Column(
            "purged_to", sa.BigInteger(), nullable=False, comment="of the newest event that was deleted"
        ),
        sa.Column(
            "sequence_floor",
            sa.BigInteger(),
            nullable=False,
            comment="no later event has this sequence or a lower one",
        ),
        sa.Column(
            "filled_until",
            sa.BigInteger(),
            nullable=True,
            comment="transactions before this one may not know that the copy is filled",
        ),
        sa.Column(
            "opened_to",
            sa.Text(),
            nullable=True,
            comment="the last subscription whose state was taken in before the first event",
        ),
        sa.Column("opened_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("single", name="pk_event_log"),
    )
    op.execute("insert into event_log (position, purged_to, sequence_floor) values (0, 0, 0)")


def create_states() -> None:
    op.create_table(
        "event_streams",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False, comment="of its newest event"),
        sa.Column("owner_id", sa.Text(), nullable=True, comment="as the last event said"),
        sa.Column(
            "total",
            sa.BigInteger(),
            nullable=True,
            comment="of seats, as the last event said; null: it was never shared",
        ),
        sa.PrimaryKeyConstraint("subscription_id", name="pk_event_streams"),
    )
    op.create_table(
        "access_states",
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("has_access", sa.Boolean(), nullable=False),
        sa.Column("via", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("customer_id", "product_id", name="pk_access_states"),
    )
    op.execute(
        "create index ix_access_states_subscription_id_customer_id on access_states (subscription_id, customer_id)"
        " where subscription_id is not null"
    )
    op.create_table(
        "event_expansions",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "subscription_id", sa.Text(), nullable=True, comment="whose customers' access is judged again"
        ),
        sa.Column(
            "product_id", sa.Text(), nullable=True, comment="whose subscriptions' seats are counted again"
        ),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.Text(), nullable=True),
        sa.Column(
            "of_product", sa.Boolean(), nullable=False, comment="its cause is a product, not the subscription"
        ),
        sa.Column(
            "reached",
            sa.Text(),
            nullable=False,
            comment="the last customer, or subscription, that was looked at",
        ),
        sa.PrimaryKeyConstraint("number", name="pk_event_expansions"),
        sa.UniqueConstraint("subscription_id", name="uq_event_expansions_subscription_id"),
        sa.UniqueConstraint("product_id", name="uq_event_expansions_product_id"),
    )


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    create_facts()
    create_log()
    create_states()
    for name in SQL_FILES:
        for statement in read_statements(name):
            op.execute(statement)


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    for table, trigger in (
        ("subscriptions", "record_subscription_insert"),
        ("customers", "record_customer_insert"),
        ("customers", "record_customer_existence"),
        ("products", "record_product_insert"),
        ("products", "record_product_flag"),
        ("operations", "record_operation_settled"),
        ("audit_events", "record_invitation"),
    ):
        op.execute(f"drop trigger {trigger} on {table}")
    for name in ("subscription_facts", "customer_fact", "product_fact", "operation_fact", "invitation_fact"):
        op.execute(f"drop function record_{name}")
    for name in TABLES:
        op.execute(f"drop table {name}")
    # The functions of older versions call it, and its file is that of this release.
    op.execute("""
        create or replace function record_fact(kind text, subscription_id text, customer_id text, product_id text,
            source text, operation_id text, data jsonb) returns void language plpgsql as $$ begin end $$""")
