"""The calls that change a subscription at Stripe, as an operation stores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from app.context import Context
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import JsonObject, PaymentMethod, Subscription
from app.domain.statuses import ENDED
from app.errors import (
    Conflict,
)
from app.operations.shown_items import item_shows
from app.stripe.billing import Changed
from app.stripe.client import Write


class Post(Protocol):
    """Sends one write of an operation's call.

    `suffix`: distinguishes the key of a second write from the first one's.
    """

    async def __call__(self, write: Write[Changed], *, suffix: str = "") -> Changed:
        """Send the write; return what Stripe answered."""
        ...


@dataclass(frozen=True, slots=True)
class StripeCall:
    """A write as it is stored with its operation: any process can send it again.

    `method`: create, update, cancel, end_unpaid or resume. `params` are those that were admitted. `sent` are those
    that are sent, with their date and without a credit that was not paid: stored before the first sending, the same
    for each retry of one key. `restarts`: the interval of an item changes. `credit_forgone`: minor units. `attach`:
    `payment_method_id` and `customer_id` of a method that is attached first, and then charged. `supersedes`: unpaid
    subscriptions that end before a create is sent.
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
        """Return True if a purchase that waits for its payment ends for this change.

        A change of quantity, items or end needs the subscription for itself. The end of an unpaid subscription is the
        end of its first purchase, so nothing has to end before it.
        """
        changed = {"items", "trial_end", "cancel_at", "cancel_at_period_end"}
        match self.method:
            case "create" | "end_unpaid":
                return False
            case "update":
                return not changed.isdisjoint(self.params)
            case _:
                return True

    @property
    def changes_only_end(self) -> bool:
        """Return True if Stripe makes the change at once, beside an update that it holds back.

        Source: https://docs.stripe.com/billing/subscriptions/pending-updates, "Pending updates".
        """
        return self.method == "update" and {"items", "trial_end"}.isdisjoint(self.params)

    def as_request(self) -> JsonObject:
        """Return the call as the operation's row stores it."""
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
        """End a subscription whose first invoice is not paid.

        If it was paid since, it is left as it is.
        """
        now = await context.billing.subscription(subscription_id)
        if now.subscription.status in ENDED:
            return now
        if now.subscription.status != "incomplete":
            detail = "The subscription was paid while it was being cancelled. Read it, and cancel it again."
            raise Conflict(detail, code="version_conflict")
        return await post(context.billing.subscription_cancellation(subscription_id, self.params))

    async def _resume(self, context: Context, subscription_id: SubscriptionId, post: Post) -> Changed:
        """Resume a paused subscription, then take its end back with `params`.

        Stripe does the two in calls of their own.
        """
        changed = await context.billing.subscription(subscription_id) if self.params else None
        if changed is None or changed.subscription.status == "paused":
            changed = await post(context.billing.subscription_resumption(subscription_id))
        if self.params and not _goes_on(changed.subscription):
            changed = await post(
                context.billing.subscription_update(subscription_id, self.params), suffix="/end"
            )
        return changed

    def shows_in(self, now: Subscription) -> bool:
        """Return True if the call has taken effect.

        Sending it again would then add an item twice, or be refused.
        """
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
    """Return whether the subscription shows a parameter's effect.

    None for a parameter that it does not show, such as how a change was billed.
    """
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


def attachment(method: PaymentMethod | None, customer_id: CustomerId) -> JsonObject | None:
    """Return the `attach` of a call that charges this payment method, or None.

    A method that is attached already needs none.
    """
    if method is None or method.customer_id is not None:
        return None
    return {"payment_method_id": method.id, "customer_id": customer_id}
