"""Products and prices in answers.

Amounts are in minor units; `*_decimal` are decimal strings of minor units.
"""

from __future__ import annotations

from typing import Any, cast

from pydantic import ConfigDict, GetJsonSchemaHandler, SerializerFunctionWrapHandler, model_serializer
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.http.schemas import Answer, Instant, Page
from app.http.stripe_values import (
    BillingScheme,
    Interval,
    PriceType,
    Rounding,
    TaxBehavior,
    TiersMode,
    UsageType,
)


class Recurring(Answer):
    """How often a price is billed.

    `meter` is the id of the meter that counts usage, for metered prices.
    """

    interval: Interval
    interval_count: int
    usage_type: UsageType
    meter: str | None = None


class Tier(Answer):
    """One tier of a tiered price. `up_to` is null on the last tier, which has no end."""

    up_to: int | None
    unit_amount: int | None
    unit_amount_decimal: str | None
    flat_amount: int | None
    flat_amount_decimal: str | None


class TransformQuantity(Answer):
    """Division of the quantity before it is priced.

    It changes the price, but not the number of seats.
    """

    divide_by: int
    round: Rounding


class CurrencyOption(Answer):
    """Amounts of a price in another currency."""

    unit_amount: int | None
    unit_amount_decimal: str | None
    tax_behavior: TaxBehavior | None
    tiers: list[Tier] | None


INTERNAL = ("lookup_key", "nickname")
"""Internal names that the operator gave a price. Only service keys that act for no customer see them."""


class WithInternal(Answer):
    """Base of answers whose members of INTERNAL are absent unless they were set."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        shown: dict[str, Any] = handler(self)
        for name in INTERNAL:
            if name not in self.model_fields_set:
                shown.pop(name, None)
        return shown

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the schema with all members.

        From the serializer, pydantic would derive only an object.
        """
        plain = {name: value for name, value in core_schema.items() if name != "serialization"}
        return handler(cast(CoreSchema, plain))


class Price(WithInternal):
    """A price of a product.

    `lookup_key` and `nickname` are present only for service keys that act for no customer.
    """

    id: str
    currency: str
    type: PriceType
    billing_scheme: BillingScheme
    unit_amount: int | None
    unit_amount_decimal: str | None
    recurring: Recurring | None
    tiers_mode: TiersMode | None
    tiers: list[Tier] | None
    transform_quantity: TransformQuantity | None
    currency_options: dict[str, CurrencyOption] | None
    tax_behavior: TaxBehavior | None
    lookup_key: str | None = None
    nickname: str | None = None


class Product(Answer):
    """A product with its prices, the oldest first.

    `sellable` is True if its default price is on sale.
    """

    id: str
    name: str
    description: str | None
    active: bool
    images: list[str]
    unit_label: str | None
    default_price_id: str | None
    supports_shared_subscriptions: bool
    sellable: bool
    prices: list[Price]
    created: Instant
    synced_at: Instant


class ProductList(Page):
    """Products, in the order of `ids` if ids were given.

    `missing_ids` are ids that name no product that the caller may see.
    """

    data: list[Product]
    missing_ids: list[str]
    local_currency: str | None
