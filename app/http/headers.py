"""Read one header from the ASGI scope.

Starlette's `request.headers` encodes the name and decodes every header that it passes, at each look-up.
"""

from __future__ import annotations

from starlette.types import Scope


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
