"""Sign tokens for development with the configured shared secret.

It refuses to sign beside a live Stripe key.
"""

from __future__ import annotations

import time
from typing import Any

import jwt

from app.settings import Settings, SettingsError

LIFETIME = 12 * 3600
"""Seconds for which a development token is valid."""


def sign_development_token(
    settings: Settings,
    *,
    subject: str,
    email: str | None = None,
    email_verified: bool = True,
    customer_id: str | None = None,
    lifetime: int = LIFETIME,
) -> str:
    """Return a token that this configuration accepts for `lifetime` seconds.

    Raises:
        SettingsError: The shared secret, the issuer or the audience is missing, or the Stripe key is live.
    """
    if settings.stripe_livemode:
        raise SettingsError({"STRIPE_API_KEY": "must not be a live key where development tokens are signed"})
    verification = settings.jwt
    if verification is None or verification.secret is None:
        needed = ("AUTH_JWT_SECRET", "AUTH_ISSUER", "AUTH_AUDIENCE")
        raise SettingsError(dict.fromkeys(needed, "is required for development tokens"))
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": verification.issuer,
        "aud": verification.audience,
        "sub": subject,
        "iat": now,
        "exp": now + lifetime,
    }
    if email is not None:
        claims |= {"email": email, "email_verified": email_verified}
    if customer_id is not None:
        *parents, leaf = verification.customer_claim
        place = claims
        for name in parents:
            place = place.setdefault(name, {})
        place[leaf] = customer_id
    return jwt.encode(claims, verification.secret.get_secret_value(), algorithm="HS256")
