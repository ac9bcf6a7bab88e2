"""One step of an operation: the truth read first, one write under the object's lease, settled as it lands.

Stripe offers no compare-and-set, so each write is preceded by a read under the same lease, and what was read decides
whether anything is sent at all: nobody is taken out of a seat that he left, or into one while he has another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from uuid import UUID

from app.context import Context
from app.domain import metadata as keys
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.payments import PaymentStep
from app.domain.seats import total_after_release
from app.domain.snapshots import Customer, JsonObject, Snapshot, Subscription
from app.domain.statuses import ENDED, is_live
from app.errors import BillingError, NotFound, ServiceUnavailable, StripeOutcomeUnknown
from app.identity.store import is_present
from app.mirror import refreshing as sync
from app.mirror.store import members, subscriptions
from app.operations import store as operations
from app.operations import waiting, waiting_store
from app.operations.lifecycle import State
from app.operations.sending import (
    SUBSCRIPTION_CHANGES,
    changed_by_step,
    changed_in_vain,
    is_known,
    locked_view,
    may_come_late,
    send,
)
from app.operations.step_kinds import StepKind
from app.operations.store import Operation, Step
from app.postgres.database import Connection
from app.sharing import store as transfers
from app.stripe.billing import Changed
from app.stripe.gateway import Fetched
from app.subscriptions.payment_bounds import suited
from app.subscriptions.quotes import price_as_quoted

Permitted = Callable[[Connection, Step], Awaitable[Exception | None]]
"""What speaks against a step that is about to be sent: NotPermitted where its actor has lost the right to it."""


class NotPermitted(Exception):
    """No effect of the step was found, nothing was sent, and nothing will be."""


async def run_step(
    context: Context, operation: Operation, step: Step, token: UUID, permitted: Permitted
) -> PaymentStep | None:
    """Raises StripeOutcomeUnknown where the effect is open, BillingError for a known failure, NotPermitted.

    `step` as it was read under the operation's lease, whose `token` is asked for before anything is sent.
    An attempt whose answer is missing is sent again with its key even where its effect shows already: only then is
    it certain that it comes no later. Where it must not be sent again, it is waited for until it can come no more.
    """
    match step.action:
        case StepKind.SET_OWNER:
            await _set_owner(context, operation, step, token, permitted)
        case StepKind.BUY_SEATS if step.state is State.AWAITING_PAYMENT:
            await _follow(context, operation)
        case StepKind.BUY_SEATS:
            return await _buy_seats(context, operation, step, token, permitted)
        case StepKind.RELEASE_SEATS:
            await _release_seats(context, operation, step, token, permitted)
        case StepKind.ADD if step.customer_id is None:
            await _add_new_customer(context, operation, step, token, permitted)
        case _ if step.customer_id is not None:
            lease = await sync.take_lease(context, "customer", step.customer_id)
            reading = sync.PreWriteSnapshot(context, lease)
            write = _CustomerWrite(context, operation, step, step.customer_id, token, permitted, reading)
            await sync.apply(context, lease, write.call, write.settle, reading)
        case _:
            raise NotFound()
    return None


def _check_nothing_comes_late(context: Context, step: Step) -> None:
    """Before a step is settled without its key's answer. Raises StripeOutcomeUnknown."""
    if may_come_late(context.rules, step):
        raise StripeOutcomeUnknown("An earlier attempt may take effect yet.", retry_after=2)


# ------------------------------------------------------------------------------------------------- customers


async def _add_new_customer(
    context: Context, operation: Operation, step: Step, token: UUID, permitted: Permitted
) -> None:
    """The seat's metadata goes into the very call that creates the customer: no half-made member can exist."""
    email = step.email or ""
    created = await _created_in_vain(context, operation, step) if step.was_sent else None
    if created is None:
        values = {
            **keys.membership_values(operation.subscription_id, step.role or "user"),
            keys.OPERATION_ID: operation.id,
        }

        write = context.stripe.customer_creation(email=email, name=None, metadata=values)
        try:
            created = await send(
                context, operation.id, step, token, write, check=lambda on: permitted(on, step)
            )
        except BillingError as error:
            # An earlier attempt whose answer was lost may have created the customer: looked for before a failure is
            # reported.
            is_in_doubt = step.was_sent and is_known(error)
            found = await _created_in_vain(context, operation, step) if is_in_doubt else None
            if found is None:
                raise
            created = found
    if created.snapshot is None:
        raise LookupError("a create that succeeded answered no object")
    customer_id = CustomerId(created.snapshot.id)
    lease = await sync.take_lease(context, "customer", customer_id)

    async def settle(connection: Connection, snapshot: Snapshot | None) -> None:
        customer = snapshot if isinstance(snapshot, Customer) and not snapshot.deleted else None
        if customer is not None:
            await operations.record_seat_customer(connection, customer_id, email, operation.id)
        if customer is None or customer.member_of != operation.subscription_id:
            # Somebody has deleted him since, or taken the seat away.
            await operations.settle_step(
                connection, operation.id, step.position, state="failed", code="changed_meanwhile"
            )
            return
        await members.record_joined(connection, operation.subscription_id, customer_id, email)
        await operations.settle_step(
            connection, operation.id, step.position, state="applied", customer_id=customer_id
        )

    await sync.apply(context, lease, created, settle)


