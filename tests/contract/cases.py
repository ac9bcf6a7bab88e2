"""One case for each pair of operation and status: how a caller comes to get that answer.

What every operation answers alike (no credential, a body too large, an absent object) is one function for all.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

import httpx

from testkit.company import Company, running_service
from testkit.service import as_service, as_user
from tests.contract.declared import operations, pairs
from tests.contract.world import ASKED, NO_ENDPOINT, NO_INVITATION, Asked, World, new_login

Case: TypeAlias = Callable[[World], Awaitable[httpx.Response]]
General: TypeAlias = Callable[[World, str], Awaitable[httpx.Response]]

LIMIT = 64 * 1024
ASKS_STRIPE_ONLY_IF_FRESH = {"getCustomer", "getSubscription", "getInvoice", "getSharedSubscription"}
SPECIFIC: dict[tuple[str, int], Case] = {}
GENERAL: dict[int, General] = {}


def case(*names: str, status: int) -> Callable[[Case], Case]:
    def register(function: Case) -> Case:
        SPECIFIC.update({(name, status): function for name in names})
        return function

    return register


def general(status: int) -> Callable[[General], General]:
    def register(function: General) -> General:
        GENERAL[status] = function
        return function

    return register


def case_of(operation: str, status: int) -> Case | None:
    """None where nobody has said how to get that answer."""
    specific = SPECIFIC.get((operation, status))
    if specific is not None:
        return specific
    common = GENERAL.get(status) or (_as_asked if status < httpx.codes.MULTIPLE_CHOICES else None)
    if common is None or operation not in ASKED:
        return None

    async def asked(world: World) -> httpx.Response:
        return await common(world, operation)

    return asked


def exercised() -> set[tuple[str, int]]:
    """The pairs that have a case, whether or not the document declares them."""
    return SPECIFIC.keys() | {pair for pair in pairs() if case_of(*pair) is not None}


async def _as_asked(world: World, operation: str) -> httpx.Response:
    """The request as it stands, of a company of its own where it changes something."""
    reads = operations()[operation].method == "GET"
    asked = await asked_of(world, operation, None if reads else await world.service.company())
    return await world.ask(operation, asked)


# What operations answer alike.


@general(304)
async def _unchanged(world: World, operation: str) -> httpx.Response:
    asked = await asked_of(world, operation)
    first = await world.ask(operation, asked)
    return await world.ask(operation, asked, If_None_Match=first.headers["etag"])


@general(400)
async def _doubled_header(world: World, operation: str) -> httpx.Response:
    """P8: HTTPX keeps two spellings of one header's name apart, and the service takes them as one."""
    asked = ASKED[operation](world.company)
    return await world.ask(operation, asked, Idempotency_Key="first-key", idempotency_key="second-key")


@general(401)
async def _unauthenticated(world: World, operation: str) -> httpx.Response:
    asked = ASKED[operation](world.company)
    return await world.ask(operation, replace(asked, who={"Authorization": "Bearer nobody"}))


@general(403)
async def _forbidden(world: World, operation: str) -> httpx.Response:
    """Writes: a key that may only read. Reads: a login whose claim and link disagree."""
    asked = ASKED[operation](world.company)
    reads = operations()[operation].method == "GET"
    who = await world.stranger_with_claim() if reads else as_service("read")
    return await world.ask(operation, replace(asked, who=who))


@general(404)
async def _absent(world: World, operation: str) -> httpx.Response:
    """By the owner of a company, something that is not there."""
    asked = ASKED[operation](world.company)
    path = asked.path
    for known in (world.company.subscription_id, world.company.invoice_id):
        path = path.replace(known, known[: known.index("_") + 1] + "absent")
    for known in ("/me", world.company.owner.customer_id):
        path = path.replace(f"/customers{known}" if known == "/me" else known, _OTHER[known == "/me"])
    return await world.ask(operation, replace(asked, path=path))


_OTHER = {True: "/customers/cus_absent", False: "cus_absent"}


@general(408)
async def _too_slow(world: World, operation: str) -> httpx.Response:
    asked = ASKED[operation](world.company)
    return await world.raw(operation, asked, _trickle(), service=world.strict)


async def _trickle() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield b" "
        await asyncio.sleep(0.05)


@general(413)
async def _too_large(world: World, operation: str) -> httpx.Response:
    return await world.raw(operation, ASKED[operation](world.company), b" " * (LIMIT + 1))


