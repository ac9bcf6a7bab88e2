"""create the mirror and the operations

Revision: 0001, after none. Created: 2026-11-22.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LOCK_TIMEOUT = "set local lock_timeout = '5s'"  # A waiting ALTER TABLE makes every query behind it wait.


def upgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.create_table(
        "account",
        sa.Column("single", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("livemode", sa.Boolean(), nullable=False),
        sa.Column("filled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_account")),
    )
    op.create_table(
        "customers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("phone", sa.Text(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.Column("default_payment_method_id", sa.Text(), nullable=True),
        sa.Column("member_of", sa.Text(), nullable=True),
        sa.Column("member_role", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("operation_id", sa.Text(), nullable=True),
        sa.Column("oddities", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("marker", sa.BigInteger(), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("presence", sa.Text(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column(
            "synced_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_customers")),
    )
    op.create_index(
        "ix_customers_email_lower",
        "customers",
        [sa.literal_column("lower(email)")],
        unique=False,
        postgresql_where=sa.text("email IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_customers_member_of"),
        "customers",
        ["member_of"],
        unique=False,
        postgresql_where=sa.text("member_of IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_customers_operation_id"),
        "customers",
        ["operation_id"],
        unique=False,
        postgresql_where=sa.text("operation_id IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_customers_user_id"),
        "customers",
        ["user_id"],
        unique=False,
        postgresql_where=sa.text("user_id IS NOT NULL"),
    )
    op.create_table(
        "fill_cursors",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("last_id", sa.Text(), nullable=True),
        sa.Column("objects", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_fill_cursors")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("principal", "route", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "identities",
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("creation_key", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("linked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_identities")),
    )
    op.create_index(op.f("ix_identities_customer_id"), "identities", ["customer_id"], unique=True)
    op.create_table(
        "invoices",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
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
        sa.Column("lines", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("marker", sa.BigInteger(), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("presence", sa.Text(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column(
            "synced_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invoices")),
    )
    op.create_index(
        op.f("ix_invoices_customer_id_created_id"),
        "invoices",
        ["customer_id", sa.literal_column("created DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        op.f("ix_invoices_subscription_id"),
        "invoices",
        ["subscription_id"],
        unique=False,
        postgresql_where=sa.text("subscription_id IS NOT NULL"),
    )
    op.create_table(
        "member_records",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("typed_email", sa.Text(), nullable=True),
        sa.Column(
            "since", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("left_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("subscription_id", "customer_id", name=op.f("pk_member_records")),
    )
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
        sa.Column("figures", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("operation_id", "position", name=op.f("pk_operation_steps")),
    )
    op.create_index(
        "ix_operation_steps_unsettled_customer",
        "operation_steps",
        ["customer_id"],
        unique=False,
        postgresql_where=sa.text("settled_at is null"),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=True),
        sa.Column("door", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("lease_token", sa.UUID(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    op.create_index(
        op.f("ix_operations_subscription_id_created_at_id"),
        "operations",
        ["subscription_id", sa.literal_column("created_at DESC"), "id"],
        unique=False,
    )
    op.create_index(
        "ix_operations_unsettled",
        "operations",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("settled_at is null"),
    )
    op.create_table(
        "payment_method_fills",
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column(
            "filled_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("customer_id", name=op.f("pk_payment_method_fills")),
    )
    op.create_table(
        "payment_methods",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("card", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("marker", sa.BigInteger(), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("presence", sa.Text(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column(
            "synced_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_methods")),
    )
    op.create_index(
        op.f("ix_payment_methods_customer_id"),
        "payment_methods",
        ["customer_id"],
        unique=False,
        postgresql_where=sa.text("customer_id IS NOT NULL"),
    )
    op.create_table(
        "prices",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("billing_scheme", sa.Text(), nullable=False),
        sa.Column("unit_amount", sa.BigInteger(), nullable=True),
        sa.Column("unit_amount_decimal", sa.Text(), nullable=True),
        sa.Column("recurring", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("tiers_mode", sa.Text(), nullable=True),
        sa.Column("tiers", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("transform_quantity", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("currency_options", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("tax_behavior", sa.Text(), nullable=True),
        sa.Column("lookup_key", sa.Text(), nullable=True),
        sa.Column("nickname", sa.Text(), nullable=True),
        sa.Column("marker", sa.BigInteger(), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("presence", sa.Text(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column(
            "synced_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prices")),
    )
    op.create_index(op.f("ix_prices_product_id"), "prices", ["product_id"], unique=False)
    op.create_table(
        "products",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("images", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("unit_label", sa.Text(), nullable=True),
        sa.Column("default_price_id", sa.Text(), nullable=True),
        sa.Column("supports_sharing", sa.Boolean(), nullable=False),
        sa.Column("owner_uses_seat", sa.Boolean(), nullable=True),
        sa.Column("sellable", sa.Boolean(), nullable=False),
        sa.Column("marker", sa.BigInteger(), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("presence", sa.Text(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column(
            "synced_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_products")),
    )
    op.create_table(
        "refreshes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column(
            "hints", sa.BigInteger(), nullable=False, comment="hints not answered yet; 0: nothing is wanted"
        ),
        sa.Column(
            "newest_hint", sa.BigInteger(), nullable=False, comment="created, or Date, of the newest hint"
        ),
        sa.Column(
            "not_before",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_token", sa.UUID(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("dead_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refreshes")),
    )
    op.create_index(
        "ix_refreshes_due",
        "refreshes",
        ["not_before"],
        unique=False,
        postgresql_where=sa.text("hints > 0 and dead_at is null"),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("operation_id", sa.Text(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservations")),
        sa.UniqueConstraint("operation_id", "position", name=op.f("uq_reservations_operation_id_position")),
    )
    op.create_index(
        op.f("ix_reservations_subscription_id"),
        "reservations",
        ["subscription_id"],
        unique=False,
        postgresql_where=sa.text("released_at is null"),
    )
    op.create_index(
        "uq_reservations_live_customer",
        "reservations",
        ["customer_id"],
        unique=True,
        postgresql_where=sa.text("released_at is null and customer_id is not null"),
    )
    op.create_index(
        "uq_reservations_live_email",
        "reservations",
        ["email"],
        unique=True,
        postgresql_where=sa.text("released_at is null and customer_id is null"),
    )
    op.create_table(
        "seat_customers",
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("customer_id", name=op.f("pk_seat_customers")),
    )
    op.create_index(
        op.f("ix_seat_customers_email"),
        "seat_customers",
        ["email"],
        unique=True,
        postgresql_where=sa.text("claimed_at IS NULL"),
    )
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("items", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
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
        sa.Column("latest_invoice_id", sa.Text(), nullable=True),
        sa.Column("pending_update", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("discounts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("oddities", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("marker", sa.BigInteger(), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("presence", sa.Text(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column(
            "synced_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscriptions")),
    )
    op.create_index(op.f("ix_subscriptions_customer_id"), "subscriptions", ["customer_id"], unique=False)
    op.create_index(
        op.f("ix_subscriptions_operation_id"),
        "subscriptions",
        ["operation_id"],
        unique=False,
        postgresql_where=sa.text("operation_id IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_subscriptions_owner_id"),
        "subscriptions",
        ["owner_id"],
        unique=False,
        postgresql_where=sa.text("owner_id IS NOT NULL"),
    )
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_events")),
    )
    op.create_index(op.f("ix_webhook_events_received_at"), "webhook_events", ["received_at"], unique=False)


def downgrade() -> None:
    op.execute(LOCK_TIMEOUT)
    op.drop_index(op.f("ix_webhook_events_received_at"), table_name="webhook_events")
    op.drop_table("webhook_events")
    op.drop_index(
        op.f("ix_subscriptions_owner_id"),
        table_name="subscriptions",
        postgresql_where=sa.text("owner_id IS NOT NULL"),
    )
    op.drop_index(
        op.f("ix_subscriptions_operation_id"),
        table_name="subscriptions",
        postgresql_where=sa.text("operation_id IS NOT NULL"),
    )
    op.drop_index(op.f("ix_subscriptions_customer_id"), table_name="subscriptions")
    op.drop_table("subscriptions")
    op.drop_index(
        op.f("ix_seat_customers_email"),
        table_name="seat_customers",
        postgresql_where=sa.text("claimed_at IS NULL"),
    )
    op.drop_table("seat_customers")
    op.drop_index(
        "uq_reservations_live_email",
        table_name="reservations",
        postgresql_where=sa.text("released_at is null and customer_id is null"),
    )
    op.drop_index(
        "uq_reservations_live_customer",
        table_name="reservations",
        postgresql_where=sa.text("released_at is null and customer_id is not null"),
    )
    op.drop_index(
        op.f("ix_reservations_subscription_id"),
        table_name="reservations",
        postgresql_where=sa.text("released_at is null"),
    )
    op.drop_table("reservations")
    op.drop_index(
        "ix_refreshes_due", table_name="refreshes", postgresql_where=sa.text("hints > 0 and dead_at is null")
    )
    op.drop_table("refreshes")
    op.drop_table("products")
    op.drop_index(op.f("ix_prices_product_id"), table_name="prices")
    op.drop_table("prices")
    op.drop_index(
        op.f("ix_payment_methods_customer_id"),
        table_name="payment_methods",
        postgresql_where=sa.text("customer_id IS NOT NULL"),
    )
    op.drop_table("payment_methods")
    op.drop_table("payment_method_fills")
    op.drop_index(
        "ix_operations_unsettled", table_name="operations", postgresql_where=sa.text("settled_at is null")
    )
    op.drop_index(op.f("ix_operations_subscription_id_created_at_id"), table_name="operations")
    op.drop_table("operations")
    op.drop_index(
        "ix_operation_steps_unsettled_customer",
        table_name="operation_steps",
        postgresql_where=sa.text("settled_at is null"),
    )
    op.drop_table("operation_steps")
    op.drop_table("member_records")
    op.drop_index(
        op.f("ix_invoices_subscription_id"),
        table_name="invoices",
        postgresql_where=sa.text("subscription_id IS NOT NULL"),
    )
    op.drop_index(op.f("ix_invoices_customer_id_created_id"), table_name="invoices")
    op.drop_table("invoices")
    op.drop_index(op.f("ix_identities_customer_id"), table_name="identities")
    op.drop_table("identities")
    op.drop_index(op.f("ix_idempotency_keys_created_at"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_table("fill_cursors")
    op.drop_index(
        op.f("ix_customers_user_id"), table_name="customers", postgresql_where=sa.text("user_id IS NOT NULL")
    )
    op.drop_index(
        op.f("ix_customers_operation_id"),
        table_name="customers",
        postgresql_where=sa.text("operation_id IS NOT NULL"),
    )
    op.drop_index(
        op.f("ix_customers_member_of"),
        table_name="customers",
        postgresql_where=sa.text("member_of IS NOT NULL"),
    )
    op.drop_index(
        "ix_customers_email_lower", table_name="customers", postgresql_where=sa.text("email IS NOT NULL")
    )
    op.drop_table("customers")
    op.drop_table("account")
