"""Schemas that all routes share: base classes, ids, instants, pages, problems."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.domain import emails
from app.domain.ids import (
    FREE_PATTERN,
    INVOICE_PATTERN,
    PAYMENT_METHOD_PATTERN,
    SUBSCRIPTION_ITEM_PATTERN,
    SUBSCRIPTION_PATTERN,
)
from app.http.stripe_values import IntentStatus


class Request(BaseModel):
    """Base of request bodies.

    Unknown fields and wrong types are refused, so that a typing error changes no bill.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Answer(BaseModel):
    """Base of answers. Every member is always sent, even if it has a default."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


ADMIN_ONLY: dict[str, Any] = {"x-admin-only": True}
"""Marks a request field that only a service key with scope `admin` may set."""


def _from_unix(value: object) -> object:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int) else value


Instant = Annotated[datetime, BeforeValidator(_from_unix)]
"""An instant in UTC, written as RFC 3339. Stripe's Unix seconds are converted."""

CustomerIdText = Annotated[str, Field(pattern=FREE_PATTERN, examples=["cus_demoowner"])]
SubscriptionIdText = Annotated[str, Field(pattern=SUBSCRIPTION_PATTERN, examples=["sub_demoteam"])]
SubscriptionItemIdText = Annotated[str, Field(pattern=SUBSCRIPTION_ITEM_PATTERN)]
PriceIdText = Annotated[str, Field(pattern=FREE_PATTERN)]
ProductIdText = Annotated[str, Field(pattern=FREE_PATTERN)]
PaymentMethodIdText = Annotated[str, Field(pattern=PAYMENT_METHOD_PATTERN)]
InvoiceIdText = Annotated[str, Field(pattern=INVOICE_PATTERN)]

Email = Annotated[str, Field(min_length=3, max_length=emails.MAXIMUM_LENGTH, pattern=emails.PATTERN)]
RoleName = Literal["owner", "manager", "user", "payer"]

QuoteId = Annotated[str, Field(pattern="^qt_[0-9a-f]{32}$")]
ForgoCredit = Annotated[
    bool,
    Field(
        description="Reduce without a credit if the part to be credited was not paid. "
        "A part that was paid is credited in any case."
    ),
]
ProrationBehavior = Literal["always_invoice", "create_prorations", "none"]


class Page(Answer):
    """One page of a list.

    `next_cursor` is opaque, and valid only for the same caller and query.
    """

    has_more: bool
    next_cursor: str | None


class Contact(Answer):
    """A customer that the caller may write to."""

    customer_id: str
    email: str | None
    name: str | None


class Seats(Answer):
    """Seats of a subscription.

    `used` counts the members, and the owner if the owner takes a seat. `reserved` counts seats that unfinished
    operations will use, and those of open invitations. `over_allocated` is the number of people beyond `total`.
    """

    total: int
    used: int
    reserved: int
    available: int
    over_allocated: int


class Payment(Answer):
    """A payment or set-up that the payer has to complete.

    They use Stripe's elements or the hosted invoice. `status` is the status of Stripe's intent. `status` and
    `client_secret` are null if the invoice has no intent. `decline_code` is the reason of the last failure,
    `payment_method_id` the payment method that failed or is used.
    """

    status: IntentStatus | None
    kind: Literal["payment", "setup"]
    client_secret: str | None
    payment_method_id: str | None
    decline_code: str | None
    hosted_invoice_url: str | None


class ProblemError(Answer):
    """One broken rule of one field.

    `pointer` is a JSON pointer into the body, or `query/name` or `header/name`.
    """

    pointer: str
    code: str
    detail: str
