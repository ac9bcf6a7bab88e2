"""Promotion codes and coupons: whose they are, what they need, and how Stripe refuses them."""

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import stripe

from tests.stripe_simulator.simulator_support import ROOT, Account, Catalogue, advance, items_of, subscribe
from tests.stripe_simulator.test_simulator_objects import check_keys

PARAM = "discounts[0][promotion_code]"


def make_code(account: Account, text: str, coupon: dict[str, Any] | None = None, **terms: Any) -> str:
    """A promotion code of a coupon, 10 percent for ever unless other terms are given."""
    client = account.client.v1
    terms_of_coupon: Any = coupon or {"percent_off": 10, "duration": "forever"}
    made = client.coupons.create(terms_of_coupon).id
    params: Any = {"promotion": {"type": "coupon", "coupon": made}, "code": text, **terms}
    return client.promotion_codes.create(params).id


def ways(account: Account, catalogue: Catalogue, discounts: Any) -> list[Callable[[], Any]]:
    """Creating, updating, and previewing each, with the discounts."""
    client = account.client.v1
    sub = subscribe(account, catalogue).id
    details: Any = {"items": [{"price": catalogue.monthly, "quantity": 2}]}
    new: Any = {"customer": catalogue.customer, "discounts": discounts, **details}
    preview: Any = {
        "customer": catalogue.customer,
        "discounts": discounts,
        "subscription_details": details,
    }
    return [
        lambda: client.subscriptions.create(new),
        lambda: client.subscriptions.update(sub, {"discounts": discounts}),
        lambda: client.invoices.create_preview(preview),
        lambda: client.invoices.create_preview({"subscription": sub, "discounts": discounts}),
    ]


def refused_everywhere(account: Account, catalogue: Catalogue, discounts: Any, param: str) -> set[str]:
    """The messages of a 400 with that param, which every way of giving the discounts must answer."""
    messages = set()
    for way in ways(account, catalogue, discounts):
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            way()
        assert (refusal.value.http_status, refusal.value.param) == (400, param)
        messages.add(str(refusal.value.user_message))
    return messages


def test_code_for_first_purchases_is_refused_when_the_customer_has_bought(
    account: Account, catalogue: Catalogue
) -> None:
    """S6, T8."""
    code = make_code(account, "FIRST", restrictions={"first_time_transaction": True})
    details: Any = {"items": [{"price": catalogue.monthly}]}
    shown = account.client.v1.invoices.create_preview(
        {
            "customer": catalogue.customer,
            "discounts": [{"promotion_code": code}],
            "subscription_details": details,
        }
    )
    assert shown.total == 900
    assert refused_everywhere(account, catalogue, [{"promotion_code": code}], PARAM) == {
        "This promotion code cannot be redeemed because the associated customer has prior transactions."
    }


def test_code_with_a_minimum_is_refused_when_the_order_is_below_it(
    account: Account, catalogue: Catalogue
) -> None:
    """S6, T8."""
    minimum = {"minimum_amount": 2001, "minimum_amount_currency": "usd"}
    code = make_code(account, "BIG", restrictions=minimum)
    assert len(refused_everywhere(account, catalogue, [{"promotion_code": code}], PARAM)) == 1
    enough: Any = {
        "customer": catalogue.customer,
        "items": [{"price": catalogue.monthly, "quantity": 3}],
        "discounts": [{"promotion_code": code}],
    }
    assert account.client.v1.subscriptions.create(enough).discounts


def test_minimum_counts_in_the_currency_of_the_order(account: Account, catalogue: Catalogue) -> None:
    """S6: `restrictions.currency_options`."""
    client = account.client.v1
    options = {"currency_options": {"eur": {"minimum_amount": 500}}}
    minimum = {"minimum_amount": 100_000, "minimum_amount_currency": "usd", **options}
    code = make_code(account, "EURO", restrictions=minimum)
    euro = client.prices.create(
        {
            "product": catalogue.product,
            "currency": "eur",
            "unit_amount": 500,
            "recurring": {"interval": "month"},
        }
    ).id
    buyer = client.customers.create({"source": "tok_visa"}).id
    sub: Any = {"customer": buyer, "items": [{"price": euro}], "discounts": [{"promotion_code": code}]}
    assert client.subscriptions.create(sub).currency == "eur"
    restrictions = client.promotion_codes.retrieve(code).to_dict()["restrictions"]
    assert "currency_options" not in restrictions
    path = f"/v1/promotion_codes/{code}?expand[]=restrictions.currency_options"
    _, _, shown = account.raw("GET", path)
    check_keys(shown)
    assert shown["restrictions"]["currency_options"] == {"eur": {"minimum_amount": 500}}


def test_code_of_another_customer_is_refused(account: Account, catalogue: Catalogue) -> None:
    """S6."""
    other = account.client.v1.customers.create({}).id
    code = make_code(account, "THEIRS", customer=other)
    assert len(refused_everywhere(account, catalogue, [{"promotion_code": code}], PARAM)) == 1
    own = make_code(account, "OURS", customer=catalogue.customer)
    assert ways(account, catalogue, [{"promotion_code": own}])[0]().discounts


