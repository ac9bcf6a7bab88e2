"""The catalogue: readable without a credential."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.routes import problems
from app.routes.answers import answer
from app.routes.cursors import Paging
from app.routes.dependencies import ContextDep, CursorQuery, LimitQuery, PrincipalDep
from app.schemas.common import ProductIdText
from app.schemas.products import ProductList
from app.services import reads

router = APIRouter(tags=["products"])


@router.get("/products", response_model=ProductList, responses=problems.responses(401, 422, 429, 503))
async def get_products(
    request: Request,
    context: ContextDep,
    principal: PrincipalDep,
    ids: Annotated[list[ProductIdText] | None, Query(max_length=100)] = None,
    currency: Annotated[str | None, Query(pattern="^[a-z]{3}$", description="ISO 4217, lower case.")] = None,
    limit: LimitQuery = 20,
    cursor: CursorQuery = None,
) -> Response:
    """Products with their active prices: those named by `ids` in that order, or all that are on sale."""
    if ids:
        wanted = list(dict.fromkeys(ids))
        found, missing = await reads.named_products(context, wanted)
        page = {"data": found, "missing_ids": missing, "has_more": False, "next_cursor": None}
        return answer(request, ProductList.model_validate({**page, "local_currency": currency}))
    paging = Paging.of(cursor, limit, principal=principal.key, query="products")
    found = await reads.offered_products(context, after=paging.after, limit=limit + 1)
    page = {**paging.frame(found), "missing_ids": [], "local_currency": currency}
    return answer(request, ProductList.model_validate(page))
