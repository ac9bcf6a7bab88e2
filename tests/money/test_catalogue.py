"""What is on sale: prices are marked one by one, and only what is on sale can be bought by end users."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from app.operating import doctor
from testkit import databases
from testkit.company import running_service
from testkit.problems import pointers, problem
from testkit.service import as_service
from testkit.simulator import Simulator, new_account_key
from tests.money.shop import Shop

ADMIN = as_service("admin")
SOLD = {"metadata": {"billing_sellable": "true"}}
WITHHELD = {"metadata": {"billing_sellable": "false"}}
UNMARKED: dict[str, Any] = {"metadata": {}}


async def default_price(shop: Shop, product: str, price: str) -> None:
    await shop.stripe.post(f"/v1/products/{product}", default_price=price)
    await shop.service.refresh("product", product)


async def shown(shop: Shop, product: str) -> list[str]:
    """The prices that anybody is shown of a product."""
    found = (await shop.service.get("/v1/products", ids=product)).json()["data"]
    return [price["id"] for price in (found[0]["prices"] if found else [])]


async def test_price_is_on_sale_when_it_or_its_product_says_so(shop: Shop) -> None:
    """M14: a second price of a product on sale is shown to nobody and bought by nobody until it is marked."""
    listed, unlisted = await shop.product(), await shop.product(listed=False)
    default = await shop.price(listed, **UNMARKED)
    await default_price(shop, listed, default)
    secret = await shop.price(listed, unit_amount=1, nickname="ACME deal, do not show", **UNMARKED)
    marked = await shop.price(listed, recurring={"interval": "year"}, **SOLD)
    alone = await shop.price(unlisted, **SOLD)
    assert set(await shown(shop, listed)) == {default, marked}
    assert await shown(shop, unlisted) == [alone]
    buyer, card = await shop.buyer()
    for price, status in ((default, 201), (secret, 422), (marked, 201), (alone, 201)):
        answer = await shop.add(buyer.headers, [{"price_id": price, "quantity": 500}], payment_method_id=card)
        assert answer.status_code == status, answer.text
        if status == 422:
            assert pointers(problem(answer, 422, "price_not_available")) == ["/items/0/price_id"]
    await shop.stripe.post(f"/v1/prices/{default}", **WITHHELD)
    await shop.service.refresh("price", default)
    assert await shown(shop, listed) == [marked]
    # An admin's key is not bound by what is on sale.
    made = await shop.add(ADMIN, [{"price_id": secret}], to=buyer.customer_id, payment_method_id=card)
    assert made.status_code == 201, made.text


async def test_quantity_changes_when_the_held_price_is_not_on_sale(shop: Shop) -> None:
    """M14: who holds a price that left the catalogue may buy more of it, and nobody may change to it."""
    product = await shop.product()
    held, other = await shop.price(product), await shop.price(product, recurring={"interval": "year"})
    buyer, card = await shop.buyer()
    made = await shop.bought(buyer.headers, [{"price_id": held}], payment_method_id=card)
    await shop.stripe.post(f"/v1/prices/{held}", **WITHHELD)
    await shop.service.refresh("price", held)
    [item] = made["items"]
    assert "nickname" not in item["price"]
    more = await shop.change(buyer.headers, made["id"], items=[{"id": item["id"], "quantity": 3}])
    assert (more.status_code, more.json()["subscription"]["items"][0]["quantity"]) == (200, 3)
    away = await shop.change(buyer.headers, made["id"], items=[{"id": item["id"], "price_id": other}])
    assert away.status_code == 200, away.text
    back = await shop.change(buyer.headers, made["id"], items=[{"id": item["id"], "price_id": held}])
    problem(back, 422, "price_not_available")


async def test_nickname_is_shown_when_a_service_key_reads(shop: Shop) -> None:
    """M14: the operator's name of a price is for the operator's own back end."""
    price = await shop.price(nickname="ACME deal, do not show")
    buyer, card = await shop.buyer()
    made = await shop.bought(buyer.headers, [{"price_id": price}], payment_method_id=card)
    reads = [
        f"/v1/subscriptions/{made['id']}",
        f"/v1/customers/{buyer.customer_id}/subscriptions",
        f"/v1/shared-subscriptions/{made['id']}",
    ]
    acting = {**as_service("read"), "X-Acting-Customer": buyer.customer_id}
    for path in reads:
        for who in (buyer.headers, acting):
            answer = await shop.service.get(path, who)
            assert (answer.status_code, "nickname" in answer.text) == (200, False), path
    answer = await shop.service.get(reads[0], as_service("read"))
    assert answer.json()["subscription"]["items"][0]["price"]["nickname"] == "ACME deal, do not show"
    changed = await shop.change(ADMIN, made["id"], items=[{"id": made["items"][0]["id"], "quantity": 2}])
    assert changed.json()["subscription"]["items"][0]["price"]["nickname"] == "ACME deal, do not show"


@pytest.fixture
def open_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    url = databases.clone(postgres_url, template_database)
    yield url
    databases.drop(postgres_url, url)


@pytest.fixture
async def open_shop(stripe_simulator: str, open_database_url: str) -> AsyncIterator[Shop]:
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, open_database_url, CATALOGUE="open") as service,
    ):
        yield Shop(service)


async def test_price_is_off_sale_in_an_open_catalogue_when_it_says_so(open_shop: Shop) -> None:
    """M14: CATALOGUE=open sells every active price of every active product but those marked false."""
    product = await open_shop.product(listed=False)
    plain = await open_shop.price(product, **UNMARKED)
    withheld = await open_shop.price(product, **WITHHELD)
    assert await shown(open_shop, product) == [plain]
    buyer, card = await open_shop.buyer()
    for price, status in ((plain, 201), (withheld, 422)):
        answer = await open_shop.add(buyer.headers, [{"price_id": price}], payment_method_id=card)
        assert answer.status_code == status, answer.text
    await open_shop.stripe.post(f"/v1/products/{product}", active=False)
    await open_shop.service.refresh("product", product)
    assert await shown(open_shop, product) == []


async def test_doctor_reports_prices_when_several_are_on_sale_on_the_same_terms(shop: Shop) -> None:
    """M14: two active prices of one interval and currency, and a product on sale without a default price."""
    twice, bare = await shop.product(), await shop.product()
    one, two = (
        await shop.price(twice),
        await shop.price(twice, currency="eur", currency_options={"usd": {"unit_amount": 5}}),
    )
    await default_price(shop, twice, one)
    await shop.price(twice, recurring={"interval": "year"})
    await shop.price(bare, **UNMARKED)
    findings = [found for found in await doctor.examine(shop.service.context) if found.check == "catalogue"]
    [same] = [found for found in findings if found.object == twice]
    assert all(text in same.problem for text in (one, two, "usd", "month")), same
    [missing] = [found for found in findings if found.object == bare]
    assert "default price" in missing.problem and missing.severity == "fix"
