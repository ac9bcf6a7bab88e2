"""Changes that need a subscription for themselves while a purchase waits on it.

Superseding is a step of its own under the subscription's lease: the invoice is read, voided and read again. If the
payment came first, the purchase is settled as applied, and the change is judged from its start. A change is judged and
priced before it supersedes anything.

Rules: docs/decisions/0017-let-a-waiting-purchase-hold-nothing.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from app.context import Context
from app.domain.ids import SubscriptionId
from app.domain.snapshots import JsonObject, Subscription
from app.errors import BillingError, Conflict, NotFound
from app.identity.actors import Actor
from app.mirror.visibility import get
from app.operations import waiting_store
from app.operations.endings import PAYMENT_ABANDONED
from app.operations.waiting import settle_if_ended
from app.subscriptions.charges import as_seen
from app.subscriptions.payment_bounds import check_bounds
from app.subscriptions.quotes import price_as_quoted

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_TRIES: Final = 3


class MustSupersede(Exception):
    """Raised inside an admission that passed: what waits must end before it is stored.

    `params`: those of Stripe's update if the change is to be priced first, otherwise None.
    """

    def __init__(
        self,
        params: JsonObject | None = None,
        *,
        quote_id: str | None = None,
        restarts: bool = False,
        forgo_credit: bool = False,
    ) -> None:
        super().__init__("a purchase waits for its payment")
        self.params = params
        self.quote_id = quote_id
        self.restarts = restarts
        self.forgo_credit = forgo_credit


async def superseding(
    context: Context, actor: Actor, subscription_id: SubscriptionId, change: Callable[[], Awaitable[Result]]
) -> Result:
    """Return what `change` returns; end what waits if it raises MustSupersede.

    `change` is then run again from its start. Before anything ends, the change is priced as if it were sent now: a
    change that is refused supersedes nothing.

    Raises:
        Conflict: `operation_in_progress` while a payment is processing; `invoice_unpaid`, `quote_expired` or
            `unsecured_raise_limit` for a change that cannot be made.
        NotFound: Stripe has no such subscription.
        BillingError: what `change` raises.
    """
    for _ in range(_TRIES):
        try:
            return await change()
        except MustSupersede as needed:
            await _check_price(context, actor, subscription_id, needed)
        await supersede(context, subscription_id)
    raise Conflict("Another purchase of this subscription has begun. Send the change again.", retry_after=2)


async def _check_price(
    context: Context, actor: Actor, subscription_id: SubscriptionId, needed: MustSupersede
) -> None:
    if needed.params is None:
        return
    found = await context.stripe.fetch("subscription", subscription_id)
    if not isinstance(found.snapshot, Subscription):
        raise NotFound()
    try:
        priced = await price_as_quoted(
            context,
            found.snapshot,
            found.at,
            needed.params,
            quote_id=needed.quote_id,
            restarts=needed.restarts,
            forgo_credit=needed.forgo_credit,
        )
        if actor.customer_id is not None:
            await check_bounds(context, found.snapshot, found.at, priced)
    except Conflict as refusal:
        raise as_seen(refusal, await get(context, actor, subscription_id)) from refusal


async def supersede(context: Context, subscription_id: SubscriptionId) -> None:
    """End each purchase that waits on this subscription, for a change that needs it.

    Afterwards the change is judged from its start. If a payment came first, the purchase has been settled as applied.

    Raises:
        Conflict: `operation_in_progress` while a payment is processing.
        ServiceUnavailable: Stripe or the database does not answer; the change that was asked for changed nothing.
    """
    async with context.database.connection() as connection:
        found = await waiting_store.of_subscription(connection, subscription_id)
    for waiting in found:
        if await settle_if_ended(context, waiting, end=PAYMENT_ABANDONED, wake=True) is not None:
            continue
        async with context.database.connection() as connection:
            still = await waiting_store.of_operation(connection, waiting.operation_id)
        if still is not None:
            raise Conflict(
                f"The payment of operation {waiting.operation_id} is being processed. Send the change again once it "
                "has succeeded or failed.",
                retry_after=5,
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
