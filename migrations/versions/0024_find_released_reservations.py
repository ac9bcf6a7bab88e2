"""find released reservations

Revision: 0024, after 0023. Created: 2026-11-28.

Retention finds the oldest of them by it. Older releases read the whole table.
"""

from alembic import op

from app.postgres import schema_upgrade

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None
concurrent = True


def upgrade() -> None:
    schema_upgrade.create_index_concurrently(
        "ix_reservations_released", "on reservations (released_at) where released_at is not null"
    )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("drop index concurrently if exists ix_reservations_released")