@general(415)
async def _another_type(world: World, operation: str) -> httpx.Response:
    return await world.raw(operation, ASKED[operation](world.company), b"{}", "text/plain")


@general(422)
async def _invalid(world: World, operation: str) -> httpx.Response:
    """A member that the body does not have, or else an id that is none."""
    asked = ASKED[operation](world.company)
    if operations()[operation].takes_body:
        return await world.ask(operation, replace(asked, body={**asked.body, "surprise": True}))
    parts = asked.path.split("/")
    template = operations()[operation].path.split("/")
    place = max(index for index, part in enumerate(template) if part.startswith("{"))
    parts[place] = "x" * 300
    return await world.ask(operation, replace(asked, path="/".join(parts)))


@general(429)
async def _too_often(world: World, operation: str) -> httpx.Response:
    """The caller has used up what one is allowed with reads of his own.

    After a refusal, a read is answered as soon as there is room for it. So the next room is a second away.
    """
    asked = ASKED[operation](world.company)
    was_refused = False
    while True:
        read = await world.strict.get("/v1/products", asked.who)
        if read.status_code != httpx.codes.OK:
            was_refused = True
            await asyncio.sleep(0.02)
        elif was_refused:
            break
    response = await world.ask(operation, asked, service=world.strict)
    assert int(response.headers["retry-after"]) >= 1
    return response


@general(502)
async def _stripe_refuses(world: World, operation: str) -> httpx.Response:
    company = await world.service.company()
    asked = await asked_of(world, operation, company)
    if operation in ASKS_STRIPE_ONLY_IF_FRESH:
        await world.age(company)
        asked = replace(asked, query={"fresh": "true"})
    return await world.refused_by_stripe(operation, asked)


@general(503)
async def _without_database(world: World, operation: str) -> httpx.Response:
    response = await world.ask(operation, ASKED[operation](world.company), service=world.refused)
    if operation != "readyz":
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["code"] == "database_unavailable"
    return response


@general(409)
async def _running_already(world: World, operation: str) -> httpx.Response:
    asked = await asked_of(world, operation, await world.service.company())
    response = await world.while_running(operation, asked)
    assert response.json()["code"] == "request_in_progress"
    return response


# What takes more than that.


async def asked_of(world: World, operation: str, company: Company | None = None) -> Asked:
    """The request that succeeds, once what it names is there; of the shared company unless one is given."""
    company = company or world.company
    match operation:
        case "getPromotionCode":
            await _promotion_code(world)
        case (
            "getWebhookEndpoint"
            | "updateWebhookEndpoint"
            | "deleteWebhookEndpoint"
            | "rotateWebhookEndpointSecret"
            | "sendWebhookTest"
            | "getWebhookDeliveries"
            | "redeliverWebhook"
        ):
            return await _of_endpoint(world, ASKED[operation](company))
        case "getEvents" | "getEventsSnapshot":
            await _told(world)
        case "getOperation":
            return await _past_operation(company)
        case "cancelOperation":
            return await _waiting_purchase(world, await world.service.company())
        case "acceptTransfer" | "declineTransfer":
            offered = await world.ask("offerTransfer", ASKED["offerTransfer"](company))
            assert offered.status_code == httpx.codes.OK, offered.text
        case "resendInvitation" | "revokeInvitation":
            made = await company.invite(company.owner.headers)
            asked = ASKED[operation](company)
            return replace(asked, path=asked.path.replace(NO_INVITATION, made.json()["invitation"]["id"]))
        case "lookUpInvitation" | "acceptInvitation" | "declineInvitation":
            return replace(ASKED[operation](company), body={"token": await company.token()})
        case "resumeSubscription":
            done = await world.ask("cancelSubscription", ASKED["cancelSubscription"](company))
            assert done.status_code == httpx.codes.OK, done.text
    return ASKED[operation](company)


async def _told(world: World) -> None:
    """The copy is filled, and every fact is an event."""
    await world.service.fill()
    await world.service.announce()


