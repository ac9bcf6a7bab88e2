"""The schemas of errors in OpenAPI: a plain one, and one for each code that carries figures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import models_json_schema

from app.http.problem_codes import PLAIN, STATUSES
from app.http.schemas import ProblemError
from app.http.stripe_values import UnpaidInvoiceStatus
from app.identity.refusals import Reason

_REFERENCE: Final = "#/components/schemas/{model}"


def _one_of(model: str, description: str) -> WithJsonSchema:
    """Return the schema of a model that stands in a room above this one, or null."""
    either: list[dict[str, str]] = [{"$ref": _REFERENCE.format(model=model)}, {"type": "null"}]
    return WithJsonSchema({"anyOf": either, "description": description})


def _listed(model: str, description: str) -> WithJsonSchema:
    """Return the schema of a list of a model that stands in a room above this one."""
    return WithJsonSchema(
        {"type": "array", "items": {"$ref": _REFERENCE.format(model=model)}, "description": description}
    )


class _Problem(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(description="A URI for the code.", json_schema_extra={"format": "uri"})]
    title: Annotated[str, Field(description="A sentence for the code, for people.")]
    status: Annotated[int, Field(description="The HTTP status.")]
    detail: Annotated[str, Field(description="What is wrong and what to do next, for people.")]
    request_id: Annotated[str, Field(description="The id of the request in the log, as in X-Request-Id.")]
    errors: list[ProblemError] = Field(default=[], description="The fields that break a rule, at most 20.")
    operation_id: str = Field(default="", description="Of a change of members that was refused as a whole.")
    results: Annotated[list[Any], _listed("ChangeResult", "Every result of such a change.")] = []
    state: Literal["running", "awaiting_payment", "settled"] = Field(
        default="settled", description="The state of such a change."
    )
    seats: Annotated[dict[str, Any] | None, _one_of("Seats", "The seats after such a change.")] = None
    payment: Annotated[dict[str, Any] | None, _one_of("Payment", "What such a change waits for.")] = None


class Problem(_Problem):
    """An error as RFC 9457 has it. `code` is stable, for programs."""

    code: Annotated[str, WithJsonSchema({"type": "string", "enum": sorted(PLAIN)})]


class AlreadyInvitedProblem(_Problem):
    """There is an open invitation to this address: `invitation_id`."""

    code: Literal["already_invited"]
    invitation_id: str


class AlreadySubscribedProblem(_Problem):
    """A live subscription has this price already: `subscription_id`, absent if the request was refused before."""

    code: Literal["already_subscribed"]
    subscription_id: str = ""


class CardDeclinedProblem(_Problem):
    """The bank declined. `decline_code` is its reason, if the payer may know it."""

    code: Literal["card_declined"]
    decline_code: str | None = None


class EndAmbiguousProblem(_Problem):
    """The items end at different times. `further_charges` are billed until `latest`."""

    code: Literal["end_ambiguous"]
    earliest: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    latest: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    further_charges: Annotated[list[Any], _listed("FurtherCharge", "What is billed again until then.")]


class InvoiceUnpaidProblem(_Problem):
    """An invoice was not paid. `credit`: what the change would credit, in minor units.

    `invoice_id` and `hosted_invoice_url` are null if the caller may not see them. `retry_after` is there for a draft:
    the seconds until it is charged.
    """

    code: Literal["invoice_unpaid"]
    invoice_id: str | None = None
    invoice_status: UnpaidInvoiceStatus | None = None
    hosted_invoice_url: str | None = None
    credit: int | None = None
    retry_after: int | None = None


class SeatLimitReachedProblem(_Problem):
    """Not enough free seats: `used` of `total` are taken, and `required` would be needed."""

    code: Literal["seat_limit_reached"]
    total: int
    used: int
    required: int


class NoSeatFreeProblem(_Problem):
    """Not enough free seats, for a caller who may not see the figures: `acceptInvitation`."""

    code: Literal["seat_limit_reached"]


class SeatsInUseProblem(_Problem):
    """The total would be `requested`, but `used` seats are used or promised. Absent if it was refused before."""

    code: Literal["seats_in_use"]
    used: int = 0
    requested: int = 0


class StripeRejectedProblem(_Problem):
    """Stripe refused what the service sent. `stripe_code` and `stripe_param` are for the operator."""

    code: Literal["stripe_rejected"]
    stripe_code: str | None = None
    stripe_param: str | None = None


class TooManyInFlightProblem(_Problem):
    """Too many writes of this caller are running, or the subscriptions of `subscription_ids` are unpaid."""

    code: Literal["too_many_in_flight"]
    subscription_ids: list[str] = []


class UnauthenticatedProblem(_Problem):
    """No credential, or one that is not valid. `reason` is there beside a test key only."""

    code: Literal["unauthenticated"]
    reason: Reason | None = None


class UnsecuredRaiseLimitProblem(_Problem):
    """The raise stands before its payment, and one raise may go by `allowed` units at most.

    `allowed` is absent if the caller may not see amounts.
    """

    code: Literal["unsecured_raise_limit"]
    allowed: int = 0


_MODELS: Final = (
    AlreadyInvitedProblem,
    AlreadySubscribedProblem,
    CardDeclinedProblem,
    EndAmbiguousProblem,
    InvoiceUnpaidProblem,
    SeatLimitReachedProblem,
    SeatsInUseProblem,
    StripeRejectedProblem,
    TooManyInFlightProblem,
    UnauthenticatedProblem,
    UnsecuredRaiseLimitProblem,
)
ANY_PROBLEM: Final = "AnyProblem"
"""The name of the schema that has every code."""


def _code_of(model: type[_Problem]) -> str:
    [code] = model.model_fields["code"].annotation.__args__  # type: ignore[union-attr]  # a Literal of one code
    return str(code)


_MODEL_OF: Final[Mapping[str, str]] = {_code_of(model): model.__name__ for model in _MODELS}


def schema_of(codes: Collection[str], *, seats_shown: bool = True) -> dict[str, Any]:
    """Return the schema of a problem with one of `codes`.

    The discriminator names each code. Those without figures have the plain schema. `seats_shown` is False for an
    operation whose caller may not see the figures of `seat_limit_reached`.
    """
    model_of = _MODEL_OF if seats_shown else {**_MODEL_OF, "seat_limit_reached": NoSeatFreeProblem.__name__}
    mapping = {code: _REFERENCE.format(model=model_of.get(code, Problem.__name__)) for code in sorted(codes)}
    return {
        "oneOf": [{"$ref": reference} for reference in sorted(set(mapping.values()))],
        "discriminator": {"propertyName": "code", "mapping": mapping},
    }


def components() -> dict[str, Any]:
    """Return the schemas of all problems by name, for `components` of the document."""
    _, found = models_json_schema(
        [(model, "serialization") for model in (Problem, NoSeatFreeProblem, *_MODELS)],
        ref_template=_REFERENCE,
    )
    everything = {"description": "A problem with any of the codes.", **schema_of(STATUSES)}
    return {**found["$defs"], ANY_PROBLEM: everything}
