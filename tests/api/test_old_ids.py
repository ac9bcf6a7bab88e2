"""P11: customers, products and prices with ids from before 2018 are usable everywhere."""

import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from testkit.company import Service, new_email
from testkit.problems import ok, problem
from testkit.service import as_service, as_user

OWNER = "billing_shared_subscription_owner"


def unique(pattern: str) -> str:
    return pattern.format(secrets.token_hex(4))


CUSTOMERS = ["user-{}@example.com", "a/b%2F{}?x=1#y", "Kundë {} ü", "{}.", "x{}" + "y" * 246]


@dataclass
class Old:
    """One account's objects with free ids: a payer with a subscription, and a member."""

    service: Service
    payer: str
    member: str
    product: str
    price: str
    subscription: str
    who: dict[str, str]

    @property
    def path(self) -> str:
        return f"/v1/customers/{quote(self.payer, safe='')}"


async def with_id(service: Service, kind: str, object_id: str, **params: Any) -> str:
    await service.stripe.control("POST", "with-id", kind=kind, id=object_id, params=params)
    await service.refresh(kind, object_id)
    return object_id


async def old_account(service: Service, pattern: str = CUSTOMERS[0]) -> Old:
    product = unique("gold.2015 {}/month")
    flags = {"billing_supports_shared_subscriptions": "true", "billing_sellable": "true"}
    await service.stripe.post("/v1/products", id=product, name="Gold", metadata=flags)
    terms = {"product": product, "currency": "usd", "unit_amount": 69900, "recurring": {"interval": "month"}}
    price = await with_id(service, "price", unique("Pro plan $699/month {}"), **terms)
    await service.stripe.post(f"/v1/products/{quote(product, safe='')}", default_price=price)
    await service.refresh("product", product)
    subject = secrets.token_hex(6)
    payer = await with_id(service, "customer", unique(pattern), metadata={"billing_user_id": subject})
    path = f"/v1/customers/{quote(payer, safe='')}"
    method = await service.stripe.post("/v1/payment_methods/pm_card_visa/attach", customer=payer)
    await service.stripe.post(path, invoice_settings={"default_payment_method": method["id"]})
    await service.refresh("customer", payer)
    made = await service.stripe.post(
        "/v1/subscriptions",
        customer=payer,
        items=[{"price": price, "quantity": 4}],
        metadata={OWNER: payer},
    )
    await service.refresh("subscription", made["id"])
    await service.refresh("invoice", made["latest_invoice"])
    marks = {
        "billing_shared_subscription_id": made["id"],
        "billing_shared_subscription_role": "user",
    }
    member = await with_id(service, "customer", unique(pattern), email=new_email(), metadata=marks)
    return Old(service, payer, member, product, price, made["id"], as_user(subject))


@pytest.fixture
async def old(service: Service) -> Old:
    return await old_account(service)


@pytest.mark.parametrize("pattern", CUSTOMERS)
async def test_customer_routes_answer_when_the_id_is_free_text(service: Service, pattern: str) -> None:
    """P11: such customers were mirrored and seated, and 422 in every route."""
    old = await old_account(service, pattern)
    for who in (old.who, as_service("read")):
        assert ok(await service.get(old.path, who))["customer"]["id"] == old.payer
        for part in ("subscriptions", "payment-methods", "invoices"):
            assert len(ok(await service.get(f"{old.path}/{part}", who))["data"]) == 1, part
        access = ok(await service.get(f"{old.path}/access", who, product_id=old.product))
        assert (access["has_access"], access["role"]) == (True, "owner")
    who = as_service("write")
    changed = ok(await service.send("PATCH", old.path, who, {"name": "Old Hand"}))
    assert changed["customer"]["name"] == "Old Hand"
    ok(await service.send("POST", f"{old.path}/setup-intents", who, {}), 201)
    ok(await service.get(f"{old.path}/upcoming-invoice", who, subscription_id=old.subscription))
    attached = await service.send(
        "POST", f"{old.path}/payment-methods", who, {"payment_method_id": "pm_card_mastercard"}
    )
    method = ok(attached, 201)["payment_method"]["id"]
    default = {"payment_method_id": method}
    ok(await service.send("PUT", f"{old.path}/default-payment-method", who, default))
    other = (await service.stripe.get(f"{old.path}/payment_methods"))["data"][-1]["id"]
    ok(await service.send("DELETE", f"{old.path}/payment-methods/{other}", who), 204)


async def test_absent_and_foreign_free_ids_look_alike(service: Service, old: Old) -> None:
    """P11: a free id of somebody else is as hidden as any other."""
    foreign = f"/v1/customers/{quote(old.member, safe='')}"
    absent = f"/v1/customers/{quote(unique('nobody/{}'), safe='')}"
    answers = [problem(await service.get(path, old.who), 404, "not_found") for path in (foreign, absent)]
    for answer in answers:
        answer.pop("request_id")
    assert answers[0] == answers[1]


