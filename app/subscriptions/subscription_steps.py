"""What the steps on a subscription that exists have in common."""

from __future__ import annotations

from dataclasses import replace

from app.context import Context
from app.domain.snapshots import JsonObject
from app.operations import store as operations
from app.operations.kinds import Steps
from app.operations.rows import Operation, Step
from app.operations.sending import SUBSCRIPTION_CHANGES


class SubscriptionSteps(Steps):
    """Steps that write the operation's subscription."""

    object_kind = "subscription"
    event_types = SUBSCRIPTION_CHANGES

    def object_id(self, operation: Operation, step: Step) -> str | None:
        """Return the id of the operation's subscription."""
        return operation.subscription_id


async def keep(context: Context, operation: Operation, step: Step, details: JsonObject) -> Step:
    """Store what is decided of a step before it is sent, so that a retry of its key sends the same."""
    async with context.database.connection() as connection:
        await operations.add_details(connection, operation.id, step.position, details)
    return replace(step, details={**step.details, **details})
