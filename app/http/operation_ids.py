"""The id of the operation that a write begins: the same for the same Idempotency-Key, so that a retry finds it."""

from __future__ import annotations

import hashlib
import secrets

from fastapi import Request

from app.identity.principals import Principal

_HEX_DIGITS = 24


async def operation_id_of(request: Request, principal: Principal) -> str:
    """A retry after a lost answer sends Stripe the very keys of the first try: one effect, however often asked.

    Another body under the same key is another operation, so that nothing is sent that was not asked for.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return f"op_{secrets.token_hex(_HEX_DIGITS // 2)}"
    name = f"{principal.key}\n{request.method} {request.url.path}\n{key}\n".encode()
    return f"op_{hashlib.sha256(name + await request.body()).hexdigest()[:_HEX_DIGITS]}"
