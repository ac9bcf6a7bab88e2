"""Products and prices as callers see them. Amounts are minor units; `*_decimal` are decimal strings of them."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import GetJsonSchemaHandler, SerializerFunctionWrapHandler, model_serializer
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.http.schemas import Answer, Instant, Page


class Recurring(Answer):
    interval: Literal["day", "week", "month", "year"] | str
    interval_count: int
    usage_type: Literal["licensed", "metered"] | str
    meter: str | None = None


class Tier(Answer):
    """`up_to` is None on the last tier, which has no end."""

    up_to: int | None
    unit_amount: int | None
    unit_amount_decimal: str | None
    flat_amount: int | None
    flat_amount_decimal: str | None


class TransformQuantity(Answer):
    """Divides the quantity before it is priced; it changes the price, never the number of seats."""

    divide_by: int
    round: Literal["up", "down"] | str


class CurrencyOption(Answer):
    unit_amount: int | None
    unit_amount_decimal: str | None
    tax_behavior: str | None
    tiers: list[Tier] | None


INTERNAL = ("lookup_key", "nickname")
"""The operator's own words about a price: shown to service keys that act for nobody."""


class WithInternal(Answer):
    """Answers whose members of INTERNAL are absent unless they were given."""

    @model_serializer(mode="wrap")
    def _given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        shown: dict[str, Any] = handler(self)
        for name in INTERNAL:
            if name not in self.model_fields_set:
                shown.pop(name, None)
        return shown

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe the members: of the serializer above, a schema would know only that it answers an object."""
        plain = {name: value for name, value in core_schema.items() if name != "serialization"}
        return handler(cast(CoreSchema, plain))


class Price(WithInternal):
    """`lookup_key` and `nickname` are shown to service keys that act for nobody."""

    id: str
    currency: str
    type: Literal["recurring", "one_time"] | str
    billing_scheme: Literal["per_unit", "tiered"] | str
    unit_amount: int | None
    unit_amount_decimal: str | None
    recurring: Recurring | None
    tiers_mode: str | None
    tiers: list[Tier] | None
    transform_quantity: TransformQuantity | None
    currency_options: dict[str, CurrencyOption] | None
    tax_behavior: str | None
    lookup_key: str | None = None
    nickname: str | None = None


class Product(Answer):
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
    """In the asked order where ids were asked for; `missing_ids` are those that name nothing on sale."""

    data: list[Product]
    missing_ids: list[str]
    local_currency: str | None
