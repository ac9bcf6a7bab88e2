"""Stripe's object ids: their types, and the shape that an id must have before it is sent anywhere."""

from __future__ import annotations

import re
from typing import NewType

CustomerId = NewType("CustomerId", str)
SubscriptionId = NewType("SubscriptionId", str)
SubscriptionItemId = NewType("SubscriptionItemId", str)
ProductId = NewType("ProductId", str)
PriceId = NewType("PriceId", str)
PaymentMethodId = NewType("PaymentMethodId", str)
InvoiceId = NewType("InvoiceId", str)

# Stripe documents ids as opaque up to 255 characters; a product's may be chosen by the account's owner.
_TAIL = r"[A-Za-z0-9_]{1,200}"
CUSTOMER_PATTERN = rf"^cus_{_TAIL}$"
SUBSCRIPTION_PATTERN = rf"^sub_{_TAIL}$"
SUBSCRIPTION_ITEM_PATTERN = rf"^si_{_TAIL}$"
PRICE_PATTERN = r"^[A-Za-z0-9_\-]{1,200}$"
PRODUCT_PATTERN = r"^[A-Za-z0-9_\-]{1,200}$"
PAYMENT_METHOD_PATTERN = rf"^(pm|card|src|ba)_{_TAIL}$"
INVOICE_PATTERN = rf"^in_{_TAIL}$"

_CUSTOMER = re.compile(CUSTOMER_PATTERN, re.ASCII)
_SUBSCRIPTION = re.compile(SUBSCRIPTION_PATTERN, re.ASCII)


def is_customer_id(value: str) -> bool:
    return _CUSTOMER.fullmatch(value) is not None


def is_subscription_id(value: str) -> bool:
    return _SUBSCRIPTION.fullmatch(value) is not None
