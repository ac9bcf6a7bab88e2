"""tell uses of a key apart

Revision: 0021, after 0020. Created: 2026-11-28.

A key that is used again after its day begins an operation of its own. Older releases leave the column empty, and go on
with the operation of the first use.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '1s'"  # A waiting ALTER TABLE makes every query behind it wait.


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.add_column(
        "idempotency_keys",
        sa.Column(
            "reused_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the key was used again, after an earlier use of it had expired",
        ),
    )


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.drop_column("idempotency_keys", "reused_at")
