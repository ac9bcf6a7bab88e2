"""find settled operations

Revision: 0023, after 0021. Created: 2026-11-28.

Retention finds the oldest operations and their steps by it. Older releases read both tables from end to end.
"""

from alembic import op

from app.postgres import schema_upgrade

revision = "0023"
down_revision = "0021"
branch_labels = None
depends_on = None
concurrent = True


def upgrade() -> None:
    schema_upgrade.create_index_concurrently(
        "ix_operations_settled", "on operations (settled_at) where settled_at is not null"
    )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("drop index concurrently if exists ix_operations_settled")
