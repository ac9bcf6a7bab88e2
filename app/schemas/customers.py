"""Customers and their payment methods."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.schemas.common import Answer, Instant, Page, Request
from app.schemas.shared_subscriptions import Email


class Customer(Answer):
    """`balance` in minor units of `currency`: negative is credit. `currency` is fixed by the first purchase."""

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


class NewCustomerRequest(Request):
    """A person's own call names at most a `name`; a service key says whose customer it is."""

    name: Annotated[str | None, Field(min_length=1, max_length=256)] = None
    user_id: Annotated[str | None, Field(min_length=1, max_length=255)] = None
    email: Email | None = None


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


class PaymentMethodList(Page):
    data: list[PaymentMethod]
