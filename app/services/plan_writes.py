"""One operation, one call that moves money, one settlement: what buying, changing and ending have in common.

The call runs under the subscription's lease with the operation's own key; its answer settles the operation in the
transaction that lands it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from app.cache import operations
from app.cache.database import Connection
from app.cache.refreshes import Lease
from app.domain.ids import PaymentMethodId, SubscriptionId
from app.domain.payments import PaymentStep
from app.domain.plan_changes import (
    ItemChange,
)
from app.domain.roles import Permission
from app.domain.snapshots import JsonObject, Snapshot, Subscription, SubscriptionItem
from app.domain.statuses import ENDED
from app.domain.views import SubscriptionView
from app.errors import (
    BillingError,
    Conflict,
    NotFound,
    StripeOutcomeUnknown,
)
from app.services import sync
from app.services.actors import Actor
from app.services.context import Context
from app.services.subscriptions import Seen, read
from app.stripe_gateway.billing import Changed
from app.stripe_gateway.gateway import Fetched

_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class StripeCall:
    """A write as it is kept with its operation, so that whoever finishes it can send the very same again.

    `method`: create, update, cancel or resume.
    """

    method: str
    params: dict[str, Any]

    def as_request(self) -> JsonObject:
        return {"method": self.method, "params": self.params}

    async def perform(self, context: Context, subscription_id: SubscriptionId, key: str) -> Changed:
        billing = context.billing
        match self.method:
            case "create":
                return await billing.create_subscription(self.params, idempotency_key=key)
            case "update":
                return await billing.update_subscription(subscription_id, self.params, idempotency_key=key)
            case "cancel":
                return await billing.cancel_subscription(subscription_id, self.params, idempotency_key=key)
            case "resume":
                return await billing.resume_subscription(subscription_id, idempotency_key=key)
            case _:
                raise ValueError(f"no such call: {self.method}")

    def shows_in(self, now: Subscription) -> bool:
        """Has it taken effect already, so that sending it again would add an item twice or be refused?"""
        match self.method:
            case "cancel":
                return now.status in ENDED
            case "resume":
                return now.status != "paused"
            case _:
                asked = self.params.get("items", [])
                items = {str(item.id): item for item in now.items}
                prices = {str(item.price_id) for item in now.items}
                return bool(asked) and all(_item_shows(entry, items, prices) for entry in asked)


def _item_shows(
    asked: Mapping[str, Any], items: Mapping[str, SubscriptionItem], prices: Collection[str]
) -> bool:
    if "id" not in asked:
        return asked["price"] in prices
    item = items.get(asked["id"])
    if item is None or asked.get("deleted"):
        return item is None and bool(asked.get("deleted"))
    now = (item.price_id, item.quantity)
    return now == (asked.get("price", item.price_id), asked.get("quantity", item.quantity))


@dataclass(frozen=True, slots=True)
class MoneyTerms:
    """What an admin's key alone may set; instants in Unix seconds, `trial_end` may be "now"."""

    discounts: Sequence[JsonObject] | None = None
    default_tax_rates: Sequence[str] | None = None
    trial_end: int | str | None = None
    trial_period_days: int | None = None
    billing_mode: str | None = None
    proration_behavior: str | None = None
    proration_date: int | None = None


@dataclass(frozen=True, slots=True)
class PlanUpdate:
    """`items` empty: none change. `quote_id`: carry out what was quoted, at the quote's proration date."""

    items: Sequence[ItemChange]
    payment_method_id: PaymentMethodId | None
    promotion_code: str | None
    cancel_at_period_end: bool | None
    quote_id: str | None
    terms: MoneyTerms
    permission: Permission = Permission.CHANGE_PLAN


@dataclass(frozen=True, slots=True)
class Done:
    """The subscription as its caller may see it now, and what is left to pay or to set up."""

    seen: Seen
    payment: PaymentStep | None


def price_ids(items: Sequence[ItemChange], view: SubscriptionView | None = None) -> list[str]:
    named = [str(item.price_id) for item in items if item.price_id is not None]
    return named + ([] if view is None else [str(item["price"]["id"]) for item in view.items])


async def begun(connection: Connection, operation_id: str) -> StripeCall | None:
    """The call of an operation that an earlier request with the same Idempotency-Key began: to be sent again."""
    operation = await operations.operation(connection, operation_id)
    return None if operation is None else StripeCall(**operation.request)


