"""Buying, changing, quoting and ending subscriptions. Amounts are minor units of `currency`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, model_validator

from app.customers.schemas.invoices import InvoiceLine
from app.http.schemas import (
    ADMIN_ONLY,
    Answer,
    ForgoCredit,
    Instant,
    Payment,
    PaymentMethodIdText,
    PriceIdText,
    ProrationBehavior,
    QuoteId,
    Request,
    SubscriptionItemIdText,
)
from app.http.stripe_values import UnpaidInvoiceStatus
from app.subscriptions.schemas.subscriptions import Subscription

MAXIMUM_ITEMS = 20

Quantity = Annotated[int, Field(ge=1, le=999_999)]
Currency = Annotated[str, Field(pattern="^[a-z]{3}$", description="ISO 4217, lower case.", examples=["usd"])]
PromotionCodeText = Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]{1,64}$")]
TaxRateId = Annotated[str, Field(pattern=r"^txr_[A-Za-z0-9]{1,200}$")]


def _of_our_age(moment: datetime) -> datetime:
    """Refuse instants that Stripe would refuse, and those beyond the calendar."""
    if not _EARLIEST <= moment <= _LATEST:
        raise ValueError("give a moment of this century")
    return moment


_EARLIEST, _LATEST = datetime(2001, 1, 1, tzinfo=UTC), datetime(2100, 12, 31, tzinfo=UTC)
Moment = Annotated[AwareDatetime, AfterValidator(_of_our_age), Field(strict=False, description="RFC 3339.")]
Reason = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"^[^\x00]+$")
]


class Discount(Request):
    """Exactly one of a coupon's id and a promotion code's id (`promo_…`)."""

    coupon: Annotated[str | None, Field(pattern=r"^[!-~]{1,200}$")] = None
    promotion_code: Annotated[str | None, Field(pattern=r"^promo_[A-Za-z0-9]{1,200}$")] = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Discount:
        if (self.coupon is None) == (self.promotion_code is None):
            raise ValueError("give exactly one of coupon and promotion_code")
        return self


Discounts = Annotated[list[Discount] | None, Field(max_length=20, json_schema_extra=ADMIN_ONLY)]
TaxRates = Annotated[list[TaxRateId] | None, Field(max_length=5, json_schema_extra=ADMIN_ONLY)]


class NewItem(Request):
    """An item to add.

    `quantity` is only for licensed prices, 1 if it is left out; a metered price takes none.
    """

    price_id: PriceIdText
    quantity: Quantity | None = None
    discounts: Discounts = None
    tax_rates: TaxRates = None


class NewSubscriptionRequest(Request):
    """With `payment_method_id` it is charged at once; without, the answer's client secret completes it.

    `allow_duplicate`: buy a price once more that a live subscription has already, else 409 `already_subscribed`, and
    leave unpaid subscriptions of the same price as they are; otherwise the purchase takes their place.
    """

    items: list[NewItem] = Field(min_length=1, max_length=MAXIMUM_ITEMS)
    payment_method_id: PaymentMethodIdText | None = None
    promotion_code: PromotionCodeText | None = None
    currency: Currency | None = None
    allow_duplicate: bool = False
    discounts: Discounts = None
    default_tax_rates: TaxRates = None
    trial_end: Annotated[Moment | None, Field(json_schema_extra=ADMIN_ONLY)] = None
    trial_period_days: Annotated[int | None, Field(ge=1, le=730, json_schema_extra=ADMIN_ONLY)] = None
    billing_mode: Annotated[Literal["classic", "flexible"] | None, Field(json_schema_extra=ADMIN_ONLY)] = None

    @model_validator(mode="after")
    def _one_trial(self) -> NewSubscriptionRequest:
        if self.trial_end is not None and self.trial_period_days is not None:
            raise ValueError("give at most one of trial_end and trial_period_days")
        return self


class ItemUpdate(Request):
    """With `id` it changes or (`deleted`) removes that item; without, it adds one."""

    id: SubscriptionItemIdText | None = None
    price_id: PriceIdText | None = None
    quantity: Quantity | None = None
    deleted: bool = False

    @model_validator(mode="after")
    def _some_change(self) -> ItemUpdate:
        if self.deleted and (self.price_id is not None or self.quantity is not None):
            raise ValueError("an item that is deleted takes neither price_id nor quantity")
        if not self.deleted and self.price_id is None and self.quantity is None:
            raise ValueError("give price_id, quantity or deleted")
        return self


class SubscriptionUpdateRequest(Request):
    """At least one change. Members that are left out stay as they are."""

    items: Annotated[list[ItemUpdate] | None, Field(min_length=1, max_length=2 * MAXIMUM_ITEMS)] = None
    payment_method_id: PaymentMethodIdText | None = None
    promotion_code: PromotionCodeText | None = None
    cancel_at_period_end: bool | None = None
    quote_id: QuoteId | None = None
    forgo_credit: ForgoCredit = False
    discounts: Discounts = None
    default_tax_rates: TaxRates = None
    trial_end: Annotated[Moment | Literal["now"] | None, Field(json_schema_extra=ADMIN_ONLY)] = None
    proration_behavior: Annotated[ProrationBehavior | None, Field(json_schema_extra=ADMIN_ONLY)] = None
    proration_date: Annotated[Moment | None, Field(json_schema_extra=ADMIN_ONLY)] = None

    @model_validator(mode="after")
    def _some_change(self) -> SubscriptionUpdateRequest:
        if not self.model_fields_set - {"quote_id", "forgo_credit"}:
            raise ValueError("name at least one thing to change")
        return self


class CancelRequest(Request):
    """`when` names the end; if items end at different times, `period_end` is refused as `end_ambiguous`.

    `earliest_period_end`: nothing is billed again, paid time of the other items is lost. `latest_period_end`: the items
    with shorter periods are billed until then, see `further_charges`. A subscription whose first invoice is not paid
    (`incomplete`) ends at once.
    """

    when: Literal["period_end", "latest_period_end", "earliest_period_end", "now"] = "period_end"
    reason: Reason | None = None
    prorate: Annotated[bool | None, Field(json_schema_extra=ADMIN_ONLY)] = None


class ChangedSubscription(Answer):
    """`credit_forgone`: the credit that the change did not give because it was not paid, in minor units.

    `operation_id`: the operation that made the change, null if nothing was to do.
    """

    pending: Literal[False]
    subscription: Subscription
    payment: Payment | None
    credit_forgone: int
    operation_id: str | None


class UnpaidInvoice(Answer):
    """The invoice that would have to be paid before its lines can be credited.

    `status` is Stripe's, or `refunded`. `hosted_invoice_url` is null where nobody can pay it, or the caller may not
    see it. `credit`: what the change would credit. `retry_after`: seconds until a draft is charged.
    """

    invoice_id: str | None
    status: UnpaidInvoiceStatus | None
    hosted_invoice_url: str | None
    credit: int
    retry_after: int | None = None


class FurtherCharge(Answer):
    """An item that is billed again before the end: how many times, and when first.

    Each time its price for its quantity then, less discounts and with taxes. Usage of metered items and prorations that
    are not invoiced yet are billed at the end in any case, and are not counted here.
    """

    subscription_item_id: str
    price_id: str
    renewals: int
    next_at: Instant


class CanceledSubscription(ChangedSubscription):
    """`ends_at`: when it ended or will end. `further_charges` is empty if nothing is billed again until then."""

    ends_at: Instant | None
    further_charges: list[FurtherCharge]


class QuoteAnswer(Answer):
    """`amount_due_now` is charged when the change is made with this quote, `credit` goes to the balance.

    `credit_forgone`: what is not credited because `invoice_unpaid` was not paid; such a quote is executed with
    `forgo_credit`. `next_total`: the first ordinary invoice afterwards, null where none will come. A quote is good
    until `expires_at`: 24 hours, or 10 minutes for a change that credits.
    """

    quote_id: str
    expires_at: Instant
    currency: str
    amount_due_now: int
    credit: int
    next_total: int | None
    credit_forgone: int
    invoice_unpaid: UnpaidInvoice | None
    lines: list[InvoiceLine]
