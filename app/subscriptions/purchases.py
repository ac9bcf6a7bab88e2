"""Buying a subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.catalogue import store as catalogue
from app.catalogue.offers import OfferedPrice
from app.context import Context
from app.customers.store import customers
from app.customers.ways_of_paying import behavior_of_purchase
from app.domain import metadata as keys
from app.domain.ids import CustomerId, PaymentMethodId, SubscriptionId
from app.domain.payments import Named
from app.domain.snapshots import JsonObject
from app.errors import (
    Conflict,
    FieldError,
    InvalidRequest,
    NotFound,
)
from app.identity.actors import Actor
from app.operations.runner import Accepted, unless_away
from app.subscriptions.before_sending import found_for_purchase
from app.subscriptions.change_operations import Begun, Done, begun, carry_out_change, insert_operation
from app.subscriptions.item_changes import ItemChange, Terms, common_currency, items_of_purchase
from app.subscriptions.orders import Found, Method, Order
from app.subscriptions.purchase_admission import admit
from app.subscriptions.updates import MoneyTerms, price_ids

_OTHER_PURCHASE_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Purchase:
    """What a caller wants to buy.

    `allow_duplicate`: even if a live subscription has one of the prices.
    """

    items: Sequence[ItemChange]
    payment_method_id: PaymentMethodId | None
    promotion_code: str | None
    currency: str | None
    terms: MoneyTerms
    allow_duplicate: bool = False


async def add(
    context: Context, actor: Actor, customer_id: CustomerId, purchase: Purchase, operation_id: str
) -> Done | Accepted:
    """Create a subscription, and return it as its buyer sees it.

    With a payment method it is charged at once, and a declined card leaves nothing behind. Without one, or if the bank
    asks the cardholder, the purchase is Accepted: the caller's page completes the payment with the client secret.

    Raises:
        NotFound: the customer, or a payment method that is not theirs.
        InvalidRequest: an item, or the currency, breaks a rule.
        PaymentRequired: the card was declined.
        Conflict: `already_subscribed` if a live subscription has one of the prices, or `operation_in_progress`.
        RateLimited: `too_many_in_flight`.
        ServiceUnavailable: nothing was sent.
    """
    async with context.database.connection() as connection:
        profile = await customers.profile(connection, customer_id)
        prices = await catalogue.prices_for_purchase(
            connection, price_ids(purchase.items), open_catalogue=context.rules.open_catalogue
        )
        begun_before = await begun(context, connection, operation_id)
    if profile is None:
        raise NotFound()
    if begun_before is None:
        params = _creation(actor, profile, purchase, prices, operation_id)
        order = await _order_of(context, purchase, params)
        begun_before = await _admitted(context, actor, customer_id, purchase, order, operation_id)
    return await carry_out_change(context, actor, begun_before)


async def _order_of(context: Context, purchase: Purchase, params: dict[str, Any]) -> Order:
    """Return the order that creates the subscription.

    The payment method and the promotion code are read at Stripe; while it is away, the operation does that.
    """
    named = Named(purchase.payment_method_id, purchase.promotion_code)
    if named.is_empty:
        return Order(Method.CREATE, params)

    async def looked() -> Found:
        return await found_for_purchase(context, params, named)

    found = await unless_away(context, looked)
    order = Order(Method.CREATE, params, unread=named)
    return order if found is None else order.naming(found)


async def _admitted(
    context: Context,
    actor: Actor,
    customer_id: CustomerId,
    purchase: Purchase,
    order: Order,
    operation_id: str,
) -> Begun:
    """Store the operation once the purchase may begin.

    Another purchase of the same price is waited for, because its outcome decides. Raises Conflict
    `operation_in_progress` if it takes longer, and what `admit` raises.
    """
    loop = asyncio.get_running_loop()
    give_up, pause = loop.time() + _OTHER_PURCHASE_SECONDS, _FIRST_PAUSE_SECONDS
    while True:
        async with context.database.transaction() as connection:
            superseded = await admit(
                connection, customer_id, purchase.items, allow_duplicate=purchase.allow_duplicate
            )
            if superseded is not None:
                return await insert_operation(
                    context,
                    connection,
                    actor,
                    operation_id,
                    "add_subscription",
                    SubscriptionId(""),
                    replace(order, supersedes=superseded),
                )
        if loop.time() + pause > give_up:
            raise Conflict("Another purchase of the same price is still running.", retry_after=2)
        await asyncio.sleep(pause)
        pause = min(2 * pause, 1.0)


def _creation(
    actor: Actor,
    profile: JsonObject,
    purchase: Purchase,
    prices: dict[Any, OfferedPrice],
    operation_id: str,
) -> dict[str, Any]:
    terms = purchase.terms
    fixed = profile["fixed_currency"]
    if fixed is not None and purchase.currency not in (None, fixed):
        detail = f"This customer is billed in {fixed}."
        raise InvalidRequest(
            detail, code="currency_mismatch", errors=[FieldError("/currency", "currency_mismatch", detail)]
        )
    bought = items_of_purchase(
        purchase.items,
        prices,
        Terms(
            may_buy_unlisted=actor.is_admin,
            currency=purchase.currency or fixed,
            flexible=terms.billing_mode != "classic",
        ),
    )
    metadata = {keys.OPERATION_ID: operation_id}
    if bought.shareable:
        metadata[keys.OWNER] = profile["id"]
    params: dict[str, Any] = {
        "customer": profile["id"],
        # With a method, its type decides. A purchase that its page completes counts as unpaid from the beginning.
        "payment_behavior": behavior_of_purchase(None if purchase.payment_method_id is None else "card"),
        "items": bought.params,
        "currency": purchase.currency
        or fixed
        or common_currency(bought.items, preferred=profile["currency"]),
        "metadata": metadata,
        "payment_settings": {"save_default_payment_method": "on_subscription"},
        "billing_mode": {"type": terms.billing_mode or "flexible"},
    }
    if terms.discounts:
        params["discounts"] = list(terms.discounts)
    if terms.default_tax_rates is not None:
        params["default_tax_rates"] = list(terms.default_tax_rates)
    if terms.trial_end is not None:
        params["trial_end"] = terms.trial_end
    if terms.trial_period_days is not None:
        params["trial_period_days"] = terms.trial_period_days
    return params
