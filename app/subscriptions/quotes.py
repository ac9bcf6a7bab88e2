"""Quotes: what a change costs, promised for one use by the principal who asked, and kept to the cent or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from app.context import Context
from app.domain.snapshots import JsonObject, Subscription
from app.domain.views import SubscriptionView
from app.errors import (
    BillingError,
    Conflict,
    FieldError,
    InvalidRequest,
)
from app.identity.actors import Actor
from app.operations.sending import is_known
from app.postgres.database import Connection
from app.subscriptions.charges import Priced, invoice_unpaid, price
from app.subscriptions.store import quotes
from app.subscriptions.store.quotes import Promise

if TYPE_CHECKING:
    from app.subscriptions.updates import SubscriptionUpdate


def change_hash(change: SubscriptionUpdate) -> bytes:
    """Hash what decides the change's cost and effect.

    The payment method is left out: another card may pay.
    """
    asked = [
        [[i.id, i.price_id, i.quantity, i.deleted] for i in change.items],
        change.promotion_code,
        change.cancel_at_period_end,
        asdict(change.terms),
    ]
    return hashlib.sha256(orjson.dumps(asked)).digest()


def state_of_view(view: SubscriptionView) -> bytes:
    """Hash what a quote depends on, as the mirror has it."""
    items = [[i["id"], i["price"]["id"], i["quantity"], i["current_period_end"]] for i in view.items]
    return _state_hash(items, view.collection_method, view.pause_collection)


def state_of(subscription: Subscription) -> bytes:
    """Hash what a quote depends on, as Stripe has it.

    That is items, prices, quantities, periods, and how it is collected.
    """
    items = [[i.id, i.price_id, i.quantity, i.current_period_end] for i in subscription.items]
    return _state_hash(items, subscription.collection_method, subscription.pause_collection)


def _state_hash(items: Sequence[Sequence[object]], method: str | None, pause: JsonObject | None) -> bytes:
    state = [items, method, pause]
    return hashlib.sha256(orjson.dumps(state, option=orjson.OPT_SORT_KEYS)).digest()


def promise(change: SubscriptionUpdate, subscription: Subscription, at: int, priced: Priced) -> Promise:
    """Return what a quote of this change promises.

    `at`: the second of Stripe's answer that it was computed from.
    """
    return Promise(
        change_hash=change_hash(change),
        state_hash=state_of(subscription),
        quoted_at=at,
        proration_date=priced.date or 0,
        currency=priced.now.currency,
        amount_due=priced.now.amount_due,
        credit=priced.now.credit,
        credit_forgone=priced.credit_forgone,
        tax=priced.now.tax,
        crediting=priced.crediting,
    )


async def use_quote(
    connection: Connection,
    actor: Actor,
    view: SubscriptionView,
    change: SubscriptionUpdate,
    *,
    is_computed: bool = False,
    rests_on_items: bool = False,
) -> None:
    """Mark the quote as used.

    `is_computed`: the change is computed from the members and seats, so a quote of another one is out of date.
    `rests_on_items`: it is computed from the items alone, so the same holds if they have changed since the quote.

    Raises:
        InvalidRequest: the quote is another principal's, or was made for another change.
        Conflict: `quote_expired`, once it was used, is too old, or the items changed.
    """
    quote_id = change.quote_id or ""
    quote = await quotes.find(connection, quote_id, subscription_id=view.id, principal=actor.principal.key)
    is_fitting = quote is not None and quote.promise.change_hash == change_hash(change)
    is_outdated = quote is not None and quote.promise.state_hash != state_of_view(view)
    if quote is None or not (is_fitting or is_computed or (rests_on_items and is_outdated)):
        detail = "quote_id names no quote that was made for this change. Ask for a new quote of it."
        raise InvalidRequest(detail, errors=[FieldError("/quote_id", "invalid", detail)])
    if not (is_fitting and quote.open) or is_outdated:
        raise expired()
    await quotes.use(connection, quote_id)


async def price_as_quoted(
    context: Context,
    subscription: Subscription,
    at: int,
    params: Mapping[str, Any],
    *,
    quote_id: str | None,
    restarts: bool,
    forgo_credit: bool,
) -> Priced:
    """Price a change that is about to be sent; with a quote, at its date and only as it promised.

    `subscription` and `at`: as Stripe has it now, and the second of its answer.

    Raises:
        Conflict: `invoice_unpaid`, or `quote_expired` where the quote cannot be kept.
        BillingError: what Stripe answers to the preview of a change without a quote.
    """
    if quote_id is None:
        return await price(context, subscription, at, params, restarts=restarts, forgo_credit=forgo_credit)
    async with context.database.connection() as connection:
        quoted = await quotes.promised(connection, quote_id)
    if quoted is None or quoted.state_hash != state_of(subscription):
        raise expired()
    check_age(quoted, at)
    try:
        # As the quote was priced. Whether the caller forgoes the credit decides only if that price is taken.
        priced = await price(
            context,
            subscription,
            at,
            params,
            restarts=restarts,
            forgo_credit=True,
            date=quoted.proration_date or None,
        )
    except BillingError as error:
        if not is_known(error):
            raise
        raise expired() from error
    check_kept(quoted, priced)
    if priced.unpaid is not None and not forgo_credit:
        raise invoice_unpaid(priced.unpaid, may_forgo=True)
    return priced


async def check_costs_nothing(
    context: Context, subscription: Subscription, at: int, *, quote_id: str
) -> None:
    """Raise Conflict `quote_expired` unless the quote promised that nothing is charged and nothing credited.

    For a quoted change that finds nothing left to do: a credit that was promised is given, or refused by name.
    """
    await price_as_quoted(context, subscription, at, {}, quote_id=quote_id, restarts=False, forgo_credit=True)


async def check_state(
    connection: Connection, subscription: Subscription, *, quote_id: str, principal: str
) -> None:
    """Raise Conflict `quote_expired` if Stripe shows another state than the one that was quoted.

    A quote that is not the principal's is left to `use_quote`.
    """
    quote = await quotes.find(connection, quote_id, subscription_id=subscription.id, principal=principal)
    if quote is not None and quote.promise.state_hash != state_of(subscription):
        raise expired()


def check_age(quoted: Promise, at: int) -> None:
    """Raise Conflict `quote_expired` if the quote is too old by Stripe's clock. `at`: Unix seconds.

    The database's clock ended it already where that is the later one.
    """
    if at - quoted.quoted_at > quoted.lifetime:
        raise expired()


def check_kept(quoted: Promise, priced: Priced) -> None:
    """Raise Conflict `quote_expired` unless the change costs now what was quoted, to the cent."""
    now = (priced.now.currency, priced.now.amount_due, priced.now.credit, priced.now.tax)
    promised = (quoted.currency, quoted.amount_due, quoted.credit, quoted.tax)
    if now != promised or (priced.credit_forgone > 0) != (quoted.credit_forgone > 0):
        raise expired()


def expired() -> Conflict:
    """Return the refusal of a quote that cannot be kept; nothing was charged."""
    detail = (
        "The quote was used, is too old, or what it was computed from has changed. Nothing was charged. "
        "Ask for a new quote."
    )
    return Conflict(detail, code="quote_expired")
