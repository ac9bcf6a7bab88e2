"""Answers about the state of the service."""

from __future__ import annotations

from typing import Literal

from app.http.schemas import Answer


class Liveness(Answer):
    """The process runs."""

    status: Literal["ok"]


class Readiness(Answer):
    """Whether the process can do its work.

    `checks` has `ok` or the reason for each part that it depends on.
    """

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]
