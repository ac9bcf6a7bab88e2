"""validate the constraint: it reads every row, beside readers and writers"""

from alembic import op

revision = "NUMBER"
down_revision = "AFTER"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '1s'"


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.execute("alter table customers validate constraint ck_customers_sample")


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
