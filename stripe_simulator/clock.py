"""One clock per account: real time by default, shifted or frozen on request."""

import time


class Clock:
    def __init__(self) -> None:
        self.offset = 0.0
        self.frozen: float | None = None

    def now(self) -> float:
        """Seconds since the epoch, as this account sees them."""
        return self.frozen if self.frozen is not None else time.time() + self.offset

    def freeze(self, moment: float) -> None:
        self.frozen = moment

    def unfreeze(self) -> None:
        """Runs on from the frozen moment."""
        if self.frozen is not None:
            self.offset = self.frozen - time.time()
            self.frozen = None

    def move_to(self, moment: float) -> None:
        if self.frozen is not None:
            self.frozen = moment
        else:
            self.offset = moment - time.time()

    def state(self) -> dict[str, float | None]:
        return {"offset": self.offset, "frozen": self.frozen}

    def restore(self, state: dict[str, float | None]) -> None:
        self.offset = state["offset"] or 0.0
        self.frozen = state["frozen"]
