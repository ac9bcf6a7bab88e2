"""What a step of an operation on people does, in the order in which an operation runs its steps."""

from __future__ import annotations

from enum import StrEnum


class StepKind(StrEnum):
    """Control moves first, seats are freed before they are filled, and bought before anybody is added to them."""

    SET_OWNER = "set_owner"
    REMOVE = "remove"
    UPDATE = "update"
    BUY_SEATS = "buy_seats"
    ADD = "add"
