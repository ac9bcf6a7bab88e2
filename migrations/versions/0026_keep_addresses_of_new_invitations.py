"""keep addresses of new invitations

Revision: 0026, after 0025. Created: 2026-11-28.

The deletion of a customer blanks the address of ended invitations only. One that was made in the same moment stays
open, and needs it.
"""

from alembic import op

from app.postgres.sql_files import read_statements

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '1s'"  # A waiting ALTER TABLE makes every query behind it wait.


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    for statement in read_statements("end_invitations"):
        # The triggers call the functions by name, so they stay. Replacing one locks a table that is always written.
        if "create or replace trigger" not in statement:
            op.execute(statement)


def downgrade() -> None:
    # An older release runs with the functions of this one.
    op.execute(LOCK_TIMEOUT)
