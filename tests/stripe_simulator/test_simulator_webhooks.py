"""Events and their delivery: envelope, signature, retries, knobs, survival of a kill."""

import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.stripe_simulator.simulator_support import WEBHOOK_SECRET, Account, Catalogue, Receiver, start, stop


def subscribe(account: Account, receiver: Receiver, *events: str, version: str | None = None) -> str:
    params: Any = {"url": receiver.url, "enabled_events": list(events) or ["*"]}
    if version is not None:
        params["api_version"] = version
    made = account.client.v1.webhook_endpoints.create(params)
    assert made.secret is not None
    return made.secret


def test_a_signed_event_tells_what_changed(account: Account, receiver: Receiver) -> None:
    secret = subscribe(account, receiver)
    customer = account.client.v1.customers.create({"metadata": {"a": "1", "b": "2"}})
    account.client.v1.customers.update(
        customer.id, {"metadata": {"a": "3", "b": ""}}, {"idempotency_key": "my-key"}
    )
    receiver.wait(2)
    by_type = {}
    for body, header in receiver.received:
        event = stripe.Webhook.construct_event(body, header, secret)
        by_type[event.type] = event.to_dict()
    updated = by_type["customer.updated"]
    assert updated["data"]["previous_attributes"] == {"metadata": {"a": "1", "b": "2"}}
    assert updated["data"]["object"]["metadata"] == {"a": "3"}
    assert updated["api_version"] == "2026-10-28.endive"
    assert updated["request"]["idempotency_key"] == "my-key"
    assert updated["livemode"] is False and updated["pending_webhooks"] == 1
    assert isinstance(updated["created"], int)


def test_nothing_is_told_of_an_update_that_changes_nothing(account: Account) -> None:
    client = account.client.v1
    customer = client.customers.create({"name": "x", "metadata": {"a": "1"}})
    client.customers.update(customer.id, {"name": "x", "metadata": {"a": "1"}})
    assert [event.type for event in client.events.list().data] == ["customer.created"]


def test_detaching_names_the_previous_owner(account: Account, catalogue: Catalogue) -> None:
    client = account.client.v1
    client.payment_methods.detach(catalogue.method)
    event = client.events.list({"types": ["payment_method.detached"]}).data[0].to_dict()
    assert event["data"]["object"]["customer"] is None
    assert event["data"]["previous_attributes"] == {"customer": catalogue.customer}
    settings = client.customers.retrieve(catalogue.customer).invoice_settings
    assert settings is not None and settings.default_payment_method is None


def test_failed_deliveries_are_retried_and_listed(account: Account, receiver: Receiver) -> None:
    subscribe(account, receiver, "customer.created")
    receiver.failures = 2
    account.client.v1.customers.create({})
    assert len(account.client.v1.events.list({"delivery_success": False}).data) == 1
    receiver.wait(1)
    time.sleep(0.05)
    assert account.control("GET", "deliveries")["attempts"] == 3
    assert account.client.v1.events.list({"delivery_success": False}).data == []


def test_held_deliveries_leave_in_the_order_asked_for(account: Account, receiver: Receiver) -> None:
    subscribe(account, receiver)
    account.control("POST", "deliveries", {"hold": True})
    names = ["one", "two", "three"]
    for name in names:
        account.client.v1.customers.create({"name": name})
    assert account.control("GET", "deliveries")["held"] == 3
    assert receiver.received == []
    account.control("POST", "deliveries/release", {"order": "lifo", "spacing_s": 0.05})
    assert [event["data"]["object"]["name"] for event in receiver.wait(3)] == names[::-1]


def test_deliveries_can_be_doubled_and_dropped(account: Account, receiver: Receiver) -> None:
    subscribe(account, receiver)
    account.control("POST", "deliveries", {"duplicate": 1.0})
    account.client.v1.customers.create({})
    first, second = receiver.wait(2)
    assert first["id"] == second["id"]
    account.control("POST", "deliveries", {"duplicate": 0, "drop": 1.0})
    account.client.v1.customers.create({})
    assert account.control("GET", "deliveries")["dropped"] == 1
    assert len(receiver.received) == 2


def test_an_old_endpoint_gets_the_old_layout(
    account: Account, receiver: Receiver, catalogue: Catalogue
) -> None:
    subscribe(account, receiver, "customer.subscription.created", version="2024-06-20")
    account.client.v1.subscriptions.create(
        {"customer": catalogue.customer, "items": [{"price": catalogue.monthly, "quantity": 3}]}
    )
    event = receiver.wait(1)[0]
    assert event["api_version"] == "2024-06-20"
    assert event["data"]["object"]["current_period_end"] > event["data"]["object"]["current_period_start"]
    assert "current_period_end" not in event["data"]["object"]["items"]["data"][0]


def test_state_and_undelivered_events_survive_a_kill(tmp_path: Path, receiver: Receiver) -> None:
    receiver.failures = 1_000_000
    arguments = ["--state", str(tmp_path), "--webhook-url", receiver.url, "--webhook-secret", WEBHOOK_SECRET]
    process, url = start(*arguments)
    account = Account(url, "sk_test_demo")
    customer = account.client.v1.customers.create({"name": "kept"}, {"idempotency_key": "once"})
    os.kill(process.pid, signal.SIGKILL)
    process.wait(5)
    stop(process)
    with (tmp_path / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"account": "sk_test_demo", "chan')
    receiver.failures = 0
    process, url = start(*arguments)
    try:
        account = Account(url, "sk_test_demo")
        assert account.client.v1.customers.retrieve(customer.id).name == "kept"
        again = account.client.v1.customers.create({"name": "kept"}, {"idempotency_key": "once"})
        assert again.id == customer.id
        other = account.client.v1.customers.create({"name": "new"})
        assert other.id != customer.id
        names = {event["data"]["object"]["name"] for event in receiver.wait(2)}
        assert names == {"kept", "new"}
    finally:
        stop(process)


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    process, _ = start("--memory")
    os.close(process.parent_pipe)  # type: ignore[attr-defined]
    assert process.wait(timeout=4) is not None
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_within_two_seconds(signum: signal.Signals) -> None:
    process, url = start("--memory")
    Account(url, "sk_test_a").client.v1.customers.create({})
    started = time.monotonic()
    process.send_signal(signum)
    process.wait(timeout=4)
    assert time.monotonic() - started < 2
    stop(process)


def test_endpoint_of_an_organisation_gets_events_of_both_accounts(
    account: Account, receiver: Receiver
) -> None:
    """Each event names its account as `context`; the account's own endpoints get only its own, without."""
    sibling = Account(account.url, f"sk_test_{uuid.uuid4().hex}")
    terms = {"accounts": [sibling.key], "url": receiver.url, "secret": WEBHOOK_SECRET}
    joined = account.control("POST", "organisation", terms)["accounts"]
    assert joined == [stripe_account(account), stripe_account(sibling)]
    account.client.v1.customers.create({"name": "one"})
    sibling.client.v1.customers.create({"name": "two"})
    events = receiver.wait(2)
    told = {event["data"]["object"]["name"]: event["context"] for event in events}
    assert told == {"one": joined[0], "two": joined[1]}
    assert account.client.v1.webhook_endpoints.list().data == []
    assert "context" not in account.client.v1.events.list().data[0].to_dict()


def stripe_account(account: Account) -> str:
    return str(account.client.v1.accounts.retrieve_current().id)
