"""The errors that a caller can receive, with HTTP statuses and stable codes.

`app.http.problems` renders them. `detail` names the field or object, the rule, and what to do next. `members` are
further members of the problem document. Neither may hold anything that the caller may not see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

WebhookRefusal = Literal["signature", "timestamp", "missing", "malformed"]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One broken rule of one field.

    `pointer` is a JSON pointer into the request body, or `query/name` or `header/name`.
    """

    pointer: str
    code: str
    detail: str


class BillingError(Exception):
    """The base class.

    A subclass fixes status, code, title and advice; an instance may have a detail of its own. Without one, the detail
    is the title followed by the advice, which says what the caller can do next.
    """

    status: ClassVar[int] = 500
    code: str = "internal_error"
    title: ClassVar[str] = "Something failed on our side"
    advice: ClassVar[str] = "Try again later, and give the operator the request_id if it fails again."

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        members: Mapping[str, object] | None = None,
        errors: list[FieldError] | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Describe one failure. `retry_after` is in seconds."""
        self.detail = detail or f"{self.title}. {self.advice}"
        super().__init__(self.detail)
        if code is not None:
            self.code = code
        self.members = dict(members or {})
        self.errors = errors or []
        self.retry_after = retry_after


class InvalidWebhook(BillingError):
    """The body or signature of a webhook is not valid."""

    status = 400
    code = "invalid_webhook"
    title = "The delivery is not a webhook that Stripe signed for this endpoint"
    advice = "Check that STRIPE_WEBHOOK_SECRETS holds the endpoint's signing secret."

    def __init__(self, reason: WebhookRefusal) -> None:
        """Keep the reason for the operator: the answer is the same for all."""
        super().__init__()
        self.reason = reason


class DuplicateHeader(BillingError):
    """A header that decides who calls or what is done was sent more than once."""

    status = 400
    code = "duplicate_header"
    title = "A header that may be sent once was sent more than once"
    advice = "Send it once."


class Unauthenticated(BillingError):
    """The request has no valid credential."""

    status = 401
    code = "unauthenticated"
    title = "A valid bearer credential is needed"
    advice = "Send Authorization: Bearer with an end user's token or a service key."


class PaymentRequired(BillingError):
    """The bank declined the card, or the payer has to confirm the payment."""

    status = 402
    code = "card_declined"
    title = "The payment was not made"
    advice = "Ask the payer for another payment method."


class Forbidden(BillingError):
    """The caller may see the object, but may not do this with it."""

    status = 403
    code = "role_required"
    title = "Your role does not allow this"
    advice = "Ask the owner of the subscription."


class NotFound(BillingError):
    """There is no such object, or the caller may not see it. Both give the same bytes.

    See docs/decisions/0025-answer-alike-for-absent-and-hidden-objects.md.
    """

    status = 404
    code = "not_found"
    title = "There is no such object"
    advice = "Check the id, and that you may see the object."
    at = 0
    """Unix second of Stripe's answer if Stripe reported it, otherwise 0."""


class MethodNotAllowed(BillingError):
    """The path has no route for this method."""

    status = 405
    code = "method_not_allowed"
    title = "This path does not answer that method"
    advice = "Use one of the methods in the Allow header."


class Conflict(BillingError):
    """The state of the object does not allow this now.

    `code` and the detail name the reason.
    """

    status = 409
    code = "operation_in_progress"
    title = "The object's state does not allow this"
    advice = "Read the object again, then try again."


class CursorExpired(BillingError):
    """The place in the log of events can no longer be read on from."""

    status = 410
    code = "cursor_expired"
    title = "The events after this place are not kept any more"
    advice = "Read GET /v1/events/snapshot, then the feed from its `after`."


class PreconditionFailed(BillingError):
    """The object no longer has the ETag of `If-Match`."""

    status = 412
    code = "version_conflict"
    title = "The object has changed since you read it"
    advice = "Read it again, and send the request with the new ETag in If-Match."


class PayloadTooLarge(BillingError):
    """The body has more bytes than the route takes."""

    status = 413
    code = "payload_too_large"
    title = "The body is larger than this route takes"
    advice = "Send less."


class UnsupportedMediaType(BillingError):
    """The body is not JSON, or is compressed."""

    status = 415
    code = "unsupported_media_type"
    title = "The body must be application/json"
    advice = "Send it as JSON, uncompressed."


class InvalidRequest(BillingError):
    """A part of the request breaks a rule. `errors` names each part."""

    status = 422
    code = "invalid_request"
    title = "The request breaks a rule of this route"
    advice = "Correct the fields in errors, then send it again."


class RequestTimeout(BillingError):
    """The body did not arrive within the deadline."""

    status = 408
    code = "request_timeout"
    title = "The body did not arrive in time"
    advice = "Send the request again."


class RateLimited(BillingError):
    """The caller sends too many requests.

    Nothing was done for this one, and nothing was decided.
    """

    status = 429
    code = "rate_limited"
    title = "Too many requests"
    advice = "Try again after the seconds in Retry-After."


class StripeLimitReached(BillingError):
    """Stripe limits how often one object may be changed.

    It refused this change and may accept it later.
    """

    status = 429
    code = "stripe_limit_reached"
    title = "Stripe takes no more changes of this object for a while"
    advice = "Try again in a few minutes."


class InternalError(BillingError):
    """An error of our own that has no other name. The log has its request_id."""

    status = 500
    code = "internal_error"
    title = "Something failed on our side"


class StripeRejected(BillingError):
    """Stripe refused a request for a reason that the caller cannot correct."""

    status = 502
    code = "stripe_rejected"
    title = "Stripe refused what we sent"
    advice = "Give the operator the request_id: the log has Stripe's reason."


class ServiceUnavailable(BillingError):
    """A part that the service depends on does not answer.

    `code` names it: `stripe_unavailable`, `database_unavailable`, `identity_provider_unavailable`, `overloaded`,
    `not_filled` or `webhooks_unavailable`.
    """

    status = 503
    code = "stripe_unavailable"
    title = "A part that we depend on does not answer"
    advice = "Send the request again after a few seconds, a write with the same Idempotency-Key."


class Overloaded(ServiceUnavailable):
    """This process runs as many requests as it may, and its queue is full."""

    code = "overloaded"
    title = "This process has as much to do as it can take"
    advice = "Try again after the seconds in Retry-After."


class StripeOutcomeUnknown(ServiceUnavailable):
    """The answer to a write at Stripe was lost.

    The write may have taken effect, so it may be sent again only under its own idempotency key.
    """

    title = "Stripe's answer was lost; the outcome is not known yet"


class StripeErrorStored(StripeOutcomeUnknown):
    """Stripe has stored a 5xx under the key, so it replays it.

    The effects of the attempt have to be read, and only a new key can try again. See
    docs/decisions/0012-use-a-new-key-only-after-a-stored-error.md.
    """


class StartRefused(Exception):
    """Raised if a process cannot start.

    The message tells the operator what to do. It ends the process before it serves requests, so no caller receives it.
    """

    code: ClassVar[str] = "start_refused"


class SchemaRefused(StartRefused):
    """Raised if this release cannot use or migrate the database."""

    code = "schema_refused"
