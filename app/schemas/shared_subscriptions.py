"""The people of a shared subscription, and changes of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.schemas.common import (
    ADMIN_ONLY,
    Answer,
    CustomerIdText,
    Instant,
    Page,
    ProrationBehavior,
    Request,
    Seats,
)

MAXIMUM_CHANGES = 100

Email = Annotated[str, Field(min_length=3, max_length=254, pattern=r"^[^\s@\x00-\x1f]+@[^\s@\x00-\x1f]+$")]
MemberRole = Literal["user", "manager"]


class Person(Answer):
    """`email` and `name` are as the adder typed them until the person has logged in; `state`: active or pending."""

    customer_id: str | None
    email: str | None
    name: str | None
    role: Literal["owner", "manager", "user"]
    state: Literal["active", "pending"]
    since: Instant | None


class PersonList(Page):
    """The owner first; `total_count` counts the owner's row and everybody that the query matches."""

    data: list[Person]
    total_count: int
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
    customer_id: CustomerIdText
    role: MemberRole


class MemberChangeRequest(Request):
    """Judged as one call, after its own removals; additions that do not all fit are all refused."""

    add: list[Addition] = Field(default_factory=list, max_length=MAXIMUM_CHANGES)
    remove: list[CustomerIdText] = Field(default_factory=list, max_length=MAXIMUM_CHANGES)
    update: list[RoleChange] = Field(default_factory=list, max_length=MAXIMUM_CHANGES)
    proration_behavior: Annotated[ProrationBehavior | None, Field(json_schema_extra=ADMIN_ONLY)] = None

    @model_validator(mode="after")
    def _some_changes(self) -> MemberChangeRequest:
        number = len(self.add) + len(self.remove) + len(self.update)
        if not 1 <= number <= MAXIMUM_CHANGES:
            raise ValueError(f"give 1 to {MAXIMUM_CHANGES} changes in all, not {number}")
        return self


class ChangeResult(Answer):
    """`total`, `used` and `required` stand beside `seat_limit_reached`."""

    action: Literal["add", "remove", "update"]
    customer_id: str | None
    email: str | None
    role: MemberRole | None
    outcome: Literal["applied", "unchanged", "refused", "failed", "pending"]
    code: str | None
    total: int | None = None
    used: int | None = None
    required: int | None = None


class OperationAnswer(Answer):
    """`state`: running while an outcome is open, settled when every result is final."""

    operation_id: str
    state: Literal["running", "settled"]
    results: list[ChangeResult]
    seats: Seats
    payment: None = None
