"""What a change of a subscription that exists wants: its parameters, its end, its resumption, the key of its owner.

Kinds are decided from what was read, without I/O. `change_steps` carries them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.domain import metadata as keys
from app.domain.ids import CustomerId
from app.domain.snapshots import Snapshot, Subscription
from app.domain.statuses import ENDED
from app.operations.kinds import (
    AnyChangeProves,
    Changes,
    Done,
    Params,
    Refused,
    Seen,
    Send,
    Unchanged,
    Wanted,
)
from app.operations.shown_items import item_shows
from app.subscriptions.ends import PeriodEnds, end_in_force
from app.subscriptions.orders import shows_counted


@dataclass(frozen=True, slots=True)
class ChangeParameters(AnyChangeProves):
    """Parameters of a subscription are set.

    `unless_shown`: nothing is sent if the subscription shows them. A first sending is made in any case, because what
    it costs and when it is billed does not show. `counted`: of the order, before the first sending.
    """

    params: Params
    unless_shown: bool
    counted: Mapping[str, int] = field(default_factory=dict)

    def wanted(self, seen: Seen) -> Wanted:
        """Return the write, done, or refused; a subscription that does not exist is `not_found`.

        `version_conflict` if an item has another quantity than was counted. The seats that were paid for since would
        be taken away. Unchanged without parameters: the promotion code that was asked for applies already.
        """
        if not isinstance(seen.snapshot, Subscription):
            return Refused("not_found")
        if not shows_counted(seen.snapshot, self.counted):
            return Refused("version_conflict")
        if not (self.params or self.unless_shown):
            return Unchanged()
        return Done(self.params) if self.unless_shown and self.shows(seen.snapshot) else Send(self.params)

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if the subscription shows each parameter that can show.

        Sending it again would then add an item twice, or be refused.
        """
        if not isinstance(snapshot, Subscription):
            return False
        shown = [_param_shows(name, asked, snapshot) for name, asked in self.params.items()]
        answers = [shows for shows in shown if shows is not None]
        return bool(answers) and all(answers)


def _param_shows(name: str, asked: Any, now: Subscription) -> bool | None:
    """Return whether the subscription shows a parameter's effect.

    None for a parameter that it does not show, such as how a change was billed.
    """
    match name:
        case "items":
            items = {str(item.id): item for item in now.items}
            prices = {str(item.price_id) for item in now.items}
            return all(item_shows(entry, items, prices) for entry in asked)
        case "cancel_at_period_end":
            return now.cancel_at_period_end is asked
        case "cancel_at":
            ends = [item.current_period_end for item in now.items if item.current_period_end is not None]
            named: dict[Any, int | None] = {
                "": None,
                "min_period_end": min(ends, default=None),
                "max_period_end": max(ends, default=None),
            }
            return bool(now.cancel_at == named.get(asked, asked))
        case "default_payment_method":
            return now.default_payment_method_id == str(asked)
        case _:
            return None


@dataclass(frozen=True, slots=True)
class EndAsShown(AnyChangeProves):
    """The end that the copy showed stands at Stripe too. `params` set it, `ends_at` is in Unix seconds.

    It is sent if Stripe shows a later end, or none. Who may take an earlier one back was not judged, so that one stays,
    and a subscription that goes on (`ends_at` None) is never changed.
    """

    params: Params
    ends_at: int | None

    def wanted(self, seen: Seen) -> Wanted:
        """Return unchanged, the write, or refused; a subscription that does not exist is `not_found`.

        `version_conflict` if Stripe shows an earlier end, `managed_by_schedule` if a schedule decides about it.
        """
        now = seen.snapshot
        if not isinstance(now, Subscription):
            return Refused("not_found")
        if self.shows(now):
            return Unchanged()
        if self.ends_at is None:
            return Refused("subscription_not_active" if now.status in ENDED else "version_conflict")
        if now.schedule_id is not None:
            return Refused("managed_by_schedule")
        end = _end_of(now)
        return Refused("version_conflict") if end is not None and end < self.ends_at else Send(self.params)

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if the subscription ends when it is to end, or has ended."""
        if not isinstance(snapshot, Subscription):
            return False
        has_ended = snapshot.status in ENDED and self.ends_at is not None
        return has_ended or (snapshot.status not in ENDED and _end_of(snapshot) == self.ends_at)


def _end_of(now: Subscription) -> int | None:
    ends = [item.current_period_end for item in now.items if item.current_period_end is not None]
    return end_in_force(
        PeriodEnds(min(ends), max(ends)) if ends else None,
        cancel_at=now.cancel_at,
        cancel_at_period_end=now.cancel_at_period_end,
    )


@dataclass(frozen=True, slots=True)
class EndNow(AnyChangeProves):
    """A subscription ends at once."""

    params: Params

    def wanted(self, seen: Seen) -> Send | Done | Refused:
        """Return the write, or done; a subscription that does not exist is `not_found`."""
        if not isinstance(seen.snapshot, Subscription):
            return Refused("not_found")
        return Done() if self.shows(seen.snapshot) else Send(self.params)

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if the subscription has ended."""
        return isinstance(snapshot, Subscription) and snapshot.status in ENDED


@dataclass(frozen=True, slots=True)
class Resume(AnyChangeProves):
    """A paused subscription is resumed. It stays paused until the rest of its period is paid."""

    def wanted(self, seen: Seen) -> Send | Done | Refused:
        """Return the write, or done; a subscription that does not exist is `not_found`. Stripe refuses an ended one."""
        if not isinstance(seen.snapshot, Subscription):
            return Refused("not_found")
        return Done({}) if self.shows(seen.snapshot) else Send({})

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if the subscription goes on, and is not paused."""
        return isinstance(snapshot, Subscription) and snapshot.status not in ENDED | {"paused"}


@dataclass(frozen=True, slots=True)
class NamePayer:
    """The customer who pays is named as the owner, unless metadata names somebody by now."""

    payer_id: CustomerId

    def wanted(self, seen: Seen) -> Send | Done | Refused:
        """Return the write, or done; a subscription that does not exist is `not_found`."""
        if not isinstance(seen.snapshot, Subscription):
            return Refused("not_found")
        return Done() if self.shows(seen.snapshot) else Send({keys.OWNER: self.payer_id})

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if metadata names an owner."""
        return isinstance(snapshot, Subscription) and snapshot.owner_id is not None

    def evidence(self, changes: Changes) -> bool:
        """Return True if an event shows metadata that names the payer."""
        return any(keys.shows(metadata, {keys.OWNER: self.payer_id}) for _, metadata in changes)
