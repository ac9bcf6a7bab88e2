"""count unclaimed members

Revision: 0011, after 0010. Created: 2026-11-27.

A list of people by state needs the number of unclaimed members, and their rows in the order of a page, without reading
the whole team. Older releases run on this schema: triggers keep what they do not know.
"""

import sqlalchemy as sa
from alembic import op

from app.postgres.sql_files import read_statements

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '1s'"  # A waiting ALTER TABLE makes every query behind it wait.

SQL_FILES = ("record_membership_change", "count_unclaimed")
TRIGGERS = (
    ("mark_unclaimed", "memberships"),
    ("follow_typed_email_insert", "member_records"),
    ("follow_typed_email_update", "member_records"),
    ("follow_typed_email_delete", "member_records"),
    ("count_unclaimed_insert", "memberships"),
    ("count_unclaimed_update", "memberships"),
    ("count_unclaimed_delete", "memberships"),
)
FUNCTIONS = ("mark_unclaimed", "follow_typed_email", "count_unclaimed")


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.add_column(
        "memberships",
        sa.Column(
            "unclaimed",
            sa.Boolean(),
            nullable=False,
            server_default=sa.text("false"),
            comment="the seat was given by an e-mail, and its person has not acted since",
        ),
    )
    op.execute(
        "create index ix_memberships_subscription_id_unclaimed_customer_id"
        " on memberships (subscription_id, unclaimed, customer_id)"
    )
    op.execute(
        "create index ix_memberships_role_unclaimed"
        " on memberships (subscription_id, role, unclaimed, customer_id)"
    )
    op.create_table(
        "unclaimed_counts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("users", sa.BigInteger(), nullable=False),
        sa.Column("managers", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_unclaimed_counts"),
    )
    op.execute("alter table unclaimed_counts set (fillfactor = 50)")
    op.execute("create index ix_unclaimed_counts_subscription_id on unclaimed_counts (subscription_id)")
    for name in SQL_FILES:
        for statement in read_statements(name):
            op.execute(statement)
    # The triggers count these memberships.
    op.execute(
        "update memberships m set unclaimed = true from member_records k where k.typed_email is not null"
        " and k.subscription_id = m.subscription_id and k.customer_id = m.customer_id"
    )


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    for trigger, table in TRIGGERS:
        op.execute(f"drop trigger {trigger} on {table}")
    for function in FUNCTIONS:
        op.execute(f"drop function {function}()")
    op.drop_table("unclaimed_counts")
    op.drop_index("ix_memberships_role_unclaimed", "memberships")
    op.drop_index("ix_memberships_subscription_id_unclaimed_customer_id", "memberships")
    op.drop_column("memberships", "unclaimed")
