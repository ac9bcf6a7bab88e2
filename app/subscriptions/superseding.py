"""Changes that need a subscription for themselves while a purchase waits on it.

Superseding is a step of its own under the subscription's lease: the invoice is read, voided and read again. If the
payment came first, the purchase is settled as applied, and the change is judged from its start. A change is judged and
priced before it supersedes anything. While a payment is processing, a change of only the end goes on beside it.

Rules: docs/decisions/0017-let-a-waiting-purchase-hold-nothing.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from app.context import Context
from app.domain.ids import SubscriptionId
from app.domain.snapshots import Subscription
from app.errors import BillingError, Conflict, NotFound
from app.identity.actors import Actor
from app.mirror.visibility import get
from app.operations import waiting_store
from app.operations.endings import PAYMENT_ABANDONED
from app.operations.runner import unless_away
from app.operations.waiting import settle_if_ended
from app.subscriptions.charges import as_seen
from app.subscriptions.orders import Unpriced, shows_counted
from app.subscriptions.payment_bounds import check_bounds
from app.subscriptions.quotes import price_as_quoted

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_TRIES: Final = 3
PROCESSING_RETRY_SECONDS: Final = 60


class MustSupersede(Exception):
    """Raised inside an admission that passed: what waits must end before it is stored.

    `unpriced`: the change, if it is to be priced first. `changes_only_end`: Stripe takes the change beside a purchase
    whose payment is processing. `may_end_later`: if Stripe is away, the operation can end what waits.
    """

    def __init__(
        self, unpriced: Unpriced | None = None, *, changes_only_end: bool = False, may_end_later: bool = True
    ) -> None:
        super().__init__("a purchase waits for its payment")
        self.unpriced = unpriced
        self.changes_only_end = changes_only_end
        self.may_end_later = may_end_later


async def superseding(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    change: Callable[[bool], Awaitable[Result]],
) -> Result:
    """Return what `change` returns; end what waits if it raises MustSupersede.

    `change` is then run again from its start. Before anything ends, the change is priced as if it were sent now: a
    change that is refused supersedes nothing. While Stripe is away, `change` is called with True instead: it leaves the
    price and the end of what waits to its operation.

    Raises:
        Conflict: `operation_in_progress` while a payment is processing, unless only the end changes; `invoice_unpaid`,
            `quote_expired` or `unsecured_raise_limit` for a change that cannot be made.
        NotFound: Stripe has no such subscription.
        BillingError: what `change` raises.
    """
    for _ in range(_TRIES):
        try:
            return await change(False)
        except MustSupersede as needed:
            must = needed

        async def ended(must: MustSupersede = must) -> bool:
            await _end_for(context, actor, subscription_id, must)
            return True

        if not must.may_end_later:
            await ended()
        elif not await unless_away(context, ended):
            return await change(True)
    raise Conflict("Another purchase of this subscription has begun. Send the change again.", retry_after=2)


async def _end_for(
    context: Context, actor: Actor, subscription_id: SubscriptionId, must: MustSupersede
) -> None:
    if must.unpriced is not None:
        try:
            await check_price(
                context, subscription_id, must.unpriced, is_bounded=actor.customer_id is not None
            )
        except Conflict as refusal:
            raise as_seen(refusal, await get(context, actor, subscription_id)) from refusal
    await supersede(context, subscription_id, changes_only_end=must.changes_only_end)


async def check_price(
    context: Context, subscription_id: SubscriptionId, unpriced: Unpriced, *, is_bounded: bool
) -> None:
    """Price a change before something ends for it. `is_bounded`: a person asks for it, so what they may owe is bounded.

    Raises:
        Conflict: `invoice_unpaid`, `quote_expired` or `unsecured_raise_limit`; or `version_conflict`, if an item has
            another quantity than was counted.
        NotFound: Stripe has no such subscription.
    """
    found = await context.stripe.fetch("subscription", subscription_id)
    if not isinstance(found.snapshot, Subscription):
        raise NotFound()
    if not shows_counted(found.snapshot, unpriced.counted):
        raise outdated_change()
    priced = await price_as_quoted(
        context,
        found.snapshot,
        found.at,
        unpriced.params,
        quote_id=unpriced.quote_id,
        restarts=unpriced.restarts,
        forgo_credit=unpriced.forgo_credit,
    )
    if is_bounded:
        await check_bounds(context, found.snapshot, found.at, priced)


def outdated_change() -> Conflict:
    """Return the refusal of a change that rests on what the subscription had before."""
    return Conflict(
        "The subscription has other quantities, or another end, than when the change was sent. Read it, and send the "
        "change again.",
        code="version_conflict",
    )


async def supersede(
    context: Context, subscription_id: SubscriptionId, *, changes_only_end: bool = False
) -> None:
    """End each purchase that waits on this subscription, for a change that needs it.

    Afterwards the change is judged from its start. If a payment came first, the purchase has been settled as applied.
    If a payment is processing, a change of only the end is made beside it, and the purchase ends if that payment fails.

    Raises:
        Conflict: `operation_in_progress` while a payment is processing, unless only the end changes.
        ServiceUnavailable: Stripe or the database does not answer; the change that was asked for changed nothing.
    """
    async with context.database.connection() as connection:
        found = await waiting_store.of_subscription(connection, subscription_id)
    for waiting in found:
        if await settle_if_ended(context, waiting, end=PAYMENT_ABANDONED, wake=True) is not None:
            continue
        async with context.database.connection() as connection:
            if changes_only_end:
                await waiting_store.ask_to_end(connection, waiting.operation_id, PAYMENT_ABANDONED)
                continue
            still = await waiting_store.of_operation(connection, waiting.operation_id)
        if still is not None:
            raise Conflict(
                f"The payment of operation {waiting.operation_id} is being processed, and Stripe would void its "
                "invoice for this change. Send the change again once the payment has succeeded or failed. Until then "
                "people can be removed, and the subscription can be cancelled at the end of the period.",
                retry_after=PROCESSING_RETRY_SECONDS,
            )


async def settle_what_waited(context: Context, subscription_id: SubscriptionId) -> None:
    """Settle the first purchase of a subscription that has ended unpaid.

    If Stripe or the database does not answer, a worker settles it.
    """
    try:
        async with context.database.connection() as connection:
            found = await waiting_store.of_subscription(connection, subscription_id)
        for waiting in found:
            await settle_if_ended(context, waiting, wake=True)
    except BillingError as error:
        log.warning("purchase_not_settled", subscription_id=subscription_id, code=error.code)
