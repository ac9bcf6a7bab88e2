"""count for the installation

Revision: 0012, after 0011. Created: 2026-11-27.

Counts and workers are shown by every API process, and an operation keeps the trace of its request.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '1s'"  # A waiting ALTER TABLE makes every query behind it wait.

INSTANT = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.create_table(
        "installation_counts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "label", "since", name="pk_installation_counts"),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("reported_at", INSTANT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.execute("alter table operations add column trace_context text")
    op.execute(
        "comment on column operations.trace_context is 'the trace of its request, in the form of a traceparent header'"
    )


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.execute("alter table operations drop column trace_context")
    op.drop_table("workers")
    op.drop_table("installation_counts")
