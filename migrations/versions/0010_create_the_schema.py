"""create the schema

Revision: 0010, the first of all databases. Created: 2026-11-27.

It takes the place of 0001 to 0009, which no release contained; see
docs/decisions/0015-squash-migrations-before-the-first-release.md. Until the first release, the schema is changed here.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.postgres.sql_files import read_statements

revision = "0010"
down_revision = None
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '5s'"  # A waiting ALTER TABLE makes every query behind it wait.

INSTANT = sa.DateTime(timezone=True)
JSONB = postgresql.JSONB()
NOW = sa.text("clock_timestamp()")

TABLES = (
    "products",
    "prices",
    "customers",
    "memberships",
    "membership_counts",
    "subscriptions",
    "payment_methods",
    "invoices",
    "webhook_events",
    "refreshes",
    "payment_method_fills",
    "account",
    "list_scans",
    "list_scan_ranges",
    "list_scan_findings",
    "rate_grants",
    "rate_slowdown",
    "request_rates",
    "identities",
    "seat_customers",
    "member_records",
    "erasures",
    "invitations",
    "operations",
    "operation_steps",
    "reservations",
    "transfers",
    "purchase_grants",
    "audit_events",
    "quotes",
    "idempotency_keys",
    "schema_floor",
)
OPERATION_KINDS = (
    "member_change",
    "leave",
    "transfer",
    "accept_invitation",
    "cleanup",
    "move",
    "add_subscription",
    "update_subscription",
    "cancel_subscription",
    "resume_subscription",
)
# What must hold for every row of the write protocol, by table and name. `lifecycle.py` says what the states mean.
CHECKS = {
    "memberships": {
        "role": "role in ('user', 'manager')",
    },
    "identities": {
        "linked_by": "linked_by in ('claim', 'user_id', 'key', 'trigger')",
    },
    "operations": {
        "state": "state in ('running', 'settled')",
        "settled": "(state = 'settled') = (settled_at is not null)",
        "lease_until": "(state = 'running') = (lease_until is not null)",
        "lease_token": "(lease_token is null) = (lease_until is null)",
        "seat_total": "seat_total >= 0",
    },
    "operation_steps": {
        "state": "state in ('planned', 'in_flight', 'ambiguous', 'expired', 'awaiting_payment', 'applied', 'unchanged',"
        " 'refused', 'failed')",
        "settled": "(state in ('applied', 'unchanged', 'refused', 'failed')) = (settled_at is not null)",
        "in_flight": "state <> 'in_flight' or sent_at is not null",
        "not_in_flight": "state not in ('planned', 'ambiguous', 'expired') or sent_at is null",
        "unanswered": "sent_at is not null or unanswered_at is null",
        "attempt": "attempt >= 0 and (state <> 'planned' or attempt = 0)",
        "later_attempt": "state not in ('ambiguous', 'expired') or attempt > 0",
        "code": "(state in ('refused', 'failed')) = (code is not null)",
        "action": "action in ('set_owner', 'remove', 'update', 'buy_seats', 'add', 'release_seats', 'add_subscription',"
        " 'update_subscription', 'cancel_subscription', 'resume_subscription')",
        "person": "action not in ('add', 'remove', 'update') or customer_id is not null or email is not null",
        "role": "role in ('manager', 'user') and role_before in ('manager', 'user')",
        "invoice": "state <> 'awaiting_payment' or invoice_id is not null",
        "awaits_seats": "not awaits_seats or action = 'add'",
        "invitation": "invitation_id is null or action in ('add', 'update')",
    },
    "reservations": {
        "person": "(customer_id is null and email is null) = (from_quantity is not null or operation_id is null)",
        "item": "(item_id is null) = (from_quantity is null)",
        "step": "(operation_id is null) = (position is null)",
        "holder": "operation_id is not null or invitation_id is not null",
    },
    "invitations": {
        "role": "role in ('manager', 'user')",
        "state": "state in ('open', 'accepted', 'declined', 'expired', 'revoked')",
        "ended": "(state = 'open') = (ended_at is null)",
        "generation": "generation >= 1",
        "acceptance": "(acceptor_id is null) = (operation_id is null)",
    },
}
FUNCTIONS = (
    "draw_stripe_requests",
    "record_membership_change",
    "record_subscription_change",
    "end_invitations",
    "end_invitations_of_member",
    "end_invitations_of_customer",
    "end_invitations_of_subscription",
    "note_erasure",
)


SQL_FILES = (
    "draw_stripe_requests",
    "record_membership_change",
    "record_subscription_change",
    "end_invitations",
    "note_erasure",
    "schema_floor",
)


def create_mirrored(name: str, *columns: sa.Column[Any], fill: int = 100) -> None:
    """Create a table of Stripe's objects: `columns` and the columns of the sync rule.

    `fill`: the percentage to which a page is filled. A row whose next version finds room on its own page needs no new
    entry in any index, and its old version is removed by the next reader.
    """
    op.create_table(
        name,
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        *columns,
        sa.Column("marker", sa.BigInteger(), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("existence", sa.Text(), nullable=False),
        sa.Column("terminal", sa.Boolean(), nullable=False),
        sa.Column("synced_at", INSTANT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
    )
    if fill < 100:
        op.execute(f"alter table {name} set (fillfactor = {fill})")


def create_mirror() -> None:
    create_mirrored(
        "products",
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("images", JSONB, nullable=False),
        sa.Column("unit_label", sa.Text(), nullable=True),
        sa.Column("default_price_id", sa.Text(), nullable=True),
        sa.Column("supports_sharing", sa.Boolean(), nullable=False),
        sa.Column("owner_uses_seat", sa.Boolean(), nullable=True),
        sa.Column("sellable", sa.Boolean(), nullable=False),
    )
    op.execute("create index ix_products_created on products (created)")
    create_mirrored(
        "prices",
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("billing_scheme", sa.Text(), nullable=False),
        sa.Column("unit_amount", sa.BigInteger(), nullable=True),
        sa.Column("unit_amount_decimal", sa.Text(), nullable=True),
        sa.Column("recurring", JSONB, nullable=True),
        sa.Column("tiers_mode", sa.Text(), nullable=True),
        sa.Column("tiers", JSONB, nullable=True),
        sa.Column("transform_quantity", JSONB, nullable=True),
        sa.Column("currency_options", JSONB, nullable=True),
        sa.Column("tax_behavior", sa.Text(), nullable=True),
        sa.Column("lookup_key", sa.Text(), nullable=True),
        sa.Column("nickname", sa.Text(), nullable=True),
        sa.Column("sellable", sa.Boolean(), nullable=True),
    )
    op.execute("create index ix_prices_created on prices (created)")
    op.execute("create index ix_prices_product_id on prices (product_id)")
    create_mirrored(
        "customers",
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("phone", sa.Text(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.Column("default_payment_method_id", sa.Text(), nullable=True),
        sa.Column("default_source_id", sa.Text(), nullable=True),
        sa.Column("member_of", sa.Text(), nullable=True),
        sa.Column("member_role", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("operation_id", sa.Text(), nullable=True),
        sa.Column("metadata_problems", JSONB, nullable=False),
        sa.Column("further_memberships", JSONB, nullable=False),
        fill=90,
    )
    op.execute("create index ix_customers_created on customers (created)")
    op.execute(
        'create index ix_customers_email_lower on customers (lower(email collate "C")) where email is not null'
    )
    op.execute(
        "create index ix_customers_operation_id on customers (operation_id) where operation_id is not null"
    )
    op.execute("create index ix_customers_user_id on customers (user_id) where user_id is not null")
    create_memberships()
    create_mirrored(
        "subscriptions",
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("items", JSONB, nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=True),
        sa.Column("operation_id", sa.Text(), nullable=True),
        sa.Column("cancel_at", sa.BigInteger(), nullable=True),
        sa.Column("cancel_at_period_end", sa.Boolean(), nullable=False),
        sa.Column("canceled_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("trial_start", sa.BigInteger(), nullable=True),
        sa.Column("trial_end", sa.BigInteger(), nullable=True),
        sa.Column("start_date", sa.BigInteger(), nullable=True),
        sa.Column("billing_cycle_anchor", sa.BigInteger(), nullable=True),
        sa.Column("billing_mode", sa.Text(), nullable=True),
        sa.Column("collection_method", sa.Text(), nullable=True),
        sa.Column("default_payment_method_id", sa.Text(), nullable=True),
        sa.Column("default_source_id", sa.Text(), nullable=True),
        sa.Column("latest_invoice_id", sa.Text(), nullable=True),
        sa.Column("pending_update", JSONB, nullable=True),
        sa.Column("discounts", JSONB, nullable=False),
        sa.Column("metadata_problems", JSONB, nullable=False),
        sa.Column("pause_collection", JSONB, nullable=True),
        sa.Column("schedule_id", sa.Text(), nullable=True),
        sa.Column("discount_details", JSONB, nullable=True),
        fill=80,
    )
    op.execute("create index ix_subscriptions_created on subscriptions (created)")
    op.execute("create index ix_subscriptions_customer_id on subscriptions (customer_id)")
    op.execute(
        "create index ix_subscriptions_operation_id on subscriptions (operation_id)"
        " where operation_id is not null"
    )
    op.execute(
        "create index ix_subscriptions_owner_id on subscriptions (owner_id) where owner_id is not null"
    )
    create_mirrored(
        "payment_methods",
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("card", JSONB, nullable=True),
    )
    op.execute(
        "create index ix_payment_methods_customer_id on payment_methods (customer_id)"
        " where customer_id is not null"
    )
    create_mirrored(
        "invoices",
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("number", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("subtotal", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("amount_due", sa.BigInteger(), nullable=False),
        sa.Column("amount_paid", sa.BigInteger(), nullable=False),
        sa.Column("amount_remaining", sa.BigInteger(), nullable=False),
        sa.Column("billing_reason", sa.Text(), nullable=True),
        sa.Column("hosted_invoice_url", sa.Text(), nullable=True),
        sa.Column("invoice_pdf", sa.Text(), nullable=True),
        sa.Column("period_start", sa.BigInteger(), nullable=True),
        sa.Column("period_end", sa.BigInteger(), nullable=True),
        sa.Column("due_date", sa.BigInteger(), nullable=True),
        sa.Column("lines", JSONB, nullable=False),
        fill=80,
    )
    op.execute("create index ix_invoices_created on invoices (created)")
    op.execute(
        "create index ix_invoices_customer_id_created_id on invoices (customer_id, created desc, id desc)"
    )
    op.execute(
        "create index ix_invoices_subscription_id on invoices (subscription_id)"
        " where subscription_id is not null"
    )


def create_memberships() -> None:
    op.create_table(
        "memberships",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "subscription_id", "customer_id", name="pk_memberships", postgresql_include=["role"]
        ),
    )
    op.execute("create index ix_memberships_customer_id on memberships (customer_id)")
    op.execute(
        "create index ix_memberships_subscription_id_role_customer_id"
        " on memberships (subscription_id, role, customer_id)"
    )
    op.create_table(
        "membership_counts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("users", sa.BigInteger(), nullable=False),
        sa.Column("managers", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_membership_counts"),
    )
    # A changed row stays on its page, so that a change needs no new entry in an index.
    op.execute("alter table membership_counts set (fillfactor = 50)")
    op.execute("create index ix_membership_counts_subscription_id on membership_counts (subscription_id)")


def create_synchronisation() -> None:
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("received_at", INSTANT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_events"),
    )
    op.execute("create index ix_webhook_events_received_at on webhook_events (received_at)")
    op.create_table(
        "refreshes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column(
            "notifications",
            sa.BigInteger(),
            nullable=False,
            comment="not applied yet; 0: nothing is to be fetched",
        ),
        sa.Column(
            "notified_at",
            sa.BigInteger(),
            nullable=False,
            comment="created, or Date, of the newest notification",
        ),
        sa.Column("not_before", INSTANT, nullable=False, server_default=NOW),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("lease_token", sa.UUID(), nullable=True),
        sa.Column("lease_until", INSTANT, nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("dead_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_refreshes"),
    )
    op.execute("create index ix_refreshes_dead on refreshes (dead_at) where dead_at is not null")
    op.execute(
        "create index ix_refreshes_due on refreshes (not_before) where notifications > 0 and dead_at is null"
    )
    op.create_table(
        "payment_method_fills",
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("filled_at", INSTANT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("customer_id", name="pk_payment_method_fills"),
    )
    op.create_table(
        "account",
        sa.Column("single", sa.Boolean(), nullable=False, server_default=sa.text("true")),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("livemode", sa.Boolean(), nullable=False),
        sa.Column("filled_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("single", name="pk_account"),
    )
    op.create_table(
        "list_scans",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column(
            "fence",
            sa.BigInteger(),
            nullable=False,
            comment="counted up by every process that takes the scan",
        ),
        sa.Column("planned_at", sa.BigInteger(), nullable=False, comment="by Stripe's clock"),
        sa.Column("started_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("report", JSONB, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_list_scans"),
    )
    op.execute("create index ix_list_scans_purpose_id on list_scans (purpose, id desc)")
    op.create_table(
        "list_scan_ranges",
        sa.Column("scan_id", sa.BigInteger(), nullable=False),
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
            comment="seen in second `last_created`, with which the next page may begin",
        ),
        sa.Column("pages", sa.BigInteger(), nullable=False),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("scan_id", "position", name="pk_list_scan_ranges"),
    )
    op.create_table(
        "list_scan_findings",
        sa.Column("scan_id", sa.BigInteger(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("finding", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("scan_id", "object_id", name="pk_list_scan_findings"),
    )


def create_limits() -> None:
    op.create_table(
        "rate_grants",
        sa.Column("granted_at", INSTANT, nullable=False),
        sa.Column("counts_until", INSTANT, nullable=False),
        sa.Column("work", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        prefixes=["unlogged"],
    )
    op.create_table(
        "rate_slowdown",
        sa.Column("single", sa.Boolean(), nullable=False, server_default=sa.text("true")),
        sa.Column("factor", sa.Float(), nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("single", name="pk_rate_slowdown"),
        prefixes=["unlogged"],
    )
    op.create_table(
        "request_rates",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("full_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_request_rates"),
        prefixes=["unlogged"],
    )


def create_people() -> None:
    op.create_table(
        "identities",
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("creation_key", sa.UUID(), nullable=False, server_default=sa.text("gen_random_uuid()")),
        sa.Column("lease_until", INSTANT, nullable=True),
        sa.Column("created_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("linked_at", INSTANT, nullable=True),
        sa.Column("linked_by", sa.Text(), nullable=True, comment="`claim`, `user_id`, `key` or `trigger`"),
        sa.Column(
            "email",
            sa.Text(),
            nullable=True,
            comment="the address that this login's token verified last, while it is theirs",
        ),
        sa.Column(
            "email_at", INSTANT, nullable=True, comment="when a token of this login last verified an address"
        ),
        sa.Column(
            "seats_due", INSTANT, nullable=True, comment="when to look for unclaimed seats of the address"
        ),
        sa.Column("acted_at", INSTANT, nullable=True, comment="when an act of this login was last recorded"),
        sa.PrimaryKeyConstraint("issuer", "subject", name="pk_identities"),
    )
    op.execute("create unique index ix_identities_customer_id on identities (customer_id)")
    op.execute("create index ix_identities_email on identities (email) where email is not null")
    op.execute("create index ix_identities_seats_due on identities (seats_due) where seats_due is not null")
    op.create_table(
        "seat_customers",
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("claimed_at", INSTANT, nullable=True),
        sa.Column(
            "moved_by",
            sa.Text(),
            nullable=True,
            comment="the last operation that moves, or has moved, a seat to a login's customer",
        ),
        sa.Column("deleting_at", INSTANT, nullable=True, comment="when its deletion at Stripe began"),
        sa.Column("kept_at", INSTANT, nullable=True, comment="when it was found to be in use at Stripe"),
        sa.PrimaryKeyConstraint("customer_id", name="pk_seat_customers"),
    )
    op.execute("create index ix_seat_customers_email on seat_customers (email) where claimed_at is null")
    op.execute(
        "create index ix_seat_customers_unclaimed on seat_customers (created_at) where claimed_at is null"
    )
    op.create_table(
        "member_records",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column(
            "typed_email",
            sa.Text(),
            nullable=True,
            comment="the address by which the seat was given, until its person acts",
        ),
        sa.Column("since", INSTANT, nullable=False, server_default=NOW),
        sa.Column("left_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("subscription_id", "customer_id", name="pk_member_records"),
    )
    op.execute(
        "create index ix_member_records_customer_id on member_records (customer_id)"
        " where typed_email is not null"
    )
    op.execute(
        'create index ix_member_records_typed_email_lower on member_records (lower(typed_email collate "C"))'
        " where typed_email is not null"
    )
    op.create_table(
        "erasures",
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column(
            "email",
            sa.Text(),
            nullable=True,
            comment="of the deleted customer, until it is erased elsewhere",
        ),
        sa.Column("noted_at", INSTANT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("customer_id", name="pk_erasures"),
    )


def create_invitations() -> None:
    op.create_table(
        "invitations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column(
            "email",
            sa.Text(),
            nullable=True,
            comment="as it was typed; null 30 days after the end, and at the person's erasure",
        ),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False, server_default=sa.text("1")),
        sa.Column(
            "inviter_id",
            sa.Text(),
            nullable=True,
            comment="the customer on whose right it rests; null: a service key",
        ),
        sa.Column("created_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("acceptor_id", sa.Text(), nullable=True, comment="the customer of the last acceptance"),
        sa.Column("operation_id", sa.Text(), nullable=True, comment="the operation of the last acceptance"),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
    )
    op.execute(
        "create index ix_invitations_subscription_id_number on invitations (subscription_id, number desc)"
    )
    op.execute(
        "create unique index uq_invitations_open_email on invitations"
        " (subscription_id, lower(email collate \"C\")) where state = 'open'"
    )
    op.execute(
        "create index ix_invitations_open_inviter on invitations (inviter_id)"
        " where state = 'open' and inviter_id is not null"
    )
    op.execute("create index ix_invitations_open_expires_at on invitations (expires_at) where state = 'open'")
    op.execute(
        'create index ix_invitations_email_lower on invitations (lower(email collate "C"))'
        " where email is not null"
    )
    op.execute(
        "create index ix_invitations_ended_at on invitations (ended_at)"
        " where email is not null and ended_at is not null"
    )


def create_operations() -> None:
    labels = ", ".join(f"'{kind}'" for kind in OPERATION_KINDS)
    op.execute(f"create type operation_kind as enum ({labels})")
    op.create_table(
        "operations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("kind", postgresql.ENUM(name="operation_kind", create_type=False), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("request", JSONB, nullable=False),
        sa.Column("lease_token", sa.UUID(), nullable=True),
        sa.Column("lease_until", INSTANT, nullable=True),
        sa.Column("created_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("settled_at", INSTANT, nullable=True),
        sa.Column(
            "seat_total",
            sa.BigInteger(),
            nullable=True,
            comment="the seats after it, where it changes their number",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_operations"),
    )
    op.execute(
        "create index ix_operations_subscription_id_created_at_id on operations"
        " (subscription_id, created_at desc, id)"
    )
    op.execute("create index ix_operations_unsettled on operations (created_at) where settled_at is null")
    op.create_table(
        "operation_steps",
        sa.Column("operation_id", sa.Text(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("role_before", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("details", JSONB, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("sent_at", INSTANT, nullable=True),
        sa.Column(
            "unanswered_at",
            INSTANT,
            nullable=True,
            comment="when the last request without an answer was sent",
        ),
        sa.Column("settled_at", INSTANT, nullable=True),
        sa.Column(
            "invoice_id",
            sa.Text(),
            nullable=True,
            comment="the invoice that proves the payment of a purchase that waits for it",
        ),
        sa.Column(
            "update_expires_at",
            sa.BigInteger(),
            nullable=True,
            comment="Unix seconds: when Stripe drops a change that waits",
        ),
        sa.Column("payment_until", INSTANT, nullable=True),
        sa.Column("end_code", sa.Text(), nullable=True, comment="why a purchase that waits is to end"),
        sa.Column("awaits_seats", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column(
            "invitation_id",
            sa.Text(),
            nullable=True,
            comment="the invitation that it accepts, or whose seat it fills",
        ),
        sa.Column(
            "writes",
            JSONB,
            nullable=True,
            comment="the metadata that every attempt writes, chosen before the first sending",
        ),
        sa.PrimaryKeyConstraint("operation_id", "position", name="pk_operation_steps"),
    )
    op.execute(
        "create index ix_operation_steps_paid_without_effect on operation_steps (settled_at)"
        " where code = 'paid_without_effect' and invoice_id is not null"
    )
    op.execute(
        "create index ix_operation_steps_awaiting_payment on operation_steps (subscription_id)"
        " where state = 'awaiting_payment'"
    )
    op.execute(
        "create index ix_operation_steps_named_customer on operation_steps (customer_id) where email is not null"
    )
    op.execute(
        'create index ix_operation_steps_email_lower on operation_steps (lower(email collate "C"))'
        " where email is not null"
    )
    op.execute(
        "create index ix_operation_steps_unsettled_customer on operation_steps (customer_id)"
        " where settled_at is null"
    )
    op.execute(
        "create index ix_operation_steps_unsettled_invitation on operation_steps (invitation_id)"
        " where settled_at is null and invitation_id is not null"
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("operation_id", sa.Text(), nullable=True),
        sa.Column("position", sa.SmallInteger(), nullable=True),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("released_at", INSTANT, nullable=True),
        sa.Column(
            "item_id",
            sa.Text(),
            nullable=True,
            comment="the item that is to give the seat, for one that is bought first",
        ),
        sa.Column(
            "from_quantity",
            sa.BigInteger(),
            nullable=True,
            comment="the item's quantity from which such a seat counts",
        ),
        sa.Column(
            "moves_from",
            sa.Text(),
            nullable=True,
            comment="the member whose seat moves to this customer: both count as one",
        ),
        sa.Column(
            "invitation_id",
            sa.Text(),
            nullable=True,
            comment="the invitation whose seat it is; it names nobody between acceptances",
        ),
        sa.Column(
            "slot",
            sa.Text(),
            nullable=True,
            comment="the metadata key that the addition writes, from its first sending",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_reservations"),
        sa.UniqueConstraint("operation_id", "position", name="uq_reservations_operation_id_position"),
    )
    op.execute(
        "create index ix_reservations_subscription_id on reservations (subscription_id)"
        " where released_at is null"
    )
    op.execute(
        "create unique index uq_reservations_live_customer on reservations (customer_id, subscription_id)"
        " where released_at is null and customer_id is not null"
    )
    op.execute(
        "create unique index uq_reservations_live_email on reservations (email, subscription_id)"
        " where released_at is null and customer_id is null"
    )
    op.execute(
        "create unique index uq_reservations_live_invitation on reservations (invitation_id)"
        " where released_at is null and invitation_id is not null"
    )
    op.execute(
        "create unique index uq_reservations_live_slot on reservations (customer_id, slot)"
        " where released_at is null and customer_id is not null and slot is not null"
    )
    op.execute(
        "create unique index uq_reservations_live_creation on reservations (email)"
        " where released_at is null and customer_id is null and slot is not null"
    )


def create_transfers() -> None:
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
        sa.Column("created_at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("decided_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_transfers"),
    )
    op.execute("create unique index uq_transfers_open on transfers (subscription_id) where state = 'offered'")
    op.create_table(
        "purchase_grants",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("payer_id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("granted_at", INSTANT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("subscription_id", name="pk_purchase_grants"),
    )


def create_records() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("at", INSTANT, nullable=False, server_default=NOW),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.Text(), nullable=True),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.Column("actor_id", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("before", JSONB, nullable=False),
        sa.Column("after", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_events"),
    )
    op.execute("create index ix_audit_events_subscription_id_id on audit_events (subscription_id, id desc)")
    op.create_table(
        "quotes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("change_hash", sa.LargeBinary(), nullable=False),
        sa.Column("state_hash", sa.LargeBinary(), nullable=False),
        sa.Column("proration_date", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("used_at", INSTANT, nullable=True),
        sa.Column("quoted_at", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_due", sa.BigInteger(), nullable=False),
        sa.Column("credit", sa.BigInteger(), nullable=False),
        sa.Column("credit_forgone", sa.BigInteger(), nullable=False),
        sa.Column("tax", sa.BigInteger(), nullable=False),
        sa.Column("crediting", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_quotes"),
    )
    op.execute("create index ix_quotes_expires_at on quotes (expires_at)")
    op.create_table(
        "idempotency_keys",
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("headers", JSONB, nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("principal", "route", "key", name="pk_idempotency_keys"),
    )
    op.execute("create index ix_idempotency_keys_created_at on idempotency_keys (created_at)")


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    create_mirror()
    create_synchronisation()
    create_limits()
    create_people()
    create_invitations()
    create_operations()
    create_transfers()
    create_records()
    for table, checks in CHECKS.items():
        for name, condition in checks.items():
            op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
    for name in SQL_FILES:
        for statement in read_statements(name):
            op.execute(statement)


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    for name in TABLES:
        op.execute(f"drop table {name}")
    for name in FUNCTIONS:
        op.execute(f"drop function {name}")
    op.execute("drop type operation_kind")
