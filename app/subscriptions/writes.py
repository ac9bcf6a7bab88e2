"""One operation, one call that moves money, one settlement: what buying, changing and ending have in common.

The call runs under the subscription's lease with the operation's own key; its answer settles the operation in the
transaction that lands it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol
from uuid import UUID

from app.context import Context
from app.customers.payment_details import attach_payment_method
from app.domain.ids import CustomerId, PaymentMethodId, SubscriptionId
from app.domain.payments import PaymentStep
from app.domain.roles import Permission, require
from app.domain.seats import check_floor
from app.domain.snapshots import JsonObject, PaymentMethod, Snapshot, Subscription
from app.domain.statuses import ENDED
from app.domain.views import SubscriptionView
from app.errors import (
    BillingError,
    Conflict,
    Forbidden,
    NotFound,
    ServiceUnavailable,
    StripeErrorStored,
    StripeOutcomeUnknown,
)
from app.identity.actors import Actor
from app.mirror import refreshing as sync
from app.mirror.store.refreshes import Lease
from app.mirror.visibility import Seen, read, see_as
from app.operations import store as operations
from app.operations import waiting_store
from app.operations.lifecycle import Event, State
from app.operations.sending import (
    SUBSCRIPTION_CHANGES,
    changed_by_step,
    changed_despite_5xx,
    is_known,
    is_terminal,
    locked_view,
    money_details,
    send,
)
from app.operations.store import Operation, Step
from app.operations.waiting import item_shows
from app.postgres.database import Connection
from app.stripe.billing import Changed, is_whole
from app.stripe.client import Write
from app.stripe.gateway import Fetched
from app.subscriptions import charges, quotes
from app.subscriptions.item_changes import ItemChange
from app.subscriptions.payment_bounds import suited

INCOMPLETE_SECONDS: Final = 23 * 3600
"""After which Stripe ends a subscription whose first invoice was not paid (SDK, `Subscription.status`)."""


class Post(Protocol):
    """Sends one write of an operation's call; `suffix` tells a second one's key from the first one's."""

    async def __call__(self, write: Write[Changed], *, suffix: str = "") -> Changed: ...


