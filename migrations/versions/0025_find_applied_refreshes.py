"""find applied refreshes

Revision: 0025, after 0024. Created: 2026-11-28.

Retention finds refreshes without pending notifications by it. Older releases read the whole table.
"""

from alembic import op

from app.postgres import schema_upgrade

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None
concurrent = True


def upgrade() -> None:
    schema_upgrade.create_index_concurrently(
        "ix_refreshes_applied", "on refreshes (not_before) where notifications = 0 and dead_at is null"
    )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("drop index concurrently if exists ix_refreshes_applied")
