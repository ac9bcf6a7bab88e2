"""Define the types of Stripe's ids, and the patterns that an id must match before it is sent to Stripe."""

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

# Stripe's ids are opaque and have up to 255 characters. The account's owner may choose the ids of products.
# https://docs.stripe.com/upgrades#what-changes-does-stripe-consider-to-be-backwards-compatible
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
    """Return True if `value` has the form of a customer's id."""
    return _CUSTOMER.fullmatch(value) is not None


def is_subscription_id(value: str) -> bool:
    """Return True if `value` has the form of a subscription's id."""
    return _SUBSCRIPTION.fullmatch(value) is not None
