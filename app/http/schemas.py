"""What every answer and every request has in common."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.domain.ids import (
    CUSTOMER_PATTERN,
    INVOICE_PATTERN,
    PAYMENT_METHOD_PATTERN,
    PRICE_PATTERN,
    PRODUCT_PATTERN,
    SUBSCRIPTION_ITEM_PATTERN,
    SUBSCRIPTION_PATTERN,
)


class Request(BaseModel):
    """Strict: unknown fields and wrong types are refused, so that a typing error never changes a bill."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


ADMIN_ONLY: dict[str, Any] = {"x-admin-only": True}
"""Marks a request field that only a service key with scope `admin` may set."""


def _from_unix(value: object) -> object:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int) else value


Instant = Annotated[datetime, BeforeValidator(_from_unix)]
"""RFC 3339 in UTC; Stripe's Unix seconds are taken as they come."""

CustomerIdText = Annotated[str, Field(pattern=CUSTOMER_PATTERN, examples=["cus_demoowner"])]
SubscriptionIdText = Annotated[str, Field(pattern=SUBSCRIPTION_PATTERN, examples=["sub_demoteam"])]
SubscriptionItemIdText = Annotated[str, Field(pattern=SUBSCRIPTION_ITEM_PATTERN)]
PriceIdText = Annotated[str, Field(pattern=PRICE_PATTERN)]
ProductIdText = Annotated[str, Field(pattern=PRODUCT_PATTERN)]
PaymentMethodIdText = Annotated[str, Field(pattern=PAYMENT_METHOD_PATTERN)]
InvoiceIdText = Annotated[str, Field(pattern=INVOICE_PATTERN)]

Email = Annotated[str, Field(min_length=3, max_length=254, pattern=r"^[^\s@\x00-\x1f]+@[^\s@\x00-\x1f]+$")]
RoleName = Literal["owner", "manager", "user", "payer"]

QuoteId = Annotated[str, Field(pattern="^qt_[0-9a-f]{32}$")]
ForgoCredit = Annotated[
    bool,
    Field(
        description="Make a reducing change without credit where what it would credit was not paid. "
        "A credit that was paid is given in any case."
    ),
]
ProrationBehavior = Literal["always_invoice", "create_prorations", "none"]


class Page(Answer):
    """A list's frame; `next_cursor` is opaque and good for the same caller and query only."""

    has_more: bool
    next_cursor: str | None


class Contact(Answer):
    customer_id: str
    email: str | None
    name: str | None


class Seats(Answer):
    """Whole numbers: `used` members (and the owner where he counts), `reserved` promised to unsettled operations."""

    total: int
    used: int
    reserved: int
    available: int
    over_allocated: int


class Payment(Answer):
    """What is left to pay or to set up: confirm it with Stripe's own elements, or open the hosted invoice.

    `status` is the status of Stripe's intent. `status` and `client_secret` are null if the invoice has no intent.
    `decline_code` is the reason of the last failure, `payment_method_id` the payment method that failed or is used.
    """

    status: str | None
    kind: Literal["payment", "setup"]
    client_secret: str | None
    payment_method_id: str | None
    decline_code: str | None
    hosted_invoice_url: str | None


class ProblemError(Answer):
    pointer: str
    code: str
    detail: str


class Problem(BaseModel):
    """RFC 9457; `code` is what callers switch on. Figures of some errors are further members."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: list[ProblemError] | None = None