async def _created_in_vain(context: Context, operation: Operation, step: Step) -> Fetched | None:
    """The customer of an earlier attempt that Stripe answered 5xx and carried out all the same, deleted or not."""
    for found in await context.stripe.customers_with_email(step.email or ""):
        if isinstance(found.snapshot, Customer) and found.snapshot.operation_id == operation.id:
            return found
    for customer_id, _ in await changed_in_vain(context, operation.id, step, "customer.created"):
        found = await context.stripe.fetch("customer", customer_id)
        return found if found.snapshot is not None else None
    return None


class _CustomerWrite:
    """The truth read first decides whether anything is sent; the same object settles from what is known then."""

    def __init__(
        self,
        context: Context,
        operation: Operation,
        step: Step,
        customer_id: CustomerId,
        token: UUID,
        permitted: Permitted,
        reading: sync.PreWriteSnapshot,
    ) -> None:
        self._context = context
        self._operation = operation
        self._step = step
        self._customer_id = customer_id
        self._token = token
        self._permitted = permitted
        self._reading = reading
        self._refusal: str | None = None

    async def call(self) -> Fetched:
        before = await self._reading.read()
        customer = before.snapshot if isinstance(before.snapshot, Customer) else None
        self._refusal = await self._why_not(customer)
        if customer is None or customer.deleted:
            return before
        if self._refusal is not None or self._has_moved(customer):
            # Sent again it would undo what somebody has done since; it is sent no more.
            _check_nothing_comes_late(self._context, self._step)
            return before
        if not self._step.has_sent_key and self._is_done(customer):
            return before
        values = (
            keys.no_membership_values()
            if self._step.action == StepKind.REMOVE
            else keys.membership_values(self._operation.subscription_id, self._step.role or "user")
        )
        changed = await changed_in_vain(self._context, self._operation.id, self._step, "customer.updated")
        if any(keys.shows(metadata, values) for _, metadata in changed):
            # Somebody has undone it since.
            _check_nothing_comes_late(self._context, self._step)
            return before
        await self._wait_for_others()
        # He may have become a manager since the admission, whom not everybody may touch.
        here = customer.member_of == self._operation.subscription_id
        now = replace(self._step, role_before=customer.member_role if here else None)

        try:
            return await send(
                self._context,
                self._operation.id,
                self._step,
                self._token,
                self._context.stripe.metadata_change(self._customer_id, values),
                check=lambda on: self._permitted(on, now),
            )
        except BillingError as error:
            if not (self._step.was_sent and is_known(error)):
                raise
            # An earlier attempt whose answer was lost may have taken effect: looked for before a failure is reported.
            after = await self._context.stripe.fetch("customer", self._customer_id)
            found = after.snapshot if isinstance(after.snapshot, Customer) else None
            shows = found is not None and not found.deleted and self._is_done(found)
            if not shows and not await self._was_changed(values):
                raise
            return after

    async def _was_changed(self, values: Mapping[str, str]) -> bool:
        """True if Stripe's events show the change by an attempt of this step, also if somebody undid it since."""
        changed = await changed_by_step(self._context, self._operation.id, self._step, "customer.updated")
        return any(keys.shows(metadata, values) for _, metadata in changed)

    def _has_moved(self, customer: Customer) -> bool:
        """Is he whom this removes on another subscription by now?"""
        gone = customer.member_of not in (None, self._operation.subscription_id)
        return gone and self._step.action == StepKind.REMOVE

    async def _wait_for_others(self) -> None:
        """A write of this customer that another operation has sent, with its answer lost, may come at any time."""
        async with self._context.database.connection() as connection:
            if await operations.is_open_elsewhere(connection, self._customer_id, self._operation.id):
                raise ServiceUnavailable(
                    "An earlier change of this customer is not certain yet.", retry_after=2
                )

    async def _why_not(self, customer: Customer | None) -> str | None:
        if customer is None or customer.deleted:
            return None if self._step.action == StepKind.REMOVE else "not_found"
        here = customer.member_of == self._operation.subscription_id
        if self._step.action == StepKind.UPDATE and not here:
            return "not_found"
        elsewhere = customer.member_of is not None and not here
        if self._step.action == StepKind.ADD and elsewhere and await self._is_live(customer.member_of):
            return "member_elsewhere"
        return None

    async def _is_live(self, home_id: SubscriptionId | None) -> bool:
        if home_id is None:
            return False
        async with self._context.database.connection() as connection:
            home = await subscriptions.subscription_view(connection, home_id, asker=None)
        if home is not None:
            return is_live(home.status)
        # It may be newer than our news of it.
        found = (await self._context.stripe.fetch("subscription", home_id)).snapshot
        return isinstance(found, Subscription) and is_live(found.status)

    def _is_done(self, customer: Customer) -> bool:
        here = customer.member_of == self._operation.subscription_id
        return (
            not here
            if self._step.action == StepKind.REMOVE
            else here and customer.member_role == self._step.role
        )

    async def settle(self, connection: Connection, snapshot: Snapshot | None) -> None:
        """In the transaction in which the cached row shows what Stripe answered."""
        step, operation = self._step, self._operation
        customer = snapshot if isinstance(snapshot, Customer) and not snapshot.deleted else None
        if self._refusal is None and customer is None and step.action != StepKind.REMOVE:
            self._refusal = "not_found"
        if self._refusal is not None:
            await operations.settle_step(
                connection, operation.id, step.position, state="refused", code=self._refusal
            )
            return
        if customer is not None and not self._is_done(customer):
            await operations.settle_step(
                connection, operation.id, step.position, state="failed", code="changed_meanwhile"
            )
            return
        if step.action == StepKind.REMOVE:
            await members.record_left(connection, operation.subscription_id, self._customer_id)
        elif step.action == StepKind.ADD:
            await members.record_joined(connection, operation.subscription_id, self._customer_id, step.email)
        await operations.settle_step(connection, operation.id, step.position, state="applied")


