"""The end that a request means, whether it stands already, and who may move it.

Rules: docs/decisions/0005-let-only-the-caller-choose-between-ends-that-differ.md, and 0006 beside it. An end that the
payer set belongs to the payer. An owner who is not the payer takes back, or moves to a later moment, only an end that
only owners have set.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from uuid import uuid4

from app.context import Context
from app.domain.roles import Permission, Role, require
from app.domain.snapshots import JsonObject
from app.domain.statuses import ENDED
from app.domain.views import SubscriptionView
from app.errors import Conflict, FieldError, Forbidden, InvalidRequest
from app.identity.actors import Actor
from app.mirror.visibility import Seen
from app.operations import store as operations
from app.postgres.database import Connection
from app.stripe.translate import MANAGED_BY_SCHEDULE
from app.subscriptions.ends import (
    PeriodEnds,
    When,
    end_in_force,
    ending_params,
    further_charges,
    period_ends,
    resuming_params,
)
from app.subscriptions.orders import Conditions, Method, Order
from app.subscriptions.store import ends


class EndBy(StrEnum):
    """The party that set an end.

    The payer, even if they are the owner too; an owner who does not pay; or a service key that acts for nobody.
    """

    PAYER = "payer"
    OWNER = "owner"
    SERVICE = "service"


def end_by(actor: Actor, view: SubscriptionView) -> EndBy:
    """Return the party as which the actor sets an end."""
    if actor.is_service:
        return EndBy.SERVICE
    return EndBy.PAYER if actor.customer_id == view.customer_id else EndBy.OWNER


def ends_at(view: SubscriptionView) -> int | None:
    """Return when it ended or will end, in Unix seconds; None if it goes on."""
    if view.status in ENDED:
        return view.ended_at
    return end_in_force(
        period_ends(view.items), cancel_at=view.cancel_at, cancel_at_period_end=view.cancel_at_period_end
    )


def charges_until(view: SubscriptionView, until: int | None) -> list[JsonObject]:
    """Return the members `further_charges` of an answer or a refusal.

    `until`: Unix seconds, None without an end.
    """
    if view.status in ENDED:
        return []
    return [charge.as_members() for charge in further_charges(view.items, until)]


def params_for(view: SubscriptionView, when: When, *, pointer: str = "/when") -> JsonObject:
    """Return the parameters that set an end of a period.

    Raises:
        InvalidRequest: `end_ambiguous` if the items end at different times and `when` names neither end.
    """
    found = period_ends(view.items)
    if when is When.PERIOD_END and found is not None and found.differ:
        raise ambiguous(view, pointer)
    return ending_params(when, found)


def ambiguous(view: SubscriptionView, pointer: str) -> InvalidRequest:
    """Return the refusal `end_ambiguous` with the two ends, and what is billed until the later one."""
    found = period_ends(view.items) or PeriodEnds(0, 0)
    detail = (
        "The items of this subscription end at different times. Cancel with when: earliest_period_end, and paid time "
        "of the others is lost, or with when: latest_period_end, and further_charges are billed until then."
    )
    return InvalidRequest(
        detail,
        code="end_ambiguous",
        errors=[FieldError(pointer, "end_ambiguous", detail)],
        members={
            "earliest": _rfc3339(found.earliest),
            "latest": _rfc3339(found.latest),
            "further_charges": [
                {**charge, "next_at": _rfc3339(int(charge["next_at"].timestamp()))}
                for charge in charges_until(view, found.latest)
            ],
        },
    )


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def stands_already(view: SubscriptionView, when: When) -> bool:
    """Return True if the end in force is the one that is asked for.

    It does not matter who set it, and by which field.
    """
    found = period_ends(view.items)
    return found is not None and ends_at(view) == found.of(when)


async def is_over(connection: Connection, view: SubscriptionView, when: When) -> bool:
    """Return True if a paused subscription is to end with a period that is over."""
    found = period_ends(view.items)
    return view.status == "paused" and found is not None and await ends.is_past(connection, found.of(when))


async def check_end(connection: Connection, actor: Actor, seen: Seen, when: When) -> None:
    """Judge an end of a period that does not stand yet.

    Raises:
        Conflict: `managed_by_schedule`.
        Forbidden: `role_required`, if it is later than the payer's own end.
    """
    view = seen.view
    _check_schedule(view)
    current, found = ends_at(view), period_ends(view.items)
    if current is not None and (found is None or found.of(when) > current):
        await check_taking_back(connection, actor, seen)


async def check_taking_back(connection: Connection, actor: Actor, seen: Seen) -> None:
    """Judge whether the actor may take the end in force back.

    Raises:
        Conflict: `managed_by_schedule`.
        Forbidden: `role_required`, also for an owner if anybody but an owner has set or confirmed the end.
    """
    view = seen.view
    require(seen.granted, Permission.TAKE_BACK_END)
    _check_schedule(view)
    if actor.is_service or actor.customer_id == view.customer_id:
        return
    setters = await ends.setters(connection, view.id)
    if setters.elsewhere or setters.parties != {EndBy.OWNER}:
        raise Forbidden("The paying customer has ended this subscription: only they can let it go on.")


def _check_schedule(view: SubscriptionView) -> None:
    if view.schedule_id is not None:
        raise Conflict(MANAGED_BY_SCHEDULE, code="managed_by_schedule")


async def is_current(context: Context, view: SubscriptionView) -> bool:
    """Ask Stripe whether status and end are still those of the view; the cached row is left as it is."""
    now = (await context.billing.subscription(view.id)).subscription
    shown = (view.status, view.cancel_at, view.cancel_at_period_end)
    return (now.status, now.cancel_at, now.cancel_at_period_end) == shown


async def check_no_change_runs(connection: Connection, view: SubscriptionView) -> None:
    """Raise Conflict `operation_in_progress` while another change of the end may still take effect."""
    if await ends.change_runs(connection, view.id):
        raise Conflict("Another change of this subscription's end is still running.", retry_after=2)


async def confirm(
    context: Context, connection: Connection, actor: Actor, seen: Seen, operation_id: str
) -> None:
    """Note that the payer wants the end that stands already.

    Then the owner can no longer take it back without the payer.
    """
    view = seen.view
    if end_by(actor, view) is not EndBy.PAYER or seen.role is Role.OWNER:
        return
    if EndBy.PAYER in (await ends.setters(connection, view.id)).parties:
        return
    if await operations.operation(connection, operation_id) is not None:
        return
    await operations.insert(
        connection,
        operation_id=operation_id,
        subscription_id=view.id,
        kind="cancel_subscription",
        principal=actor.principal.key,
        actor_id=actor.customer_id,
        source="api",
        request=Order(Method.UPDATE, {}).as_request(),
        steps=[
            {
                "position": 0,
                "action": "cancel_subscription",
                "state": "unchanged",
                "details": Conditions(Method.UPDATE, end_by=EndBy.PAYER.value).as_details(),
            }
        ],
        lease_token=uuid4(),
        lease_seconds=context.rules.operation_lease,
    )
    await operations.finish_if_settled(connection, operation_id)


async def taking_back_call(connection: Connection, view: SubscriptionView) -> JsonObject:
    """Return the parameters that take back whichever end is set; empty if none is.

    If only this service has set the end, it was set without prorations, and it is taken back without them: Stripe
    would charge again for time that was never credited. An end set in the Dashboard may have been credited, so
    Stripe's default takes that credit back.
    """
    if view.cancel_at is None and not view.cancel_at_period_end:
        return {}
    params = resuming_params(cancel_at=view.cancel_at, cancel_at_period_end=view.cancel_at_period_end)
    if "cancel_at" in params and not (await ends.setters(connection, view.id)).elsewhere:
        params["proration_behavior"] = "none"
    return params
