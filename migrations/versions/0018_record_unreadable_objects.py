"""record unreadable objects

Revision: 0018, after 0017. Created: 2026-11-27.

An object of Stripe that cannot be read is recorded with its reason, and the others go on. Older releases do not know
the tables and go on without them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '1s'"  # A waiting ALTER TABLE makes every query behind it wait.

INSTANT = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.create_table(
        "unreadable_objects",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", INSTANT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("kind", "id", name="pk_unreadable_objects"),
    )


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.drop_table("unreadable_objects")
