"""Choose the currency in which a customer sees prices.

A subscription that has not ended fixes the customer's currency. Otherwise it is their own choice, or the currency of
their country, if a price is offered in it. Source: https://docs.stripe.com/billing/customer#currency
"""

from __future__ import annotations

from collections.abc import Collection


def local_currency(
    *, fixed: str | None, chosen: str | None, of_country: str | None, offered: Collection[str]
) -> str | None:
    """Return the local currency, or None if there is none.

    Currencies are ISO 4217 codes in lower case.
    """
    if fixed is not None:
        return fixed
    for wished in (chosen, of_country):
        if wished is not None and wished in offered:
            return wished
    return None