# ---------------------------------------------------------------------------------------------- subscriptions


async def _buy_seats(
    context: Context, operation: Operation, step: Step, token: UUID, permitted: Permitted
) -> PaymentStep | None:
    """Raise the quantity once. A raise that is held back for its payment waits, until its own invoice is settled."""
    item_id, quantity = str(step.figures["item_id"]), int(step.figures["quantity"])
    written: list[Changed] = []
    refusal: list[str] = []
    held: list[str] = []

    def reached(subscription: Subscription) -> bool:
        return _quantity_of(subscription, item_id) >= quantity

    async def call() -> Fetched:
        before = await reading.read()
        found = before.snapshot
        if not isinstance(found, Subscription) or _cannot_grow(found, item_id, quantity):
            # Sent again it would be refused, or take away what somebody has added since.
            _check_nothing_comes_late(context, step)
            refusal.append("subscription_not_active")
            return before
        if found.pending_update is not None and await _holds(context, operation, step):
            held.append(found.latest_invoice_id or "")
            return before
        if reached(found) and not may_come_late(context.rules, step):
            return before
        if await changed_in_vain(context, operation.id, step, SUBSCRIPTION_CHANGES):
            # Somebody has lowered it since.
            _check_nothing_comes_late(context, step)
            return before
        params = await _priced_seats(context, operation, step, found, before.at)

        write = context.billing.subscription_update(operation.subscription_id, params)
        changed = await send(context, operation.id, step, token, write, check=lambda on: permitted(on, step))
        written.append(changed)
        if changed.subscription.pending_update is not None:
            held.append(changed.open_invoice_id or changed.subscription.latest_invoice_id or "")
        return changed.fetched

    async def settle(connection: Connection, snapshot: Snapshot | None) -> None:
        if held:
            # Only the invoice proves the purchase: anybody can edit the quantity.
            await _begin_waiting(context, connection, operation, step, held[-1], snapshot)
        elif isinstance(snapshot, Subscription) and reached(snapshot):
            await operations.settle_step(connection, operation.id, step.position, state="applied")
        elif refusal:
            await operations.settle_step(
                connection, operation.id, step.position, state="refused", code=refusal[0]
            )
        else:
            await operations.settle_step(
                connection, operation.id, step.position, state="failed", code="changed_meanwhile"
            )

    lease = await sync.take_lease(context, "subscription", operation.subscription_id)
    reading = sync.PreWriteSnapshot(context, lease)
    await sync.apply(context, lease, call, settle, reading)
    return await context.billing.payment_step(written[-1]) if written else None


