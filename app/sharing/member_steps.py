"""What the steps of an operation on people do: a member is added, removed or given another role, control moves.

The pure half of each kind is a frozen dataclass; the calls and records around it are a class without state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.context import Context
from app.domain import metadata as keys
from app.domain.ids import NOBODY, CustomerId, SubscriptionId
from app.domain.snapshots import Customer, Snapshot, Subscription
from app.domain.statuses import is_live
from app.identity.store import is_present
from app.mirror.store import members, subscriptions
from app.operations import people_store, waiting_store
from app.operations.kinds import Changes, Done, Fact, Params, Refused, Seen, Send, Steps
from app.operations.rows import Operation, Step
from app.operations.sending import SUBSCRIPTION_CHANGES, changed_despite_5xx
from app.operations.step_kinds import StepKind
from app.postgres.database import Connection
from app.sharing import invitation_store, owners
from app.sharing import store as transfers
from app.sharing.invitation_store import ACCEPT_INVITATION
from app.stripe.client import Write
from app.stripe.gateway import Fetched


def _customer(snapshot: Snapshot | None) -> Customer | None:
    return snapshot if isinstance(snapshot, Customer) and not snapshot.deleted else None


@dataclass(frozen=True, slots=True)
class Joining:
    """A customer gets a seat, or a member another role.

    `adds`: the customer need not be a member yet.
    """

    subscription_id: SubscriptionId
    role: str
    adds: bool

    @property
    def values(self) -> Mapping[str, str]:
        """Return the metadata that makes the customer a member in this role."""
        return keys.membership_values(self.subscription_id, self.role)

    def wanted(self, seen: Seen) -> Send | Done | Refused:
        """Return the write, done, or refused.

        A customer who is gone, or who is no member although their role is to change, is `not_found`. A customer with a
        seat on another live subscription is `member_elsewhere`.
        """
        customer = _customer(seen.snapshot)
        if customer is None:
            return Refused("not_found")
        is_here = customer.member_of == self.subscription_id
        if not is_here and not self.adds:
            return Refused("not_found")
        if not is_here and Fact.OTHER_SUBSCRIPTION_IS_LIVE in seen.facts:
            return Refused("member_elsewhere")
        return Done(self.values) if self.shows(customer) else Send(self.values)

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if the customer is a member here, in this role."""
        customer = _customer(snapshot)
        return (
            customer is not None
            and customer.member_of == self.subscription_id
            and customer.member_role == self.role
        )

    def evidence(self, changes: Changes) -> bool:
        """Return True if an event shows the customer with this membership."""
        return any(keys.shows(metadata, self.values) for _, metadata in changes)


@dataclass(frozen=True, slots=True)
class Leaving:
    """A member's seat is freed."""

    subscription_id: SubscriptionId

    @property
    def values(self) -> Mapping[str, str]:
        """Return the metadata that ends a membership."""
        return keys.no_membership_values()

    def wanted(self, seen: Seen) -> Send | Done | Refused:
        """Return the write, or done if the customer is gone or has no seat here."""
        customer = _customer(seen.snapshot)
        if customer is None:
            return Done()
        if customer.member_of not in (None, self.subscription_id):
            # The customer has a seat on another subscription by now, which the same keys would take away.
            return Done()
        return Done(self.values) if self.shows(customer) else Send(self.values)

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if the customer has no seat on this subscription."""
        customer = _customer(snapshot)
        return customer is None or customer.member_of != self.subscription_id

    def evidence(self, changes: Changes) -> bool:
        """Return True if an event shows the customer without a membership."""
        return any(keys.shows(metadata, self.values) for _, metadata in changes)


@dataclass(frozen=True, slots=True)
class NewMember:
    """A customer is created with a seat, in one call, so that no half-made member can exist."""

    subscription_id: SubscriptionId
    role: str
    operation_id: str

    def wanted(self, seen: Seen) -> Send | Done | Refused:
        """Return the write: nothing that could be read forbids a new customer."""
        return Send(
            {
                **keys.membership_values(self.subscription_id, self.role),
                keys.OPERATION_ID: self.operation_id,
            }
        )

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if there is such a customer, with a seat here."""
        customer = _customer(snapshot)
        return customer is not None and customer.member_of == self.subscription_id

    def evidence(self, changes: Changes) -> bool:
        """Return True if any event shows a customer that the step created."""
        return bool(changes)


