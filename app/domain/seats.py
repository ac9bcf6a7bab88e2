"""Count the seats of a subscription: bought, used and reserved.

Source: https://docs.stripe.com/billing/subscriptions/quantities
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from app.domain.ids import SubscriptionItemId
from app.errors import Conflict, InvalidRequest


class SeatItem(NamedTuple):
    """The fields of a subscription item on which seats depend.

    `shareable` and `owner_uses_seat` come from the item's product. `quantity` is None for a metered item.
    """

    id: SubscriptionItemId
    quantity: int | None
    metered: bool
    shareable: bool
    owner_uses_seat: bool | None

    @property
    def gives_seats(self) -> bool:
        """Return True if the item's quantity is a number of seats."""
        return self.shareable and not self.metered


class Seats(NamedTuple):
    """The seats of a subscription, all 0 or more.

    `used` counts the members, and the owner if the owner uses a seat. `reserved` counts the reservations of unsettled
    operations and of open invitations.
    """

    total: int
    used: int
    reserved: int

    @property
    def available(self) -> int:
        """Return the number of free seats, 0 or more."""
        return max(0, self.total - required(self))

    @property
    def over_allocated(self) -> int:
        """Return by how many seats use and reservations exceed what was bought, 0 or more."""
        return max(0, required(self) - self.total)

    def as_members(self) -> dict[str, int]:
        """Return the numbers as members of a JSON object."""
        return {
            "total": self.total,
            "used": self.used,
            "reserved": self.reserved,
            "available": self.available,
            "over_allocated": self.over_allocated,
        }


def total_seats(items: Iterable[SeatItem]) -> int:
    """Return the number of seats that were bought. Tiers and `transform_quantity` change prices, not seats."""
    return sum(item.quantity or 0 for item in items if item.gives_seats)


def is_shareable(items: Iterable[SeatItem]) -> bool:
    """Return True if at least one item gives seats."""
    return any(item.gives_seats for item in items)


def owner_takes_seat(items: Iterable[SeatItem], *, default: bool) -> bool:
    """Return True if the owner uses a seat. The products decide, or `default` if none of them says it.

    If products disagree, the owner uses a seat: one free seat too few is better than a seat that is sold twice.
    """
    said = [item.owner_uses_seat for item in items if item.gives_seats and item.owner_uses_seat is not None]
    return any(said) if said else default


def count_seats(
    items: list[SeatItem], *, members: int, reserved: int, has_owner: bool, owner_uses_seat: bool
) -> Seats:
    """Return the seats of a subscription.

    `members` is the number of members without the owner. `owner_uses_seat` is the setting for products that do not
    decide whether the owner uses a seat.
    """
    owner = 1 if has_owner and owner_takes_seat(items, default=owner_uses_seat) else 0
    return Seats(total=total_seats(items), used=members + owner, reserved=reserved)


def required(seats: Seats, *, freed: int = 0, added: int = 0) -> int:
    """Return the seats in use and reserved after `freed` of them are released and `added` more are filled."""
    return seats.used + seats.reserved - freed + added


def capacity(seats: Seats, lowest_target: int | None = None) -> int:
    """Return the seats that may be reserved: those that were bought, less what an unsettled change may remove.

    `lowest_target` is the smallest total that an unsettled change of the quantity may leave, or None. An unsettled
    raise counts only for its own operation.
    """
    return seats.total if lowest_target is None else min(seats.total, lowest_target)


def lacking(seats: Seats, within: int, *, freed: int = 0, added: int = 0) -> dict[str, int] | None:
    """Return the details of `seat_limit_reached`, or None if `within` seats (`capacity`) are enough.

    `used` counts the reserved seats too, as admission does.
    """
    needed = required(seats, freed=freed, added=added)
    return {"total": seats.total, "used": required(seats), "required": needed} if needed > within else None


def check_floor(seats: Seats, left: int) -> None:
    """Check that `left` seats are enough for those in use and reserved.

    A subscription that is over-allocated may get more seats, even if they are still too few.

    Raises:
        Conflict: `seats_in_use`, with the numbers of used and requested seats.
    """
    taken = required(seats)
    if left < seats.total and left < taken:
        raise Conflict(
            "More seats are in use than this would leave.",
            code="seats_in_use",
            members={"used": taken, "requested": left},
        )


def total_after_release(seats: Seats, removed: int) -> int:
    """Return the seats that are left when the seats of `removed` members are released.

    The result is at least 1, and at least the number of seats in use and reserved.
    """
    return max(1, required(seats), seats.total - removed)


def purchase_item(items: list[SeatItem], asked: SubscriptionItemId | None) -> SeatItem:
    """Return the item whose quantity a purchase of seats changes: `asked`, or the only one that gives seats.

    Raises:
        Conflict: `not_shareable` if no item gives seats.
        InvalidRequest: `seat_item_ambiguous` if several do and none was named, `invalid_request` if `asked` does not.
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