@dataclass(frozen=True, slots=True)
class StripeCall:
    """A write as it is kept with its operation, so that whoever finishes it can send the very same again.

    `method`: create, update, cancel, end_unpaid or resume. `params` are those that were admitted; `sent` are those
    that leave, with their date and without a credit that was not paid: written before the first sending, the same for
    each retry of one key. `restarts`: the interval of an item changes. `credit_forgone`: minor units.
    `attach`: `payment_method_id` and `customer_id` of a method that is attached first, and then charged.
    `supersedes`: unpaid subscriptions that end before a create is sent.
    """

    method: str
    params: dict[str, Any]
    quote_id: str | None = None
    forgo_credit: bool = False
    restarts: bool = False
    sent: dict[str, Any] | None = None
    credit_forgone: int = 0
    attach: JsonObject | None = None
    supersedes: Sequence[str] = ()

    @property
    def supersedes_waiting(self) -> bool:
        """True if a purchase that waits for its payment ends for this change: one of quantity, items or end."""
        changed = {"items", "trial_end", "cancel_at", "cancel_at_period_end"}
        return self.method != "create" and (self.method != "update" or not changed.isdisjoint(self.params))

    def as_request(self) -> JsonObject:
        return asdict(self)

    async def perform(self, context: Context, subscription_id: SubscriptionId, post: Post) -> Changed:
        """Send the call's write, or the two that it takes, through `post`."""
        billing = context.billing
        params = self.params if self.sent is None else self.sent
        match self.method:
            case "create":
                return await post(billing.subscription_creation(params))
            case "update":
                return await post(billing.subscription_update(subscription_id, params))
            case "cancel":
                return await post(billing.subscription_cancellation(subscription_id, params))
            case "end_unpaid":
                return await self._end_unpaid(context, subscription_id, post)
            case "resume":
                return await self._resume(context, subscription_id, post)
            case _:
                raise ValueError(f"no such call: {self.method}")

    async def _end_unpaid(self, context: Context, subscription_id: SubscriptionId, post: Post) -> Changed:
        """End a subscription whose first invoice is not paid; one that was paid since is left as it is."""
        now = await context.billing.subscription(subscription_id)
        if now.subscription.status in ENDED:
            return now
        if now.subscription.status != "incomplete":
            detail = "The subscription was paid while it was being cancelled. Read it, and cancel it again."
            raise Conflict(detail, code="version_conflict")
        return await post(context.billing.subscription_cancellation(subscription_id, self.params))

    async def _resume(self, context: Context, subscription_id: SubscriptionId, post: Post) -> Changed:
        """Wake a paused subscription; `params` then take its end back, which Stripe does in a call of its own."""
        changed = await context.billing.subscription(subscription_id) if self.params else None
        if changed is None or changed.subscription.status == "paused":
            changed = await post(context.billing.subscription_resumption(subscription_id))
        if self.params and not _goes_on(changed.subscription):
            changed = await post(
                context.billing.subscription_update(subscription_id, self.params), suffix="/end"
            )
        return changed

    def shows_in(self, now: Subscription) -> bool:
        """Has it taken effect already, so that sending it again would add an item twice or be refused?"""
        match self.method:
            case "cancel" | "end_unpaid":
                return now.status in ENDED
            case "resume":
                return now.status != "paused" and (not self.params or _goes_on(now))
            case _:
                shown = [_param_shows(name, asked, now) for name, asked in self.params.items()]
                answers = [shows for shows in shown if shows is not None]
                return bool(answers) and all(answers)


def _param_shows(name: str, asked: Any, now: Subscription) -> bool | None:
    """None for what a subscription as read does not tell, such as how a change was billed."""
    match name:
        case "items":
            items = {str(item.id): item for item in now.items}
            prices = {str(item.price_id) for item in now.items}
            return all(item_shows(entry, items, prices) for entry in asked)
        case "cancel_at_period_end":
            return now.cancel_at_period_end is asked
        case "cancel_at":
            ends = [item.current_period_end for item in now.items if item.current_period_end is not None]
            named: dict[Any, int | None] = {
                "": None,
                "min_period_end": min(ends, default=None),
                "max_period_end": max(ends, default=None),
            }
            return bool(now.cancel_at == named.get(asked, asked))
        case "default_payment_method":
            return now.default_payment_method_id == str(asked)
        case _:
            return None


