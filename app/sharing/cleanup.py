"""Do the work that no request asks for: end invitations, and clear the metadata of members of ended subscriptions.

An ended subscription has no seats. But the metadata of its members still names it, and the Dashboard shows it.
"""

from __future__ import annotations

import secrets
from uuid import uuid4

from app.context import Context
from app.domain.statuses import ENDED
from app.mirror.store import members
from app.operations import store as operations
from app.operations.runner import run
from app.operations.step_kinds import StepKind
from app.sharing import invitation_store

BATCH = 20
SYSTEM = "system:cleanup"


async def clear_ended(context: Context) -> int:
    """Clear a batch of members of one ended subscription; return their number."""
    async with context.database.transaction() as connection:
        found = await members.of_ended_subscription(connection, ended=sorted(ENDED), limit=BATCH)
        if found is None:
            return 0
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
    await run(context, operation_id, token)
    return len(people)


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
