"""The steps that buy seats and give them back: one write of the quantity of one item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.context import Context
from app.domain.payments import PaymentStep
from app.domain.seats import total_after_release
from app.domain.snapshots import JsonObject, Snapshot, Subscription
from app.domain.statuses import ENDED
from app.operations import seat_store
from app.operations import store as operations
from app.operations.kinds import (
    Answer,
    AnyChangeProves,
    Done,
    Fact,
    Held,
    Params,
    Refused,
    Seen,
    Send,
    Unchanged,
    Wanted,
)
from app.operations.lifecycle import State
from app.operations.rows import AwaitedInvoice, Operation, Step
from app.operations.sending import (
    changed_by_step,
    changed_despite_5xx,
    held_invoice,
    locked_view,
)
from app.operations.step_kinds import StepKind
from app.stripe.billing import Changed
from app.stripe.client import Write
from app.stripe.gateway import Fetched
from app.subscriptions.before_sending import ended_for_seats
from app.subscriptions.orders import Unpriced
from app.subscriptions.payment_bounds import suited
from app.subscriptions.quotes import check_costs_nothing, price_as_quoted
from app.subscriptions.subscription_steps import SubscriptionSteps, keep


def _quantity_of(subscription: Subscription, item_id: str) -> int:
    return next((item.quantity or 0 for item in subscription.items if item.id == item_id), 0)


def _running(snapshot: Snapshot | None) -> Subscription | None:
    is_running = isinstance(snapshot, Subscription) and snapshot.status not in ENDED
    return snapshot if isinstance(snapshot, Subscription) and is_running else None


@dataclass(frozen=True, slots=True)
class BuySeats(AnyChangeProves):
    """Raise the quantity of an item to `quantity`. A raise that Stripe holds back waits for its own invoice.

    `only_from`: the quantity that `quantity` was computed from, if the raise ends another purchase first. That one may
    have been paid, and its seats are for other people.
    """

    item_id: str
    quantity: int
    only_from: int | None = None

    @property
    def params(self) -> Params:
        """Return the `items` of Stripe's update."""
        return {"items": [{"id": self.item_id, "quantity": self.quantity}]}

    def wanted(self, seen: Seen) -> Wanted:
        """Return the write, done, held, or refused.

        A subscription that has ended, or whose item has a higher quantity by now, or another one than `only_from`, is
        `subscription_not_active`.
        """
        subscription = _running(seen.snapshot)
        now = 0 if subscription is None else _quantity_of(subscription, self.item_id)
        if subscription is None or now > self.quantity or self.only_from not in (None, now):
            # Sent now, it would be refused, or take away what somebody has added since.
            return Refused("subscription_not_active")
        if Fact.UPDATE_IS_OURS in seen.facts:
            return Held()
        return Done(self.params) if self.shows(subscription) else Send(self.params)

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if the item has this quantity or more."""
        return isinstance(snapshot, Subscription) and _quantity_of(snapshot, self.item_id) >= self.quantity


@dataclass(frozen=True, slots=True)
class ReleaseSeats(AnyChangeProves):
    """Lower the quantity of an item by `fewer`, to `quantity` once that is decided."""

    item_id: str
    fewer: int
    quantity: int | None

    def wanted(self, seen: Seen) -> Wanted:
        """Return the write, done, or refused; unchanged if no seat is given back."""
        if self.fewer == 0:
            return Unchanged()
        subscription = _running(seen.snapshot)
        if subscription is None:
            return Refused("subscription_not_active")
        quantity = self.quantity
        if quantity is None:
            quantity = max(1, _quantity_of(subscription, self.item_id) - self.fewer)
        params = {"items": [{"id": self.item_id, "quantity": quantity}]}
        return Done(params) if self.shows(subscription) else Send(params)

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if the item has the decided quantity or less."""
        if self.quantity is None or not isinstance(snapshot, Subscription):
            return False
        return _quantity_of(snapshot, self.item_id) <= self.quantity


class _SeatSteps(SubscriptionSteps):
    """Writes the quantity of one item, priced before its first sending and the same for each retry of its key."""

    def write(self, context: Context, operation: Operation, step: Step, params: Params) -> Write[Any]:
        return context.billing.subscription_update(operation.subscription_id, params)

    async def prepared(
        self, context: Context, operation: Operation, step: Step, found: Fetched, params: Params
    ) -> tuple[Step, Params]:
        """Price the change, as its quote said.

        Raises:
            Conflict: `invoice_unpaid`, `unsecured_raise_limit`, or `quote_expired` if the quote cannot be kept.
        """
        if step.has_sent_key and "sent" in step.details:
            return step, dict(step.details["sent"])
        if not isinstance(found.snapshot, Subscription):
            raise LookupError("seats are priced for a subscription that was read")
        asked = _with_behavior(context, step, found.snapshot, params)
        priced = await price_as_quoted(
            context,
            found.snapshot,
            found.at,
            asked,
            quote_id=step.details.get("quote_id"),
            restarts=False,
            forgo_credit=step.details.get("forgo_credit") is True,
        )
        sent = await suited(context, operation.id, found.snapshot, found.at, priced)
        # A retry must not lower a second time, so the quantity is kept as well.
        decided = {"quantity": params["items"][0]["quantity"], "sent": sent}
        return await keep(context, operation, step, decided), sent


def unpriced_raise(context: Context, details: JsonObject) -> Unpriced:
    """Return the raise that buys seats as it is priced before another purchase ends for it.

    `details`: those of its step.
    """
    params = {
        **BuySeats(str(details["item_id"]), int(details["quantity"])).params,
        "proration_behavior": details.get("proration_behavior") or context.rules.proration_behavior,
        "payment_behavior": "pending_if_incomplete",
    }
    return Unpriced(params, details.get("quote_id"), forgo_credit=details.get("forgo_credit") is True)