def _goes_on(now: Subscription) -> bool:
    return now.cancel_at is None and not now.cancel_at_period_end


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
class SubscriptionUpdate:
    """A change as it was asked for.

    `items` empty: none change. `quote_id`: carry out what was quoted, at the quote's date. `forgo_credit`: make a
    reducing change without credit where what it would credit was not paid.
    """

    items: Sequence[ItemChange]
    payment_method_id: PaymentMethodId | None
    promotion_code: str | None
    cancel_at_period_end: bool | None
    quote_id: str | None
    terms: MoneyTerms
    permission: Permission = Permission.CHANGE_SUBSCRIPTION
    forgo_credit: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The subscription as its caller may see it now, and what is left to pay or to set up.

    `credit_forgone`: the credit that the change did not give, minor units. `operation_id`: None if nothing was to do.
    """

    seen: Seen
    payment: PaymentStep | None
    credit_forgone: int = 0
    operation_id: str | None = None


def price_ids(items: Sequence[ItemChange], view: SubscriptionView | None = None) -> list[str]:
    named = [str(item.price_id) for item in items if item.price_id is not None]
    return named + ([] if view is None else [str(item["price"]["id"]) for item in view.items])


def attachment(method: PaymentMethod | None, customer_id: CustomerId) -> JsonObject | None:
    """Return the `attach` of a call that is charged to this payment method; None if it is attached already."""
    if method is None or method.customer_id is not None:
        return None
    return {"payment_method_id": method.id, "customer_id": customer_id}


async def attach_first(context: Context, operation_id: str, call: StripeCall) -> StripeCall:
    """Attach the payment method that the call brings along, and return the call that is charged to it.

    Repeated with the same operation it has no further effect. A decline settles the operation as failed.
    Raises PaymentRequired, NotFound, StripeOutcomeUnknown.
    """
    if call.attach is None:
        return call
    method_id, customer_id = (call.attach[name] for name in ("payment_method_id", "customer_id"))
    try:
        attached = await attach_payment_method(context, customer_id, method_id, operation_id=operation_id)
    except BillingError as error:
        if is_known(error):
            await settle_failed(context, operation_id, error)
        raise
    return replace(call, params={**call.params, "default_payment_method": attached}, attach=None)


async def send_once(
    context: Context,
    operation_id: str,
    subscription_id: SubscriptionId,
    call: StripeCall,
    token: UUID,
) -> Changed:
    """Check the call once more, record it, and send it with the key of operation, step and attempt.

    Raises StripeOutcomeUnknown while its effect is open; as StripeErrorStored, the next attempt has a new key. Any
    other error is certain.
    """
    async with context.database.connection() as connection:
        (step, *_) = await operations.steps(connection, operation_id)

    async def check(connection: Connection) -> BillingError | None:
        return await _against(context, connection, operation_id, subscription_id, step)

    async def post(write: Write[Changed], *, suffix: str = "") -> Changed:
        return await send(context, operation_id, step, token, write, check=check, suffix=suffix)

    return await call.perform(context, subscription_id, post)


async def was_sent(context: Context, operation_id: str) -> bool:
    """True if an attempt of the operation's call may have taken effect."""
    async with context.database.connection() as connection:
        (step, *_) = await operations.steps(connection, operation_id)
    return step.was_sent


async def _send(
    context: Context,
    operation_id: str,
    subscription_id: SubscriptionId,
    call: StripeCall,
    token: UUID,
    reading: sync.PreWriteSnapshot,
) -> Changed:
    """After a 5xx that Stripe keeps, the subscription is read: only a missing effect is sent again, with a new key."""
    async with context.database.connection() as connection:
        (step, *_) = await operations.steps(connection, operation_id)
    if step.attempt:
        now = await as_it_is(context, subscription_id)
        reading.found = now.fetched
        if call.shows_in(now.subscription) or await changed_despite_5xx(
            context, operation_id, step, SUBSCRIPTION_CHANGES
        ):
            return now
    if not step.has_sent_key:
        call = await _priced(context, operation_id, call, reading)
    try:
        return await send_once(context, operation_id, subscription_id, call, token)
    except BillingError as error:
        # Stripe keeps no answer of a DELETE: what an attempt with a lost answer has ended, the next does not find.
        is_lost_end = call.method in ("cancel", "end_unpaid") and isinstance(
            error, (StripeOutcomeUnknown, NotFound)
        )
        is_in_doubt = step.was_sent and is_known(error)
        if not (isinstance(error, StripeErrorStored) or is_lost_end or is_in_doubt):
            raise
        now = await as_it_is(context, subscription_id)
        shows = call.shows_in(now.subscription)
        if not shows and is_in_doubt:
            shows = bool(await changed_by_step(context, operation_id, step, SUBSCRIPTION_CHANGES))
        if not shows:
            raise
        return now


