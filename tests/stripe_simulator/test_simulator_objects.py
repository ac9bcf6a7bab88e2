"""The shapes of answers against the SDK's own classes, and the rules of customers and payment methods."""

from typing import Any

import pytest
import stripe

from tests.stripe_simulator.simulator_support import Account, Catalogue

CLASSES: dict[str, Any] = {
    "account": stripe.Account,
    "billing.meter": stripe.billing.Meter,
    "billing.meter_event": stripe.billing.MeterEvent,
    "billing.meter_event_adjustment": stripe.billing.MeterEventAdjustment,
    "billing.meter_event_summary": stripe.billing.MeterEventSummary,
    "card": stripe.Card,
    "charge": stripe.Charge,
    "coupon": stripe.Coupon,
    "credit_note": stripe.CreditNote,
    "credit_note_line_item": stripe.CreditNoteLineItem,
    "customer": stripe.Customer,
    "customer_balance_transaction": stripe.CustomerBalanceTransaction,
    "discount": stripe.Discount,
    "dispute": stripe.Dispute,
    "event": stripe.Event,
    "invoice": stripe.Invoice,
    "invoice_payment": stripe.InvoicePayment,
    "invoiceitem": stripe.InvoiceItem,
    "line_item": stripe.InvoiceLineItem,
    "payment_intent": stripe.PaymentIntent,
    "payment_method": stripe.PaymentMethod,
    "plan": stripe.Plan,
    "price": stripe.Price,
    "product": stripe.Product,
    "promotion_code": stripe.PromotionCode,
    "refund": stripe.Refund,
    "setup_intent": stripe.SetupIntent,
    "subscription": stripe.Subscription,
    "subscription_item": stripe.SubscriptionItem,
    "subscription_schedule": stripe.SubscriptionSchedule,
    "tax_rate": stripe.TaxRate,
    "webhook_endpoint": stripe.WebhookEndpoint,
}
OPTIONAL = {
    "account": {"company", "future_requirements", "groups", "individual", "requirements", "tos_acceptance"}
    | {"external_accounts", "metadata"},
    "card": {"account", "allow_redisplay", "available_payout_methods", "currency", "default_for_currency"}
    | {"description", "iin", "issuer", "networks", "status"},
    "charge": {"level3", "presentment_details", "radar_options", "refunds", "transfer"},
    "coupon": {"applies_to", "currency_options"},
    "customer": {"business_name", "cash_balance", "individual_name", "invoice_credit_balance", "sources"}
    | {"subscriptions", "tax", "tax_ids"},
    "event": {"account", "context"},
    "invoice": {
        "amount_paid_off_stripe",
        "confirmation_secret",
        "payments",
        "status_details",
        "threshold_reason",
    },
    "invoiceitem": {"frozen_fields", "invoicing_rules"},
    "payment_intent": {"allowed_payment_method_types", "hooks", "managed_payments", "payment_details"}
    | {"payment_record", "presentment_details"},
    "payment_method": {"radar_options"},
    "plan": {"tiers"},
    "price": {"currency_options", "tiers"},
    "product": {"tax_details"},
    "dispute": {"network_reason_code"},
    "refund": {"description", "failure_balance_transaction", "failure_reason", "instructions_email"}
    | {"presentment_details"},
    "setup_intent": {"allowed_payment_method_types", "attach_to_self", "managed_payments"},
    "subscription": {"presentment_details"},
    "subscription_item": {"quantity"},
    "webhook_endpoint": {"secret"},
}


def objects_in(node: Any) -> Any:
    if isinstance(node, list):
        for entry in node:
            yield from objects_in(entry)
    elif isinstance(node, dict):
        if isinstance(node.get("object"), str) and node["object"] in CLASSES:
            yield node
        for value in node.values():
            yield from objects_in(value)


def check_keys(answer: Any) -> set[str]:
    """Kinds of the objects found; each has no key that the SDK's class lacks, and all that Stripe always sends."""
    kinds = set()
    for obj in objects_in(answer):
        kind = obj["object"]
        known = set(CLASSES[kind].__annotations__) - {"OBJECT_NAME"}
        unknown = set(obj) - known
        assert not unknown, f"{kind} has {sorted(unknown)}"
        if kind != "payment_method":
            missing = known - set(obj) - OPTIONAL.get(kind, set()) - {"deleted"}
            assert not missing, f"{kind} lacks {sorted(missing)}"
        kinds.add(kind)
    return kinds


def test_every_object_has_the_keys_of_the_sdks_class(account: Account, catalogue: Catalogue) -> None:
    client = account.client.v1
    coupon = client.coupons.create({"percent_off": 25, "duration": "forever"}).id
    code = client.promotion_codes.create(
        {"promotion": {"type": "coupon", "coupon": coupon}, "code": "FALL"}
    ).id
    rate = client.tax_rates.create({"display_name": "VAT", "inclusive": False, "percentage": 19}).id
    intent = client.setup_intents.create({"customer": catalogue.customer}).id
    sub = client.subscriptions.create(
        {
            "customer": catalogue.customer,
            "items": [{"price": catalogue.monthly, "quantity": 3, "tax_rates": [rate]}],
            "discounts": [{"promotion_code": code}],
        }
    )
    item = sub.to_dict()["items"]["data"][0]["id"]
    client.subscriptions.update(sub.id, {"items": [{"id": item, "quantity": 5}]})
    endpoint = client.webhook_endpoints.create(
        {"url": "http://127.0.0.1:9/", "enabled_events": ["price.created"]}
    ).id
    seen = set()
    for path in (
        "/v1/account",
        "/v1/products",
        "/v1/prices?expand[]=data.tiers&expand[]=data.currency_options",
        "/v1/customers?expand[]=data.subscriptions",
        f"/v1/customers/{catalogue.customer}/payment_methods",
        f"/v1/subscriptions/{sub.id}?expand[]=customer&expand[]=latest_invoice.payments&expand[]=discounts",
        f"/v1/subscription_items?subscription={sub.id}",
        "/v1/invoices?expand[]=data.confirmation_secret",
        "/v1/invoiceitems",
        "/v1/invoice_payments?expand[]=data.payment.payment_intent",
        "/v1/charges",
        "/v1/coupons?expand[]=data.applies_to",
        "/v1/promotion_codes",
        "/v1/tax_rates",
        f"/v1/setup_intents/{intent}",
        f"/v1/webhook_endpoints/{endpoint}",
        "/v1/events?limit=100",
    ):
        status, _, body = account.raw("GET", path)
        assert status == 200, (path, body)
        seen |= check_keys(body)
    elsewhere = {"card", "dispute", "refund", "subscription_schedule", "customer_balance_transaction"}
    elsewhere |= {"credit_note", "credit_note_line_item"}
    assert seen == {kind for kind in CLASSES if not kind.startswith("billing.")} - elsewhere


