"""Customers: the profile, and the new-user trigger that gives each subject exactly one customer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.context import Context
from app.customers.store import customers
from app.customers.store.access import AccessRow, best_access
from app.domain import metadata as keys
from app.domain.ids import CustomerId, ProductId, SubscriptionId
from app.domain.payments import Costs
from app.domain.snapshots import JsonObject, Snapshot
from app.domain.statuses import OPEN, RENEWING, entitlements
from app.errors import Forbidden, NotFound, ServiceUnavailable
from app.identity import store as identities
from app.mirror import refreshing as sync
from app.mirror.store import subscriptions
from app.operations import store as operations
from app.postgres.database import Connection
from app.stripe.gateway import Fetched

_CREATION_LEASE_SECONDS = 20.0
_WAIT_SECONDS = 15.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Subject:
    """A person of the application; `email` only where it may be trusted to be theirs (`email_verified`)."""

    issuer: str
    subject: str
    email: str | None
    email_verified: bool
    name: str | None


async def profile(context: Context, customer_id: CustomerId) -> JsonObject:
    async with context.database.connection() as connection:
        found = await customers.profile(connection, customer_id)
    if found is None:
        raise NotFound()
    return found


async def ensure(context: Context, subject: Subject) -> tuple[CustomerId, bool]:
    """The subject's one customer, and whether this call created it; any number of racing calls get the same.

    A verified e-mail takes over, once, the unlinked customer that a seat add created for it.
    """
    give_up = asyncio.get_running_loop().time() + _WAIT_SECONDS
    while True:
        async with context.database.transaction() as connection:
            linked = await identities.customer_of(connection, subject.issuer, subject.subject)
            taken_over = None if linked is not None else await _take_over(connection, subject)
            linked = linked or taken_over
            being_added = linked is None and await _is_being_added(connection, subject)
            creation = None
            if linked is None and not being_added:
                creation = await identities.take_creation(
                    connection, subject.issuer, subject.subject, lease_seconds=_CREATION_LEASE_SECONDS
                )
        if linked is not None:
            await _write_subject(context, linked, subject, is_new_here=taken_over is not None)
            return linked, False
        if creation is not None:
            return await _create(context, subject, f"customer/{creation.key}"), True
        if asyncio.get_running_loop().time() > give_up:
            raise ServiceUnavailable("The customer is still being created.", retry_after=2)
        await asyncio.sleep(_POLL_SECONDS)


async def _take_over(connection: Connection, subject: Subject) -> CustomerId | None:
    named = await identities.customer_by_user_id(connection, subject.subject)
    if named is None and subject.email is not None and subject.email_verified:
        named = await identities.claim_seat_customer(connection, subject.email)
    if named is None or await identities.link(connection, subject.issuer, subject.subject, named):
        return named
    raise Forbidden("This login and that customer are not linked to each other.", code="identity_conflict")


async def _is_being_added(connection: Connection, subject: Subject) -> bool:
    """A seat add is creating a customer for this very e-mail: its person waits for that one."""
    if subject.email is None or not subject.email_verified:
        return False
    return bool(await operations.promised_emails(connection, [subject.email]))


async def _create(context: Context, subject: Subject, idempotency_key: str) -> CustomerId:
    write = context.stripe.customer_creation(
        email=subject.email if subject.email_verified else None,
        name=subject.name,
        metadata={keys.USER_ID: subject.subject},
    )
    created = await write.now(idempotency_key)
    customer_id = _id_of(created)
    lease = await sync.take_lease(context, "customer", customer_id)

    async def settle(connection: Connection, _: Snapshot | None) -> None:
        linked = await identities.link(connection, subject.issuer, subject.subject, customer_id)
        if not linked and customer_id != await identities.customer_of(
            connection, subject.issuer, subject.subject
        ):
            raise Forbidden("This login is linked to another customer.", code="identity_conflict")

    await sync.apply(context, lease, created, settle)
    return customer_id


def _id_of(created: Fetched) -> CustomerId:
    if created.snapshot is None:
        raise LookupError("a create that succeeded answered no object")
    return CustomerId(created.snapshot.id)


async def _write_subject(
    context: Context, customer_id: CustomerId, subject: Subject, *, is_new_here: bool
) -> None:
    """Tells Stripe whose customer this is, once; the link itself stands in our own table already.

    The person's own name goes along where the customer has none.
    """
    async with context.database.connection() as connection:
        known = await customers.user_id(connection, customer_id)
        profile = await customers.profile(connection, customer_id)
    values: dict[str, Any] = {} if known is not None else {"metadata": {keys.USER_ID: subject.subject}}
    nameless = profile is not None and not profile["name"]
    if subject.name is not None and nameless and (is_new_here or values):
        values["name"] = subject.name
    if not values:
        return
    lease = await sync.take_lease(context, "customer", customer_id)

    async def write() -> Fetched:
        return await context.billing.update_customer(
            customer_id, values, idempotency_key=f"user/{customer_id}/{lease.token}"
        )

    await sync.apply(context, lease, write)


async def access(
    context: Context, customer_id: CustomerId, product_id: ProductId
) -> tuple[bool, AccessRow | None]:
    """From the cache alone, in one statement: whether the customer may use the product, and by what."""
    async with context.database.connection() as connection:
        best = await best_access(connection, customer_id, product_id, open_statuses=list(OPEN))
    return best is not None and entitlements(best.status).access, best


async def update_profile(
    context: Context, customer_id: CustomerId, changes: Mapping[str, str], *, operation_id: str
) -> None:
    """`changes` are Stripe's own fields: name, phone, email. Raises NotFound."""
    await profile(context, customer_id)
    lease = await sync.take_lease(context, "customer", customer_id)

    async def call() -> Fetched:
        return await context.billing.update_customer(
            customer_id, changes, idempotency_key=f"{operation_id}/profile"
        )

    await sync.apply(context, lease, call)


async def upcoming_invoice(
    context: Context, customer_id: CustomerId, subscription_id: SubscriptionId | None
) -> Costs:
    """The next invoice of one subscription, or of the one that renews first. Raises NotFound where none comes."""
    await profile(context, customer_id)
    async with context.database.connection() as connection:
        views = await subscriptions.customer_subscriptions(connection, customer_id, statuses=None)
    renewing = [
        (min((item["current_period_end"] or 0 for item in view.items), default=0), view.id)
        for view in views
        if view.customer_id == customer_id and view.status in RENEWING and subscription_id in (None, view.id)
    ]
    for _, next_one in sorted(renewing):
        try:
            return await context.billing.preview({"subscription": next_one})
        except NotFound:
            continue  # It ends with its period, and nothing is left to be billed.
    raise NotFound("Nothing is to be invoiced.")
