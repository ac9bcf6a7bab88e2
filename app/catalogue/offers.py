"""A price with what matters for buying it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.ids import PriceId


@dataclass(frozen=True, slots=True)
class OfferedPrice:
    """A price with what of its product matters for buying it. `currencies` are all that it can be bought in."""

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
