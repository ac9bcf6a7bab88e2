"""Running an operation's steps at Stripe and settling each from a known answer, whoever admitted it.

The request that admitted an operation runs it; should that process die, its lease runs out and a worker goes on.
A step's idempotency key is operation, step and attempt: never the state it aims at, so that adding, removing and
adding again are three effects. The attempt is counted up only after an answer that is known to be a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

import structlog

from app.cache import operations, subscriptions
from app.cache.database import Connection
from app.cache.operations import Operation, Step
from app.domain import metadata as keys
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.member_changes import Action, MemberChange, Person, permissions_needed
from app.domain.roles import Permission
from app.domain.seats import Seats, is_shareable
from app.domain.snapshots import Customer, Snapshot
from app.domain.statuses import is_live, standing
from app.domain.views import SubscriptionView
from app.errors import BillingError, NotFound, StripeOutcomeUnknown
from app.services import sync
from app.services.context import Context
from app.services.subscriptions import see_as
from app.stripe_gateway.gateway import Fetched

log = structlog.get_logger(__name__)

LEASE_SECONDS = 30.0
CONCURRENCY = 12

_running: set[asyncio.Task[None]] = set()
"""The event loop holds tasks weakly; these outlive the requests that began them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An operation as its caller may know it; `actor_id` None and `principal` say whose it is."""

    operation: Operation
    steps: list[Step]
    seats: Seats | None


async def run(context: Context, operation_id: str, token: UUID) -> None:
    """Runs every step that is not settled: removals, then role changes, then additions.

    Returns early, leaving the operation to a worker, when an outcome stays unknown or the lease is lost.
    """
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, operation_id)
        steps = [step for step in await operations.steps(connection, operation_id) if not step.is_settled]
    if operation is None or operation.settled_at is not None:
        return
    if steps and await _may_go_on(context, operation, steps):
        limit = asyncio.Semaphore(CONCURRENCY)
        for action in (Action.REMOVE, Action.UPDATE, Action.ADD):
            batch = [step for step in steps if step.action == action]
            if action is Action.ADD and batch:
                batch = await _those_that_fit(context, operation, batch)
            await asyncio.gather(*(_guarded(context, operation, step, token, limit) for step in batch))
    async with context.database.connection() as connection:
        await operations.finish_if_settled(connection, operation_id)


async def _may_go_on(context: Context, operation: Operation, steps: Iterable[Step]) -> bool:
    """Re-reads the plan and the actor from Stripe; a right that was lost meanwhile cancels what is not sent yet."""
    reads = [sync.read_through(context, "subscription", operation.subscription_id)]
    if operation.actor_id is not None:
        reads.append(sync.read_through(context, "customer", operation.actor_id))
    await asyncio.gather(*reads)
    async with context.database.connection() as connection:
        view = await subscriptions.subscription_view(
            connection, operation.subscription_id, asker=operation.actor_id
        )
        if operation.actor_id is None and operation.principal.startswith("service:"):
            return True
        granted: frozenset[Permission] = frozenset()
        if view is not None and operation.actor_id is not None:
            seen = see_as(view, operation.actor_id, context.rules)
            granted = frozenset() if seen is None else seen.granted
        needed = permissions_needed([_as_change(step) for step in steps])
        if needed <= granted:
            return True
        for step in steps:
            if step.state == "planned":
                await operations.settle_step(
                    connection, operation.id, step.position, state="refused", code="role_required"
                )
    return any(step.state == "sending" for step in steps)


def _as_change(step: Step) -> MemberChange:
    person = Person(step.customer_id, step.email, member_role=step.role_before)
    return MemberChange(Action(step.action), person, step.role)


async def _those_that_fit(context: Context, operation: Operation, adds: list[Step]) -> list[Step]:
    """After the removals: the plan may have shrunk, or a removal failed, since the adds were admitted."""
    async with context.database.transaction() as connection:
        await subscriptions.lock(connection, operation.subscription_id)
        view = await _view(connection, operation.subscription_id)
        if view is None or not is_shareable(view.seat_items()):
            figures, code, fits = {}, "not_shareable", False
        else:
            seats = view.seats(owner_uses_seat=context.rules.owner_uses_seat)
            required = seats.used + seats.reserved
            figures = {"total": seats.total, "used": seats.used, "required": required}
            code, fits = "seat_limit_reached", required <= seats.total
            rules = context.rules
            if not standing(view.status, past_due_allows_new_seats=rules.past_due_allows_new_seats).new_seats:
                figures, code, fits = {}, "subscription_not_active", False
        if fits:
            return adds
        for step in adds:
            if step.state == "planned":
                await operations.settle_step(
                    connection, operation.id, step.position, state="refused", code=code, figures=figures
                )
    return [step for step in adds if step.state == "sending"]


async def _view(connection: Connection, subscription_id: SubscriptionId) -> SubscriptionView | None:
    return await subscriptions.subscription_view(connection, subscription_id, asker=None)


async def _guarded(
    context: Context, operation: Operation, step: Step, token: UUID, limit: asyncio.Semaphore
) -> None:
    """One step; what it cannot settle now stays unsettled, for the worker to take up with the same key."""
    async with limit:
        async with context.database.connection() as connection:
            if not await operations.renew(connection, operation.id, token, lease_seconds=LEASE_SECONDS):
                return
        try:
            await _run_step(context, operation, step)
        except StripeOutcomeUnknown:
            log.warning("step_outcome_unknown", operation_id=operation.id, position=step.position)
        except BillingError as error:
            await _fail(context, operation, step, error)


async def _fail(context: Context, operation: Operation, step: Step, error: BillingError) -> None:
    """A refusal of Stripe's is known and final; a part that is away says nothing about the step."""
    log.warning("step_failed", operation_id=operation.id, position=step.position, code=error.code)
    if error.status >= 500 and error.code != "stripe_rejected":
        return
    async with context.database.connection() as connection:
        await operations.settle_step(connection, operation.id, step.position, state="failed", code=error.code)


