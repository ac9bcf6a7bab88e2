"""The steps of an operation on people: a member is added, removed or given another role, or control moves.

The pure half of each kind is a frozen dataclass; the calls and records around it are a class without state.
"""

from __future__ import annotations

from dataclasses import replace

from app.context import Context
from app.domain import metadata as keys
from app.domain.emails import ascii_lowered
from app.domain.ids import NOBODY, CustomerId, SubscriptionId
from app.domain.snapshots import Customer, Snapshot, Subscription
from app.domain.statuses import ENDED, is_live
from app.errors import BillingError, Conflict, ServiceUnavailable
from app.identity import store as identities
from app.mirror.store import members, subscriptions
from app.operations import people_store, waiting_store
from app.operations.kinds import Fact, Params, Steps
from app.operations.rows import Operation, Step
from app.operations.sending import SUBSCRIPTION_CHANGES, changed_despite_5xx
from app.operations.step_kinds import StepKind
from app.postgres.database import Connection, UniqueViolation
from app.sharing import invitation_store, membership_keys, owners
from app.sharing import store as transfers
from app.sharing.invitation_store import ACCEPT_INVITATION
from app.sharing.member_kinds import Joining, Leaving, NewMember, NewOwner, customer_in
from app.sharing.people import find_addition
from app.stripe.client import Write
from app.stripe.gateway import Fetched


class MemberSteps(Steps):
    """Writes the membership of a customer who exists."""

    object_kind = "customer"
    event_types = "customer.updated"

    def kind_of(self, operation: Operation, step: Step) -> Joining | Leaving:
        """Return the step's intent: Leaving for a removal, else Joining."""
        writes = step.writes if step.was_sent else None
        if step.action == StepKind.REMOVE:
            return Leaving(operation.subscription_id, writes)
        is_addition = step.action == StepKind.ADD
        return Joining(operation.subscription_id, step.role or "user", adds=is_addition, writes=writes)

    def object_id(self, operation: Operation, step: Step) -> str | None:
        """Return the customer's id."""
        return step.customer_id

    async def facts(
        self, context: Context, operation: Operation, step: Step, found: Fetched
    ) -> frozenset[Fact]:
        """Find out whether the person to add has a free membership, and whether their keys are still this step's."""
        customer, here = customer_in(found.snapshot), operation.subscription_id
        if customer is None or step.action != StepKind.ADD or here in customer.memberships:
            return frozenset()
        live = await _live_others(context, customer, here)
        if step.was_sent:
            is_guides = keys.MEMBER_OF in (step.writes or {})
            is_taken = is_guides and customer.member_of in live
            return frozenset({Fact.GUIDES_KEYS_ARE_TAKEN}) if is_taken else frozenset()
        async with context.database.connection() as connection:
            live |= await people_store.promised_elsewhere(connection, customer.id, here)
        is_full = len(live) >= context.rules.memberships_per_customer
        return frozenset({Fact.NO_MEMBERSHIP_IS_FREE}) if is_full else frozenset()

    async def prepared(
        self, context: Context, operation: Operation, step: Step, found: Fetched, params: Params
    ) -> tuple[Step, Params]:
        """Choose the keys that every attempt writes, from the customer as read under their lease.

        Raises:
            Conflict: `member_elsewhere`: no key is free for the membership.
            ServiceUnavailable: Another addition has taken the key since.
        """
        customer, here = customer_in(found.snapshot), operation.subscription_id
        if step.was_sent or customer is None:
            return step, params
        slot = None
        if step.action == StepKind.ADD:
            live = await _live_others(context, customer, here)
            async with context.database.connection() as connection:
                held = await people_store.held_keys(connection, customer.id, operation.id, step.position)
            added = membership_keys.added(customer, here, step.role or "user", live=live, held=held)
            if added is None:
                raise Conflict("No metadata key is free for this membership.", code="member_elsewhere")
            writes, slot = added, membership_keys.slot(here, added)
        elif step.action == StepKind.REMOVE:
            writes = membership_keys.changed(customer, here, None)
        else:
            writes = membership_keys.changed(customer, here, step.role or "user")
            slot = membership_keys.slot(here, writes)
        try:
            async with context.database.transaction() as connection:
                await people_store.choose_writes(connection, operation.id, step.position, writes, slot)
        except UniqueViolation:
            raise ServiceUnavailable(
                "Another addition of this person is being sent.", retry_after=1
            ) from None
        return replace(step, writes=writes), writes

    def judged(self, operation: Operation, step: Step, snapshot: Snapshot | None) -> Step:
        """Judge the role that the member has now: not every role may change a manager."""
        customer = customer_in(snapshot)
        role = None if customer is None else customer.memberships.get(operation.subscription_id)
        return replace(step, role_before=role)

    def code_of(self, error: BillingError) -> str:
        """Return the code of a step that Stripe refused. A customer has room for 50 metadata keys."""
        is_metadata = str(error.members.get("stripe_param") or "").startswith("metadata")
        return "cannot_be_added" if is_metadata else error.code

    def write(self, context: Context, operation: Operation, step: Step, params: Params) -> Write[Fetched]:
        """Return the change of the customer's metadata."""
        return context.stripe.metadata_change(CustomerId(str(step.customer_id)), params)

    async def record(
        self,
        connection: Connection,
        operation: Operation,
        step: Step,
        snapshot: Snapshot | None,
        *,
        applied: bool,
    ) -> None:
        """Record the member's new role, or the end of the membership, for the audit trail."""
        customer_id = CustomerId(str(step.customer_id))
        if applied:
            await _end_invitation(connection, operation, step)
        if applied and step.action == StepKind.REMOVE:
            await members.record_left(connection, operation.subscription_id, customer_id)
        elif applied and step.action == StepKind.ADD:
            await _record_joined(connection, operation, step, customer_id)


