"""Payment methods and promotion codes that a change names, as Stripe has them: read before any lock is taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from app.context import Context
from app.customers.discounts import AppliedCode, applied_codes, is_redeemable
from app.customers.store import customers
from app.domain.ids import CustomerId, PaymentMethodId, SubscriptionId
from app.domain.payments import PromotionCode
from app.domain.snapshots import PaymentMethod, Subscription
from app.domain.views import SubscriptionView
from app.errors import (
    Conflict,
    FieldError,
    InvalidRequest,
    NotFound,
    StripeErrorKept,
    StripeOutcomeUnknown,
)
from app.identity.actors import Actor
from app.mirror import refreshing as sync
from app.stripe.billing import Changed, discounts
from app.stripe.gateway import Fetched


@dataclass(frozen=True, slots=True)
class Outside:
    """What was read at Stripe before the lock was taken: no transaction waits for a network.

    `promotion_applies`: the asked code applies already, so it is not sent. `discounts_read`: the ids of the discounts
    that were judged; None if the actor may add any number of codes.
    """

    payment_method: PaymentMethod | None
    promotion: dict[str, str] | None = None
    promotion_applies: bool = False
    discounts_read: frozenset[str] | None = field(default=None)

    def apply(self, view: SubscriptionView, params: dict[str, Any]) -> None:
        """Add what the change names to the call's `params`.

        Raises:
            NotFound: The payment method belongs to another customer.
            Conflict: `promotion_code_in_use`: another code was added since the discounts were judged.
        """
        if self.payment_method is not None:
            if self.payment_method.customer_id not in (None, view.customer_id):
                raise NotFound("There is no such payment method.")
            params["default_payment_method"] = self.payment_method.id
        if self.promotion is not None:
            if self.discounts_read is not None:
                for code in applied_codes(view.discount_details, at=0, invoiced_at=None):
                    if code.discount_id not in self.discounts_read:
                        raise _in_use(code)
            params["discounts"] = discounts(view.discounts, [self.promotion])


async def look_outside(
    context: Context,
    actor: Actor,
    view: SubscriptionView,
    payment_method_id: PaymentMethodId | None,
    promotion_code: str | None,
) -> Outside:
    """Read at Stripe what a change of this subscription names.

    Raises:
        NotFound: There is no such payment method.
        InvalidRequest: `/promotion_code` names no code that the paying customer may use here.
        Conflict: `promotion_code_in_use`: the subscription has another code, and the actor may add no second one.
    """
    method = None
    if payment_method_id is not None:
        method = await fetch_free_or_own(context, payment_method_id, view.customer_id)
    if promotion_code is None:
        return Outside(method)
    read, codes = await _codes_now(context, view.id)
    if any(code.is_called(promotion_code) for code in codes):
        return Outside(method, promotion_applies=True)
    if codes and not actor.is_admin:
        raise _in_use(codes[0])
    added = await promotion(context, promotion_code, view.customer_id, view.currency)
    judged = None if actor.is_admin else frozenset(read.discounts)
    return Outside(method, added, discounts_read=judged)


async def _codes_now(
    context: Context, subscription_id: SubscriptionId
) -> tuple[Subscription, list[AppliedCode]]:
    """Read the subscription from Stripe, apply it, and return the promotion codes that apply to it."""
    reads: list[Changed] = []

    async def read() -> Fetched:
        reads.append(await context.billing.subscription(subscription_id))
        return reads[-1].fetched

    lease = await sync.take_lease(context, "subscription", subscription_id)
    now = await sync.apply(context, lease, read)
    if not isinstance(now, Subscription):
        raise NotFound()
    told = reads[-1]
    return now, applied_codes(now.discount_details, at=told.at, invoiced_at=told.invoiced_at)


def _in_use(code: AppliedCode) -> Conflict:
    return Conflict(
        f"/promotion_code: the code {code.text} applies to this subscription, which takes one code at a time."
        " Add another one when it has ended.",
        code="promotion_code_in_use",
    )


async def fetch_free_or_own(
    context: Context, payment_method_id: PaymentMethodId, customer_id: CustomerId
) -> PaymentMethod:
    """Read a payment method that is this customer's, or nobody's yet. An own one is applied to the cache.

    Ownership is judged on the object that Stripe answers: an id says nothing of whose it is. The cache may not know
    the method yet: a confirmed SetupIntent attaches it at Stripe, and the webhook comes later.
    Raises NotFound for somebody else's, as for one that does not exist.
    """
    fetched = await context.stripe.fetch("payment_method", payment_method_id)
    method = fetched.snapshot
    if not isinstance(method, PaymentMethod) or method.customer_id not in (None, customer_id):
        raise NotFound("There is no such payment method.")
    if method.customer_id == customer_id:
        async with context.database.connection() as connection:
            known = await customers.payment_method(connection, customer_id, method.id)
        if known is None:
            lease = await sync.take_lease(context, "payment_method", method.id)
            await sync.apply(context, lease, fetched)
    return method


async def fetch_own(
    context: Context, payment_method_id: PaymentMethodId, customer_id: CustomerId
) -> PaymentMethod:
    """Read a payment method of this customer and apply it to the cache. Raises NotFound for any other."""
    method = await fetch_free_or_own(context, payment_method_id, customer_id)
    if method.customer_id is None:
        raise NotFound("There is no such payment method.")
    return method


async def attach_payment_method(
    context: Context, customer_id: CustomerId, payment_method_id: PaymentMethodId, *, operation_id: str
) -> PaymentMethodId:
    """Attach it at Stripe, apply the answer, and return its id there: a test token becomes a card of its own.

    Sent again with the same operation it has no further effect. Raises NotFound, PaymentRequired for a decline.
    """
    key = f"{operation_id}/attach"

    async def attach(idempotency_key: str) -> Fetched:
        return await context.billing.attach_payment_method(
            payment_method_id, customer_id, idempotency_key=idempotency_key
        )

    try:
        try:
            fetched = await attach(key)
        except StripeOutcomeUnknown:
            # Only a second answer under the same key shows whether Stripe keeps a 5xx.
            fetched = await attach(key)
    except StripeErrorKept:
        # What the attempt did is read, and only another key can try again.
        fetched = await context.stripe.fetch("payment_method", payment_method_id)
        now = fetched.snapshot
        if not isinstance(now, PaymentMethod) or now.customer_id != customer_id:
            fetched = await attach(f"{key}/again")
    if fetched.snapshot is None:
        raise NotFound("There is no such payment method.")
    attached = PaymentMethodId(fetched.snapshot.id)
    lease = await sync.take_lease(context, "payment_method", attached)
    await sync.apply(context, lease, fetched)
    return attached


async def find_promotion(context: Context, code: str, customer_id: CustomerId | None) -> PromotionCode | None:
    """Return the code of that text that this customer may use, or None.

    The customer's own code comes first, then those that are restricted to nobody. A code of another customer is
    as unknown as one that does not exist.
    """
    has_paid: bool | None = None
    for restricted_to in [customer_id, None] if customer_id is not None else [None]:
        async for found, at in context.billing.promotion_codes(code, restricted_to):
            if found.first_time_transaction and has_paid is None:
                has_paid = await _has_paid(context, customer_id)
            if is_redeemable(found, customer_id, at=at, has_paid=has_paid is True):
                return found
    return None


async def _has_paid(context: Context, customer_id: CustomerId | None) -> bool:
    if customer_id is None:
        return False
    async with context.database.connection() as connection:
        return await customers.has_paid(connection, customer_id)


async def promotion(context: Context, code: str, customer_id: CustomerId, currency: str) -> dict[str, str]:
    """Return the entry of Stripe's `discounts` for a code that this customer may use in `currency`.

    Raises:
        InvalidRequest: `/promotion_code` names no such code, or an amount in other currencies.
    """
    found = await find_promotion(context, code, customer_id)
    if found is None:
        raise _refused("not_found", "There is no such promotion code.")
    if found.currencies and currency not in found.currencies:
        amounts = ", ".join(sorted(found.currencies))
        detail = f"This code takes off an amount in {amounts}; the subscription is billed in {currency}."
        raise _refused("currency_mismatch", detail)
    return {"promotion_code": found.id}


def _refused(code: str, detail: str) -> InvalidRequest:
    return InvalidRequest(
        f"/promotion_code: {detail}",
        code="currency_mismatch" if code == "currency_mismatch" else None,
        errors=[FieldError("/promotion_code", code, detail)],
    )
