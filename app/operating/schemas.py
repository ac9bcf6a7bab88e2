"""Answers about the state of the service."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.http.schemas import Answer


class Liveness(Answer):
    """The process runs."""

    status: Literal["ok"]


class PartState(Answer):
    """The state of one part that the process depends on.

    `degraded`: some requests are refused. `failed`: the process can serve nothing. `reason` is null for `ok`.
    """

    state: Literal["ok", "degraded", "failed"]
    reason: str | None


class PartStates(Answer):
    """The state of each part.

    `account`: whether the Stripe key is of the account that the database mirrors. `stripe`: whether Stripe answers.
    `drain`: whether the process is about to end.
    """

    database: PartState
    schema_: Annotated[PartState, Field(alias="schema")]
    account: PartState
    stripe: PartState
    drain: PartState


class Readiness(Answer):
    """Whether the process can do its work: `unavailable` if a part has failed, `degraded` if one is degraded."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: PartStates
