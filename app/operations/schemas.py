"""Operations and their results, as every route shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, WithJsonSchema
from typing_extensions import TypeAliasType

from app.http.problem_codes import OUTCOMES
from app.http.schemas import Answer, Payment, Seats
from app.http.stripe_values import UnpaidInvoiceStatus

MemberRole = Literal["user", "manager"]


ChangeAction = Literal[
    "add", "remove", "update", "seats", "release_seats", "items", "purchase", "cancel", "resume", "owner"
]
"""`seats` sets their number, `items` is any other change of a subscription, and `owner` names another owner."""


OutcomeCode = TypeAliasType(
    "OutcomeCode", Annotated[str, WithJsonSchema({"type": "string", "enum": list(OUTCOMES)})]
)


class ChangeResult(Answer):
    """One change and its outcome; a change of the subscription itself names no person.

    `subscription_id` stands beside a change of the subscription itself. It is null while Stripe is still to create the
    subscription that was bought.

    `total`, `used` and `required` stand beside `seat_limit_reached`, `total` beside `release_seats` too, `allowed`
    beside `unsecured_raise_limit`. Beside `invoice_unpaid` stand the members of that error, as they were when the
    change was refused: `credit` in minor units, `retry_after` in seconds, `hosted_invoice_url` null for managers.
    """

    # In a problem document they are absent instead of null.
    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    action: ChangeAction
    customer_id: str | None
    email: str | None
    role: MemberRole | None
    outcome: Literal["applied", "unchanged", "refused", "failed", "pending"]
    code: OutcomeCode | None
    subscription_id: str | None = None
    total: int | None = None
    used: int | None = None
    required: int | None = None
    allowed: int | None = None
    invoice_id: str | None = None
    invoice_status: UnpaidInvoiceStatus | None = None
    hosted_invoice_url: str | None = None
    credit: int | None = None
    retry_after: int | None = None


class _Operation(Answer):
    operation_id: str
    state: Literal["running", "awaiting_payment", "settled"]
    results: list[ChangeResult]
    seats: Seats | None
    payment: Payment | None = None


class SettledOperation(_Operation):
    """The change is made, or refused, with a final result for each part of it.

    `seats` is null, and results name no other people's ids, if the subscription shows the caller none of them now.
    """

    pending: Literal[False]


class AcceptedOperation(_Operation):
    """The change is not finished: `Location` names the operation.

    `state` is `awaiting_payment` if the change takes effect when `payment` is made. It holds nobody's seat until then,
    and ends by itself, for another change of the subscription, or by `cancelOperation`.
    `seats` is null, and results name no other people's ids, if the subscription shows the caller none of them now.
    """

    pending: Literal[True]


class OperationAnswer(_Operation):
    """An operation as it is now. `pending` is true until `state` is `settled`.

    `state` is `awaiting_payment` if the change takes effect when `payment` is made. It holds nobody's seat until then,
    and ends by itself, for another change of the subscription, or by `cancelOperation`.
    `seats` is null, and results name no other people's ids, if the subscription shows the caller none of them now.
    """

    pending: bool
