"""Read invoices: the stored ones from the cache, the upcoming one from Stripe."""

from __future__ import annotations

from app.context import Context
from app.customers.profiles import profile
from app.customers.store import invoices
from app.domain.ids import CustomerId, InvoiceId, SubscriptionId
from app.domain.payments import Costs
from app.domain.roles import Permission
from app.domain.snapshots import JsonObject
from app.domain.statuses import RENEWING
from app.errors import NotFound
from app.identity import store as identities
from app.identity.actors import Actor
from app.mirror.store import subscriptions
from app.mirror.visibility import see

Position = tuple[int, str]


async def customer_invoices(
    context: Context,
    customer_id: CustomerId,
    *,
    subscription_id: SubscriptionId | None,
    status: str | None,
    after: Position | None,
    limit: int,
) -> list[JsonObject]:
    """Return the customer's invoices from the cache, newest first.

    Raises:
        NotFound: If there is no such customer.
    """
    async with context.database.reading() as connection:
        found = await invoices.customer_invoices(
            connection, customer_id, subscription_id=subscription_id, status=status, after=after, limit=limit
        )
        if not found and not await identities.is_present(connection, customer_id):
            raise NotFound()
    return found


async def invoice(context: Context, actor: Actor, invoice_id: InvoiceId) -> JsonObject:
    """Return an invoice that the caller may see.

    Its payer may see it, and callers who may see the amounts of its subscription. A manager who does not pay gets
    no links to it: the pages behind them show the payer's details.

    Raises:
        NotFound: There is no such invoice, or the caller may not see it.
    """
    async with context.database.reading() as connection:
        found = await invoices.invoice(connection, invoice_id)
        if found is not None and (
            actor.is_service or (actor.customer_id is not None and found["customer_id"] == actor.customer_id)
        ):
            return found
        # The subscription is read even if the invoice is absent. Otherwise the time of the answer would show whether
        # the invoice exists.
        billed = SubscriptionId((found or {}).get("subscription_id") or "")
        view = await subscriptions.subscription_view(connection, billed, asker=actor.customer_id)
    seen = None if view is None else see(view, actor, context.rules)
    if found is None or seen is None or Permission.SEE_AMOUNTS not in seen.granted:
        raise NotFound()
    return found if seen.sees_payers_own else {**found, "hosted_invoice_url": None, "invoice_pdf": None}


async def upcoming_invoice(
    context: Context, customer_id: CustomerId, subscription_id: SubscriptionId | None
) -> Costs:
    """Return the costs of the next invoice.

    It is that of one subscription, or of the one that renews first.

    Raises:
        NotFound: The customer does not exist, or no subscription of theirs will be invoiced again.
    """
    await profile(context, customer_id)
    async with context.database.reading() as connection:
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
            continue  # The subscription ends with its period, so it has no next invoice.
    raise NotFound("No subscription of this customer will be invoiced again.")
