"""What routes are handed: the context, the acting caller, checked path and query values."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request

from app.context import Context
from app.domain.ids import (
    CUSTOMER_PATTERN,
    INVOICE_PATTERN,
    PAYMENT_METHOD_PATTERN,
    SUBSCRIPTION_PATTERN,
    InvoiceId,
    PaymentMethodId,
    SubscriptionId,
)
from app.errors import FieldError, Forbidden
from app.http import schemas as common
from app.http.headers import header_text
from app.http.in_flight import WritesInFlight
from app.http.rate_limits import RequestRates, too_many
from app.identity.actors import Actor, identify
from app.identity.authenticator import Authenticator
from app.identity.principals import Principal
from app.settings import Settings


def get_context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


async def principal_of(request: Request) -> Principal:
    """Authenticated, and counted, once a request, however many parts of it ask. Raises RateLimited."""
    scope = request.scope
    found = scope["state"].get("principal")
    if found is None:
        authenticator: Authenticator = request.app.state.authenticator
        found = await authenticator.authenticate(
            header_text(scope, b"authorization"), header_text(scope, b"x-acting-customer")
        )
        rates: RequestRates = request.app.state.rates
        if wait := rates.allow(found, scope):
            raise too_many(wait)
        scope["state"]["principal"] = found
    return cast(Principal, found)


async def spend(request: Request, *, cost: int = 1) -> None:
    """Counts a write, or a read that may ask Stripe, for all processes together. Raises RateLimited."""
    rates: RequestRates = request.app.state.rates
    await rates.spend(get_context(request).database, await principal_of(request), cost=cost)


def get_settings(request: Request) -> Settings:
    return cast(Settings, request.app.state.settings)


async def _context(request: Request) -> Context:
    """FastAPI would run a plain function in another thread, at every request."""
    return get_context(request)


async def _settings(request: Request) -> Settings:
    return get_settings(request)


# One dependency each instead of a tree of them: each node is resolved anew at every request.
async def reading_actor(request: Request) -> Actor:
    actor = await identify(get_context(request), await principal_of(request))
    actor.require_scope("read")
    return actor


async def asking_actor(request: Request) -> Actor:
    """For reads that ask Stripe: counted like writes."""
    actor = await reading_actor(request)
    await spend(request)
    return actor


async def writing_actor(request: Request) -> Actor:
    actor = await identify(get_context(request), await principal_of(request))
    actor.require_scope("write")
    in_flight: WritesInFlight = request.app.state.in_flight
    # Before the write is counted as one of the caller's rate: a refused one costs nothing. Ended by IdempotentRoute.
    in_flight.begin(actor, request.scope)
    await spend(request)
    return actor


ContextDep = Annotated[Context, Depends(_context)]
SettingsDep = Annotated[Settings, Depends(_settings)]
PrincipalDep = Annotated[Principal, Depends(principal_of)]
ReaderDep = Annotated[Actor, Depends(reading_actor)]
AskingDep = Annotated[Actor, Depends(asking_actor)]
WriterDep = Annotated[Actor, Depends(writing_actor)]

CustomerPath = Annotated[
    str, Path(pattern=rf"^me$|{CUSTOMER_PATTERN}", description="A customer id, or `me`.")
]
SubscriptionPath = Annotated[SubscriptionId, Path(pattern=SUBSCRIPTION_PATTERN)]
InvoicePath = Annotated[InvoiceId, Path(pattern=INVOICE_PATTERN)]
PaymentMethodPath = Annotated[PaymentMethodId, Path(pattern=PAYMENT_METHOD_PATTERN)]

FreshQuery = Annotated[bool, Query(description="Ask Stripe first; at most once in 10 s for one object.")]
LimitQuery = Annotated[int, Query(ge=1, le=100, description="Rows a page.")]
CursorQuery = Annotated[str | None, Query(max_length=600, description="`next_cursor` of the page before.")]


def refuse_admin_fields(actor: Actor, body: common.Request) -> None:
    """Money and terms are not the end user's to choose: fields marked so are taken from `admin` keys alone.

    Raises Forbidden `field_not_allowed` that names each of them.
    """
    if actor.is_admin:
        return
    errors = [FieldError(pointer, "field_not_allowed", _ADMIN_ONLY) for pointer in _admin_fields(body, "")]
    if errors:
        raise Forbidden(f"{errors[0].pointer}: {_ADMIN_ONLY}", code="field_not_allowed", errors=errors)


_ADMIN_ONLY = "Only a service key with the scope admin may set this field."


def _admin_fields(body: common.Request, path: str) -> list[str]:
    found = []
    for name in body.model_fields_set:
        value, extra = getattr(body, name), type(body).model_fields[name].json_schema_extra
        if isinstance(extra, dict) and extra.get("x-admin-only"):
            found.append(f"{path}/{name}")
        for position, entry in enumerate(value if isinstance(value, list) else []):
            if isinstance(entry, common.Request):
                found += _admin_fields(entry, f"{path}/{name}/{position}")
    return sorted(found)
