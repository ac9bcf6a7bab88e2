"""What machines are told of the service itself."""

from __future__ import annotations

from typing import Literal

from app.http.schemas import Answer


class Liveness(Answer):
    status: Literal["ok"]


class Readiness(Answer):
    """`checks`: `ok`, or the reason, for `database`, `migrations` and `stripe`."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]
