"""The reasons for which a credential is refused, and what an operator can do about each."""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "malformed",
    "algorithm",
    "unknown_key",
    "signature",
    "expired",
    "not_yet_valid",
    "issuer",
    "audience",
    "claim_missing",
    "unknown_service_key",
]

ADVICE: dict[Reason, str] = {
    "malformed": "It is not a signed JWT, or one of its claims has the wrong type. "
    "Check that the whole token was sent.",
    "algorithm": "The configured key cannot verify the algorithm of this token. Set the kind of key that the provider "
    "signs with: AUTH_JWKS_URL or AUTH_JWT_PUBLIC_KEY for RS, PS, ES and EdDSA; AUTH_JWT_SECRET for HS.",
    "unknown_key": "The key set has no usable key for the `kid` of this token. Check AUTH_JWKS_URL.",
    "signature": "Another key signed this token, or it was changed on its way. Check AUTH_JWKS_URL, "
    "AUTH_JWT_PUBLIC_KEY or AUTH_JWT_SECRET.",
    "expired": "It is no longer valid. Request a new token, and check the clocks of both machines.",
    "not_yet_valid": "Its `nbf` or `iat` lies in the future. Check the clocks of both machines.",
    "issuer": "Its `iss` is not AUTH_ISSUER. If this is your provider, set AUTH_ISSUER to its exact `iss`.",
    "audience": "It is for another application. If it is yours, set AUTH_AUDIENCE, AUTH_AUDIENCE_CLAIM or "
    "AUTH_AUD_IGNORED.",
    "claim_missing": "A claim that is needed is missing. Add it at your provider. If another claim names your "
    "application, set AUTH_AUDIENCE_CLAIM.",
    "unknown_service_key": "No entry of SERVICE_KEYS has the SHA-256 of this key. Add one, or send another key.",
}
"""One sentence about the fault of each reason, and the setting to check."""


class TokenRejected(Exception):
    """Raised for a credential that is not accepted.

    `reason` is for logs, and for callers beside a test key. `claim` is the name of the claim at fault, if there is one.
    Neither holds a part of the token.
    """

    def __init__(self, reason: Reason, claim: str | None = None) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.claim = claim
