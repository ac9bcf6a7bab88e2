"""Ordered faults: what the client sees, what took effect, and what a repeated key then gets."""

import http.client
import json
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.stripe_simulator.simulator_support import Account

CREATE = {"method": "POST", "path": "/v1/customers"}


def count(account: Account) -> int:
    return len(account.control("GET", "state?type=customer")["data"])


def create(account: Account, key: str = "k") -> tuple[int, dict[str, str], Any]:
    return account.raw("POST", "/v1/customers", "name=x", {"Idempotency-Key": key})


def silent(account: Account, seconds: float, key: str = "k") -> None:
    """A create whose client gives up after some seconds."""
    host = urlsplit(account.url).netloc
    connection = http.client.HTTPConnection(host, timeout=seconds)
    headers = {"Authorization": f"Bearer {account.key}", "Idempotency-Key": key}
    try:
        connection.request("POST", "/v1/customers", "name=x", headers)
        with pytest.raises((TimeoutError, http.client.RemoteDisconnected, socket.timeout)):
            connection.getresponse()
    finally:
        connection.close()


def eventually(account: Account, wanted: int) -> None:
    deadline = time.monotonic() + 3
    while count(account) != wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    assert count(account) == wanted


def test_rate_limits_and_locks(account: Account) -> None:
    account.control("POST", "faults", {**CREATE, "status": 429})
    status, headers, body = create(account)
    assert (status, body["error"]["code"]) == (429, "rate_limit")
    assert "stripe-should-retry" not in headers
    account.control("POST", "faults", {**CREATE, "status": 429, "code": "lock_timeout"})
    status, headers, body = create(account)
    assert (status, body["error"]["code"], headers["stripe-should-retry"]) == (429, "lock_timeout", "true")
    assert create(account)[0] == 200
    assert count(account) == 1


@pytest.mark.parametrize("effect", ["before", "after"])
@pytest.mark.parametrize("save", [True, False])
def test_a_500_with_and_without_effect(account: Account, effect: str, save: bool) -> None:
    account.control("POST", "faults", {**CREATE, "status": 500, "effect": effect, "save": save})
    status, headers, body = create(account)
    assert (status, body["error"]["type"]) == (500, "api_error")
    happened = int(effect == "after")
    assert count(account) == happened
    status, headers, _ = create(account)
    if save:
        assert (status, headers["idempotent-replayed"], count(account)) == (500, "true", happened)
    else:
        assert (status, count(account)) == (200, happened + 1)


def test_a_timeout_after_the_effect_is_known_by_its_key(account: Account) -> None:
    account.control("POST", "faults", {**CREATE, "timeout": True, "effect": "after"})
    silent(account, 0.2)
    assert count(account) == 1
    status, headers, _ = create(account)
    assert (status, headers["idempotent-replayed"], count(account)) == (200, "true", 1)


def test_a_timeout_before_the_effect_leaves_nothing(account: Account) -> None:
    account.control("POST", "faults", {**CREATE, "timeout": True})
    silent(account, 0.2)
    time.sleep(0.1)
    assert count(account) == 0
    assert create(account)[0] == 200


def test_a_late_request_takes_effect_after_its_client_has_gone(account: Account) -> None:
    account.control("POST", "faults", {**CREATE, "late_s": 0.4})
    silent(account, 0.2)
    assert count(account) == 0
    status, headers, body = create(account)
    assert (status, body["error"]["code"]) == (409, "idempotency_key_in_use")
    assert headers["stripe-should-retry"] == "true"
    eventually(account, 1)
    assert create(account)[1]["idempotent-replayed"] == "true"
    assert count(account) == 1


def test_a_truncated_body(account: Account) -> None:
    account.control("POST", "faults", {**CREATE, "truncate": True})
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        create(account)
    assert count(account) == 1


def test_latency_and_a_key_in_flight(account: Account) -> None:
    account.control("POST", "faults", {**CREATE, "latency_s": 0.4})
    answers: list[int] = []
    slow = threading.Thread(target=lambda: answers.append(create(account)[0]))
    slow.start()
    time.sleep(0.15)
    assert create(account)[0] == 409
    slow.join()
    assert answers == [200]
    assert count(account) == 1


def test_an_answer_can_be_overtaken(account: Account) -> None:
    identifier = create(account)[2]["id"]
    account.control("POST", "faults", {"method": "GET", "path": "/v1/customers/{id}", "answer_s": 0.3})
    seen: list[str] = []
    slow = threading.Thread(
        target=lambda: seen.append(account.raw("GET", f"/v1/customers/{identifier}")[2]["name"])
    )
    slow.start()
    time.sleep(0.1)
    account.raw("POST", f"/v1/customers/{identifier}", "name=newer")
    slow.join()
    assert seen == ["x"]


