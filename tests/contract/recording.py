"""Records the examples of the OpenAPI document: real answers of the service over the demonstration data.

`python -m tests.contract.recording` (`make openapi`) writes them to openapi/examples; a test compares what is there
with a recording of its own.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from app.commands.local_postgres import LocalPostgres, state_directory
from app.commands.logs import configure_logs
from app.commands.openapi import COMMON_PROBLEM, EXAMPLES, REQUEST
from testkit import databases
from testkit.company import Service, running_service
from testkit.processes import running
from testkit.service import as_service, as_user
from testkit.simulator import Simulator
from tests.contract.declared import operations
from tests.contract.normal_form import NormalForm

DEMO_KEY = "sk_test_demo"
PEOPLE: Mapping[str, Mapping[str, str]] = {
    **{
        name: as_user(f"demo-{name}", email=f"{name}@example.com", email_verified=True)
        for name in ("owner", "manager", "user", "stranger")
    },
    "newcomer": as_user("demo-newcomer", email="newcomer@example.com", email_verified=True),
    "service": as_service("admin"),
    "nobody": {},
}
PLAN, SHARED = "/v1/subscriptions/sub_demoteam", "/v1/shared-subscriptions/sub_demoteam"
LARGE = 64 * 1024 + 1


class Recording:
    """Sends requests as people of the demonstration and keeps the answers by the name that their file has."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.kept: dict[str, Any] = {}
        self._normal = NormalForm(datetime.now(UTC))

    async def take(
        self,
        operation: str,
        path: str,
        who: str,
        body: Any = None,
        *,
        status: int = 200,
        common: bool = False,
        through: Service | None = None,
        **headers: str,
    ) -> Any:
        """The answer as it came. `common`: the example is that of its status, whatever the operation.

        AssertionError for another status than `status`.
        """
        method = operations()[operation].method
        response = await (through or self.service).send(method, path, PEOPLE[who], body, **headers)
        assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text}"
        self.keep(operation, body, response, common)
        return response.json() if response.content else None

    def keep(self, operation: str, body: Any, response: httpx.Response, common: bool) -> None:
        """Keep the answer, and the body of the first request that succeeded."""
        if not response.content:
            return
        name = COMMON_PROBLEM if common else operation
        self.kept[f"{name}.{response.status_code}"] = self._normal.of(response.json())
        if body is not None and not common and response.is_success:
            self.kept.setdefault(f"{name}.{REQUEST}", self._normal.of(body))


async def record(service: Service) -> dict[str, Any]:
    """Every example by its name. The service must be filled, and nobody else may use its account meanwhile."""
    recording = Recording(service)
    for part in (
        _reads,
        _events,
        _endpoints,
        _people,
        _plan,
        _customers,
        _purchases,
        _problems,
        _slow,
        _transfer,
        _invitations,
        _leaving,
        _processing,
    ):
        await part(recording)
    return recording.kept


async def _reads(recording: Recording) -> None:
    take = recording.take
    await take("healthz", "/healthz", "nobody")
    await take("readyz", "/readyz", "nobody")
    await take("getProducts", "/v1/products?ids=prod_demoteam&ids=prod_other&country=DE", "nobody")
    await take("getCustomer", "/v1/customers/me", "owner")
    await take("getCustomerSubscriptions", "/v1/customers/me/subscriptions", "owner")
    await take("getCustomerPaymentMethods", "/v1/customers/me/payment-methods", "owner")
    invoices = await take("getCustomerInvoices", "/v1/customers/me/invoices", "owner")
    await take("getInvoice", f"/v1/invoices/{invoices['data'][0]['id']}", "owner")
    await take("getUpcomingInvoice", "/v1/customers/me/upcoming-invoice", "owner")
    await take("getAccess", "/v1/customers/me/access?product_id=prod_demoteam", "user")
    await take("getSubscription", PLAN, "owner")
    await take("getSharedSubscription", SHARED, "user")
    await take("getSharedSubscriptionUsers", f"{SHARED}/users", "owner")


