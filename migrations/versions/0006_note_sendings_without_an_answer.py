"""note sendings without an answer

Revision: 0006, after 0005. Created: 2026-11-22.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '5s'"  # A waiting ALTER TABLE makes every query behind it wait.


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.add_column(
        "operation_steps",
        sa.Column(
            "unanswered_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the last sending whose answer is missing",
        ),
    )
    # What is under way during the upgrade may have been sent just now.
    op.execute(
        "update operation_steps set unanswered_at = clock_timestamp() where settled_at is null and sent_at is not null"
    )


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.drop_column("operation_steps", "unanswered_at")
