"""Route of a single invoice."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.customers import invoices
from app.customers.schemas.invoices import InvoiceAnswer
from app.http import problems
from app.http.answers import UNCHANGED, answer
from app.http.dependencies import ContextDep, FreshQuery, InvoicePath, ReaderDep, spend
from app.http.idempotency import IdempotentRoute
from app.mirror import refreshing as sync

router = APIRouter(tags=["subscriptions"], route_class=IdempotentRoute)
_READ = {**UNCHANGED, **problems.responses(401, 403, 404, 422, 502, 503)}


@router.get("/invoices/{invoice_id}", response_model=InvoiceAnswer, responses=_READ)
async def get_invoice(
    request: Request,
    context: ContextDep,
    actor: ReaderDep,
    invoice_id: InvoicePath,
    fresh: FreshQuery = False,
) -> Response:
    """Return an invoice.

    Its payer may see it, and callers who may see the amounts of its subscription. `hosted_invoice_url` and
    `invoice_pdf` are null for a manager who does not pay.
    """
    if fresh:
        await spend(request)
        if not actor.is_service:
            # Nobody's question costs a call for what they may not see.
            await invoices.invoice(context, actor, invoice_id)
        await sync.freshen(context, "invoice", invoice_id, seeks=actor.is_service)
    return answer(
        request, InvoiceAnswer.model_validate({"invoice": await invoices.invoice(context, actor, invoice_id)})
    )
