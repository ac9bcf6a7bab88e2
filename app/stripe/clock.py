"""Compare this machine's clock with Stripe's, by the date of each answer.

The order of what happens never depends on this machine's clock. But the signature of a delivery is valid for five
minutes, so a clock that is further off refuses all of them.
"""

from __future__ import annotations


class StripeClock:
    """The last comparison. `skew` is in seconds, positive if this machine is ahead, None before the first answer."""

    def __init__(self) -> None:
        self.skew: float | None = None

    def note(self, date: int, began: float, ended: float) -> None:
        """Compare the Unix second of an answer's date, 0 without one, with the times of request and answer here.

        Stripe's clock was somewhere within that second, and ours somewhere between request and answer. If both can be
        the same moment, the clocks agree.
        """
        if date:
            self.skew = max(0.0, began - (date + 1)) - max(0.0, date - ended)
