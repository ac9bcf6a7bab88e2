"""Link a login to its customer, and create the customer if there is none.

This is the new-user trigger. A login (issuer, subject) gets exactly one customer, even if several calls race. See
docs/decisions/0024-identify-a-person-by-issuer-and-subject.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from app.context import Context
from app.customers import seat_moves
from app.customers.store import customers
from app.domain import emails
from app.domain import metadata as keys
from app.domain.ids import CustomerId
from app.domain.snapshots import Customer, Snapshot
from app.errors import Forbidden, NotFound, ServiceUnavailable
from app.identity import acts
from app.identity import store as identities
from app.identity.principals import EndUser
from app.identity.store import Creation, LinkedBy
from app.mirror import refreshing as sync
from app.operations import people_store
from app.postgres.database import Connection
from app.stripe.gateway import Fetched

_CREATION_LEASE_SECONDS = 20.0
_WAIT_SECONDS = 15.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class Subject:
    """A person of the application, by their login.

    `email_verified` is True if the issuer, or a service key, vouches that the address is theirs.
    """

    issuer: str
    subject: str
    email: str | None
    email_verified: bool
    name: str | None

    @property
    def seat_email(self) -> str | None:
        """Return the address by which this person may reach a seat, or None."""
        is_good = self.email is not None and self.email_verified and emails.reaches_seats(self.email)
        return self.email if is_good else None


async def sign_up(
    context: Context, user: EndUser, linked: CustomerId | None, *, name: str | None = None
) -> tuple[CustomerId, bool]:
    """Return the customer of an end user, and True if this call created it.

    `linked`: the customer that the login has already. `name`: the person's own. Record that the person acts, and let
    them reach their seats, as `reach_seats` does.

    Raises:
        NotFound: `customer_not_linked`: the token names a customer that is not known.
        Forbidden: `identity_conflict`: the customer is linked to another login.
        ServiceUnavailable: Another call is still creating the customer, or Stripe or the database does not answer.
    """
    customer_id, created = linked, False
    if customer_id is None:
        customer_id, created = await _ensure_customer_of(context, user, name)
    elif user.customer_claim is None:
        # An earlier call may have linked the login, and then not have written it at Stripe.
        await _write_subject(context, customer_id, _subject_of(user, name), is_new_here=False)
    await acts.record(context, user)
    if user.verified_email is not None:
        await seat_moves.reach(context, customer_id)
    return customer_id, created


async def _ensure_customer_of(context: Context, user: EndUser, name: str | None) -> tuple[CustomerId, bool]:
    if user.customer_claim is not None:
        # Each request of this login is identified by the claim, so a new customer could never be used.
        raise NotFound(
            "The customer that this login's token names is not known here. Ask the operator to check the claim.",
            code="customer_not_linked",
        )
    return await ensure_customer(context, _subject_of(user, name), principal=user.key)


def _subject_of(user: EndUser, name: str | None) -> Subject:
    return Subject(user.issuer, user.subject, user.email, user.email_verified, name)


async def ensure_customer(context: Context, subject: Subject, *, principal: str) -> tuple[CustomerId, bool]:
    """Return the customer of a login, and True if this call created it.

    A login without a customer gets, in this order: the customer whose metadata names its subject; the customer that was
    created for a seat of its verified e-mail; a new customer. While an addition by e-mail is creating a customer for
    that e-mail, the call waits for it, at most 15 s. A link to a customer that was deleted at Stripe is replaced, which
    the audit trail records under `principal`.

    Raises:
        Forbidden: `identity_conflict`: the customer is linked to another login.
        ServiceUnavailable: Another call is still creating the customer, or Stripe or the database does not answer.
    """
    give_up, pause = asyncio.get_running_loop().time() + _WAIT_SECONDS, _FIRST_PAUSE_SECONDS
    while True:
        found = await _look(context, subject, principal)
        if found.customer_id is not None and await _write_subject(
            context, found.customer_id, subject, is_new_here=found.is_taken_over
        ):
            return found.customer_id, False
        if found.creation is not None:
            key = f"customer/{found.creation.key}"
            return await _create(context, subject, key, by=_trigger(principal)), True
        if asyncio.get_running_loop().time() > give_up:
            raise ServiceUnavailable(
                "Another request is still creating this login's customer. Send the request again after Retry-After.",
                retry_after=2,
            )
        # Each look writes the login's row, so a long wait looks less and less often.
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a call found for a login: its customer, the right to create one, or nothing while it has to wait."""

    customer_id: CustomerId | None = None
    is_taken_over: bool = False
    creation: Creation | None = None


