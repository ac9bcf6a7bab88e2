"""Customers and their payment methods."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from app.customers.schemas.invoices import InvoiceLine
from app.http.schemas import Answer, Email, Instant, Page, PaymentMethodIdText, Request, RoleName


class Customer(Answer):
    """`balance` in minor units of `currency`: negative is credit. `currency` is that of the last purchase.

    It is fixed only while a subscription, quote or invoice item in it is active.
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
    customer: Customer


def _printable(text: str) -> str:
    """The rule for a token's subject, so that whoever is named here can also log in; Postgres stores no NUL."""
    if not text.isprintable() or text != text.strip():
        raise ValueError("give printable characters, without space around them")
    return text


PrintableText = Annotated[str, AfterValidator(_printable)]


class NewCustomerRequest(Request):
    """A person's own call names at most a `name`; a service key says whose customer it is."""

    name: Annotated[PrintableText, Field(min_length=1, max_length=256)] | None = None
    user_id: Annotated[PrintableText, Field(min_length=1, max_length=255)] | None = None
    email: Email | None = None


class ProfileRequest(Request):
    """`email` is taken from a service key, or where it is the token's own verified e-mail."""

    name: Annotated[PrintableText, Field(min_length=1, max_length=256)] | None = None
    phone: Annotated[str | None, Field(pattern=r"^\+?[0-9 ().\-]{3,20}$")] = None
    email: Email | None = None

    @model_validator(mode="after")
    def _some_change(self) -> ProfileRequest:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("give name, phone or email")
        return self


class AttachRequest(Request):
    payment_method_id: PaymentMethodIdText
    use_as_default: bool = False


class DefaultPaymentMethodRequest(Request):
    payment_method_id: PaymentMethodIdText


class SetupIntent(Answer):
    id: str
    status: str
    client_secret: str


class SetupIntentAnswer(Answer):
    setup_intent: SetupIntent


class PromotionCode(Answer):
    """`percent_off` is a percentage, `amount_off` minor units of `currency`; one of them is set.

    A purchase below `minimum_amount` (minor units of `minimum_amount_currency`) is refused by Stripe.
    """

    code: str
    percent_off: float | None
    amount_off: int | None
    currency: str | None
    duration: Literal["once", "repeating", "forever"] | str
    duration_in_months: int | None
    expires_at: Instant | None
    minimum_amount: int | None
    minimum_amount_currency: str | None


class PromotionCodeAnswer(Answer):
    promotion_code: PromotionCode


class UpcomingInvoice(Answer):
    """Amounts in minor units of `currency`."""

    currency: str
    total: int
    amount_due: int
    lines: list[InvoiceLine]


class UpcomingInvoiceAnswer(Answer):
    invoice: UpcomingInvoice


class Access(Answer):
    """`via`: own (paid for or owned) or shared (by a seat). Without access it names what would give it, if anything."""

    has_access: bool
    via: Literal["own", "shared"] | None
    role: RoleName | None
    subscription_id: str | None
    status: str | None
    valid_until: Instant | None


class Card(Answer):
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None
    funding: str | None
    country: str | None
    wallet: str | None


class PaymentMethod(Answer):
    id: str
    type: str
    card: Card | None
    is_default: bool
    created: Instant
    synced_at: Instant


class PaymentMethodAnswer(Answer):
    payment_method: PaymentMethod


class PaymentMethodList(Page):
    data: list[PaymentMethod]
