"""Describe the tables. A test compares the migrations with this metadata; statements are SQL texts beside their use.

Mirrored tables have Stripe's id as key, the snapshot's fields, and the columns of the sync rule
(`app.mirror.store.rows`). There are no foreign keys between them, because events arrive in any order. Instants from
Stripe are whole Unix seconds; our own are timestamptz by the database's clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, ENUM, JSONB, UUID
from sqlalchemy.types import TypeEngine

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

NOW = text("clock_timestamp()")


def _instant(name: str, *, nullable: bool = True, default: bool = False) -> Column[object]:
    server_default = NOW if default else None
    return Column(
        name, DateTime(timezone=True), nullable=nullable and not default, server_default=server_default
    )


def _text(name: str, *, required: bool = False) -> Column[object]:
    return Column(name, Text, nullable=not required)


def _seconds(name: str) -> Column[object]:
    return Column(name, BigInteger)


def _whole(name: str, *, required: bool = False) -> Column[object]:
    return Column(name, BigInteger, nullable=not required)


def _yes_no(name: str, *, required: bool = True) -> Column[object]:
    return Column(name, Boolean, nullable=not required)


def _json(name: str, *, required: bool = False) -> Column[object]:
    kind: TypeEngine[object] = JSONB()
    return Column(name, kind, nullable=not required)


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
        _instant("synced_at", default=True),
    )


products = _mirrored(
    "products",
    _yes_no("active"),
    _text("name", required=True),
    _text("description"),
    _json("images", required=True),
    _text("unit_label"),
    _text("default_price_id"),
    _yes_no("supports_sharing"),
    _yes_no("owner_uses_seat", required=False),
    _yes_no("sellable"),
)

prices = _mirrored(
    "prices",
    _text("product_id", required=True),
    _yes_no("active"),
    _text("currency", required=True),
    _text("type", required=True),
    _text("billing_scheme", required=True),
    _whole("unit_amount"),
    _text("unit_amount_decimal"),
    _json("recurring"),
    _text("tiers_mode"),
    _json("tiers"),
    _json("transform_quantity"),
    _json("currency_options"),
    _text("tax_behavior"),
    _text("lookup_key"),
    _text("nickname"),
    _yes_no("sellable", required=False),
)
Index(None, prices.c.product_id)

customers = _mirrored(
    "customers",
    _text("email"),
    _text("name"),
    _text("phone"),
    _text("currency"),
    _whole("balance", required=True),
    _text("default_payment_method_id"),
    _text("default_source_id"),
    _text("member_of"),
    _text("member_role"),
    _text("user_id"),
    _text("operation_id"),
    _json("metadata_problems", required=True),
)
Index(None, customers.c.member_of, postgresql_where=customers.c.member_of.is_not(None))
Index(None, customers.c.user_id, postgresql_where=customers.c.user_id.is_not(None))
Index(None, customers.c.operation_id, postgresql_where=customers.c.operation_id.is_not(None))
Index(
    "ix_customers_email_lower", func.lower(customers.c.email), postgresql_where=customers.c.email.is_not(None)
)

subscriptions = _mirrored(
    "subscriptions",
    _text("customer_id", required=True),
    _text("status", required=True),
    _text("currency", required=True),
    # Stripe sends items only with their subscription, so one row lock, one marker and one serial cover both.
    _json("items", required=True),
    _text("owner_id"),
    _text("operation_id"),
    _seconds("cancel_at"),
    _yes_no("cancel_at_period_end"),
    _seconds("canceled_at"),
    _seconds("ended_at"),
    _seconds("trial_start"),
    _seconds("trial_end"),
    _seconds("start_date"),
    _seconds("billing_cycle_anchor"),
    _text("billing_mode"),
    _text("collection_method"),
    _text("default_payment_method_id"),
    _text("default_source_id"),
    _text("latest_invoice_id"),
    _json("pending_update"),
    _json("discounts", required=True),
    _json("metadata_problems", required=True),
    _json("pause_collection"),
    _text("schedule_id"),
    _json("discount_details"),
)
Index(None, subscriptions.c.customer_id)
Index(None, subscriptions.c.owner_id, postgresql_where=subscriptions.c.owner_id.is_not(None))
Index(None, subscriptions.c.operation_id, postgresql_where=subscriptions.c.operation_id.is_not(None))

payment_methods = _mirrored(
    "payment_methods",
    _text("customer_id"),
    _text("type", required=True),
    _json("card"),
)
Index(None, payment_methods.c.customer_id, postgresql_where=payment_methods.c.customer_id.is_not(None))

invoices = _mirrored(
    "invoices",
    _text("customer_id"),
    _text("subscription_id"),
    _text("number"),
    _text("status"),
    _text("currency", required=True),
    _whole("subtotal", required=True),
    _whole("total", required=True),
    _whole("amount_due", required=True),
    _whole("amount_paid", required=True),
    _whole("amount_remaining", required=True),
    _text("billing_reason"),
    _text("hosted_invoice_url"),
    _text("invoice_pdf"),
    _seconds("period_start"),
    _seconds("period_end"),
    _seconds("due_date"),
    _json("lines", required=True),
)
Index(None, invoices.c.customer_id, invoices.c.created.desc(), invoices.c.id.desc())
Index(None, invoices.c.subscription_id, postgresql_where=invoices.c.subscription_id.is_not(None))

MIRRORED = (products, prices, customers, subscriptions, payment_methods, invoices)
for _listed in (products, prices, customers, subscriptions, invoices):
    Index(None, _listed.c.created)

webhook_events = Table(
    "webhook_events",
    metadata,
    Column("id", Text, primary_key=True),
    _text("type", required=True),
    _text("object_id"),
    _seconds("created"),
    _text("outcome", required=True),
    _instant("received_at", default=True),
)
Index(None, webhook_events.c.received_at)

refreshes = Table(
    "refreshes",
    metadata,
    Column("id", Text, primary_key=True),
    _text("kind", required=True),
    Column(
        "notifications",
        BigInteger,
        nullable=False,
        comment="not applied yet; 0: nothing is to be fetched",
    ),
    Column(
        "notified_at",
        BigInteger,
        nullable=False,
        comment="created, or Date, of the newest notification",
    ),
    _instant("not_before", default=True),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("lease_token", UUID(as_uuid=True)),
    _instant("lease_until"),
    _text("last_error"),
    _instant("dead_at"),
)
Index(
    "ix_refreshes_due",
    refreshes.c.not_before,
    postgresql_where=text("notifications > 0 and dead_at is null"),
)
Index("ix_refreshes_dead", refreshes.c.dead_at, postgresql_where=refreshes.c.dead_at.is_not(None))

payment_method_fills = Table(
    "payment_method_fills",
    metadata,
    Column("customer_id", Text, primary_key=True),
    _instant("filled_at", default=True),
)

account = Table(
    "account",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    _text("id", required=True),
    _yes_no("livemode"),
    _instant("filled_at"),
)

list_scans = Table(
    "list_scans",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _text("purpose", required=True),
    _yes_no("dry_run"),
    Column("fence", BigInteger, nullable=False, comment="counted up by every process that takes the scan"),
    Column("planned_at", BigInteger, nullable=False, comment="by Stripe's clock"),
    _instant("started_at", default=True),
    _instant("finished_at"),
    _text("outcome"),
    _json("report"),
)
Index(None, list_scans.c.purpose, list_scans.c.id.desc())

list_scan_ranges = Table(
    "list_scan_ranges",
    metadata,
    Column("scan_id", BigInteger, primary_key=True),
    Column("position", Integer, primary_key=True),
    _text("kind", required=True),
    Column("created_from", BigInteger, nullable=False),
    Column("created_to", BigInteger, comment="inclusive; null: up to now"),
    _text("last_id"),
    _seconds("last_created"),
    Column(
        "open_ids",
        ARRAY(Text),
        nullable=False,
        comment="seen in second `last_created`, with which the next page may begin",
    ),
    _whole("pages", required=True),
    _whole("objects", required=True),
    _instant("finished_at"),
)

list_scan_findings = Table(
    "list_scan_findings",
    metadata,
    Column("scan_id", BigInteger, primary_key=True),
    Column("object_id", Text, primary_key=True),
    _text("kind", required=True),
    _text("finding", required=True),
    _text("outcome"),
)

rate_grants = Table(
    "rate_grants",
    metadata,
    _instant("granted_at", nullable=False),
    _instant("counts_until", nullable=False),
    _text("work", required=True),
    _text("endpoint", required=True),
    Column("number", Integer, nullable=False),
    prefixes=["unlogged"],
)

rate_slowdown = Table(
    "rate_slowdown",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("factor", Float, nullable=False),
    _instant("since", nullable=False),
    prefixes=["unlogged"],
)

identities = Table(
    "identities",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    _text("customer_id"),
    Column("creation_key", UUID(as_uuid=True), nullable=False, server_default=text("gen_random_uuid()")),
    _instant("lease_until"),
    _instant("created_at", default=True),
    _instant("linked_at"),
)
Index(None, identities.c.customer_id, unique=True)

seat_customers = Table(
    "seat_customers",
    metadata,
    Column("customer_id", Text, primary_key=True),
    _text("email", required=True),
    _text("operation_id", required=True),
    _instant("created_at", default=True),
    _instant("claimed_at"),
)
Index(None, seat_customers.c.email, unique=True, postgresql_where=seat_customers.c.claimed_at.is_(None))

member_records = Table(
    "member_records",
    metadata,
    Column("subscription_id", Text, primary_key=True),
    Column("customer_id", Text, primary_key=True),
    _text("typed_email"),
    _instant("since", default=True),
    _instant("left_at"),
)

OPERATION_KINDS = (
    "member_change",
    "leave",
    "transfer",
    "cleanup",
    "add_subscription",
    "update_subscription",
    "cancel_subscription",
    "resume_subscription",
)
STEP_ACTIONS = (
    "set_owner",
    "remove",
    "update",
    "buy_seats",
    "add",
    "release_seats",
    "add_subscription",
    "update_subscription",
    "cancel_subscription",
    "resume_subscription",
)


# The states and what they mean are in app/operations/lifecycle.py; a test compares the names.
UNSETTLED_STATES = ("planned", "in_flight", "ambiguous", "expired", "awaiting_payment")
SETTLED_STATES = ("applied", "unchanged", "refused", "failed")


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


operations = Table(
    "operations",
    metadata,
    Column("id", Text, primary_key=True),
    _text("subscription_id", required=True),
    Column("kind", ENUM(*OPERATION_KINDS, name="operation_kind"), nullable=False),
    _text("state", required=True),
    _text("principal", required=True),
    _text("actor_id"),
    _text("source", required=True),
    _json("request", required=True),
    Column("lease_token", UUID(as_uuid=True)),
    _instant("lease_until"),
    _instant("created_at", default=True),
    _instant("settled_at"),
    Column("seat_total", BigInteger, comment="the seats after it, where it changes their number"),
    CheckConstraint("state in ('running', 'settled')", name="state"),
    CheckConstraint("(state = 'settled') = (settled_at is not null)", name="settled"),
    # A settled operation has no lease. A running one has that of its runner, or an old one until a worker takes it.
    CheckConstraint("(state = 'running') = (lease_until is not null)", name="lease_until"),
    CheckConstraint("(lease_token is null) = (lease_until is null)", name="lease_token"),
    CheckConstraint("seat_total >= 0", name="seat_total"),
)
Index(None, operations.c.subscription_id, operations.c.created_at.desc(), operations.c.id)
Index(
    "ix_operations_unsettled",
    operations.c.created_at,
    postgresql_where=text("settled_at is null"),
)

operation_steps = Table(
    "operation_steps",
    metadata,
    Column("operation_id", Text, primary_key=True),
    Column("position", SmallInteger, primary_key=True),
    _text("subscription_id", required=True),
    _text("action", required=True),
    _text("customer_id"),
    _text("email"),
    _text("role"),
    _text("role_before"),
    _text("state", required=True),
    _text("code"),
    _json("figures", required=True),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    _instant("sent_at"),
    Column(
        "unanswered_at",
        DateTime(timezone=True),
        comment="when the last request without an answer was sent",
    ),
    _instant("settled_at"),
    Column("invoice_id", Text, comment="the invoice that proves the payment of a purchase that waits for it"),
    Column("update_expires_at", BigInteger, comment="Unix seconds: when Stripe drops a change that waits"),
    _instant("payment_until"),
    Column("end_code", Text, comment="why a purchase that waits is to end"),
    Column("awaits_seats", Boolean, nullable=False, server_default=text("false")),
    # `sent_at` belongs to the key of the current attempt. It is null before the first key and between two keys.
    CheckConstraint(f"state in ({_quoted(UNSETTLED_STATES + SETTLED_STATES)})", name="state"),
    CheckConstraint(f"(state in ({_quoted(SETTLED_STATES)})) = (settled_at is not null)", name="settled"),
    CheckConstraint("state <> 'in_flight' or sent_at is not null", name="in_flight"),
    CheckConstraint(
        "state not in ('planned', 'ambiguous', 'expired') or sent_at is null", name="not_in_flight"
    ),
    CheckConstraint("sent_at is not null or unanswered_at is null", name="unanswered"),
    CheckConstraint("attempt >= 0 and (state <> 'planned' or attempt = 0)", name="attempt"),
    CheckConstraint("state not in ('ambiguous', 'expired') or attempt > 0", name="later_attempt"),
    CheckConstraint("(state in ('refused', 'failed')) = (code is not null)", name="code"),
    CheckConstraint(f"action in ({_quoted(STEP_ACTIONS)})", name="action"),
    CheckConstraint(
        "action not in ('add', 'remove', 'update') or customer_id is not null or email is not null",
        name="person",
    ),
    CheckConstraint("role in ('manager', 'user') and role_before in ('manager', 'user')", name="role"),
    CheckConstraint("state <> 'awaiting_payment' or invoice_id is not null", name="invoice"),
    CheckConstraint("not awaits_seats or action = 'add'", name="awaits_seats"),
)
Index(
    "ix_operation_steps_paid_without_effect",
    operation_steps.c.settled_at,
    postgresql_where=text("code = 'paid_without_effect' and invoice_id is not null"),
)
Index(
    "ix_operation_steps_awaiting_payment",
    operation_steps.c.subscription_id,
    postgresql_where=text("state = 'awaiting_payment'"),
)
Index(
    "ix_operation_steps_unsettled_customer",
    operation_steps.c.customer_id,
    postgresql_where=text("settled_at is null"),
)

reservations = Table(
    "reservations",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _text("operation_id", required=True),
    Column("position", SmallInteger, nullable=False),
    _text("subscription_id", required=True),
    _text("customer_id"),
    _text("email"),
    _instant("created_at", default=True),
    _instant("released_at"),
    Column("item_id", Text, comment="the item that is to give the seat, for one that is bought first"),
    Column("from_quantity", BigInteger, comment="the item's quantity from which such a seat counts"),
    UniqueConstraint("operation_id", "position"),
    # A seat that is bought first names nobody until it is paid.
    CheckConstraint("(customer_id is null and email is null) = (from_quantity is not null)", name="person"),
    CheckConstraint("(item_id is null) = (from_quantity is null)", name="item"),
)
Index(
    "uq_reservations_live_customer",
    reservations.c.customer_id,
    unique=True,
    postgresql_where=text("released_at is null and customer_id is not null"),
)
Index(
    "uq_reservations_live_email",
    reservations.c.email,
    unique=True,
    postgresql_where=text("released_at is null and customer_id is null"),
)
Index(None, reservations.c.subscription_id, postgresql_where=text("released_at is null"))

transfers = Table(
    "transfers",
    metadata,
    Column("id", Text, primary_key=True),
    _text("subscription_id", required=True),
    _text("from_id"),
    _text("to_id", required=True),
    _yes_no("allow_purchases"),
    _text("keep_me_as"),
    _text("state", required=True),
    _text("operation_id"),
    _instant("created_at", default=True),
    _instant("expires_at", nullable=False),
    _instant("decided_at"),
)
Index(
    "uq_transfers_open",
    transfers.c.subscription_id,
    unique=True,
    postgresql_where=text("state = 'offered'"),
)

purchase_grants = Table(
    "purchase_grants",
    metadata,
    Column("subscription_id", Text, primary_key=True),
    _text("payer_id", required=True),
    _text("owner_id", required=True),
    _instant("granted_at", default=True),
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _text("subscription_id", required=True),
    _instant("at", default=True),
    _text("source", required=True),
    _text("operation_id"),
    _text("principal"),
    _text("actor_id"),
    _text("action", required=True),
    _text("customer_id"),
    _json("before", required=True),
    _json("after", required=True),
)
Index(None, audit_events.c.subscription_id, audit_events.c.id.desc())

quotes = Table(
    "quotes",
    metadata,
    Column("id", Text, primary_key=True),
    _text("subscription_id", required=True),
    _text("principal", required=True),
    Column("change_hash", LargeBinary, nullable=False),
    Column("state_hash", LargeBinary, nullable=False),
    Column("proration_date", BigInteger, nullable=False),
    _instant("expires_at", nullable=False),
    _instant("used_at"),
    _whole("quoted_at", required=True),
    _text("currency", required=True),
    _whole("amount_due", required=True),
    _whole("credit", required=True),
    _whole("credit_forgone", required=True),
    _whole("tax", required=True),
    _yes_no("crediting"),
)
Index(None, quotes.c.expires_at)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_hash", LargeBinary, nullable=False),
    Column("status", SmallInteger),
    _json("headers"),
    Column("body", LargeBinary),
    _instant("created_at", default=True),
)
Index(None, idempotency_keys.c.created_at)

request_rates = Table(
    "request_rates",
    metadata,
    Column("name", Text, primary_key=True),
    _instant("full_at", nullable=False),
    prefixes=["unlogged"],
)

schema_floor = Table(
    "schema_floor",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("number", Integer, nullable=False),
)
