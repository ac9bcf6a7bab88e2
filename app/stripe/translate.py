"""Stripe's errors into ours: what a caller may learn, what is retried, what is unknown.

Source of the classes' meaning: Stripe's error reference and its page on idempotent requests.
"""

from __future__ import annotations

import re

import httpx
import stripe

from app.errors import (
    BillingError,
    Conflict,
    FieldError,
    InvalidRequest,
    NotFound,
    PaymentRequired,
    ServiceUnavailable,
    StripeErrorKept,
    StripeLimitReached,
    StripeOutcomeUnknown,
    StripeRejected,
)
from app.stripe.attempts import Attempt, Outcome
from app.stripe.parsing import SILENT_DECLINES

_NAME = re.compile(r"[a-z_]+")
_NOT_ACCEPTED = "Stripe does not accept this service's credential."
_TURNED_AWAY = frozenset({401, 403, 409, 429})
_OBJECT_LIMIT_SECONDS = 60
"""The shortest of Stripe's periods; it does not say which of its limits was met."""
_MISSING, _NO_UPCOMING = "resource_missing", "invoice_upcoming_none"
_NO_PAYMENT_METHOD = "no attached payment source"
_ACTION_CODES = frozenset(
    {
        "subscription_payment_intent_requires_action",
        "authentication_required",
        "invoice_payment_intent_requires_action",
    }
)
_OTHER_CURRENCY = "You cannot combine currencies on a single customer"
_CURRENCY = re.compile(r"currency ([a-z]{3})\b")
_MANAGED = "is managed by the subscription schedule"
MANAGED_BY_SCHEDULE = (
    "A subscription schedule manages when this subscription ends: change or release the schedule in the Dashboard, "
    "or cancel at once with when: now."
)


def is_retryable(error: stripe.StripeError, *, is_write: bool) -> bool:
    """Return True if the client sends the call again by itself.

    A write's 5xx is not: it may be kept under the key and would only be replayed, or its request may still run.
    """
    if isinstance(error, stripe.RateLimitError):
        return not is_limit_of_object(error)
    if isinstance(error, stripe.APIConnectionError):
        return True
    status = error.http_status or 0
    if status == 409:
        return True
    return status >= 500 and not is_write


def is_rate_refusal(error: stripe.StripeError) -> bool:
    """Too many calls; a lock on the object answers 429 as well and says nothing of the rate."""
    return isinstance(error, stripe.RateLimitError) and not (
        stripe_code(error) == "lock_timeout" or is_limit_of_object(error)
    )


def is_limit_of_object(error: stripe.StripeError) -> bool:
    """Stripe's page on rate limits: 200 changes of quantity an hour, 10 new invoices a minute and 20 a day.

    Counted for each subscription; to ask again in a second does not help.
    """
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    return headers.get("stripe-rate-limited-reason") == "resource-specific"


def is_used_up(error: stripe.StripeError) -> bool:
    """The key was used with other parameters, as of an older release: what it did then has to be looked for."""
    return isinstance(error, stripe.IdempotencyError)


def never_arrived(error: stripe.StripeError) -> bool:
    """No connection came about, so nothing was sent."""
    unmade = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
    return isinstance(error, stripe.APIConnectionError) and isinstance(error.__cause__, unmade)


def attempt_of(error: stripe.StripeError, *, has_open_try: bool) -> Attempt:
    """Return what became of a write that did not succeed.

    A 5xx counts as kept under the key only with proof: it was replayed, or Stripe says `Stripe-Should-Retry: false`.
    Any other 5xx may be of a proxy in front of Stripe whose request still runs. 401, 403, 409 and 429 are given before
    Stripe begins to execute. `has_open_try`: an earlier try of the same call got no answer.
    """
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    is_replay = headers.get("idempotent-replayed") == "true"
    status = error.http_status or 0
    if never_arrived(error) or status in _TURNED_AWAY or isinstance(error, stripe.RateLimitError):
        outcome = Outcome.NOT_SENT
    elif is_used_up(error):
        outcome, is_replay = Outcome.STORED_ERROR, True
    elif status >= 500:
        is_kept = is_replay or headers.get("stripe-should-retry") == "false"
        outcome = Outcome.STORED_ERROR if is_kept else Outcome.UNSTORED_ERROR
    elif status >= 400:
        outcome = Outcome.REJECTED
    else:
        outcome = Outcome.NO_ANSWER
    return Attempt(outcome, is_replay=is_replay, has_open_try=has_open_try, code=stripe_code(error))


def write_error(error: stripe.StripeError, attempt: Attempt) -> BillingError:
    """Return the error for the caller of a write; StripeOutcomeUnknown while an effect is possible."""
    match attempt.outcome:
        case Outcome.STORED_ERROR:
            return StripeErrorKept(retry_after=2)
        case Outcome.UNSTORED_ERROR | Outcome.NO_ANSWER:
            return StripeOutcomeUnknown(retry_after=2)
        case Outcome.NOT_SENT if attempt.has_open_try:
            return StripeOutcomeUnknown(retry_after=2)
        case Outcome.NOT_SENT if isinstance(error, stripe.PermissionError):
            return ServiceUnavailable(_NOT_ACCEPTED, retry_after=2)
        case _:
            return translate(error)


def stripe_code(error: stripe.StripeError) -> str | None:
    """`error.code` stays empty on several classes; the error object has it."""
    return getattr(error.error, "code", None) if error.error is not None else None


