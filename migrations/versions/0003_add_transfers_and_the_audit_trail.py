"""add transfers and the audit trail

Revision: 0003, after 0002. Created: 2026-11-22.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '5s'"  # A waiting ALTER TABLE makes every query behind it wait.


# What the mirror learns of people and plans is recorded where it is learned, so that no path can forget it. A change
# that an unsettled operation of ours has sent is ascribed to it, any other to the Dashboard, or to Stripe itself.
MEMBERSHIP_AUDIT = """
create function record_membership_change() returns trigger language plpgsql as $$
declare
    was_on text := case when tg_op = 'UPDATE' and old.presence = 'present' then old.member_of end;
    is_on text := case when new.presence = 'present' then new.member_of end;
    cause record;
begin
    select o.id, o.principal, o.actor_id into cause
    from operation_steps t join operations o on o.id = t.operation_id
    where (t.customer_id = new.id or (t.customer_id is null and o.id = new.operation_id))
      and t.settled_at is null and t.sent_at is not null
    limit 1;
    if tg_op = 'INSERT' and cause.id is null then
        return null;
    end if;
    if was_on is not null and was_on is distinct from is_on then
        insert into audit_events (subscription_id, door, operation_id, principal, actor_id, action, customer_id,
            before, after)
        values (was_on, case when cause.id is null then 'dashboard' else 'api' end, cause.id, cause.principal,
            cause.actor_id, 'member_removed', new.id, jsonb_build_object('role', old.member_role), '{}');
    end if;
    if is_on is not null and was_on is distinct from is_on then
        insert into audit_events (subscription_id, door, operation_id, principal, actor_id, action, customer_id,
            before, after)
        values (is_on, case when cause.id is null then 'dashboard' else 'api' end, cause.id, cause.principal,
            cause.actor_id, 'member_added', new.id, '{}', jsonb_build_object('role', new.member_role));
    elsif is_on is not null and old.member_role is distinct from new.member_role then
        insert into audit_events (subscription_id, door, operation_id, principal, actor_id, action, customer_id,
            before, after)
        values (is_on, case when cause.id is null then 'dashboard' else 'api' end, cause.id, cause.principal,
            cause.actor_id, 'role_changed', new.id, jsonb_build_object('role', old.member_role),
            jsonb_build_object('role', new.member_role));
    end if;
    return null;
end $$
"""
MEMBERSHIP_TRIGGERS = (
    """create trigger record_membership_insert after insert on customers for each row
    when (new.member_of is not null) execute function record_membership_change()""",
    """create trigger record_membership_update after update on customers for each row
    when (old.member_of is distinct from new.member_of or old.member_role is distinct from new.member_role
          or (old.presence is distinct from new.presence and old.member_of is not null))
    execute function record_membership_change()""",
)
PLAN_AUDIT = """
create function record_plan_change() returns trigger language plpgsql as $$
declare
    cause record;
    was jsonb;
    is_now jsonb;
begin
    was := jsonb_build_object('owner', old.owner_id, 'status', old.status, 'cancel_at', old.cancel_at,
        'cancel_at_period_end', old.cancel_at_period_end, 'items', (select jsonb_agg(jsonb_build_object(
            'id', i -> 'id', 'price', i -> 'price_id', 'quantity', i -> 'quantity'))
            from jsonb_array_elements(old.items) i));
    is_now := jsonb_build_object('owner', new.owner_id, 'status', new.status, 'cancel_at', new.cancel_at,
        'cancel_at_period_end', new.cancel_at_period_end, 'items', (select jsonb_agg(jsonb_build_object(
            'id', i -> 'id', 'price', i -> 'price_id', 'quantity', i -> 'quantity'))
            from jsonb_array_elements(new.items) i));
    if was = is_now then
        return null;
    end if;
    select o.id, o.principal, o.actor_id into cause
    from operation_steps t join operations o on o.id = t.operation_id
    where o.subscription_id = new.id and t.settled_at is null and t.sent_at is not null
      and t.action not in ('add', 'remove', 'update')
    limit 1;
    insert into audit_events (subscription_id, door, operation_id, principal, actor_id, action, before, after)
    select new.id,
        case when cause.id is not null then 'api' when old.status is distinct from new.status then 'stripe'
             else 'dashboard' end,
        cause.id, cause.principal, cause.actor_id, 'plan_changed',
        coalesce(jsonb_object_agg(k, v) filter (where v is distinct from is_now -> k), '{}'),
        coalesce(jsonb_object_agg(k, is_now -> k) filter (where v is distinct from is_now -> k), '{}')
    from jsonb_each(was) as changed(k, v);
    return null;
end $$
"""
PLAN_TRIGGER = """create trigger record_plan_update after update on subscriptions for each row
    when (old.items is distinct from new.items or old.owner_id is distinct from new.owner_id
          or old.status is distinct from new.status or old.cancel_at is distinct from new.cancel_at
          or old.cancel_at_period_end is distinct from new.cancel_at_period_end)
    execute function record_plan_change()"""


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.create_table(
        "audit_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("door", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.Text(), nullable=True),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.Column("actor_id", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("before", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("after", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    op.create_index(
        op.f("ix_audit_events_subscription_id_id"),
        "audit_events",
        ["subscription_id", sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_table(
        "purchase_grants",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("payer_id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column(
            "granted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_purchase_grants")),
    )
    op.create_table(
        "transfers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("from_id", sa.Text(), nullable=True),
        sa.Column("to_id", sa.Text(), nullable=False),
        sa.Column("allow_purchases", sa.Boolean(), nullable=False),
        sa.Column("keep_me_as", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transfers")),
    )
    op.create_index(
        "uq_transfers_open",
        "transfers",
        ["subscription_id"],
        unique=True,
        postgresql_where=sa.text("state = 'offered'"),
    )
    op.execute(MEMBERSHIP_AUDIT)
    for trigger in MEMBERSHIP_TRIGGERS:
        op.execute(trigger)
    op.execute(PLAN_AUDIT)
    op.execute(PLAN_TRIGGER)


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.execute("drop trigger record_plan_update on subscriptions")
    op.execute("drop trigger record_membership_update on customers")
    op.execute("drop trigger record_membership_insert on customers")
    op.execute("drop function record_plan_change()")
    op.execute("drop function record_membership_change()")
    op.drop_index("uq_transfers_open", table_name="transfers", postgresql_where=sa.text("state = 'offered'"))
    op.drop_table("transfers")
    op.drop_table("purchase_grants")
    op.drop_index(op.f("ix_audit_events_subscription_id_id"), table_name="audit_events")
    op.drop_table("audit_events")
