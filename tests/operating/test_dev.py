"""`coseat dev` as a whole: its environment, its people, its mailbox, and payments without Stripe.js."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from app.commands.development_endpoint import NotRegistered, register
from app.operating.dev import ENDPOINT_FILE
from examples.tour import CHECKOUT, Service, running_service
from testkit.waiting import wait_until

ORIGIN = "https://app.example.com"
SECRET = "the-secret-of-the-developers-own-application"
ENVIRONMENT = {
    "CORS_ORIGINS": ORIGIN,
    "OWNER_USES_SEAT": "true",
    "AUTH_JWT_SECRET": SECRET,
    "AUTH_ISSUER": "https://issuer.example.com",
    "STRIPE_API_KEY": "sk_test_of_somebody",
    "DATABASE_URL": "postgresql://production.example.com/production",
}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running_service(**ENVIRONMENT) as made:
        yield made


@pytest.fixture
def browser(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.api, timeout=30, trust_env=False) as made:
        yield made


def signed_in(browser: httpx.Client, email: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {browser.post('/dev/token', json={'email': email}).json()['token']}"}


def test_environment_wins_when_it_says_something(service: Service, browser: httpx.Client) -> None:
    """O8: origins, seat rules and the issuer of the shell are used; the database and Stripe's key are not."""
    answer = browser.get("/v1/products", headers={"Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    claims = jwt.decode(service.tokens["owner"], SECRET, algorithms=["HS256"], audience="coseat-development")
    assert claims["iss"] == ENVIRONMENT["AUTH_ISSUER"]
    team = browser.get(
        "/v1/shared-subscriptions/sub_demoteam",
        headers={"Authorization": f"Bearer {service.tokens['owner']}"},
    ).json()["subscription"]
    assert team["shared"]["seats"]["used"] == 3
    assert "Not used: DATABASE_URL, STRIPE_API_KEY." in service.printed


def test_tokens_are_printed_under_names_that_no_shell_has(service: Service) -> None:
    """O14: USER is the name of the person at the shell."""
    assert {"owner", "manager", "member", "stranger", "service_key"} <= set(service.tokens)
    assert "user" not in service.tokens


def test_token_is_accepted_when_a_second_terminal_asks_for_somebody_new(
    service: Service, browser: httpx.Client
) -> None:
    """O8: `coseat dev --token EMAIL`."""
    command = [
        sys.executable,
        "-m",
        "app",
        "dev",
        "--state",
        str(service.directory),
        "--token",
        "zoe@example.com",
    ]
    printed = subprocess.run(
        command, cwd=CHECKOUT, env=service.environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    same = browser.post("/dev/token", json={"email": "zoe@example.com"}).json()
    assert jwt.decode(printed, options={"verify_signature": False})["sub"] == same["subject"]
    answer = browser.post("/v1/customers", headers={"Authorization": f"Bearer {printed}"}, json={})
    assert answer.status_code == 201 and answer.json()["customer"]["email"] == "zoe@example.com"
    refused = subprocess.run([*command[:-1], "zoe"], cwd=CHECKOUT, capture_output=True, check=False)
    assert refused.returncode == 2


def test_invited_person_joins_when_they_open_the_link_of_the_mailbox(
    service: Service, browser: httpx.Client
) -> None:
    owner = {"Authorization": f"Bearer {service.tokens['owner']}"}
    made = browser.post(
        "/v1/shared-subscriptions/sub_demoteam/invitations", headers=owner, json={"email": "kim@example.com"}
    )
    assert made.status_code == 201 and made.json()["token"] is None

    def mails() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = browser.get("/dev/mailbox").json()["data"]
        return found

    wait_until(lambda: bool(mails()), within=20)
    [mail] = mails()
    assert mail["to"] == "kim@example.com" and mail["link"] == f"/#/invitations/{mail['token']}"
    accepted = browser.post(
        "/v1/invitations/accept",
        headers=signed_in(browser, "kim@example.com"),
        json={"token": mail["token"]},
    )
    assert accepted.status_code == 200, accepted.text


def test_paid_subscription_is_active_when_it_is_read_fresh_after_the_payment(browser: httpx.Client) -> None:
    """O10, O11: the payment is confirmed without Stripe.js; a fresh read shows it at once, a plain one soon."""
    lea = signed_in(browser, "lea@example.com")
    browser.post("/v1/customers", headers=lea, json={})
    card = {"payment_method_id": "pm_card_threeDSecure2Required", "use_as_default": True}
    browser.post("/v1/customers/me/payment-methods", headers=lea, json=card)
    prices = browser.get("/v1/products", params={"ids": "prod_demoteam"}).json()["data"][0]["prices"]
    bought = browser.post(
        "/v1/customers/me/subscriptions",
        headers=lea,
        json={"items": [{"price_id": prices[0]["id"], "quantity": 2}]},
    ).json()
    secret = bought["payment"]["client_secret"]
    declined = browser.post(
        "/dev/payment", json={"client_secret": secret, "payment_method": "pm_card_chargeCustomerFail"}
    )
    assert (declined.status_code, declined.json()["decline_code"]) == (402, "generic_decline")
    paid = browser.post("/dev/payment", json={"client_secret": secret})
    assert (paid.status_code, paid.json()["status"]) == (200, "succeeded")
    path = f"/v1/subscriptions/{bought['results'][0]['subscription_id']}"
    assert browser.get(f"{path}?fresh=true", headers=lea).json()["subscription"]["status"] == "active"
    wait_until(lambda: browser.get(path, headers=lea).json()["subscription"]["status"] == "active", within=20)


def test_clock_of_the_stand_in_moves_when_the_panel_asks(browser: httpx.Client) -> None:
    """O10: time travel is a route of the panel."""
    before = browser.get("/dev/clock").json()["now"]
    after = browser.post("/dev/clock", json={"advance": 86_400}).json()["now"]
    assert 86_400 <= after - before < 86_400 + 600
    assert browser.post("/dev/clock", json={"advance": 0}).status_code == 422


def test_endpoint_is_used_again_unless_its_secret_is_lost(service: Service, browser: httpx.Client) -> None:
    state, key = service.directory / "dev", service.tokens["service_key"]

    def kept() -> dict[str, str]:
        found: dict[str, str] = json.loads((state / ENDPOINT_FILE).read_text())
        return found

    def registered() -> list[str]:
        answer = browser.get("/v1/webhook-endpoints", headers={"Authorization": f"Bearer {key}"})
        return [one["id"] for one in answer.json()["data"]]

    first = kept()
    register(service.api, key, state)
    assert kept() == first and registered() == [first["id"]]
    lost = "whsec_" + base64.b64encode(b"another secret than the one").decode()
    (state / ENDPOINT_FILE).write_text(json.dumps({**first, "secret": lost}))
    register(service.api, key, state)
    assert registered() == [kept()["id"]] != [first["id"]]
    with pytest.raises(NotRegistered, match="credential"):
        register(service.api, "csk_of_nobody", state)


def test_dev_starts_nothing_when_the_environment_is_wrong(tmp_path: Path) -> None:
    """O8: each wrong variable of the shell is named, a misspelt one too."""
    wrong = {"LOG_LEVEL": "loud", "CORS_ORIGIN": "https://app.example.com", "PORT": "eighty"}
    command = [sys.executable, "-m", "app", "dev", "--state", str(tmp_path)]
    done = subprocess.run(
        command, cwd=CHECKOUT, env={**os.environ, **wrong}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert all(name in done.stderr for name in wrong) and "CORS_ORIGINS?" in done.stderr
    assert not (tmp_path / "dev" / "postgres").exists()
