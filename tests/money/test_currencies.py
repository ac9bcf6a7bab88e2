"""What fixes a customer's currency, and for how long."""

from testkit.problems import problem
from tests.money.shop import Shop


async def test_a_currency_is_free_again_when_the_subscription_that_fixed_it_has_ended(shop: Shop) -> None:
    """M10: after a subscription in USD ended, a price in EUR was refused for ever, with two errors for one fault."""
    buyer, card = await shop.buyer()
    dollars, euros = await shop.price(), await shop.price(currency="eur")
    made = await shop.bought(buyer.headers, [{"price_id": dollars}], payment_method_id=card)
    await shop.listen()
    answer = await shop.add(buyer.headers, [{"price_id": euros}], payment_method_id=card)
    refused = problem(answer, 422, "currency_mismatch")
    assert [(e["pointer"], e["code"]) for e in refused["errors"]] == [
        ("/items/0/price_id", "currency_mismatch")
    ]
    query = {"ids": (await shop.stripe.get(f"/v1/prices/{euros}"))["product"], "currency": "eur"}
    products = await shop.service.get("/v1/products", buyer.headers, **query)
    assert products.json()["local_currency"] == "usd"
    path = f"/v1/subscriptions/{made['id']}/cancel"
    ended = await shop.service.send("POST", path, buyer.headers, {"when": "now"})
    assert ended.json()["subscription"]["status"] == "canceled"
    products = await shop.service.get("/v1/products", buyer.headers, **query)
    assert products.json()["local_currency"] == "eur"
    bought = await shop.bought(buyer.headers, [{"price_id": euros}], payment_method_id=card)
    assert bought["currency"] == "eur"
