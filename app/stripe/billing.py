"""Call Stripe for subscriptions, previews, payment methods, promotion codes and profiles.

Every method raises what `StripeClient` raises for a read or a write. Methods that return a `Write` send nothing
themselves. The result of a write is the object as it was when Stripe answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain import metadata as keys
from app.domain.ids import CustomerId, PaymentMethodId, SubscriptionId
from app.domain.payments import Costs, PaymentStep, PromotionCode, PurchaseInvoice
from app.domain.snapshots import Subscription
from app.domain.statuses import is_live
from app.stripe import parsing
from app.stripe.bills import BillCalls
from app.stripe.client import Answer, StripeClient, Write
from app.stripe.gateway import DISCOUNT_EXPANDS, Fetched, customer_path

_PAYMENT_EXPANDS = ["latest_invoice", "pending_setup_intent", *DISCOUNT_EXPANDS]
# From the subscription the intent is five levels deep, and Stripe expands at most four. So the invoice is read for it.
# https://docs.stripe.com/api/expanding_objects
_INTENT_OF_INVOICE = ["payments.data.payment.payment_intent"]
_LONGEST_PAGE = 100
_MOST_PAGES_OF_CODES = 10
_ISSUED = frozenset({"open", "paid", "uncollectible"})


@dataclass(frozen=True, slots=True)
class Changed:
    """A subscription after a write, at Unix second `at`.

    `open_invoice_id` is its latest invoice, if that was open, and `setup` the pending set-up of a payment method.
    `BillingCalls.payment_step` finds the payment step from these two. `invoiced_at` is the Unix second at which the
    latest invoice was created, None if that invoice is a draft, void, unknown or that of an update awaiting payment.
    """

    subscription: Subscription
    at: int
    open_invoice_id: str | None = None
    setup: PaymentStep | None = None
    replayed: bool = False
    invoiced_at: int | None = None

    @property
    def fetched(self) -> Fetched:
        """Return the subscription as a fetched object, stale if it was replayed or is incomplete."""
        return Fetched(self.subscription, self.at, stale=self.replayed or not is_whole(self.subscription))


def is_whole(subscription: Subscription) -> bool:
    """Return True if the answer contained all items, and for each discount what it gives."""
    return subscription.items_complete and subscription.discounts_complete


class BillingCalls:
    """The calls of one client that concern subscriptions and payments."""

    def __init__(self, client: StripeClient) -> None:
        self._client = client
        self.bills = BillCalls(client)

    def subscription_creation(self, params: Mapping[str, Any]) -> Write[Changed]:
        """Return the write that creates a subscription with Stripe's parameters `params`."""
        return self._change("/v1/subscriptions", params)

    def subscription_update(
        self, subscription_id: SubscriptionId, params: Mapping[str, Any]
    ) -> Write[Changed]:
        """Return the write that updates a subscription with Stripe's parameters `params`."""
        return self._change(f"/v1/subscriptions/{subscription_id}", params)

    def subscription_cancellation(
        self, subscription_id: SubscriptionId, params: Mapping[str, Any]
    ) -> Write[Changed]:
        """Return the write that cancels a subscription at once.

        Stripe stores no response of a DELETE under its key. After a lost answer the subscription has to be read.
        """
        path, expanded = f"/v1/subscriptions/{subscription_id}", {**params, "expand": list(DISCOUNT_EXPANDS)}
        return Write(self._client, "delete", path, expanded, read=_ended)

    def _change(self, path: str, params: Mapping[str, Any]) -> Write[Changed]:
        return Write(self._client, "post", path, {**params, "expand": _PAYMENT_EXPANDS}, read=_changed)

    async def payment_step(self, changed: Changed) -> PaymentStep | None:
        """Return the payment step of the open invoice, otherwise the pending set-up, or None.

        The open invoice comes first, because the set-up may be from a time when nothing was due.

        Raises:
            ServiceUnavailable: Stripe or the rate budget does not answer.
            StripeRejected: Stripe refused the read.
        """
        if changed.open_invoice_id is None:
            return changed.setup
        answer = await self._client.get(
            f"/v1/invoices/{changed.open_invoice_id}", {"expand": list(_INTENT_OF_INVOICE)}
        )
        return parsing.invoice_payment_step(answer.data) or changed.setup

    async def subscription(self, subscription_id: SubscriptionId) -> Changed:
        """Read the subscription as it is now, with what `payment_step` needs, after a write without a useful answer."""
        answer = await self._client.get(
            f"/v1/subscriptions/{subscription_id}", {"expand": list(_PAYMENT_EXPANDS)}
        )
        return _changed(answer)

    async def purchase_invoice(self, invoice_id: str) -> PurchaseInvoice:
        """Read the invoice that a purchase waits for, with its payment. Raises NotFound, ServiceUnavailable."""
        answer = await self._client.get(f"/v1/invoices/{invoice_id}", {"expand": list(_INTENT_OF_INVOICE)})
        return parsing.purchase_invoice(answer.data, answer.at)

    async def void_invoice(self, invoice_id: str, *, idempotency_key: str) -> None:
        """Void an open invoice, so that it cannot be paid any more. Raises StripeRejected if it is paid already."""
        await self._client.post(f"/v1/invoices/{invoice_id}/void", {}, idempotency_key=idempotency_key)

    def subscription_resumption(self, subscription_id: SubscriptionId) -> Write[Changed]:
        """Return the write that resumes a subscription whose status is `paused`.

        The subscription stays paused until the rest of its period is paid. Stripe's defaults would resume it at once
        and leave that charge pending until the next renewal. Source: https://docs.stripe.com/api/subscriptions/resume
        """
        params = {
            "billing_cycle_anchor": {"type": "unchanged"},
            "proration_behavior": "always_invoice",
            "payment_behavior": "resume_on_payment_success",
        }
        return self._change(f"/v1/subscriptions/{subscription_id}/resume", params)

    def owner_change(self, subscription_id: SubscriptionId, owner_id: CustomerId) -> Write[Fetched]:
        """Return the write that sets the owner in a subscription's metadata. Other metadata keys do not change."""
        params = {"metadata": {keys.OWNER: owner_id}, "expand": list(DISCOUNT_EXPANDS)}
        return Write(self._client, "post", f"/v1/subscriptions/{subscription_id}", params, read=_with_owner)

    async def subscriptions_of(self, customer_id: CustomerId) -> list[Subscription]:
        """Return a customer's newest 100 subscriptions of any status, to find a create whose answer was lost."""
        answer = await self._client.get(
            "/v1/subscriptions", {"customer": customer_id, "status": "all", "limit": 100}
        )
        return [parsing.subscription(source) for source in answer.data["data"]]

    async def live_subscriptions_of(self, customer_id: CustomerId) -> list[Subscription]:
        """Return every subscription that the customer pays for and that has not ended, newest first."""
        query: dict[str, Any] = {"customer": customer_id, "limit": _LONGEST_PAGE}
        found: list[Subscription] = []
        while True:
            page = (await self._client.get("/v1/subscriptions", query)).data
            found += [parsing.subscription(source) for source in page["data"]]
            if not page["has_more"]:
                return [one for one in found if is_live(one.status)]
            query["starting_after"] = page["data"][-1]["id"]

    async def preview(self, params: Mapping[str, Any]) -> Costs:
        """Return what Stripe would invoice. A preview changes nothing, so it needs no key and may be repeated."""
        answer = await self._client.post_safely(
            "/v1/invoices/create_preview", {**params, "expand": ["discounts.source.coupon"]}
        )
        all_lines = await self._preview_lines(answer.data)
        invoice = parsing.invoice(answer.data, all_lines)
        sources = answer.data["lines"]["data"] if all_lines is None else all_lines
        return Costs(
            currency=invoice.currency,
            total=invoice.total,
            amount_due=invoice.amount_due,
            credit=max(0, -invoice.total),
            lines=invoice.lines,
            tax=parsing.tax(answer.data),
            starting_balance=int(answer.data.get("starting_balance") or 0),
            billed=[parsing.billed_line(source) for source in sources],
            spent=parsing.spent_discounts(answer.data),
            line_totals={str(source["id"]): parsing.line_total(source) for source in sources},
        )

    async def _preview_lines(self, source: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
        """Return all lines of the preview if the embedded list was incomplete (Stripe embeds at most 10), else None."""
        if parsing.is_complete(source):
            return None
        found = list(source["lines"]["data"])
        while True:
            page = await self._client.get(
                f"/v1/invoices/{source['id']}/lines",
                {"limit": _LONGEST_PAGE, "starting_after": found[-1]["id"]},
            )
            found += page.data["data"]
            if not page.data["has_more"]:
                return found

    async def promotion_codes(
        self, code: str, customer_id: CustomerId | None = None
    ) -> AsyncIterator[tuple[PromotionCode, int]]:
        """Yield the active promotion codes with the text `code`, newest first, each with the second of the answer.

        Stripe ignores case. A text is unique only for each customer, so many codes may match. With `customer_id`, only
        the codes that are restricted to this customer are returned.
        """
        query: dict[str, Any] = {
            "code": code,
            "active": True,
            "limit": _LONGEST_PAGE,
            "expand": ["data.promotion.coupon.currency_options"],
        }
        if customer_id is not None:
            query["customer"] = customer_id
        for _ in range(_MOST_PAGES_OF_CODES):
            answer = await self._client.get("/v1/promotion_codes", query)
            for source in answer.data["data"]:
                yield parsing.promotion_code(source), answer.at
            if not answer.data["has_more"]:
                return
            query["starting_after"] = answer.data["data"][-1]["id"]

    async def create_setup_intent(
        self, customer_id: CustomerId, *, idempotency_key: str
    ) -> tuple[str, PaymentStep]:
        """Create a setup intent for later payments; return its id and the step that the customer has to take."""
        answer = await self._client.post(
            "/v1/setup_intents",
            {"customer": customer_id, "usage": "off_session", "automatic_payment_methods": {"enabled": True}},
            idempotency_key=idempotency_key,
        )
        return str(answer.data["id"]), parsing.intent_step(answer.data, "setup")

    async def attach_payment_method(
        self, payment_method_id: PaymentMethodId, customer_id: CustomerId, *, idempotency_key: str
    ) -> Fetched:
        """Attach a payment method to a customer and return it."""
        answer = await self._client.post(
            f"/v1/payment_methods/{payment_method_id}/attach",
            {"customer": customer_id},
            idempotency_key=idempotency_key,
        )
        return Fetched(parsing.payment_method(answer.data), answer.at, stale=answer.replayed)

    async def detach_payment_method(
        self, payment_method_id: PaymentMethodId, *, idempotency_key: str
    ) -> Fetched:
        """Detach a payment method from its customer and return it."""
        answer = await self._client.post(
            f"/v1/payment_methods/{payment_method_id}/detach", {}, idempotency_key=idempotency_key
        )
        return Fetched(parsing.payment_method(answer.data), answer.at, stale=answer.replayed)

    async def update_customer(
        self, customer_id: CustomerId, params: Mapping[str, Any], *, idempotency_key: str
    ) -> Fetched:
        """Update a customer with Stripe's parameters `params` and return it."""
        answer = await self._client.post(customer_path(customer_id), params, idempotency_key=idempotency_key)
        return Fetched(parsing.customer(answer.data), answer.at, stale=answer.replayed)


def _ended(answer: Answer) -> Changed:
    return Changed(parsing.subscription(answer.data), answer.at, replayed=answer.replayed)


def _with_owner(answer: Answer) -> Fetched:
    found = parsing.subscription(answer.data)
    return Fetched(found, answer.at, stale=answer.replayed or not is_whole(found))


def _changed(answer: Answer) -> Changed:
    source = answer.data
    invoice, setup = source.get("latest_invoice"), source.get("pending_setup_intent")
    issued = isinstance(invoice, Mapping) and invoice.get("status") in _ISSUED
    # Discounts are part of what waits: the invoice of a pending update uses none up before it is paid.
    counts = issued and source.get("pending_update") is None
    is_open = isinstance(invoice, Mapping) and invoice.get("status") == "open"
    return Changed(
        parsing.subscription(source),
        answer.at,
        open_invoice_id=str(invoice["id"]) if isinstance(invoice, Mapping) and is_open else None,
        setup=parsing.intent_step(setup, "setup") if isinstance(setup, Mapping) else None,
        replayed=answer.replayed,
        invoiced_at=int(invoice["created"]) if isinstance(invoice, Mapping) and counts else None,
    )


def discounts(existing: Sequence[str]) -> list[dict[str, str]]:
    """Return the parameter that keeps a subscription's discounts. Others are added to it: Stripe replaces them all."""
    return [{"discount": discount_id} for discount_id in existing]
