"""The rules for a change of a subscription, and the parameters Stripe gets."""

from __future__ import annotations

from typing import Any

from app.catalogue.offers import OfferedPrice
from app.context import Context
from app.domain.ids import SubscriptionItemId
from app.domain.roles import Permission
from app.domain.snapshots import JsonObject
from app.domain.statuses import ENDED, entitlements
from app.domain.views import SubscriptionView
from app.errors import (
    Conflict,
    FieldError,
    InvalidRequest,
)
from app.identity.actors import Actor
from app.mirror.visibility import Seen
from app.postgres.database import Connection
from app.subscriptions import ending
from app.subscriptions.ends import When
from app.subscriptions.item_changes import ChangedItems, PricedItem, Terms, change_items, only_lowers
from app.subscriptions.updates import MoneyTerms, SubscriptionUpdate

NO_CHANGE = SubscriptionUpdate([], None, None, None, None, MoneyTerms())


def permissions_for(change: SubscriptionUpdate, view: SubscriptionView) -> list[Permission]:
    """Return the permissions that a change needs.

    Lowering a quantity needs one, ending another, and everything that costs money a third.
    """
    needed = []
    quantities = {str(item["id"]): item["quantity"] for item in view.items}
    costs = change.payment_method_id or change.promotion_code or change.terms != MoneyTerms()
    if not costs and only_lowers(change.items, quantities):
        needed.append(Permission.LOWER_QUANTITY)
    elif change.items or costs:
        needed.append(change.permission)
    if change.cancel_at_period_end is not None:
        needed.append(Permission.CANCEL if change.cancel_at_period_end else Permission.TAKE_BACK_END)
    return needed or [Permission.SEE_SUBSCRIPTION]


def changes_only_end(change: SubscriptionUpdate) -> bool:
    """Return True if a change does only what cancelling or resuming does."""
    return change.cancel_at_period_end is not None and not (
        change.items
        or change.payment_method_id
        or change.promotion_code
        or change.quote_id
        or change.terms != MoneyTerms()
    )


async def check_combined_end(
    connection: Connection, actor: Actor, seen: Seen, change: SubscriptionUpdate, after: ChangedItems | None
) -> None:
    """Judge an end that is changed together with something else.

    Raises:
        Conflict: `managed_by_schedule`.
        Forbidden: `role_required`.
        InvalidRequest: `end_ambiguous`.
    """
    if change.cancel_at_period_end is None:
        return
    if not change.cancel_at_period_end:
        if ending.ends_at(seen.view) is not None:
            await ending.check_taking_back(connection, actor, seen)
        return
    if after is not None and len({item.price.interval for item in after.items}) > 1:
        raise ending.ambiguous(seen.view, BY_UPDATE)
    if not ending.stands_already(seen.view, When.PERIOD_END):
        await ending.check_end(connection, actor, seen, When.PERIOD_END)


def _current_items(view: SubscriptionView, prices: dict[Any, OfferedPrice]) -> list[PricedItem]:
    """Return the items as they are.

    A price that has left the catalogue stays on its item.
    """
    found = []
    for item in view.items:
        known = prices.get(item["price"]["id"])
        recurring = item["price"]["recurring"] or {}
        price = known or OfferedPrice(
            id=item["price"]["id"],
            active=False,
            product_active=False,
            on_sale=False,
            recurring=True,
            metered=item["metered"],
            interval=(recurring["interval"], recurring["interval_count"]) if recurring else None,
            currency=view.currency,
            currencies=frozenset({view.currency}),
            shareable=item["product"]["supports_shared_subscriptions"],
            owner_uses_seat=item["product"]["owner_uses_seat"],
        )
        found.append(PricedItem(SubscriptionItemId(item["id"]), price, item["quantity"]))
    return found


def items_after(
    actor: Actor,
    view: SubscriptionView,
    change: SubscriptionUpdate,
    prices: dict[Any, OfferedPrice],
) -> ChangedItems | None:
    """Return the items after a change; None if it changes none.

    Raises:
        InvalidRequest: names each entry and the rule that it breaks.
    """
    if not change.items:
        return None
    return change_items(
        _current_items(view, prices),
        change.items,
        prices,
        Terms(
            may_buy_unlisted=actor.is_admin,
            currency=view.currency,
            flexible=view.billing_mode == "flexible",
        ),
    )


