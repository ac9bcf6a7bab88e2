"""Ways of paying: bank debits that settle days later, invoices that are sent, wallet cards, and pending updates."""

from typing import Any

import pytest
import stripe

from tests.stripe_simulator.simulator_support import Account, Catalogue
from tests.stripe_simulator.test_simulator_objects import check_keys

DAY = 86_400
START = 1_800_000_000


def use(account: Account, catalogue: Catalogue, token: str) -> str:
    """Makes a test token the customer's default payment method."""
    client = account.client.v1
    method = client.payment_methods.attach(token, {"customer": catalogue.customer}).id
    client.customers.update(catalogue.customer, {"invoice_settings": {"default_payment_method": method}})
    return method


def subscribe(account: Account, catalogue: Catalogue, **terms: Any) -> Any:
    params: Any = {
        "customer": catalogue.customer,
        "items": [{"price": catalogue.monthly, "quantity": 2}],
        "expand": ["latest_invoice.payments.data.payment"],
        **terms,
    }
    sub = account.client.v1.subscriptions.create(params).to_dict()
    check_keys(sub)
    return sub


def intent_of(account: Account, sub: Any) -> Any:
    """The payment intent of the latest invoice, with its charge."""
    identifier = sub["latest_invoice"]["payments"]["data"][0]["payment"]["payment_intent"]
    status, _, intent = account.raw("GET", f"/v1/payment_intents/{identifier}?expand[]=latest_charge")
    assert status == 200, intent
    check_keys(intent)
    return intent


def raise_quantity(account: Account, sub: Any, behavior: str) -> Any:
    item = sub["items"]["data"][0]["id"]
    params: Any = {
        "items": [{"id": item, "quantity": 5}],
        "payment_behavior": behavior,
        "proration_behavior": "always_invoice",
        "expand": ["latest_invoice.payments.data.payment"],
    }
    return account.client.v1.subscriptions.update(sub["id"], params).to_dict()


def types_since(account: Account, first: int) -> list[str]:
    return [event["type"] for event in account.control("GET", "state?type=event")["data"][first:]]


@pytest.mark.parametrize("token", ["pm_sepaDebit", "pm_usBankAccount"])
def test_pending_update_is_refused_when_a_bank_debit_pays(
    account: Account, catalogue: Catalogue, token: str
) -> None:
    """S5, T2."""
    use(account, catalogue, token)
    sub = subscribe(account, catalogue)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        raise_quantity(account, sub, "pending_if_incomplete")
    assert (refusal.value.http_status, refusal.value.param) == (400, "payment_behavior")
    after = account.client.v1.subscriptions.retrieve(sub["id"]).to_dict()
    assert (after["items"]["data"][0]["quantity"], after["pending_update"]) == (2, None)


def test_pending_update_is_refused_when_invoices_are_sent(account: Account, catalogue: Catalogue) -> None:
    """S5, T2."""
    sub = subscribe(account, catalogue, collection_method="send_invoice", days_until_due=30)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        raise_quantity(account, sub, "pending_if_incomplete")
    assert (refusal.value.http_status, refusal.value.param) == (400, "payment_behavior")
    assert raise_quantity(account, sub, "allow_incomplete")["status"] == "active"


def test_pending_update_is_taken_when_a_wallet_card_pays(account: Account, catalogue: Catalogue) -> None:
    """S5: a card in a wallet is a card."""
    method = use(account, catalogue, "pm_card_visa_applePay")
    card = account.client.v1.payment_methods.retrieve(method).card
    assert card is not None and card.wallet is not None
    assert card.wallet.type == "apple_pay"
    sub = subscribe(account, catalogue)
    raised = raise_quantity(account, sub, "pending_if_incomplete")
    assert (raised["items"]["data"][0]["quantity"], raised["pending_update"]) == (5, None)