async def _of_endpoint(world: World, asked: Asked) -> Asked:
    """The request about an endpoint that is there, with one delivery."""
    made = await world.ask("createWebhookEndpoint", ASKED["createWebhookEndpoint"](world.company))
    endpoint_id = made.json()["webhook_endpoint"]["id"]
    await _told(world)
    delivery_id = f"dl_{secrets.token_hex(12)}"
    await world.service.fetch(
        """insert into webhook_deliveries (id, endpoint_id, position, event_id, state, attempts)
        select $1, $2, position, id, 'pending', '[{"at": "2026-01-15T12:00:00Z", "status": 503, "error": "x"}]'
        from events order by position limit 1""",
        delivery_id,
        endpoint_id,
    )
    return replace(
        asked, path=asked.path.replace(NO_ENDPOINT, endpoint_id).replace(f"dl_{'0' * 24}", delivery_id)
    )


@case("redeliverWebhook", status=202)
async def _delivered_again(world: World) -> httpx.Response:
    """No operation: the answer has no body and no `Location`."""
    return await world.ask("redeliverWebhook", await asked_of(world, "redeliverWebhook"))


def _twice_at_once(operation: str) -> Case:
    """It asks Stripe nothing, so another transaction holds the endpoints while it runs."""

    async def asked_twice(world: World) -> httpx.Response:
        asked = await asked_of(world, operation)
        response = await world.while_endpoints_locked(operation, asked)
        assert response.json()["code"] == "request_in_progress"
        return response

    return asked_twice


for _operation in (
    "createWebhookEndpoint",
    "updateWebhookEndpoint",
    "deleteWebhookEndpoint",
    "rotateWebhookEndpointSecret",
    "sendWebhookTest",
    "redeliverWebhook",
):
    case(_operation, status=409)(_twice_at_once(_operation))


@case("createWebhookEndpoint", status=410)
async def _endpoint_at_a_place_that_the_log_never_reached(world: World) -> httpx.Response:
    asked = ASKED["createWebhookEndpoint"](world.company)
    return await world.ask(
        "createWebhookEndpoint", replace(asked, body={**asked.body, "after": "pl_999999999"})
    )


@case("updateWebhookEndpoint", status=410)
async def _endpoint_moved_to_a_place_that_the_log_never_reached(world: World) -> httpx.Response:
    asked = await asked_of(world, "updateWebhookEndpoint")
    return await world.ask("updateWebhookEndpoint", replace(asked, body={"after": "pl_999999999"}))


@case("getWebhookEndpoints", status=422)
async def _no_cursor_of_endpoints(world: World) -> httpx.Response:
    asked = ASKED["getWebhookEndpoints"](world.company)
    return await world.ask("getWebhookEndpoints", replace(asked, query={"cursor": "none"}))


@case("streamEvents", status=200)
async def _stream_of_a_token_that_expires_soon(world: World) -> httpx.Response:
    asked = ASKED["streamEvents"](world.company)
    who = as_user(world.company.owner.subject, exp=int(time.time()) + 2)
    return await world.ask("streamEvents", replace(asked, who=who))


@case("streamEvents", status=410)
async def _stream_from_a_place_that_the_log_never_reached(world: World) -> httpx.Response:
    asked = ASKED["streamEvents"](world.company)
    return await world.ask("streamEvents", asked, Last_Event_ID="pl_999999999")


@case("getEvents", status=410)
async def _place_that_the_log_never_reached(world: World) -> httpx.Response:
    asked = ASKED["getEvents"](world.company)
    return await world.ask("getEvents", replace(asked, query={"after": "pl_999999999"}))


@case("getEvents", status=422)
async def _no_place(world: World) -> httpx.Response:
    asked = ASKED["getEvents"](world.company)
    return await world.ask("getEvents", replace(asked, query={"after": "nowhere"}))


@case("getEventsSnapshot", status=422)
async def _no_cursor(world: World) -> httpx.Response:
    asked = ASKED["getEventsSnapshot"](world.company)
    return await world.ask("getEventsSnapshot", replace(asked, query={"cursor": "none"}))


async def _promotion_code(world: World) -> None:
    if (await world.service.stripe.get("/v1/promotion_codes", code="WELCOME10"))["data"]:
        return
    coupon = await world.service.stripe.post("/v1/coupons", percent_off=10, duration="once")
    promotion = {"type": "coupon", "coupon": coupon["id"]}
    await world.service.stripe.post("/v1/promotion_codes", code="WELCOME10", promotion=promotion)


async def _past_operation(company: Company) -> Asked:
    """Of the owner's own; refused changes are operations too."""
    done = await company.change(company.owner.headers, remove=["cus_nobody"])
    operation_id = done.json()["operation_id"]
    return Asked(f"/v1/operations/{operation_id}", company.owner.headers)


