"""Read subscriptions with everything that an answer needs, in one statement that only uses indexes.

A login's read of a subscription with an open operation takes a second one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import JsonObject
from app.domain.views import Contact, SubscriptionView
from app.errors import Conflict
from app.identity.principals import EndUser
from app.identity.store import Link
from app.mirror.store.members import MOVING_SEATS, NUMBERS_COUNT, PROMISED_SEATS
from app.postgres.database import Connection, Database, Record
from app.postgres.failures import RowLocked

_OF_ROWS = """
    select s.id, s.customer_id, s.status, s.currency, s.created, s.start_date, s.trial_start, s.trial_end,
        s.cancel_at, s.cancel_at_period_end, s.canceled_at, s.ended_at, s.billing_mode,
        s.collection_method, s.pause_collection, s.schedule_id, s.latest_invoice_id,
        s.default_payment_method_id, s.pending_update, s.discounts, s.discount_details, s.synced_at,
        s.items, array(
            select row(x.price_id, r.currency, r.unit_amount, r.unit_amount_decimal, r.billing_scheme, r.recurring,
                r.nickname, r.transform_quantity, r.tiers_mode, r.tiers, r.currency_options -> s.currency,
                p.name, p.supports_sharing, p.owner_uses_seat)
            from jsonb_to_recordset(s.items) as x(price_id text, product_id text)
            left join prices r on r.id = x.price_id
            left join products p on p.id = x.product_id) as offers,
        s.owner_id as named_owner_id, o.id as owner_id, o.email as owner_email, o.name as owner_name,
        (select coalesce(sum(n.users + n.managers), 0)::bigint from membership_counts n
         where n.subscription_id = s.id) - exists (select from memberships m
            where m.subscription_id = s.id and m.customer_id = o.id)::int as members,
        exists (select from purchase_grants g
            where g.subscription_id = s.id and g.owner_id = s.owner_id and g.payer_id = s.customer_id)
            as owner_may_purchase,
        a.role as asker_role"""
_OF_OPERATIONS = f"""
        (select count(*) from {PROMISED_SEATS} and v.subscription_id = s.id and {NUMBERS_COUNT}) as reserved,
        {MOVING_SEATS} as moving,
        (select jsonb_build_object('operation_id', t.operation_id, 'invoice_id', t.invoice_id, 'ends_at',
            extract(epoch from least(t.payment_until, to_timestamp(t.update_expires_at)))::bigint)
         from operation_steps t where t.subscription_id = s.id and t.state = 'awaiting_payment' limit 1) as waiting"""
_COLUMNS = f"{_OF_ROWS},{_OF_OPERATIONS}"

# Most subscriptions have no open operation, and then _OF_OPERATIONS is 0 and null. To ask only for that takes a seventh
# off the statement. Without a relation to the subscription the answer is no, so a hidden id takes no other statement.
_HAS_OPERATIONS = """
        (a.customer_id is not null or asker.id in (s.customer_id, s.owner_id)) and (
            exists (select from reservations v where v.subscription_id = s.id and v.released_at is null)
            or exists (select from operation_steps t
                where t.subscription_id = s.id and t.state = 'awaiting_payment')) as has_operations"""
# While metadata names no owner, the customer who pays is the owner.
_PEOPLE = """
    left join customers o on o.id = coalesce(s.owner_id, s.customer_id) and o.existence = 'present'
    left join memberships a on a.subscription_id = s.id and a.customer_id = asker.id"""

_VIEW = f"""{_COLUMNS}
    from (select $1::text as id) asker cross join subscriptions s {_PEOPLE}
    where s.existence = 'present' and """

# A login and its subscription in one round trip. It always returns a row, so absent and hidden ids take equal time.
_LOGIN = f"""
    from (select) one
    left join (select i.customer_id as id, coalesce(i.email is distinct from $4::text and $4 is not null, false)
            or exists (select from member_records k where k.customer_id = i.customer_id and k.typed_email is not null)
            as has_news
        from identities i where i.issuer = $1 and i.subject = $2) asker on true
    left join subscriptions s on s.id = $3 and s.existence = 'present' {_PEOPLE}"""
_BY_LOGIN = f"{_COLUMNS}, asker.id as asker_id, asker.has_news {_LOGIN}"
_BY_LOGIN_WITHOUT_OPERATIONS = (
    f"{_OF_ROWS}, 0 as reserved, {_HAS_OPERATIONS}, asker.id as asker_id, asker.has_news {_LOGIN}"
)

_BY_ID = _VIEW + "s.id = $2"
_BY_IDS = _VIEW + "s.id = any($2::text[])"
_BY_CUSTOMER = (
    _VIEW
    + """s.id in (
        select id from subscriptions where customer_id = $1
        union select id from subscriptions where owner_id = $1
        union select subscription_id from memberships where customer_id = $1)
      and ($2::text[] is null or s.status = any($2))
    order by s.created desc, s.id desc"""
)


# The names are in the order of `offers` above. Offers are rows, because building JSON takes longer than all the rest.
def _item(item: JsonObject, offer: Record, billed_in: str) -> JsonObject:
    """Return the item with its price in the currency of the subscription, and with its product."""
    (
        price_id,
        currency,
        unit_amount,
        unit_amount_decimal,
        billing_scheme,
        recurring,
        nickname,
        transform_quantity,
        tiers_mode,
        tiers,
        option,
        name,
        supports_sharing,
        owner_uses_seat,
    ) = offer
    if option is not None and currency != billed_in:
        currency, tiers = billed_in, option["tiers"]
        unit_amount, unit_amount_decimal = option["unit_amount"], option["unit_amount_decimal"]
    item["price"] = {
        "id": price_id,
        "currency": currency,
        "billing_scheme": billing_scheme,
        "nickname": nickname,
        "recurring": recurring,
        "unit_amount": unit_amount,
        "unit_amount_decimal": unit_amount_decimal,
        "tiers_mode": tiers_mode,
        "tiers": tiers,
        "transform_quantity": transform_quantity,
    }
    item["product"] = {
        "id": item["product_id"],
        "name": name,
        "supports_shared_subscriptions": supports_sharing is True,
        "owner_uses_seat": owner_uses_seat,
    }
    return item


def _view(values: JsonObject) -> SubscriptionView:
    owner_id, email, name = values.pop("owner_id"), values.pop("owner_email"), values.pop("owner_name")
    values["members"] -= values.pop("moving", 0)
    offers = values.pop("offers")
    of_price = {offer[0]: offer for offer in offers}
    billed_in = values["currency"]
    values["items"] = [_item(item, of_price[item["price_id"]], billed_in) for item in values["items"] or []]
    return SubscriptionView(
        owner=None if owner_id is None else Contact(CustomerId(owner_id), email, name), **values
    )


async def subscription_view(
    connection: Connection, subscription_id: SubscriptionId, *, asker: CustomerId | None
) -> SubscriptionView | None:
    """Return a subscription as read for customer `asker`, None if it does not exist."""
    row = await connection.fetchrow(_BY_ID, asker, subscription_id)
    return None if row is None else _view(dict(row))


async def subscription_views(
    connection: Connection, subscription_ids: Collection[str]
) -> dict[str, SubscriptionView]:
    """Return those subscriptions that exist, by id, as read for nobody in particular."""
    rows = await connection.fetch(_BY_IDS, None, list(subscription_ids))
    return {row["id"]: _view(dict(row)) for row in rows}


async def view_for_login(
    connection: Connection, subscription_id: SubscriptionId, user: EndUser
) -> tuple[Link | None, SubscriptionView | None]:
    """Return the link of a login and the subscription as read for its customer, each None if it does not exist.

    The customer may have been deleted at Stripe; then the view shows them no role. Without a relation of that customer
    to the subscription, the view's `reserved` and `waiting` are not read.
    """
    asked = (user.issuer, user.subject, subscription_id, user.verified_email)
    row = await connection.fetchrow(_BY_LOGIN_WITHOUT_OPERATIONS, *asked)
    if row is not None and row["has_operations"]:
        row = await connection.fetchrow(_BY_LOGIN, *asked)
    if row is None:
        raise LookupError("a statement that always answers one row answered none")
    values = dict(row)
    values.pop("has_operations", None)
    asker, has_news = values.pop("asker_id"), values.pop("has_news")
    link = None if asker is None else Link(CustomerId(asker), has_news)
    return link, _view(values) if values["id"] is not None else None


async def customer_subscriptions(
    connection: Connection, customer_id: CustomerId, *, statuses: Sequence[str] | None
) -> list[SubscriptionView]:
    """Return all subscriptions that the customer pays for, owns or is a member of, newest first."""
    return [_view(dict(row)) for row in await connection.fetch(_BY_CUSTOMER, customer_id, statuses)]


async def lock(connection: Connection, subscription_id: SubscriptionId) -> bool:
    """Lock the subscription's row to admit changes of its seats; False if the subscription does not exist."""
    return (
        await connection.fetchval(
            "select 1 from subscriptions where id = $1 and existence = 'present' for update", subscription_id
        )
        is not None
    )


@asynccontextmanager
async def admitting(database: Database, subscription_id: SubscriptionId) -> AsyncIterator[Connection]:
    """Open the transaction that admits a change of a subscription, with the subscription's row locked.

    Call it only for a change that nothing was stored of yet: a lock that another session holds refuses it.

    Raises:
        Conflict: `operation_in_progress`: another session held a lock for too long. Nothing was changed.
    """
    with refused_if_locked():
        async with database.transaction_on(subscription_id) as connection:
            await lock(connection, subscription_id)
            yield connection


@contextmanager
def refused_if_locked() -> Iterator[None]:
    """Refuse the change of the block if another session holds a lock for too long.

    Raises:
        Conflict: `operation_in_progress`.
    """
    try:
        yield
    except RowLocked as error:
        raise Conflict(
            "Another change of the same subscription is still running. Send the request again.", retry_after=1
        ) from error
