"""The events as the application reads them: one model for each type, the same in the feed and in webhooks.

No model has a name, an e-mail or a secret, except for the invitation that is sent to an endpoint.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from app.http.schemas import Answer, Instant
from app.http.stripe_values import SubscriptionStatus

Source = Literal["api", "dashboard", "reconcile"]
MemberRole = Literal["user", "manager"]
AccessRole = Literal["owner", "manager", "user", "payer"]


class EventData(Answer):
    """What every event says.

    `source` is `api` for an operation of this service, even if Stripe reported its effect. It is `reconcile` for what a
    reconcile has found, and `dashboard` for any other change that was seen at Stripe. Rows of a snapshot have none.
    """

    source: Source | None
    operation_id: str | None


class SeatAssignedData(EventData):
    """The role that the customer's metadata gives."""

    role: MemberRole


class SeatRoleChangedData(EventData):
    """The new role and the one before."""

    role: MemberRole
    previous_role: MemberRole


class SeatReleasedData(EventData):
    """The role that ended, and why."""

    previous_role: MemberRole
    reason: Literal["removed", "left", "moved", "subscription_ended", "customer_deleted"]


class SeatsChangedData(EventData):
    """The seats. `previous_total` is null if the subscription was not shared before.

    `total` is as of the event; the other numbers are as of its writing, and change without an event.
    """

    total: int
    used: int
    reserved: int
    available: int
    over_allocated: int
    previous_total: int | None


class ItemState(Answer):
    """An item of a subscription. `quantity` is null for a metered item, `price_id` for readers without amounts."""

    id: str
    product_id: str
    price_id: str | None
    quantity: int | None


class SubscriptionChangedData(EventData):
    """The subscription's status, end and items."""

    status: SubscriptionStatus
    cancel_at: Instant | None
    cancel_at_period_end: bool
    ended_at: Instant | None
    items: list[ItemState]


class OwnerChangedData(EventData):
    """The new owner and the one before, each null if there is none."""

    owner_id: str | None
    previous_owner_id: str | None


class AccessChangedData(EventData):
    """Whether the customer may use the product. Keep the highest `revision` of each customer and product.

    `subscription_id` is the one that gives the access, null without access.
    """

    product_id: str
    has_access: bool
    via: Literal["own", "shared"] | None
    role: AccessRole | None
    subscription_id: str | None
    revision: int


class InvitationData(EventData):
    """An invitation. Its address and its token are in no event that is kept."""

    invitation_id: str
    role: MemberRole
    expires_at: Instant
    generation: int


class SentInvitationData(InvitationData):
    """An invitation as it is sent to an endpoint: with the address and the token as of the sending.

    Both are null once the invitation has ended or the person was erased.
    """

    email: str | None
    token: str | None


class OperationSettledData(EventData):
    """An operation that has ended. `action` is its kind; read the outcome of its steps by its id."""

    operation_id: str
    state: Literal["settled"]
    action: str


class SyncCompletedData(EventData):
    """How many objects the copy has, by kind."""

    counts: dict[str, int]


class Envelope(Answer):
    """What every event has beside its type and data.

    `sequence` rises by one with each event of a subscription, and `previous_sequence` is that of the event before.
    After a restore of the database the sequence jumps, and `previous_sequence` shows that nothing is missing.
    `customer_id` is the person concerned.
    """

    id: str = Field(examples=["evt_3f2a9c81d40b7e65a1c2d3e4"])
    created: Instant
    sequence: int | None
    previous_sequence: int | None
    subscription_id: str | None
    customer_id: str | None


class SeatAssigned(Envelope):
    """A customer has a seat."""

    type: Literal["seat.assigned"]
    data: SeatAssignedData


class SeatRoleChanged(Envelope):
    """A member has another role."""

    type: Literal["seat.role_changed"]
    data: SeatRoleChangedData


class SeatReleased(Envelope):
    """A customer no longer has a seat."""

    type: Literal["seat.released"]
    data: SeatReleasedData


class SeatsChanged(Envelope):
    """The number of seats of a subscription has changed."""

    type: Literal["seats.changed"]
    data: SeatsChangedData


class SubscriptionChanged(Envelope):
    """The status, the end or the items of a subscription have changed, or it is new."""

    type: Literal["subscription.changed"]
    data: SubscriptionChangedData


class OwnerChanged(Envelope):
    """A subscription has another owner."""

    type: Literal["owner.changed"]
    data: OwnerChangedData


class AccessChanged(Envelope):
    """A customer may use a product now, may no longer, or may by another subscription or role.

    `subscription_id` of the envelope is the subscription whose change caused it.
    """

    type: Literal["access.changed"]
    data: AccessChangedData


