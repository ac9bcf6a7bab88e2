"""Routes of a payment page: profile, payment methods, codes, next invoice, access."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from app.customers import failures, invoices, payment_methods, profiles
from app.customers.access import access
from app.customers.payment_details import find_promotion
from app.customers.schemas.customers import (
    Access,
    AttachRequest,
    CustomerAnswer,
    DefaultPaymentMethodRequest,
    PaymentMethodAnswer,
    ProfileRequest,
    PromotionCodeAnswer,
    SetupIntentAnswer,
    UpcomingInvoiceAnswer,
)
from app.domain import emails
from app.domain.ids import FREE_PATTERN, PaymentMethodId, ProductId, SubscriptionId
from app.domain.payments import Costs
from app.domain.snapshots import JsonObject
from app.errors import FieldError, Forbidden, NotFound
from app.http import problem_codes, problems
from app.http.answers import UNCHANGED, answer, check_if_match
from app.http.dependencies import (
    AskingDep,
    CallerDep,
    ContextDep,
    CustomerPath,
    PaymentMethodPath,
    ReaderDep,
)
from app.http.idempotency import IdempotentRoute
from app.http.operation_ids import operation_id_of
from app.http.schemas import SubscriptionIdText
from app.identity.actors import Actor
from app.identity.principals import EndUser

router = APIRouter(tags=["customers"], route_class=IdempotentRoute)
_READ = {**UNCHANGED, **problems.responses(401, 403, 404, 422, 502, 503)}
_READ_CODE = {**UNCHANGED, **problems.responses(401, 403, 404, 422, 502, 503, codes=problem_codes.DECLINES)}


def _write(*statuses: int, codes: tuple[str, ...] = ()) -> dict[int | str, dict[str, Any]]:
    return problems.responses(401, 403, 404, 409, 413, 415, 422, 502, 503, *statuses, codes=codes)


_WRITE = _write()


@router.patch(
    "/customers/{customer_id}",
    response_model=CustomerAnswer,
    responses=_write(412, codes=problem_codes.ADMIN_FIELDS),
)
async def update_customer(
    request: Request, context: ContextDep, actor: CallerDep, customer_id: CustomerPath, body: ProfileRequest
) -> Response:
    """Change a customer's name, phone or e-mail.

    With `If-Match` the change is refused if the profile is not as the caller saw it.
    """
    acting = actor.customer(customer_id)
    changes = body.model_dump(exclude_none=True)
    if body.email is not None:
        changes["email"] = _own_email(actor, emails.ascii_lowered(body.email))

    def precondition(profile: JsonObject) -> None:
        check_if_match(request, _profile_answer(profile))

    await profiles.update_profile(
        context,
        acting,
        changes,
        precondition if "if-match" in request.headers else None,
        operation_id=await operation_id_of(request, actor.principal),
    )
    return answer(request, _profile_answer(await profiles.profile(context, acting)))


def _profile_answer(profile: JsonObject) -> CustomerAnswer:
    return CustomerAnswer.model_validate({"customer": profile})


def _own_email(actor: Actor, email: str) -> str:
    """Return `email` if the actor may set it. Raises Forbidden `field_not_allowed`.

    A seat can be given to an e-mail, so an end user may set only an address that is verified as theirs.
    """
    if actor.is_service:
        return email
    user = actor.principal
    if isinstance(user, EndUser) and user.email_verified and user.email == email:
        return email
    detail = "email must be the verified e-mail of the token. Send that one, or none."
    raise Forbidden(
        detail, code="field_not_allowed", errors=[FieldError("/email", "field_not_allowed", detail)]
    )


@router.post(
    "/customers/{customer_id}/payment-methods",
    response_model=PaymentMethodAnswer,
    status_code=201,
    responses=_write(402, codes=problem_codes.DECLINES),
)
async def attach_payment_method_to_customer(
    request: Request, context: ContextDep, actor: CallerDep, customer_id: CustomerPath, body: AttachRequest
) -> Response:
    """Attach a payment method, and make it the default if `use_as_default` says so."""
    operation_id = await operation_id_of(request, actor.principal)
    async with failures.counted(context, actor):
        attached = await payment_methods.attach(
            context,
            actor.customer(customer_id),
            PaymentMethodId(body.payment_method_id),
            use_as_default=body.use_as_default,
            operation_id=operation_id,
        )
    return answer(request, PaymentMethodAnswer.model_validate({"payment_method": attached}), status=201)


@router.delete(
    "/customers/{customer_id}/payment-methods/{payment_method_id}",
    status_code=204,
    responses=_write(codes=("payment_method_in_use",)),
)
async def detach_payment_method_from_customer(
    request: Request,
    context: ContextDep,
    actor: CallerDep,
    customer_id: CustomerPath,
    payment_method_id: PaymentMethodPath,
) -> Response:
    """Detach a payment method.

    It is refused while a live subscription is charged to it, and if it is the last one beside a live subscription.
    """
    await payment_methods.detach(
        context,
        actor.customer(customer_id),
        payment_method_id,
        operation_id=await operation_id_of(request, actor.principal),
    )
    return Response(status_code=204)


@router.put(
    "/customers/{customer_id}/default-payment-method", response_model=PaymentMethodAnswer, responses=_WRITE
)
async def set_payment_method_as_default(
    request: Request,
    context: ContextDep,
    actor: CallerDep,
    customer_id: CustomerPath,
    body: DefaultPaymentMethodRequest,
) -> Response:
    """Make a payment method the default.

    It also becomes the default of live subscriptions that have one of their own.
    """
    found = await payment_methods.set_default(
        context,
        actor.customer(customer_id),
        PaymentMethodId(body.payment_method_id),
        operation_id=await operation_id_of(request, actor.principal),
    )
    return answer(request, PaymentMethodAnswer.model_validate({"payment_method": found}))


@router.post(
    "/customers/{customer_id}/setup-intents",
    response_model=SetupIntentAnswer,
    status_code=201,
    responses=_WRITE,
)
async def create_setup_intent(
    request: Request, context: ContextDep, actor: CallerDep, customer_id: CustomerPath
) -> Response:
    """Begin the set-up of a payment method for later charges.

    The client secret is for Stripe's elements.
    """
    intent_id, step = await payment_methods.begin_setup(
        context, actor.customer(customer_id), operation_id=await operation_id_of(request, actor.principal)
    )
    intent = {"id": intent_id, "status": step.status, "client_secret": step.client_secret}
    return answer(request, SetupIntentAnswer.model_validate({"setup_intent": intent}), status=201)


@router.get("/promotion-codes/{code}", response_model=PromotionCodeAnswer, responses=_READ_CODE)
async def get_promotion_code(
    request: Request,
    context: ContextDep,
    actor: AskingDep,
    code: Annotated[str, Path(pattern=r"^[A-Za-z0-9_\-]{1,64}$")],
) -> Response:
    """Return the discount of a promotion code that the caller's customer may use now.

    The answer is 404 if the code has expired, is used up, is restricted to another customer, or is restricted to first
    purchases and the customer has paid before.
    """
    async with failures.counted(context, actor) as attempt:
        found = await find_promotion(context, code, actor.customer_id)
        attempt.failed = found is None
    if found is None:
        raise NotFound()
    return answer(
        request,
        PromotionCodeAnswer.model_validate(
            {
                "promotion_code": {
                    "code": found.code,
                    "percent_off": found.percent_off,
                    "amount_off": found.amount_off,
                    "currency": found.currency,
                    "duration": found.duration,
                    "duration_in_months": found.duration_in_months,
                    "expires_at": found.expires_at,
                    "minimum_amount": found.minimum_amount,
                    "minimum_amount_currency": found.minimum_amount_currency,
                }
            }
        ),
    )


@router.get(
    "/customers/{customer_id}/upcoming-invoice", response_model=UpcomingInvoiceAnswer, responses=_READ
)
async def get_upcoming_invoice(
    request: Request,
    context: ContextDep,
    actor: AskingDep,
    customer_id: CustomerPath,
    subscription_id: Annotated[SubscriptionIdText | None, Query()] = None,
) -> Response:
    """Return the next invoice, of one subscription or of the one that renews first."""
    named = None if subscription_id is None else SubscriptionId(subscription_id)
    costs: Costs = await invoices.upcoming_invoice(context, actor.customer(customer_id), named)
    invoice = {
        "currency": costs.currency,
        "total": costs.total,
        "amount_due": costs.amount_due,
        "lines": costs.lines,
    }
    return answer(request, UpcomingInvoiceAnswer.model_validate({"invoice": invoice}))


@router.get(
    "/customers/{customer_id}/access",
    response_model=Access,
    responses={**UNCHANGED, **problems.responses(401, 403, 404, 422, 503)},
)
async def get_access(
    request: Request,
    context: ContextDep,
    actor: ReaderDep,
    customer_id: CustomerPath,
    product_id: Annotated[str, Query(pattern=FREE_PATTERN)],
) -> Response:
    """Return whether the customer may use the product now.

    It is answered from the cache.
    """
    has_access, best = await access(context, actor.customer(customer_id), ProductId(product_id))
    found = {
        name: getattr(best, name, None)
        for name in ("via", "role", "subscription_id", "status", "valid_until")
    }
    return answer(request, Access.model_validate({"has_access": has_access, **found}))
