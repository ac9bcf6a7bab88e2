"""hold exclusive work by leases

Revision: 0016, after 0015. Created: 2026-11-27.

A lock of the session stays with a pooler's session when its holder is gone. See
docs/decisions/0048-work-behind-a-pooler-in-transaction-mode.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '1s'"  # A waiting ALTER TABLE makes every query behind it wait.

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.create_table(
        "exclusive_work",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("lease_token", sa.UUID(), nullable=False),
        sa.Column("lease_until", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_exclusive_work"),
    )


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.drop_table("exclusive_work")