def test_every_request_can_be_slow(account: Account) -> None:
    account.control("POST", "settings", {"latency_s": 0.2})
    started = time.monotonic()
    create(account)
    assert 0.09 < time.monotonic() - started < 1.0


def test_faults_can_be_aimed_at_one_object_and_cleared(account: Account) -> None:
    first, second = (create(account, key)[2]["id"] for key in "ab")
    account.control(
        "POST", "faults", {"path": "/v1/customers/{id}", "object": first, "status": 503, "times": 0}
    )
    for _ in range(3):
        assert account.raw("GET", f"/v1/customers/{first}")[0] == 503
    assert account.raw("GET", f"/v1/customers/{second}")[0] == 200
    assert account.control("DELETE", "faults")["cleared"] == 1
    assert account.raw("GET", f"/v1/customers/{first}")[0] == 200


def test_faults_can_be_aimed_at_the_requests_that_name_a_customer(account: Account) -> None:
    first, second = (create(account, key)[2]["id"] for key in "ab")
    account.control("POST", "faults", {"customer": first, "status": 503, "times": 0})
    assert account.raw("GET", f"/v1/subscriptions?customer={first}")[0] == 503
    assert account.raw("GET", f"/v1/subscriptions?customer={second}")[0] == 200
    assert account.raw("GET", f"/v1/customers/{first}")[0] == 200


def test_the_rate_limit_knob_counts_each_endpoint(account: Account) -> None:
    account.control("POST", "settings", {"rate_limits": {"endpoint_per_s": 5}})
    statuses = [account.raw("GET", "/v1/customers")[0] for _ in range(8)]
    assert statuses.count(429) >= 1
    assert account.raw("GET", "/v1/products")[0] == 200


def test_lags_of_created_and_date(account: Account) -> None:
    account.control("POST", "clock", {"freeze": 1_900_000_000})
    account.control("POST", "settings", {"created_lag_s": 1.5, "date_lag_s": 1.0, "lag_jitter": False})
    _, headers, _ = create(account)
    assert headers["date"].endswith("GMT")
    event = account.control("GET", "state?type=event")["data"][0]
    assert event["created"] == 1_899_999_998


def test_the_logs_name_actor_key_and_request(account: Account) -> None:
    _, headers, body = create(account, "the-key")
    account.raw("POST", f"/v1/customers/{body['id']}", "name=y", {"X-Simulator-Actor": "dashboard"})
    versions = account.control("GET", f"versions?object={body['id']}")["data"]
    assert [version["state"]["name"] for version in versions] == ["x", "y"]
    assert versions[0]["actor"]["idempotency_key"] == "the-key"
    assert versions[0]["actor"]["request"] == headers["request-id"]
    assert versions[1]["actor"]["type"] == "dashboard"
    requests = account.control("GET", "requests?method=POST")["data"]
    assert [entry["status"] for entry in requests] == [200, 200]
    assert json.dumps(requests[0]["params"]) == '{"name": "x"}'


@pytest.mark.parametrize("save", [False, True])
def test_error_is_answered_at_once_when_the_request_runs_late(account: Account, save: bool) -> None:
    """S11: a 504 from in front of Stripe, whose request executes afterwards and leaves nothing under its key."""
    account.control("POST", "faults", {**CREATE, "status": 504, "late_s": 0.4, "save": save})
    started = time.monotonic()
    status, _, body = create(account)
    assert (status, body["error"]["type"]) == (504, "api_error")
    assert time.monotonic() - started < 0.3
    assert count(account) == 0
    eventually(account, 1)
    status, headers, _ = create(account)
    assert (status, "idempotent-replayed" in headers) == (200, save)
    assert count(account) == (1 if save else 2)


def test_late_request_does_nothing_when_its_key_was_answered_before(account: Account) -> None:
    """S11: the repetition ran first, so the late request is the repetition."""
    account.control("POST", "faults", {**CREATE, "status": 504, "late_s": 0.4})
    assert create(account)[0] == 504
    assert create(account)[0] == 200
    time.sleep(0.6)
    assert count(account) == 1
    account.control("POST", "faults", {**CREATE, "status": 504, "late_s": 0.4})
    assert create(account, "first")[0] == 504
    assert create(account, "second")[0] == 200
    eventually(account, 3)


def test_delete_runs_late_behind_an_error(account: Account) -> None:
    """S11."""
    customer = create(account)[2]["id"]
    account.control(
        "POST",
        "faults",
        {"method": "DELETE", "path": "/v1/customers/{id}", "status": 504, "late_s": 0.4},
    )
    assert account.raw("DELETE", f"/v1/customers/{customer}")[0] == 504
    assert "deleted" not in account.raw("GET", f"/v1/customers/{customer}")[2]
    time.sleep(0.7)
    assert account.raw("GET", f"/v1/customers/{customer}")[2]["deleted"] is True