async def _events(recording: Recording) -> None:
    await recording.service.announce()
    await recording.take("getEventsSnapshot", "/v1/events/snapshot?limit=4", "service")
    await recording.take("getEvents", "/v1/events", "service")


async def _endpoints(recording: Recording) -> None:
    take, path = recording.take, "/v1/webhook-endpoints"
    body = {
        "url": "http://127.0.0.1:9/hooks",
        "types": ["seat.assigned", "seat.released"],
        "description": "Mails",
    }
    made = await take("createWebhookEndpoint", path, "service", body, status=httpx.codes.CREATED)
    await take("getWebhookEndpoints", path, "service")
    path = f"{path}/{made['webhook_endpoint']['id']}"
    await take("getWebhookEndpoint", path, "service")
    await take("rotateWebhookEndpointSecret", f"{path}/rotate-secret", "service", {"overlap_seconds": 3600})
    await take("sendWebhookTest", f"{path}/test", "service")
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    await recording.service.fetch(
        """insert into webhook_deliveries (id, endpoint_id, position, event_id, state, attempts)
        values ('dl_000000000000000000000001', $1, 1, 'evt_000000000000000000000001', 'delivered', $2)""",
        made["webhook_endpoint"]["id"],
        json.dumps(
            [{"at": at, "status": None, "error": "no connection"}, {"at": at, "status": 204, "error": None}]
        ),
    )
    await take("getWebhookDeliveries", f"{path}/deliveries", "service")
    await take("updateWebhookEndpoint", path, "service", {"status": "disabled"})
    await recording.service.send("DELETE", path, PEOPLE["service"])


async def _people(recording: Recording) -> None:
    body = {
        "add": [{"email": "anna@example.com"}],
        "update": [{"customer_id": "cus_demouser", "role": "manager"}],
    }
    done = await recording.take("updateSharedSubscriptionUsers", f"{SHARED}/users", "owner", body)
    await recording.take("getOperation", f"/v1/operations/{done['operation_id']}", "owner")
    crowd = {"add": [{"email": f"person{number}@example.com"} for number in range(1, 4)]}
    await recording.take(
        "updateSharedSubscriptionUsers", f"{SHARED}/users", "owner", crowd, status=httpx.codes.CONFLICT
    )


async def _plan(recording: Recording) -> None:
    take = recording.take
    quote = await take("quoteSeats", f"{SHARED}/quote", "owner", {"total": 6})
    await take("setSeats", f"{SHARED}/seats", "owner", {"total": 6, "quote_id": quote["quote_id"]})
    await take("setSeats", f"{SHARED}/seats", "owner", {"total": 1}, status=httpx.codes.CONFLICT)
    plan = (await recording.service.get(PLAN, PEOPLE["owner"])).json()["subscription"]
    [team, _] = plan["items"]
    change = {"items": [{"id": team["id"], "quantity": 8}]}
    quote = await take("previewSubscription", f"{PLAN}/preview", "owner", change)
    await take("updateSubscription", PLAN, "owner", {**change, "quote_id": quote["quote_id"]})
    fewer = {"items": [{"id": team["id"], "quantity": 1}]}
    await take("updateSubscription", PLAN, "owner", fewer, status=httpx.codes.CONFLICT)
    await take(
        "updateSubscription",
        PLAN,
        "owner",
        change,
        status=httpx.codes.PRECONDITION_FAILED,
        common=True,
        If_Match='"as-it-was"',
    )
    await take("cancelSubscription", f"{PLAN}/cancel", "owner", {"when": "period_end", "reason": "too dear"})
    await take("resumeSubscription", f"{PLAN}/resume", "owner")


