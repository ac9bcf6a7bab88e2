"""Move seats that were given by e-mail to the customer of the login whose verified address it is.

A person may sign up before their address is verified, so their login has a customer of its own when the seat is found.
Each subscription's seat moves by an operation of two writes: the person's customer becomes a member, then the unclaimed
one is none. See docs/decisions/0039-move-a-seat-to-the-login-that-verifies-its-address.md.
"""

from __future__ import annotations

import secrets
from uuid import UUID, uuid4

import structlog

from app.context import Context
from app.customers.store import seat_moves as moves
from app.customers.store.seat_moves import Look, UnclaimedSeat
from app.domain.ids import CustomerId
from app.domain.snapshots import JsonObject
from app.domain.statuses import ENDED
from app.errors import BillingError
from app.identity import store as identities
from app.mirror.store import subscriptions
from app.operations import people_store
from app.operations import store as operations
from app.operations.people_store import FoundPerson
from app.operations.runner import run, within
from app.operations.step_kinds import StepKind
from app.postgres.database import Connection, UniqueViolation

log = structlog.get_logger(__name__)

SYSTEM = "system:move"
REQUEST_SECONDS = 5.0
"""The time for which a new-user trigger waits for its seats. A worker does the rest."""
_LEASE_SECONDS = 30.0


class _BusyError(Exception):
    """Another operation on one of the two customers has to end before the seat can move."""


async def verify(context: Context, issuer: str, subject: str, email: str) -> None:
    """Keep a verified address, ASCII-lowered, as that of a login. Its seats are due then."""
    async with context.database.transaction() as connection:
        await identities.keep_email(connection, issuer, subject, email)


async def reach(context: Context, customer_id: CustomerId) -> None:
    """Move the unclaimed seats of this customer's address, for at most REQUEST_SECONDS.

    If Stripe does not answer, a worker does it later.
    """
    async with context.database.connection() as connection:
        look = await moves.take(connection, customer_id, lease_seconds=_LEASE_SECONDS)
    if look is None:
        return
    try:
        await within(context, REQUEST_SECONDS, look_for_seats(context, look))
    except (BillingError, TimeoutError) as error:
        log.info("seats_move_later", error=type(error).__name__)


async def move_due(context: Context, *, limit: int) -> int:
    """Move the seats of logins whose addresses, or whose seats, are new. Return the number of logins.

    Raises:
        BillingError: Stripe or the database does not answer.
    """
    async with context.database.connection() as connection:
        found = await moves.take_due(connection, limit=limit, lease_seconds=_LEASE_SECONDS)
    for look in found:
        await look_for_seats(context, look)
    return len(found)


async def look_for_seats(context: Context, look: Look) -> None:
    """Move each unclaimed seat of the address, one operation after another.

    A seat that another operation changes is looked for again once the look's lease has ended.

    Raises:
        BillingError: Stripe or the database does not answer. A worker finishes an operation that was admitted.
    """
    async with context.database.connection() as connection:
        found = await moves.unclaimed(connection, look.customer_id, ended=sorted(ENDED))
    is_done = True
    for seat in found:
        try:
            admitted = await _admit(context, look.customer_id, seat)
        except (_BusyError, UniqueViolation):
            is_done = False
            continue
        if admitted is not None:
            await run(context, *admitted, patience=REQUEST_SECONDS)
    if is_done:
        async with context.database.connection() as connection:
            await moves.looked(connection, look)


async def _admit(context: Context, customer_id: CustomerId, seat: UnclaimedSeat) -> tuple[str, UUID] | None:
    """Admit the move of one seat, and return the operation and its lease; None if nothing is to be moved.

    Raises:
        _BusyError: see there.
        UniqueViolation: another operation has promised the customer a seat.
    """
    operation_id, token = f"op_{secrets.token_hex(12)}", uuid4()
    async with context.database.transaction() as connection:
        await subscriptions.lock(connection, seat.subscription_id)
        # No login takes the seat's customer over from here on, and its deletion does not begin.
        await moves.hold(connection, seat.customer_id, operation_id)
        limit = context.rules.memberships_per_customer
        steps = await _steps(connection, customer_id, seat, limit=limit)
        if not steps:
            await moves.hold(connection, seat.customer_id, None)
            return None
        await operations.insert(
            connection,
            operation_id=operation_id,
            subscription_id=seat.subscription_id,
            kind="move",
            principal=SYSTEM,
            actor_id=customer_id,
            source="api",
            request={},
            steps=[{**step, "position": n} for n, step in enumerate(steps)],
            lease_token=token,
            lease_seconds=context.rules.operation_lease,
            moves_from=seat.customer_id,
        )
    return operation_id, token


async def _steps(
    connection: Connection, customer_id: CustomerId, found: UnclaimedSeat, *, limit: int
) -> list[JsonObject]:
    """Return the steps that move the seat as it is now, none if it stays."""
    ended = sorted(ENDED)
    seat = await moves.one_unclaimed(
        connection, customer_id, found.subscription_id, holder=found.customer_id, ended=ended
    )
    view = await subscriptions.subscription_view(connection, found.subscription_id, asker=customer_id)
    people = await people_store.people_by_id(
        connection, found.subscription_id, [customer_id, found.customer_id], ended=ended
    )
    by_id = {one.customer_id: one for one in people}
    target = by_id.get(customer_id)
    if seat is None or view is None or target is None or found.customer_id not in by_id:
        return []
    if any(one.busy for one in people):
        raise _BusyError()
    is_owner = view.owner is not None and view.owner.customer_id == customer_id
    joining = [] if is_owner else _joining(seat, target, limit=limit)
    return [] if joining is None else [*joining, _step(StepKind.REMOVE, seat.customer_id)]


def _joining(seat: UnclaimedSeat, target: FoundPerson, *, limit: int) -> list[JsonObject] | None:
    """Return the step that gives the customer the seat's role; None if they have no free membership.

    A member keeps the higher one of both roles.
    """
    if target.member_role is not None:
        if seat.role == "manager" and target.member_role != "manager":
            return [{**_step(StepKind.UPDATE, target.customer_id), "role": seat.role}]
        return []
    if target.is_full(limit, is_by_email=False):
        return None
    typed = seat.typed_email if seat.is_unclaimed_still else None
    return [{**_step(StepKind.ADD, target.customer_id), "role": seat.role, "email": typed}]


def _step(kind: StepKind, customer_id: CustomerId) -> JsonObject:
    return {"action": kind.value, "customer_id": customer_id, "state": "planned", "details": {}}
