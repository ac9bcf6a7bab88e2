"""A Stripe of one object and the keys of one step: what a request may do, and when.

The memory of a key, requests that run after their answer is gone, and people who edit the object in the Dashboard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

MOST_OPEN = 2
"""Requests that run unanswered at the same time."""


class Kept(StrEnum):
    """What a key remembers."""

    SUCCESS = "success"
    ERROR = "error"
    REJECTION = "rejection"


class Invoice(StrEnum):
    """The invoice of a pending update, as its purchase sees it."""

    OPEN = "open"
    PAID = "paid"
    VOID = "void"


class Reply(StrEnum):
    """What the service sees of one request."""

    SUCCESS = "success"
    REPLAYED_SUCCESS = "replayed success"
    STORED_5XX = "5xx that is kept"
    MARKED_5XX = "5xx that is kept, marked by Stripe-Should-Retry: false"
    REPLAYED_5XX = "replayed 5xx"
    PROXY_5XX = "5xx of a proxy"
    REJECTION = "4xx about the request"
    REPLAYED_REJECTION = "replayed 4xx"
    TURNED_AWAY = "401, 403, 409 or 429"
    NONE = "no answer"


@dataclass(frozen=True, slots=True)
class Stripe:
    """`keys`: what each key remembers, by its number. `running`: the keys of requests that may yet execute.

    `effects`: how often the step was executed. `visible`: the object shows the effect now; `shown`: its events do.
    `edits` and `faults`: how many edits in the Dashboard and how many faulty replies may still come.
    `keeps_answers`: False for a DELETE, of which no key remembers anything. It ends its object: that happens once,
    nobody undoes it, and a later request gets a 404.
    """

    keys: tuple[Kept | None, ...]
    edits: int
    faults: int
    running: tuple[int, ...] = ()
    effects: int = 0
    visible: bool = False
    shown: bool = False
    invoice: Invoice | None = None
    keeps_answers: bool = True

    @property
    def is_gone(self) -> bool:
        """True if the object has ended, so that no request can change it any more."""
        return self.visible and not self.keeps_answers

    @property
    def may_take_effect(self) -> bool:
        """True if a request that was sent can still change the object."""
        return not self.is_gone and any(self.keys[key] is None for key in self.running)

    def execute(self, key: int, *, by_payment: bool) -> Stripe:
        """The change takes effect; with `by_payment` it is a pending update until its invoice is paid."""
        if self.is_gone:
            return self
        if by_payment:
            return replace(self, effects=self.effects + 1, invoice=Invoice.OPEN)
        return replace(self, effects=self.effects + 1, visible=True, shown=True)

    def keep(self, key: int, kept: Kept) -> Stripe:
        if not self.keeps_answers:
            return self
        keys = list(self.keys)
        keys[key] = kept
        return replace(self, keys=tuple(keys))


_REPLAYS = {
    Kept.SUCCESS: Reply.REPLAYED_SUCCESS,
    Kept.ERROR: Reply.REPLAYED_5XX,
    Kept.REJECTION: Reply.REPLAYED_REJECTION,
}


def handle(stripe: Stripe, key: int, *, by_payment: bool) -> Iterator[tuple[Reply, Stripe]]:
    """Yield everything that one request with the key may lead to, the faulty replies while there are any left."""
    kept = stripe.keys[key]
    if stripe.is_gone:
        yield Reply.REJECTION, stripe
    elif kept is None:
        executed = stripe.execute(key, by_payment=by_payment)
        yield Reply.SUCCESS, executed.keep(key, Kept.SUCCESS)
    else:
        yield _REPLAYS[kept], stripe
    if stripe.faults == 0:
        return
    rest = replace(stripe, faults=stripe.faults - 1)
    yield Reply.TURNED_AWAY, rest
    yield Reply.PROXY_5XX, rest
    yield Reply.NONE, rest
    if len(rest.running) < MOST_OPEN:
        running = replace(rest, running=tuple(sorted((*rest.running, key))))
        yield Reply.PROXY_5XX, running
        yield Reply.NONE, running
    # Stripe checks parameters before it looks at the key, so such a refusal is not kept and says nothing of others.
    yield Reply.REJECTION, rest
    if kept is not None:
        return
    yield Reply.REJECTION, rest.keep(key, Kept.REJECTION)
    for reply in (Reply.STORED_5XX, Reply.MARKED_5XX):
        yield reply, rest.keep(key, Kept.ERROR)
        yield reply, rest.execute(key, by_payment=by_payment).keep(key, Kept.ERROR)


def moves(stripe: Stripe, *, by_payment: bool) -> Iterator[tuple[str, Stripe]]:
    """Yield what happens at Stripe without the service: late executions, edits, the end of a payment."""
    for key in sorted(set(stripe.running)):
        left = list(stripe.running)
        left.remove(key)
        ended = replace(stripe, running=tuple(left))
        if stripe.keys[key] is not None:
            yield f"a late request with key {key} gets the kept answer", ended
            continue
        executed = ended.execute(key, by_payment=by_payment)
        yield f"a late request with key {key} executes", executed.keep(key, Kept.SUCCESS)
        yield f"a late request with key {key} executes and fails", executed.keep(key, Kept.ERROR)
        yield f"a late request with key {key} is refused", ended.keep(key, Kept.REJECTION)
        yield f"a late request with key {key} is lost", ended
    if stripe.edits and not stripe.is_gone:
        edited = replace(stripe, edits=stripe.edits - 1, visible=not stripe.visible)
        yield "somebody edits the object in the Dashboard", edited
    if stripe.invoice is Invoice.OPEN:
        yield "the payment succeeds", replace(stripe, invoice=Invoice.PAID, visible=True, shown=True)
        yield "the payment succeeds without an effect", replace(stripe, invoice=Invoice.PAID)
        yield "the payment fails or is abandoned", replace(stripe, invoice=Invoice.VOID)
