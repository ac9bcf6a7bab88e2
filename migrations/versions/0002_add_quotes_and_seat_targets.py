"""add quotes and seat targets

Revision: 0002, after 0001. Created: 2026-11-22.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '5s'"  # A waiting ALTER TABLE makes every query behind it wait.


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.create_table(
        "quotes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("change_hash", sa.LargeBinary(), nullable=False),
        sa.Column("state_hash", sa.LargeBinary(), nullable=False),
        sa.Column("proration_date", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quotes")),
    )
    op.create_index(op.f("ix_quotes_expires_at"), "quotes", ["expires_at"], unique=False)
    op.add_column(
        "operations",
        sa.Column(
            "seat_total",
            sa.BigInteger(),
            nullable=True,
            comment="the seats after it, where it changes their number",
        ),
    )


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.drop_column("operations", "seat_total")
    op.drop_index(op.f("ix_quotes_expires_at"), table_name="quotes")
    op.drop_table("quotes")
