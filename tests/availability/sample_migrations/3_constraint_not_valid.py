"""add a constraint that new rows must meet, without reading the rows that are there"""

from alembic import op

revision = "NUMBER"
down_revision = "AFTER"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '1s'"


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.execute("alter table customers add constraint ck_customers_sample check (sample >= 0) not valid")


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.execute("alter table customers drop constraint ck_customers_sample")
