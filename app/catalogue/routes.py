"""The route of the catalogue, which needs no credential."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.catalogue import reads
from app.catalogue.schemas import INTERNAL, ProductList
from app.domain.snapshots import JsonObject
from app.http import problems
from app.http.answers import UNCHANGED, answer
from app.http.cursors import Paging
from app.http.dependencies import ContextDep, CursorQuery, LimitQuery, PrincipalDep
from app.http.schemas import ProductIdText
from app.http.strict_queries import StrictQueryRoute
from app.identity.actors import identify
from app.identity.principals import Anonymous

router = APIRouter(tags=["products"], route_class=StrictQueryRoute)


@router.get(
    "/products",
    response_model=ProductList,
    responses={**UNCHANGED, **problems.responses(401, 403, 422, 503)},
)
async def get_products(
    request: Request,
    context: ContextDep,
    principal: PrincipalDep,
    ids: Annotated[list[ProductIdText] | None, Query(max_length=100)] = None,
    currency: Annotated[str | None, Query(pattern="^[a-z]{3}$", description="ISO 4217, lower case.")] = None,
    country: Annotated[str | None, Query(pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2.")] = None,
    limit: LimitQuery = 20,
    cursor: CursorQuery = None,
) -> Response:
    """Return products with their prices on sale.

    They are those of `ids` in that order, or all that are on sale. A service key that acts for no customer sees every
    product that it names, with all active prices. `local_currency` is the currency of the customer's subscriptions.
    Without any it is `currency`, or that of `country`, if a price is offered in it.
    """
    actor = None if isinstance(principal, Anonymous) else await identify(context, principal, reads=True)
    sees_all = actor is not None and actor.is_service
    page: JsonObject = {"missing_ids": [], "has_more": False, "next_cursor": None}
    if ids:
        page["data"], page["missing_ids"] = await reads.named_products(
            context, list(dict.fromkeys(ids)), on_sale_only=not sees_all
        )
    else:
        paging = Paging.of(cursor, limit, principal=principal.key, query="products")
        found = await reads.offered_products(context, after=paging.after, limit=limit + 1)
        page.update(paging.frame(found))
    page["local_currency"] = await reads.local_currency(
        context,
        None if actor is None else actor.customer_id,
        chosen=currency,
        country=country,
        products=page["data"],
    )
    if not sees_all:
        for price in (price for product in page["data"] for price in product["prices"]):
            for name in INTERNAL:
                del price[name]
    return answer(request, ProductList.model_validate(page))
