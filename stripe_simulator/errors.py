"""Stripe's error bodies, as exceptions that handlers raise."""

from typing import Any


class ApiError(Exception):
    """An answer in Stripe's ``{"error": {...}}`` shape.

    ``stored`` says whether an idempotency key remembers the answer: Stripe keeps results only once an endpoint began to
    execute. ``commit`` keeps what the handler changed before it failed (a declined payment is still an attempt).
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        stored: bool = True,
        commit: bool = False,
        headers: dict[str, str] | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.stored = stored
        self.commit = commit
        self.headers = headers or {}
        self.error: dict[str, Any] = {"message": message, "type": kind}
        if code is not None:
            self.error["code"] = code
            self.error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
        if param is not None:
            self.error["param"] = param
        self.error.update(details)

    @property
    def body(self) -> dict[str, Any]:
        return {"error": self.error}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that failed the checks of its parameters; no idempotency key remembers it."""
    return ApiError(400, message, param=param, code=code, stored=False)


def refused(message: str, param: str | None = None, code: str | None = None, **details: Any) -> ApiError:
    """A well-formed request that the state of the objects does not allow."""
    return ApiError(400, message, param=param, code=code, **details)


def unknown_parameter(name: str) -> ApiError:
    return invalid(f"Received unknown parameter: {name}", name, "parameter_unknown")


def missing_parameter(name: str) -> ApiError:
    return invalid(f"Missing required param: {name}.", name, "parameter_missing")


def no_such(kind: str, identifier: str, param: str = "id", status: int = 404) -> ApiError:
    noun = {
        "payment_method": "PaymentMethod",
        "setup_intent": "setupintent",
        "invoice_payment": "invoice payment",
        "billing.meter": "meter",
        "billing.meter_event": "meter event",
    }
    noun_ = noun.get(kind, kind.replace("_", " "))
    return ApiError(status, f"No such {noun_}: '{identifier}'", code="resource_missing", param=param)


def card_error(decline: str, **details: Any) -> ApiError:
    """HTTP 402 as Stripe gives it for a card or a bank that does not pay."""
    reasons: dict[str, tuple[str, str | None, str]] = {
        "generic_decline": ("card_declined", "generic_decline", "Your card was declined."),
        "insufficient_funds": ("card_declined", "insufficient_funds", "Your card has insufficient funds."),
        "lost_card": ("card_declined", "lost_card", "Your card was declined."),
        "stolen_card": ("card_declined", "stolen_card", "Your card was declined."),
        "expired_card": ("expired_card", "expired_card", "Your card has expired."),
        "incorrect_cvc": ("incorrect_cvc", "incorrect_cvc", "Your card's security code is incorrect."),
        "processing_error": (
            "processing_error",
            "processing_error",
            "An error occurred while processing your card.",
        ),
        "authentication_required": (
            "authentication_required",
            "authentication_required",
            "Your card was declined. This transaction requires authentication.",
        ),
        "debit_not_authorized": (
            "debit_not_authorized",
            None,
            "The customer has notified their bank that this payment is not authorized.",
        ),
        "debit_insufficient_funds": (
            "insufficient_funds",
            None,
            "The customer's account has insufficient funds to cover this payment.",
        ),
    }
    code, decline_code, message = reasons[decline]
    if decline_code is not None:
        details["decline_code"] = decline_code
    return ApiError(402, message, kind="card_error", code=code, **details)
