"""Who owns a subscription: the customer that metadata names, or the payer while metadata names none.

A value that names nobody closes the management of members, until the payer names an owner. That right rests on
Stripe's word that the named customer does not exist.
"""

from __future__ import annotations

from app.context import Context
from app.domain.ids import NOBODY, CustomerId
from app.domain.snapshots import Customer, JsonObject, Snapshot
from app.domain.views import SubscriptionView
from app.errors import BillingError, ServiceUnavailable
from app.identity.actors import Actor
from app.mirror import refreshing as sync
from app.operations import store as operations
from app.operations.step_kinds import StepKind
from app.postgres.database import Connection


async def confirm_absent(context: Context, view: SubscriptionView) -> None:
    """Read the named owner from Stripe if the copy has no such customer, so that the copy shows them if they exist.

    Raises:
        ServiceUnavailable: Stripe does not say whether the owner exists.
    """
    named = None if view.owner is not None else view.named_owner_id
    if named is None or named == NOBODY:
        return
    try:
        await sync.read_through(context, "customer", named)
    except BillingError as error:
        raise _unknown() from error


async def exists_at_stripe(context: Context, customer_id: CustomerId) -> bool:
    """Return False if Stripe answers 404 for the customer, or that they were deleted.

    Raises:
        ServiceUnavailable: Stripe does not say it.
    """
    try:
        found: Snapshot | None = (await context.stripe.fetch("customer", customer_id)).snapshot
    except BillingError as error:
        raise _unknown() from error
    return isinstance(found, Customer) and not found.deleted


def _unknown() -> ServiceUnavailable:
    return ServiceUnavailable(
        "Stripe does not say whether the owner of this subscription exists. Send the request again after Retry-After.",
        retry_after=2,
    )


async def naming_step(
    connection: Connection, actor: Actor, view: SubscriptionView, position: int
) -> JsonObject | None:
    """Return the step that names the payer as the owner, with their first change while metadata names none.

    None if the actor is somebody else, if an owner is named, or while another change of the subscription runs. Then the
    payer's next change does it.
    """
    if not view.is_owned_by_payer_unnamed or actor.customer_id != view.customer_id:
        return None
    if await operations.subscription_change_runs(connection, view.id):
        return None
    return {"position": position, "action": StepKind.SET_OWNER.value, "state": "planned", "details": {}}
