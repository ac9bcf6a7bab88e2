"""Read single claims of a verified token.

A claim is named by a path. If the token has a top-level claim whose name is the whole path, joined with dots, that
claim is read. A value of the wrong type is refused where a right depends on it.
"""

from __future__ import annotations

import math
from typing import Any

from app.domain import emails
from app.domain.ids import CustomerId, is_free_id
from app.identity.refusals import TokenRejected

MAXIMUM_SUBJECT_LENGTH = 255  # OpenID Connect Core section 2.

Claims = dict[str, Any]
ClaimPath = tuple[str, ...]


def claim_at(claims: Claims, path: ClaimPath) -> object:
    """Return the value of a claim, or None if it is absent.

    Raises:
        TokenRejected: `malformed`: the path leads through a value that is no object.
    """
    name = ".".join(path)
    if name in claims:
        return claims[name]
    value: object = claims
    for part in path:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise TokenRejected("malformed", name)
        value = value.get(part)
    return value


def check_audience(value: object, audience: str, claim: str) -> None:
    """Check that a claim is `audience`, or a list of texts that contains it.

    Raises:
        TokenRejected: `audience` if it is neither, also if it is empty; `malformed` for another type.
    """
    members = value if isinstance(value, list) else [value]
    if value is not None and not all(isinstance(member, str) for member in members):
        raise TokenRejected("malformed", claim)
    if audience not in members:
        raise TokenRejected("audience", claim)


def seconds_of(claims: Claims, name: str) -> float | None:
    """Return a time in Unix seconds, or None if the claim is absent.

    Raises:
        TokenRejected: `malformed`: it is not a finite number.
    """
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TokenRejected("malformed", name)
    return value


def subject_of(claims: Claims) -> str:
    """Return `sub`, 1 to 255 printable characters.

    Raises:
        TokenRejected: `claim_missing` or `malformed`.
    """
    value = claims.get("sub")
    if value is None or value == "":
        raise TokenRejected("claim_missing", "sub")
    if not isinstance(value, str) or len(value) > MAXIMUM_SUBJECT_LENGTH:
        raise TokenRejected("malformed", "sub")
    if not value.isprintable() or value != value.strip():
        raise TokenRejected("malformed", "sub")
    return value


def customer_of(claims: Claims, path: ClaimPath) -> CustomerId | None:
    """Return the customer that the issuer names, or None.

    Raises:
        TokenRejected: `malformed`: the claim holds no customer id.
    """
    value = claim_at(claims, path)
    if value is None or value == "":
        return None
    # A claim that holds no customer id means that the issuer is misconfigured. If it were read as "no customer",
    # the person would be linked to a new customer.
    if not isinstance(value, str) or not is_free_id(value):
        raise TokenRejected("malformed", ".".join(path))
    return CustomerId(value)


def email_of(claims: Claims, path: ClaimPath) -> str | None:
    """Return the address ASCII-lowered, or None if the claim is no address or must reach no seat."""
    value = _optional(claims, path)
    if not isinstance(value, str) or not emails.is_address(value):
        return None
    email = emails.ascii_lowered(value)
    return email if emails.reaches_seats(email) else None


def is_verified(claims: Claims, path: ClaimPath | None) -> bool:
    """Return True if the token's address is verified: the claim is the JSON value true.

    Without a path the issuer verifies every address. A token that says `email_verified: false` is not verified even
    then.
    """
    if path is None:
        return claims.get("email_verified") is not False
    return _optional(claims, path) is True


def _optional(claims: Claims, path: ClaimPath) -> object:
    """Return a claim on which no right depends if it is absent, and None if its path leads nowhere."""
    try:
        return claim_at(claims, path)
    except TokenRejected:
        return None
