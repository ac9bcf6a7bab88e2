"""One simulator process for all tests of this folder; each test has an account of its own."""

import http.server
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stripe_simulator.simulator_support import START, Account, Catalogue, Receiver, start, stop


@pytest.fixture(scope="session")
def simulator() -> Iterator[str]:
    process, url = start("--memory")
    yield url
    stop(process)


@pytest.fixture
def account(simulator: str) -> Account:
    return Account(simulator, f"sk_test_{uuid.uuid4().hex}")


@pytest.fixture
def frozen(account: Account) -> Account:
    account.control("POST", "clock", {"freeze": START})
    return account


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            failing = state.failures > 0
            if failing:
                state.failures -= 1
            else:
                state.received.append((body, self.headers["Stripe-Signature"]))
            self.send_response(500 if failing else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def catalogue(account: Account) -> Catalogue:
    client = account.client.v1
    product = client.products.create({"name": "Team plan"}).id
    monthly = client.prices.create(
        {"product": product, "currency": "usd", "unit_amount": 1000, "recurring": {"interval": "month"}}
    ).id
    yearly = client.prices.create(
        {"product": product, "currency": "usd", "unit_amount": 10000, "recurring": {"interval": "year"}}
    ).id
    customer = client.customers.create({"email": "payer@example.com"}).id
    method = client.payment_methods.attach("pm_card_visa", {"customer": customer}).id
    client.customers.update(customer, {"invoice_settings": {"default_payment_method": method}})
    return Catalogue(product, monthly, yearly, customer, method)