async def _waiting_purchase(world: World, company: Company) -> Asked:
    """More seats, for which the bank asks the card's holder."""
    stripe = world.service.stripe
    card = await stripe.post(
        "/v1/payment_methods/pm_card_authenticationRequired/attach", customer=company.payer.customer_id
    )
    await stripe.post(f"/v1/subscriptions/{company.subscription_id}", default_payment_method=card["id"])
    await world.service.refresh("subscription", company.subscription_id)
    bought = await world.ask("setSeats", Asked(f"{company.path}/seats", company.owner.headers, {"total": 9}))
    return Asked(f"/v1/operations/{bought.json()['operation_id']}/cancel", company.owner.headers)


@case("cancelOperation", status=202)
async def _abandoned_while_its_payment_is_processing(world: World) -> httpx.Response:
    asked = await asked_of(world, "cancelOperation")
    read = await world.service.get(asked.path.removesuffix("/cancel"), asked.who)
    secret = read.json()["payment"]["client_secret"]
    await world.service.stripe.control(
        "POST", "confirm", client_secret=secret, payment_method="pm_usBankAccount"
    )
    return await world.ask("cancelOperation", asked)


@case("cancelOperation", status=409)
async def _ended_otherwise(world: World) -> httpx.Response:
    ended = await _past_operation(world.company)
    return await world.ask("cancelOperation", replace(ended, path=f"{ended.path}/cancel"))


@case("getProducts", status=422)
async def _product_limit(world: World) -> httpx.Response:
    return await world.ask("getProducts", Asked("/v1/products", None, query={"limit": 0}))


@case("createCustomer", status=200)
async def _customer_again(world: World) -> httpx.Response:
    asked = ASKED["createCustomer"](world.company)
    first = await world.ask("createCustomer", asked)
    again = await world.ask("createCustomer", asked)
    assert first.json() == again.json()
    return again


@case("createCustomer", status=404)
async def _customer_of_the_claim(world: World) -> httpx.Response:
    asked = ASKED["createCustomer"](world.company)
    who = as_user("somebody-with-a-claim", stripe_customer_id="cus_absent")
    return await world.ask("createCustomer", replace(asked, who=who))


@case("unlinkCustomer", status=404)
async def _customer_to_unlink(world: World) -> httpx.Response:
    asked = ASKED["unlinkCustomer"](world.company)
    return await world.ask("unlinkCustomer", replace(asked, path="/v1/customers/cus_absent/link"))


@case("getPromotionCode", status=404)
async def _unknown_code(world: World) -> httpx.Response:
    asked = ASKED["getPromotionCode"](world.company)
    return await world.ask("getPromotionCode", replace(asked, path="/v1/promotion-codes/NOTHING"))


@case("attachPaymentMethodToCustomer", status=402)
async def _card_declined_when_attached(world: World) -> httpx.Response:
    asked = ASKED["attachPaymentMethodToCustomer"](world.company)
    body = {"payment_method_id": "pm_card_chargeDeclined"}
    return await world.ask("attachPaymentMethodToCustomer", replace(asked, body=body))


async def _with_bad_card(world: World, company: Company) -> str:
    """A card that can be attached and charged to nobody."""
    method = await world.service.stripe.post(
        "/v1/payment_methods/pm_card_chargeCustomerFail/attach", customer=company.payer.customer_id
    )
    return str(method["id"])


@case("addSubscription", status=402)
async def _card_declined_at_purchase(world: World) -> httpx.Response:
    company = world.company
    asked = ASKED["addSubscription"](company)
    body = {**asked.body, "payment_method_id": await _with_bad_card(world, company)}
    return await world.ask("addSubscription", replace(asked, body=body))


async def _more_seats(company: Company, quantity: int) -> dict[str, Any]:
    items = (await company.state())["items"]["data"]
    return {"items": [{"id": items[0]["id"], "quantity": quantity}]}


@case("updateSubscription", status=402)
async def _card_declined_at_change(world: World) -> httpx.Response:
    company = await world.service.company()
    body = {**await _more_seats(company, 9), "payment_method_id": await _with_bad_card(world, company)}
    return await world.ask("updateSubscription", replace(ASKED["updateSubscription"](company), body=body))


@case("updateSubscription", status=409)
async def _seats_in_use_at_change(world: World) -> httpx.Response:
    asked = replace(ASKED["updateSubscription"](world.company), body=await _more_seats(world.company, 1))
    return await world.ask("updateSubscription", asked)


