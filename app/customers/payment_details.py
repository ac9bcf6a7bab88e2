"""Read a change's payment method and promotion code from Stripe.

They are read before any lock is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from app.context import Context
from app.customers.discounts import AppliedCode, applied_codes, is_redeemable
from app.customers.store import customers
from app.domain.ids import CustomerId, PaymentMethodId, SubscriptionId
from app.domain.payments import Named, PromotionCode
from app.domain.snapshots import PaymentMethod, Subscription
from app.domain.views import SubscriptionView
from app.errors import (
    Conflict,
    FieldError,
    InvalidRequest,
    NotFound,
    StripeErrorStored,
    StripeOutcomeUnknown,
)
from app.mirror import refreshing as sync
from app.stripe.billing import Changed, discounts
from app.stripe.gateway import Fetched


@dataclass(frozen=True, slots=True)
class Outside:
    """The objects that a change names, as Stripe has them.

    They are read before, so that no transaction waits for the network. `applied` is the code if it applies to the
    subscription already, so it is not added again. `discounts_read` are the ids of the discounts that were checked;
    None if the actor may add any number of codes. `unread`: what the operation is still to ask Stripe for, because
    Stripe was away.
    """

    payment_method: PaymentMethod | None
    promotion: dict[str, str] | None = None
    applied: AppliedCode | None = None
    discounts_read: frozenset[str] | None = field(default=None)
    unread: Named | None = None

    def apply(self, view: SubscriptionView, params: dict[str, Any]) -> None:
        """Add the payment method and the code to `params` of a call to Stripe.

        Discounts that `params` has replace those of the subscription, and the code stays beside them.

        Raises:
            NotFound: The payment method belongs to another customer.
            Conflict: `promotion_code_in_use`: another code was added after the discounts were checked.
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
            existing = params.get("discounts", discounts(view.discounts))
            params["discounts"] = _beside(existing, self.promotion, self.promotion)
        elif self.applied is not None and "discounts" in params:
            again = {"promotion_code": self.applied.promotion_code_id}
            params["discounts"] = _beside(params["discounts"], {"discount": self.applied.discount_id}, again)


def _beside(
    entries: Sequence[Mapping[str, str]] | Literal[""], code: Mapping[str, str], named: Mapping[str, str]
) -> list[dict[str, str]]:
    """Return the entries of a call with the code, unless they name its promotion code (`named`) themselves.

    Stripe's form of no entries is an empty text.
    """
    found = [dict(entry) for entry in entries or ()]
    return found if named in found else [*found, dict(code)]


async def look_outside(context: Context, view: SubscriptionView, named: Named) -> Outside:
    """Read the objects that a change of this subscription names from Stripe.

    Raises:
        NotFound: There is no such payment method.
        InvalidRequest: `/promotion_code` names no code that the paying customer may use here.
        Conflict: `promotion_code_in_use`: the subscription has another code, and no second one may be added.
    """
    method, promotion_code = None, named.promotion_code
    if named.payment_method_id is not None:
        method = await fetch_free_or_own(context, named.payment_method_id, view.customer_id)
    if promotion_code is None:
        return Outside(method)
    read, codes = await _codes_now(context, view.id)
    applied = next((code for code in codes if code.is_called(promotion_code)), None)
    if applied is not None:
        return Outside(method, applied=applied)
    if codes and not named.may_add_codes:
        raise _in_use(codes[0])
    added = await promotion(context, promotion_code, view.customer_id, view.currency)
    checked = None if named.may_add_codes else frozenset(read.discounts)
    return Outside(method, added, discounts_read=checked)


async def _codes_now(
    context: Context, subscription_id: SubscriptionId
) -> tuple[Subscription, list[AppliedCode]]:
    """Read the subscription from Stripe, and return it with its promotion codes.

    The answer is applied to the cache.
    """
    reads: list[Changed] = []

    async def read() -> Fetched:
        reads.append(await context.billing.subscription(subscription_id))
        return reads[-1].fetched

    lease = await sync.take_lease(context, "subscription", subscription_id)
    now = await sync.apply(context, lease, read)
    if not isinstance(now, Subscription):
        raise NotFound()
    answer = reads[-1]
    return now, applied_codes(now.discount_details, at=answer.at, invoiced_at=answer.invoiced_at)


def _in_use(code: AppliedCode) -> Conflict:
    return Conflict(
        f"/promotion_code: the code {code.text} applies to this subscription, which takes one code at a time. "
        "Add another one after it has ended.",
        code="promotion_code_in_use",
    )


async def fetch_free_or_own(
    context: Context, payment_method_id: PaymentMethodId, customer_id: CustomerId
) -> PaymentMethod:
    """Read a payment method from Stripe that is free or belongs to this customer.

    The owner is read from Stripe's object, because the cache may not know the method yet: a confirmed SetupIntent
    attaches it at Stripe, and the webhook comes later. A method of this customer is applied to the cache.

    Raises:
        NotFound: There is no such method, or it belongs to another customer.
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
    """Read a payment method of this customer and apply it to the cache.

    Raises:
        NotFound: For any other.
    """
    method = await fetch_free_or_own(context, payment_method_id, customer_id)
    if method.customer_id is None:
        raise NotFound("There is no such payment method.")
    return method


async def attach_payment_method(
    context: Context, customer_id: CustomerId, payment_method_id: PaymentMethodId, *, operation_id: str
) -> PaymentMethodId:
    """Attach a payment method at Stripe, apply the answer, and return its id.

    The id can differ from the given one: Stripe replaces a test token such as `pm_card_visa` by a new card. A second
    call with the same operation has no further effect.

    Raises:
        NotFound: There is no such method.
        PaymentRequired: The bank declined the card.
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
            # Only a second answer under the same key shows whether Stripe has stored the 5xx.
            fetched = await attach(key)
    except StripeErrorStored:
        # Stripe replays the stored 5xx under this key. So the method is read, and another key is used if needed.
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
    """Return the promotion code with this text that the customer may use, or None.

    A code that is restricted to this customer comes before unrestricted ones. A code of another customer is treated
    like one that does not exist.
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
    """Return the entry of `discounts` for a code that this customer may use.

    The subscription is billed in `currency`.

    Raises:
        InvalidRequest: `/promotion_code` names no code that this customer may use, or it takes off an amount in other
            currencies (`currency_mismatch`).
    """
    found = await find_promotion(context, code, customer_id)
    if found is None:
        raise _refused("not_found", "There is no such code for this customer. Check it, or send none.")
    if found.currencies and currency not in found.currencies:
        amounts = ", ".join(sorted(found.currencies))
        detail = (
            f"The code takes off an amount in {amounts}, but the subscription is billed in {currency}. "
            "Send another code, or none."
        )
        raise _refused("currency_mismatch", detail)
    return {"promotion_code": found.id}


def _refused(code: str, detail: str) -> InvalidRequest:
    return InvalidRequest(
        f"/promotion_code: {detail}",
        code="currency_mismatch" if code == "currency_mismatch" else None,
        errors=[FieldError("/promotion_code", code, detail)],
    )
