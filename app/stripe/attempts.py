"""Define the outcome of one attempt to write at Stripe. The module does no I/O.

See docs/decisions/0012-use-a-new-key-only-after-a-stored-error.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """The outcome of one attempt: one request to Stripe with the retries that the client made of it."""

    NOT_SENT = "not_sent"
    REPLAYED = "replayed"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    STORED_ERROR = "stored_error"
    UNSTORED_ERROR = "unstored_error"
    NO_ANSWER = "no_answer"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt and what is known about it.

    `is_replay` is True if Stripe answered with the response stored under the key, so every earlier request of that key
    has ended. `has_open_try` is True if an earlier try of the same call got no answer and may still run. `code` is
    Stripe's error code of a rejection.
    """

    outcome: Outcome
    is_replay: bool = False
    has_open_try: bool = False
    code: str | None = None

    @property
    def ends_earlier(self) -> bool:
        """Return True if no request of the key can take effect any more.

        An accepted request executes under the key, so a later one only gets the stored response. Stripe may reject a
        request before it looks at the key, so a rejection without a replay proves nothing about earlier requests.
        """
        return self.is_replay or self.outcome in (Outcome.ACCEPTED, Outcome.REPLAYED)

    def leaves_unanswered(self, *, before: bool) -> bool:
        """Return True if a request of the key has no answer. `before` says whether one had none before the attempt."""
        if self.outcome in (Outcome.UNSTORED_ERROR, Outcome.NO_ANSWER):
            return True
        return not self.ends_earlier and (before or self.has_open_try)
