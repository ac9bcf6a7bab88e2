"""A simulator process, an account of it, and a webhook receiver, as the tests of this folder use them."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stripe

ROOT = Path(__file__).resolve().parents[2]
WEBHOOK_SECRET = "whsec_test_simulator"
DAY = 86_400
START = 1_800_000_000
"""15 January 2027, 08:00 UTC: the moment at which `frozen` accounts stand."""
CARD_FAILS_LATER = "pm_card_chargeCustomerFail"


def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A simulator process and its address."""
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "stripe_simulator", "--port", "0", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COSEAT_PARENT_PIPE": str(read_end)},
        pass_fds=(read_end,),
    )
    os.close(read_end)
    process.parent_pipe = write_end  # type: ignore[attr-defined]
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "listening on" in line, line
    return process, line.strip().rpartition(" ")[2]


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(timeout=5)
    assert process.stdout is not None
    process.stdout.close()
    with contextlib.suppress(OSError):
        os.close(process.parent_pipe)  # type: ignore[attr-defined]


@dataclass
class Account:
    """A Stripe account of the simulator: the SDK's client and the control API."""

    url: str
    key: str
    client: stripe.StripeClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = stripe.StripeClient(
            self.key, base_addresses={"api": self.url}, http_client=stripe.RequestsClient(timeout=10)
        )

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/_simulator/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def raw(
        self, method: str, path: str, body: str = "", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Status, lower-cased headers and parsed body of a plain HTTP request."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=body.encode() if body else None,
            headers={"Authorization": f"Bearer {self.key}", **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return _parsed(response)
        except urllib.error.HTTPError as failure:
            return _parsed(failure)


def _parsed(response: Any) -> tuple[int, dict[str, str], Any]:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return response.status, headers, json.loads(response.read())


@dataclass
class Receiver:
    """A webhook receiver that keeps bodies and signatures; ``failures`` answers so many with 500 first."""

    url: str = ""
    received: list[tuple[bytes, str]] = field(default_factory=list)
    failures: int = 0

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body, _ in self.received]

    def wait(self, count: int, seconds: float = 5.0) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while len(self.received) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(self.received) >= count, [event["type"] for event in self.events()]
        return self.events()


@dataclass
class Catalogue:
    """A sellable plan and a customer with a card, the starting point of most tests."""

    product: str
    monthly: str
    yearly: str
    customer: str
    method: str


def items_of(sub: Any) -> list[dict[str, Any]]:
    return list(sub.to_dict()["items"]["data"])


def subscribe(account: Account, catalogue: Catalogue, quantity: int = 2, **given: Any) -> Any:
    """A subscription to the monthly price of 10.00 unless ``given`` says otherwise."""
    params: Any = {
        "customer": catalogue.customer,
        "items": [{"price": catalogue.monthly, "quantity": quantity}],
        **given,
    }
    return account.client.v1.subscriptions.create(params)


def use_card(account: Account, catalogue: Catalogue, token: str) -> None:
    client = account.client.v1
    method = client.payment_methods.attach(token, {"customer": catalogue.customer}).id
    client.customers.update(catalogue.customer, {"invoice_settings": {"default_payment_method": method}})


def advance(account: Account, seconds: float) -> None:
    account.control("POST", "clock", {"advance": seconds})
