"""Faults that a test orders: each answers to matching requests a limited number of times."""

from dataclasses import dataclass
from typing import Any

from .errors import ApiError, invalid
from .objects import Obj
from .world import World

HANG_SECONDS = 3600.0


@dataclass(slots=True)
class Fault:
    """What goes wrong with a request.

    ``status`` answers with an error, ``timeout`` (seconds, or true) keeps silent and then drops the connection,
    ``late_s`` executes that many seconds after the client has gone; with a ``status`` it answers that error at once and
    executes that many seconds later, storing nothing under the key (unless ``save``, which then stores the late
    answer). ``truncate`` cuts the body, ``latency_s`` delays the execution and ``answer_s`` the answer to it.
    ``effect`` says whether the request executes before the fault shows (``after``) or not at all (``before``);
    ``object`` is an id in the path, ``customer`` the one that the request names as a parameter.
    ``save`` stores the error under the idempotency key. ``proxy`` answers the ``status`` with a page in HTML and
    without a request id, as something in front of Stripe does. ``times`` 0 never runs out.
    """

    method: str = "*"
    path: str = "*"
    status: int | None = None
    code: str | None = None
    message: str | None = None
    timeout: float | bool | None = None
    late_s: float | None = None
    latency_s: float = 0.0
    answer_s: float = 0.0
    truncate: bool = False
    effect: str = "before"
    save: bool = False
    proxy: bool = False
    times: int = 1
    probability: float = 1.0
    object: str | None = None
    customer: str | None = None
    id: int = 0
    used: int = 0

    def dump(self) -> Obj:
        return {name: getattr(self, name) for name in self.__slots__}


class Faults:
    def __init__(self) -> None:
        self._active: list[Fault] = []
        self._next = 1
        self._odd: dict[str, Obj] = {}

    def add(self, given: dict[str, Any]) -> Fault:
        known = set(Fault.__slots__) - {"id", "used"}
        strange = set(given) - known
        if strange:
            raise invalid(f"Unknown fault field: {min(strange)}; known: {', '.join(sorted(known))}")
        fault = Fault(**given)
        if fault.timeout is True:
            fault.timeout = HANG_SECONDS
        if fault.effect not in ("before", "after"):
            raise invalid("effect is before or after", "effect")
        fault.id, self._next = self._next, self._next + 1
        self._active.append(fault)
        return fault

    def clear(self, identifier: int | None = None) -> int:
        before = len(self._active)
        self._active = [fault for fault in self._active if identifier is not None and fault.id != identifier]
        if identifier is None:
            self._odd.clear()
        return before - len(self._active)

    def show_odd(self, identifier: str, fields: Obj) -> None:
        """Shows these fields of an object in every answer, whatever the object is; without fields as it is."""
        if fields:
            self._odd[identifier] = fields
        else:
            self._odd.pop(identifier, None)

    def shown(self, answer: Obj) -> Obj:
        """The answer with the odd fields of its objects."""
        return self._overlaid(answer) if self._odd else answer

    def _overlaid(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._overlaid(one) for one in value]
        if not isinstance(value, dict):
            return value
        whole = {name: self._overlaid(one) for name, one in value.items()}
        identifier = value.get("id")
        return {**whole, **self._odd.get(identifier, {})} if isinstance(identifier, str) else whole

    def all(self) -> list[Fault]:
        return list(self._active)

    def take(
        self, world: World, method: str, template: str, ids: list[str], customer: object = None
    ) -> Fault | None:
        """The first fault that fits; one use of it is spent. ``times`` 0 never runs out."""
        for fault in self._active:
            if fault.method not in ("*", method) or fault.path not in ("*", template):
                continue
            if fault.object is not None and fault.object not in ids:
                continue
            if fault.customer is not None and fault.customer != customer:
                continue
            if fault.times and fault.used >= fault.times:
                continue
            if fault.probability < 1.0 and world.random.random() >= fault.probability:
                continue
            fault.used += 1
            return fault
        return None


def error_of(fault: Fault) -> ApiError:
    """The error that a fault with a status answers with, as Stripe words it."""
    status = fault.status or 500
    if status == 429:
        if fault.code == "lock_timeout":
            return ApiError(
                429,
                fault.message
                or "This object cannot be accessed right now because another API request or Stripe process is "
                "currently "
                "accessing it. If you see this error intermittently, retry the request.",
                code="lock_timeout",
                stored=False,
                headers={"Stripe-Should-Retry": "true"},
            )
        return rate_limited("fault")
    if status >= 500:
        message = (
            fault.message
            or "An unknown error occurred. Please retry the request with the same idempotency key."
        )
        return ApiError(status, message, kind="api_error", code=fault.code, stored=fault.save)
    if status == 401:
        return ApiError(401, fault.message or "Invalid API Key provided: sk_test_***", stored=False)
    if status == 402:
        return ApiError(
            402,
            fault.message or "Your card was declined.",
            kind="card_error",
            code=fault.code or "card_declined",
            decline_code="generic_decline",
            stored=fault.save,
        )
    return ApiError(status, fault.message or "Simulated fault.", code=fault.code, stored=fault.save)


def rate_limited(reason: str) -> ApiError:
    return ApiError(
        429,
        "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.",
        code="rate_limit",
        stored=False,
        headers={"Stripe-Rate-Limited-Reason": reason},
    )
