"""The tables of Stripe's objects.

They have Stripe's id as key, the snapshot's fields, and the columns of the sync rule (`app.mirror.store.rows`). There
are no foreign keys between them, because events arrive in any order.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    collate,
    func,
    text,
)

from app.postgres.tables.columns import instant, json_column, metadata, seconds, text_column, whole, yes_no


def _mirrored(name: str, *columns: Column[object]) -> Table:
    """Return a table of mirrored objects: `columns` and the columns of the sync rule.

    `existence` is `present`, `absent` (Stripe answered 404; the next snapshot makes it present again) or `deleted`
    (terminal).
    """
    return Table(
        name,
        metadata,
        Column("id", Text, primary_key=True),
        Column("created", BigInteger, nullable=False),
        *columns,
        Column("marker", BigInteger, nullable=False),
        Column("serial", BigInteger, nullable=False),
        Column("existence", Text, nullable=False),
        Column("terminal", Boolean, nullable=False),
        instant("synced_at", default=True),
    )


products = _mirrored(
    "products",
    yes_no("active"),
    text_column("name", required=True),
    text_column("description"),
    json_column("images", required=True),
    text_column("unit_label"),
    text_column("default_price_id"),
    yes_no("supports_sharing"),
    yes_no("owner_uses_seat", required=False),
    yes_no("sellable"),
)

prices = _mirrored(
    "prices",
    text_column("product_id", required=True),
    yes_no("active"),
    text_column("currency", required=True),
    text_column("type", required=True),
    text_column("billing_scheme", required=True),
    whole("unit_amount"),
    text_column("unit_amount_decimal"),
    json_column("recurring"),
    text_column("tiers_mode"),
    json_column("tiers"),
    json_column("transform_quantity"),
    json_column("currency_options"),
    text_column("tax_behavior"),
    text_column("lookup_key"),
    text_column("nickname"),
    yes_no("sellable", required=False),
)
Index(None, prices.c.product_id)

customers = _mirrored(
    "customers",
    text_column("email"),
    text_column("name"),
    text_column("phone"),
    text_column("currency"),
    whole("balance", required=True),
    text_column("default_payment_method_id"),
    text_column("default_source_id"),
    text_column("member_of"),
    text_column("member_role"),
    text_column("user_id"),
    text_column("operation_id"),
    json_column("metadata_problems", required=True),
    json_column("further_memberships", required=True),
)
Index(None, customers.c.user_id, postgresql_where=customers.c.user_id.is_not(None))
Index(None, customers.c.operation_id, postgresql_where=customers.c.operation_id.is_not(None))
Index(
    "ix_customers_email_lower",
    func.lower(collate(customers.c.email, "C")),
    postgresql_where=customers.c.email.is_not(None),
)

subscriptions = _mirrored(
    "subscriptions",
    text_column("customer_id", required=True),
    text_column("status", required=True),
    text_column("currency", required=True),
    # Stripe sends items only with their subscription, so one row lock, one marker and one serial cover both.
    json_column("items", required=True),
    text_column("owner_id"),
    text_column("operation_id"),
    seconds("cancel_at"),
    yes_no("cancel_at_period_end"),
    seconds("canceled_at"),
    seconds("ended_at"),
    seconds("trial_start"),
    seconds("trial_end"),
    seconds("start_date"),
    seconds("billing_cycle_anchor"),
    text_column("billing_mode"),
    text_column("collection_method"),
    text_column("default_payment_method_id"),
    text_column("default_source_id"),
    text_column("latest_invoice_id"),
    json_column("pending_update"),
    json_column("discounts", required=True),
    json_column("metadata_problems", required=True),
    json_column("pause_collection"),
    text_column("schedule_id"),
    json_column("discount_details"),
)
Index(None, subscriptions.c.customer_id)
Index(None, subscriptions.c.owner_id, postgresql_where=subscriptions.c.owner_id.is_not(None))
Index(None, subscriptions.c.operation_id, postgresql_where=subscriptions.c.operation_id.is_not(None))

payment_methods = _mirrored(
    "payment_methods",
    text_column("customer_id"),
    text_column("type", required=True),
    json_column("card"),
)
Index(None, payment_methods.c.customer_id, postgresql_where=payment_methods.c.customer_id.is_not(None))

invoices = _mirrored(
    "invoices",
    text_column("customer_id"),
    text_column("subscription_id"),
    text_column("number"),
    text_column("status"),
    text_column("currency", required=True),
    whole("subtotal", required=True),
    whole("total", required=True),
    whole("amount_due", required=True),
    whole("amount_paid", required=True),
    whole("amount_remaining", required=True),
    text_column("billing_reason"),
    text_column("hosted_invoice_url"),
    text_column("invoice_pdf"),
    seconds("period_start"),
    seconds("period_end"),
    seconds("due_date"),
    json_column("lines", required=True),
)
Index(None, invoices.c.customer_id, invoices.c.created.desc(), invoices.c.id.desc())
Index(None, invoices.c.subscription_id, postgresql_where=invoices.c.subscription_id.is_not(None))

# The memberships that the rows of present customers name, and their number for each subscription. The trigger in
# app/postgres/sql/record_membership_change.sql writes both in the statement that applies a customer. Which memberships
# nobody has claimed follows from `member_records`, by the triggers in app/postgres/sql/count_unclaimed.sql. Nothing
# else writes these tables.
memberships = Table(
    "memberships",
    metadata,
    text_column("subscription_id", required=True),
    text_column("customer_id", required=True),
    text_column("role", required=True),
    Column(
        "unclaimed",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="the seat was given by an e-mail, and its person has not acted since",
    ),
    # The key has all columns, so that a page in the order of the key is the cheapest plan for a team of any size.
    PrimaryKeyConstraint("subscription_id", "customer_id", postgresql_include=["role"]),
    CheckConstraint("role in ('user', 'manager')", name="role"),
)
Index(None, memberships.c.customer_id)
Index(None, memberships.c.subscription_id, memberships.c.role, memberships.c.customer_id)
Index(None, memberships.c.subscription_id, memberships.c.unclaimed, memberships.c.customer_id)
Index(
    "ix_memberships_role_unclaimed",
    memberships.c.subscription_id,
    memberships.c.role,
    memberships.c.unclaimed,
    memberships.c.customer_id,
)

membership_counts = Table(
    "membership_counts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    text_column("subscription_id", required=True),
    whole("users", required=True),
    whole("managers", required=True),
)
Index(None, membership_counts.c.subscription_id)

unclaimed_counts = Table(
    "unclaimed_counts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    text_column("subscription_id", required=True),
    whole("users", required=True),
    whole("managers", required=True),
)
Index(None, unclaimed_counts.c.subscription_id)

MIRRORED = (products, prices, customers, subscriptions, payment_methods, invoices)
for _listed in (products, prices, customers, subscriptions, invoices):
    Index(None, _listed.c.created)
