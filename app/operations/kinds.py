"""What a kind of step is: pure functions of what was read, and the calls and records around them.

The runner knows nothing of members, owners or seats. A room that owns a kind hands it to the runner in a `Rulebook`,
one for each kind of operation, when the context is opened.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, ClassVar, NamedTuple, Protocol, cast
from uuid import UUID

from app.context import Context
from app.domain.payments import PaymentStep
from app.domain.snapshots import Customer, JsonObject, Snapshot
from app.errors import BillingError
from app.operations.rows import AwaitedInvoice, Operation, Step
from app.operations.sending import may_come_late
from app.postgres.database import Connection
from app.stripe.client import Write
from app.stripe.gateway import Fetched

Params = Mapping[str, Any]
Changes = Sequence[tuple[str, Mapping[str, str]]]
"""Objects that requests of the step changed, by Stripe's events: ids, and the metadata left then."""


class Fact(StrEnum):
    """What is known beside the object itself."""

    NO_MEMBERSHIP_IS_FREE = "the customer is on as many live subscriptions as one person may be"
    GUIDES_KEYS_ARE_TAKEN = "the guide's keys, which the step writes, name another live subscription by now"
    OWNER_IS_ABSENT = "the customer named as owner of the subscription does not exist"
    UPDATE_IS_OURS = "the pending update of the subscription is one that an attempt of the step made"


@dataclass(frozen=True, slots=True)
class Seen:
    """The step's object as Stripe has it now; `snapshot` None: there is no such object."""

    snapshot: Snapshot | None
    facts: frozenset[Fact] = frozenset()


@dataclass(frozen=True, slots=True)
class Send:
    """The write is needed, with these parameters."""

    params: Params


@dataclass(frozen=True, slots=True)
class Done:
    """The object is as the step wants it. `again`: the parameters of a write that would change nothing.

    Without `again` the write must not be sent any more, because it would undo what somebody has done since.
    """

    again: Params | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A rule of ours refuses the step. `details`: numbers for the caller."""

    code: str
    details: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """There is nothing to do, and nothing was done before."""


@dataclass(frozen=True, slots=True)
class Held:
    """Stripe accepted the step's write, and holds it back until its invoice is paid."""


Wanted = Send | Done | Refused | Unchanged | Held


@dataclass(frozen=True, slots=True)
class Wait:
    """The step cannot be judged yet; it is tried again after a pause."""

    why: str


class Kind(Protocol):
    """One step's intent, as typed parameters. Nothing in it does I/O."""

    def wanted(self, seen: Seen) -> Wanted:
        """Decide from what was read before anything is sent."""
        ...

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if the object is as the step wants it."""
        ...

    def evidence(self, changes: Changes) -> bool:
        """Return True if the step took effect, even if somebody has undone it since."""
        ...


class AnyChangeProves:
    """A kind that took effect if a request of the step changed anything."""

    __slots__ = ()

    def evidence(self, changes: Changes) -> bool:
        """Return True if any event shows a change by the step."""
        return bool(changes)


class Answer(Protocol):
    """Stripe's answer to a write.

    The object as it is then, and what else its steps read in it.
    """

    @property
    def fetched(self) -> Fetched:
        """Return the object as it is after the write."""
        ...


class Steps(ABC):
    """The calls and records around one kind. A subclass overrides what its kind needs.

    `object_kind`: the object that is written, as the mirror names it. `event_types`: Stripe's events that name the
    effect. `counts_once_made`: a write that Stripe accepted is applied, even if somebody has undone it since, because
    its money has moved.
    """

    object_kind: ClassVar[str]
    event_types: ClassVar[str]
    counts_once_made: ClassVar[bool] = False

    @abstractmethod
    def kind_of(self, operation: Operation, step: Step) -> Kind:
        """Return the step's intent as typed parameters."""
        ...

    @abstractmethod
    def object_id(self, operation: Operation, step: Step) -> str | None:
        """Return the object's id; None if the step creates it."""

    @abstractmethod
    def write(self, context: Context, operation: Operation, step: Step, params: Params) -> Write[Any]:
        """Return the write that is sent with these parameters; its result is an `Answer`."""

    async def tried(
        self, context: Context, operation: Operation, step: Step, trying: Callable[[], Awaitable[Ended]]
    ) -> Ended:
        """Return what `trying` returns; a kind whose failures are counted takes note of them.

        Raises:
            BillingError: What `trying` raises, or too much has failed, and nothing is tried.
        """
        return await trying()

    async def decided(self, context: Context, operation: Operation, step: Step) -> Step:
        """Decide, before anything is read, what every attempt of the step has to keep."""
        return step

    async def facts(
        self, context: Context, operation: Operation, step: Step, found: Fetched
    ) -> frozenset[Fact]:
        """Read what `Kind.wanted` needs beside the object."""
        return frozenset()

    async def prepared(
        self, context: Context, operation: Operation, step: Step, found: Fetched, params: Params
    ) -> tuple[Step, Params]:
        """Complete the parameters of a first sending, and keep them for the retries of its key.

        Raises:
            BillingError: The write must not be sent.
        """
        return step, params

    def judged(self, operation: Operation, step: Step, snapshot: Snapshot | None) -> Step:
        """Return the step as permissions judge it, with the object's present state."""
        return step

    async def created(self, context: Context, operation: Operation, step: Step) -> Answer | None:
        """Find what an earlier request of a creating step created, by its mark or by Stripe's events."""
        return None

    def code_of(self, error: BillingError) -> str:
        """Return the code of a step that Stripe refused."""
        return error.code

    def is_gone(self, snapshot: Snapshot | None) -> bool:
        """Return True if no request of the step can change the object any more."""
        return snapshot is None or (isinstance(snapshot, Customer) and snapshot.deleted)

    def instead(self, step: Step, error: BillingError) -> JsonObject | None:
        """Return what to keep for another attempt that Stripe may accept after this refusal; None: it is final."""
        return None

    def awaited(
        self,
        context: Context,
        operation: Operation,
        step: Step,
        snapshot: Snapshot | None,
        answer: Answer | None,
    ) -> AwaitedInvoice | None:
        """Return the invoice for which Stripe holds the write back; None if it took effect at once."""
        return None

    async def held_back(
        self, context: Context, operation: Operation, step: Step, snapshot: Snapshot | None
    ) -> AwaitedInvoice | None:
        """Find by Stripe's events the invoice for which a write was held back that its object does not show."""
        return None

    async def record(
        self,
        connection: Connection,
        operation: Operation,
        step: Step,
        snapshot: Snapshot | None,
        *,
        applied: bool,
    ) -> None:
        """Record what follows from the object beside the step, in the transaction that settles it or lets it wait."""
        return

    async def payment(self, context: Context, answer: Answer) -> PaymentStep | None:
        """Read what is left to pay after a write."""
        return None


