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

# Stripe's ids are opaque and have up to 255 characters. The account's owner may choose the ids of products, and could
# choose those of customers and plans (prices) until 2018.
# https://docs.stripe.com/upgrades#what-changes-does-stripe-consider-to-be-backwards-compatible
_TAIL = r"[A-Za-z0-9_]{1,200}"
FREE_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]{1,255}$"
"""The form of an id that was chosen freely: any text without control characters."""
SUBSCRIPTION_PATTERN = rf"^sub_{_TAIL}$"
SUBSCRIPTION_ITEM_PATTERN = rf"^si_{_TAIL}$"
PAYMENT_METHOD_PATTERN = rf"^(pm|card|src|ba)_{_TAIL}$"
INVOICE_PATTERN = rf"^in_{_TAIL}$"

NOBODY = CustomerId("")
"""The owner that metadata names by a value that no customer can have as its id."""

_FREE = re.compile(FREE_PATTERN)
_SUBSCRIPTION = re.compile(SUBSCRIPTION_PATTERN, re.ASCII)
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_STRICT = {
    "subscription": _SUBSCRIPTION,
    "invoice": re.compile(INVOICE_PATTERN, re.ASCII),
    "payment_method": re.compile(PAYMENT_METHOD_PATTERN, re.ASCII),
}
"""The kinds whose ids Stripe has always generated."""
_OTHERS = "sub|si|in|pm|card|src|ba"
_OF_ANOTHER_KIND = {
    "customer": re.compile(rf"({_OTHERS}|prod|price|plan)_.*", re.DOTALL),
    # The owner of the account may well call a product `in_stock`, so only a generated id shows another kind.
    "product": re.compile(rf"({_OTHERS}|cus|price|plan)_[A-Za-z0-9]{{14,}}"),
    "price": re.compile(rf"({_OTHERS}|cus|prod)_[A-Za-z0-9]{{14,}}"),
}


def is_free_id(value: str) -> bool:
    """Return True if `value` can be an id of a customer, product or price.

    Such an id is any text of 1 to 255 characters without control characters.
    """
    return _FREE.fullmatch(value) is not None and not _SURROGATES.search(value)


def is_id_of(kind: str, value: str) -> bool:
    """Return True if `value` can be the id of an object of this mirrored kind, and is not one of another kind."""
    if (strict := _STRICT.get(kind)) is not None:
        return strict.fullmatch(value) is not None
    return is_free_id(value) and _OF_ANOTHER_KIND[kind].fullmatch(value) is None


def is_subscription_id(value: str) -> bool:
    """Return True if `value` has the form of a subscription's id."""
    return _SUBSCRIPTION.fullmatch(value) is not None
