"""Giving back the seats of removed members: the test of the credit that comes before anybody is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from app.context import Context
from app.domain.ids import SubscriptionId
from app.domain.snapshots import JsonObject, Subscription
from app.errors import BillingError, Conflict, NotFound
from app.identity.actors import Actor
from app.mirror import refreshing
from app.mirror.visibility import get
from app.operations import store as operations
from app.operations.rows import Operation, Step
from app.operations.runner import unless_away
from app.operations.sending import is_known
from app.sharing.people import AskedChange
from app.sharing.seat_changes import Purchasing, release_of
from app.subscriptions import charges
from app.subscriptions.change_rules import check_complete
from app.subscriptions.quotes import check_state
from app.subscriptions.seat_purchases import computed, total_update
from app.subscriptions.subscription_steps import keep


@dataclass(frozen=True, slots=True)
class CreditTest:
    """The test of the credit of seats that are to be given back.

    `params`: those of the update that gives them back. `gives_no_credit`: only the quote is tested.
    """

    params: JsonObject
    quote_id: str | None
    gives_no_credit: bool


async def check_credit(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    asked: Sequence[AskedChange],
    purchasing: Purchasing,
    operation_id: str,
) -> JsonObject | None:
    """Refuse the whole call before anybody is removed, if the seats to give back were not paid or cannot be given back.

    The test is made again under the lease when the seats are given back. It is left out if nothing would be given
    back; if the caller forgoes the credit, only a quote is tested.

    Returns:
        The test that the operation is to make before it removes anybody, because Stripe is away; otherwise None.

    Raises:
        NotFound, Forbidden: as the call itself.
        InvalidRequest: `seat_item_ambiguous`, or the other items give more seats than are to be left.
        Conflict: `invoice_unpaid`, `subscription_not_active` while the first invoice is not paid, or `quote_expired`
            where Stripe shows another state than was quoted.
    """
    release = await release_of(context, actor, subscription_id, asked)
    async with context.database.connection() as connection:
        begun = await operations.operation(connection, operation_id)
    if release.removed == 0 or begun is not None:
        return None
    seen = await get(context, actor, subscription_id)
    check_complete(seen.view)
    params = await _params(context, actor, subscription_id, release.total, purchasing)
    gives_no_credit = purchasing.forgo_credit or seen.view.status == "paused"
    if gives_no_credit and purchasing.quote_id is None:
        return None
    test = CreditTest(params, purchasing.quote_id, gives_no_credit)

    async def tested() -> bool:
        await _make(context, subscription_id, test, principal=actor.principal.key)
        return True

    try:
        return None if await unless_away(context, tested) else asdict(test)
    except Conflict as refusal:
        raise charges.as_seen(refusal, seen) from refusal


async def test_first(context: Context, operation: Operation, release: Step) -> BillingError | None:
    """Make the test that the admission left to the operation; return what speaks against the whole call.

    Raises:
        BillingError: Stripe or the database does not answer.
    """
    test = release.details.get("untested")
    if test is None or release.details.get("is_tested"):
        return None
    try:
        await _make(context, operation.subscription_id, CreditTest(**test), principal=operation.principal)
    except BillingError as error:
        if not is_known(error):
            raise
        return error
    await keep(context, operation, release, {"is_tested": True})
    return None


async def _make(
    context: Context, subscription_id: SubscriptionId, test: CreditTest, *, principal: str
) -> None:
    found = await context.stripe.fetch("subscription", subscription_id)
    if not isinstance(found.snapshot, Subscription):
        raise NotFound()
    if test.quote_id is not None:
        await _check_quote(context, found.snapshot, test.quote_id, principal=principal)
    if not test.gives_no_credit:
        await charges.price(
            context, found.snapshot, found.at, test.params, restarts=False, forgo_credit=False
        )


async def _params(
    context: Context, actor: Actor, subscription_id: SubscriptionId, total: int, purchasing: Purchasing
) -> JsonObject:
    """Return the parameters of the update that leaves `total` seats."""
    asked = total_update(
        total,
        item_id=purchasing.item_id,
        quote_id=None,
        proration_behavior=purchasing.proration_behavior,
    )
    change = computed(asked, (await get(context, actor, subscription_id)).view)
    return {
        "items": [{"id": item.id, "quantity": item.quantity} for item in change.items],
        "proration_behavior": change.terms.proration_behavior or context.rules.proration_behavior,
    }


async def _check_quote(
    context: Context, subscription: Subscription, quote_id: str, *, principal: str
) -> None:
    """Raise Conflict `quote_expired` if Stripe shows another state than was quoted."""
    try:
        async with context.database.connection() as connection:
            await check_state(connection, subscription, quote_id=quote_id, principal=principal)
    except Conflict:
        # Read now, so that the next quote is of what Stripe has, even if the event comes later.
        await refreshing.read_through(context, "subscription", subscription.id)
        raise
