"""Seat arithmetic: what was bought, what is taken, what is promised. Source: the guide, and Stripe's quantity page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from app.domain.ids import SubscriptionItemId
from app.errors import Conflict, InvalidRequest


class SeatItem(NamedTuple):
    """A subscription item as far as seats go; `shareable` and `owner_uses_seat` come from its product."""

    id: SubscriptionItemId
    quantity: int | None
    metered: bool
    shareable: bool
    owner_uses_seat: bool | None

    @property
    def gives_seats(self) -> bool:
        return self.shareable and not self.metered


class Seats(NamedTuple):
    """`used` counts members (and the owner where he counts), `reserved` seats promised by unsettled operations."""

    total: int
    used: int
    reserved: int

    @property
    def available(self) -> int:
        return max(0, self.total - required(self))

    @property
    def over_allocated(self) -> int:
        return max(0, required(self) - self.total)

    def as_members(self) -> dict[str, int]:
        return {
            "total": self.total,
            "used": self.used,
            "reserved": self.reserved,
            "available": self.available,
            "over_allocated": self.over_allocated,
        }


def total_seats(items: Iterable[SeatItem]) -> int:
    """The sum of what was bought, before tiers and transform_quantity: those change the price, not the seats."""
    return sum(item.quantity or 0 for item in items if item.gives_seats)


def is_shareable(items: Iterable[SeatItem]) -> bool:
    return any(item.gives_seats for item in items)


def owner_takes_seat(items: Iterable[SeatItem], *, default: bool) -> bool:
    """A product's key decides; where products disagree a seat is counted: too few free beats one sold twice."""
    said = [item.owner_uses_seat for item in items if item.gives_seats and item.owner_uses_seat is not None]
    return any(said) if said else default


def count_seats(
    items: list[SeatItem], *, members: int, reserved: int, has_owner: bool, owner_uses_seat: bool
) -> Seats:
    """`members` excludes the owner; `owner_uses_seat` is the setting for products that do not say."""
    owner = 1 if has_owner and owner_takes_seat(items, default=owner_uses_seat) else 0
    return Seats(total=total_seats(items), used=members + owner, reserved=reserved)


def required(seats: Seats, *, freed: int = 0, added: int = 0) -> int:
    """Return the seats that are taken or promised once `freed` of them are given up and `added` more are filled."""
    return seats.used + seats.reserved - freed + added


def capacity(seats: Seats, lowest_target: int | None = None) -> int:
    """Return the seats that may be promised: those that were bought, less what an unsettled change may take away.

    `lowest_target`: the smallest total that an unsettled change of the quantity may leave, None if there is none. A
    raise that is not settled counts for nobody but its own operation.
    """
    return seats.total if lowest_target is None else min(seats.total, lowest_target)


def lacking(seats: Seats, within: int, *, freed: int = 0, added: int = 0) -> dict[str, int] | None:
    """Return the figures of `seat_limit_reached`; None if everybody fits into `within` seats (`capacity`)."""
    needed = required(seats, freed=freed, added=added)
    return {"total": seats.total, "used": seats.used, "required": needed} if needed > within else None


def check_floor(seats: Seats, left: int) -> None:
    """Shrinking below what is used or promised is refused; a plan that is over-allocated already may grow.

    Raises Conflict `seats_in_use` with the figures.
    """
    taken = required(seats)
    if left < seats.total and left < taken:
        raise Conflict(
            "More seats are in use than this would leave.",
            code="seats_in_use",
            members={"used": taken, "requested": left},
        )


def total_after_release(seats: Seats, removed: int) -> int:
    """Return the seats left when those of `removed` members are given back: at least 1, and all that are taken."""
    return max(1, required(seats), seats.total - removed)


def purchase_item(items: list[SeatItem], asked: SubscriptionItemId | None) -> SeatItem:
    """The item whose quantity a purchase of seats changes: the only one that gives seats, or the one named.

    Raises Conflict `not_shareable`, InvalidRequest `seat_item_ambiguous` or `invalid_request`.
    """
    giving = [item for item in items if item.gives_seats]
    if not giving:
        raise Conflict("No product of this subscription supports sharing.", code="not_shareable")
    if asked is not None:
        for item in giving:
            if item.id == asked:
                return item
        raise InvalidRequest("subscription_item_id names no item of this subscription that gives seats.")
    if len(giving) > 1:
        raise InvalidRequest(
            "Several items of this subscription give seats: name one in subscription_item_id.",
            code="seat_item_ambiguous",
        )
    return giving[0]