def test_a_period_lives_on_the_item(account: Account, catalogue: Catalogue) -> None:
    sub = account.client.v1.subscriptions.create(
        {"customer": catalogue.customer, "items": [{"price": catalogue.monthly}]}
    ).to_dict()
    assert "current_period_end" not in sub
    assert sub["items"]["data"][0]["current_period_end"] > sub["created"]


def test_metadata_merges_and_has_limits(account: Account) -> None:
    client = account.client.v1.customers
    customer = client.create({"metadata": {"a": "1", "b": "2"}})
    changed = client.update(customer.id, {"metadata": {"b": "", "c": " padded "}})
    assert changed.metadata is not None
    assert changed.metadata.to_dict() == {"a": "1", "c": " padded "}
    for wrong in ({"k" * 41: "x"}, {"k": "x" * 501}, {f"k{n}": "x" for n in range(51)}):
        with pytest.raises(stripe.InvalidRequestError):
            client.update(customer.id, {"metadata": wrong})
    cleared = client.update(customer.id, {"metadata": ""})
    assert cleared.metadata is not None
    assert cleared.metadata.to_dict() == {}


def test_a_deleted_customer_leaves_a_stub_and_no_subscription(account: Account, catalogue: Catalogue) -> None:
    client = account.client.v1
    sub = client.subscriptions.create(
        {"customer": catalogue.customer, "items": [{"price": catalogue.monthly}]}
    )
    client.customers.delete(catalogue.customer)
    _, _, stub = account.raw("GET", f"/v1/customers/{catalogue.customer}")
    assert stub == {"id": catalogue.customer, "object": "customer", "deleted": True}
    assert client.subscriptions.retrieve(sub.id).status == "canceled"
    assert client.customers.list().data == []
    types = [event.type for event in client.events.list({"limit": 100}).data]
    assert "customer.deleted" in types
    assert "customer.subscription.deleted" in types
    with pytest.raises(stripe.InvalidRequestError):
        client.customers.update(catalogue.customer, {"name": "x"})


def test_test_cards_become_methods_of_their_own(account: Account, catalogue: Catalogue) -> None:
    client = account.client.v1
    first = client.payment_methods.attach("pm_card_mastercard", {"customer": catalogue.customer})
    second = client.payment_methods.attach("pm_card_mastercard", {"customer": catalogue.customer})
    assert first.id != second.id
    assert first.card is not None
    assert (first.card.brand, first.card.last4) == ("mastercard", "4444")
    listed = client.customers.payment_methods.list(catalogue.customer).data
    assert [method.id for method in listed] == [second.id, first.id, catalogue.method]
    with pytest.raises(stripe.CardError) as declined:
        client.payment_methods.attach("pm_card_chargeDeclined", {"customer": catalogue.customer})
    error = declined.value.error
    assert error is not None
    assert (declined.value.http_status, error.code, error.decline_code) == (
        402,
        "card_declined",
        "generic_decline",
    )
    client.payment_methods.detach(first.id)
    with pytest.raises(stripe.InvalidRequestError):
        client.payment_methods.attach(first.id, {"customer": catalogue.customer})
    other = client.customers.create({}).id
    with pytest.raises(stripe.InvalidRequestError):
        client.payment_methods.attach(second.id, {"customer": other})


def test_search_runs_behind(account: Account) -> None:
    client = account.client.v1.customers
    customer = client.create({"email": "a@example.com", "metadata": {"seat": "one"}})
    query = {"query": "metadata['seat']:'one' AND email:'a@example.com'"}
    assert client.search(query).data == []  # type: ignore[arg-type]
    account.control("POST", "settings", {"search_delay_s": 0})
    assert [found.id for found in client.search(query).data] == [customer.id]  # type: ignore[arg-type]


def test_prices_show_tiers_and_currencies_only_on_request(account: Account, catalogue: Catalogue) -> None:
    client = account.client.v1.prices
    price = client.create(
        {
            "product": catalogue.product,
            "currency": "usd",
            "billing_scheme": "tiered",
            "tiers_mode": "volume",
            "tiers": [{"up_to": 10, "unit_amount": 1000}, {"up_to": "inf", "unit_amount": 800}],
            "recurring": {"interval": "month"},
            "lookup_key": "volume",
        }
    )
    assert "tiers" not in price.to_dict()
    shown = client.retrieve(price.id, {"expand": ["tiers", "currency_options"]}).to_dict()
    assert [tier["up_to"] for tier in shown["tiers"]] == [10, None]
    assert set(shown["currency_options"]) == {"usd"}
    assert [found.id for found in client.list({"lookup_keys": ["volume"]}).data] == [price.id]
