"""leave room for new versions

Revision: 0008, after 0007. Created: 2026-11-22.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '5s'"  # A waiting ALTER TABLE makes every query behind it wait.

# A row whose next version finds room on its own page needs no new entry in any index, and its old version is cleared
# away by the next reader. What is there already is not rewritten; pages that are filled from now on leave the room.
FILL = {"subscriptions": 80, "invoices": 80, "customers": 90}


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    for table, percent in FILL.items():
        op.execute(f"alter table {table} set (fillfactor = {percent})")


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    for table in FILL:
        op.execute(f"alter table {table} reset (fillfactor)")
