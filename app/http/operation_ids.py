"""Derive the id of a write's operation from its Idempotency-Key."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime

from fastapi import Request

from app.identity.principals import Principal

_HEX_DIGITS = 24


async def operation_id_of(request: Request, principal: Principal) -> str:
    """Return the id of the operation that a request begins.

    It is the same for the same principal, path, key and body, and random without a key. Our idempotency keys at Stripe
    contain it. So a caller who lost the answer and retries has one effect at Stripe. The body is part of it: another
    body under the same key must not continue the first operation. So is the time at which a key was used again after
    its day. The record of the request shows the id.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        digits = secrets.token_hex(_HEX_DIGITS // 2)
    else:
        digits = await digits_of(request, principal, key, request.scope["state"].get("key_reused_at"))
    found = f"op_{digits}"
    request.scope["state"]["operation_id"] = found
    return found


async def digits_of(
    request: Request, principal: Principal, key: str, reused_at: datetime | None = None
) -> str:
    """Return what follows the prefix in the ids of all that a request begins. `reused_at`: of the key's row."""
    name = f"{principal.key}\n{request.method} {request.url.path}\n{key}\n"
    if reused_at is not None:
        name = f"{reused_at.isoformat()}\n{name}"
    return hashlib.sha256(name.encode() + await request.body()).hexdigest()[:_HEX_DIGITS]