async def _priced(
    context: Context, operation_id: str, call: StripeCall, reading: sync.PreWriteSnapshot
) -> StripeCall:
    """Price the change under the subscription's lease, and keep what is to be sent with its operation.

    Raises:
        Conflict: `invoice_unpaid`, `unsecured_raise_limit`, or `quote_expired` where the quote cannot be kept.
        NotFound: Stripe has no such subscription.
    """
    prices_items = call.method == "update" and not {"items", "trial_end"}.isdisjoint(call.params)
    credits_time = call.method == "cancel" and call.params.get("prorate") is True
    if not (prices_items or credits_time):
        return call
    found = await reading.read()
    if not isinstance(found.snapshot, Subscription):
        raise NotFound()
    if credits_time:
        sent, forgone = dict(call.params), 0
        unpaid = await charges.credits_unpaid_on_cancel(context, found.snapshot, found.at)
        if unpaid is not None:
            sent, forgone = {**sent, "prorate": False}, unpaid.credit
    else:
        priced = await quotes.price_as_quoted(
            context,
            found.snapshot,
            found.at,
            call.params,
            quote_id=call.quote_id,
            restarts=call.restarts,
            forgo_credit=call.forgo_credit,
        )
        sent = await suited(context, operation_id, found.snapshot, found.at, priced)
        forgone = priced.credit_forgone
    call = replace(call, sent=sent, credit_forgone=forgone)
    async with context.database.connection() as connection:
        await operations.set_request(connection, operation_id, call.as_request())
    return call


async def as_it_is(context: Context, subscription_id: SubscriptionId) -> Changed:
    changed = await context.billing.subscription(subscription_id)
    if is_whole(changed.subscription):
        return changed
    whole = await context.stripe.fetch("subscription", subscription_id)
    if not isinstance(whole.snapshot, Subscription):
        raise NotFound()
    return replace(changed, subscription=whole.snapshot)


async def write(
    context: Context, operation_id: str, subscription_id: SubscriptionId, call: StripeCall, token: UUID
) -> Changed:
    """Sends, lands and settles a change of an existing subscription."""
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, operation_id)
        (step, *_) = await operations.steps(connection, operation_id)
    if operation is not None:
        # An earlier attempt may have priced it.
        call = StripeCall(**operation.request)
    if step.state == "refused" and step.code == "role_required":
        # The right was withdrawn before anything was sent.
        raise Forbidden()
    if step.state == State.AWAITING_PAYMENT:
        # Stripe accepted it: it is never sent again.
        return await as_it_is(context, subscription_id)
    call = await attach_first(context, operation_id, call)
    if operation is not None and not step.has_sent_key:
        concerned = {"subscription": subscription_id, "customer": operation.actor_id}
        await sync.refresh_if_notified(context, concerned)
    lease = await sync.take_lease(context, "subscription", subscription_id)
    reading = sync.PreWriteSnapshot(context, lease)
    done: list[Changed] = []

    async def send() -> Fetched:
        done.append(await _send(context, operation_id, subscription_id, call, token, reading))
        return done[-1].fetched

    try:
        await sync.apply(context, lease, send, settling(context, operation_id, done), reading)
    except BillingError as error:
        if is_known(error):
            if done:
                raise unreadable_change() from error
            await settle_failed(context, operation_id, error)
        raise
    return done[-1]


async def _against(
    context: Context,
    connection: Connection,
    operation_id: str,
    subscription_id: SubscriptionId,
    step: Step,
) -> BillingError | None:
    """Judge a sending that may have a new effect: the first one, and one with a new key after a known failure.

    Since the admission the actor may have lost the right, and somebody may have been seated in the Dashboard.
    Returns Forbidden, Conflict `seats_in_use`, or None.
    """
    if step.has_sent_key or not subscription_id:
        return None
    operation = await operations.operation(connection, operation_id)
    actor_id = None if operation is None else operation.actor_id
    view = await locked_view(connection, subscription_id, actor_id)
    needs = [Permission(name) for name in step.details.get("needs", ())]
    left = step.details.get("seats_left")
    try:
        if actor_id is not None:
            seen = None if view is None else see_as(view, actor_id, context.rules)
            granted = frozenset[Permission]() if seen is None else seen.granted
            require(granted, *needs)
            only_lower = Permission.LOWER_QUANTITY in needs and Permission.BUY_SEATS not in granted
            if only_lower and view is not None and operation is not None:
                _check_lowers(view, StripeCall(**operation.request))
        if view is not None and left is not None:
            check_floor(view.seats(owner_uses_seat=context.rules.owner_uses_seat), left)
    except BillingError as error:
        return error
    return None