async def _customers(recording: Recording) -> None:
    take = recording.take
    name = {"name": "Nora Newcomer"}
    await take("createCustomer", "/v1/customers", "newcomer", name, status=httpx.codes.CREATED)
    await take("createCustomer", "/v1/customers", "newcomer", name)
    await take("updateCustomer", "/v1/customers/me", "newcomer", {"phone": "+49 30 5550123"})
    await take("createSetupIntent", "/v1/customers/me/setup-intents", "newcomer", status=httpx.codes.CREATED)
    methods = "/v1/customers/me/payment-methods"
    attached = await take(
        "attachPaymentMethodToCustomer",
        methods,
        "newcomer",
        {"payment_method_id": "pm_card_mastercard", "use_as_default": True},
        status=httpx.codes.CREATED,
    )
    chosen = {"payment_method_id": attached["payment_method"]["id"]}
    await take("setPaymentMethodAsDefault", "/v1/customers/me/default-payment-method", "newcomer", chosen)
    coupon = await recording.service.stripe.post("/v1/coupons", percent_off=10, duration="once")
    await recording.service.stripe.post(
        "/v1/promotion_codes", code="WELCOME10", promotion={"type": "coupon", "coupon": coupon["id"]}
    )
    await take("getPromotionCode", "/v1/promotion-codes/WELCOME10", "newcomer")
    detached = f"{methods}/{chosen['payment_method_id']}"
    await take("detachPaymentMethodFromCustomer", detached, "newcomer", status=httpx.codes.NO_CONTENT)


async def _purchases(recording: Recording) -> None:
    path, stripe = "/v1/customers/me/subscriptions", recording.service.stripe
    [price] = (await stripe.get("/v1/prices", lookup_keys=["team_yearly"]))["data"]
    items = [{"price_id": price["id"], "quantity": 3}]
    card = await stripe.post(
        "/v1/payment_methods/pm_card_chargeCustomerFail/attach", customer="cus_demostranger"
    )
    await recording.take(
        "addSubscription",
        path,
        "stranger",
        {"items": items, "payment_method_id": card["id"]},
        status=httpx.codes.PAYMENT_REQUIRED,
        common=True,
    )
    body: dict[str, Any] = {"items": items, "promotion_code": "WELCOME10"}
    waiting = await recording.take("addSubscription", path, "stranger", body, status=httpx.codes.ACCEPTED)
    await recording.take("cancelOperation", f"/v1/operations/{waiting['operation_id']}/cancel", "stranger")
    body["payment_method_id"] = "pm_card_visa"
    await recording.take("addSubscription", path, "stranger", body, status=httpx.codes.CREATED)


async def _problems(recording: Recording) -> None:
    take, users, name = recording.take, f"{SHARED}/users", "updateSharedSubscriptionUsers"
    friend = {"add": [{"email": "friend@example.com"}]}
    await take(name, users, "nobody", friend, status=httpx.codes.UNAUTHORIZED, common=True)
    await take(
        "setSeats", f"{SHARED}/seats", "manager", {"total": 9}, status=httpx.codes.FORBIDDEN, common=True
    )
    await take("getSharedSubscription", SHARED, "newcomer", status=httpx.codes.NOT_FOUND, common=True)
    wrong = {"add": [{"email": "nobody"}], "quantity": 9}
    await take(name, users, "owner", wrong, status=httpx.codes.UNPROCESSABLE_ENTITY, common=True)
    for content, media_type in ((b" " * LARGE, "application/json"), (b"add=friend", "text/plain")):
        headers = {**PEOPLE["owner"], "Content-Type": media_type}
        response = await recording.service.client.patch(users, content=content, headers=headers)
        recording.keep(name, None, response, common=True)
    stripe = recording.service.stripe
    for status, answered in ((400, httpx.codes.BAD_GATEWAY), (500, httpx.codes.SERVICE_UNAVAILABLE)):
        await stripe.add_fault(method="POST", path="/v1/setup_intents", status=status)
        path = "/v1/customers/me/setup-intents"
        await take("createSetupIntent", path, "newcomer", status=answered, common=True)
    await stripe.clear_faults()