class _OvertakenError(Exception):
    """The found customer was linked to another login, or ceased to name this one, at the same time.

    Looking again finds another customer or none.
    """


async def _look(context: Context, subject: Subject, principal: str) -> _Found:
    login = subject.issuer, subject.subject
    try:
        async with context.database.transaction() as connection:
            linked = await identities.customer_of(connection, *login)
            if linked is not None:
                return _Found(linked)
            deleted = await identities.deleted_customer_of(connection, *login)
            # This locks the login's row, so that of its calls only one takes a customer over or creates one.
            creation = await identities.take_creation(
                connection, *login, lease_seconds=_CREATION_LEASE_SECONDS
            )
            if creation is None:
                return _Found()
            if deleted is not None:
                await identities.record_ended(connection, *login, deleted, principal=principal)
            taken_over = await _take_over(connection, subject, principal)
            if taken_over is not None:
                return _Found(taken_over, is_taken_over=True)
            if await _is_being_added(connection, subject):
                await identities.give_creation_back(connection, *login)
                return _Found()
            return _Found(creation=creation)
    except _OvertakenError:
        return _Found()


async def _take_over(connection: Connection, subject: Subject, principal: str) -> CustomerId | None:
    named = await identities.customer_by_user_id(connection, subject.subject)
    by: LinkedBy = "user_id"
    if named is not None and not await identities.names_subject(connection, named, subject.subject):
        raise _OvertakenError()
    if named is None and subject.seat_email is not None:
        named, by = await identities.claim_seat_customer(connection, subject.seat_email), _trigger(principal)
    if named is None or await identities.link(connection, subject.issuer, subject.subject, named, by=by):
        return named
    raise _OvertakenError()


async def _is_being_added(connection: Connection, subject: Subject) -> bool:
    """Return True while an addition creates a customer for this e-mail.

    The caller waits, so that no second customer is created.
    """
    if subject.seat_email is None:
        return False
    return bool(await people_store.promised_emails(connection, [subject.seat_email]))


def _trigger(principal: str) -> LinkedBy:
    return "key" if principal.startswith("service:") else "trigger"


async def reach_seats(context: Context, subject: Subject, customer_id: CustomerId) -> None:
    """Let a login's customer reach the seats that were given to its verified address, whenever it is verified.

    It takes at most `seat_moves.REQUEST_SECONDS`; a worker moves what is left.

    Raises:
        ServiceUnavailable: The database does not answer.
    """
    if subject.seat_email is not None:
        await seat_moves.verify(context, subject.issuer, subject.subject, subject.seat_email)
        await seat_moves.reach(context, customer_id)


async def _create(context: Context, subject: Subject, idempotency_key: str, *, by: LinkedBy) -> CustomerId:
    write = context.stripe.customer_creation(
        email=subject.email if subject.email_verified else None,
        name=subject.name,
        metadata={keys.USER_ID: subject.subject},
    )
    with context.stripe_waits.one_more():
        created = await write.now(idempotency_key)
    customer_id = _id_of(created)
    lease = await sync.take_lease(context, "customer", customer_id)

    async def settle(connection: Connection, _: Snapshot | None) -> None:
        linked = await identities.link(connection, subject.issuer, subject.subject, customer_id, by=by)
        if not linked and customer_id != await identities.customer_of(
            connection, subject.issuer, subject.subject
        ):
            raise _linked_elsewhere()

    await sync.apply(context, lease, created, settle)
    return customer_id


