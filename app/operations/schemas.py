"""Operations and their results, as every route shows them."""

from __future__ import annotations

from typing import Literal

from app.http.schemas import (
    Answer,
    Payment,
    Seats,
)

MemberRole = Literal["user", "manager"]


ChangeAction = Literal[
    "add",
    "remove",
    "update",
    "seats",
    "release_seats",
    "set_owner",
    "add_subscription",
    "update_subscription",
    "cancel_subscription",
    "resume_subscription",
]


class ChangeResult(Answer):
    """One change and its outcome; a change of the subscription itself names no person.

    `total`, `used` and `required` stand beside `seat_limit_reached`, `total` beside `release_seats` too, `allowed`
    beside `unsecured_raise_limit`. Beside `invoice_unpaid` stand the members of that error, as they were when the
    change was refused: `credit` in minor units, `retry_after` in seconds, `hosted_invoice_url` null for managers.
    """

    action: ChangeAction
    customer_id: str | None
    email: str | None
    role: MemberRole | None
    outcome: Literal["applied", "unchanged", "refused", "failed", "pending"]
    code: str | None
    total: int | None = None
    used: int | None = None
    required: int | None = None
    allowed: int | None = None
    invoice_id: str | None = None
    invoice_status: str | None = None
    hosted_invoice_url: str | None = None
    credit: int | None = None
    retry_after: int | None = None


class OperationAnswer(Answer):
    """`state`: running while an outcome is open, settled when every result is final.

    awaiting_payment: the change takes effect when `payment` is made. It holds nobody's seat until then, and ends by
    itself, for another change of the subscription, or by `cancelOperation`.
    `seats` is null, and results name no other people's ids, if the subscription shows the caller none of them now.
    """

    operation_id: str
    state: Literal["running", "awaiting_payment", "settled"]
    results: list[ChangeResult]
    seats: Seats | None
    payment: Payment | None = None
