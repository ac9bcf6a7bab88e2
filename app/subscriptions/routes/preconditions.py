"""`If-Match` on the writes of a subscription."""

from __future__ import annotations

import dataclasses

from fastapi import Request

from app.context import Context
from app.domain.ids import SubscriptionId
from app.domain.payments import PaymentStep
from app.errors import PreconditionFailed
from app.http.answers import etag_of, named_tags
from app.identity.actors import Actor
from app.mirror import visibility as subscriptions
from app.mirror.visibility import Seen
from app.operations import waiting
from app.operations.runner import is_away
from app.stripe.breaker import StripeAway
from app.subscriptions.end_changes import Precondition
from app.subscriptions.schemas.subscriptions import body


async def precondition_of(
    request: Request, context: Context, actor: Actor, subscription_id: SubscriptionId
) -> Precondition:
    """Return the check of `If-Match`, which is made under the lock of the admission.

    It raises PreconditionFailed if the subscription is not as the caller saw it, and ServiceUnavailable if nobody knows
    while Stripe is away.

    Raises:
        NotFound: the actor may not see the subscription.
        ServiceUnavailable: the database does not answer.
    """
    expected = named_tags(request)
    payment: PaymentStep | None = None
    if expected is not None:
        # What waits for its payment is part of what the caller saw, and is read before any lock is taken.
        before = await subscriptions.get(context, actor, subscription_id)
        await waiting.add_payments(context, [before])
        payment = before.view.waiting_payment
    accepted = set(expected or ())

    def precondition(seen: Seen) -> None:
        if expected is None or "*" in accepted:
            return
        seen.view.waiting_payment = payment
        if etag_of(body(seen, context.rules)) in accepted:
            # The change may end what waits, and is then judged once more: that end is its own.
            alone = dataclasses.replace(seen, view=dataclasses.replace(seen.view, waiting=None))
            accepted.add(etag_of(body(alone, context.rules)))
        elif seen.view.waiting is not None and payment is None and is_away(context):
            # The payment is part of what the caller saw, and cannot be read: nobody knows whether it changed.
            raise StripeAway()
        else:
            raise PreconditionFailed()

    return precondition
