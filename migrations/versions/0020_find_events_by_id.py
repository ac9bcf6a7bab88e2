"""find events by id

Revision: 0020, after 0019. Created: 2026-11-27.

`coseat events show` and `redeliver` name an event by its id. Older releases read the whole log for that.
"""

from alembic import op

from app.postgres import schema_upgrade

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None
concurrent = True


def upgrade() -> None:
    schema_upgrade.create_index_concurrently("ix_events_id", "on events (id)")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("drop index concurrently if exists ix_events_id")
