"""Changes of a subscription as they were admitted, and what was decided about each of their writes.

An order is stored with its operation, and conditions with each of its steps: any process can carry them on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from app.domain.ids import CustomerId, PaymentMethodId, SubscriptionId
from app.domain.payments import Named
from app.domain.roles import Permission
from app.domain.snapshots import JsonObject, PaymentMethod, Subscription
from app.operations.rows import Operation, Step


class Method(StrEnum):
    """The write at Stripe; `END_UNPAID` cancels a subscription only while its first invoice is not paid.

    `NAME_OWNER` writes who owns the subscription, before the payer's first change while metadata names no owner.
    """

    NAME_OWNER = "name_owner"
    CREATE = "create"
    UPDATE = "update"
    CANCEL = "cancel"
    END_UNPAID = "end_unpaid"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A payment method that is attached before it is charged."""

    payment_method_id: PaymentMethodId
    customer_id: CustomerId


def attachment(method: PaymentMethod | None, customer_id: CustomerId) -> Attachment | None:
    """Return what attaches this payment method, or None.

    A method that is attached already needs none.
    """
    if method is None or method.customer_id is not None:
        return None
    return Attachment(PaymentMethodId(method.id), customer_id)


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A change that is to be priced. `params`: those of Stripe's update; `counted`: see `Order`."""

    params: Mapping[str, Any]
    quote_id: str | None = None
    restarts: bool = False
    forgo_credit: bool = False
    counted: Mapping[str, int] = field(default_factory=dict)


def shows_counted(subscription: Subscription, counted: Mapping[str, int]) -> bool:
    """Return True if the items have the quantities by item that were counted."""
    quantities = {str(item.id): item.quantity for item in subscription.items}
    return all(quantities.get(item_id) == quantity for item_id, quantity in counted.items())


@dataclass(frozen=True, slots=True)
class Found:
    """What Stripe says of the objects that an order names.

    `params`: those of Stripe's call that name them. `attach`: a method that is attached first.
    """

    params: Mapping[str, Any]
    attach: Attachment | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Found:
        """Return what a step has kept of it."""
        attach = row["attach"]
        return cls(row["params"], None if attach is None else Attachment(**attach))


@dataclass(frozen=True, slots=True)
class ShownEnd:
    """The end that the copy showed while Stripe was away, and that nothing is sent for if Stripe shows it too.

    `ends_at`: Unix seconds, None if it goes on.
    """

    ends_at: int | None


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be changed, as it was admitted.

    `params`: Stripe's; of a resumption those that take an end back, which is a write of its own. `restarts`: the
    interval of an item changes. `attach`: a method that is attached first, and then charged. `supersedes`: unpaid
    subscriptions that end before a create is sent. `to_id`: the customer who is named as the owner first.

    While Stripe is away, three things are left to the operation, which does them before it sends anything. `unread`:
    Stripe is asked for the objects that the change names. `ends_waiting`: the purchase that waits for its payment ends.
    `shown_end`: Stripe is asked whether the end stands already.

    `counted`: the quantities by item that the change leaves as the copy showed them. Others may have been bought since,
    in the Dashboard or by the purchase that was to end. They are not counted with a quote, which expires by that.
    `reduces`: items are only removed or get smaller quantities, and nothing else is changed that has a price.
    `sets_seats`: the caller named a number of seats and no items.
    """

    method: Method
    params: Mapping[str, Any]
    quote_id: str | None = None
    forgo_credit: bool = False
    restarts: bool = False
    attach: Attachment | None = None
    supersedes: Sequence[SubscriptionId] = field(default=())
    to_id: CustomerId | None = None
    unread: Named | None = None
    ends_waiting: bool = False
    shown_end: ShownEnd | None = None
    counted: Mapping[str, int] = field(default_factory=dict)
    reduces: bool = False
    sets_seats: bool = False

    @classmethod
    def of(cls, operation: Operation) -> Order:
        """Return the order of a stored operation."""
        row = operation.request
        attach, unread, shown_end = row.get("attach"), row.get("unread"), row.get("shown_end")
        return cls(
            Method(row["method"]),
            row["params"],
            quote_id=row.get("quote_id"),
            forgo_credit=row.get("forgo_credit") is True,
            restarts=row.get("restarts") is True,
            attach=None if attach is None else Attachment(**attach),
            supersedes=tuple(row.get("supersedes", ())),
            to_id=row.get("to_id"),
            unread=None if unread is None else Named(**unread),
            ends_waiting=row.get("ends_waiting") is True,
            shown_end=None if shown_end is None else ShownEnd(**shown_end),
            counted=row.get("counted", {}),
            reduces=row.get("reduces") is True,
            sets_seats=row.get("sets_seats") is True,
        )

    @classmethod
    def of_step(cls, operation: Operation, step: Step) -> Order:
        """Return the order of a stored operation, with what its step has found of the objects that it names."""
        order, found = cls.of(operation), Conditions.of(step).found
        return order if found is None else order.naming(Found.of(found))

    def naming(self, found: Found) -> Order:
        """Return the order with the objects that were found."""
        return replace(self, params={**self.params, **found.params}, attach=found.attach, unread=None)

    def as_request(self) -> JsonObject:
        """Return the order as the operation's row stores it."""
        return asdict(self)

    @property
    def asks_first(self) -> bool:
        """Return True if something is left to the operation, before it sends anything."""
        return self.unread is not None or self.ends_waiting or self.shown_end is not None

    @property
    def writes(self) -> Sequence[Method]:
        """Return the writes that it takes, in their order."""
        naming = () if self.to_id is None else (Method.NAME_OWNER,)
        if self.method is Method.RESUME and self.params:
            return (*naming, Method.RESUME, Method.UPDATE)
        return (*naming, self.method)

    @property
    def is_priced(self) -> bool:
        """Return True for an update that Stripe prices."""
        return self.method is Method.UPDATE and not {"items", "trial_end"}.isdisjoint(self.params)

    @property
    def charges(self) -> bool:
        """Return True for a change that Stripe may charge at once."""
        return (self.is_priced and not self.reduces) or self.method in (Method.CREATE, Method.RESUME)

    @property
    def unpriced(self) -> Unpriced | None:
        """Return what is to be priced, None for an order that Stripe does not price."""
        if not self.is_priced:
            return None
        return Unpriced(
            self.params,
            self.quote_id,
            restarts=self.restarts,
            forgo_credit=self.forgo_credit,
            counted=self.counted,
        )

    @property
    def changes_only_end(self) -> bool:
        """Return True if Stripe makes the change at once, beside an update that it holds back.

        Source: https://docs.stripe.com/billing/subscriptions/pending-updates, "Pending updates".
        """
        return self.method is Method.UPDATE and not self.is_priced

    @property
    def supersedes_waiting(self) -> bool:
        """Return True if a purchase that waits for its payment ends for this change.

        A change of quantity, items or end needs the subscription for itself. The end of an unpaid subscription is the
        end of its first purchase, so nothing has to end before it. Nor does an end that stands already need anything.
        """
        if self.shown_end is not None:
            return False
        match self.method:
            case Method.CREATE | Method.END_UNPAID:
                return False
            case Method.UPDATE:
                return self.is_priced or not {"cancel_at", "cancel_at_period_end"}.isdisjoint(self.params)
            case _:
                return True


