"""The kinds of steps of an operation on people, in the order in which they run."""

from __future__ import annotations

from enum import StrEnum


class StepKind(StrEnum):
    """Control moves first; seats are freed before they are filled, and bought before anybody is added to them.

    Seats are given back last, when it is known who was removed and who was added.
    """

    SET_OWNER = "set_owner"
    REMOVE = "remove"
    UPDATE = "update"
    BUY_SEATS = "buy_seats"
    ADD = "add"
    RELEASE_SEATS = "release_seats"
