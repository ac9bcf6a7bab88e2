"""What the contract's cases are asked of: a service, one without its database, and a request for each operation."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx

from app.sharing.invitation_tokens import InvitationTokens, TokenName
from testkit.company import Company, Service, new_email
from testkit.service import INVITATION_SECRET, as_service, as_user
from tests.contract.declared import operations


@dataclass(frozen=True)
class Asked:
    """One request; `who` are headers, None for nobody."""

    path: str
    who: Mapping[str, str] | None
    body: Any = None
    query: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class World:
    """Beside `service`, with its account: `refused` has a database that refuses every connection, `strict` gives
    a caller four requests and a body a tenth of a second.
    """

    service: Service
    refused: Service
    strict: Service
    company: Company

    async def ask(
        self, operation: str, asked: Asked, *, service: Service | None = None, **headers: str
    ) -> httpx.Response:
        """`asked` as it would succeed, or as a case has spoiled it; dashes in header names are underscores."""
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        return await (service or self.service).client.request(
            operations()[operation].method,
            asked.path,
            headers={**(asked.who or {}), **extra},
            params=dict(asked.query),
            **({} if asked.body is None else {"json": asked.body}),
        )

    async def raw(
        self,
        operation: str,
        asked: Asked,
        content: bytes | AsyncIterator[bytes],
        media_type: str = "application/json",
        *,
        service: Service | None = None,
    ) -> httpx.Response:
        return await (service or self.service).client.request(
            operations()[operation].method,
            asked.path,
            content=content,
            headers={**(asked.who or {}), "Content-Type": media_type},
        )

    async def while_running(self, operation: str, asked: Asked) -> httpx.Response:
        """The answer to the second of two requests with one key, while Stripe takes its time over the first."""
        await self.service.stripe.add_fault(latency_s=0.5, times=0)
        try:
            return await self._second_of_two(operation, asked)
        finally:
            await self.service.stripe.clear_faults()

    async def while_locked(self, operation: str, asked: Asked, subscription_id: str) -> httpx.Response:
        """The same, while another transaction holds the subscription's row."""
        row = "select 1 from subscriptions where id = $1 for update"
        return await self._while_held(operation, asked, row, subscription_id)

    async def while_endpoints_locked(self, operation: str, asked: Asked) -> httpx.Response:
        """The same, while another transaction holds the table of webhook endpoints."""
        table = "lock table webhook_endpoints in access exclusive mode"
        return await self._while_held(operation, asked, table)

    async def _while_held(self, operation: str, asked: Asked, lock: str, *values: str) -> httpx.Response:
        connection = await asyncpg.connect(self.service.database_url)
        try:
            await connection.execute("begin")
            await connection.execute(lock, *values)
            return await self._second_of_two(operation, asked, connection.close)
        finally:
            await connection.close()

    async def _second_of_two(
        self, operation: str, asked: Asked, release: Callable[[], Awaitable[None]] | None = None
    ) -> httpx.Response:
        key = secrets.token_hex(8)
        first = asyncio.create_task(self.ask(operation, asked, Idempotency_Key=key))
        try:
            await self._claimed(key)
            return await self.ask(operation, asked, Idempotency_Key=key)
        finally:
            if release is not None:
                await release()
            await first

    async def _claimed(self, key: str, *, within: int = 200) -> None:
        for _ in range(within):
            if await self.service.fetch("select 1 from idempotency_keys where key = $1", key):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the first request never began")

    async def refused_by_stripe(self, operation: str, asked: Asked) -> httpx.Response:
        """Stripe finds every request of the service wrong."""
        await self.service.stripe.add_fault(status=400, code="parameter_invalid_integer", times=0)
        try:
            return await self.ask(operation, asked)
        finally:
            await self.service.stripe.clear_faults()

    async def age(self, company: Company) -> None:
        """The cache has last seen the company a minute ago: what is newer is not asked for again."""
        ids = [company.owner.customer_id, company.subscription_id, company.invoice_id]
        for table in ("customers", "subscriptions", "invoices"):
            await self.service.fetch(
                f"update {table} set synced_at = synced_at - interval '1 minute' where id = any($1)", ids
            )

    async def stranger_with_claim(self) -> dict[str, str]:
        """A login that is linked to one customer and claims to be another."""
        person = await self.service.person("claimant")
        assert (await self.service.get("/v1/customers/me", person.headers)).status_code == httpx.codes.OK
        return as_user(person.subject, stripe_customer_id=self.company.owner.customer_id)


