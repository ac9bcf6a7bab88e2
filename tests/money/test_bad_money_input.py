"""Bad input of what moves money: each new field and route answers its code, and nothing is changed."""

from typing import Any

import httpx
import pytest

from testkit.company import Person
from testkit.problems import pointers, problem
from testkit.service import as_service
from tests.money.shop import Shop

ADMIN = as_service("admin")
NOT_BOOLEANS = ["true", 1, 0, None, [], {}]
QUOTE = "qt_" + "0" * 32


class Ground:
    """A shared subscription of five seats, somebody else's, and what Stripe has of the first."""

    def __init__(self, shop: Shop, owner: Person, made: dict[str, Any], other: dict[str, Any]) -> None:
        self.shop = shop
        self.owner = owner
        self.id = str(made["id"])
        self.item = str(made["items"][0]["id"])
        self.price = str(made["items"][0]["price"]["id"])
        self.other = other

    async def send(self, method: str, path: str, body: Any, who: Any = None) -> httpx.Response:
        filled = path.format(id=self.id, other=self.other["id"])
        return await self.shop.service.send(method, filled, who or self.owner.headers, body)

    async def truth(self) -> tuple[Any, int, int]:
        """The subscription, the number of invoices and of operations."""
        invoices = await self.shop.stripe.get("/v1/invoices", subscription=self.id, limit=100)
        operations = await self.shop.service.fetch("select id from operations")
        return await self.shop.true(self.id), len(invoices["data"]), len(operations)


@pytest.fixture(scope="module")
async def ground(shop: Shop) -> Ground:
    found = []
    for _ in range(2):
        owner, card = await shop.buyer()
        price = await shop.price(await shop.product(shared=True))
        items = [{"price_id": price, "quantity": 5}]
        found.append((owner, await shop.bought(owner.headers, items, payment_method_id=card)))
    await shop.listen()
    (owner, made), (_, other) = found
    return Ground(shop, owner, made, other)


S, SHARED = "/v1/subscriptions/{id}", "/v1/shared-subscriptions/{id}"
REMOVAL = {"remove": ["cus_nobody"]}
ROUTES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("PUT", f"{SHARED}/seats", "forgo_credit", {"total": 4}),
    ("POST", f"{SHARED}/quote", "forgo_credit", {"total": 4}),
    ("PATCH", S, "forgo_credit", {"cancel_at_period_end": False}),
    ("POST", f"{S}/preview", "forgo_credit", {"cancel_at_period_end": False}),
    ("PATCH", f"{SHARED}/users", "forgo_credit", REMOVAL),
    ("PATCH", f"{SHARED}/users", "release_seats", REMOVAL),
    ("POST", f"{SHARED}/quote", "release_seats", REMOVAL),
    ("POST", "/v1/customers/me/subscriptions", "allow_duplicate", {"items": [{"price_id": "price_x"}]}),
]


@pytest.mark.parametrize("value", NOT_BOOLEANS, ids=repr)
@pytest.mark.parametrize(("method", "path", "field", "body"), ROUTES, ids=lambda part: str(part)[-24:])
async def test_a_flag_is_refused_when_it_is_no_boolean(
    ground: Ground, method: str, path: str, field: str, body: dict[str, Any], value: Any
) -> None:
    before = await ground.truth()
    answer = await ground.send(method, path, {**body, field: value})
    assert pointers(problem(answer, 422, "invalid_request")) == [f"/{field}"]
    assert await ground.truth() == before


@pytest.mark.parametrize("value", ["", "Now", "end", "period-end", 1, True, None, ["now"]], ids=repr)
async def test_an_end_is_refused_when_it_is_none_of_the_named_ones(ground: Ground, value: Any) -> None:
    before = await ground.truth()
    answer = await ground.send("POST", f"{S}/cancel", {"when": value})
    assert pointers(problem(answer, 422, "invalid_request")) == ["/when"]
    assert await ground.truth() == before


@pytest.mark.parametrize("body", [[], "now", 7, {"when": "now", "forgo_credit": True}], ids=repr)
async def test_a_cancellation_is_refused_when_its_body_is_none(ground: Ground, body: Any) -> None:
    before = await ground.truth()
    problem(await ground.send("POST", f"{S}/cancel", body), 422, "invalid_request")
    assert await ground.truth() == before


FOREIGN: list[tuple[str, str, Any]] = [
    ("PUT", "/v1/shared-subscriptions/{other}/seats", {"total": 4, "forgo_credit": True}),
    ("POST", "/v1/shared-subscriptions/{other}/quote", {"total": 4, "forgo_credit": True}),
    ("POST", "/v1/shared-subscriptions/{other}/quote", {**REMOVAL, "release_seats": True}),
    ("PATCH", "/v1/shared-subscriptions/{other}/users", {**REMOVAL, "release_seats": True}),
    ("PATCH", "/v1/subscriptions/{other}", {"cancel_at_period_end": True, "forgo_credit": True}),
    ("POST", "/v1/subscriptions/{other}/cancel", {"when": "latest_period_end"}),
    ("PUT", "/v1/shared-subscriptions/{other}/purchase-permission", None),
    ("DELETE", "/v1/shared-subscriptions/{other}/purchase-permission", None),
]


