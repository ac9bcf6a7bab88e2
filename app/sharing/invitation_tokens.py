"""The tokens of invitations: `<invitation id>.<generation>.<HMAC>`, made when they are sent and never stored.

See docs/decisions/0040-compute-the-token-of-an-invitation.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import NotFound, ServiceUnavailable

ID_PATTERN = "^inv_[0-9a-f]{24}$"
_TOKEN = re.compile(r"(inv_[0-9a-f]{24})\.([1-9][0-9]{0,8})\.([A-Za-z0-9_-]{43})", re.ASCII)
_KEPT = re.compile(r"(inv_[0-9a-f]{24})\.([1-9][0-9]{0,8})", re.ASCII)


@dataclass(frozen=True, slots=True)
class TokenName:
    """What a token names: an invitation and its generation. Each resend makes the next generation."""

    invitation_id: str
    generation: int

    def __str__(self) -> str:
        """Return the part of the token that is no secret."""
        return f"{self.invitation_id}.{self.generation}"


class InvitationTokens:
    """Make and verify tokens. The first secret signs, all verify."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = [secret.encode() for secret in secrets]

    def check_available(self) -> None:
        """Check that there is a secret.

        Raises:
            ServiceUnavailable: `invitations_unavailable`.
        """
        if not self._secrets:
            raise ServiceUnavailable(
                "Invitations need the setting INVITATION_SECRETS. Ask the operator to set it.",
                code="invitations_unavailable",
            )

    def make(self, name: TokenName) -> str:
        """Return the token.

        Raises:
            ServiceUnavailable: `invitations_unavailable`.
        """
        self.check_available()
        return _token(self._secrets[0], name)

    def verified(self, token: str) -> TokenName:
        """Return what a token names, if one of the secrets signed it. Each secret is compared, in constant time.

        Raises:
            NotFound: No secret signed it.
            ServiceUnavailable: `invitations_unavailable`.
        """
        self.check_available()
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            raise NotFound()
        name = TokenName(parts[1], int(parts[2]))
        matches = [hmac.compare_digest(token, _token(secret, name)) for secret in self._secrets]
        if not any(matches):
            raise NotFound()
        return name


def kept_part(token: str) -> str:
    """Return the part of a token that may be stored: it names the invitation, and opens nothing."""
    return token.rpartition(".")[0]


def name_of(kept: str) -> TokenName:
    """Return what the stored part of a token names."""
    parts = _KEPT.fullmatch(kept)
    if parts is None:
        raise LookupError("the stored part of a token names no invitation")
    return TokenName(parts[1], int(parts[2]))


def _token(secret: bytes, name: TokenName) -> str:
    digest = hmac.new(secret, str(name).encode(), hashlib.sha256).digest()
    return f"{name}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
