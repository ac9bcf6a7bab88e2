"""add sweeps and the rate budget

Revision: 0004, after 0003. Created: 2026-11-22.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '5s'"  # A waiting ALTER TABLE makes every query behind it wait.

# One draw of grants: counted, decided and written down under one lock, each statement with a snapshot taken after it.
# A grant counts for a second after the last moment at which it may be spent, so no second of calls exceeds the limit.
# What the way to Stripe may delay a call is added for the account; an endpoint's steady calls are evenly spaced anyway.
# Steady grants are given for moments to come, at equal distances, so that what a draw takes slows nobody down.
# The tables are unlogged: a draw waits for no disk, and a crash of the server forgets what is a second old anyway.
DRAW = """
create function draw_stripe_requests(
    asked_work text, asked_endpoint text, wanted int, wanted_spare int, account_limit float, shares jsonb,
    endpoint_limit float, is_steady boolean, spend_seconds float, keep_seconds float, delay_seconds float,
    ahead_seconds float, recovery_seconds float,
    out granted int, out spare int, out first_seconds float, out gap_seconds float, out wait_seconds float)
language plpgsql as $$
declare
    moment timestamptz;
    slot timestamptz;
    factor float;
    account_total int;
    endpoint_total int;
    account_free int;
    endpoint_free int;
begin
    perform pg_advisory_xact_lock(7203911642);
    moment := clock_timestamp();
    delete from rate_grants where counts_until <= moment;
    select least(1, s.factor + extract(epoch from moment - s.since) / recovery_seconds) into factor
    from rate_slowdown s;
    account_total := greatest(1, floor(account_limit * coalesce(factor, 1)));
    endpoint_total := greatest(1, floor(endpoint_limit * coalesce(factor, 1)));
    granted := 0;
    spare := 0;
    first_seconds := 0;
    gap_seconds := case when is_steady then (1 + spend_seconds) / endpoint_total else 0 end;
    slot := moment;
    if is_steady then
        select greatest(moment, max(granted_at) + gap_seconds * interval '1 second') into slot
        from rate_grants where work = asked_work and endpoint = asked_endpoint;
        first_seconds := extract(epoch from slot - moment);
    end if;
    loop
        exit when granted = wanted or slot > moment + ahead_seconds * interval '1 second';
        -- What others can count on and do not use now is not to be had; the own share always is: they kept off it.
        with used as (
            select work, sum(number)::int as number from rate_grants where counts_until > slot group by work
        )
        select greatest(
            floor(account_total * coalesce((shares ->> asked_work)::float, 0))
                - coalesce((select number from used where work = asked_work), 0),
            account_total - coalesce((select sum(number) from used), 0) - coalesce((
                select sum(greatest(0, floor(account_total * share.value::float) - coalesce(used.number, 0)))
                from jsonb_each_text(shares) share left join used on used.work = share.key
                where share.key <> asked_work), 0))
        into account_free;
        select endpoint_total - coalesce(sum(number), 0) into endpoint_free
        from rate_grants where endpoint = asked_endpoint
          and counts_until > slot + case when is_steady then delay_seconds else 0 end * interval '1 second';
        exit when least(account_free, endpoint_free) < 1;
        if is_steady then
            granted := granted + 1;
            insert into rate_grants values (
                slot, slot + (1 + spend_seconds + delay_seconds) * interval '1 second', asked_work, asked_endpoint, 1);
            slot := slot + gap_seconds * interval '1 second';
        else
            granted := least(wanted, account_free, endpoint_free);
            -- Spare ones come out of the lesser half of the work's own share: never at the cost of a call that waits.
            select greatest(0, least(wanted_spare, (least(account_free, endpoint_free) - granted) / 2,
                floor(account_total * coalesce((shares ->> asked_work)::float, 0) / 2) - granted
                - coalesce(sum(number), 0)))
            into spare from rate_grants where work = asked_work and counts_until > slot;
            insert into rate_grants
            select moment, moment + (1 + seconds + delay_seconds) * interval '1 second', asked_work, asked_endpoint, n
            from (values (granted, spend_seconds), (spare, keep_seconds)) as given(n, seconds) where n > 0;
            exit;
        end if;
    end loop;
    if slot > moment + ahead_seconds * interval '1 second' then
        wait_seconds := extract(epoch from slot - moment) - ahead_seconds / 2;
    else
        select greatest(0.005, coalesce(extract(epoch from min(counts_until) - moment), 0.05))
        into wait_seconds from rate_grants where counts_until > moment;
    end if;
