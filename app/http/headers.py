"""Read one header from the ASGI scope, and find headers that were sent twice.

Starlette's `request.headers` encodes the name and decodes every header that it passes, at each look-up.
"""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

_ONCE: Final = {
    b"authorization": "Authorization",
    b"x-acting-customer": "X-Acting-Customer",
    b"idempotency-key": "Idempotency-Key",
    b"stripe-signature": "Stripe-Signature",
}
"""Headers that decide who calls and what is done, by their names in lower case."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header called `name`, which must be in lower case, or None."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def header_text(scope: Scope, name: bytes) -> str | None:
    """Return the first header called `name` (in lower case) as text, or None."""
    value = header(scope, name)
    return None if value is None else value.decode("latin-1")


def doubled_header(scope: Scope) -> str | None:
    """Return the name of a deciding header that was sent more than once, or None.

    Of two values, a proxy may check the one and this service use the other. Equal values count too.
    """
    found: list[bytes] = []
    for name, _ in scope["headers"]:
        if name in _ONCE:
            if name in found:
                return _ONCE[name]
            found.append(name)
    return None