def owner_of(company: Company) -> Mapping[str, str]:
    return company.owner.headers


def _buying(company: Company) -> dict[str, Any]:
    return {
        "items": [{"price_id": company.price_id, "quantity": 2}],
        "payment_method_id": company.payment_method_id,
        "allow_duplicate": True,
    }


def new_login() -> dict[str, str]:
    return as_user(f"new-{secrets.token_hex(6)}")


def _subscription(company: Company, tail: str = "", body: Any = None) -> Asked:
    return Asked(f"/v1/subscriptions/{company.subscription_id}{tail}", owner_of(company), body)


def _mine(company: Company, tail: str = "", body: Any = None, **query: Any) -> Asked:
    return Asked(f"/v1/customers/me{tail}", owner_of(company), body, query)


NO_INVITATION = f"inv_{'0' * 24}"
NO_TOKEN = {"token": InvitationTokens([INVITATION_SECRET]).make(TokenName(NO_INVITATION, 1))}
"""The right token of an invitation that there is not."""

NOWHERE = "http://127.0.0.1:9/hooks"
"""An endpoint where nobody listens."""
NO_ENDPOINT = f"we_{'0' * 24}"


def _endpoint(tail: str = "", body: Any = None) -> Asked:
    return Asked(f"/v1/webhook-endpoints/{NO_ENDPOINT}{tail}", as_service("admin"), body)


