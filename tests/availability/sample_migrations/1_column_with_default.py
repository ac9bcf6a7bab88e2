"""add a column with a default: its lock excludes every reader, and is held for a moment"""

from alembic import op

revision = "NUMBER"
down_revision = "AFTER"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '1s'"


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.execute("alter table customers add column sample integer not null default 0")


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.execute("alter table customers drop column sample")