def test_code_is_unique_for_each_customer_whatever_its_case(account: Account, catalogue: Catalogue) -> None:
    """S3, T9."""
    client = account.client.v1
    other = client.customers.create({}).id
    everybody = make_code(account, "Spring")
    mine = make_code(account, "SPRING", customer=catalogue.customer)
    theirs = make_code(account, "spring", customer=other)
    whose: list[Any] = [{}, {"customer": other}]
    for terms in whose:
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            make_code(account, "sPRING", **terms)
        assert refusal.value.param == "code"
    found = client.promotion_codes.list({"code": "SpRiNg"}).data
    assert [code.id for code in found] == [theirs, mine, everybody]
    listed = client.promotion_codes.list({"code": "spring", "customer": catalogue.customer}).data
    assert [code.id for code in listed] == [mine]
    client.promotion_codes.update(mine, {"active": False})
    again = make_code(account, "spring", customer=catalogue.customer)
    with pytest.raises(stripe.InvalidRequestError):
        client.promotion_codes.update(mine, {"active": True})
    assert client.promotion_codes.list({"code": "spring", "active": True}).data[0].id == again


def test_code_is_inactive_when_it_or_its_coupon_is_used_up(frozen: Account, catalogue: Catalogue) -> None:
    client = frozen.client.v1
    once = make_code(frozen, "ONCE", max_redemptions=1)
    short = make_code(frozen, "SHORT", expires_at=1_800_000_000 + 60)
    spent = make_code(frozen, "SPENT", {"percent_off": 10, "duration": "forever", "max_redemptions": 1})
    for code in (once, spent):
        assert client.promotion_codes.retrieve(code).active
        subscribe(frozen, catalogue, discounts=[{"promotion_code": code}])
    advance(frozen, 120)
    for code in (once, short, spent):
        assert not client.promotion_codes.retrieve(code).active
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            subscribe(frozen, catalogue, discounts=[{"promotion_code": code}])
        assert (refusal.value.param, refusal.value.code) == (PARAM, None)
    assert client.promotion_codes.list({"active": True}).data == []


@pytest.mark.parametrize("trial", [{}, {"trial_period_days": 7}])
def test_amount_off_in_another_currency_is_refused(
    account: Account, catalogue: Catalogue, trial: Any
) -> None:
    """T6: a 400, within a trial too; such a discount made the clock fail afterwards."""
    coupon: Any = {"amount_off": 500, "currency": "eur", "duration": "forever"}
    made = account.client.v1.coupons.create(coupon).id
    refused_everywhere(account, catalogue, [{"coupon": made}], "discounts[0][coupon]")
    code = make_code(account, "OFF", coupon)
    refused_everywhere(account, catalogue, [{"promotion_code": code}], PARAM)
    with pytest.raises(stripe.InvalidRequestError):
        subscribe(account, catalogue, discounts=[{"promotion_code": code}], **trial)
    entry: Any = {"price": catalogue.monthly, "discounts": [{"coupon": made}]}
    new: Any = {"customer": catalogue.customer, "items": [entry], **trial}
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        account.client.v1.subscriptions.create(new)
    assert refusal.value.param == "items[0][discounts][0][coupon]"
    options: Any = {**coupon, "currency_options": {"usd": {"amount_off": 400}}}
    both = account.client.v1.coupons.create(options).id
    assert items_of(subscribe(account, catalogue, discounts=[{"coupon": both}], **trial))


def test_method_in_the_wrong_state_has_stripes_code(account: Account, catalogue: Catalogue) -> None:
    """T18."""
    client = account.client.v1
    client.payment_methods.detach(catalogue.method)
    acts: list[Callable[[], Any]] = [
        lambda: client.payment_methods.detach(catalogue.method),
        lambda: client.payment_methods.attach(catalogue.method, {"customer": catalogue.customer}),
        lambda: client.payment_methods.update(catalogue.method, {"metadata": {"a": "b"}}),
    ]
    for act in acts:
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            act()
        assert refusal.value.code == "payment_method_unexpected_state"


def codes_of_stripe() -> set[str]:
    """The SDK's list of error codes, and one that is missing there but that many programs handle."""
    source = inspect.getsource(stripe.PaymentIntent.LastPaymentError)
    start = source.index("Literal", source.index("code: Optional"))
    listed = set(re.findall(r'"([a-z_0-9]+)"', source[start : source.index("]", start)]))
    assert len(listed) > 190
    return listed | {"subscription_payment_intent_requires_action"}


def codes_in(path: Any) -> set[str]:
    """Literal error codes in calls of the functions that make errors."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id not in ("invalid", "refused", "ApiError"):
            continue
        given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        if node.func.id != "ApiError":
            given += node.args[2:3]
        for value in given:
            branches = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            found |= {str(b.value) for b in branches if isinstance(b, ast.Constant) and b.value is not None}
    return found


def test_every_error_code_is_one_of_stripes() -> None:
    """T18."""
    used: set[str] = set()
    for path in sorted((ROOT / "stripe_simulator").rglob("*.py")):
        used |= codes_in(path)
    assert "resource_missing" in used
    assert used - codes_of_stripe() == set()
