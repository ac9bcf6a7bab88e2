"""create an index beside readers and writers: it waits for every older transaction, and nobody waits for it"""

from alembic import op

from app.postgres import schema_upgrade

revision = "NUMBER"
down_revision = "AFTER"
branch_labels = None
depends_on = None
concurrent = True


def upgrade() -> None:
    schema_upgrade.create_index_concurrently("ix_customers_sample", "on customers (sample, name)")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("drop index concurrently if exists ix_customers_sample")