class InvitationCreated(Envelope):
    """An invitation was made, or resent with its next generation."""

    type: Literal["invitation.created"]
    data: InvitationData


class InvitationAccepted(Envelope):
    """An invitation was accepted by `customer_id`."""

    type: Literal["invitation.accepted"]
    data: InvitationData


class InvitationDeclined(Envelope):
    """An invitation was declined."""

    type: Literal["invitation.declined"]
    data: InvitationData


class InvitationExpired(Envelope):
    """The term of an invitation is over."""

    type: Literal["invitation.expired"]
    data: InvitationData


class InvitationRevoked(Envelope):
    """An invitation was revoked, or lost the right on which it rested."""

    type: Literal["invitation.revoked"]
    data: InvitationData


class OperationSettled(Envelope):
    """An operation on a subscription has ended."""

    type: Literal["operation.settled"]
    data: OperationSettledData


class SyncCompleted(Envelope):
    """Take the snapshot after it: the first fill has ended, or the database was restored from a backup.

    It is the first event of a database.
    """

    type: Literal["sync.completed"]
    data: SyncCompletedData


class EndpointTest(Envelope):
    """It only tests an endpoint, and is in no feed."""

    type: Literal["endpoint.test"]
    data: EventData


class SentInvitation(Envelope):
    """An invitation was made or resent, as it is sent to an endpoint."""

    type: Literal["invitation.created"]
    data: SentInvitationData


AnyEvent = (
    SeatAssigned
    | SeatRoleChanged
    | SeatReleased
    | SeatsChanged
    | SubscriptionChanged
    | OwnerChanged
    | AccessChanged
    | InvitationCreated
    | InvitationAccepted
    | InvitationDeclined
    | InvitationExpired
    | InvitationRevoked
    | OperationSettled
    | SyncCompleted
)
Event = Annotated[AnyEvent, Field(discriminator="type")]

EVENT_MODELS: Final[dict[str, type[Envelope]]] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(AnyEvent)
}
"""The model of each type."""

SENT_MODELS: Final[dict[str, type[Envelope]]] = {
    **EVENT_MODELS,
    "invitation.created": SentInvitation,
    "endpoint.test": EndpointTest,
}
"""The model of each type as it is sent to an endpoint."""

EventType = Literal[
    "seat.assigned",
    "seat.role_changed",
    "seat.released",
    "seats.changed",
    "subscription.changed",
    "owner.changed",
    "access.changed",
    "invitation.created",
    "invitation.accepted",
    "invitation.declined",
    "invitation.expired",
    "invitation.revoked",
    "operation.settled",
    "sync.completed",
]

Place = Annotated[str, Field(examples=["pl_4711"])]
"""A place in the log, opaque, and good for every key and filter."""


class EventPage(Answer):
    """Events in the order of the log, oldest first.

    `next_cursor` is on every page, also on the last one. Give it as `after` for what comes next.
    """

    data: list[Event]
    has_more: bool
    next_cursor: Place


class SnapshotSubscription(Answer):
    """A row with the state of a subscription, as the event that would bring it about."""

    type: Literal["subscription.changed"]
    subscription_id: str
    customer_id: None
    sequence: int
    data: SubscriptionChangedData


class SnapshotOwner(Answer):
    """A row with the owner of a subscription."""

    type: Literal["owner.changed"]
    subscription_id: str
    customer_id: str | None
    sequence: int
    data: OwnerChangedData


class SnapshotSeats(Answer):
    """A row with the seats of a shared subscription."""

    type: Literal["seats.changed"]
    subscription_id: str
    customer_id: None
    sequence: int
    data: SeatsChangedData


class SnapshotSeat(Answer):
    """A row with a member of a subscription."""

    type: Literal["seat.assigned"]
    subscription_id: str
    customer_id: str
    sequence: int
    data: SeatAssignedData


class SnapshotAccess(Answer):
    """A row with a product that a customer may use."""

    type: Literal["access.changed"]
    subscription_id: str
    customer_id: str
    sequence: int
    data: AccessChangedData


SnapshotRow = Annotated[
    SnapshotSubscription | SnapshotOwner | SnapshotSeats | SnapshotSeat | SnapshotAccess,
    Field(discriminator="type"),
]


class EventSnapshot(Answer):
    """The state on which later events build.

    Read all pages, then the feed from `after`, which is the same on all pages. Drop events at or below the `sequence`
    of the row that they concern.
    """

    data: list[SnapshotRow]
    has_more: bool
    next_cursor: str | None
    after: Place
