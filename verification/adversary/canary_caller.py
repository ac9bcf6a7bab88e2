"""The account that holds the canaries, and the caller who sends what succeeds and what is refused."""

import json
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt

from testkit.company import event_of, signed
from testkit.plans import MONTHLY
from testkit.service import AUDIENCE, ISSUER
from testkit.simulator import Simulator
from verification.adversary.canary_list import REPLAYED, Canaries, Canary

_ERROR = 400


@dataclass
class Diary:
    """What was planted, and what the parts of the day have said. `short`: each kind of trouble once."""

    short: bool = False
    canaries: Canaries = field(default_factory=Canaries)
    made: list[Canary] = field(default_factory=list)
    """Secrets and addresses that Stripe made."""
    printed: dict[str, list[str]] = field(default_factory=dict)
    """Lines by process."""
    errors: list[tuple[str, str]] = field(default_factory=list)
    """What was asked, without its values, and the answer."""
    metrics: list[str] = field(default_factory=list)
    token: str = ""
    """Of an open invitation."""
    told: list[tuple[str, str]] = field(default_factory=list)
    """How an event reached a consumer, and its JSON."""

    def heard(self, what: str, response: httpx.Response) -> None:
        if response.status_code >= _ERROR:
            headers = {name: value for name, value in response.headers.items() if name != "x-request-id"}
            self.errors.append((f"{what} {response.status_code}", f"{headers} {response.text}"))

    def heard_metrics(self, response: httpx.Response) -> None:
        assert response.status_code == httpx.codes.OK, response.text
        self.metrics.append(response.text)


@dataclass
class Account:
    """A plan with its owner, who carries the personal data, and a member."""

    stripe: Simulator
    owner: str
    price: str
    product: str
    plan: str
    card: str
    spare: str
    invoice: str

    @classmethod
    async def stocked(cls, stripe: Simulator, planted: Canaries) -> "Account":
        foreign = {"crm": planted.metadata.value}
        marks = {"billing_sellable": "true", "billing_supports_shared_subscriptions": "true", **foreign}
        product = await stripe.post("/v1/products", name="Team", metadata=marks)
        price = await stripe.post(
            "/v1/prices",
            product=product["id"],
            currency="usd",
            unit_amount=1200,
            recurring=MONTHLY,
            metadata={"billing_sellable": "true", **foreign},
        )
        owner = await stripe.post(
            "/v1/customers",
            email=planted.email.value,
            name=planted.name.value,
            phone=planted.phone.value,
            address={"line1": planted.address.value, "country": "DE"},
            description=planted.description.value,
            metadata={"billing_user_id": planted.subject.value, **foreign},
        )
        cards = []
        for _ in range(2):
            card = await stripe.post("/v1/payment_methods/pm_card_visa/attach", customer=owner["id"])
            holder = {"name": planted.card_holder.value, "address": {"line1": planted.address.value}}
            await stripe.post(f"/v1/payment_methods/{card['id']}", billing_details=holder)
            cards.append(str(card["id"]))
        await stripe.post(
            f"/v1/customers/{owner['id']}", invoice_settings={"default_payment_method": cards[0]}
        )
        subscription = await stripe.post(
            "/v1/subscriptions",
            customer=owner["id"],
            items=[{"price": price["id"], "quantity": 5}],
            metadata={"billing_shared_subscription_owner": owner["id"], **foreign},
        )
        await stripe.post(
            "/v1/customers",
            email="member@example.com",
            metadata={
                "billing_shared_subscription_id": subscription["id"],
                "billing_shared_subscription_role": planted.odd_role.value,
                **foreign,
            },
        )
        coupon = await stripe.post("/v1/coupons", percent_off=10, duration="once")
        await stripe.post(
            "/v1/promotion_codes",
            code=planted.promotion_code.value,
            promotion={"type": "coupon", "coupon": coupon["id"]},
        )
        return cls(
            stripe,
            str(owner["id"]),
            str(price["id"]),
            str(product["id"]),
            str(subscription["id"]),
            cards[0],
            cards[1],
            str(subscription["latest_invoice"]),
        )


