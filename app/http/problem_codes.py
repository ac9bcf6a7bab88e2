"""Every code that an error can have, and those that an operation can answer.

`docs/reference/errors.md` says when each is answered. A code that carries figures has a schema of its own in
`app/http/problem_schemas.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

PHRASES: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "Bad Request",
        401: "Unauthorized",
        402: "Payment Required",
        403: "Forbidden",
        404: "Not Found",
        408: "Request Timeout",
        409: "Conflict",
        410: "Gone",
        412: "Precondition Failed",
        413: "Content Too Large",
        415: "Unsupported Media Type",
        422: "Unprocessable Content",
        429: "Too Many Requests",
        502: "Bad Gateway",
        503: "Service Unavailable",
    }
)
"""The phrase of each status as RFC 9110 has it. Python's `http` has others in older releases."""
_CONFLICT: Final = 409

PLAIN: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "already_member": (409,),
        "ambiguous_email": (409,),
        "cannot_be_added": (409,),
        "changed_meanwhile": (409,),
        "currency_mismatch": (422,),
        "cursor_expired": (410,),
        "customer_not_linked": (404,),
        "database_unavailable": (503,),
        "duplicate_header": (400,),
        "field_not_allowed": (403,),
        "idempotency_key_reused": (422,),
        "identity_conflict": (403,),
        "identity_provider_unavailable": (503,),
        "internal_error": (500,),
        "invalid_request": (422,),
        "invalid_webhook": (400,),
        "invitation_ended": (409,),
        "invitation_for_another": (403,),
        "invitations_unavailable": (503,),
        "managed_by_schedule": (409,),
        "member_elsewhere": (409,),
        "method_not_allowed": (405,),
        "mixed_intervals": (422,),
        "not_filled": (503,),
        "not_found": (404,),
        "not_shareable": (409,),
        "operation_ended": (409,),
        "operation_expired": (409,),
        "operation_in_progress": (409,),
        "overloaded": (503,),
        "owner_cannot_leave": (409,),
        "paid_without_effect": (409,),
        "payload_too_large": (413,),
        "payment_abandoned": (409,),
        "payment_action_required": (402,),
        "payment_method_in_use": (409,),
        "price_not_available": (422,),
        "promotion_code_in_use": (409,),
        "quote_expired": (409,),
        "rate_limited": (429,),
        "request_in_progress": (409,),
        "request_timeout": (408,),
        "role_required": (403,),
        "scope_required": (403,),
        "seat_item_ambiguous": (422,),
        "stripe_limit_reached": (429,),
        "stripe_unavailable": (503,),
        "subscription_not_active": (409,),
        "too_many_declines": (429,),
        "unknown_parameter": (422,),
        "unsupported_media_type": (415,),
        "update_expired": (409,),
        "version_conflict": (409, 412),
        "webhooks_unavailable": (503,),
    }
)
"""The codes without figures, each with the statuses that it comes with."""

WITH_FIGURES: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "already_invited": (409,),
        "already_subscribed": (409,),
        "card_declined": (402,),
        "end_ambiguous": (422,),
        "invoice_unpaid": (409,),
        "seat_limit_reached": (409,),
        "seats_in_use": (409,),
        "stripe_rejected": (502,),
        "too_many_in_flight": (429,),
        "unauthenticated": (401,),
        "unsecured_raise_limit": (409,),
    }
)

STATUSES: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType({**PLAIN, **WITH_FIGURES})

_OF_REQUESTS: Final = frozenset({400, 401, 405, 408, 410, 412, 413, 415})
_OF_OTHER_ROUTES: Final = frozenset(
    {
        "idempotency_key_reused",
        "not_filled",
        "request_in_progress",
        "unknown_parameter",
        "webhooks_unavailable",
    }
)
OUTCOMES: Final = tuple(
    sorted(
        {code for code, statuses in STATUSES.items() if not _OF_REQUESTS.issuperset(statuses)}
        - _OF_OTHER_ROUTES
    )
)
"""The codes of a result: those of the errors that can end a step, and of the ends that only a result has."""

_ANY: Final[Mapping[int, tuple[str, ...]]] = MappingProxyType(
    {
        400: ("duplicate_header",),
        401: ("unauthenticated",),
        402: ("card_declined", "payment_action_required"),
        403: ("identity_conflict", "scope_required"),
        404: ("customer_not_linked", "not_found"),
        408: ("request_timeout",),
        409: (),
        410: ("cursor_expired",),
        412: ("version_conflict",),
        413: ("payload_too_large",),
        415: ("unsupported_media_type",),
        422: ("invalid_request", "unknown_parameter"),
        429: ("rate_limited",),
        502: ("stripe_rejected",),
        503: ("database_unavailable", "identity_provider_unavailable", "overloaded", "stripe_unavailable"),
    }
)
COMMON: Final = tuple(status for status, codes in _ANY.items() if codes)
"""The statuses that have the same codes on many routes."""
_WRITE: Final[Mapping[int, tuple[str, ...]]] = MappingProxyType(
    {
        409: ("operation_in_progress", "request_in_progress"),
        422: ("idempotency_key_reused",),
        429: ("too_many_in_flight",),
    }
)

# What a route passes to `problems.responses` beside its statuses.
ROLES: Final = ("role_required",)
ADMIN_FIELDS: Final = ("field_not_allowed",)
DECLINES: Final = ("too_many_declines",)
TERMS: Final = (
    "currency_mismatch",
    "managed_by_schedule",
    "mixed_intervals",
    "not_shareable",
    "price_not_available",
    "promotion_code_in_use",
    "subscription_not_active",
)
"""What may speak against the items and terms of a subscription."""
MONEY: Final = ("invoice_unpaid", "quote_expired", "stripe_limit_reached", "unsecured_raise_limit")
"""What may speak against a change that costs or credits something."""
PEOPLE: Final = (
    "already_member",
    "ambiguous_email",
    "cannot_be_added",
    "member_elsewhere",
    "not_shareable",
    "owner_cannot_leave",
    "seat_limit_reached",
    "subscription_not_active",
)
"""What may speak against giving somebody a seat, or taking it."""
REFUSALS: Final = (
    *PEOPLE,
    *MONEY,
    *ROLES,
    "card_declined",
    "changed_meanwhile",
    "currency_mismatch",
    "managed_by_schedule",
    "mixed_intervals",
    "not_found",
    "operation_expired",
    "paid_without_effect",
    "payment_abandoned",
    "payment_action_required",
    "price_not_available",
    "promotion_code_in_use",
    "seats_in_use",
    "stripe_rejected",
    "update_expired",
    "version_conflict",
)
"""The codes of a 409 for an operation that was refused. They come from its result, whatever their usual status is."""


def codes_of(
    status: int, *, write: bool, special: Collection[str] = (), refusals: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the codes that an operation can answer with `status`, sorted.

    `special`: codes of the operation that not every operation can answer; those of other statuses are left out.
    `refusals`: codes that come with 409 from the result of the operation.
    """
    found = {*_ANY.get(status, ()), *(_WRITE.get(status, ()) if write else ())}
    found |= {code for code in special if status in STATUSES[code]}
    return tuple(sorted(found | set(refusals if status == _CONFLICT else ())))
