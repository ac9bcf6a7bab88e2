"""add what money needs

Revision: 0009, after 0008. Created: 2026-11-27.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '5s'"  # A waiting ALTER TABLE makes every query behind it wait.

# What a quote promised. A quote of an older version promised none of it, so the upgrade ends those quotes.
QUOTED: tuple[sa.Column[Any], ...] = (
    sa.Column("quoted_at", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("currency", sa.Text(), nullable=False, server_default=""),
    sa.Column("amount_due", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("credit", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("credit_forgone", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("tax", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("crediting", sa.Boolean(), nullable=False, server_default=sa.false()),
)
SUBSCRIPTION: tuple[sa.Column[Any], ...] = (
    sa.Column("pause_collection", postgresql.JSONB(), nullable=True),
    sa.Column("schedule_id", sa.Text(), nullable=True),
    sa.Column("discount_details", postgresql.JSONB(), nullable=True),
    sa.Column("default_source_id", sa.Text(), nullable=True),
)
# Read again once: the new columns of these rows are empty, and their objects may have something to say there.
READ_AGAIN = """
    insert into refreshes (id, kind, hints, newest_hint)
    select id, 'price', 1, 0 from prices where active and presence = 'present'
    union all
    select id, 'subscription', 1, 0 from subscriptions
    where presence = 'present' and not final and discounts <> '[]'
    on conflict (id) do update set hints = refreshes.hints + 1"""


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.add_column("prices", sa.Column("sellable", sa.Boolean(), nullable=True))
    op.add_column("customers", sa.Column("default_source_id", sa.Text(), nullable=True))
    for column in SUBSCRIPTION:
        op.add_column("subscriptions", column.copy())
    for column in QUOTED:
        op.add_column("quotes", column.copy())
        op.alter_column("quotes", column.name, server_default=None)
    op.execute(READ_AGAIN)
    op.execute("update quotes set expires_at = clock_timestamp() where expires_at > clock_timestamp()")


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    for column in reversed(QUOTED):
        op.drop_column("quotes", column.name)
    for column in reversed(SUBSCRIPTION):
        op.drop_column("subscriptions", column.name)
    op.drop_column("customers", "default_source_id")
    op.drop_column("prices", "sellable")