class Caller:
    """The owner with his login, and whoever else sends something; every refusal is kept."""

    def __init__(self, diary: Diary, client: httpx.AsyncClient, account: Account) -> None:
        self.diary = diary
        self.account = account
        self._client = client
        planted = diary.canaries
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": planted.subject.value,
            "iat": now,
            "exp": now + 3600,
            "email": planted.email.value,
            "email_verified": True,
        }
        token = jwt.encode(claims, planted.jwt_secret.value, algorithm="HS256")
        self._as_owner = {"Authorization": f"Bearer {token}"}
        _, payload, signature = token.split(".")
        diary.made.append(Canary("login's token", token, (payload, signature)))
        self.as_admin = {"Authorization": f"Bearer {planted.service_key.value}"}

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        who: Mapping[str, str] | None = None,
        **headers: str,
    ) -> httpx.Response:
        sent = {**(self._as_owner if who is None else who)}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        content: dict[str, Any] = {} if body is None else {"json": body}
        if isinstance(body, bytes):
            content = {"content": body}
            sent.setdefault("Content-Type", "application/json")
        raw = {name.encode(): value.encode("latin-1") for name, value in sent.items()}
        response = await self._client.request(method, path, headers=raw, **content)
        self.diary.heard(f"{method} {path.partition('?')[0]}", response)
        return response

    async def change_name(self, suffix: str) -> httpx.Response:
        return await self.ask(
            "PATCH", "/v1/customers/me", {"name": f"{self.diary.canaries.name.value} {suffix}"}
        )

    def streaming(self, place: str) -> AbstractAsyncContextManager[httpx.Response]:
        """The stream of the plan as the owner's page reads it, from a place of the log."""
        headers = {**self._as_owner, "Last-Event-ID": place}
        return self._client.stream(
            "GET", f"/v1/shared-subscriptions/{self.account.plan}/events", headers=headers
        )

    def keep(self, name: str, value: object, *columns: tuple[str, str], posted: bool = False) -> None:
        """A value that Stripe or the service made, secret or personal as it stands."""
        assert isinstance(value, str) and len(value) > 12, (name, value)
        if all(value != canary.value for canary in self.diary.made):
            kept = dict.fromkeys(columns, "what it is for")
            self.diary.made.append(Canary(name, value, (value,), kept, posted=posted))

    async def whole_day(self, stripe: Simulator) -> None:
        await self.reads()
        await self._writes_that_succeed()
        await self._bad_input()
        await self._bad_credentials()
        await self._bad_deliveries()
        await self._bad_stripe(stripe)
        await self.machines()

    async def reads(self) -> None:
        account, planted = self.account, self.diary.canaries
        plan = f"/v1/shared-subscriptions/{account.plan}"
        for path in (
            "/v1/customers/me",
            "/v1/customers/me?fresh=true",
            "/v1/customers/me/subscriptions",
            "/v1/customers/me/payment-methods",
            "/v1/customers/me/invoices",
            "/v1/customers/me/upcoming-invoice",
            f"/v1/customers/me/access?product_id={account.product}",
            f"/v1/subscriptions/{account.plan}",
            f"/v1/invoices/{account.invoice}",
            plan,
            f"{plan}/users?search={planted.searched.value}",
            f"{plan}/transfer",
            f"{plan}/audit-events",
            f"{plan}/invitations",
            f"/v1/promotion-codes/{planted.promotion_code.value}",
            "/v1/products",
        ):
            await self.ask("GET", path)
        invoice = (await self.ask("GET", f"/v1/invoices/{account.invoice}")).json().get("invoice")
        if invoice is not None:
            self.keep(
                "invoice's hosted page", invoice["hosted_invoice_url"], ("invoices", "hosted_invoice_url")
            )
            self.keep("invoice's PDF", invoice["invoice_pdf"], ("invoices", "invoice_pdf"))

    async def _writes_that_succeed(self) -> None:
        planted, account = self.diary.canaries, self.account
        users = f"/v1/shared-subscriptions/{account.plan}/users"
        addition = {"add": [{"email": planted.typed_email.value}]}
        key = planted.idempotency_key.value
        for _ in range(2):
            added = await self.ask("PATCH", users, addition, Idempotency_Key=key)
            assert added.status_code == httpx.codes.OK, added.text
        other = {"add": [{"email": planted.refused_email.value}]}
        reused = await self.ask("PATCH", users, other, Idempotency_Key=key)
        assert reused.status_code == httpx.codes.UNPROCESSABLE_ENTITY, reused.text
        many = {"add": [other["add"][0], *({"email": f"more{n}@example.com"} for n in range(9))]}
        refused = await self.ask("PATCH", users, many)
        assert refused.status_code == httpx.codes.CONFLICT, refused.text
        profile = {"name": planted.name.value, "phone": planted.phone.value}
        await self.ask("PATCH", "/v1/customers/me", profile, Idempotency_Key="profile-of-the-owner")
        setup = (await self.ask("POST", "/v1/customers/me/setup-intents", Idempotency_Key="set-up")).json()
        self.keep("set-up's client secret", setup["setup_intent"]["client_secret"], REPLAYED)
        purchase = {
            "items": [{"price_id": account.price}],
            "promotion_code": planted.promotion_code.value,
            "allow_duplicate": True,
        }
        bought = await self.ask(
            "POST", "/v1/customers/me/subscriptions", purchase, Idempotency_Key="purchase-1"
        )
        assert bought.status_code == httpx.codes.ACCEPTED, bought.text
        self.keep("payment's client secret", bought.json()["payment"]["client_secret"], REPLAYED)
        await self._invite()
        cancel = f"/v1/subscriptions/{account.plan}/cancel"
        reason = {"when": "period_end", "reason": planted.reason.value}
        assert (await self.ask("POST", cancel, reason)).status_code == httpx.codes.OK
        await self.ask("POST", f"/v1/subscriptions/{account.plan}/resume")
        await self.ask("POST", f"/v1/subscriptions/{account.plan}/preview", {"cancel_at_period_end": True})
        await self.ask("POST", f"/v1/shared-subscriptions/{account.plan}/quote", {"total": 7})
        await self.ask("DELETE", f"/v1/customers/me/payment-methods/{account.spare}")

    async def _invite(self) -> None:
        """One invitation that is sent again and used up, and one that stays open; each token is a secret."""
        email = {"email": self.diary.canaries.invited_email.value}
        path = f"/v1/shared-subscriptions/{self.account.plan}/invitations"
        acting = {**self.as_admin, "X-Acting-Customer": self.account.owner}
        for number in range(2):
            made = [
                (await self.ask("POST", path, email, who=acting, Idempotency_Key=f"invite-{number}")).json()
                for _ in range(2)
            ]
            assert made[0] == made[1] and made[0]["token"], made
            again = f"{path}/{made[0]['invitation']['id']}/resend"
            resent = (
                await self.ask("POST", again, {}, who=acting, Idempotency_Key=f"resend-{number}")
            ).json()
            for name, token in (("first", made[0]["token"]), ("second", resent["token"])):
                self.keep(f"invitation {number}'s {name} token", token.rpartition(".")[2], posted=True)
            self.diary.token = resent["token"]
            await self.ask("POST", "/v1/invitations/lookup", {"token": made[0]["token"]}, who={})
            await self.ask("POST", "/v1/invitations/lookup", {"token": resent["token"]}, who={})
            if number == 0:
                used = await self.ask("POST", "/v1/invitations/accept", {"token": resent["token"]})
                assert used.status_code == httpx.codes.OK, used.text

    async def _by_token(self) -> None:
        """Send the token, and forms of it that are wrong, to all routes that take one. The invitation stays open."""
        for token in (self.diary.token, f"{self.diary.token}x", self.diary.token[::-1]):
            for who in ({}, self.as_admin, {"Authorization": "Bearer nobody"}):
                await self.ask("POST", "/v1/invitations/lookup", {"token": token}, who=who)
                await self.ask("POST", "/v1/invitations/accept", {"token": token}, who=who)
                await self.ask("POST", "/v1/invitations/accept", {"token": [token]}, who=who)
                await self.ask("POST", "/v1/invitations/decline", {"token": token, "more": 1}, who=who)

    def _routes(self) -> list[tuple[str, str]]:
        account = self.account
        return [
            ("POST", "/v1/customers"),
            ("PATCH", "/v1/customers/me"),
            ("POST", "/v1/customers/me/subscriptions"),
            ("POST", "/v1/customers/me/payment-methods"),
            ("PUT", "/v1/customers/me/default-payment-method"),
            ("PATCH", f"/v1/subscriptions/{account.plan}"),
            ("POST", f"/v1/subscriptions/{account.plan}/cancel"),
            ("POST", f"/v1/subscriptions/{account.plan}/preview"),
            ("PATCH", f"/v1/shared-subscriptions/{account.plan}/users"),
            ("PUT", f"/v1/shared-subscriptions/{account.plan}/seats"),
            ("POST", f"/v1/shared-subscriptions/{account.plan}/quote"),
            ("POST", f"/v1/shared-subscriptions/{account.plan}/transfer"),
            ("POST", f"/v1/shared-subscriptions/{account.plan}/invitations"),
            ("POST", "/v1/invitations/lookup"),
            ("POST", "/v1/invitations/accept"),
            ("POST", "/v1/invitations/decline"),
        ]

    async def writes(self, label: str) -> None:
        """Each kind of write once, whatever comes of it."""
        planted, account = self.diary.canaries, self.account
        users = f"/v1/shared-subscriptions/{account.plan}/users"
        await self.ask("PATCH", users, {"add": [{"email": planted.refused_email.value}]})
        invitations = f"/v1/shared-subscriptions/{account.plan}/invitations"
        await self.ask("POST", invitations, {"email": planted.invited_email.value})
        await self._by_token()
        profile = {"name": planted.name.value, "phone": planted.phone.value}
        await self.ask("PATCH", "/v1/customers/me", profile, Idempotency_Key=f"profile-{label}")
        purchase = {
            "items": [{"price_id": account.price}],
            "promotion_code": planted.promotion_code.value,
            "payment_method_id": account.card,
        }
        await self.ask("POST", "/v1/customers/me/subscriptions", purchase)
        await self.ask("POST", "/v1/customers/me/setup-intents")
        cancel = {"when": "period_end", "reason": planted.reason.value}
        await self.ask("POST", f"/v1/subscriptions/{account.plan}/cancel", cancel)
        await self.ask("PUT", f"/v1/shared-subscriptions/{account.plan}/seats", {"total": 9})
        await self.ask(
            "POST",
            "/v1/customers",
            {"user_id": f"new-{label}", "email": "new@example.com"},
            who=self.as_admin,
        )

    async def _bad_input(self) -> None:
        text = self.diary.canaries.bad_input.value
        bodies: list[Any] = [
            {"email": text, "name": [text], "items": text, "add": [{"email": text}], "when": text},
            {self.diary.canaries.unknown_field.value: text},
            {"items": [{"price_id": text, "quantity": text}], "payment_method_id": text, "total": text},
            {"to_customer_id": text, "promotion_code": text, "quote_id": text, "trial_end": text},
            [text],
            f'{{"name": "{text}'.encode(),
            f'{{"name": "{text}\ud800"}}'.encode(errors="surrogatepass"),
            json.dumps({"name": text * 5000}).encode(),
        ]
        for method, path in self._routes():
            for body in bodies:
                await self.ask(method, path, body)
            await self.ask(method, path, text.encode(), Content_Type="text/plain")
            await self.ask(method, path, {"name": "x"}, Idempotency_Key=f"\u00e4{text}")
        for path in (
            f"/v1/customers/{text}",
            f"/v1/customers/cus_{text}",
            f"/v1/{text}",
            f"/v1/subscriptions/sub_{text}",
            f"/v1/invoices/in_{text}?fresh=true",
            f"/v1/promotion-codes/{text}",
            f"/v1/products?ids={text}&currency={text}&limit={text}&cursor={text}",
            f"/v1/customers/me/subscriptions?status={text}&cursor={text}",
            f"/v1/operations/op_{text}",
        ):
            await self.ask("GET", path)

    async def _bad_credentials(self) -> None:
        planted = self.diary.canaries
        token = self._as_owner["Authorization"]
        for value in (
            f"Bearer {planted.forged_token.value}",
            f"Basic {planted.forged_token.value}",
            f"{token}x",
            f"Bearer csk_{planted.forged_token.value}",
        ):
            await self.ask("GET", "/v1/customers/me", who={"Authorization": value})
        for customer in (planted.bad_input.value, f"cus_{planted.bad_input.value}"):
            who = {**self.as_admin, "X-Acting-Customer": customer}
            await self.ask("GET", "/v1/customers/me", who=who)

    async def _bad_deliveries(self) -> None:
        planted = self.diary.canaries
        text, secret = planted.webhook_text.value, planted.webhook_secret.value
        whole = {"id": self.account.owner, "object": "customer", "email": {"odd": text}, "metadata": [text]}
        bodies = [
            f'{{"id": "evt_1", "object": "event", "text": "{text}'.encode(),
            json.dumps([text]).encode(),
            json.dumps(
                {"id": text, "object": "event", "type": "customer.updated", "data": {"object": text}}
            ).encode(),
            json.dumps(event_of("customer.updated", whole)).encode(),
            json.dumps(event_of("customer.updated", {**whole, "id": {"odd": text}})).encode(),
        ]
        for body in bodies:
            await self.ask("POST", "/webhooks/stripe", body, who=signed(body, secret=secret))
            await self.ask("POST", "/webhooks/stripe", body, who=signed(body, secret=f"whsec_{text}"))
            await self.ask("POST", "/webhooks/stripe", body, who={"Stripe-Signature": f"t=1,v1={text}"})

    async def _bad_stripe(self, stripe: Simulator) -> None:
        message = self.diary.canaries.stripe_message.value
        faults: list[dict[str, Any]] = [
            {"status": 400, "code": "parameter_invalid_integer"},
            {"status": 402, "code": "card_declined"},
            {"status": 401},
            {"status": 404, "code": "resource_missing"},
            {"status": 500},
            {"truncate": True},
        ]
        for fault in faults[:2] if self.diary.short else faults:
            told = {"message": message} if "status" in fault else {}
            await stripe.add_fault(times=0, **fault, **told)
            await self.writes(str(fault.get("status", "cut")))
            await self.ask("GET", "/v1/customers/me?fresh=true")
            await self.ask("GET", f"/v1/promotion-codes/{self.diary.canaries.promotion_code.value}")
            await stripe.clear_faults()

    async def machines(self) -> None:
        for path in ("/healthz", "/readyz"):
            await self.ask("GET", path, who={})
        bearer = {"Authorization": f"Bearer {self.diary.canaries.metrics_token.value}"}
        await self.ask("GET", "/metrics", who={"Authorization": "Bearer nobody"})
        self.diary.heard_metrics(await self.ask("GET", "/metrics", who=bearer))