async def _begin_waiting(
    context: Context,
    connection: Connection,
    operation: Operation,
    step: Step,
    invoice_id: str,
    snapshot: Snapshot | None,
) -> None:
    pending = snapshot.pending_update if isinstance(snapshot, Subscription) else None
    await waiting_store.begin(
        connection,
        operation.id,
        step.position,
        subscription_id=operation.subscription_id,
        invoice_id=invoice_id,
        expires_at=None if pending is None else pending["expires_at"],
        window_seconds=context.rules.payment_window,
    )


async def _follow(context: Context, operation: Operation) -> None:
    """Look at the purchase that waits for its payment, and settle it once its invoice says how it ended."""
    async with context.database.connection() as connection:
        found = await waiting_store.of_operation(connection, operation.id)
    if found is not None:
        await waiting.settle_if_ended(context, found)


async def _holds(context: Context, operation: Operation, step: Step) -> bool:
    """True if the update that Stripe holds back is one of the step's own, whose answer said nothing of it."""
    if step.is_expired:
        return bool(await changed_by_step(context, operation.id, step, SUBSCRIPTION_CHANGES))
    return bool(await changed_in_vain(context, operation.id, step, SUBSCRIPTION_CHANGES))


async def _release_seats(
    context: Context, operation: Operation, step: Step, token: UUID, permitted: Permitted
) -> None:
    """Lower the quantity by the members that this operation removed; unchanged where all seats are still needed."""
    step = await _with_release(context, operation, step)
    item_id, fewer = str(step.figures["item_id"]), int(step.figures["fewer"])
    refusal: list[str] = []

    async def call() -> Fetched:
        nonlocal step
        before = await reading.read()
        found = before.snapshot
        if fewer == 0:
            return before
        if not isinstance(found, Subscription) or found.status in ENDED:
            _check_nothing_comes_late(context, step)
            refusal.append("subscription_not_active")
            return before
        if "quantity" not in step.figures:
            step = await _with_figures(
                context, operation, step, {"quantity": max(1, _quantity_of(found, item_id) - fewer)}
            )
        if _has_released(found, step) and not may_come_late(context.rules, step):
            return before
        if await changed_in_vain(context, operation.id, step, SUBSCRIPTION_CHANGES):
            _check_nothing_comes_late(context, step)
            return before
        params = await _priced_seats(context, operation, step, found, before.at)

        write = context.billing.subscription_update(operation.subscription_id, params)
        changed = await send(context, operation.id, step, token, write, check=lambda on: permitted(on, step))
        return changed.fetched

    async def settle(connection: Connection, snapshot: Snapshot | None) -> None:
        if fewer == 0:
            state, code = "unchanged", None
        elif refusal:
            state, code = "refused", refusal[0]
        elif isinstance(snapshot, Subscription) and _has_released(snapshot, step):
            state, code = "applied", None
        else:
            state, code = "failed", "changed_meanwhile"
        await operations.settle_step(connection, operation.id, step.position, state=state, code=code)

    lease = await sync.take_lease(context, "subscription", operation.subscription_id)
    reading = sync.PreWriteSnapshot(context, lease)
    await sync.apply(context, lease, call, settle, reading)


def _has_released(found: Subscription, step: Step) -> bool:
    item_id, quantity = str(step.figures["item_id"]), step.figures.get("quantity")
    return quantity is not None and _quantity_of(found, item_id) <= quantity


async def _with_release(context: Context, operation: Operation, step: Step) -> Step:
    """Decide once how many seats go: what is still taken then stays, and a retry never lowers a second time."""
    if "fewer" in step.figures:
        return step
    async with context.database.transaction() as connection:
        view = await locked_view(connection, operation.subscription_id, operation.actor_id)
        steps = await operations.steps(connection, operation.id)
        removed = sum(one.action == StepKind.REMOVE and one.state == "applied" for one in steps)
        seats = None if view is None else view.seats(owner_uses_seat=context.rules.owner_uses_seat)
        total = 0 if seats is None else min(seats.total, total_after_release(seats, removed))
        decided = {"fewer": 0 if seats is None else seats.total - total, "total": total}
        await operations.add_figures(connection, operation.id, step.position, decided)
    return replace(step, figures={**step.figures, **decided})