@dataclass(frozen=True, slots=True)
class NewOwner:
    """Control moves from one customer to another; `from_id` None: nobody was the owner."""

    to_id: CustomerId
    from_id: CustomerId | None

    @property
    def values(self) -> Mapping[str, str]:
        """Return the metadata that names the new owner."""
        return {keys.OWNER: self.to_id}

    def wanted(self, seen: Seen) -> Send | Done | Refused:
        """Return the write, done, or refused.

        If there is another owner than the transfer was accepted from, the step is `changed_meanwhile`. While metadata
        names no owner, it is the customer who pays.
        """
        subscription = seen.snapshot
        if not isinstance(subscription, Subscription):
            return Refused("not_found")
        if self.shows(subscription):
            return Done(self.values)
        owner_id = subscription.customer_id if subscription.owner_id is None else subscription.owner_id
        present = None if Fact.OWNER_IS_ABSENT in seen.facts else owner_id
        return Send(self.values) if present == self.from_id else Refused("changed_meanwhile")

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if metadata names the new owner."""
        return isinstance(snapshot, Subscription) and snapshot.owner_id == self.to_id

    def evidence(self, changes: Changes) -> bool:
        """Return True if an event shows metadata that names the new owner."""
        return any(keys.shows(metadata, self.values) for _, metadata in changes)


class MemberSteps(Steps):
    """Writes the membership of a customer who exists."""

    object_kind = "customer"
    event_types = "customer.updated"

    def kind_of(self, operation: Operation, step: Step) -> Joining | Leaving:
        """Return the step's intent: Leaving for a removal, else Joining."""
        if step.action == StepKind.REMOVE:
            return Leaving(operation.subscription_id)
        return Joining(operation.subscription_id, step.role or "user", adds=step.action == StepKind.ADD)

    def object_id(self, operation: Operation, step: Step) -> str | None:
        """Return the customer's id."""
        return step.customer_id

    async def facts(
        self, context: Context, operation: Operation, step: Step, found: Fetched
    ) -> frozenset[Fact]:
        """Find out whether the person to add is on another live subscription."""
        customer = _customer(found.snapshot)
        home_id = None if customer is None else customer.member_of
        if step.action != StepKind.ADD or home_id in (None, operation.subscription_id):
            return frozenset()
        is_home_live = await _is_live(context, SubscriptionId(str(home_id)))
        return frozenset({Fact.OTHER_SUBSCRIPTION_IS_LIVE}) if is_home_live else frozenset()

    def judged(self, operation: Operation, step: Step, snapshot: Snapshot | None) -> Step:
        """Judge the role that the member has now: not every role may change a manager."""
        customer = _customer(snapshot)
        is_here = customer is not None and customer.member_of == operation.subscription_id
        return replace(step, role_before=customer.member_role if customer is not None and is_here else None)

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
            await members.record_joined(connection, operation.subscription_id, customer_id, step.email)


async def _is_live(context: Context, subscription_id: SubscriptionId) -> bool:
    async with context.database.connection() as connection:
        home = await subscriptions.subscription_view(connection, subscription_id, asker=None)
    if home is not None:
        return is_live(home.status)
    # It may be newer than what has been mirrored.
    found = (await context.stripe.fetch("subscription", subscription_id)).snapshot
    return isinstance(found, Subscription) and is_live(found.status)


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

    def write(self, context: Context, operation: Operation, step: Step, params: Params) -> Write[Fetched]:
        """Return the creation of a customer with the step's e-mail."""
        return context.stripe.customer_creation(email=step.email or "", name=None, metadata=params)

    async def created(self, context: Context, operation: Operation, step: Step) -> Fetched | None:
        """Return the customer of an earlier attempt, even if it was deleted since."""
        for found in await context.stripe.customers_with_email(step.email or ""):
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
        customer, email = _customer(snapshot), step.email or ""
        if customer is None:
            return
        customer_id = CustomerId(customer.id)
        await people_store.record_seat_customer(connection, customer_id, email, operation.id)
        if applied:
            await _end_invitation(connection, operation, step)
            await members.record_joined(connection, operation.subscription_id, customer_id, email)


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
        """Find out whether the owner that metadata names exists. A missing row alone does not prove that they do not.

        Raises:
            ServiceUnavailable: Stripe does not say whether the owner exists.
        """
        owner_id = found.snapshot.owner_id if isinstance(found.snapshot, Subscription) else None
        if owner_id is None:
            return frozenset()
        async with context.database.connection() as connection:
            is_there = owner_id != NOBODY and await is_present(connection, owner_id)
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
        """Keep whether the new owner may buy, as the payer says by now; let a worker look at what waits for payment.

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