async def _slow(recording: Recording) -> None:
    """Stripe takes longer than a request may wait."""
    service = recording.service
    async with running_service(service.stripe, service.database_url, OPERATION_DEADLINE="1") as hasty:
        await service.stripe.add_fault(method="POST", path="/v1/customers", latency_s=1.5)
        body = {"add": [{"email": "slow@example.com"}]}
        accepted = await recording.take(
            "updateSharedSubscriptionUsers",
            f"{SHARED}/users",
            "owner",
            body,
            status=httpx.codes.ACCEPTED,
            through=hasty,
        )
        await _settled(hasty, accepted["operation_id"], "owner")
        await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", latency_s=1.5)
        accepted = await recording.take(
            "leaveSharedSubscription",
            f"{SHARED}/users/me",
            "manager",
            status=httpx.codes.ACCEPTED,
            through=hasty,
        )
        await _settled(hasty, accepted["operation_id"], "manager")
        await _slow_plan(recording, hasty)


async def _slow_plan(recording: Recording, hasty: Service) -> None:
    stripe = hasty.stripe
    nobody = {"billing_shared_subscription_owner": "cus_nobody"}
    slow = {"method": "POST", "latency_s": 1.5}
    for operation, path, who, body in (
        ("setSeats", f"{SHARED}/seats", "owner", {"total": 9}),
        ("updateSubscription", PLAN, "owner", {"cancel_at_period_end": True}),
        ("resumeSubscription", f"{PLAN}/resume", "owner", None),
        ("cancelSubscription", f"{PLAN}/cancel", "owner", {"when": "period_end"}),
        ("offerTransfer", f"{SHARED}/transfer", "owner", {"to_customer_id": "cus_demoowner"}),
    ):
        if operation == "offerTransfer":
            await stripe.post("/v1/subscriptions/sub_demoteam", metadata=nobody)
            await hasty.refresh("subscription", "sub_demoteam")
        await stripe.add_fault(**slow, path="/v1/subscriptions/{id}")
        accepted = await recording.take(
            operation, path, who, body, status=httpx.codes.ACCEPTED, through=hasty
        )
        await _settled(hasty, accepted["operation_id"], who)
    resumed = await hasty.send("POST", f"{PLAN}/resume", PEOPLE["owner"])
    assert resumed.status_code == httpx.codes.OK, resumed.text


async def _settled(service: Service, operation_id: str, who: str) -> None:
    async with asyncio.timeout(10):
        path = f"/v1/operations/{operation_id}"
        while (await service.get(path, PEOPLE[who])).json()["state"] != "settled":  # noqa: ASYNC110 - only its API tells
            await asyncio.sleep(0.05)


async def _transfer(recording: Recording) -> None:
    """There and back, so that the demonstration's owner has the plan again."""
    take, path, service = recording.take, f"{SHARED}/transfer", recording.service
    offer = {"to_customer_id": "cus_demouser", "keep_me_as": "manager"}
    await take("offerTransfer", path, "owner", offer)
    await take("declineTransfer", f"{path}/decline", "user")
    await take("offerTransfer", path, "owner", offer)
    await take("getTransfer", path, "user")
    await take("acceptTransfer", f"{path}/accept", "user")
    permission = f"{SHARED}/purchase-permission"
    await take("givePurchasePermission", permission, "owner")
    await take("withdrawPurchasePermission", permission, "owner", status=httpx.codes.NO_CONTENT)
    back = {"to_customer_id": "cus_demoowner", "keep_me_as": "user"}
    offered = await service.send("POST", path, PEOPLE["user"], back)
    assert offered.status_code == httpx.codes.OK, offered.text
    async with running_service(service.stripe, service.database_url, OPERATION_DEADLINE="1") as hasty:
        await service.stripe.add_fault(method="POST", path="/v1/subscriptions/{id}", latency_s=1.5)
        accepted = await take(
            "acceptTransfer", f"{path}/accept", "owner", status=httpx.codes.ACCEPTED, through=hasty
        )
        await _settled(hasty, accepted["operation_id"], "owner")
    await take("getAuditEvents", f"{SHARED}/audit-events?limit=4", "owner")


