"""SQL statements about customers and their payment methods."""

from __future__ import annotations

from app.domain.ids import CustomerId, PaymentMethodId
from app.domain.snapshots import JsonObject
from app.postgres.database import Connection

_PROFILE = """
    select id, email, name, phone, currency, balance, default_payment_method_id, created, synced_at,
        (select s.currency from subscriptions s
         where s.customer_id = c.id and s.existence = 'present' and not s.terminal limit 1) as fixed_currency
    from customers c where id = $1 and existence = 'present'"""

_PAYMENT_METHOD = """
    select m.id, m.type, m.card, m.created, m.synced_at,
        coalesce(m.id = coalesce(c.default_payment_method_id, c.default_source_id), false) as is_default
    from payment_methods m join customers c on c.id = m.customer_id
    where m.customer_id = $1 and m.existence = 'present' and """

_ONE_PAYMENT_METHOD = _PAYMENT_METHOD + "m.id = $2"
_PAYMENT_METHODS = (
    _PAYMENT_METHOD
    + """($2::text is null or m.type = $2)
      and ($3::bigint is null or (m.created, m.id) < ($3, $4))
    order by m.created desc, m.id desc limit $5"""
)


async def profile(connection: Connection, customer_id: CustomerId) -> JsonObject | None:
    """Return the profile of a customer that exists, or None.

    `currency` is that of the last purchase. `fixed_currency` is that of the subscriptions that have not ended.
    """
    row = await connection.fetchrow(_PROFILE, customer_id)
    return None if row is None else dict(row)


async def has_paid(connection: Connection, customer_id: CustomerId) -> bool:
    """Return True if an invoice of the customer was paid, also one of zero."""
    return bool(
        await connection.fetchval(
            """select exists (select from invoices
            where customer_id = $1 and existence = 'present' and status = 'paid')""",
            customer_id,
        )
    )


async def payment_methods_filled(connection: Connection, customer_id: CustomerId) -> bool:
    """Return True if the customer's payment methods were read from Stripe once."""
    return (
        await connection.fetchval("select 1 from payment_method_fills where customer_id = $1", customer_id)
        is not None
    )


async def note_payment_methods_filled(connection: Connection, customer_id: CustomerId) -> None:
    """Record that the customer's payment methods were read from Stripe."""
    await connection.execute(
        "insert into payment_method_fills (customer_id) values ($1) on conflict do nothing", customer_id
    )


async def payment_methods(
    connection: Connection,
    customer_id: CustomerId,
    *,
    kind: str | None,
    after: tuple[int, str] | None,
    limit: int,
) -> list[JsonObject]:
    """Return payment methods, newest first.

    `kind` is Stripe's type; `after` is (created, id) of the last one seen.
    """
    created, last_id = after or (None, None)
    rows = await connection.fetch(_PAYMENT_METHODS, customer_id, kind, created, last_id, limit)
    return [dict(row) for row in rows]


async def payment_method_type(connection: Connection, payment_method_id: str) -> str | None:
    """Return Stripe's type of a payment method of any customer.

    It is None if the cache does not have the method.
    """
    found: str | None = await connection.fetchval(
        "select type from payment_methods where id = $1 and existence = 'present'", payment_method_id
    )
    return found


async def user_id(connection: Connection, customer_id: CustomerId) -> str | None:
    """Return the application's subject that the customer's metadata names, or None."""
    found: str | None = await connection.fetchval("select user_id from customers where id = $1", customer_id)
    return found


async def payment_method(
    connection: Connection, customer_id: CustomerId, payment_method_id: PaymentMethodId
) -> JsonObject | None:
    """Return a payment method of this customer, or None."""
    row = await connection.fetchrow(_ONE_PAYMENT_METHOD, customer_id, payment_method_id)
    return None if row is None else dict(row)