@pytest.mark.parametrize(("method", "path", "body"), FOREIGN, ids=lambda part: str(part)[-40:])
async def test_a_foreign_subscription_looks_absent(ground: Ground, method: str, path: str, body: Any) -> None:
    before, truth = await ground.shop.true(ground.other["id"]), await ground.truth()
    foreign = await ground.send(method, path, body)
    absent = await ground.send(method, path.replace("{other}", "sub_absent"), body)
    assert problem(foreign, 404, "not_found")["detail"] == problem(absent, 404, "not_found")["detail"]
    assert await ground.shop.true(ground.other["id"]) == before
    assert await ground.truth() == truth


QUOTED: list[tuple[str, str, Any]] = [
    ("PUT", f"{SHARED}/seats", {"total": 6}),
    ("PATCH", S, {"cancel_at_period_end": True}),
    ("PATCH", f"{SHARED}/users", {"add": [{"email": "q@example.com"}], "over_capacity": "add_seats"}),
]


@pytest.mark.parametrize(
    "quote", ["", "qt_", QUOTE[:-1], QUOTE + "0", QUOTE.upper(), 5, [QUOTE], "qt_" + "g" * 32], ids=repr
)
@pytest.mark.parametrize(("method", "path", "body"), QUOTED, ids=lambda part: str(part)[-20:])
async def test_a_quote_is_refused_when_it_is_no_id_of_one(
    ground: Ground, method: str, path: str, body: Any, quote: Any
) -> None:
    before = await ground.truth()
    answer = await ground.send(method, path, {**body, "quote_id": quote})
    assert pointers(problem(answer, 422, "invalid_request")) == ["/quote_id"]
    assert await ground.truth() == before


@pytest.mark.parametrize("way", ["unknown", "another caller's", "another change's", "used", "stale"])
async def test_a_quote_is_refused_when_it_is_not_of_this_change(ground: Ground, way: str) -> None:
    asked = await ground.send("POST", f"{SHARED}/quote", {"total": 7})
    quote, who = str(asked.json()["quote_id"]), ground.owner.headers
    status, code, body = 422, "invalid_request", {"total": 7}
    match way:
        case "unknown":
            quote = QUOTE
        case "another caller's":
            who = as_service("write")
        case "another change's":
            body = {"total": 6}
        case "used" | "stale":
            status, code = 409, "quote_expired"
            change = "used_at = clock_timestamp()" if way == "used" else "expires_at = clock_timestamp()"
            await ground.shop.service.fetch(f"update quotes set {change} where id = '{quote}'")
    before = await ground.truth()
    answer = await ground.send("PUT", f"{SHARED}/seats", {**body, "quote_id": quote}, who)
    problem(answer, status, code)
    assert await ground.truth() == before


@pytest.mark.parametrize(
    "code", ["", "no such", "ä", "x" * 65, "A\u0000", 5, ["NINE", "NINE"], {"code": "NINE"}], ids=repr
)
async def test_a_code_is_refused_when_it_is_no_text_of_one(ground: Ground, code: Any) -> None:
    before = await ground.truth()
    problem(await ground.send("PATCH", S, {"promotion_code": code}), 422, "invalid_request")
    assert await ground.truth() == before


async def test_an_unknown_code_is_refused_by_its_field(ground: Ground) -> None:
    before = await ground.truth()
    for path, method in ((S, "PATCH"), (f"{S}/preview", "POST")):
        document = problem(
            await ground.send(method, path, {"promotion_code": "NOSUCHCODE"}), 422, "invalid_request"
        )
        assert pointers(document) == ["/promotion_code"]
    assert await ground.truth() == before


ADMIN_FIELDS: list[tuple[str, str, Any, str]] = [
    ("PUT", f"{SHARED}/seats", {"total": 4, "proration_behavior": "none"}, "/proration_behavior"),
    ("POST", f"{SHARED}/quote", {"total": 4, "proration_behavior": "none"}, "/proration_behavior"),
    ("PATCH", f"{SHARED}/users", {**REMOVAL, "proration_behavior": "none"}, "/proration_behavior"),
    ("POST", f"{S}/cancel", {"when": "now", "prorate": True}, "/prorate"),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"), ADMIN_FIELDS, ids=lambda part: str(part)[-20:]
)
async def test_terms_of_money_are_refused_when_an_end_user_sets_them(
    ground: Ground, method: str, path: str, body: Any, pointer: str
) -> None:
    before = await ground.truth()
    document = problem(await ground.send(method, path, body), 403, "field_not_allowed")
    assert pointers(document) == [pointer]
    assert await ground.truth() == before
