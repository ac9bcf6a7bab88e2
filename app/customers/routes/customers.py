"""Routes that create and read a customer, their payment methods and invoices."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.customers import invoices, links, payment_methods, profiles
from app.customers.links import Subject
from app.customers.schemas.customers import CustomerAnswer, NewCustomerRequest, PaymentMethodList
from app.customers.schemas.invoices import InvoiceList
from app.domain import emails
from app.domain.ids import CustomerId, SubscriptionId
from app.errors import FieldError, Forbidden, InvalidRequest
from app.http import problem_codes, problems
from app.http.answers import UNCHANGED, answer
from app.http.cursors import Paging
from app.http.dependencies import (
    ContextDep,
    CursorQuery,
    CustomerPath,
    FreshQuery,
    LimitQuery,
    ReaderDep,
    SettingsDep,
    WriterDep,
    spend,
)
from app.http.idempotency import IdempotentRoute
from app.http.schemas import SubscriptionIdText
from app.http.stripe_values import InvoiceStatusName
from app.identity.actors import Actor
from app.identity.principals import EndUser
from app.mirror import refreshing as sync

router = APIRouter(tags=["customers"], route_class=IdempotentRoute)
_READ = {**UNCHANGED, **problems.responses(401, 403, 404, 422, 503)}
_WRITE = problems.responses(*(401, 403, 404, 409, 413, 415, 422, 502, 503), codes=problem_codes.ADMIN_FIELDS)


@router.post(
    "/customers",
    response_model=CustomerAnswer,
    status_code=201,
    responses={200: {"model": CustomerAnswer, "description": "The login has a customer already"}, **_WRITE},
)
async def create_customer(
    request: Request,
    context: ContextDep,
    actor: WriterDep,
    settings: SettingsDep,
    body: NewCustomerRequest | None = None,
) -> Response:
    """Return the customer of a login, and create one if there is none (201).

    A login gets one customer, even if several calls race. If it has one already, the answer is 200. A login may leave
    the body out.
    """
    asked = body or NewCustomerRequest()
    if isinstance(actor.principal, EndUser):
        _refuse_others_fields(asked)
        customer_id, created = await links.sign_up(
            context, actor.principal, actor.customer_id, name=asked.name
        )
    else:
        subject = _subject(actor, asked, settings.auth_issuer or "")
        customer_id, created = await links.ensure_customer(context, subject, principal=actor.principal.key)
        await links.reach_seats(context, subject, customer_id)
    return answer(request, await _profile(context, customer_id), status=201 if created else 200)


async def _profile(context: ContextDep, customer_id: str) -> CustomerAnswer:
    return CustomerAnswer.model_validate(
        {"customer": await profiles.profile(context, CustomerId(customer_id))}
    )


def _refuse_others_fields(body: NewCustomerRequest) -> None:
    """Refuse the fields of service keys. An end user's subject and e-mail come from their token only."""
    errors = [
        FieldError(f"/{name}", "field_not_allowed", "Taken from the token. Send the request without it.")
        for name in ("user_id", "email")
        if name in body.model_fields_set
    ]
    if errors:
        raise Forbidden(
            "user_id and email are for service keys. Send the request without them.",
            code="field_not_allowed",
            errors=errors,
        )


def _subject(actor: Actor, body: NewCustomerRequest, issuer: str) -> Subject:
    """Return the subject that a service key names."""
    if not actor.is_service:
        raise Forbidden(
            "A key that acts for a customer cannot create another. Send the request without X-Acting-Customer.",
            code="scope_required",
        )
    if body.user_id is None:
        detail = "user_id is required with a service key. Send the application's id of the user."
        raise InvalidRequest(detail, errors=[FieldError("/user_id", "missing", detail)])
    email = None if body.email is None else emails.ascii_lowered(body.email)
    return Subject(issuer, body.user_id, email, email is not None, body.name)


@router.delete("/customers/{customer_id}/link", status_code=204, responses=_WRITE)
async def unlink_customer(context: ContextDep, actor: WriterDep, customer_id: CustomerPath) -> Response:
    """End the link between a customer and its login, for a service key with the scope `admin`.

    `billing_user_id` is removed where it holds the login's subject. The login's next `POST /v1/customers` creates a new
    customer. A customer without a link is answered the same.
    """
    if not actor.is_admin:
        raise Forbidden(
            "Only a service key with the scope admin ends a link. Send one without X-Acting-Customer.",
            code="scope_required",
        )
    await links.unlink(context, actor.customer(customer_id), principal=actor.principal.key)
    return Response(status_code=204)


@router.get(
    "/customers/{customer_id}",
    response_model=CustomerAnswer,
    responses={**_READ, **problems.responses(502)},
)
async def get_customer(
    request: Request,
    context: ContextDep,
    actor: ReaderDep,
    customer_id: CustomerPath,
    fresh: FreshQuery = False,
) -> Response:
    """Return a customer's profile."""
    acting = actor.customer(customer_id)
    if fresh:
        await spend(request)
        await sync.freshen(context, "customer", acting, seeks=actor.is_service)
    return answer(request, await _profile(context, acting))


@router.get(
    "/customers/{customer_id}/payment-methods",
    response_model=PaymentMethodList,
    responses={**_READ, **problems.responses(502)},
)
async def get_customer_payment_methods(
    request: Request,
    context: ContextDep,
    actor: ReaderDep,
    customer_id: CustomerPath,
    type: Annotated[str | None, Query(pattern="^[a-z0-9_]{1,40}$", description="Stripe's type.")] = None,  # noqa: A002 - the API's name
    limit: LimitQuery = 20,
    cursor: CursorQuery = None,
) -> Response:
    """Return the customer's payment methods, newest first."""
    acting = actor.customer(customer_id)
    paging = Paging.of(cursor, limit, principal=actor.principal.key, query=["payment-methods", acting, type])
    found = await payment_methods.list_payment_methods(
        context, acting, kind=type, after=paging.after, limit=limit + 1
    )
    return answer(request, PaymentMethodList.model_validate(paging.frame(found)))


@router.get("/customers/{customer_id}/invoices", response_model=InvoiceList, responses=_READ)
async def get_customer_invoices(
    request: Request,
    context: ContextDep,
    actor: ReaderDep,
    customer_id: CustomerPath,
    subscription_id: Annotated[SubscriptionIdText | None, Query()] = None,
    status: Annotated[InvoiceStatusName | None, Query()] = None,
    limit: LimitQuery = 20,
    cursor: CursorQuery = None,
) -> Response:
    """Return the customer's invoices, newest first."""
    acting = actor.customer(customer_id)
    query = ["invoices", acting, subscription_id, status]
    paging = Paging.of(cursor, limit, principal=actor.principal.key, query=query)
    found = await invoices.customer_invoices(
        context,
        acting,
        subscription_id=None if subscription_id is None else SubscriptionId(subscription_id),
        status=status,
        after=paging.after,
        limit=limit + 1,
    )
    return answer(request, InvoiceList.model_validate(paging.frame(found)))