async def insert_operation(
    context: Context,
    connection: Connection,
    actor: Actor,
    operation_id: str,
    kind: str,
    subscription_id: SubscriptionId,
    call: StripeCall,
    seat_total: int | None = None,
) -> None:
    """`seat_total`: the seats that it leaves, where it lowers them: admissions are bound by it from now on.

    Raises Conflict `operation_in_progress` while another change of the plan is unsettled.
    """
    if subscription_id and await operations.plan_change_runs(connection, subscription_id):
        raise Conflict("Another change of this subscription is still running.", retry_after=2)
    step = {"position": 0, "action": kind, "state": "planned", "figures": {}}
    await operations.insert(
        connection,
        operation_id=operation_id,
        subscription_id=subscription_id,
        kind=kind,
        principal=actor.principal.key,
        actor_id=actor.customer_id,
        door="api",
        request=call.as_request(),
        steps=[step],
        lease_token=uuid4(),
        lease_seconds=context.rules.operation_lease,
        seat_total=seat_total,
    )


async def send_once(
    context: Context, operation_id: str, subscription_id: SubscriptionId, call: StripeCall, suffix: str = ""
) -> Changed:
    """The one call, with the key of operation, step and attempt; recorded as sent before it leaves.

    Raises StripeOutcomeUnknown; where Stripe answered 5xx, which it keeps under the key, the next try has a new one.
    """
    async with context.database.connection() as connection:
        (step, *_) = await operations.steps(connection, operation_id)
        await operations.begin_sending(connection, operation_id, 0, attempt=step.attempt)
    try:
        return await call.perform(context, subscription_id, f"{operation_id}/0/{step.attempt}{suffix}")
    except StripeOutcomeUnknown as error:
        if error.answered:
            async with context.database.connection() as connection:
                await operations.next_attempt(connection, operation_id, 0)
        raise


async def was_answered_in_vain(context: Context, operation_id: str) -> bool:
    """Did Stripe answer an earlier try with 5xx, which says nothing of its effect?"""
    async with context.database.connection() as connection:
        (step, *_) = await operations.steps(connection, operation_id)
    return step.attempt > 0


async def _send(
    context: Context, operation_id: str, subscription_id: SubscriptionId, call: StripeCall
) -> Changed:
    """After a 5xx the subscription is read: only what is not there yet is sent again, under a new key."""
    if await was_answered_in_vain(context, operation_id):
        now = await _now(context, subscription_id)
        if call.shows_in(now.subscription):
            return now
    try:
        return await send_once(context, operation_id, subscription_id, call)
    except StripeOutcomeUnknown as error:
        if not error.answered:
            raise
        now = await _now(context, subscription_id)
        if not call.shows_in(now.subscription):
            raise
        return now


async def _now(context: Context, subscription_id: SubscriptionId) -> Changed:
    changed = await context.billing.subscription(subscription_id)
    if changed.subscription.items_complete:
        return changed
    whole = await context.stripe.fetch("subscription", subscription_id)
    if not isinstance(whole.snapshot, Subscription):
        raise NotFound()
    return replace(changed, subscription=whole.snapshot)


async def write(
    context: Context, operation_id: str, subscription_id: SubscriptionId, call: StripeCall
) -> PaymentStep | None:
    """Sends, lands and settles a change of an existing subscription; what its payer still has to do."""
    lease = await sync.take_lease(context, "subscription", subscription_id)
    done: list[Changed] = []

    async def send() -> Fetched:
        done.append(await _send(context, operation_id, subscription_id, call))
        return done[-1].fetched

    try:
        await sync.land(context, lease, send, settling(operation_id))
    except BillingError as error:
        if not done and is_known(error):
            await settle_failed(context, operation_id, error)
        raise
    return done[-1].payment


def is_known(error: BillingError) -> bool:
    """A refusal of Stripe's is final; a part that is away says nothing of what became of the call."""
    return error.status < _SERVER_ERROR or error.code == "stripe_rejected"


async def land(context: Context, operation_id: str, lease: Lease, changed: Changed) -> None:
    await sync.land(context, lease, changed.fetched, settling(operation_id))


def settling(operation_id: str) -> sync.Settle:
    async def settle(connection: Connection, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            await operations.name_subscription(connection, operation_id, SubscriptionId(snapshot.id))
        await operations.settle_step(connection, operation_id, 0, state="applied")
        await operations.finish_if_settled(connection, operation_id)

    return settle


async def settle_failed(context: Context, operation_id: str, error: BillingError) -> None:
    async with context.database.transaction() as connection:
        await operations.settle_step(connection, operation_id, 0, state="failed", code=error.code)
        await operations.finish_if_settled(connection, operation_id)


async def seen_now(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    payment: PaymentStep | None,
) -> Done:
    async with context.database.connection() as connection:
        return Done(await read(connection, actor, subscription_id, context.rules), payment)
