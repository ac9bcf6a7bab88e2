"""compare plans before the audit

Revision: 0007, after 0006. Created: 2026-11-22.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '5s'"  # A waiting ALTER TABLE makes every query behind it wait.

# A renewal changes the periods of every item and nothing that the trail tells; calling the function only to find that
# out took a fifth of an event's time. What is compared here is what the function records of an item.
RECORDED_OF_ITEMS = ("id", "price_id", "quantity")
TRIGGER = """create trigger record_plan_update after update on subscriptions for each row
    when ({items} or old.owner_id is distinct from new.owner_id
          or old.status is distinct from new.status or old.cancel_at is distinct from new.cancel_at
          or old.cancel_at_period_end is distinct from new.cancel_at_period_end)
    execute function record_plan_change()"""
ANY_CHANGE = "old.items is distinct from new.items"


def recorded_change() -> str:
    differing = (
        f"jsonb_path_query_array(old.items, '$[*].{name}') <> jsonb_path_query_array(new.items, '$[*].{name}')"
        for name in RECORDED_OF_ITEMS
    )
    return f"({ANY_CHANGE} and ({' or '.join(differing)}))"


def replace_trigger(items: str) -> None:
    op.execute("drop trigger record_plan_update on subscriptions")
    op.execute(TRIGGER.format(items=items))


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    replace_trigger(recorded_change())


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    replace_trigger(ANY_CHANGE)