async def _live_others(
    context: Context, customer: Customer, subscription_id: SubscriptionId
) -> set[SubscriptionId]:
    """Return the customer's other subscriptions that have not ended."""
    others = set(customer.memberships) - {subscription_id}
    if not others:
        return set()
    async with context.database.connection() as connection:
        known = await people_store.liveness(connection, others, ended=sorted(ENDED))
    for name in others - set(known):
        # It may be newer than what has been mirrored.
        found = (await context.stripe.fetch("subscription", name)).snapshot
        known[name] = isinstance(found, Subscription) and is_live(found.status)
    return {name for name in others if known[name]}


class _KnownError(Exception):
    """The customer of an e-mail exists by now, so the right to create it is given back."""

    def __init__(self, customer_id: CustomerId) -> None:
        self.customer_id = customer_id


class NewMemberSteps(Steps):
    """Creates a customer for an e-mail whose holder is not a customer yet."""

    object_kind = "customer"
    event_types = "customer.created"

    def kind_of(self, operation: Operation, step: Step) -> NewMember:
        """Return the step's intent."""
        return NewMember(operation.subscription_id, step.role or "user", operation.id)

    def object_id(self, operation: Operation, step: Step) -> str | None:
        """Return None: the step creates the customer."""
        return None

    async def decided(self, context: Context, operation: Operation, step: Step) -> Step:
        """Take the right to create the customer of the e-mail, or the customer that the e-mail has by now.

        Two subscriptions may add one e-mail at once. One of them creates the customer, and the other one waits for it.

        Raises:
            Conflict: `already_member`: the customer is the owner.
            ServiceUnavailable: Another addition creates the customer, or names it on this subscription.
        """
        if step.was_sent:
            return step
        async with context.database.transaction() as connection:
            try:
                async with connection.transaction():
                    await self._take_right(context, connection, operation, step)
            except UniqueViolation:
                raise ServiceUnavailable(
                    "Another addition creates the customer of this e-mail.", retry_after=1
                ) from None
            except _KnownError as known:
                return await _named(connection, operation, step, known.customer_id)
        return step

    async def _take_right(
        self, context: Context, connection: Connection, operation: Operation, step: Step
    ) -> None:
        """Take the right to create the customer of the step's e-mail, then look whether somebody has used it before.

        In the other order, an addition that settles between the two would be overlooked.
        """
        writes = keys.membership_values(operation.subscription_id, step.role or "user")
        await people_store.choose_writes(connection, operation.id, step.position, writes, keys.MEMBER_OF)
        view = await subscriptions.subscription_view(connection, operation.subscription_id, asker=None)
        if view is None:
            return
        person = await find_addition(
            connection,
            view,
            email=step.email,
            customer_id=None,
            limit=context.rules.memberships_per_customer,
        )
        if person.is_owner:
            raise Conflict("This customer is the owner.", code="already_member")
        if person.customer_id is not None:
            raise _KnownError(person.customer_id)

    def write(self, context: Context, operation: Operation, step: Step, params: Params) -> Write[Fetched]:
        """Return the creation of a customer with the step's e-mail."""
        return context.stripe.customer_creation(email=_address(step), name=None, metadata=params)

    async def created(self, context: Context, operation: Operation, step: Step) -> Fetched | None:
        """Return the customer of an earlier attempt, even if it was deleted since."""
        for found in await context.stripe.customers_with_email(_address(step)):
            if isinstance(found.snapshot, Customer) and found.snapshot.operation_id == operation.id:
                return found
        for customer_id, _ in await changed_despite_5xx(context, operation.id, step, self.event_types):
            found = await context.stripe.fetch("customer", customer_id)
            return found if found.snapshot is not None else None
        return None

    async def record(
        self,
        connection: Connection,
        operation: Operation,
        step: Step,
        snapshot: Snapshot | None,
        *,
        applied: bool,
    ) -> None:
        """Record the new member for the audit trail."""
        customer = customer_in(snapshot)
        if customer is None:
            return
        customer_id = CustomerId(customer.id)
        await people_store.record_seat_customer(connection, customer_id, _address(step), operation.id)
        if applied:
            await _end_invitation(connection, operation, step)
            await _record_joined(connection, operation, step, customer_id)


