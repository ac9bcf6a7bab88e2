"""The people of a shared subscription, and changes of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.http.schemas import (
    ADMIN_ONLY,
    Answer,
    CustomerIdText,
    Email,
    ForgoCredit,
    Instant,
    Page,
    ProrationBehavior,
    QuoteId,
    Request,
    Seats,
    SubscriptionItemIdText,
)
from app.operations.schemas import MemberRole

MAXIMUM_CHANGES = 100

PersonRole = Literal["owner", "manager", "user"]
PersonState = Literal["active", "unclaimed", "pending", "invited"]


class Person(Answer):
    """A person of a shared subscription.

    `state`: `active`; `unclaimed`: the seat was given by e-mail, and its person has not acted since; `pending`: an
    operation adds the person. Until then `email` is as the adder typed it, and `name` is null. `invited`: the person
    has an open invitation, which `invitation_id` names.
    """

    customer_id: str | None
    email: str | None
    name: str | None
    role: PersonRole
    state: PersonState
    since: Instant | None
    invitation_id: str | None


class PersonList(Page):
    """The owner first; `total_count` counts the owner's row and everybody that the query matches.

    A page of a search looks at 1,000 members at most. In a larger team `total_count` is null beside `search`, and a
    page may have fewer rows than its limit although `has_more` is true.
    """

    data: list[Person]
    total_count: int | None
    seats: Seats


class Addition(Request):
    """Exactly one of `email` and `customer_id`; the latter is for service keys and for former members."""

    email: Email | None = None
    customer_id: CustomerIdText | None = None
    role: MemberRole = "user"

    @model_validator(mode="after")
    def _one_name(self) -> Addition:
        if (self.email is None) == (self.customer_id is None):
            raise ValueError("give exactly one of email and customer_id")
        return self


class RoleChange(Request):
    """Another role for a member."""

    customer_id: CustomerIdText
    role: MemberRole


class _Changes(Request):
    add: list[Addition] = Field(default_factory=list, max_length=MAXIMUM_CHANGES)
    remove: list[CustomerIdText] = Field(default_factory=list, max_length=MAXIMUM_CHANGES)
    update: list[RoleChange] = Field(default_factory=list, max_length=MAXIMUM_CHANGES)
    over_capacity: Literal["refuse", "add_seats"] = "refuse"
    subscription_item_id: SubscriptionItemIdText | None = None
    release_seats: Annotated[
        bool, Field(description="Give back the seats of the members that this call removes.")
    ] = False
    forgo_credit: ForgoCredit = False
    proration_behavior: Annotated[ProrationBehavior | None, Field(json_schema_extra=ADMIN_ONLY)] = None

    @property
    def number(self) -> int:
        return len(self.add) + len(self.remove) + len(self.update)


def _check_release(changes: _Changes) -> None:
    if changes.release_seats and changes.over_capacity == "add_seats":
        raise ValueError("release_seats and over_capacity: add_seats exclude each other: send two calls")
    if changes.release_seats and not changes.remove:
        raise ValueError("release_seats gives back the seats of removed members: name them in remove")


class MemberChangeRequest(_Changes):
    """Judged as one call, after its own removals; additions that do not all fit are all refused.

    With `over_capacity: add_seats` the seats that are missing are bought first, in one change of the quantity.
    """

    quote_id: QuoteId | None = None

    @model_validator(mode="after")
    def _some_changes(self) -> MemberChangeRequest:
        if not 1 <= self.number <= MAXIMUM_CHANGES:
            raise ValueError(f"give 1 to {MAXIMUM_CHANGES} changes in all, not {self.number}")
        if self.quote_id is not None and self.over_capacity != "add_seats" and not self.release_seats:
            raise ValueError("quote_id goes with over_capacity: add_seats, or with release_seats: true")
        _check_release(self)
        return self


SeatTotal = Annotated[int, Field(ge=1, le=999_999)]


class SeatsRequest(Request):
    """`subscription_item_id` where several items give seats."""

    total: SeatTotal
    subscription_item_id: SubscriptionItemIdText | None = None
    quote_id: QuoteId | None = None
    forgo_credit: ForgoCredit = False
    proration_behavior: Annotated[ProrationBehavior | None, Field(json_schema_extra=ADMIN_ONLY)] = None


class SeatQuoteRequest(_Changes):
    """Either `total`, or a member change. The quote is of the seats that it lacks, whatever `over_capacity` says."""

    total: SeatTotal | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> SeatQuoteRequest:
        if (self.total is None) == (self.number == 0):
            raise ValueError("give either total or a member change")
        if self.total is not None and self.over_capacity == "add_seats":
            raise ValueError("over_capacity goes with a member change, not with total")
        if self.number > MAXIMUM_CHANGES:
            raise ValueError(f"give at most {MAXIMUM_CHANGES} changes in all, not {self.number}")
        _check_release(self)
        return self
