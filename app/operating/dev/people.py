"""The people of the demonstration, and tokens for them or for somebody new."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Final

from app.domain.emails import ascii_lowered
from app.identity.development_tokens import LIFETIME, sign_development_token
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Person:
    """A person of the demonstration. `subject` is the `sub` claim of their tokens."""

    variable: str
    name: str
    email: str
    subject: str
    about: str


PEOPLE: Final = (
    Person("OWNER", "Olivia Owner", "owner@example.com", "demo-owner", "owns and pays for the team's seats"),
    Person("MANAGER", "Max Manager", "manager@example.com", "demo-manager", "manages the team's members"),
    Person("MEMBER", "Uma User", "user@example.com", "demo-user", "has a seat on the team"),
    Person("STRANGER", "Sam Stranger", "stranger@example.com", "demo-stranger", "is on no team"),
)
"""The people of the stand-in's demonstration account, by the variable that the terminal prints."""


@dataclass(frozen=True, slots=True)
class Login:
    """A signed-in person. `expires_at` is a Unix second."""

    subject: str
    email: str
    token: str
    expires_at: int


def sign_in(settings: Settings, email: str) -> Login:
    """Return a login for the person with this address, who may be new. The same address has the same subject.

    Raises:
        SettingsError: No token can be signed, because tokens are verified by a public key or a key set.
    """
    subject = _subject(email)
    expires_at = int(time.time()) + LIFETIME
    return Login(subject, email, sign_development_token(settings, subject=subject, email=email), expires_at)


def _subject(email: str) -> str:
    known = {person.email: person.subject for person in PEOPLE}
    folded = ascii_lowered(email)
    return known.get(folded) or f"dev-{hashlib.sha256(folded.encode()).hexdigest()[:16]}"
