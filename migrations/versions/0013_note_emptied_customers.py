"""note emptied customers

Revision: 0013, after 0012. Created: 2026-11-27.

A worker that deletes customers whose seat is gone looks at those that are marked, and not at everybody who has a seat
and has not come yet. An older release looks at all of them, as before.
"""

import sqlalchemy as sa
from alembic import op

from app.postgres.sql_files import read_statements

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '1s'"  # A waiting ALTER TABLE makes every query behind it wait.


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.add_column(
        "seat_customers",
        sa.Column(
            "emptied_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when its last membership ended",
        ),
    )
    op.execute(
        "create index ix_seat_customers_emptied on seat_customers (emptied_at)"
        " where emptied_at is not null and claimed_at is null and kept_at is null"
    )
    for statement in read_statements("note_emptied"):
        op.execute(statement)
    op.execute(
        "update seat_customers s set emptied_at = clock_timestamp() where claimed_at is null and kept_at is null"
        " and not exists (select from memberships m where m.customer_id = s.customer_id)"
    )


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.execute("drop trigger note_emptied on memberships")
    op.execute("drop function note_emptied()")
    op.drop_index("ix_seat_customers_emptied", "seat_customers")
    op.drop_column("seat_customers", "emptied_at")
