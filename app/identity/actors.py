"""Find the customer that a verified credential acts as.

A login is the pair (issuer, subject). It is linked to one customer once, and a customer to one login; this module never
links by an e-mail. See docs/decisions/0024-identify-a-person-by-issuer-and-subject.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.context import Context
from app.domain.ids import CustomerId
from app.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from app.identity import acts
from app.identity import store as identities
from app.identity.principals import Anonymous, EndUser, Principal, ServiceKey
from app.identity.store import LinkedBy
from app.postgres.database import Connection
from app.postgres.failures import LOCKED, NoRoom, ReadOnly
from app.setting_service_keys import Scope

_READ_WAIT_MILLISECONDS = 200


@dataclass(frozen=True, slots=True)
class Actor:
    """The acting caller.

    `customer_id` is None for a service key that acts for no customer, and for a login without a customer.
    """

    principal: Principal
    customer_id: CustomerId | None

    @property
    def is_service(self) -> bool:
        """Return True for a service key that acts for no customer.

        Its scopes limit it, not a role.
        """
        return isinstance(self.principal, ServiceKey) and self.principal.acting_customer is None

    @property
    def is_admin(self) -> bool:
        """Return True for a service key with the scope `admin` that acts for no customer."""
        return self.is_service and isinstance(self.principal, ServiceKey) and "admin" in self.principal.scopes

    def require_scope(self, scope: Scope) -> None:
        """Refuse a service key without the scope, also if the key acts for a customer.

        `admin` includes `write`, and `write` includes `read`. Logins have no scopes and always pass.

        Raises:
            Forbidden: `scope_required`.
        """
        if isinstance(self.principal, ServiceKey):
            enough: dict[Scope, set[Scope]] = {
                "read": {"read", "write", "admin"},
                "write": {"write", "admin"},
                "admin": {"admin"},
            }
            if self.principal.scopes.isdisjoint(enough[scope]):
                raise Forbidden(
                    f"This service key lacks the scope {scope}. Use a key that has it.", code="scope_required"
                )

    def customer(self, path_id: str) -> CustomerId:
        """Return the customer that a path names.

        A login may name itself, by `me` or by its customer id. A service key that acts for no customer may name any
        customer, but not `me`.

        Raises:
            NotFound: The id belongs to another customer; `customer_not_linked` for a login without a customer.
            InvalidRequest: A service key that acts for no customer says `me`.
        """
        if self.is_service:
            if path_id == "me":
                raise InvalidRequest(
                    "customer_id: a service key has no `me`. Send a customer id, or X-Acting-Customer."
                )
            return CustomerId(path_id)
        if self.customer_id is None:
            raise NotFound(
                "No customer is linked to this login yet. Create one with POST /v1/customers.",
                code="customer_not_linked",
            )
        if path_id not in ("me", self.customer_id):
            raise NotFound()
        return self.customer_id


async def identify(context: Context, principal: Principal, *, reads: bool = False) -> Actor:
    """Return the actor of an authenticated caller, and link a login at first sight.

    `reads`: the caller only reads, so a connection for reads is enough.

    Raises:
        Unauthenticated: The request has no credential.
        Forbidden: `identity_conflict`: the token's customer claim and the stored link name different customers.
    """
    if not isinstance(principal, EndUser):
        return _without_link(principal)
    database = context.database
    async with database.reading() if reads else database.connection() as connection:
        return await identify_on(context, connection, principal, reads=reads)


async def identify_on(
    context: Context, connection: Connection, principal: Principal, *, reads: bool
) -> Actor:
    """Do as `identify`, on the connection that the caller's next statement uses.

    One connection of the pool serves both. Raises as `identify`.
    """
    if not isinstance(principal, EndUser):
        return _without_link(principal)
    return Actor(principal, await _linked(context, connection, principal, reads=reads))


def _without_link(principal: Anonymous | ServiceKey) -> Actor:
    if isinstance(principal, Anonymous):
        raise Unauthenticated()
    return Actor(principal, principal.acting_customer)


async def _linked(
    context: Context, connection: Connection, user: EndUser, *, reads: bool
) -> CustomerId | None:
    linked = await identities.link_of(connection, user.issuer, user.subject, user.verified_email)
    claimed = user.customer_claim
    if linked is not None:
        if claimed not in (None, linked.customer_id):
            raise _conflict()
        if linked.has_news:
            acts.note(context, user)
        return linked.customer_id
    found = await _first_sight(connection, user, claimed, reads=reads)
    if found is not None:
        acts.note(context, user)
    return found


async def _first_sight(
    connection: Connection, user: EndUser, claimed: CustomerId | None, *, reads: bool
) -> CustomerId | None:
    link = _link_or_look if reads else _link
    if claimed is not None:
        if not await identities.is_present(connection, claimed):
            return None
        if await link(connection, user, claimed, by="claim"):
            return claimed
        return await _after_race(connection, user, claimed)
    named = await identities.customer_by_user_id(connection, user.subject)
    if named is None:
        # No customer names this subject, or a concurrent call linked the login between the two statements.
        return await identities.customer_of(connection, user.issuer, user.subject)
    if await link(connection, user, named, by="user_id"):
        return named
    return await identities.customer_of(connection, user.issuer, user.subject)


async def _link_or_look(
    connection: Connection, user: EndUser, customer_id: CustomerId, *, by: LinkedBy
) -> bool:
    """Link a login as `_link` does, for a read, which fails and waits for no write.

    If the database takes no write now, return True if the login could be linked. Its next request links it.
    """
    try:
        return await _link(connection, user, customer_id, by=by, wait_milliseconds=_READ_WAIT_MILLISECONDS)
    except (*LOCKED, ReadOnly, NoRoom):
        return await identities.subject_of(connection, customer_id) is None


async def _link(
    connection: Connection,
    user: EndUser,
    customer_id: CustomerId,
    *,
    by: LinkedBy,
    wait_milliseconds: int | None = None,
) -> bool:
    """Link a login, also in the place of a customer that was deleted at Stripe.

    `wait_milliseconds`: how long it waits for the lock of a row, if that is shorter than usual.
    Return False if either is linked, or if the customer was found by the subject in its metadata and names it no more.
    """
    async with connection.transaction():
        if wait_milliseconds is not None:
            await connection.execute(f"set local lock_timeout = {wait_milliseconds}")
        if not (by == "claim" or await identities.names_subject(connection, customer_id, user.subject)):
            return False
        deleted = await identities.deleted_customer_of(connection, user.issuer, user.subject)
        linked = await identities.link(connection, user.issuer, user.subject, customer_id, by=by)
        if linked and deleted is not None:
            await identities.record_ended(connection, user.issuer, user.subject, deleted, principal=user.key)
    return linked


async def _after_race(connection: Connection, user: EndUser, claimed: CustomerId) -> CustomerId:
    if await identities.customer_of(connection, user.issuer, user.subject) != claimed:
        raise _conflict()
    return claimed


def _conflict() -> Forbidden:
    return Forbidden(
        "The customer that this login's token names is not the one that is linked to the login. "
        "Ask the operator to end the wrong link.",
        code="identity_conflict",
    )
