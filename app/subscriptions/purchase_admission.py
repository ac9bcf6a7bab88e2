"""May this purchase begin: is a price of it held already, and how many purchases of the customer are unpaid?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.context import Context
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import Snapshot, Subscription
from app.domain.statuses import ENDED
from app.errors import Conflict, FieldError, NotFound, RateLimited
from app.mirror import refreshing as sync
from app.operations.waiting import settle_ended
from app.postgres.database import Connection
from app.stripe.gateway import Fetched
from app.subscriptions.item_changes import ItemChange
from app.subscriptions.store import purchases
from app.subscriptions.unpaid import without_invoice

UNPAID_SUBSCRIPTIONS: Final = 3
"""So many subscriptions of a customer may wait for their first payment at a time."""
_LIVE = frozenset({"trialing", "active", "past_due", "unpaid", "paused"})
_UNPAID_RETRY_SECONDS = 60


async def admit(
    connection: Connection,
    customer_id: CustomerId,
    items: Sequence[ItemChange],
    *,
    allow_duplicate: bool,
) -> list[SubscriptionId] | None:
    """Judge a purchase under the payer's lock, which the caller's transaction holds from here on.

    Returns the unpaid subscriptions that the purchase supersedes, or None while another purchase of the same price
    runs: then it is to be judged again.

    Raises:
        Conflict: `already_subscribed`: a live subscription has one of these prices.
        RateLimited: `too_many_in_flight`: too many subscriptions of the customer wait for their first payment.
    """
    await purchases.lock_payer(connection, customer_id)
    # In this order: a purchase that is settled between the two is then seen by its subscription.
    running = await purchases.running(connection, customer_id)
    held = await purchases.held(connection, customer_id)
    asked = {str(item.price_id) for item in items}
    superseded: list[SubscriptionId] = []
    if not allow_duplicate:
        for one in held:
            if one.status in _LIVE and not asked.isdisjoint(one.prices):
                raise already_subscribed(one.id, items, one.prices)
        if any(not asked.isdisjoint(other.prices) for other in running):
            return None
        superseded = [
            one.id for one in held if one.status == "incomplete" and not asked.isdisjoint(one.prices)
        ]
    unpaid = [one.id for one in held if one.status == "incomplete" and one.id not in superseded]
    if len(unpaid) + sum(other.unpaid for other in running) >= UNPAID_SUBSCRIPTIONS:
        raise RateLimited(
            f"{UNPAID_SUBSCRIPTIONS} subscriptions of this customer wait for their first payment."
            " Pay for one of them or cancel it, then buy again.",
            code="too_many_in_flight",
            members={"subscription_ids": unpaid},
            retry_after=_UNPAID_RETRY_SECONDS,
        )
    return superseded


def already_subscribed(
    subscription_id: SubscriptionId, items: Sequence[ItemChange], prices: frozenset[str]
) -> Conflict:
    """Return the error that names the subscription and its items with these prices."""
    detail = (
        f"The subscription {subscription_id} has this price already."
        " Change its quantity, or send allow_duplicate to buy it once more."
    )
    errors = [
        FieldError(f"{item.pointer}/price_id", "already_subscribed", detail)
        for item in items
        if item.price_id in prices
    ]
    return Conflict(
        detail, code="already_subscribed", members={"subscription_id": subscription_id}, errors=errors
    )


async def supersede(context: Context, operation_id: str, subscription_id: SubscriptionId) -> None:
    """End an unpaid subscription in favour of a new purchase, under its lease.

    Its invoice is voided first: Stripe refuses that if the payment came first, so nothing that was paid for is ended.

    Raises:
        Conflict: `already_subscribed`: it was paid, or its payment is being processed.
    """
    lease = await sync.take_lease(context, "subscription", subscription_id)

    async def end() -> Fetched:
        key = f"{operation_id}/supersede/{subscription_id}"
        try:
            now = await without_invoice(context, subscription_id, key=key)
        except NotFound as absent:
            return Fetched(None, absent.at)
        if now.subscription.status != "incomplete" or now.open_invoice_id is not None:
            return now.fetched
        ended = await context.billing.subscription_cancellation(subscription_id, {}).now(
            f"{operation_id}/end/{subscription_id}"
        )
        return ended.fetched

    async def settle(connection: Connection, snapshot: Snapshot | None) -> None:
        await settle_ended(connection, snapshot)

    now = await sync.apply(context, lease, end, settle)
    if isinstance(now, Subscription) and now.status not in ENDED:
        raise already_subscribed(subscription_id, (), frozenset())
