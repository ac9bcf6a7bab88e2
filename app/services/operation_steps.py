"""One step of an operation: the truth read first, one write under the object's lease, settled as it lands.

Stripe offers no compare-and-set, so each write is preceded by a read under the same lease, and what was read decides
whether anything is sent at all: nobody is taken out of a seat that he left, or into one while he has another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from app.cache import members, operations, subscriptions, transfers
from app.cache.database import Connection
from app.cache.identities import is_present
from app.cache.operations import Operation, Step
from app.domain import metadata as keys
from app.domain.ids import CustomerId
from app.domain.payments import PaymentStep
from app.domain.snapshots import Customer, Snapshot, Subscription
from app.domain.statuses import is_live
from app.domain.step_kinds import StepKind
from app.errors import NotFound
from app.services import sync
from app.services.context import Context
from app.stripe_gateway.gateway import Fetched

Permitted = Callable[[], Awaitable[bool]]
"""Asked right before a step is sent for the first time: has the actor the right to it still?"""


async def run_step(
    context: Context, operation: Operation, step: Step, permitted: Permitted
) -> PaymentStep | None:
    """Raises StripeOutcomeUnknown where the answer was lost, BillingError for a known failure.

    An attempt whose answer is missing is sent again with its key even where its effect shows already: only then is
    it certain that it comes no later.
    """
    match step.action:
        case StepKind.SET_OWNER:
            await _set_owner(context, operation, step, permitted)
        case StepKind.BUY_SEATS:
            return await _buy_seats(context, operation, step, permitted)
        case StepKind.ADD if step.customer_id is None:
            await _add_new_customer(context, operation, step, permitted)
        case _ if step.customer_id is not None:
            write = _CustomerWrite(context, operation, step, step.customer_id, permitted)
            lease = await sync.take_lease(context, "customer", step.customer_id)
            await sync.land(context, lease, write.call, write.settle)
        case _:
            raise NotFound()
    return None


def _key(operation: Operation, step: Step) -> str:
    return f"{operation.id}/{step.position}/{step.attempt}"


async def _begin_sending(context: Context, operation: Operation, step: Step) -> None:
    async with context.database.connection() as connection:
        await operations.begin_sending(connection, operation.id, step.position, attempt=step.attempt)


# ------------------------------------------------------------------------------------------------- customers


async def _add_new_customer(context: Context, operation: Operation, step: Step, permitted: Permitted) -> None:
    """The seat's metadata goes into the very call that creates the customer: no half-made member can exist."""
    email = step.email or ""
    created = await _created_in_vain(context, operation, email) if step.attempt else None
    if created is None:
        if step.state == "planned" and not await permitted():
            async with context.database.connection() as connection:
                await operations.settle_step(
                    connection, operation.id, step.position, state="refused", code="role_required"
                )
            return
        await _begin_sending(context, operation, step)
        values = {
            **keys.membership_values(operation.subscription_id, step.role or "user"),
            keys.OPERATION_ID: operation.id,
        }
        created = await context.stripe.create_customer(
            email=email, name=None, metadata=values, idempotency_key=_key(operation, step)
        )
    if created.snapshot is None:
        raise LookupError("a create that succeeded answered no object")
    customer_id = CustomerId(created.snapshot.id)
    lease = await sync.take_lease(context, "customer", customer_id)

    async def settle(connection: Connection, _: Snapshot | None) -> None:
        await operations.record_seat_customer(connection, customer_id, email, operation.id)
        await members.record_joined(connection, operation.subscription_id, customer_id, email)
        await operations.settle_step(
            connection, operation.id, step.position, state="applied", customer_id=customer_id
        )

    await sync.land(context, lease, created, settle)


async def _created_in_vain(context: Context, operation: Operation, email: str) -> Fetched | None:
    """The customer of an earlier attempt that Stripe answered 5xx and carried out all the same."""
    for found in await context.stripe.customers_with_email(email):
        if isinstance(found.snapshot, Customer) and found.snapshot.operation_id == operation.id:
            return found
    return None