@case("previewSubscription", status=409)
async def _seats_in_use_at_preview(world: World) -> httpx.Response:
    asked = replace(ASKED["previewSubscription"](world.company), body=await _more_seats(world.company, 1))
    return await world.ask("previewSubscription", asked)


@general(412)
async def _changed_meanwhile(world: World, operation: str) -> httpx.Response:
    return await world.ask(operation, ASKED[operation](world.company), If_Match='"another"')


async def _canceled(world: World) -> Company:
    company = await world.service.company()
    done = await world.ask(
        "cancelSubscription", replace(ASKED["cancelSubscription"](company), body={"when": "now"})
    )
    assert done.status_code == httpx.codes.OK, done.text
    return company


@case("resumeSubscription", status=409)
async def _nothing_to_resume(world: World) -> httpx.Response:
    return await world.ask("resumeSubscription", ASKED["resumeSubscription"](await _canceled(world)))


@case("detachPaymentMethodFromCustomer", status=204)
async def _detached(world: World) -> httpx.Response:
    company = world.company
    spare = await world.ask("attachPaymentMethodToCustomer", ASKED["attachPaymentMethodToCustomer"](company))
    path = f"/v1/customers/me/payment-methods/{spare.json()['payment_method']['id']}"
    return await world.ask("detachPaymentMethodFromCustomer", Asked(path, company.owner.headers))


@case("detachPaymentMethodFromCustomer", status=409)
async def _in_use(world: World) -> httpx.Response:
    asked = ASKED["detachPaymentMethodFromCustomer"](world.company)
    return await world.ask("detachPaymentMethodFromCustomer", asked)


@general(202)
async def _slow_change(world: World, operation: str) -> httpx.Response:
    """Stripe takes longer over the write than a request may wait."""
    service = world.service
    asked = await asked_of(world, operation, await service.company())
    async with running_service(service.stripe, service.database_url, OPERATION_DEADLINE="1") as hasty:
        # The preview that prices a change is quick.
        await service.stripe.add_fault(path="/v1/invoices/create_preview", latency_s=0.001, times=0)
        await service.stripe.add_fault(method="POST", latency_s=1.5)
        response = await world.ask(operation, asked, service=hasty)
        assert response.headers["location"] == f"/v1/operations/{response.json()['operation_id']}"
        return response


@case("offerTransfer", status=202)
async def _slow_repair(world: World) -> httpx.Response:
    """The payer of a subscription whose owner was deleted becomes its owner, while Stripe is slow."""
    service = world.service
    company = await service.company()
    nobody = {"billing_shared_subscription_owner": "cus_nobody"}
    await service.stripe.post(f"/v1/subscriptions/{company.subscription_id}", metadata=nobody)
    await service.refresh("subscription", company.subscription_id)
    asked = replace(ASKED["offerTransfer"](company), body={"to_customer_id": company.payer.customer_id})
    async with running_service(service.stripe, service.database_url, OPERATION_DEADLINE="1") as hasty:
        await service.stripe.add_fault(method="POST", latency_s=1.5)
        return await world.ask("offerTransfer", asked, service=hasty)


@case("updateSharedSubscriptionUsers", status=403)
async def _no_manager(world: World) -> httpx.Response:
    asked = ASKED["updateSharedSubscriptionUsers"](world.company)
    return await world.ask("updateSharedSubscriptionUsers", replace(asked, who=world.company.user.headers))


@case("updateSharedSubscriptionUsers", status=502)
async def _stripe_refuses_to_price_the_seats_given_back(world: World) -> httpx.Response:
    company = await world.service.company()
    asked = ASKED["updateSharedSubscriptionUsers"](company)
    body = {"remove": [company.user.customer_id], "release_seats": True}
    return await world.refused_by_stripe("updateSharedSubscriptionUsers", replace(asked, body=body))


@case("setSeats", status=402)
async def _declined_without_holding_the_seats_back(world: World) -> httpx.Response:
    """What Stripe answers for a wallet that pays at once or not at all."""
    company = await world.service.company()
    path = "/v1/subscriptions/{id}"
    await world.service.stripe.add_fault(method="POST", path=path, status=402, code="card_declined")
    return await world.ask("setSeats", ASKED["setSeats"](company))


