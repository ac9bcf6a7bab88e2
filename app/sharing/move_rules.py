"""The rules of an operation that moves a seat: the person's customer joins first, then the unclaimed one leaves."""

from __future__ import annotations

from collections.abc import Sequence

from app.context import Context
from app.customers.store import seat_moves
from app.domain.ids import CustomerId
from app.domain.statuses import ENDED
from app.mirror.store import members
from app.operations import store as operations
from app.operations.kinds import Phase, Refused, Steps, Wait
from app.operations.lifecycle import NOT_MADE, Event
from app.operations.rows import Operation, Step
from app.operations.sending import locked_view
from app.operations.step_kinds import StepKind
from app.postgres.database import Connection
from app.sharing.member_steps import MemberSteps


class MoveRules:
    """The rulebook of moves. Nobody's permission is asked: the seat was given to this person's address."""

    phases: Sequence[Phase] = (Phase(StepKind.UPDATE), Phase(StepKind.ADD), Phase(StepKind.REMOVE))

    def steps_of(self, step: Step) -> Steps:
        """Return the calls and records around this step."""
        return MemberSteps()

    async def permitted(
        self, context: Context, operation: Operation, steps: Sequence[Step], give_up: float
    ) -> list[Step]:
        """Return all steps."""
        return list(steps)

    async def ready(
        self, context: Context, operation: Operation, phase: Phase, batch: Sequence[Step]
    ) -> list[Step] | None:
        """Return the steps of a phase; the removal only once the person's customer is a member.

        If that failed, the removal is refused, and the seat stays where it is.
        """
        if phase.action != StepKind.REMOVE:
            return list(batch)
        async with context.database.transaction() as connection:
            steps = await operations.steps(connection, operation.id)
            joining = [step for step in steps if step.action != StepKind.REMOVE]
            if not all(step.is_settled for step in joining):
                return []
            failed = next((step for step in joining if step.state in NOT_MADE), None)
            if failed is None:
                return list(batch)
            for step in batch:
                if not step.was_sent:
                    code = failed.code or "changed_meanwhile"
                    await operations.transition(connection, operation.id, step, Event.RULE_REFUSES, code=code)
        return [step for step in batch if step.was_sent]

    async def check(
        self, context: Context, connection: Connection, operation: Operation, step: Step
    ) -> Refused | Wait | None:
        """Judge a step right before it is sent, under the subscription's lock.

        The person joins only while the seat is unclaimed, and the unclaimed seat ends only while the person has theirs.
        """
        view = await locked_view(connection, operation.subscription_id, operation.actor_id)
        if view is None or operation.actor_id is None:
            return Refused("not_shareable")
        if step.action == StepKind.REMOVE:
            is_owner = view.owner is not None and view.owner.customer_id == operation.actor_id
            has_seat = is_owner or await members.is_member(connection, view.id, operation.actor_id)
            return None if has_seat else Refused("changed_meanwhile")
        steps = await operations.steps(connection, operation.id)
        holder = next(one.customer_id for one in steps if one.action == StepKind.REMOVE)
        found = await seat_moves.one_unclaimed(
            connection,
            operation.actor_id,
            operation.subscription_id,
            holder=CustomerId(str(holder)),
            ended=sorted(ENDED),
        )
        return None if found is not None else Refused("changed_meanwhile")