async def unlink(context: Context, customer_id: CustomerId, *, principal: str) -> None:
    """End the link between a customer and its login, and record it in the audit trail.

    If `billing_user_id` of the customer holds the login's subject, it is removed at Stripe, or the next request would
    link the two again. The link ends in the transaction that applies Stripe's answer, under the customer's lease: a
    call that saw the link writes nothing of it after that. Unlinking again changes nothing.

    Raises:
        NotFound: There is no such customer.
        ServiceUnavailable: Stripe or the database does not answer.
    """
    async with context.database.connection() as connection:
        subject = await identities.subject_of(connection, customer_id)
        is_present = await identities.is_present(connection, customer_id)
    if subject is None and not is_present:
        raise NotFound()
    subject = await _end_link(context, customer_id, subject, principal=principal)
    while subject is not None:
        subject = await _end_link(context, customer_id, subject, principal=principal)


async def _end_link(
    context: Context, customer_id: CustomerId, subject: str | None, *, principal: str
) -> str | None:
    """End the link, and remove this subject from the customer's metadata.

    Return the subject of a login that was linked since, if the metadata still names it: it is to be removed too.
    """
    linked_since: list[str] = []
    lease = await sync.take_lease(context, "customer", customer_id)

    async def write() -> Fetched:
        found = await context.stripe.fetch("customer", customer_id)
        if subject is None or not isinstance(found.snapshot, Customer) or found.snapshot.user_id != subject:
            return found
        return await context.billing.update_customer(
            customer_id,
            {"metadata": {keys.USER_ID: ""}},
            idempotency_key=f"unlink/{lease.token}",
        )

    async def settle(connection: Connection, snapshot: Snapshot | None) -> None:
        ended = await identities.end_link(connection, customer_id, principal=principal)
        if ended is not None and isinstance(snapshot, Customer) and snapshot.user_id == ended:
            linked_since.append(ended)

    await sync.apply(context, lease, write, settle)
    return linked_since[0] if linked_since else None


def _linked_elsewhere() -> Forbidden:
    return Forbidden(
        "This login or the customer that was found for it is linked to another one. "
        "Ask the operator to end the wrong link.",
        code="identity_conflict",
    )


def _id_of(created: Fetched) -> CustomerId:
    if created.snapshot is None:
        raise LookupError("Stripe answered a successful creation without an object")
    return CustomerId(created.snapshot.id)


async def _write_subject(
    context: Context, customer_id: CustomerId, subject: Subject, *, is_new_here: bool
) -> bool:
    """Write the subject into the customer's metadata at Stripe, if it is missing.

    The link itself is a row of our own and is committed before. The person's name is written too, if the customer has
    none. Return False if the link was ended before the customer's lease was free: then nothing is written.
    """
    async with context.database.connection() as connection:
        known = await customers.user_id(connection, customer_id)
        if known is not None and not is_new_here:
            return True
        profile = await customers.profile(connection, customer_id)
    values: dict[str, Any] = {} if known is not None else {"metadata": {keys.USER_ID: subject.subject}}
    nameless = profile is not None and not profile["name"]
    if subject.name is not None and nameless and (is_new_here or values):
        values["name"] = subject.name
    if not values:
        return True
    ends: list[CustomerId] = []
    lease = await sync.take_lease(context, "customer", customer_id)

    async def write() -> Fetched:
        async with context.database.connection() as connection:
            linked = await identities.customer_of(connection, subject.issuer, subject.subject)
        if linked != customer_id:
            ends.append(customer_id)
            return await context.stripe.fetch("customer", customer_id)
        return await context.billing.update_customer(
            customer_id, values, idempotency_key=f"user/{lease.token}"
        )

    await sync.apply(context, lease, write)
    return not ends