def _with_behavior(context: Context, step: Step, found: Subscription, params: Params) -> JsonObject:
    if found.status == "paused":
        # As for any change then (`item_changes.update_params`): nothing is invoiced, and there is nothing to credit.
        return {**params, "proration_behavior": "none"}
    behavior = step.details.get("proration_behavior") or context.rules.proration_behavior
    return {**params, "proration_behavior": behavior, "payment_behavior": "pending_if_incomplete"}


class BuyingSteps(_SeatSteps):
    """Buys seats; a raise that needs a payment waits until its own invoice is settled."""

    def kind_of(self, operation: Operation, step: Step) -> BuySeats:
        """Return the step's intent."""
        only_from = None if step.was_sent else step.details.get("only_from")
        return BuySeats(str(step.details["item_id"]), int(step.details["quantity"]), only_from)

    async def decided(self, context: Context, operation: Operation, step: Step) -> Step:
        """End the purchase that waits, if the admission left that to the step. Raises what `ended_for_seats` raises."""
        quantity = step.details.get("ends_waiting")
        if quantity is None or step.was_sent:
            return step
        unpriced = unpriced_raise(context, {**step.details, "quantity": quantity})
        await ended_for_seats(context, operation, step, unpriced)
        return await keep(context, operation, step, {"quantity": quantity})

    async def prepared(
        self, context: Context, operation: Operation, step: Step, found: Fetched, params: Params
    ) -> tuple[Step, Params]:
        """Price the raise. Nothing waits any more, so from its quantity on the seats are those of its additions."""
        step, sent = await super().prepared(context, operation, step, found, params)
        if "ends_waiting" in step.details and not step.was_sent:
            async with context.database.connection() as connection:
                await seat_store.count_numbers_from(connection, operation.id, int(step.details["quantity"]))
        return step, sent

    async def facts(
        self, context: Context, operation: Operation, step: Step, found: Fetched
    ) -> frozenset[Fact]:
        """Find out whether the update that Stripe holds back is the step's own, whose answer did not come."""
        if not isinstance(found.snapshot, Subscription) or found.snapshot.pending_update is None:
            return frozenset()
        asked = changed_by_step if step.state is State.EXPIRED else changed_despite_5xx
        is_ours = await asked(context, operation.id, step, self.event_types)
        return frozenset({Fact.UPDATE_IS_OURS}) if is_ours else frozenset()

    def awaited(
        self,
        context: Context,
        operation: Operation,
        step: Step,
        snapshot: Snapshot | None,
        answer: Answer | None,
    ) -> AwaitedInvoice | None:
        """Return the invoice that the raise waits for; None if it took effect at once."""
        changed = answer.subscription if isinstance(answer, Changed) else snapshot
        if not isinstance(changed, Subscription) or changed.pending_update is None:
            return None
        invoice_id = answer.open_invoice_id if isinstance(answer, Changed) else None
        shown: Mapping[str, Any] | None = (
            snapshot.pending_update if isinstance(snapshot, Subscription) else None
        )
        return AwaitedInvoice(
            invoice_id or changed.latest_invoice_id or "",
            operation.subscription_id,
            None if shown is None else shown["expires_at"],
            context.rules.payment_window,
        )

    async def held_back(
        self, context: Context, operation: Operation, step: Step, snapshot: Snapshot | None
    ) -> AwaitedInvoice | None:
        """Find the raise's own invoice: the newest one may be that of another update, which replaced the raise."""
        return await held_invoice(context, operation, step, snapshot)

    async def payment(self, context: Context, answer: Answer) -> PaymentStep | None:
        """Read what is left to pay for the raise."""
        return await context.billing.payment_step(answer) if isinstance(answer, Changed) else None


class ReleasingSteps(_SeatSteps):
    """Gives back the seats of the members that the operation removed, unless they are needed."""

    def kind_of(self, operation: Operation, step: Step) -> ReleaseSeats:
        """Return the step's intent."""
        quantity = step.details.get("quantity")
        return ReleaseSeats(
            str(step.details["item_id"]),
            int(step.details["fewer"]),
            None if quantity is None else int(quantity),
        )

    async def facts(
        self, context: Context, operation: Operation, step: Step, found: Fetched
    ) -> frozenset[Fact]:
        """Return no facts, once it is certain that a quote with a credit is not settled by giving nothing back.

        Raises:
            Conflict: `quote_expired`.
        """
        quote_id = step.details.get("quote_id")
        if (
            quote_id is not None
            and int(step.details["fewer"]) == 0
            and isinstance(found.snapshot, Subscription)
        ):
            await check_costs_nothing(context, found.snapshot, found.at, quote_id=quote_id)
        return frozenset()

    async def decided(self, context: Context, operation: Operation, step: Step) -> Step:
        """Decide once how many seats go: a seat that is still taken then stays, and no more seats are promised."""
        if "fewer" in step.details:
            return step
        async with context.database.transaction() as connection:
            view = await locked_view(connection, operation.subscription_id, operation.actor_id)
            steps = await operations.steps(connection, operation.id)
            removed = sum(one.action == StepKind.REMOVE and one.state is State.APPLIED for one in steps)
            seats = None if view is None else view.seats(owner_uses_seat=context.rules.owner_uses_seat)
            total = 0 if seats is None else min(seats.total, total_after_release(seats, removed))
            decided = {"fewer": 0 if seats is None else seats.total - total, "total": total}
            await operations.add_details(connection, operation.id, step.position, decided)
            await seat_store.lower_target(connection, operation.id, total)
        return replace(step, details={**step.details, **decided})