def test_debit_activates_at_once_and_pays_when_its_days_have_passed(
    account: Account, catalogue: Catalogue
) -> None:
    """S7: a debit is processing for days, its subscription active from the start."""
    account.control("POST", "clock", {"freeze": START})
    method = use(account, catalogue, "pm_sepaDebit")
    sub = subscribe(account, catalogue)
    intent = intent_of(account, sub)
    assert sub["status"] == "active"
    assert (sub["latest_invoice"]["status"], sub["latest_invoice"]["amount_remaining"]) == ("open", 2000)
    assert (intent["status"], intent["payment_method"]) == ("processing", method)
    assert (intent["latest_charge"]["status"], intent["latest_charge"]["paid"]) == ("pending", False)
    with pytest.raises(stripe.InvalidRequestError) as twice:
        account.client.v1.invoices.pay(sub["latest_invoice"]["id"])
    assert twice.value.code == "payment_intent_unexpected_state"
    before = len(account.control("GET", "state?type=event")["data"])
    account.control("POST", "clock", {"advance": 4 * DAY})
    assert types_since(account, before) == []
    account.control("POST", "clock", {"advance": DAY})
    assert types_since(account, before) == [
        "charge.succeeded",
        "payment_intent.succeeded",
        "invoice_payment.paid",
        "invoice.paid",
        "invoice.payment_succeeded",
    ]
    invoice = account.client.v1.invoices.retrieve(sub["latest_invoice"]["id"])
    assert (invoice.status, invoice.amount_paid) == ("paid", 2000)


def test_debit_leaves_the_subscription_past_due_when_the_bank_returns_it(
    account: Account, catalogue: Catalogue
) -> None:
    account.control("POST", "clock", {"freeze": START})
    account.control("POST", "settings", {"debit_days": 2})
    use(account, catalogue, "pm_sepaDebitFailed")
    sub = subscribe(account, catalogue)
    assert sub["status"] == "active"
    before = len(account.control("GET", "state?type=event")["data"])
    account.control("POST", "clock", {"advance": 2 * DAY})
    types = types_since(account, before)
    assert types[:3] == ["charge.failed", "payment_intent.payment_failed", "invoice.payment_failed"]
    assert "customer.subscription.updated" in types
    client = account.client.v1
    assert client.subscriptions.retrieve(sub["id"]).status == "past_due"
    intent = client.payment_intents.retrieve(intent_of(account, sub)["id"])
    assert intent.status == "requires_payment_method"
    assert intent.last_payment_error is not None
    assert intent.last_payment_error.code == "debit_not_authorized"
    invoice = client.invoices.retrieve(sub["latest_invoice"]["id"])
    assert invoice.status == "open"
    method = client.payment_methods.attach("pm_card_visa", {"customer": catalogue.customer}).id
    assert client.invoices.pay(invoice.id, {"payment_method": method}).status == "paid"
    assert client.subscriptions.retrieve(sub["id"]).status == "active"


def test_raise_by_debit_stands_while_its_invoice_is_processing(
    account: Account, catalogue: Catalogue
) -> None:
    account.control("POST", "clock", {"freeze": START})
    use(account, catalogue, "pm_sepaDebit")
    sub = subscribe(account, catalogue)
    account.control("POST", "clock", {"advance": 10 * DAY})
    raised = raise_quantity(account, sub, "allow_incomplete")
    assert (raised["status"], raised["items"]["data"][0]["quantity"]) == ("active", 5)
    assert (raised["latest_invoice"]["status"], intent_of(account, raised)["status"]) == (
        "open",
        "processing",
    )
    with pytest.raises(stripe.InvalidRequestError):
        account.client.v1.invoices.void_invoice(raised["latest_invoice"]["id"])
    account.control("POST", "clock", {"advance": 5 * DAY})
    assert account.client.v1.invoices.retrieve(raised["latest_invoice"]["id"]).status == "paid"


def test_renewal_by_debit_is_processing_and_then_paid(account: Account, catalogue: Catalogue) -> None:
    account.control("POST", "clock", {"freeze": START})
    use(account, catalogue, "pm_sepaDebit")
    sub = subscribe(account, catalogue)
    account.control("POST", "clock", {"advance": 31 * DAY + 7200})
    now = account.client.v1.subscriptions.retrieve(sub["id"], {"expand": ["latest_invoice"]}).to_dict()
    assert (now["status"], now["latest_invoice"]["status"]) == ("active", "open")
    assert now["latest_invoice"]["billing_reason"] == "subscription_cycle"
    account.control("POST", "clock", {"advance": 5 * DAY})
    assert account.client.v1.invoices.retrieve(now["latest_invoice"]["id"]).status == "paid"