class Phase(NamedTuple):
    """Steps of an operation that run at the same time.

    `after_purchase`: additions whose seats are bought first. `position`: of one of several writes that follow each
    other; None for steps at any position.
    """

    action: str
    after_purchase: bool = False
    position: int | None = None

    def includes(self, step: Step) -> bool:
        """Return True if the step belongs to this phase."""
        is_there = self.position is None or step.position == self.position
        return is_there and step.action == self.action and step.awaits_seats == self.after_purchase


class Rulebook(Protocol):
    """What binds the operations of one kind: the order of their steps, and what is checked before each."""

    @property
    def phases(self) -> Sequence[Phase]:
        """Return the phases in the order in which they run."""
        ...

    def steps_of(self, step: Step) -> Steps:
        """Return the calls and records around this step."""
        ...

    async def permitted(
        self, context: Context, operation: Operation, steps: Sequence[Step], give_up: float
    ) -> list[Step]:
        """Settle the unsent steps that the actor may no longer make; return the others.

        `give_up`: on the event loop's clock. It is over already for a worker, who tries each step once.
        """
        ...

    async def ready(
        self, context: Context, operation: Operation, phase: Phase, batch: Sequence[Step]
    ) -> list[Step] | None:
        """Return the steps of a phase that may run now; None: neither this phase nor any after it."""
        ...

    async def check(
        self, context: Context, connection: Connection, operation: Operation, step: Step
    ) -> Refused | Wait | None:
        """Judge a step in the transaction that records its first sending; None: it may be sent.

        Raises:
            BillingError: It must not be sent, and its caller learns why.
        """
        ...


class Ended(NamedTuple):
    """What became of one try.

    `answer`: what Stripe answered to its write, if it was accepted. `error`: why it failed, or why it is still open.
    `payment`: what is left to pay, if that was read.
    """

    ending: Ending
    answer: Answer | None = None
    error: BillingError | None = None
    payment: PaymentStep | None = None


class Ending(Enum):
    """How one try ended. `READABLE`: open, but Stripe keeps a 5xx, so a read may settle the step at once."""

    SETTLED = "settled"
    OPEN = "open"
    READABLE = "readable"


@dataclass(frozen=True, slots=True)
class Work:
    """A step as its row was read under the operation's lease.

    `token`: the lease, which is checked before anything is sent.
    """

    context: Context
    operation: Operation
    step: Step
    token: UUID
    rules: Rulebook

    @property
    def steps(self) -> Steps:
        """Return the calls and records around the step."""
        return self.rules.steps_of(self.step)

    @property
    def kind(self) -> Kind:
        """Return the step's intent."""
        return self.steps.kind_of(self.operation, self.step)

    @property
    def key(self) -> str:
        """Return the idempotency key: operation, step and attempt.

        It never contains the state that the step aims at.
        """
        return f"{self.operation.id}/{self.step.position}/{self.step.attempt}"

    @property
    def may_come_late(self) -> bool:
        """Return True if a request of the step may still take effect."""
        return may_come_late(self.context.rules, self.step)


def rulebook_of(context: Context, operation: Operation) -> Rulebook:
    """Return the rulebook of an operation.

    Raises:
        KeyError: the process was opened without rulebooks.
    """
    return cast("Rulebook", context.rulebooks[operation.kind])
