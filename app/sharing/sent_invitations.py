"""Render an invitation as it is sent to a webhook endpoint, which is the only event with an address and a token."""

from __future__ import annotations

from app.context import Context
from app.domain.snapshots import JsonObject
from app.events.delivering import Render
from app.sharing import invitation_store
from app.sharing.invitation_tokens import InvitationTokens, TokenName


def renderer(context: Context, tokens: InvitationTokens) -> Render:
    """Return the function that adds the address and the token of the current generation to `invitation.created`.

    Both are null once the invitation has ended, or its person was erased.
    """

    async def render(event: JsonObject) -> JsonObject:
        if event["type"] != "invitation.created":
            return event
        async with context.database.connection() as connection:
            found = await invitation_store.one(connection, event["data"]["invitation_id"])
        email = token = None
        if found is not None and found.state == "open" and found.email is not None:
            email = found.email
            token = tokens.make(TokenName(found.id, found.generation))
        return {**event, "data": {**event["data"], "email": email, "token": token}}

    return render
