"""The currency that a customer is shown prices in. Source: Stripe's page on multi-currency customers.

A subscription that has not ended fixes the customer's currency. Otherwise their own choice or their country's counts,
if a price is offered in it.
"""

from __future__ import annotations

from collections.abc import Collection


def local_currency(
    *, fixed: str | None, chosen: str | None, of_country: str | None, offered: Collection[str]
) -> str | None:
    """Currencies are ISO 4217 in lower case. None: there is no local one, show what is offered."""
    if fixed is not None:
        return fixed
    for wished in (chosen, of_country):
        if wished is not None and wished in offered:
            return wished
    return None