async def _run_step(context: Context, operation: Operation, step: Step) -> None:
    if step.action == Action.ADD and step.customer_id is None:
        await _add_new_customer(context, operation, step)
        return
    if step.customer_id is None:
        raise NotFound()
    await _change_customer(context, operation, step, step.customer_id)


async def _add_new_customer(context: Context, operation: Operation, step: Step) -> None:
    """The seat's metadata goes into the very call that creates the customer: no half-made member can exist."""
    email = step.email or ""
    role = step.role or "user"
    async with context.database.connection() as connection:
        await operations.begin_sending(connection, operation.id, step.position, attempt=step.attempt)
    values = {
        **keys.membership_values(operation.subscription_id, role),
        keys.OPERATION_ID: operation.id,
    }
    created, at = await context.stripe.create_customer(
        email=email, name=None, metadata=values, idempotency_key=_key(operation, step)
    )
    lease = await sync.take_lease(context, "customer", created.id)

    async def as_answered() -> Fetched:
        return Fetched(created, at)

    async def settle(connection: Connection, snapshot: Snapshot | None) -> None:
        await operations.record_seat_customer(connection, created.id, email, operation.id)
        await operations.record_joined(connection, operation.subscription_id, created.id, email)
        await operations.settle_step(
            connection, operation.id, step.position, state="applied", customer_id=created.id
        )

    await sync.land(context, lease, as_answered, settle)


async def _change_customer(
    context: Context, operation: Operation, step: Step, customer_id: CustomerId
) -> None:
    """Reads the customer first, under its lease: nobody is taken out of, or into, a seat that he left meanwhile."""
    lease = await sync.take_lease(context, "customer", customer_id)
    write = _CustomerWrite(context, operation, step, customer_id)
    await sync.land(context, lease, write.call, write.settle)


class _CustomerWrite:
    """The truth read first decides whether anything is sent; the same object settles from what is known then."""

    def __init__(self, context: Context, operation: Operation, step: Step, customer_id: CustomerId) -> None:
        self._context = context
        self._operation = operation
        self._step = step
        self._customer_id = customer_id
        self._refusal: str | None = None

    async def call(self) -> Fetched:
        before = await self._context.stripe.fetch("customer", self._customer_id)
        customer = before.snapshot if isinstance(before.snapshot, Customer) else None
        self._refusal = await self._why_not(customer)
        if self._refusal is not None or (customer is not None and self._is_done(customer)):
            return before
        step = self._step
        async with self._context.database.connection() as connection:
            await operations.begin_sending(
                connection, self._operation.id, step.position, attempt=step.attempt
            )
        values = (
            keys.no_membership_values()
            if step.action == Action.REMOVE
            else keys.membership_values(self._operation.subscription_id, step.role or "user")
        )
        return await self._context.stripe.set_customer_metadata(
            self._customer_id, values, idempotency_key=_key(self._operation, step)
        )

    async def _why_not(self, customer: Customer | None) -> str | None:
        if customer is None or customer.deleted:
            return None if self._step.action == Action.REMOVE else "not_found"
        here = customer.member_of == self._operation.subscription_id
        if self._step.action == Action.UPDATE and not here:
            return "not_found"
        if self._step.action == Action.ADD and customer.member_of is not None and not here:
            async with self._context.database.connection() as connection:
                home = await _view(connection, customer.member_of)
            if home is not None and is_live(home.status):
                return "member_elsewhere"
        return None

    def _is_done(self, customer: Customer) -> bool:
        here = customer.member_of == self._operation.subscription_id
        return (
            not here
            if self._step.action == Action.REMOVE
            else here and customer.member_role == self._step.role
        )

    async def settle(self, connection: Connection, snapshot: Snapshot | None) -> None:
        """In the transaction in which the cached row shows what Stripe answered."""
        step, operation = self._step, self._operation
        customer = snapshot if isinstance(snapshot, Customer) and not snapshot.deleted else None
        if self._refusal is None and customer is None and step.action != Action.REMOVE:
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
        if step.action == Action.REMOVE:
            await operations.record_left(connection, operation.subscription_id, self._customer_id)
        elif step.action == Action.ADD:
            await operations.record_joined(
                connection, operation.subscription_id, self._customer_id, step.email
            )
        await operations.settle_step(connection, operation.id, step.position, state="applied")


def _key(operation: Operation, step: Step) -> str:
    return f"{operation.id}/{step.position}/{step.attempt}"


async def run_within(context: Context, operation_id: str, token: UUID) -> None:
    """Waits for the operation as long as a request may; what is not finished then goes on in the background."""
    task = asyncio.create_task(run(context, operation_id, token))
    _running.add(task)
    task.add_done_callback(_note_end)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), context.rules.operation_deadline)


def _note_end(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("operation_run_failed", error=type(error).__name__)


async def outcome(context: Context, operation_id: str) -> Outcome:
    """Raises NotFound for an unknown id; whether the asker may see it is the caller's to check."""
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, operation_id)
        if operation is None:
            raise NotFound()
        steps = await operations.steps(connection, operation_id)
        view = await _view(connection, operation.subscription_id)
    seats = None if view is None else view.seats(owner_uses_seat=context.rules.owner_uses_seat)
    return Outcome(operation, steps, seats)