async def _record_joined(
    connection: Connection, operation: Operation, step: Step, customer_id: CustomerId
) -> None:
    """Record a new member. A seat that was given to an e-mail moves to the login of that address."""
    has_login = await members.record_joined(connection, operation.subscription_id, customer_id, step.email)
    if step.email and not has_login:
        await identities.look_again(connection, _address(step))


def _address(step: Step) -> str:
    """Return the e-mail of the person to add, as it is compared."""
    return ascii_lowered(step.email or "")


async def _end_invitation(connection: Connection, operation: Operation, step: Step) -> None:
    """End the invitation that the step accepts, or whose seat it has filled."""
    if step.invitation_id is None:
        return
    if operation.kind == ACCEPT_INVITATION:
        await invitation_store.accepted(connection, step.invitation_id, principal=operation.principal)
    else:
        await invitation_store.end(
            connection,
            step.invitation_id,
            "revoked",
            reason="added",
            operation_id=operation.id,
            principal=operation.principal,
        )


async def _named(connection: Connection, operation: Operation, step: Step, customer_id: CustomerId) -> Step:
    """Turn an addition that was to create a customer into one of this customer."""
    is_theirs = await waiting_store.name(
        connection, operation.id, step.position, customer_id=customer_id, email=step.email
    )
    if not is_theirs:
        raise ServiceUnavailable("Another addition names this customer.", retry_after=1)
    return replace(step, customer_id=customer_id)


class OwnerSteps(Steps):
    """Writes the one metadata key that names the owner; the payer stays."""

    object_kind = "subscription"
    event_types = SUBSCRIPTION_CHANGES

    def kind_of(self, operation: Operation, step: Step) -> NewOwner:
        """Return the step's intent."""
        from_id = operation.request.get("from_id")
        return NewOwner(
            CustomerId(str(operation.request["to_id"])), None if from_id is None else CustomerId(str(from_id))
        )

    def object_id(self, operation: Operation, step: Step) -> str | None:
        """Return the subscription's id."""
        return operation.subscription_id

    async def facts(
        self, context: Context, operation: Operation, step: Step, found: Fetched
    ) -> frozenset[Fact]:
        """Find out whether the owner that metadata names exists. A missing row does not prove that they do not.

        Raises:
            ServiceUnavailable: Stripe does not say whether the owner exists.
        """
        owner_id = found.snapshot.owner_id if isinstance(found.snapshot, Subscription) else None
        if owner_id is None:
            return frozenset()
        async with context.database.connection() as connection:
            is_there = owner_id != NOBODY and await identities.is_present(connection, owner_id)
        if is_there or (owner_id != NOBODY and await owners.exists_at_stripe(context, owner_id)):
            return frozenset()
        return frozenset({Fact.OWNER_IS_ABSENT})

    def write(self, context: Context, operation: Operation, step: Step, params: Params) -> Write[Fetched]:
        """Return the change of the subscription's metadata."""
        return context.billing.owner_change(operation.subscription_id, CustomerId(params[keys.OWNER]))

    async def record(
        self,
        connection: Connection,
        operation: Operation,
        step: Step,
        snapshot: Snapshot | None,
        *,
        applied: bool,
    ) -> None:
        """Keep whether the payer still lets the new owner buy, and wake the purchases that wait for payment.

        A purchase ends once its buyer has lost the right to buy (`app.operations.waiting`).
        """
        if applied and isinstance(snapshot, Subscription):
            await transfers.grant_purchases(
                connection,
                operation.subscription_id,
                payer_id=snapshot.customer_id,
                owner_id=CustomerId(str(operation.request["to_id"])),
                allowed=await transfers.transfer_allows_purchases(connection, operation.id),
            )
            await waiting_store.wake_all(connection, operation.subscription_id)
