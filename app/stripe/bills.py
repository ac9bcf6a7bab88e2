"""Read what was billed and what was paid for it: the facts that decide about a credit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.credits import Bill, BilledLine
from app.domain.ids import CustomerId, InvoiceId, SubscriptionId, SubscriptionItemId
from app.stripe import parsing
from app.stripe.client import StripeClient

_LONGEST_PAGE = 100
_INTENT = "pi_"
_DISPUTES_WON = frozenset({"won", "warning_closed", "prevented"})

Json = Mapping[str, Any]


class BillCalls:
    """Reads of invoices and payments. Every method raises what `StripeClient` raises for a read."""

    def __init__(self, client: StripeClient) -> None:
        self._client = client

    async def of_subscription(self, subscription_id: SubscriptionId, *, created_from: int) -> list[Bill]:
        """Return the invoices of a subscription since a Unix second, of every status, oldest first."""
        query = {
            "subscription": subscription_id,
            "created": {"gte": created_from},
            "expand": ["data.payments"],
        }
        sources = await self._all("/v1/invoices", query)
        return [await self._bill(source) for source in reversed(sources)]

    async def one(self, invoice_id: InvoiceId) -> Bill:
        """Return one invoice. Raises NotFound."""
        return await self._bill(
            (await self._client.get(f"/v1/invoices/{invoice_id}", {"expand": ["payments"]})).data
        )

    async def pending(self, customer_id: CustomerId) -> list[BilledLine]:
        """Return the customer's invoice items that no invoice has collected yet, oldest first."""
        sources = await self._all("/v1/invoiceitems", {"customer": customer_id, "pending": True})
        return [parsing.invoice_item(source) for source in reversed(sources)]

    async def reversed_of(self, bill: Bill) -> int:
        """Return what was given back of a paid invoice, in minor units.

        It is the sum of refunds and credit notes, or the whole invoice while a dispute is open or once one is lost,
        whatever part the dispute's amount names.
        """
        noted = await self._noted(bill.id) if bill.has_credit_notes else 0
        returned = [await self._returned(payment) for payment in bill.payments]
        if any(amount is None for amount in returned):
            return bill.total
        return noted + sum(amount or 0 for amount in returned)

    async def _noted(self, invoice_id: InvoiceId) -> int:
        """Return the sum of credit notes without the refunds that they made, which the charge shows."""
        notes = await self._all("/v1/credit_notes", {"invoice": invoice_id})
        return sum(
            int(note["total"]) - sum(int(refund["amount_refunded"]) for refund in note.get("refunds") or ())
            for note in notes
            if note.get("status") != "void"
        )

    async def _returned(self, payment: str) -> int | None:
        """Return what a payment refunded, or None with a dispute that is open or lost.

        `payment` is the id of an intent, or of a single charge.
        """
        if payment.startswith(_INTENT):
            intent = await self._client.get(f"/v1/payment_intents/{payment}", {"expand": ["latest_charge"]})
            charge = intent.data.get("latest_charge")
        else:
            charge = (await self._client.get(f"/v1/charges/{payment}")).data
        if not isinstance(charge, Mapping):
            return 0
        refunded = int(charge.get("amount_refunded") or 0)
        if not charge.get("disputed"):
            return refunded
        disputes = await self._all("/v1/disputes", {"charge": charge["id"]})
        return refunded if all(one["status"] in _DISPUTES_WON for one in disputes) else None

    async def _bill(self, source: Json) -> Bill:
        lines: Sequence[Json] = source["lines"]["data"]
        if not parsing.is_complete(source):
            lines = await self._all(f"/v1/invoices/{source['id']}/lines", {})
        found = [parsing.billed_line(line) for line in lines]
        return parsing.bill(source, await self._with_items(str(source["id"]), found))

    async def _with_items(self, invoice_id: str, lines: list[BilledLine]) -> list[BilledLine]:
        """Add subscription items: a line that stands for an invoice item does not name them, the invoice item does."""
        if all(line.item_id is not None or line.invoice_item_id is None for line in lines):
            return lines
        sources = await self._all("/v1/invoiceitems", {"invoice": invoice_id})
        return with_items(lines, [parsing.invoice_item(source) for source in sources])

    async def _all(self, path: str, params: Mapping[str, Any]) -> list[Json]:
        found: list[Json] = []
        query = {**params, "limit": _LONGEST_PAGE}
        while True:
            page = (await self._client.get(path, query)).data
            found += page["data"]
            if not page["has_more"]:
                return found
            query["starting_after"] = found[-1]["id"]


def with_items(lines: Sequence[BilledLine], items: Sequence[BilledLine]) -> list[BilledLine]:
    """Return the lines with the subscription item that each one's invoice item names."""
    by_id: dict[str, SubscriptionItemId | None] = {item.id: item.item_id for item in items}
    return [
        line
        if line.item_id is not None or line.invoice_item_id is None
        else line.of_item(by_id.get(line.invoice_item_id))
        for line in lines
    ]