_ASKS_FIRST: Final = "ask_first:"
"""Before the method of a step that asks Stripe first. A release that does not know this cannot run such a step.

It would send the change without the card or the code that was named.
"""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What one write of an order is held to, and what was decided about it, as its step stores it.

    `needs`: what the actor must be allowed when it is sent for the first time. `seats_left`: the seats after it.
    `end_by`: the party that sets an end with it, see `ending.EndBy`. `quote_id`: the quote that it uses up, unless it
    fails. `sent`: the parameters that are sent, priced, the same for each retry of one key. `credit_forgone`: minor
    units. `waits`: the bank asked for the card's holder, so the purchase is to wait for them. `attached`: the id of
    the payment method that was attached by this try. `accepted`: the caller of a purchase learned that it goes on
    without the request. `found`: what Stripe said of the objects that the order names, see `Found`. `asks_first`: of
    the order, see there.
    """

    method: Method
    needs: Sequence[Permission] = ()
    seats_left: int | None = None
    end_by: str | None = None
    quote_id: str | None = None
    sent: Mapping[str, Any] | None = None
    credit_forgone: int = 0
    waits: bool = False
    attached: str | None = None
    accepted: bool = False
    found: Mapping[str, Any] | None = None
    asks_first: bool = False

    @classmethod
    def of(cls, step: Step) -> Conditions:
        """Return the conditions of a stored step."""
        row = step.details
        return cls(
            Method(row["method"].removeprefix(_ASKS_FIRST)),
            asks_first=row["method"].startswith(_ASKS_FIRST),
            needs=[Permission(name) for name in row.get("needs", ())],
            seats_left=row.get("seats_left"),
            end_by=row.get("end_by"),
            quote_id=row.get("quote_id"),
            sent=row.get("sent"),
            credit_forgone=int(row.get("credit_forgone", 0)),
            waits=row.get("waits") is True,
            attached=row.get("attached"),
            accepted=row.get("accepted") is True,
            found=row.get("found"),
        )

    def as_details(self) -> JsonObject:
        """Return the conditions as the step's row stores them, without what is not known."""
        row = {name: value for name, value in asdict(self).items() if value is not None}
        if row.pop("asks_first"):
            row["method"] = f"{_ASKS_FIRST}{self.method}"
        return row
