"""Every failure that a caller can be told about: its HTTP status, its stable code, and what may be said of it.

One tree, rendered in one place (`app.http.problems`). `members` are extra members of the problem document;
nothing that a caller may not see belongs into `detail` or `members`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One broken rule of one field; `pointer` is a JSON pointer into the request body, or `query/name`."""

    pointer: str
    code: str
    detail: str


class BillingError(Exception):
    """The root; a subclass fixes status, code and title, an instance says what happened this time."""

    status: ClassVar[int] = 500
    code: str = "internal_error"
    title: ClassVar[str] = "Something failed on our side"

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        members: Mapping[str, object] | None = None,
        errors: list[FieldError] | None = None,
        retry_after: int | None = None,
    ) -> None:
        """`retry_after` is in seconds."""
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        if code is not None:
            self.code = code
        self.members = dict(members or {})
        self.errors = errors or []
        self.retry_after = retry_after


class InvalidWebhook(BillingError):
    status = 400
    code = "invalid_webhook"
    title = "The delivery is not a webhook that Stripe signed for this endpoint"


class Unauthenticated(BillingError):
    status = 401
    code = "unauthenticated"
    title = "A valid bearer credential is needed"


class PaymentRequired(BillingError):
    status = 402
    code = "card_declined"
    title = "The payment was not made"


class Forbidden(BillingError):
    status = 403
    code = "role_required"
    title = "Your role does not allow this"


class NotFound(BillingError):
    """Absent and foreign alike: both give the same bytes (decision: rule 9 of the roles)."""

    status = 404
    code = "not_found"
    title = "There is no such object"
    at = 0
    """The second of Stripe's answer, where it was Stripe that said so."""


class MethodNotAllowed(BillingError):
    status = 405
    code = "method_not_allowed"
    title = "This path does not answer that method"


class Conflict(BillingError):
    status = 409
    code = "operation_in_progress"
    title = "The object's state does not allow this"


class PreconditionFailed(BillingError):
    status = 412
    code = "version_conflict"
    title = "The object has changed since you read it"


class PayloadTooLarge(BillingError):
    status = 413
    code = "payload_too_large"
    title = "The body is larger than this route takes"


class UnsupportedMediaType(BillingError):
    status = 415
    code = "unsupported_media_type"
    title = "The body must be application/json"


class InvalidRequest(BillingError):
    status = 422
    code = "invalid_request"
    title = "The request breaks a rule of this route"


class RequestTimeout(BillingError):
    status = 408
    code = "request_timeout"
    title = "The body did not arrive in time"


class RateLimited(BillingError):
    """Nothing was done for this request, and nothing was decided."""

    status = 429
    code = "rate_limited"
    title = "Too many requests"


class StripeLimitReached(BillingError):
    """Stripe bounds what may be done to one object in a time; it has refused this and may take it later."""

    status = 429
    code = "stripe_limit_reached"
    title = "Stripe takes no more of this for a while"


class InternalError(BillingError):
    status = 500
    code = "internal_error"
    title = "Something failed on our side"


class StripeRejected(BillingError):
    status = 502
    code = "stripe_rejected"
    title = "Stripe refused what we sent"


class ServiceUnavailable(BillingError):
    """`code` names the part that is away: `stripe_unavailable`, `database_unavailable`, or one of ours."""

    status = 503
    code = "stripe_unavailable"
    title = "A part that we depend on does not answer"


class Overloaded(ServiceUnavailable):
    code = "overloaded"
    title = "This process has as much to do as it can take"


class StripeOutcomeUnknown(ServiceUnavailable):
    """A write whose answer was lost: it may or may not have taken effect, so only its own key may be re-sent."""

    title = "Stripe's answer was lost; the outcome is not known yet"


class StripeErrorKept(StripeOutcomeUnknown):
    """Stripe keeps a 5xx under the key: what it did has to be read, and only a new key can try again."""


class SchemaRefused(Exception):
    """Raised to the operator if this release cannot use or migrate the database; the message says what to do.

    It ends a process before it serves anybody, so no caller is ever told of it.
    """
