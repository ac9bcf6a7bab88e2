"""Translate the SDK's errors into ours, and decide which calls are retried and whether a write took effect.

Sources: https://docs.stripe.com/api/errors and https://docs.stripe.com/api/idempotent_requests
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
    StripeErrorStored,
    StripeLimitReached,
    StripeOutcomeUnknown,
    StripeRejected,
)
from app.stripe import metrics
from app.stripe.attempts import Attempt, Outcome
from app.stripe.parsing import SILENT_DECLINES

_NAME = re.compile(r"[a-z_]+")
_NOT_ACCEPTED = "Stripe does not accept this service's credential."
_TURNED_AWAY = frozenset({401, 403, 409, 429})
_OBJECT_LIMIT_SECONDS = 60
"""The shortest period of Stripe's limits for one object. The error does not name the limit that was reached."""
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

    A write's 5xx is not retried: it may be stored under the key and would be replayed, or its request may still run.
    """
    if isinstance(error, stripe.RateLimitError):
        return not is_limit_of_object(error)
    if isinstance(error, stripe.APIConnectionError):
        return True
    if is_unreadable(error):
        return not is_write
    status = error.http_status or 0
    if status == 409:
        return True
    return status >= 500 and not is_write


def shows_stripe_away(error: stripe.StripeError) -> bool | None:
    """Return True if the error shows by itself that Stripe does not answer this service.

    False: Stripe answered an error that may be about one object only. None: Stripe is well.
    """
    status = error.http_status or 0
    if isinstance(error, (stripe.APIConnectionError, stripe.AuthenticationError)) or is_unreadable(error):
        return True
    if status >= 500:
        # An answer without a request id comes from something in front of Stripe.
        return not any(name.lower() == "request-id" for name in error.headers or {})
    return False if is_rate_refusal(error) else None


def is_unreadable(error: stripe.StripeError) -> bool:
    """Return True if a body that is no JSON, or no answer of Stripe's, came with a status below 500.

    A proxy in front of Stripe may have written it, so neither its status nor its text says anything.
    """
    return type(error) is stripe.APIError and error.error is None and (error.http_status or 0) < 500


def outcome_of(error: stripe.StripeError) -> metrics.Outcome:
    """Return the outcome of a request for the metrics."""
    if is_unreadable(error):
        return "unreadable"
    if isinstance(error, stripe.APIConnectionError):
        return "timeout" if isinstance(error.__cause__, httpx.TimeoutException) else "unreachable"
    if isinstance(error, stripe.AuthenticationError):
        return "unauthorized"
    if isinstance(error, stripe.RateLimitError):
        return "limited"
    return "error" if (error.http_status or 0) >= 500 else "rejected"


def is_rate_refusal(error: stripe.StripeError) -> bool:
    """Return True if Stripe refused the call because of the rate. A lock on the object answers 429 too."""
    return isinstance(error, stripe.RateLimitError) and not (
        stripe_code(error) == "lock_timeout" or is_limit_of_object(error)
    )


def is_limit_of_object(error: stripe.StripeError) -> bool:
    """Return True if a limit of the single object is reached, so a retry within seconds would fail too.

    For each subscription Stripe allows 200 changes of quantity an hour, and 10 new invoices a minute and 20 a day.
    Source: https://docs.stripe.com/rate-limits
    """
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    return headers.get("stripe-rate-limited-reason") == "resource-specific"


def is_used_up(error: stripe.StripeError) -> bool:
    """Return True if the key was used with other parameters, for example by an older release.

    The effects of that earlier request have to be found by reading.
    """
    return isinstance(error, stripe.IdempotencyError)


def never_arrived(error: stripe.StripeError) -> bool:
    """Return True if no connection was made, so nothing was sent."""
    unmade = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
    return isinstance(error, stripe.APIConnectionError) and isinstance(error.__cause__, unmade)


def attempt_of(error: stripe.StripeError, *, has_open_try: bool) -> Attempt:
    """Return the outcome of a write that did not succeed.

    A 5xx counts as stored under the key only with a proof: it was replayed, or has `Stripe-Should-Retry: false`. A
    proxy in front of Stripe may have answered any other 5xx while the request still runs. Stripe answers 401, 403, 409
    and 429 before it executes a request. `has_open_try` says whether an earlier try of the same call got no answer. See
    docs/decisions/0012-use-a-new-key-only-after-a-stored-error.md.
    """
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    is_replay = headers.get("idempotent-replayed") == "true"
    status = error.http_status or 0
    if is_unreadable(error):
        outcome = Outcome.NO_ANSWER
    elif never_arrived(error) or status in _TURNED_AWAY or isinstance(error, stripe.RateLimitError):
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
    """Return the error for the caller of a write: StripeOutcomeUnknown as long as the write may take effect."""
    match attempt.outcome:
        case Outcome.STORED_ERROR:
            return StripeErrorStored(retry_after=2)
        case Outcome.UNSTORED_ERROR | Outcome.NO_ANSWER:
            return StripeOutcomeUnknown(retry_after=2)
        case Outcome.NOT_SENT if attempt.has_open_try:
            return StripeOutcomeUnknown(retry_after=2)
        case Outcome.NOT_SENT if isinstance(error, stripe.PermissionError):
            return ServiceUnavailable(_NOT_ACCEPTED, retry_after=2)
        case _:
            return translate(error)


def stripe_code(error: stripe.StripeError) -> str | None:
    """Return Stripe's error code. Several classes of the SDK leave `error.code` empty, the error object has it."""
    return getattr(error.error, "code", None) if error.error is not None else None


