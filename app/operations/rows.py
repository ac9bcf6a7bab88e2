"""Operations and their steps, as their rows are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import JsonObject
from app.errors import ServiceUnavailable
from app.operations.lifecycle import SETTLED, State


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, as its row was read. `request`: what its call sends, see its kind."""

    id: str
    subscription_id: SubscriptionId
    kind: str
    state: str
    principal: str
    actor_id: CustomerId | None
    request: JsonObject
    created_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Step:
    """One write of an operation, as its row was read.

    `sent_at`: the first sending with the key of this `attempt`. `unanswered_at`: the last sending whose answer is
    missing, `unanswered_for` the seconds since then by the database's clock. `invoice_id`: of a step that waits, or has
    waited, for its payment. `awaits_seats`: an addition whose seat is to be bought first, and that names nobody yet.
    `invitation_id`: the invitation that the step accepts, or whose seat it fills.
    `writes`: the metadata that every attempt writes, None until that is chosen.
    """

    position: int
    action: str
    customer_id: CustomerId | None
    email: str | None
    role: str | None
    role_before: str | None
    state: State
    code: str | None
    details: JsonObject
    attempt: int
    sent_at: datetime | None
    unanswered_at: datetime | None
    unanswered_for: float | None
    invoice_id: str | None = None
    awaits_seats: bool = False
    invitation_id: str | None = None
    writes: Mapping[str, str] | None = None

    @property
    def is_settled(self) -> bool:
        """Return True if no event moves the step any more."""
        return self.state in SETTLED

    @property
    def is_expired(self) -> bool:
        """Return True if its key is too old to be sent again.

        Stripe is read once, and that is the step's end.
        """
        return self.state is State.EXPIRED

    @property
    def has_sent_key(self) -> bool:
        """Return True if a request with this attempt's key was recorded.

        It may have been sent.
        """
        return self.state in (State.IN_FLIGHT, State.AWAITING_PAYMENT)

    @property
    def was_sent(self) -> bool:
        """Return True if a request of any attempt was recorded.

        The step may have taken effect.
        """
        return self.has_sent_key or self.attempt > 0


@dataclass(frozen=True, slots=True)
class AwaitedInvoice:
    """The invoice for which Stripe holds a change back.

    `expires_at`: the second in which Stripe drops the change by itself. `window_seconds`: the payment window.
    """

    invoice_id: str
    subscription_id: SubscriptionId
    expires_at: int | None
    window_seconds: float


class StepChanged(ServiceUnavailable):
    """The step is not as it was read.

    It was settled, another process runs it, or its key is too old. The runner reads the step again. A caller learns
    that the change goes on elsewhere.
    """

    def __init__(self) -> None:
        super().__init__("This change is carried out elsewhere, or waits for its key.", retry_after=2)
