"""Do the work that no request asks for: end invitations, and clear the metadata of members of ended subscriptions.

An ended subscription has no seats. But the metadata of its members still names it, and the Dashboard shows it. If
Stripe refuses a member, they are tried again after a pause, and the other members are cleared first.
"""

from __future__ import annotations

import secrets
from uuid import uuid4

from app.context import Context
from app.domain.statuses import ENDED
from app.mirror.store import members
from app.operations import store as operations
from app.operations.kinds import Ending
from app.operations.runner import run
from app.operations.step_kinds import StepKind
from app.sharing import invitation_store

BATCH = 20
PAUSE_SECONDS = 600.0
"""Seconds after which a member whose clean-up failed is tried again."""
SYSTEM = "system:cleanup"
_VAIN_BATCHES = 5


async def clear_all_ended(context: Context) -> None:
    """Clear ended subscriptions, batch by batch, until none is left or several batches in a row cleared nobody.

    Nobody waits for it, so its calls to Stripe count as background work.
    """
    in_background, in_vain = context.doing("refresh"), 0
    while in_vain < _VAIN_BATCHES and (cleared := await clear_ended(in_background)) is not None:
        in_vain = 0 if cleared else in_vain + 1


async def clear_ended(context: Context) -> int | None:
    """Clear a batch of members of one ended subscription; return the number of those who were cleared.

    None if no ended subscription has members who may be tried now.
    """
    async with context.database.transaction() as connection:
        found = await members.of_ended_subscription(
            connection, ended=sorted(ENDED), limit=BATCH, pause=PAUSE_SECONDS
        )
        if found is None:
            return None
        subscription_id, people = found
        operation_id, token = f"op_{secrets.token_hex(12)}", uuid4()
        await operations.insert(
            connection,
            operation_id=operation_id,
            subscription_id=subscription_id,
            kind="cleanup",
            principal=SYSTEM,
            actor_id=None,
            source="api",
            request={},
            steps=[
                {
                    "position": position,
                    "action": StepKind.REMOVE.value,
                    "customer_id": customer_id,
                    "state": "planned",
                    "details": {},
                }
                for position, customer_id in enumerate(people)
            ],
            lease_token=token,
            lease_seconds=context.rules.operation_lease,
        )
    results = await run(context, operation_id, token)
    return sum(one.ending is Ending.SETTLED and one.error is None for one in results)


async def end_invitations(context: Context) -> int:
    """End the invitations whose term is over, and blank the addresses of those that ended over 30 days ago.

    Returns:
        The number of invitations that ended.
    """
    number = 0
    async with context.database.connection() as connection:
        while ended := await invitation_store.expire_due(connection):
            number += ended
        while await invitation_store.blank_old_addresses(connection):
            pass
    return number