def check_status(context: Context, view: SubscriptionView, after: ChangedItems | None) -> None:
    """Judge a change by the status; `after` None: the items stay.

    A reduction is refused only if Stripe accepts no change at all.

    Raises:
        Conflict: `subscription_not_active`.
    """
    if view.status in ENDED:
        raise Conflict("This subscription has ended: buy a new one.", code="subscription_not_active")
    if after is None:
        return
    check_complete(view)
    if after.reduces:
        return
    allowed = entitlements(view.status, past_due_allows_new_seats=context.rules.past_due_allows_new_seats)
    before = view.seats(owner_uses_seat=context.rules.owner_uses_seat).total
    if not allowed.edits or (after.seats > before and not allowed.new_seats):
        raise Conflict(
            f"A subscription with the status {view.status} takes no more seats, items or other prices. Pay what is "
            "open, or resume it, first.",
            code="subscription_not_active",
        )


def check_complete(view: SubscriptionView) -> None:
    """Refuse changes until the first invoice is paid.

    Until then Stripe changes only metadata. Source: SDK, `Subscription.status`.

    Raises:
        Conflict: `subscription_not_active`.
    """
    if view.status == "incomplete":
        raise Conflict(
            "The first invoice of this subscription is not paid yet. Pay it, or cancel the subscription and buy again.",
            code="subscription_not_active",
        )


def update_params(
    context: Context,
    view: SubscriptionView,
    change: SubscriptionUpdate,
    after: ChangedItems | None,
    end: JsonObject,
) -> dict[str, Any]:
    """Return the parameters of Stripe's update; `end`: those that set the end or take it back.

    A pending update holds a change until it is paid, but allows few parameters
    (https://docs.stripe.com/billing/subscriptions/pending-updates). With others, Stripe applies the change or refuses
    it.

    Raises:
        InvalidRequest: An end is taken back that gave no credit, and the rest of the change would charge for that time.
    """
    terms = change.terms
    params: dict[str, Any] = {}
    if after is not None:
        params["items"] = after.params
        params["proration_behavior"] = terms.proration_behavior or context.rules.proration_behavior
        if view.status == "paused":
            # Nothing is invoiced until it resumes, and the paid periods are over: there is nothing to credit.
            params["proration_behavior"] = "none"
    if terms.proration_date is not None:
        params["proration_date"] = terms.proration_date
    if terms.trial_end is not None:
        params["trial_end"] = terms.trial_end
        params.setdefault("proration_behavior", terms.proration_behavior or context.rules.proration_behavior)
    if terms.default_tax_rates is not None:
        params["default_tax_rates"] = list(terms.default_tax_rates) or ""
    if terms.discounts is not None:
        params["discounts"] = list(terms.discounts) or ""
    if "proration_behavior" in end and params.get("proration_behavior", "none") != "none":
        detail = (
            "This end gave no credit, so nothing is charged when it is taken back. Take it back in a request of its "
            "own, then send the rest of the change."
        )
        raise InvalidRequest(detail, errors=[FieldError(BY_UPDATE, "invalid", detail)])
    params.update(end)
    simple = {"items", "proration_behavior", "proration_date", "trial_end"}
    needs_payment = params.keys() & {"items", "trial_end"}
    if needs_payment and view.status != "paused":
        only_simple = (
            params.keys() <= simple and change.payment_method_id is None and change.promotion_code is None
        )
        params["payment_behavior"] = "pending_if_incomplete" if only_simple else "error_if_incomplete"
    return params


async def end_params(
    connection: Connection, view: SubscriptionView, change: SubscriptionUpdate
) -> JsonObject:
    """Return the parameters that set the end or take it back, beside other changes; empty if the end stays.

    Raises:
        InvalidRequest: `end_ambiguous`.
    """
    if change.cancel_at_period_end is None:
        return {}
    if change.cancel_at_period_end:
        return ending.params_for(view, When.PERIOD_END, pointer=BY_UPDATE)
    return await ending.taking_back_call(connection, view) or {"cancel_at_period_end": False}


BY_UPDATE = "/cancel_at_period_end"