async def _with_figures(context: Context, operation: Operation, step: Step, figures: JsonObject) -> Step:
    async with context.database.connection() as connection:
        await operations.add_figures(connection, operation.id, step.position, figures)
    return replace(step, figures={**step.figures, **figures})


async def _priced_seats(
    context: Context, operation: Operation, step: Step, found: Subscription, at: int
) -> JsonObject:
    """Return the parameters of a seat purchase, priced before its first sending and the same for each retry.

    Raises Conflict `invoice_unpaid`, `unsecured_raise_limit`, or `quote_expired` where the quote cannot be kept.
    """
    if step.has_sent_key and "sent" in step.figures:
        return dict(step.figures["sent"])
    params: JsonObject = {
        "items": [{"id": str(step.figures["item_id"]), "quantity": int(step.figures["quantity"])}],
        "proration_behavior": step.figures.get("proration_behavior") or context.rules.proration_behavior,
        "payment_behavior": "pending_if_incomplete",
    }
    if found.status == "paused":
        # As any change then, see `plan_changes.update_params`: nothing is invoiced, and there is nothing to credit.
        params["proration_behavior"] = "none"
        del params["payment_behavior"]
    priced = await price_as_quoted(
        context,
        found,
        at,
        params,
        quote_id=step.figures.get("quote_id"),
        restarts=False,
        forgo_credit=step.figures.get("forgo_credit") is True,
    )
    sent = await suited(context, operation.id, found, at, priced)
    async with context.database.connection() as connection:
        await operations.set_sent(connection, operation.id, step.position, sent)
    return sent


def _quantity_of(subscription: Subscription, item_id: str) -> int:
    return next((item.quantity or 0 for item in subscription.items if item.id == item_id), 0)


def _cannot_grow(subscription: Subscription, item_id: str, quantity: int) -> bool:
    """It has ended, or has more than that already."""
    return subscription.status in ENDED or _quantity_of(subscription, item_id) > quantity


async def _set_owner(
    context: Context, operation: Operation, step: Step, token: UUID, permitted: Permitted
) -> None:
    """Control moves: one metadata key. The payer stays; whether the new owner may buy is kept beside it."""
    new_owner = CustomerId(str(operation.request["to_id"]))
    refusal: list[str] = []

    async def call() -> Fetched:
        before = await reading.read()
        found = before.snapshot
        if not isinstance(found, Subscription):
            _check_nothing_comes_late(context, step)
            refusal.append("not_found")
            return before
        done = found.owner_id == new_owner
        if done and not may_come_late(context.rules, step):
            return before
        async with context.database.connection() as connection:
            named = (
                found.owner_id if found.owner_id and await is_present(connection, found.owner_id) else None
            )
        is_moved = not done and named != operation.request.get("from_id")
        changed = [] if is_moved else await changed_in_vain(context, operation.id, step, SUBSCRIPTION_CHANGES)
        if is_moved or any(keys.shows(metadata, {keys.OWNER: new_owner}) for _, metadata in changed):
            _check_nothing_comes_late(context, step)
            refusal.append("changed_meanwhile")
            return before

        write = context.billing.owner_change(operation.subscription_id, new_owner)
        return await send(context, operation.id, step, token, write, check=lambda on: permitted(on, step))

    async def settle(connection: Connection, snapshot: Snapshot | None) -> None:
        done = isinstance(snapshot, Subscription) and snapshot.owner_id == new_owner
        code = None if done else (refusal[0] if refusal else "changed_meanwhile")
        await operations.settle_step(
            connection, operation.id, step.position, state="applied" if done else "refused", code=code
        )
        if isinstance(snapshot, Subscription) and done:
            await transfers.grant_purchases(
                connection,
                operation.subscription_id,
                payer_id=snapshot.customer_id,
                owner_id=new_owner,
                allowed=await transfers.transfer_allows_purchases(connection, operation.id),
            )

    lease = await sync.take_lease(context, "subscription", operation.subscription_id)
    reading = sync.PreWriteSnapshot(context, lease)
    await sync.apply(context, lease, call, settle, reading)
