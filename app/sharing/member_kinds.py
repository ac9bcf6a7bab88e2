"""The intents of steps on people: add, remove or change a member, or move control. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.domain import metadata as keys
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import Customer, Snapshot, Subscription
from app.operations.kinds import AnyChangeProves, Changes, Done, Fact, Refused, Seen, Send


def customer_in(snapshot: Snapshot | None) -> Customer | None:
    """Return the customer that was read, None if it does not exist."""
    return snapshot if isinstance(snapshot, Customer) and not snapshot.deleted else None


@dataclass(frozen=True, slots=True)
class Joining:
    """A customer gets a seat, or a member another role.

    `adds`: the customer need not be a member yet. `writes`: the metadata that earlier attempts wrote, None before the
    first sending.
    """

    subscription_id: SubscriptionId
    role: str
    adds: bool
    writes: Mapping[str, str] | None = None

    @property
    def values(self) -> Mapping[str, str]:
        """Return the metadata that makes the customer a member in this role."""
        return self.writes or keys.membership_values(self.subscription_id, self.role)

    def wanted(self, seen: Seen) -> Send | Done | Refused:
        """Return the write, done, or refused.

        A customer who is gone, or who is no member although their role is to change, is `not_found`. A customer
        without a free membership is `member_elsewhere`.
        """
        customer = customer_in(seen.snapshot)
        if customer is None:
            return Refused("not_found")
        is_here = self.subscription_id in customer.memberships
        if not is_here and not self.adds:
            return Refused("not_found")
        if seen.facts & {Fact.NO_MEMBERSHIP_IS_FREE, Fact.GUIDES_KEYS_ARE_TAKEN}:
            return Refused("member_elsewhere")
        return Done(self.values) if self.shows(customer) else Send(self.values)

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if the customer is a member here, in this role."""
        customer = customer_in(snapshot)
        return customer is not None and customer.memberships.get(self.subscription_id) == self.role

    def evidence(self, changes: Changes) -> bool:
        """Return True if an event shows the customer with this membership."""
        return any(keys.shows(metadata, self.values) for _, metadata in changes)


@dataclass(frozen=True, slots=True)
class Leaving:
    """A member's seat is freed. `writes`: the metadata that earlier attempts wrote, None before the first sending."""

    subscription_id: SubscriptionId
    writes: Mapping[str, str] | None = None

    @property
    def values(self) -> Mapping[str, str]:
        """Return the metadata that ends a membership."""
        return self.writes or keys.no_membership_values()

    def wanted(self, seen: Seen) -> Send | Done | Refused:
        """Return the write, or done if the customer is gone or has no seat here.

        The guide's keys may name another subscription by now. A write of them would take that seat away.
        """
        customer = customer_in(seen.snapshot)
        if customer is None:
            return Done()
        is_guides = keys.MEMBER_OF in self.values
        is_taken = is_guides and customer.member_of not in (None, self.subscription_id)
        if self.shows(customer):
            return Done(None if is_taken else self.values)
        return Refused("changed_meanwhile") if is_taken and self.writes is not None else Send(self.values)

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if the customer has no seat on this subscription."""
        customer = customer_in(snapshot)
        return customer is None or self.subscription_id not in customer.memberships

    def evidence(self, changes: Changes) -> bool:
        """Return True if an event shows the customer without a membership."""
        return any(keys.shows(metadata, self.values) for _, metadata in changes)


@dataclass(frozen=True, slots=True)
class NewMember(AnyChangeProves):
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
        customer = customer_in(snapshot)
        return customer is not None and self.subscription_id in customer.memberships


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
