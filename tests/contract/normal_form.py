"""The same answer, whenever and wherever it was given: ids numbered as they appear, instants set to one day.

A run starts on 15 January 2026. What falls within half a day of it is that noon; one or two months, a year or a whole
number of days later stays so, which is all that an example has to say of time.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
LATER = {
    range(28, 32): datetime(2026, 2, 15, 12, tzinfo=UTC),
    range(59, 63): datetime(2026, 3, 15, 12, tzinfo=UTC),
    range(365, 367): datetime(2027, 1, 15, 12, tzinfo=UTC),
}
"""One month, two months and a year, by the days that they may have."""
CURSOR = "b3BhcXVl"

# Ids of the demonstration data are short and stay as they are.
_ID = re.compile(r"(?<![A-Za-z0-9])([a-z]{2,6})_([A-Za-z0-9]{14,})(?![A-Za-z0-9])")
_TOKEN = re.compile(r"(inv_[0-9a-f]{24}\.[0-9]+)\.[A-Za-z0-9_-]{43}")
_SECRET = re.compile(r"_secret_[A-Za-z0-9]+")
_SIGNING_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{43}=")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_DAY_IN_TEXT = re.compile(r"\b\d{1,2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4}\b")
_INVOICE_NUMBER = re.compile(r"\b[A-Z0-9]{8}-(\d{4})\b")


class NormalForm:
    """One run's; `started` is when its first request left."""

    def __init__(self, started: datetime) -> None:
        self._started = started
        self._known: dict[str, str] = {}
        self._count: dict[str, int] = {}

    def of(self, value: Any) -> Any:
        match value:
            case str():
                return self._text(value)
            case dict():
                return {
                    name: CURSOR if name == "next_cursor" and member is not None else self.of(member)
                    for name, member in value.items()
                }
            case list():
                return [self.of(member) for member in value]
            case _:
                return value

    def _text(self, text: str) -> str:
        text = _TOKEN.sub(rf"\1.{'0123456789' * 4}ABC", text)
        text = _SECRET.sub("_secret_0123456789", text)
        text = _SIGNING_SECRET.sub(f"whsec_{'0123456789' * 4}ABC=", text)
        text = _INSTANT.sub(lambda found: self._instant(found[0]), text)
        text = _DAY_IN_TEXT.sub("15 Jan 2026", text)
        text = _INVOICE_NUMBER.sub(r"COSEAT00-\1", text)
        return _ID.sub(lambda found: self._id(found[0], found[1], len(found[2])), text)

    def _id(self, whole: str, prefix: str, length: int) -> str:
        if whole not in self._known:
            self._count[prefix] = number = self._count.get(prefix, 0) + 1
            self._known[whole] = f"{prefix}_{number:0{length}d}"
        return self._known[whole]

    def _instant(self, text: str) -> str:
        days = round((datetime.fromisoformat(text) - self._started) / timedelta(days=1))
        moment = next((at for span, at in LATER.items() if days in span), NOON + timedelta(days=days))
        return moment.isoformat().replace("+00:00", "Z")
