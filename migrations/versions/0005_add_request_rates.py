"""add request rates

Revision: 0005, after 0004. Created: 2026-11-22.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '5s'"  # A waiting ALTER TABLE makes every query behind it wait.


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    # Unlogged: a count waits for no disk, and a crash of the server forgets what is seconds old anyway.
    op.create_table(
        "request_rates",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("full_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_request_rates")),
        prefixes=["unlogged"],
    )


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.drop_table("request_rates")
