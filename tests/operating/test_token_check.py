"""`coseat token --check` as an operator runs it: exit codes, reasons, what to set, and no secret."""

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from app.commands.cli import cli
from testkit.issuing import AUDIENCE, ISSUER, SECRET, handmade, well_formed

HEADER = {"alg": "HS256", "typ": "JWT"}
KEY = "csk_" + "k" * 43
ENVIRONMENT = {
    "AUTH_JWT_SECRET": SECRET,
    "AUTH_ISSUER": ISSUER,
    "AUTH_AUDIENCE": AUDIENCE,
    "SERVICE_KEYS": json.dumps(
        [{"name": "shop", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "scopes": ["read"]}]
    ),
}
NOW = int(time.time())


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the variables, and undo afterwards what the command does to the logs of its process."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    root, hook = logging.getLogger(), sys.excepthook
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers, root.level, sys.excepthook = handlers, level, hook
    structlog.configure(**configured)


def check(*arguments: str, stdin: str | None = None) -> tuple[int, str]:
    """Return exit code and output of the command. It never shows a secret, and never fails unexpectedly."""
    result = CliRunner().invoke(cli, ["token", "--check", *arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    credential = next((word for word in arguments if not word.startswith("--")), stdin or "").strip()
    assert SECRET not in result.output
    for part in credential.removeprefix("Bearer ").split("."):
        assert len(part) < 12 or part not in result.output
    return result.exit_code, result.output


def report(token: str) -> tuple[int, Any]:
    code, out = check(token, "--json")
    assert out.count("\n") == 1
    return code, json.loads(out)


def token(**claims: Any) -> str:
    return handmade(HEADER, well_formed(**claims))


def test_check_ends_with_0_when_the_token_is_accepted() -> None:
    """P2: from the argument, with or without the scheme, and from standard input."""
    good = token(email="ann@acme.example", email_verified=True, stripe_customer_id="cus_1")
    for arguments, stdin in (
        ([good], None),
        ([f"Bearer {good}"], None),
        ([], good + "\n"),
        (["-"], f" {good} "),
    ):
        code, out = check(*arguments, stdin=stdin)
        assert code == 0, out
        assert '"ann@acme.example"' in out and "email_verified: true" in out and "accepted" in out
    code, found = report(good)
    assert (code, found["accepted"], found["reason"]) == (0, True, None)
    assert (found["shown"]["sub"], found["shown"]["customer"]) == ("user-1", "cus_1")


REFUSED: dict[str, tuple[str, str]] = {
    "malformed": ("not.a.token", "signed JWT"),
    "algorithm": (handmade({"alg": "RS256"}, well_formed()), "AUTH_JWKS_URL"),
    "signature": (handmade(HEADER, well_formed(), secret=SECRET + "x"), "AUTH_JWT_SECRET"),
    "expired": (token(exp=NOW - 60), "clocks"),
    "not_yet_valid": (token(nbf=NOW + 86_400), "clocks"),
    "issuer": (token(iss="https://issuer.example"), f'AUTH_ISSUER is "{ISSUER}"'),
    "audience": (token(aud="other", azp="https://app.example"), 'azp` is "https://app.example"'),
    "claim_missing": (token(aud=None, client_id="4abc"), 'client_id` is "4abc"'),
    "unknown_service_key": ("csk_unknown", "SERVICE_KEYS"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_check_says_why_and_what_to_set_when_the_token_is_refused(reason: str) -> None:
    """P2: exit code 1, the reason, and the setting."""
    credential, advice = REFUSED[reason]
    code, out = check(credential)
    assert (code, f"Refused: {reason}" in out, advice in out) == (1, True, True), out
    code, found = report(credential)
    assert (code, found["accepted"], found["reason"]) == (1, False, reason)
    assert advice in found["advice"]


def test_service_key_is_named_when_it_is_known() -> None:
    """P2: a service key is explained by its name and scopes."""
    code, out = check(KEY)
    assert code == 0 and '"shop"' in out and KEY not in out


ODD = [
    "",
    " ",
    "-----BEGIN PUBLIC KEY-----",
    "\x1b[31mred",
    "é" * 50,
    "\ud800",
    "a" * 100_000,
    token(aud=["x", None]),
    token(aud={"a": 1}),
    token(aud=["x" * 2000]),
    token(aud="\x1b]0;title\x07"),
    token(iss="\x00"),
    token(sub=[]),
    token(exp=10**300),
    token(exp={}),
    handmade(HEADER, b"[]"),
    handmade({"alg": "\x1b[2J", "kid": "\x1b[2J"}, well_formed()),
    handmade({"alg": None}, well_formed()),
]


@pytest.mark.parametrize("credential", ODD, ids=range(len(ODD)))
def test_odd_credential_is_refused_without_a_traceback(credential: str) -> None:
    """P2: whatever is pasted is explained, and writes no control character to the terminal."""
    stdin = credential.encode("utf-8", "surrogatepass").decode("latin-1")
    code, out = check(stdin=stdin)
    assert code in (0, 1) and "\x1b" not in out and "\x07" not in out and "\x00" not in out
    assert (code == 0) is (credential == ODD[13])


def test_check_names_what_is_missing_when_sign_in_is_not_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: exit code 2 for the environment; a missing subject is an error of the arguments."""
    monkeypatch.delenv("AUTH_AUDIENCE")
    code, out = check("a.b.c")
    assert code == 2 and "AUTH_AUDIENCE: is required by `token --check`" in out
    assert CliRunner().invoke(cli, ["token"]).exit_code == 2


def test_key_set_that_cannot_be_read_is_a_reason_of_its_own() -> None:
    """P2: a wrong AUTH_JWKS_URL is named, with exit code 1; the log stays on standard error."""
    variables = {**os.environ, "AUTH_JWKS_URL": "http://127.0.0.1:9/keys", "AUTH_JWT_SECRET": ""}
    command = [sys.executable, "-m", "app", "token", "--check", "--json"]
    credential = handmade({"alg": "RS256", "kid": "a"}, well_formed())
    done = subprocess.run(
        command, input=credential, env=variables, capture_output=True, text=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert (done.returncode, found["reason"]) == (1, "identity_provider_unavailable")
    assert "AUTH_JWKS_URL" in found["advice"] and "jwks_fetch_failed" in done.stderr


def test_development_token_is_signed_as_before() -> None:
    """P2: what `coseat token SUBJECT` prints is what `--check` accepts."""
    signed = CliRunner().invoke(cli, ["token", "ann", "--email", "ann@acme.example"])
    assert signed.exit_code == 0
    code, found = report(signed.output.strip())
    assert (code, found["shown"]["sub"], found["shown"]["email_verified"]) == (0, "ann", True)
