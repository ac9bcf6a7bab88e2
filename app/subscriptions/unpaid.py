"""Subscriptions whose first invoice is not paid: before one ends, its invoice is voided.

Stripe refuses to void what was paid, so nothing that was paid for is ended. A payment that is processing is left alone.
"""

from __future__ import annotations

from app.context import Context
from app.domain.ids import SubscriptionId
from app.errors import BillingError
from app.operations.sending import is_known
from app.stripe.billing import Changed
from app.subscriptions.change_operations import as_it_is


async def without_invoice(context: Context, subscription_id: SubscriptionId, *, key: str) -> Changed:
    """Void the open invoice of an `incomplete` subscription, and return the subscription as it is then.

    It can be ended if it is `incomplete` still and has no open invoice. `key`: the beginning of the Idempotency-Key.
    A second attempt does no harm, so each has its own key.

    Raises:
        NotFound: Stripe has no such subscription.
        BillingError: Stripe does not answer.
    """
    now = await as_it_is(context, subscription_id)
    if now.subscription.status != "incomplete" or now.open_invoice_id is None:
        return now
    payment = await context.billing.payment_step(now)
    if payment is not None and payment.status == "processing":
        return now
    try:
        await context.billing.void_invoice(now.open_invoice_id, idempotency_key=f"{key}/{now.at}")
    except BillingError as error:
        if not is_known(error):
            raise
    return await as_it_is(context, subscription_id)
