"""Snapshots of what the stand-in returns, and of what Stripe never should."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.ids import CustomerId
from app.domain.snapshots import Customer, Invoice, PaymentMethod, Price, Product, Subscription
from app.stripe import parsing
from app.stripe.gateway import StripeGateway
from app.stripe.parsing import MalformedObject
from testkit.plans import TIERS, new_customer, new_plan, new_subscription
from testkit.simulator import Simulator


async def test_a_product(stripe_account: Simulator) -> None:
    source = await stripe_account.post(
        "/v1/products",
        name="Team",
        unit_label="seat",
        images=["https://example.com/a.png"],
        metadata={
            "billing_supports_shared_subscriptions": " TRUE\t",
            "billing_sellable": "yes",
        },
    )
    assert parsing.product(source) == Product(
        id=source["id"],
        created=source["created"],
        active=True,
        name="Team",
        description=None,
        images=["https://example.com/a.png"],
        unit_label="seat",
        default_price_id=None,
        supports_sharing=True,
        owner_uses_seat=None,
        sellable=False,
    )


async def test_a_price_with_tiers_and_currencies(stripe_account: Simulator, gateway: StripeGateway) -> None:
    plan = await new_plan(
        stripe_account,
        unit_amount=None,
        billing_scheme="tiered",
        tiers_mode="graduated",
        tiers=TIERS,
        currency_options={
            "eur": {"tiers": [*TIERS[:1], {"up_to": "inf", "unit_amount": 600}], "tax_behavior": "inclusive"}
        },
        lookup_key="team",
    )
    price = (await gateway.fetch("price", plan.price)).snapshot
    assert isinstance(price, Price)
    assert (price.product_id, price.billing_scheme, price.tiers_mode) == (plan.product, "tiered", "graduated")
    assert (price.unit_amount, price.lookup_key, price.currency) == (None, "team", "usd")
    assert price.recurring == {
        "interval": "month",
        "interval_count": 1,
        "usage_type": "licensed",
        "meter": None,
    }
    assert price.tiers == [
        {
            "up_to": 5,
            "unit_amount": 900,
            "unit_amount_decimal": "900",
            "flat_amount": 1000,
            "flat_amount_decimal": "1000",
        },
        {
            "up_to": None,
            "unit_amount": None,
            "unit_amount_decimal": "649.5",
            "flat_amount": None,
            "flat_amount_decimal": None,
        },
    ]
    assert price.currency_options is not None
    assert price.currency_options["eur"]["tax_behavior"] == "inclusive"
    assert [tier["unit_amount"] for tier in price.currency_options["eur"]["tiers"]] == [900, 600]


async def test_a_price_in_packs(stripe_account: Simulator, gateway: StripeGateway) -> None:
    plan = await new_plan(stripe_account, transform_quantity={"divide_by": 5, "round": "up"})
    price = (await gateway.fetch("price", plan.price)).snapshot
    assert isinstance(price, Price)
    assert price.transform_quantity == {"divide_by": 5, "round": "up"}
    assert (price.tiers, price.unit_amount, price.unit_amount_decimal) == (None, 1000, "1000")


async def test_a_customer(stripe_account: Simulator) -> None:
    identifier = await new_customer(
        stripe_account,
        name="Ada",
        metadata={
            "billing_shared_subscription_id": " sub_1Team ",
            "billing_shared_subscription_role": "Owner",
            "billing_user_id": " user-7 ",
            "theirs": "untouched",
        },
    )
    source = await stripe_account.get(f"/v1/customers/{identifier}")
    customer = parsing.customer(source)
    assert (customer.email, customer.name, customer.balance) == ("someone@example.com", "Ada", 0)
    assert (customer.member_of, customer.member_role) == ("sub_1Team", "user")
    assert customer.user_id == "user-7"
    assert customer.default_payment_method_id == source["invoice_settings"]["default_payment_method"]
    assert list(customer.metadata_problems) == ["billing_shared_subscription_role"]


async def test_a_deleted_customer_keeps_nothing_of_the_person(
    stripe_account: Simulator, gateway: StripeGateway
) -> None:
    identifier = await new_customer(stripe_account, name="Ada", phone="1", metadata={"billing_user_id": "u"})
    before = await stripe_account.get(f"/v1/customers/{identifier}")
    await stripe_account.delete(f"/v1/customers/{identifier}")
    after = (await gateway.fetch("customer", identifier)).snapshot
    assert isinstance(after, Customer)
    assert after.deleted
    for customer in (after, parsing.customer({**before, "deleted": True})):
        assert (customer.email, customer.name, customer.phone, customer.user_id) == (None,) * 4


async def test_a_subscription(stripe_account: Simulator) -> None:
    plan = await new_plan(stripe_account)
    payer = await new_customer(stripe_account)
    source = await new_subscription(
        stripe_account,
        payer,
        [{"price": plan.price, "quantity": 4}],
        metadata={"billing_shared_subscription_owner": f"\t{payer} "},
        trial_period_days=7,
    )
    subscription = parsing.subscription(source)
    (item,) = subscription.items
    assert (subscription.customer_id, subscription.owner_id, subscription.status) == (
        payer,
        payer,
        "trialing",
    )
    assert (item.price_id, item.product_id, item.quantity, item.metered) == (
        plan.price,
        plan.product,
        4,
        False,
    )
    assert item.current_period_end == source["items"]["data"][0]["current_period_end"]
    assert subscription.trial_end == source["trial_end"]
    assert subscription.latest_invoice_id == source["latest_invoice"]
    assert subscription.items_complete and subscription.metadata_problems == {}


async def test_long_lists_are_read_to_their_end(stripe_account: Simulator, gateway: StripeGateway) -> None:
    plans = [await new_plan(stripe_account) for _ in range(12)]
    payer = await new_customer(stripe_account)
    items = [{"price": plan.price, "quantity": n + 1} for n, plan in enumerate(plans)]
    source = await new_subscription(stripe_account, payer, items)
    assert not parsing.is_complete(source)
    assert not parsing.subscription(source).items_complete
    subscription = (await gateway.fetch("subscription", source["id"])).snapshot
    assert isinstance(subscription, Subscription)
    assert subscription.items_complete
    assert sorted(item.quantity or 0 for item in subscription.items) == list(range(1, 13))
    invoice = (await gateway.fetch("invoice", source["latest_invoice"])).snapshot
    assert isinstance(invoice, Invoice)
    assert sum(line["amount"] for line in invoice.lines) == invoice.subtotal == 78 * 1000
    page = await gateway.page("subscription", starting_after=None)
    assert (page.snapshots, page.cut_short, list(page.ids)) == ([], [source["id"]], [source["id"]])


async def test_a_payment_method_and_an_invoice(stripe_account: Simulator, gateway: StripeGateway) -> None:
    plan = await new_plan(stripe_account)
    payer = await new_customer(stripe_account)
    made = await new_subscription(stripe_account, payer, [{"price": plan.price, "quantity": 2}])
    invoice = (await gateway.fetch("invoice", made["latest_invoice"])).snapshot
    assert isinstance(invoice, Invoice)
    assert (invoice.customer_id, invoice.subscription_id, invoice.status) == (payer, made["id"], "paid")
    assert (invoice.total, invoice.amount_paid, invoice.amount_remaining) == (2000, 2000, 0)
    (line,) = invoice.lines
    assert (line["price_id"], line["quantity"], line["proration"]) == (plan.price, 2, False)
    assert line["subscription_item_id"] == made["items"]["data"][0]["id"]
    [method] = (await gateway.payment_methods(CustomerId(payer))).snapshots
    assert isinstance(method, PaymentMethod)
    assert (method.customer_id, method.type) == (payer, "card")
    assert method.card is not None
    assert (method.card["brand"], method.card["last4"], method.card["wallet"]) == ("visa", "4242", None)


async def test_an_invoice_line_stays_a_proration_when_it_was_collected_from_an_invoice_item(
    stripe_account: Simulator, gateway: StripeGateway
) -> None:
    """S10: the parent of such a line is the invoice item, whether the line is on an invoice or in a preview."""
    plan = await new_plan(stripe_account)
    payer = await new_customer(stripe_account)
    made = await new_subscription(stripe_account, payer, [{"price": plan.price, "quantity": 2}])
    item = made["items"]["data"][0]["id"]
    await stripe_account.post(f"/v1/subscription_items/{item}", quantity=5)
    preview = await stripe_account.post("/v1/invoices/create_preview", subscription=made["id"])
    lines = parsing.invoice(preview).lines
    assert [(line["proration"], line["quantity"]) for line in lines] == [(True, 2), (True, 5), (False, 5)]


async def test_what_is_not_there_has_no_snapshot(gateway: StripeGateway) -> None:
    for kind in parsing.PARSERS:
        assert (await gateway.fetch(kind, "cus_none")).snapshot is None


async def test_an_id_cannot_reach_another_path(stripe_account: Simulator, gateway: StripeGateway) -> None:
    assert (await gateway.fetch("customer", "../account")).snapshot is None
    assert (await gateway.fetch("customer", "x?expand[]=subscriptions")).snapshot is None
    assert "/v1/account" not in {entry["path"] for entry in await stripe_account.requests()}


async def test_pages_hold_ended_subscriptions_too(stripe_account: Simulator, gateway: StripeGateway) -> None:
    plan = await new_plan(stripe_account)
    payer = await new_customer(stripe_account)
    made = await new_subscription(stripe_account, payer, [{"price": plan.price}])
    await stripe_account.delete(f"/v1/subscriptions/{made['id']}")
    (found,) = (await gateway.page("subscription", starting_after=None)).snapshots
    assert isinstance(found, Subscription)
    assert found.status == "canceled"
    prices = (await gateway.page("price", starting_after=None)).snapshots
    assert [price.id for price in prices] == [plan.price]


ITEM = {
    "id": "si_1",
    "price": {"id": "price_1", "product": "prod_1", "recurring": {"usage_type": "licensed"}},
    "quantity": 1,
}
MINIMAL: dict[str, dict[str, Any]] = {
    "product": {"id": "prod_1"},
    "price": {"id": "price_1", "product": "prod_1"},
    "customer": {"id": "cus_1"},
    "subscription": {"id": "sub_1", "status": "active", "items": {"data": [ITEM], "has_more": False}},
    "payment_method": {"id": "pm_1", "type": "card"},
    "invoice": {"id": "in_1"},
}


@pytest.mark.parametrize("kind", MINIMAL)
def test_little_is_enough(kind: str) -> None:
    assert parsing.PARSERS[kind](MINIMAL[kind]).id == MINIMAL[kind]["id"]


BAD_IDS: list[Any] = [None, "", 1, True, [], {}, "cus_\x00", "a\x85b", "a" * 256, "\ud800", "x\n"]


@pytest.mark.parametrize("kind", MINIMAL)
def test_an_object_without_a_proper_id_is_malformed(kind: str) -> None:
    for bad in BAD_IDS:
        with pytest.raises(MalformedObject, match="id"):
            parsing.PARSERS[kind]({**MINIMAL[kind], "id": bad})
    with pytest.raises(MalformedObject):
        parsing.PARSERS[kind]({name: value for name, value in MINIMAL[kind].items() if name != "id"})


MALFORMED: list[tuple[str, dict[str, Any]]] = [
    ("product", {"name": 1}),
    ("product", {"images": "x"}),
    ("product", {"created": "now"}),
    ("product", {"created": 2**63}),
    ("product", {"metadata": ["a"]}),
    ("product", {"default_price": {"id": 5}}),
    ("price", {"unit_amount": 1.5}),
    ("price", {"unit_amount": True}),
    ("price", {"unit_amount": 2**70}),
    ("price", {"unit_amount_decimal": {"a": 1}}),
    ("price", {"unit_amount_decimal": True}),
    ("price", {"tiers": {"a": 1}}),
    ("price", {"tiers": [1]}),
    ("price", {"tiers": [{"up_to": [1]}]}),
    ("price", {"tiers": [{"up_to": 1.5}]}),
    ("price", {"recurring": "month"}),
    ("price", {"recurring": {"interval": {"deep": {}}}}),
    ("price", {"transform_quantity": {"divide_by": [5]}}),
    ("price", {"currency_options": [1]}),
    ("price", {"currency_options": {"eur": 5}}),
    ("price", {"currency_options": {"eur": {"tiers": [None]}}}),
    ("customer", {"email": ["a"]}),
    ("customer", {"balance": "1"}),
    ("customer", {"balance": -(2**63)}),
    ("customer", {"metadata": "x"}),
    ("customer", {"invoice_settings": "x"}),
    ("customer", {"invoice_settings": {"default_payment_method": 1}}),
    ("subscription", {"status": None}),
    ("subscription", {"status": ""}),
    ("subscription", {"status": 1}),
    ("subscription", {"items": []}),
    ("subscription", {"items": {"data": {}}}),
    ("subscription", {"items": {"data": [1]}}),
    ("subscription", {"items": {"data": [{"id": "si_1"}]}}),
    ("subscription", {"items": {"data": [{**ITEM, "quantity": "3"}]}}),
    ("subscription", {"items": {"data": [{**ITEM, "price": "price_1"}]}}),
    ("subscription", {"discounts": [1]}),
    ("subscription", {"discounts": [None]}),
    ("subscription", {"discounts": [{"id": None}]}),
    ("subscription", {"pending_update": []}),
    ("subscription", {"pending_update": {"expires_at": {}}}),
    ("subscription", {"billing_mode": "flexible"}),
    ("payment_method", {"type": None}),
    ("payment_method", {"card": "visa"}),
    ("payment_method", {"card": {"exp_month": 1.5}}),
    ("payment_method", {"card": {"wallet": "apple"}}),
    ("invoice", {"lines": []}),
    ("invoice", {"lines": {"data": [1]}}),
    ("invoice", {"lines": {"data": [{"amount": "1"}]}}),
    ("invoice", {"total": "1"}),
    ("invoice", {"parent": "sub_1"}),
]


@pytest.mark.parametrize(("kind", "change"), MALFORMED, ids=str)
def test_a_field_of_the_wrong_type_is_malformed_and_its_value_is_not_told(
    kind: str, change: dict[str, Any]
) -> None:
    with pytest.raises(MalformedObject):
        parsing.PARSERS[kind]({**MINIMAL[kind], **change})


def test_what_postgres_cannot_store_is_taken_out_of_texts() -> None:
    customer = parsing.customer({**MINIMAL["customer"], "name": "a\x00b\ud800", "email": "e\x00"})
    assert (customer.name, customer.email) == ("a\ufffdb\ufffd", "e\ufffd")
    price = parsing.price({**MINIMAL["price"], "recurring": {"interval": "mo\x00nth"}})
    assert price.recurring is not None
    assert price.recurring["interval"] == "mo\ufffdnth"
    method = parsing.payment_method({**MINIMAL["payment_method"], "card": {"brand": "vi\x00sa"}})
    assert method.card is not None
    assert method.card["brand"] == "vi\ufffdsa"


@pytest.mark.parametrize("role", ["user\x00", "\x00manager", "us\x00er", "user\ud800"])
def test_metadata_confers_nothing_when_it_holds_what_cannot_be_stored(role: str) -> None:
    """C10: NUL was taken out of the text, and what was left was a role."""
    marks = {"billing_shared_subscription_id": "sub_1", "billing_shared_subscription_role": role}
    customer = parsing.customer({**MINIMAL["customer"], "metadata": marks})
    assert customer.memberships == {}
    assert "billing_shared_subscription_role" in customer.metadata_problems
    for marks in (
        {"billing_shared_subscription_id": "sub_1\x00", "billing_shared_subscription_role": "user"},
        {"billing_sub_1\x00": "user"},
        {"billing_shared_subscription_id\x00": "sub_1", "billing_shared_subscription_role\x00": "user"},
    ):
        customer = parsing.customer({**MINIMAL["customer"], "metadata": marks})
        assert customer.memberships == {} and customer.user_id is None


INSTANTS: list[tuple[str, tuple[str | int, ...]]] = [
    *((kind, ("created",)) for kind in MINIMAL),
    *(
        ("subscription", (name,))
        for name in (
            "cancel_at",
            "canceled_at",
            "ended_at",
            "trial_start",
            "trial_end",
            "start_date",
            "billing_cycle_anchor",
        )
    ),
    ("subscription", ("items", "data", 0, "current_period_start")),
    ("subscription", ("items", "data", 0, "current_period_end")),
    ("subscription", ("pending_update", "expires_at")),
    ("subscription", ("pending_update", "trial_end")),
    ("subscription", ("pause_collection", "resumes_at")),
    ("subscription", ("discounts", 0, "start")),
    ("subscription", ("discounts", 0, "end")),
    *(("invoice", (name,)) for name in ("period_start", "period_end", "due_date")),
    ("invoice", ("lines", "data", 0, "period", "start")),
    ("invoice", ("lines", "data", 0, "period", "end")),
]
WHOLE: dict[str, dict[str, Any]] = {
    **MINIMAL,
    "subscription": {
        **MINIMAL["subscription"],
        "pending_update": {},
        "pause_collection": {"behavior": "void"},
        "discounts": [{"id": "di_1", "source": {"coupon": {"id": "co_1"}}}],
    },
    "invoice": {**MINIMAL["invoice"], "lines": {"data": [{"period": {}}]}},
}


def with_value(source: Any, path: tuple[str | int, ...], value: object) -> Any:
    """The JSON with another value at the end of the path."""
    if not path:
        return value
    changed = dict(source) if isinstance(source, dict) else list(source)
    inner = changed.get(path[0]) if isinstance(changed, dict) else changed[path[0]]  # type: ignore[index]
    changed[path[0]] = with_value(inner, path[1:], value)  # type: ignore[index]
    return changed


@pytest.mark.parametrize(("kind", "path"), INSTANTS, ids=str)
def test_object_is_malformed_when_an_instant_is_outside_the_years_of_a_date(
    kind: str, path: tuple[str | int, ...]
) -> None:
    """C5: `cancel_at: 253402300800` and milliseconds were stored, and every answer with them was 500."""
    for instant in (0, 253_402_300_799):
        parsing.PARSERS[kind](with_value(WHOLE[kind], path, instant))
    for instant in (253_402_300_800, 1_700_000_000_000, -1):
        with pytest.raises(MalformedObject, match="1970 to 9999"):
            parsing.PARSERS[kind](with_value(WHOLE[kind], path, instant))


@pytest.mark.parametrize("parent", ["subscription_item_details", "invoice_item_details"])
def test_line_is_a_proration_whichever_parent_says_so(parent: str) -> None:
    """C8: a line that was collected from an invoice item says it under its other parent."""
    line = {"parent": {parent: {"proration": True, "subscription_item": "si_1"}}}
    [found] = parsing.invoice({**MINIMAL["invoice"], "lines": {"data": [line]}}).lines
    assert (found["proration"], found["subscription_item_id"]) == (True, "si_1")


OWN_IDS = {
    "product": ["prod_1", "in_stock", "card_basic", "gold plan"],
    "price": ["price_1", "plan_1", "sub_monthly", "plan 5€/mo"],
    "customer": ["cus_1", "user-1@example.com", "1"],
    "subscription": ["sub_1"],
    "payment_method": ["pm_1", "card_1", "src_1", "ba_1"],
    "invoice": ["in_1"],
}
OTHER_IDS = {
    "product": ["cus_ABCDEFGHIJKLMN", "sub_1MowQVLkdIwHu7ix", "price_1MowQVLkdIwHu7ix"],
    "price": ["cus_ABCDEFGHIJKLMN", "prod_ABCDEFGHIJKLMN", "in_1MowQVLkdIwHu7ix"],
    "customer": ["sub_1", "in_1", "pm_1", "prod_1", "price_1", "si_1"],
    "subscription": ["cus_1", "si_1", "in_1", "sub 1", "sub_"],
    "payment_method": ["cus_1", "sub_1"],
    "invoice": ["upcoming_in_1", "sub_1", "cus_1"],
}


@pytest.mark.parametrize("kind", MINIMAL)
def test_object_is_malformed_when_its_id_is_that_of_another_kind(kind: str) -> None:
    """C10: it was applied, whatever kind its id was of."""
    for object_id in OWN_IDS[kind]:
        parsing.check_kind(kind, {"object": kind, "id": object_id})
    for object_id in OTHER_IDS[kind]:
        with pytest.raises(MalformedObject, match="id"):
            parsing.check_kind(kind, {"object": kind, "id": object_id})
    with pytest.raises(MalformedObject, match="object"):
        parsing.check_kind(kind, {"object": "coupon", "id": OWN_IDS[kind][0]})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted(
    {
        *(
            "id",
            "created",
            "metadata",
            "deleted",
            "items",
            "data",
            "price",
            "product",
            "recurring",
            "tiers",
            "card",
            "lines",
        ),
        *(
            "currency_options",
            "discounts",
            "status",
            "type",
            "customer",
            "parent",
            "images",
            "balance",
            "wallet",
            "name",
        ),
        *(
            "invoice_settings",
            "default_payment_method",
            "unit_amount_decimal",
            "pending_update",
            "quantity",
            "eur",
        ),
    }
)
OBJECTS = st.dictionaries(
    st.sampled_from(FIELDS), JSON | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4), max_size=12
)


@pytest.mark.parametrize("kind", MINIMAL)
@given(given_=OBJECTS)
def test_nothing_but_malformed_object_is_ever_raised(kind: str, given_: dict[str, Any]) -> None:
    for source in (given_, {**MINIMAL[kind], **given_}):
        with contextlib.suppress(MalformedObject):
            parsing.PARSERS[kind](source)
        with contextlib.suppress(MalformedObject):
            parsing.is_complete({**source, "object": kind})


@pytest.mark.parametrize(
    ("source", "complete"),
    [
        ({"object": "customer"}, True),
        ({"object": "product"}, True),
        ({"object": "payment_method"}, True),
        ({"object": "price"}, False),
        ({"object": "subscription", "items": {"has_more": False}}, True),
        ({"object": "subscription", "items": {"has_more": True}}, False),
        ({"object": "subscription", "items": {}}, False),
        ({"object": "subscription", "items": {"has_more": 0}}, False),
        ({"object": "subscription"}, False),
        ({"object": "invoice", "lines": {"has_more": False}}, True),
        ({"object": "invoice", "lines": {"has_more": True}}, False),
    ],
)
def test_which_payloads_carry_all_that_is_kept(source: dict[str, Any], complete: bool) -> None:
    assert parsing.is_complete(source) is complete


def intent(**fields: Any) -> dict[str, Any]:
    return {
        "id": "pi_1",
        "status": "requires_payment_method",
        "client_secret": "pi_1_secret_2",
        "payment_method": None,
        "last_payment_error": None,
        **fields,
    }


def payment_of(
    source: dict[str, Any] | None, *, is_default: bool = True, status: str = "open"
) -> dict[str, Any]:
    kind = "payment_intent" if source is not None else "payment_record"
    return {"is_default": is_default, "status": status, "payment": {"type": kind, "payment_intent": source}}


def open_invoice(*payments: dict[str, Any], status: str = "open") -> dict[str, Any]:
    url = "https://invoice.example.com/in_1"
    return {"id": "in_1", "status": status, "hosted_invoice_url": url, "payments": {"data": list(payments)}}


def test_payment_step_is_what_the_intent_says() -> None:
    """M7: status, secret, payment method and decline code are read and never inferred."""
    failure = {"decline_code": "insufficient_funds", "payment_method": {"id": "pm_1"}}
    for source, status, method, decline, declined in (
        (intent(), "requires_payment_method", None, None, False),
        (intent(last_payment_error=failure), "requires_payment_method", "pm_1", "insufficient_funds", True),
        (intent(status="requires_action", payment_method="pm_2"), "requires_action", "pm_2", None, False),
        (intent(status="processing", payment_method="pm_3"), "processing", "pm_3", None, False),
    ):
        step = parsing.invoice_payment_step(open_invoice(payment_of(source)))
        assert step is not None
        assert (step.status, step.payment_method_id, step.decline_code) == (status, method, decline)
        assert (step.kind, step.client_secret) == ("payment", "pi_1_secret_2")
        assert step.hosted_invoice_url == "https://invoice.example.com/in_1"
        assert step.is_declined is declined


def test_payment_step_hides_a_reason_that_no_customer_may_learn() -> None:
    """M7, M20: a stolen card is told as declined, without why, and counts as a decline all the same."""
    failure = {"decline_code": "stolen_card", "payment_method": {"id": "pm_1"}}
    step = parsing.invoice_payment_step(open_invoice(payment_of(intent(last_payment_error=failure))))
    assert step is not None
    assert (step.decline_code, step.payment_method_id, step.is_declined) == (None, "pm_1", True)


def test_payment_step_is_of_the_open_default_payment_when_there_are_several() -> None:
    """M6: an invoice may be paid in parts; what is open counts."""
    paid = payment_of(intent(client_secret="paid"), status="paid")
    part = payment_of(intent(client_secret="part"), is_default=False)
    step = parsing.invoice_payment_step(open_invoice(paid, part, payment_of(intent())))
    assert step is not None
    assert step.client_secret == "pi_1_secret_2"


def test_payment_step_has_no_secret_when_the_invoice_has_no_intent() -> None:
    """M8: an invoice that was sent is paid on its own page."""
    for invoice in (open_invoice(), open_invoice(payment_of(None))):
        step = parsing.invoice_payment_step(invoice)
        assert step is not None
        assert (step.status, step.client_secret) == (None, None)
        assert step.hosted_invoice_url == "https://invoice.example.com/in_1"
    assert parsing.invoice_payment_step(open_invoice(payment_of(intent()), status="paid")) is None
