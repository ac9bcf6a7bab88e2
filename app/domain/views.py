"""Define the results of reads from the mirror, before a role decides which parts of them are shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from app.domain.ids import CustomerId, SubscriptionId, SubscriptionItemId
from app.domain.payments import PaymentStep
from app.domain.roles import Relations, Role, role_of, roles_of
from app.domain.seats import SeatItem, Seats, count_seats, is_shareable
from app.domain.snapshots import JsonObject


@dataclass(frozen=True, slots=True)
class Contact:
    """A customer with the fields that identify a person."""

    customer_id: CustomerId
    email: str | None
    name: str | None


@dataclass(slots=True)
class SubscriptionView:
    """A subscription with its products, its owner if that customer exists, and the counts of its members.

    The owner is the customer that metadata names, or the payer if metadata names nobody (`named_owner_id` is None).

    `items` contain `price` and `product` objects. `owner_may_purchase` is True if the payer, another customer, allowed
    the owner to buy. `asker_role` is the role that the asking customer's metadata gives on this subscription.
    `waiting` describes the change that waits for its payment: `operation_id`, `invoice_id` and `ends_at` (Unix
    seconds). `waiting_payment` is its payment step, once that was read.

    Treat it as immutable. It is not frozen because creating a frozen instance takes three times as long.
    """

    id: SubscriptionId
    customer_id: CustomerId
    status: str
    currency: str
    created: int
    start_date: int | None
    trial_start: int | None
    trial_end: int | None
    cancel_at: int | None
    cancel_at_period_end: bool
    canceled_at: int | None
    ended_at: int | None
    billing_mode: str | None
    collection_method: str | None
    pause_collection: JsonObject | None
    schedule_id: str | None
    latest_invoice_id: str | None
    default_payment_method_id: str | None
    pending_update: JsonObject | None
    discounts: list[str]
    discount_details: list[JsonObject] | None
    items: list[JsonObject]
    named_owner_id: CustomerId | None
    owner: Contact | None
    members: int
    reserved: int
    owner_may_purchase: bool
    asker_role: str | None
    synced_at: datetime
    waiting: JsonObject | None = None
    waiting_payment: PaymentStep | None = None
    _seat_items: list[SeatItem] = field(init=False, repr=False, compare=False)
    _relations: Relations = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Every read needs both, most reads more than once.
        items = [
            SeatItem(
                id=SubscriptionItemId(item["id"]),
                quantity=item["quantity"],
                metered=item["metered"],
                shareable=item["product"]["supports_shared_subscriptions"],
                owner_uses_seat=item["product"]["owner_uses_seat"],
            )
            for item in self.items
        ]
        owner_id = None if self.owner is None else self.owner.customer_id
        self._seat_items = items
        self._relations = Relations(self.customer_id, owner_id, is_shareable(items))

    def seat_items(self) -> list[SeatItem]:
        """Return the items as far as seats depend on them."""
        return self._seat_items

    def is_shared(self) -> bool:
        """Return True if the subscription can be shared, or still has an owner or members from when it could."""
        has_named_owner = self.owner is not None and self.named_owner_id is not None
        return has_named_owner or self.members > 0 or self._relations.shareable

    @property
    def is_owned_by_payer_unnamed(self) -> bool:
        """Return True if the customer who pays is the owner because metadata names none."""
        return self.named_owner_id is None and self.owner is not None

    def seats(self, *, owner_uses_seat: bool) -> Seats:
        """Return the seats. `owner_uses_seat` is the setting for products that do not decide it."""
        return count_seats(
            self.seat_items(),
            members=self.members,
            reserved=self.reserved,
            has_owner=self.owner is not None,
            owner_uses_seat=owner_uses_seat,
        )

    def role_of(self, customer_id: CustomerId) -> Role | None:
        """Return the strongest role of `customer_id`, for which the view must have been read."""
        return role_of(customer_id, self._relations, self.asker_role)

    def roles_of(self, customer_id: CustomerId) -> frozenset[Role]:
        """Return all roles of `customer_id`, for which the view must have been read."""
        return roles_of(customer_id, self._relations, self.asker_role)


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A row of the list of members.

    `state` is `active`, `unclaimed` until a member who was added by e-mail acts, `pending` while an operation adds the
    member, or `invited` with the id of an open invitation.
    """

    customer_id: CustomerId | None
    email: str | None
    name: str | None
    role: str
    state: str
    since: datetime | None
    invitation_id: str | None = None
