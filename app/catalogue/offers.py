"""A price with the facts that decide whether it may be bought. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.ids import PriceId


@dataclass(frozen=True, slots=True)
class OfferedPrice:
    """A price with the facts of its product that decide about a purchase.

    `interval` is its unit and their number, such as ("month", 3). `currencies` are all in which it can be bought.
    """

    id: PriceId
    active: bool
    product_active: bool
    on_sale: bool
    recurring: bool
    metered: bool
    interval: tuple[str, int] | None
    currency: str
    currencies: frozenset[str]
    shareable: bool
    owner_uses_seat: bool | None