def translate(error: stripe.StripeError) -> BillingError:
    """Return the error for the caller of a read, or of a write that is known to have had no effect."""
    code = stripe_code(error)
    status = error.http_status
    if isinstance(error, stripe.CardError):
        return _payment_error(error, code)
    if is_unreadable(error):
        return ServiceUnavailable("Stripe's answer cannot be read.", retry_after=2)
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
"""Stripe's parameters with values that the caller chose, and the caller's field for each."""


def _known_by_its_text(error: stripe.InvalidRequestError) -> BillingError | None:
    """Translate refusals without code or parameter, recognized by sentences that public bug reports quote."""
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
    """Translate the error for a missing object that `param` names. A missing object of the path is usually a 404.

    Return None for a parameter that belongs to neither the route nor the caller.
    """
    names = _NAME.findall(str(getattr(error, "param", None) or ""))
    match names:
        case [] | [("customer" | "subscription" | "id" | "starting_after")]:
            return NotFound()
        case [*_, ("payment_method" | "default_payment_method")]:
            # The same answer as for another customer's payment method.
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
    """Translate the refusal of a value that the caller chose, by the last name in `param`.

    Previews nest a parameter that a change has at the top: `subscription_details[trial_end]`.
    """
    names = _NAME.findall(str(getattr(error, "param", None) or ""))
    pointer = _POINTERS.get(names[-1]) if names else None
    if pointer is None:
        return None
    # Stripe's own message would repeat the value.
    detail = "Stripe does not take this value here."
    return InvalidRequest(f"{pointer}: {detail}", errors=[FieldError(pointer, "refused_by_stripe", detail)])


def _payment_error(error: stripe.CardError, code: str | None) -> PaymentRequired:
    """Translate a 402, which the SDK always raises as CardError. Some ask for an action instead of another card."""
    if code in _ACTION_CODES:
        detail = (
            "The bank asks the card's holder to confirm. Change items without payment_method_id and promotion_code: "
            "that change waits, and its answer has a client_secret to confirm with."
        )
        return PaymentRequired(detail, code="payment_action_required")
    decline = getattr(error.error, "decline_code", None) if error.error is not None else None
    shown = None if decline in SILENT_DECLINES else decline
    return PaymentRequired("The card was declined.", members={"decline_code": shown})