ASKED: dict[str, Callable[[Company], Asked]] = {
    "healthz": lambda _: Asked("/healthz", None),
    "readyz": lambda _: Asked("/readyz", None),
    "getProducts": lambda c: Asked("/v1/products", None, query={"ids": [c.product_id]}),
    "createCustomer": lambda _: Asked("/v1/customers", new_login(), {"name": "Nora New"}),
    "unlinkCustomer": lambda c: Asked(f"/v1/customers/{c.stranger.customer_id}/link", as_service("admin")),
    "getCustomer": _mine,
    "updateCustomer": lambda c: _mine(c, body={"name": "Olivia Owner"}),
    "getCustomerSubscriptions": lambda c: _mine(c, "/subscriptions"),
    "getCustomerPaymentMethods": lambda c: _mine(c, "/payment-methods"),
    "getCustomerInvoices": lambda c: _mine(c, "/invoices"),
    "getUpcomingInvoice": lambda c: _mine(c, "/upcoming-invoice"),
    "getAccess": lambda c: _mine(c, "/access", product_id=c.product_id),
    "createSetupIntent": lambda c: _mine(c, "/setup-intents"),
    "attachPaymentMethodToCustomer": lambda c: _mine(
        c, "/payment-methods", {"payment_method_id": "pm_card_mastercard"}
    ),
    "setPaymentMethodAsDefault": lambda c: _mine(
        c, "/default-payment-method", {"payment_method_id": c.payment_method_id}
    ),
    "detachPaymentMethodFromCustomer": lambda c: _mine(c, f"/payment-methods/{c.payment_method_id}"),
    "addSubscription": lambda c: Asked(
        f"/v1/customers/{c.owner.customer_id}/subscriptions", as_service("admin"), _buying(c)
    ),
    "getSubscription": _subscription,
    "updateSubscription": lambda c: _subscription(c, body={"cancel_at_period_end": True}),
    "previewSubscription": lambda c: _subscription(c, "/preview", {"cancel_at_period_end": True}),
    "cancelSubscription": lambda c: _subscription(c, "/cancel", {}),
    "resumeSubscription": lambda c: _subscription(c, "/resume"),
    "getInvoice": lambda c: Asked(f"/v1/invoices/{c.invoice_id}", owner_of(c)),
    "getPromotionCode": lambda c: Asked("/v1/promotion-codes/WELCOME10", owner_of(c)),
    "getSharedSubscription": lambda c: Asked(c.path, owner_of(c)),
    "getSharedSubscriptionUsers": lambda c: Asked(f"{c.path}/users", owner_of(c)),
    "updateSharedSubscriptionUsers": lambda c: Asked(
        f"{c.path}/users", owner_of(c), {"add": [{"email": new_email()}]}
    ),
    "setSeats": lambda c: Asked(f"{c.path}/seats", owner_of(c), {"total": 6}),
    "quoteSeats": lambda c: Asked(f"{c.path}/quote", owner_of(c), {"total": 6}),
    "leaveSharedSubscription": lambda c: Asked(f"{c.path}/users/me", c.user.headers),
    "offerTransfer": lambda c: Asked(
        f"{c.path}/transfer", owner_of(c), {"to_customer_id": c.user.customer_id}
    ),
    "getTransfer": lambda c: Asked(f"{c.path}/transfer", owner_of(c)),
    "acceptTransfer": lambda c: Asked(f"{c.path}/transfer/accept", c.user.headers),
    "declineTransfer": lambda c: Asked(f"{c.path}/transfer/decline", c.user.headers),
    "givePurchasePermission": lambda c: Asked(f"{c.path}/purchase-permission", owner_of(c)),
    "withdrawPurchasePermission": lambda c: Asked(f"{c.path}/purchase-permission", owner_of(c)),
    "createInvitation": lambda c: Asked(f"{c.path}/invitations", owner_of(c), {"email": new_email()}),
    "getInvitations": lambda c: Asked(f"{c.path}/invitations", owner_of(c)),
    "resendInvitation": lambda c: Asked(f"{c.path}/invitations/{NO_INVITATION}/resend", owner_of(c), {}),
    "revokeInvitation": lambda c: Asked(f"{c.path}/invitations/{NO_INVITATION}", owner_of(c)),
    "lookUpInvitation": lambda _: Asked("/v1/invitations/lookup", None, NO_TOKEN),
    "acceptInvitation": lambda c: Asked("/v1/invitations/accept", c.stranger.headers, NO_TOKEN),
    "declineInvitation": lambda _: Asked("/v1/invitations/decline", None, NO_TOKEN),
    "getEvents": lambda c: Asked(
        "/v1/events", as_service("read"), query={"subscription_id": c.subscription_id, "limit": 3}
    ),
    "getEventsSnapshot": lambda _: Asked("/v1/events/snapshot", as_service("read"), query={"limit": 5}),
    "streamEvents": lambda c: Asked(f"{c.path}/events", owner_of(c)),
    "createWebhookEndpoint": lambda _: Asked("/v1/webhook-endpoints", as_service("admin"), {"url": NOWHERE}),
    "getWebhookEndpoints": lambda _: Asked("/v1/webhook-endpoints", as_service("admin")),
    "getWebhookEndpoint": lambda _: _endpoint(),
    "updateWebhookEndpoint": lambda _: _endpoint(body={"description": "Provisioning"}),
    "deleteWebhookEndpoint": lambda _: _endpoint(),
    "rotateWebhookEndpointSecret": lambda _: _endpoint("/rotate-secret", {"overlap_seconds": 3600}),
    "sendWebhookTest": lambda _: _endpoint("/test"),
    "getWebhookDeliveries": lambda _: _endpoint("/deliveries"),
    "redeliverWebhook": lambda _: _endpoint(f"/deliveries/dl_{'0' * 24}/redeliver"),
    "getAuditEvents": lambda c: Asked(f"{c.path}/audit-events", owner_of(c)),
    "getOperation": lambda c: Asked("/v1/operations/op_000000000000000000000000", owner_of(c)),
    "cancelOperation": lambda c: Asked("/v1/operations/op_000000000000000000000000/cancel", owner_of(c)),
}
"""For each operation a request of the owner's that would succeed."""
