"""Requests and answers about customers and their payment methods."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from app.customers.schemas.invoices import InvoiceLine
from app.http.schemas import Answer, Email, Instant, Page, PaymentMethodIdText, Request, RoleName
from app.http.stripe_values import CouponDuration, IntentStatus, SubscriptionStatus


class Customer(Answer):
    """A customer.

    `balance` is in minor units of `currency`, and negative if it is a credit. `currency` is that of the last purchase.
    The customer can change it unless a subscription, quote or invoice item in it is active.
    """

    id: str
    email: str | None
    name: str | None
    phone: str | None
    currency: str | None
    balance: int
    default_payment_method_id: str | None
    created: Instant
    synced_at: Instant


class CustomerAnswer(Answer):
    """A customer."""

    customer: Customer


def _printable(text: str) -> str:
    """Apply the rule for a token's subject, so that the user can also log in.

    PostgreSQL does not store NUL characters either.
    """
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable characters without spaces around them")
    return text


_JOINERS = str.maketrans("", "", "\u200c\u200d")
"""Persian, Sinhala and other scripts, and many emoji, are written with them."""


def _name(text: str) -> str:
    visible = text.translate(_JOINERS)
    if not visible:
        raise ValueError("must have visible characters")
    _printable(visible)
    return text


NameText = Annotated[str, AfterValidator(_name)]
PrintableText = Annotated[str, AfterValidator(_printable)]


class NewCustomerRequest(Request):
    """A new customer.

    An end user may send only `name`. A service key names the user by `user_id`, the application's subject.
    """

    name: Annotated[NameText, Field(min_length=1, max_length=256)] | None = None
    user_id: Annotated[PrintableText, Field(min_length=1, max_length=255)] | None = None
    email: Email | None = None


class ProfileRequest(Request):
    """Changes of a customer.

    An end user may set `email` only to the verified e-mail of their token.
    """

    name: Annotated[NameText, Field(min_length=1, max_length=256)] | None = None
    phone: Annotated[str | None, Field(pattern=r"^\+?[0-9 ().\-]{3,20}$")] = None
    email: Email | None = None

    @model_validator(mode="after")
    def _some_change(self) -> ProfileRequest:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("give name, phone or email")
        return self


class AttachRequest(Request):
    """A payment method to attach, such as one that Stripe's elements have made."""

    payment_method_id: PaymentMethodIdText
    use_as_default: bool = False


class DefaultPaymentMethodRequest(Request):
    """The payment method that becomes the default."""

    payment_method_id: PaymentMethodIdText


class SetupIntent(Answer):
    """A SetupIntent of Stripe. `client_secret` is for Stripe's elements."""

    id: str
    status: IntentStatus
    client_secret: str


class SetupIntentAnswer(Answer):
    """A SetupIntent."""

    setup_intent: SetupIntent


class PromotionCode(Answer):
    """A promotion code.

    Either `percent_off` (percent) or `amount_off` (minor units of `currency`) is set. Stripe refuses the code for a
    purchase below `minimum_amount` (minor units of `minimum_amount_currency`).
    """

    code: str
    percent_off: float | None
    amount_off: int | None
    currency: str | None
    duration: CouponDuration
    duration_in_months: int | None
    expires_at: Instant | None
    minimum_amount: int | None
    minimum_amount_currency: str | None


class PromotionCodeAnswer(Answer):
    """A promotion code."""

    promotion_code: PromotionCode


class UpcomingInvoice(Answer):
    """The next invoice. Amounts are in minor units of `currency`."""

    currency: str
    total: int
    amount_due: int
    lines: list[InvoiceLine]


class UpcomingInvoiceAnswer(Answer):
    """The next invoice."""

    invoice: UpcomingInvoice


class Access(Answer):
    """Whether a customer may use a product.

    `via` is `own` for a subscription that the customer pays for or owns, and `shared` for a seat. Without access the
    other members describe the subscription that would give it if its status allowed it, or are null.
    """

    has_access: bool
    via: Literal["own", "shared"] | None
    role: RoleName | None
    subscription_id: str | None
    status: SubscriptionStatus | None
    valid_until: Instant | None


class Card(Answer):
    """The details of a card. `wallet` is Stripe's type of wallet, such as `apple_pay`."""

    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None
    funding: str | None
    country: str | None
    wallet: str | None


class PaymentMethod(Answer):
    """A payment method.

    `is_default` is True if the customer's invoices are charged to it.
    """

    id: str
    type: str
    card: Card | None
    is_default: bool
    created: Instant
    synced_at: Instant


class PaymentMethodAnswer(Answer):
    """A payment method."""

    payment_method: PaymentMethod


class PaymentMethodList(Page):
    """Payment methods, newest first."""

    data: list[PaymentMethod]
