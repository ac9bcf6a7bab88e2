"""Payment methods and promotion codes that a change names, as Stripe has them: looked up before any lock is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.domain.ids import CustomerId, PaymentMethodId
from app.domain.snapshots import PaymentMethod
from app.domain.views import SubscriptionView
from app.errors import (
    FieldError,
    InvalidRequest,
    NotFound,
)
from app.services.context import Context
from app.stripe_gateway.billing import discounts


@dataclass(frozen=True, slots=True)
class Outside:
    """What was looked up at Stripe before the lock was taken: no transaction waits for a network."""

    payment_method: PaymentMethod | None
    promotion: dict[str, str] | None

    def apply(self, view: SubscriptionView, params: dict[str, Any]) -> None:
        if self.payment_method is not None:
            if self.payment_method.customer_id != view.customer_id:
                raise NotFound("There is no such payment method.")
            params["default_payment_method"] = self.payment_method.id
        if self.promotion is not None:
            params["discounts"] = discounts(view.discounts, [self.promotion])


async def look_outside(
    context: Context, payment_method_id: PaymentMethodId | None, promotion_code: str | None
) -> Outside:
    method = None
    if payment_method_id is not None:
        method = await fetch_payment_method(context, payment_method_id)
    discount = None if promotion_code is None else await promotion(context, promotion_code)
    return Outside(method, discount)


async def fetch_payment_method(context: Context, payment_method_id: PaymentMethodId) -> PaymentMethod:
    """Ownership is judged on the fetched object: an id says nothing of whose it is."""
    fetched = await context.stripe.fetch("payment_method", payment_method_id)
    if not isinstance(fetched.snapshot, PaymentMethod):
        raise NotFound("There is no such payment method.")
    return fetched.snapshot


async def check_payment_method(
    context: Context, payment_method_id: PaymentMethodId | None, customer_id: CustomerId
) -> None:
    if payment_method_id is None:
        return
    method = await fetch_payment_method(context, payment_method_id)
    if method.customer_id != customer_id:
        raise NotFound("There is no such payment method.")


async def promotion(context: Context, code: str) -> dict[str, str]:
    found = await context.billing.promotion_code(code)
    if found is None or not found.active:
        detail = "There is no such promotion code."
        raise InvalidRequest(detail, errors=[FieldError("/promotion_code", "not_found", detail)])
    return {"promotion_code": found.id}
