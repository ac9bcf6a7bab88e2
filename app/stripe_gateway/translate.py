"""Stripe's errors into ours: what a caller may learn, what is retried, what is unknown.

Source of the classes' meaning: Stripe's error reference and its page on idempotent requests.
"""

from __future__ import annotations

import stripe

from app.errors import (
    BillingError,
    NotFound,
    PaymentRequired,
    ServiceUnavailable,
    StripeOutcomeUnknown,
    StripeRejected,
)

_SILENT_DECLINES = frozenset({"fraudulent", "lost_card", "stolen_card", "pickup_card", "merchant_blacklist"})
_NOTHING_THERE = frozenset({"resource_missing", "invoice_upcoming_none"})
_ACTION_CODES = frozenset(
    {
        "subscription_payment_intent_requires_action",
        "authentication_required",
        "invoice_payment_intent_requires_action",
    }
)


def is_retryable(error: stripe.StripeError, *, is_write: bool) -> bool:
    """A write's 5xx may be stored under its key and would only be replayed, so it is the caller's to settle."""
    if isinstance(error, stripe.RateLimitError):
        return True
    if isinstance(error, stripe.APIConnectionError):
        return True
    status = error.http_status or 0
    if status == 409:
        return True
    return status >= 500 and not is_write


def is_rate_refusal(error: stripe.StripeError) -> bool:
    """Too many calls; a lock on the object answers 429 as well and says nothing of the rate."""
    return isinstance(error, stripe.RateLimitError) and stripe_code(error) != "lock_timeout"


def stripe_code(error: stripe.StripeError) -> str | None:
    """`error.code` stays empty on several classes; the error object has it."""
    return getattr(error.error, "code", None) if error.error is not None else None


def translate(error: stripe.StripeError, *, is_write: bool) -> BillingError:
    code = stripe_code(error)
    status = error.http_status
    if isinstance(error, stripe.CardError):
        return _payment_error(error, code)
    if code in _NOTHING_THERE or status == 404:
        return NotFound()
    if isinstance(error, stripe.RateLimitError):
        return ServiceUnavailable("Stripe's rate limit is reached.", retry_after=2)
    if isinstance(error, stripe.InvalidRequestError):
        members: dict[str, int | str | None] = {"stripe_code": code}
        param = getattr(error, "param", None)
        if param:
            members["stripe_param"] = str(param)
        return StripeRejected("Stripe refused the request.", members=members)
    if isinstance(error, (stripe.AuthenticationError, stripe.PermissionError)):
        return StripeRejected("Stripe does not accept this service's credential.")
    if isinstance(error, stripe.IdempotencyError):
        return StripeRejected("Stripe has seen this idempotency key with another request.")
    if is_write:
        unknown = StripeOutcomeUnknown(retry_after=2)
        unknown.answered = status is not None and status >= 500
        return unknown
    return ServiceUnavailable("Stripe does not answer.", retry_after=2)


def _payment_error(error: stripe.CardError, code: str | None) -> PaymentRequired:
    """Every 402 is a CardError in the SDK; some ask for an action instead of another card."""
    if code in _ACTION_CODES:
        return PaymentRequired("The bank asks the card's holder to confirm.", code="payment_action_required")
    decline = getattr(error.error, "decline_code", None) if error.error is not None else None
    shown = None if decline in _SILENT_DECLINES else decline
    return PaymentRequired("The card was declined.", members={"decline_code": shown})