def test_browser_confirms_an_incomplete_subscription_with_a_debit(
    account: Account, catalogue: Catalogue
) -> None:
    account.control("POST", "clock", {"freeze": START})
    expands = ["latest_invoice.confirmation_secret"]
    sub = subscribe(account, catalogue, payment_behavior="default_incomplete", expand=expands)
    secret = sub["latest_invoice"]["confirmation_secret"]["client_secret"]
    intent = account.control("POST", "confirm", {"client_secret": secret, "payment_method": "pm_sepaDebit"})
    assert intent["status"] == "processing"
    assert account.client.v1.subscriptions.retrieve(sub["id"]).status == "active"


def test_debit_is_made_of_a_test_account_number(account: Account, catalogue: Catalogue) -> None:
    client = account.client.v1
    method = client.payment_methods.create(
        {
            "type": "sepa_debit",
            "sepa_debit": {"iban": "DE89 3704 0044 0532 0130 00"},
            "billing_details": {"name": "Ada", "email": "ada@example.com"},
        }
    )
    assert method.type == "sepa_debit" and method.sepa_debit is not None
    assert method.sepa_debit.last4 == "3000"
    attached = client.payment_methods.attach(method.id, {"customer": catalogue.customer})
    listed = client.customers.payment_methods.list(catalogue.customer, {"type": "sepa_debit"}).data
    assert [entry.id for entry in listed] == [attached.id]
    with pytest.raises(stripe.InvalidRequestError) as unknown:
        client.payment_methods.create({"type": "sepa_debit", "sepa_debit": {"iban": "DE00"}})
    assert unknown.value.param == "sepa_debit[iban]"


def test_sent_invoice_is_paid_when_it_is_asked_for(account: Account, catalogue: Catalogue) -> None:
    """T13: "outside of the normal collection schedule"."""
    sub = subscribe(account, catalogue, collection_method="send_invoice", days_until_due=30)
    assert account.client.v1.invoices.pay(sub["latest_invoice"]["id"]).status == "paid"


def test_charges_are_listed_by_intent_and_customer(account: Account, catalogue: Catalogue) -> None:
    sub = subscribe(account, catalogue)
    intent = intent_of(account, sub)
    assert intent["latest_charge"]["paid"] is True
    for query in (f"payment_intent={intent['id']}", f"customer={catalogue.customer}"):
        _, _, found = account.raw("GET", f"/v1/charges?{query}")
        check_keys(found)
        assert [charge["id"] for charge in found["data"]] == [intent["latest_charge"]["id"]]


def test_processing_invoice_is_left_alone_until_the_bank_answers(
    account: Account, catalogue: Catalogue
) -> None:
    """It is not voided; a debit that settles after the customer's deletion does not stop the clock."""
    account.control("POST", "clock", {"freeze": START})
    method = use(account, catalogue, "pm_sepaDebit")
    client = account.client.v1
    invoice = subscribe(account, catalogue)["latest_invoice"]["id"]
    with pytest.raises(stripe.InvalidRequestError):
        client.invoices.void_invoice(invoice)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.payment_methods.update(method, {"card": {"exp_month": 1}})
    assert refusal.value.param == "card"
    client.customers.delete(catalogue.customer)
    account.control("POST", "clock", {"advance": 6 * DAY})
    charges = checked(account, f"customer={catalogue.customer}")
    assert [charge["status"] for charge in charges] == ["succeeded"]


def test_debit_pays_nothing_twice_when_its_invoice_was_paid_out_of_band(
    account: Account, catalogue: Catalogue
) -> None:
    account.control("POST", "clock", {"freeze": START})
    use(account, catalogue, "pm_sepaDebit")
    invoice = subscribe(account, catalogue)["latest_invoice"]["id"]
    assert account.client.v1.invoices.pay(invoice, {"paid_out_of_band": True}).status == "paid"
    before = len(account.control("GET", "state?type=event")["data"])
    account.control("POST", "clock", {"advance": 6 * DAY})
    assert types_since(account, before) == ["charge.succeeded", "payment_intent.succeeded"]


def checked(account: Account, query: str) -> Any:
    status, _, body = account.raw("GET", f"/v1/charges?{query}")
    assert status == 200, body
    check_keys(body)
    return body["data"]