class _CustomerWrite:
    """The truth read first decides whether anything is sent; the same object settles from what is known then."""

    def __init__(
        self,
        context: Context,
        operation: Operation,
        step: Step,
        customer_id: CustomerId,
        permitted: Permitted,
    ) -> None:
        self._context = context
        self._operation = operation
        self._step = step
        self._customer_id = customer_id
        self._permitted = permitted
        self._refusal: str | None = None

    async def call(self) -> Fetched:
        before = await self._context.stripe.fetch("customer", self._customer_id)
        customer = before.snapshot if isinstance(before.snapshot, Customer) else None
        self._refusal = await self._why_not(customer)
        if self._refusal is not None or customer is None or customer.deleted:
            return before
        if self._step.state == "planned":
            if self._is_done(customer):
                return before
            if not await self._permitted():
                self._refusal = "role_required"
                return before
        await _begin_sending(self._context, self._operation, self._step)
        values = (
            keys.no_membership_values()
            if self._step.action == StepKind.REMOVE
            else keys.membership_values(self._operation.subscription_id, self._step.role or "user")
        )
        return await self._context.stripe.set_customer_metadata(
            self._customer_id, values, idempotency_key=_key(self._operation, self._step)
        )

    async def _why_not(self, customer: Customer | None) -> str | None:
        if customer is None or customer.deleted:
            return None if self._step.action == StepKind.REMOVE else "not_found"
        here = customer.member_of == self._operation.subscription_id
        if self._step.action == StepKind.UPDATE and not here:
            return "not_found"
        if self._step.action == StepKind.ADD and customer.member_of is not None and not here:
            async with self._context.database.connection() as connection:
                home = await subscriptions.subscription_view(connection, customer.member_of, asker=None)
            if home is not None and is_live(home.status):
                return "member_elsewhere"
        return None

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
    context: Context, operation: Operation, step: Step, permitted: Permitted
) -> PaymentStep | None:
    """One quantity write; a raise that needs payment stays unsettled until Stripe shows it, or has dropped it."""
    item_id, quantity = str(step.figures["item_id"]), int(step.figures["quantity"])
    payments: list[PaymentStep | None] = [None]
    refusal: list[str] = []
    sent = step.state == "sending"

    def reached(subscription: Subscription) -> bool:
        return any(item.id == item_id and (item.quantity or 0) >= quantity for item in subscription.items)

    async def call() -> Fetched:
        nonlocal sent
        before = await context.stripe.fetch("subscription", operation.subscription_id)
        found = before.snapshot
        if (
            not isinstance(found, Subscription)
            or reached(found)
            or (sent and found.pending_update is not None)
        ):
            return before
        if sent and step.figures.get("awaits_payment"):
            return before
        if not sent and not await permitted():
            refusal.append("role_required")
            return before
        params: dict[str, Any] = {
            "items": [{"id": item_id, "quantity": quantity}],
            "proration_behavior": step.figures.get("proration_behavior") or context.rules.proration_behavior,
            "payment_behavior": "pending_if_incomplete",
        }
        if step.figures.get("proration_date"):
            params["proration_date"] = step.figures["proration_date"]
        await _begin_sending(context, operation, step)
        sent = True
        changed = await context.billing.update_subscription(
            operation.subscription_id, params, idempotency_key=_key(operation, step)
        )
        payments[0] = changed.payment
        return changed.fetched

    async def settle(connection: Connection, snapshot: Snapshot | None) -> None:
        if isinstance(snapshot, Subscription) and reached(snapshot):
            await operations.settle_step(connection, operation.id, step.position, state="applied")
        elif isinstance(snapshot, Subscription) and snapshot.pending_update is not None:
            await operations.await_payment(connection, operation.id, step.position)
        elif refusal:
            await operations.settle_step(
                connection, operation.id, step.position, state="refused", code=refusal[0]
            )
        else:
            await operations.settle_step(
                connection, operation.id, step.position, state="failed", code="payment_action_required"
            )

    lease = await sync.take_lease(context, "subscription", operation.subscription_id)
    await sync.land(context, lease, call, settle)
    return payments[0]


async def _set_owner(context: Context, operation: Operation, step: Step, permitted: Permitted) -> None:
    """Control moves: one metadata key. The payer stays; whether the new owner may buy is kept beside it."""
    new_owner = CustomerId(str(operation.request["to_id"]))
    refusal: list[str] = []

    async def call() -> Fetched:
        before = await context.stripe.fetch("subscription", operation.subscription_id)
        found = before.snapshot
        if not isinstance(found, Subscription):
            refusal.append("not_found")
            return before
        done = found.owner_id == new_owner
        if done and step.state == "planned":
            return before
        async with context.database.connection() as connection:
            named = (
                found.owner_id if found.owner_id and await is_present(connection, found.owner_id) else None
            )
        if not done and named != operation.request.get("from_id"):
            refusal.append("changed_meanwhile")
            return before
        if step.state == "planned" and not await permitted():
            refusal.append("role_required")
            return before
        await _begin_sending(context, operation, step)
        return await context.billing.set_owner(
            operation.subscription_id, new_owner, idempotency_key=_key(operation, step)
        )

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
                allowed=bool(operation.request.get("allow_purchases")),
            )

    lease = await sync.take_lease(context, "subscription", operation.subscription_id)
    await sync.land(context, lease, call, settle)
