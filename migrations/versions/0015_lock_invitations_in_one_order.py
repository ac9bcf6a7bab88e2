"""lock invitations in one order

Revision: 0015, after 0014. Created: 2026-11-27.

Two people who invited each other, and whose customers are deleted at the same moment, no longer wait for each other.
"""

from alembic import op

from app.postgres.sql_files import read_statements

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '1s'"  # A waiting ALTER TABLE makes every query behind it wait.


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    for statement in read_statements("end_invitations"):
        op.execute(statement)


def downgrade() -> None:
    # An older release runs with the functions of this one.
    op.execute(LOCK_TIMEOUT)
