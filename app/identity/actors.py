"""From a verified credential to the customer who acts: rule 11 of the decisions, and nowhere else.

The link (issuer, subject) to customer is written once, unique both ways, and never made from an e-mail here.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.context import Context
from app.domain.ids import CustomerId
from app.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from app.identity import store as identities
from app.identity.principals import Anonymous, EndUser, Principal, ServiceKey
from app.postgres.database import Connection
from app.settings import Scope


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. `customer_id` is None for a key that acts for nobody, and for a person without a customer yet."""

    principal: Principal
    customer_id: CustomerId | None

    @property
    def is_service(self) -> bool:
        """A key acting for nobody: limited by its scopes, not by a role."""
        return isinstance(self.principal, ServiceKey) and self.principal.acting_customer is None

    @property
    def is_admin(self) -> bool:
        return self.is_service and isinstance(self.principal, ServiceKey) and "admin" in self.principal.scopes

    def require_scope(self, scope: Scope) -> None:
        """Keys need the scope even when clamped to a customer; `admin` includes `write`, `write` includes `read`."""
        if isinstance(self.principal, ServiceKey):
            enough: dict[Scope, set[Scope]] = {
                "read": {"read", "write", "admin"},
                "write": {"write", "admin"},
                "admin": {"admin"},
            }
            if self.principal.scopes.isdisjoint(enough[scope]):
                raise Forbidden(f"This service key lacks the scope {scope}.", code="scope_required")

    def customer(self, path_id: str) -> CustomerId:
        """The customer that a path names: `me`, the actor himself, or anybody for a service key.

        Raises NotFound for somebody else's id, `customer_not_linked` for a person without a customer.
        """
        if self.is_service:
            if path_id == "me":
                raise InvalidRequest("A service key must say for whom it acts: X-Acting-Customer, or an id.")
            return CustomerId(path_id)
        if self.customer_id is None:
            raise NotFound("No customer is linked to this login yet.", code="customer_not_linked")
        if path_id not in ("me", self.customer_id):
            raise NotFound()
        return self.customer_id


async def identify(context: Context, principal: Principal) -> Actor:
    """Raises Unauthenticated for nobody, Forbidden `identity_conflict` where claim and link disagree."""
    if not isinstance(principal, EndUser):
        return _without_link(principal)
    async with context.database.connection() as connection:
        return await identify_on(connection, principal)


async def identify_on(connection: Connection, principal: Principal) -> Actor:
    """As `identify`, on a connection that the caller's own read goes on to use: one loan of the pool, not two."""
    if not isinstance(principal, EndUser):
        return _without_link(principal)
    return Actor(principal, await _linked(connection, principal))


def _without_link(principal: Anonymous | ServiceKey) -> Actor:
    if isinstance(principal, Anonymous):
        raise Unauthenticated()
    return Actor(principal, principal.acting_customer)


async def _linked(connection: Connection, user: EndUser) -> CustomerId | None:
    linked = await identities.customer_of(connection, user.issuer, user.subject)
    claimed = user.customer_claim
    if linked is not None:
        if claimed not in (None, linked):
            raise _conflict()
        return linked
    if claimed is not None:
        if not await identities.is_present(connection, claimed):
            return None
        if await identities.link(connection, user.issuer, user.subject, claimed):
            return claimed
        return await _after_race(connection, user, claimed)
    named = await identities.customer_by_user_id(connection, user.subject)
    if named is None:
        # Nobody, or a call of the same person linked him between the two looks.
        return await identities.customer_of(connection, user.issuer, user.subject)
    if await identities.link(connection, user.issuer, user.subject, named):
        return named
    return await identities.customer_of(connection, user.issuer, user.subject)


async def _after_race(connection: Connection, user: EndUser, claimed: CustomerId) -> CustomerId:
    if await identities.customer_of(connection, user.issuer, user.subject) != claimed:
        raise _conflict()
    return claimed


def _conflict() -> Forbidden:
    return Forbidden("This login and that customer are not linked to each other.", code="identity_conflict")
