"""Which rulebook binds the operations of which kind: handed to the runner when the context is opened."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from app.operations.kinds import Rulebook
from app.sharing.invitation_store import ACCEPT_INVITATION
from app.sharing.move_rules import MoveRules
from app.sharing.people_rules import PeopleRules
from app.subscriptions.subscription_rules import SUBSCRIPTION_RULEBOOKS

PEOPLE = PeopleRules()
RULEBOOKS: Mapping[str, Rulebook] = MappingProxyType(
    {
        "member_change": PEOPLE,
        "leave": PEOPLE,
        "transfer": PEOPLE,
        "cleanup": PEOPLE,
        "move": MoveRules(),
        ACCEPT_INVITATION: PEOPLE,
        **SUBSCRIPTION_RULEBOOKS,
    }
)