async def test_a_slash_in_a_path_is_no_part_of_an_id_unless_it_is_encoded(service: Service, old: Old) -> None:
    """P11: an id is one segment of the raw path."""
    customer = await with_id(service, "customer", unique("left/{}"), email=new_email())
    assert (await service.get(f"/v1/customers/{customer}", as_service("read"))).status_code == 404
    found = ok(await service.get(f"/v1/customers/{quote(customer, safe='')}", as_service("read")))
    assert found["customer"]["id"] == customer


async def test_products_are_found_and_sold_when_their_ids_are_free_text(service: Service, old: Old) -> None:
    """P11: filters and bodies take ids of products and prices as they are."""
    found = ok(await service.get("/v1/products", ids=[old.product, "no such/one"]))
    assert [one["id"] for one in found["data"]] == [old.product]
    assert found["missing_ids"] == ["no such/one"]
    assert [price["id"] for price in found["data"][0]["prices"]] == [old.price]
    body = {"items": [{"price_id": old.price, "quantity": 2}], "allow_duplicate": True}
    document = ok(await service.send("POST", f"{old.path}/subscriptions", old.who, body), 202)
    path = f"/v1/subscriptions/{document['results'][0]['subscription_id']}"
    item = ok(await service.get(path, old.who))["subscription"]["items"][0]
    assert (item["product"]["id"], item["price"]["id"]) == (old.product, old.price)
    path = f"/v1/subscriptions/{old.subscription}"
    item = ok(await service.get(path, old.who))["subscription"]["items"][0]
    change = {"items": [{"id": item["id"], "price_id": old.price, "quantity": 5}]}
    assert ok(await service.send("PATCH", path, old.who, change))["subscription"]["items"][0]["quantity"] == 5


async def test_members_are_managed_when_their_ids_are_free_text(service: Service, old: Old) -> None:
    """P11: add, update, remove and transfer name customers by free ids."""
    users = f"/v1/shared-subscriptions/{old.subscription}/users"
    extra = await with_id(service, "customer", unique("Ünü {}/é"), email=new_email())
    key = as_service("write")
    added = ok(await service.send("PATCH", users, key, {"add": [{"customer_id": extra}]}))
    assert added["results"][0]["outcome"] == "applied"
    role = {"update": [{"customer_id": extra, "role": "manager"}]}
    assert ok(await service.send("PATCH", users, old.who, role))["results"][0]["outcome"] == "applied"
    seen: list[str] = []
    cursor: str | None = None
    while cursor is not None or not seen:
        query = {"limit": 1} if cursor is None else {"limit": 1, "cursor": cursor}
        page = ok(await service.get(users, old.who, **query))
        seen += [row["customer_id"] for row in page["data"]]
        cursor = page["next_cursor"]
    assert sorted(seen) == sorted([old.payer, old.member, extra])
    assert seen[0] == old.payer
    removed = ok(await service.send("PATCH", users, old.who, {"remove": [extra]}))
    assert removed["results"][0]["outcome"] == "applied"
    offer = {"to_customer_id": old.member}
    path = f"/v1/shared-subscriptions/{old.subscription}/transfer"
    ok(await service.send("POST", path, old.who, offer))
    ok(await service.send("POST", f"{path}/accept", key | {"X-Acting-Customer": old.member}))
    state = await service.stripe.get(f"/v1/subscriptions/{old.subscription}")
    assert state["metadata"][OWNER] == old.member


async def test_callers_are_known_by_free_ids_in_header_and_claim(service: Service, old: Old) -> None:
    """P11: the acting customer may have a free id; one that no header carries comes by claim or path."""
    acting = as_service("read", acting_for=old.payer)
    assert ok(await service.get("/v1/customers/me", acting))["customer"]["id"] == old.payer
    customer = await with_id(service, "customer", unique("ключ {}"), email=new_email())
    claimed = as_user(secrets.token_hex(6), stripe_customer_id=customer)
    assert ok(await service.get("/v1/customers/me", claimed))["customer"]["id"] == customer
    ok(
        await service.send("DELETE", f"/v1/customers/{quote(customer, safe='')}/link", as_service("admin")),
        204,
    )


@pytest.mark.parametrize("value", ["a\x00b", "a\x1fb", "a\x85b", "x" * 256])
async def test_id_is_refused_when_no_object_can_have_it(service: Service, value: str) -> None:
    """P11: what can be no id is 422, as before."""
    problem(
        await service.get(f"/v1/customers/{quote(value, safe='')}", as_service("read")),
        422,
        "invalid_request",
    )
    problem(await service.get("/v1/products", ids=[value]), 422, "invalid_request")


async def test_events_of_free_ids_are_applied(service: Service, old: Old) -> None:
    """P11: webhooks name objects by free ids, too."""
    state = await service.stripe.get(old.path)
    await service.deliver_state("customer", {**state, "name": "By Event"})
    assert ok(await service.get(old.path, old.who))["customer"]["name"] == "By Event"
