"""What became of one attempt to write at Stripe. The module needs the standard library only and does no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of one attempt: one request to Stripe, together with the retries that the client made of it."""

    NOT_SENT = "not_sent"
    REPLAYED = "replayed"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    STORED_ERROR = "stored_error"
    UNSTORED_ERROR = "unstored_error"
    NO_ANSWER = "no_answer"


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of one attempt as a value.

    `is_replay`: Stripe answered from the memory of the key, so every earlier request of that key has ended.
    `has_open_try`: an earlier try of the same call got no answer and may still run. `code`: why it was rejected.
    """

    outcome: Outcome
    is_replay: bool = False
    has_open_try: bool = False
    code: str | None = None

    @property
    def ends_earlier(self) -> bool:
        """True if no request of the key can take effect any more, whatever was open before.

        An accepted request executes under the key, and one that runs later only gets the kept answer. A rejection
        may have been made before Stripe looked at the key, so without a replay it proves nothing of earlier ones.
        """
        return self.is_replay or self.outcome in (Outcome.ACCEPTED, Outcome.REPLAYED)

    def leaves_unanswered(self, *, before: bool) -> bool:
        """Return True if a request of the key is without an answer; `before`: one was when the attempt was made."""
        if self.outcome in (Outcome.UNSTORED_ERROR, Outcome.NO_ANSWER):
            return True
        return not self.ends_earlier and (before or self.has_open_try)