@case("setSeats", status=409)
async def _seats_in_use(world: World) -> httpx.Response:
    asked = ASKED["setSeats"](world.company)
    return await world.ask("setSeats", replace(asked, body={"total": 1}))


@case("quoteSeats", status=409)
async def _seats_in_use_at_quote(world: World) -> httpx.Response:
    asked = ASKED["quoteSeats"](world.company)
    return await world.ask("quoteSeats", replace(asked, body={"total": 1}))


@case("leaveSharedSubscription", status=409)
async def _owner_leaves(world: World) -> httpx.Response:
    asked = ASKED["leaveSharedSubscription"](world.company)
    return await world.ask("leaveSharedSubscription", replace(asked, who=world.company.owner.headers))


@case("declineTransfer", status=409)
async def _declined_twice_at_once(world: World) -> httpx.Response:
    """It asks Stripe nothing: somebody else holds the plan's row meanwhile."""
    company = await world.service.company()
    asked = await asked_of(world, "declineTransfer", company)
    return await world.while_locked("declineTransfer", asked, company.subscription_id)


@case("givePurchasePermission", status=409)
async def _given_twice_at_once(world: World) -> httpx.Response:
    """It asks Stripe nothing: somebody else holds the plan's row meanwhile."""
    company = await world.service.company()
    asked = ASKED["givePurchasePermission"](company)
    return await world.while_locked("givePurchasePermission", asked, company.subscription_id)


@case("withdrawPurchasePermission", status=409)
async def _withdrawn_twice_at_once(world: World) -> httpx.Response:
    company = await world.service.company()
    asked = ASKED["withdrawPurchasePermission"](company)
    return await world.while_locked("withdrawPurchasePermission", asked, company.subscription_id)


@case("offerTransfer", status=409)
async def _owner_already(world: World) -> httpx.Response:
    asked = ASKED["offerTransfer"](world.company)
    body = {"to_customer_id": world.company.owner.customer_id}
    return await world.ask("offerTransfer", replace(asked, body=body))


@case("updateSharedSubscriptionUsers", status=409)
async def _no_seat_left(world: World) -> httpx.Response:
    company = await world.service.company(seats=2)
    return await world.ask("updateSharedSubscriptionUsers", ASKED["updateSharedSubscriptionUsers"](company))


@case("createInvitation", status=409)
async def _invited_already(world: World) -> httpx.Response:
    company = await world.service.company()
    asked = ASKED["createInvitation"](company)
    first = await world.ask("createInvitation", asked)
    assert first.status_code == httpx.codes.CREATED, first.text
    return await world.ask("createInvitation", asked)


async def _ended(world: World, operation: str, ending: str) -> httpx.Response:
    """Asks for an invitation that was declined or revoked."""
    company = await world.service.company()
    made = (await company.invite(as_service("write"))).json()
    path = f"{company.path}/invitations/{made['invitation']['id']}"
    token = {"token": made["token"]}
    if ending == "declineInvitation":
        done = await world.ask(ending, Asked("/v1/invitations/decline", None, token))
    else:
        done = await world.ask(ending, Asked(path, company.owner.headers))
    assert done.status_code == httpx.codes.NO_CONTENT, done.text
    asked = ASKED[operation](company)
    if asked.path.startswith("/v1/invitations/"):
        return await world.ask(operation, replace(asked, body=token))
    tail = asked.path.partition(NO_INVITATION)[2]
    return await world.ask(operation, replace(asked, path=path + tail))


@case("resendInvitation", status=409)
async def _resent_after_its_end(world: World) -> httpx.Response:
    return await _ended(world, "resendInvitation", "revokeInvitation")


@case("revokeInvitation", status=409)
async def _revoked_after_its_end(world: World) -> httpx.Response:
    return await _ended(world, "revokeInvitation", "declineInvitation")


@case("lookUpInvitation", status=409)
async def _looked_up_after_its_end(world: World) -> httpx.Response:
    return await _ended(world, "lookUpInvitation", "declineInvitation")


@case("declineInvitation", status=409)
async def _declined_after_its_end(world: World) -> httpx.Response:
    return await _ended(world, "declineInvitation", "revokeInvitation")


@case("acceptInvitation", status=502)
async def _stripe_refuses_to_make_the_acceptors_customer(world: World) -> httpx.Response:
    asked = await asked_of(world, "acceptInvitation", await world.service.company())
    return await world.refused_by_stripe("acceptInvitation", replace(asked, who=new_login()))
