"""Compare e-mail addresses, and tell which claim of an address may reach a seat.

Two addresses are equal if they are after their ASCII letters are lowered. Every other character is compared exactly,
because Unicode's case mapping and normalisation turn different addresses, which belong to different people, into one.
"""

from __future__ import annotations

import re
import unicodedata
from string import ascii_lowercase, ascii_uppercase
from typing import Final

MAXIMUM_LENGTH: Final = 254
"""RFC 5321 section 4.5.3.1.3, without the angle brackets."""

_BREAKS: Final = r"\s@\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
PATTERN: Final = rf"^[^{_BREAKS}]+@[^{_BREAKS}]+$"
"""One `@` with text on both sides, without spaces, control characters and marks that turn the direction of writing."""

_ADDRESS = re.compile(PATTERN)
_ASCII_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


def ascii_lowered(email: str) -> str:
    """Return the address as it is compared and stored: its ASCII letters lowered, the rest unchanged.

    In SQL this is `lower(email collate "C")`. Without the collation the database's own rules apply, which lower more.
    """
    return email.translate(_ASCII_LOWER)


def is_address(text: str) -> bool:
    """Return True if `text` has the form of an address and at most MAXIMUM_LENGTH characters."""
    return len(text) <= MAXIMUM_LENGTH and _ADDRESS.fullmatch(text) is not None


def reaches_seats(email: str) -> bool:
    """Return True if an address, ASCII-lowered, may reach the seat that was given to it.

    An address that Unicode's normalisation for identifiers (NFKC_Casefold) changes may stand for another one elsewhere,
    such as one with a Kelvin sign for one with a `k`. It also may look like another one, by a character without width.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", email).casefold())
    return folded == email and not any(unicodedata.category(character) == "Cf" for character in email)
