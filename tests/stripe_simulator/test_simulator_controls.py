"""The controls as pages of a developer's machine use them."""

import pytest

from tests.stripe_simulator.simulator_support import Account


@pytest.mark.parametrize("origin", ["http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:8080"])
def test_controls_answer_a_page_when_it_is_of_this_machine(account: Account, origin: str) -> None:
    """O10: an application in development confirms a payment and moves the clock from its page."""
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    for path in ("confirm", "clock"):
        status, headers, _ = account.raw("OPTIONS", f"/_simulator/{path}", headers=asked)
        assert status == 200 and headers["access-control-allow-origin"] == origin
        assert "authorization" in headers["access-control-allow-headers"]
    status, headers, _ = account.raw("POST", "/_simulator/clock", '{"advance": 5}', {"Origin": origin})
    assert status == 200 and headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    "origin", ["https://attacker.example", "http://localhost.attacker.example:80", "null"]
)
def test_controls_allow_no_page_when_it_is_of_another_machine(account: Account, origin: str) -> None:
    for method in ("OPTIONS", "GET"):
        _, headers, _ = account.raw(method, "/_simulator/clock", headers={"Origin": origin})
        assert "access-control-allow-origin" not in headers
