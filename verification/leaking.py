"""`python -m verification.leaking serve`: the service with a leak of 1 kB a request, which a measure has to notice."""

from __future__ import annotations

import os

from starlette.types import Scope

from app.commands import main
from app.http import request_records

LEAKED_BYTES = 1024
_leaked: list[bytes] = []
_record = request_records._record


def _record_and_leak(scope: Scope, status: int, seconds: float, request_id: str) -> None:
    _leaked.append(os.urandom(LEAKED_BYTES))
    _record(scope, status, seconds, request_id)


if __name__ == "__main__":
    request_records._record = _record_and_leak
    main()