end $$
"""


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.create_table(
        "rate_grants",
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("counts_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("work", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        prefixes=["unlogged"],
    )
    op.create_table(
        "rate_slowdown",
        sa.Column("single", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("factor", sa.Float(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_rate_slowdown")),
        prefixes=["unlogged"],
    )
    op.create_table(
        "sweep_findings",
        sa.Column("sweep_id", sa.BigInteger(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("finding", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("sweep_id", "object_id", name=op.f("pk_sweep_findings")),
    )
    op.create_table(
        "sweep_ranges",
        sa.Column("sweep_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("created_from", sa.BigInteger(), nullable=False),
        sa.Column("created_to", sa.BigInteger(), nullable=True, comment="inclusive; null: up to now"),
        sa.Column("last_id", sa.Text(), nullable=True),
        sa.Column("last_created", sa.BigInteger(), nullable=True),
        sa.Column(
            "open_ids",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="seen, of the second that the next page may go on with",
        ),
        sa.Column("pages", sa.BigInteger(), nullable=False),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("sweep_id", "position", name=op.f("pk_sweep_ranges")),
    )
    op.create_table(
        "sweeps",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column(
            "fence",
            sa.BigInteger(),
            nullable=False,
            comment="counted up by every process that takes the sweep",
        ),
        sa.Column("planned_at", sa.BigInteger(), nullable=False, comment="by Stripe's clock"),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
    )
    op.create_index(
        op.f("ix_sweeps_purpose_id"), "sweeps", ["purpose", sa.literal_column("id DESC")], unique=False
    )
    op.drop_table("fill_cursors")
    op.create_index(op.f("ix_customers_created"), "customers", ["created"], unique=False)
    op.create_index(op.f("ix_invoices_created"), "invoices", ["created"], unique=False)
    op.create_index(op.f("ix_prices_created"), "prices", ["created"], unique=False)
    op.create_index(op.f("ix_products_created"), "products", ["created"], unique=False)
    op.create_index(
        "ix_refreshes_dead",
        "refreshes",
        ["dead_at"],
        unique=False,
        postgresql_where=sa.text("dead_at IS NOT NULL"),
    )
    op.create_index(op.f("ix_subscriptions_created"), "subscriptions", ["created"], unique=False)
    op.execute(DRAW)


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.execute("drop function draw_stripe_requests")
    op.drop_index(op.f("ix_subscriptions_created"), table_name="subscriptions")
    op.drop_index(
        "ix_refreshes_dead", table_name="refreshes", postgresql_where=sa.text("dead_at IS NOT NULL")
    )
    op.drop_index(op.f("ix_products_created"), table_name="products")
    op.drop_index(op.f("ix_prices_created"), table_name="prices")
    op.drop_index(op.f("ix_invoices_created"), table_name="invoices")
    op.drop_index(op.f("ix_customers_created"), table_name="customers")
    op.create_table(
        "fill_cursors",
        sa.Column("kind", sa.TEXT(), autoincrement=False, nullable=False),
        sa.Column("last_id", sa.TEXT(), autoincrement=False, nullable=True),
        sa.Column("objects", sa.BIGINT(), server_default=sa.text("0"), autoincrement=False, nullable=False),
        sa.Column("finished_at", postgresql.TIMESTAMP(timezone=True), autoincrement=False, nullable=True),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_fill_cursors")),
    )
    op.drop_index(op.f("ix_sweeps_purpose_id"), table_name="sweeps")
    op.drop_table("sweeps")
    op.drop_table("sweep_ranges")
    op.drop_table("sweep_findings")
    op.drop_table("rate_slowdown")
    op.drop_table("rate_grants")