def _check_lowers(view: SubscriptionView, call: StripeCall) -> None:
    """The quantity was lowered further in the Dashboard: what was admitted as less would now be more."""
    now = {item["id"]: item["quantity"] or 0 for item in view.items}
    if any(entry["quantity"] > now.get(entry["id"], 0) for entry in call.params["items"]):
        raise Forbidden("Your role on this subscription allows you to lower its quantity, not to raise it.")


def unreadable_change() -> ServiceUnavailable:
    """It took effect, and only the reading after it failed: no refusal, however that reads."""
    return ServiceUnavailable("The change cannot be read back.", retry_after=2)


async def apply_change(context: Context, operation_id: str, lease: Lease, changed: Changed) -> None:
    await sync.apply(context, lease, changed.fetched, settling(context, operation_id, [changed]))


def settling(context: Context, operation_id: str, done: Sequence[Changed]) -> sync.Settle:
    """Settle the change with the row that shows it, or let it wait for its payment. `done`: what Stripe answered."""

    async def settle(connection: Connection, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            await operations.name_subscription(connection, operation_id, SubscriptionId(snapshot.id))
        operation = await operations.operation(connection, operation_id)
        if operation is not None and done and _waits(StripeCall(**operation.request), done[-1]):
            await _begin_waiting(context, connection, operation, done[-1])
            return
        await operations.settle_applied(connection, operation_id, 0)
        await operations.finish_if_settled(connection, operation_id)

    return settle


def _waits(call: StripeCall, changed: Changed) -> bool:
    """True if Stripe accepted the change and holds it back until an invoice is paid."""
    if changed.open_invoice_id is None:
        return False
    if call.method == "create":
        return changed.subscription.status == "incomplete"
    params = call.params if call.sent is None else call.sent
    is_held = changed.subscription.pending_update is not None
    return is_held and params.get("payment_behavior") == "pending_if_incomplete"


async def _begin_waiting(
    context: Context, connection: Connection, operation: Operation, changed: Changed
) -> None:
    now, is_first = changed.subscription, operation.kind == "add_subscription"
    pending = now.pending_update or {}
    await waiting_store.begin(
        connection,
        operation.id,
        0,
        subscription_id=SubscriptionId(now.id),
        invoice_id=changed.open_invoice_id or "",
        expires_at=now.created + INCOMPLETE_SECONDS if is_first else pending.get("expires_at"),
        window_seconds=None if is_first else context.rules.payment_window,
    )


async def settle_failed(context: Context, operation_id: str, error: BillingError) -> None:
    """Of a failure that is known. Raises StripeOutcomeUnknown while an earlier attempt may take effect yet."""
    async with context.database.transaction() as connection:
        (step, *_) = await operations.steps(connection, operation_id)
        if not is_terminal(context.rules, step, error):
            raise StripeOutcomeUnknown("An earlier attempt may take effect yet.", retry_after=2) from error
        await operations.transition(
            connection,
            operation_id,
            step,
            Event.READ_LACKS_EFFECT if step.is_expired else Event.CANNOT_BE_SENT,
            code=error.code,
            details=money_details(error.members),
        )
        await operations.finish_if_settled(connection, operation_id)


async def seen_now(
    context: Context, actor: Actor, subscription_id: SubscriptionId, payment: PaymentStep | None
) -> Done:
    async with context.database.connection() as connection:
        return Done(await read(connection, actor, subscription_id, context.rules), payment)