def translate(error: stripe.StripeError) -> BillingError:
    """Return the error for the caller of a read, or of a write that is known to have had no effect."""
    code = stripe_code(error)
    status = error.http_status
    if isinstance(error, stripe.CardError):
        return _payment_error(error, code)
    if code == _NO_UPCOMING or status == 404:
        return NotFound()
    if isinstance(error, stripe.RateLimitError) and is_limit_of_object(error):
        return StripeLimitReached(retry_after=_OBJECT_LIMIT_SECONDS)
    if isinstance(error, stripe.RateLimitError):
        return ServiceUnavailable("Stripe's rate limit is reached.", retry_after=2)
    if never_arrived(error):
        return ServiceUnavailable("Stripe cannot be reached.", retry_after=2)
    if isinstance(error, stripe.InvalidRequestError):
        known = (
            _known_by_its_text(error)
            or (_missing(error) if code == _MISSING else None)
            or _chosen_by_the_caller(error)
        )
        if known is not None:
            return known
        members: dict[str, int | str | None] = {"stripe_code": code}
        param = getattr(error, "param", None)
        if param:
            members["stripe_param"] = str(param)
        return StripeRejected("Stripe refused the request.", members=members)
    if isinstance(error, stripe.AuthenticationError):
        return ServiceUnavailable(_NOT_ACCEPTED, retry_after=2)
    if isinstance(error, stripe.PermissionError):
        return StripeRejected("Stripe does not let this service's credential do this.")
    return ServiceUnavailable("Stripe does not answer.", retry_after=2)


_POINTERS = {
    "trial_end": "/trial_end",
    "proration_date": "/proration_date",
    "default_tax_rates": "/default_tax_rates",
    "tax_rates": "/items",
    "coupon": "/discounts",
    "promotion_code": "/promotion_code",
    "discounts": "/discounts",
    "currency": "/currency",
    "payment_method": "/payment_method_id",
    "default_payment_method": "/payment_method_id",
}
"""Parameters of Stripe's whose value is the caller's own, and where he gave it: a wrong one is his to mend."""


def _known_by_its_text(error: stripe.InvalidRequestError) -> BillingError | None:
    """Refusals that Stripe marks by neither code nor parameter; the sentences are those of public bug reports."""
    text = str(error.user_message or "")
    if _OTHER_CURRENCY in text:
        fixed = _CURRENCY.search(text)
        detail = (
            f"This customer is still billed in {fixed[1] if fixed else 'another currency'}: a subscription, quote, "
            "discount or invoice item fixes it. Buy in that currency, or end what fixes it first."
        )
        return InvalidRequest(
            detail, code="currency_mismatch", errors=[FieldError("/currency", "currency_mismatch", detail)]
        )
    if _NO_PAYMENT_METHOD in text:
        detail = (
            "The customer has no payment method that can be charged: name one in payment_method_id, "
            "or make one the default first."
        )
        return InvalidRequest(detail, errors=[FieldError("/payment_method_id", "missing", detail)])
    if _MANAGED in text:
        return Conflict(MANAGED_BY_SCHEDULE, code="managed_by_schedule")
    return None


def _missing(error: stripe.InvalidRequestError) -> BillingError | None:
    """Stripe did not find an object: the one that `param` names, which is seldom the one of the path (that is a 404).

    None for a parameter that is neither the route's nor the caller's.
    """
    names = _NAME.findall(str(getattr(error, "param", None) or ""))
    match names:
        case [] | [("customer" | "subscription" | "id" | "starting_after")]:
            return NotFound()
        case [*_, ("payment_method" | "default_payment_method")]:
            # The same answer as for somebody else's payment method.
            return NotFound("There is no such payment method.")
        case [*_, "items", "price"]:
            detail = "Stripe does not sell one of these prices any more."
            return InvalidRequest(
                f"/items: {detail}",
                code="price_not_available",
                errors=[FieldError("/items", "price_not_available", detail)],
            )
        case [*_, "items", "id"]:
            detail = "One of these items is not on the subscription any more: read it again."
            return InvalidRequest(f"/items: {detail}", errors=[FieldError("/items", "unknown_item", detail)])
    return None


def _chosen_by_the_caller(error: stripe.InvalidRequestError) -> InvalidRequest | None:
    """By the last name in `param`: previews nest what changes name at the top (`subscription_details[trial_end]`)."""
    names = _NAME.findall(str(getattr(error, "param", None) or ""))
    pointer = _POINTERS.get(names[-1]) if names else None
    if pointer is None:
        return None
    # Stripe's own words would repeat the value.
    detail = "Stripe does not take this value here."
    return InvalidRequest(f"{pointer}: {detail}", errors=[FieldError(pointer, "refused_by_stripe", detail)])


def _payment_error(error: stripe.CardError, code: str | None) -> PaymentRequired:
    """Every 402 is a CardError in the SDK; some ask for an action instead of another card."""
    if code in _ACTION_CODES:
        detail = (
            "The bank asks the card's holder to confirm. Change items without payment_method_id and promotion_code: "
            "that change waits, and its answer has a client_secret to confirm with."
        )
        return PaymentRequired(detail, code="payment_action_required")
    decline = getattr(error.error, "decline_code", None) if error.error is not None else None
    shown = None if decline in SILENT_DECLINES else decline
    return PaymentRequired("The card was declined.", members={"decline_code": shown})
