"""Dependencies of routes: context, acting caller, path and query values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request
from pydantic import BeforeValidator

from app.context import Context
from app.domain.ids import (
    FREE_PATTERN,
    INVOICE_PATTERN,
    PAYMENT_METHOD_PATTERN,
    SUBSCRIPTION_PATTERN,
    InvoiceId,
    PaymentMethodId,
    SubscriptionId,
)
from app.errors import FieldError, Forbidden, Unauthenticated
from app.http import cursors
from app.http import schemas as common
from app.http.headers import header_text
from app.http.in_flight import WritesInFlight
from app.http.paths import segment_text
from app.http.rate_limits import RequestRates, too_many
from app.identity.actors import Actor, identify
from app.identity.authenticator import Authenticator
from app.identity.principals import Principal
from app.identity.refusals import TokenRejected
from app.settings import Settings


def get_context(request: Request) -> Context:
    """Return the context of the application that serves this request."""
    return cast(Context, request.app.state.context)


async def principal_of(request: Request) -> Principal:
    """Authenticate a request, count it against the caller's rate, return the caller.

    Both happen once, even if several dependencies ask.

    Raises:
        Unauthenticated: The credential is missing its scheme, unknown, expired or not signed by a known key.
        InvalidRequest: `X-Acting-Customer` is malformed, or was sent with a token.
        RateLimited: The caller sends too many requests.
        ServiceUnavailable: `identity_provider_unavailable`.
    """
    scope = request.scope
    found = scope["state"].get("principal")
    if found is None:
        authenticator: Authenticator = request.app.state.authenticator
        try:
            found = await authenticator.authenticate(
                header_text(scope, b"authorization"), header_text(scope, b"x-acting-customer")
            )
        except Unauthenticated as error:
            # The record of the request shows the reason also beside a live key, where the caller does not learn it.
            if isinstance(error.__cause__, TokenRejected):
                scope["state"]["refusal"] = error.__cause__
            raise
        rates: RequestRates = request.app.state.rates
        if wait := rates.allow(found, scope):
            raise too_many(wait)
        scope["state"]["principal"] = found
    return cast(Principal, found)


async def spend(request: Request, *, cost: int = 1) -> None:
    """Count a write, or a read that may call Stripe, against the caller's rate.

    The rate holds for all processes together.

    Raises:
        RateLimited: The caller has spent their rate.
    """
    rates: RequestRates = request.app.state.rates
    await rates.spend(get_context(request).database, await principal_of(request), cost=cost)


def get_settings(request: Request) -> Settings:
    """Return the settings of the application that serves this request."""
    return cast(Settings, request.app.state.settings)


async def _context(request: Request) -> Context:
    # FastAPI runs a dependency that is not `async` in a thread, at every request.
    return get_context(request)


async def _settings(request: Request) -> Settings:
    return get_settings(request)


# FastAPI resolves each node of a tree of dependencies at every request, so these call each other as plain functions.
async def reading_actor(request: Request) -> Actor:
    """Return the actor of a read from the cache.

    Raises:
        Unauthenticated: There is no valid credential.
        Forbidden: `scope_required` or `identity_conflict`.
        RateLimited: The caller sends too many requests.
    """
    actor = await identify(get_context(request), await principal_of(request), reads=True)
    actor.require_scope("read")
    return actor


@contextmanager
def _waits_for_stripe(request: Request) -> Iterator[None]:
    """Count the request among those that wait for Stripe, until the block ends.

    Raises:
        ServiceUnavailable: `stripe_unavailable`: the breaker is open, or too many requests wait already.
    """
    context = get_context(request)
    context.breakers["write"].admit()
    with context.stripe_waits.one_more():
        yield


async def asking_actor(request: Request) -> AsyncIterator[Actor]:
    """Return the actor of a read that calls Stripe, which counts like a write.

    Raises as `reading_actor`, and ServiceUnavailable if Stripe cannot be asked now.
    """
    actor = await reading_actor(request)
    await spend(request)
    with _waits_for_stripe(request):
        yield actor


async def writing_actor(request: Request) -> Actor:
    """Return the actor of a write, and count the write as in flight.

    IdempotentRoute ends that count.

    Raises:
        Unauthenticated: There is no valid credential.
        Forbidden: `scope_required` or `identity_conflict`.
        RateLimited: `rate_limited`, or `too_many_in_flight`.
    """
    actor = await identify(get_context(request), await principal_of(request))
    actor.require_scope("write")
    in_flight: WritesInFlight = request.app.state.in_flight
    # This check comes before `spend`, so that a refused write does not count against the caller's rate.
    in_flight.begin(actor, request.scope)
    await spend(request)
    return actor


async def calling_actor(request: Request) -> AsyncIterator[Actor]:
    """Return the actor of a write that calls Stripe within the request, as it is no operation.

    Raises as `writing_actor`, and ServiceUnavailable if Stripe cannot be asked now.
    """
    actor = await writing_actor(request)
    with _waits_for_stripe(request):
        yield actor


ContextDep = Annotated[Context, Depends(_context)]
SettingsDep = Annotated[Settings, Depends(_settings)]
PrincipalDep = Annotated[Principal, Depends(principal_of)]
ReaderDep = Annotated[Actor, Depends(reading_actor)]
AskingDep = Annotated[Actor, Depends(asking_actor, scope="function")]
WriterDep = Annotated[Actor, Depends(writing_actor)]
CallerDep = Annotated[Actor, Depends(calling_actor, scope="function")]

CustomerPath = Annotated[
    str,
    BeforeValidator(segment_text),
    Path(pattern=FREE_PATTERN, description="A customer id as one percent-encoded segment, or `me`."),
]
SubscriptionPath = Annotated[SubscriptionId, Path(pattern=SUBSCRIPTION_PATTERN)]
InvoicePath = Annotated[InvoiceId, Path(pattern=INVOICE_PATTERN)]
PaymentMethodPath = Annotated[PaymentMethodId, Path(pattern=PAYMENT_METHOD_PATTERN)]

FreshQuery = Annotated[bool, Query(description="Read the object from Stripe first, at most once in 10 s.")]
LimitQuery = Annotated[int, Query(ge=1, le=100, description="Rows per page.")]
CursorQuery = Annotated[
    str | None, Query(max_length=cursors.LONGEST, description="`next_cursor` of the previous page.")
]


def refuse_admin_fields(actor: Actor, body: common.Request) -> None:
    """Refuse fields marked ADMIN_ONLY unless the caller has the scope `admin`.

    They are fields such as prices, taxes and trials.

    Raises:
        Forbidden: `field_not_allowed`, with one entry for each such field of the body.
    """
    if actor.is_admin:
        return
    errors = [FieldError(pointer, "field_not_allowed", _ADMIN_ONLY) for pointer in _admin_fields(body, "")]
    if errors:
        raise Forbidden(f"{errors[0].pointer}: {_ADMIN_ONLY}", code="field_not_allowed", errors=errors)


_ADMIN_ONLY = "Only a service key with the scope admin may set this field. Send the request without it."


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