async def _invitations(recording: Recording) -> None:
    """The newcomer accepts while Stripe takes its time, and asks again afterwards."""
    take, path, service = recording.take, f"{SHARED}/invitations", recording.service
    owner = "cus_demoowner"
    body = {"email": "newcomer@example.com", "role": "manager"}
    made = await take(
        "createInvitation", path, "service", body, status=httpx.codes.CREATED, X_Acting_Customer=owner
    )
    await take("createInvitation", path, "owner", body, status=httpx.codes.CONFLICT)
    again = f"{path}/{made['invitation']['id']}/resend"
    resent = await take("resendInvitation", again, "service", {}, X_Acting_Customer=owner)
    token = {"token": resent["token"]}
    await take("lookUpInvitation", "/v1/invitations/lookup", "nobody", token)
    async with running_service(service.stripe, service.database_url, OPERATION_DEADLINE="1") as hasty:
        await service.stripe.add_fault(method="POST", path="/v1/customers/{id}", latency_s=1.5)
        accepted = await take(
            "acceptInvitation",
            "/v1/invitations/accept",
            "newcomer",
            token,
            status=httpx.codes.ACCEPTED,
            through=hasty,
        )
        await _settled(hasty, accepted["operation_id"], "newcomer")
    await take("acceptInvitation", "/v1/invitations/accept", "newcomer", token)
    await take("getInvitations", path, "owner")


async def _leaving(recording: Recording) -> None:
    await recording.take("leaveSharedSubscription", f"{SHARED}/users/me", "user")


async def _processing(recording: Recording) -> None:
    """A raise whose payment the bank is processing can only be noted as abandoned."""
    service, stripe = recording.service, recording.service.stripe
    card = await stripe.post(
        "/v1/payment_methods/pm_card_authenticationRequired/attach", customer="cus_demoowner"
    )
    await stripe.post("/v1/subscriptions/sub_demoteam", default_payment_method=card["id"])
    await service.refresh("subscription", "sub_demoteam")
    raised = (await service.send("PUT", f"{SHARED}/seats", PEOPLE["owner"], {"total": 20})).json()
    secret = raised["payment"]["client_secret"]
    await stripe.control("POST", "confirm", client_secret=secret, payment_method="pm_usBankAccount")
    path = f"/v1/operations/{raised['operation_id']}/cancel"
    await recording.take("cancelOperation", path, "owner", status=httpx.codes.ACCEPTED)


@asynccontextmanager
async def demonstration(database_url: str) -> AsyncIterator[Service]:
    """The service over a stand-in of its own, with the demonstration data and a filled cache."""
    command = [
        sys.executable,
        "-m",
        "stripe_simulator",
        "--port",
        "0",
        "--memory",
        "--demo",
        "--api-key",
        DEMO_KEY,
    ]
    with running("simulator", command, {}) as process:
        base_url = process.wait_for_line(r"listening on (http://\S+)")[1]
        async with (
            Simulator(base_url, DEMO_KEY) as stripe,
            running_service(stripe, database_url) as service,
        ):
            await service.fill()
            yield service


async def _record_anew(database_url: str) -> dict[str, Any]:
    async with demonstration(database_url) as service:
        return await record(service)


def as_text(example: Any) -> str:
    return json.dumps(example, indent=2, ensure_ascii=False) + "\n"


def write(examples: Mapping[str, Any], directory: Path) -> None:
    """Replaces what is there."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.json"):
        old.unlink()
    for name, example in examples.items():
        (directory / f"{name}.json").write_text(as_text(example), encoding="utf-8")


def main() -> None:
    configure_logs("critical")
    server = LocalPostgres(state_directory(databases.CHECKOUT) / "tests", fast=True)
    server.start()
    try:
        postgres = server.url("postgres")
        database = databases.clone(postgres, databases.ensure_template(postgres))
        try:
            examples = asyncio.run(_record_anew(database))
        finally:
            databases.drop(postgres, database)
    finally:
        server.stop()
    write(examples, EXAMPLES)
    print(f"{len(examples)} examples recorded.")


if __name__ == "__main__":
    main()
