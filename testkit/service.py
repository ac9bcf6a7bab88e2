"""The service under test: its environment, credentials and processes, or its application in this process."""

import base64
import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
from starlette.applications import Starlette

from testkit.pooler import through
from testkit.ports import free_port
from testkit.processes import RunningProcess, running

JWT_SECRET = "only-for-tests-and-long-enough-for-hs256"
ISSUER = "https://issuer.example"
AUDIENCE = "coseat-tests"
WEBHOOK_SECRET = "whsec_only_for_tests"
INVITATION_SECRET = "invitations-only-for-tests-32-characters"
ENCRYPTION_KEY = base64.urlsafe_b64encode(b"only for tests".ljust(32, b".")).decode()
SERVICE_KEYS = {scope: f"csk_{scope}_only_for_tests" for scope in ("read", "write", "admin")}
SCOPES = {"read": ["read"], "write": ["read", "write"], "admin": ["read", "write", "admin"]}

# Races and loads are driven by few callers; the limits have tests of their own.
UNLIMITED = {
    **dict.fromkeys(
        (
            "READ_RATE_LIMIT",
            "WRITE_RATE_LIMIT",
            "SERVICE_READ_RATE_LIMIT",
            "SERVICE_WRITE_RATE_LIMIT",
            "ANONYMOUS_RATE_LIMIT",
        ),
        "1000000",
    ),
    **dict.fromkeys(("USER_IN_FLIGHT", "SERVICE_KEY_IN_FLIGHT"), "10000"),
}


def service_environment(
    *, database_url: str, stripe_base: str, stripe_key: str, **overrides: str
) -> dict[str, str]:
    """The service's variables (docs/reference/settings.md) for one database and one simulated account."""
    keys = [
        {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": SCOPES[name]}
        for name, key in SERVICE_KEYS.items()
    ]
    return {
        **_database(database_url),
        "STRIPE_API_KEY": stripe_key,
        "STRIPE_API_BASE": stripe_base,
        "STRIPE_WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "STRIPE_RATE_LIMIT": "1000",
        "AUTH_JWT_SECRET": JWT_SECRET,
        "AUTH_ISSUER": ISSUER,
        "AUTH_AUDIENCE": AUDIENCE,
        "SERVICE_KEYS": json.dumps(keys),
        "INVITATION_SECRETS": INVITATION_SECRET,
        "WEBHOOK_ENCRYPTION_KEYS": ENCRYPTION_KEY,
        **UNLIMITED,
        "HOST": "127.0.0.1",
        "LOG_LEVEL": "warning",
        # No balancer has to learn that a process ends.
        "DRAIN_SECONDS": "0",
        **overrides,
    }


def _database(url: str) -> dict[str, str]:
    """The variables of a database. With TEST_POOLER, one of the tests' own server is reached by way of the pooler."""
    pooler = os.environ.get("TEST_POOLER")
    if pooler is None or "host" not in parse_qs(urlsplit(url).query):
        return {"DATABASE_URL": url}
    return {"DATABASE_URL": through(pooler, url), "DATABASE_POOLER": "transaction"}


def user_token(subject: str | None = None, **claims: Any) -> str:
    """An end user's token, for an hour unless `exp` says otherwise."""
    now = int(time.time())
    standard = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject or secrets.token_hex(8),
        "iat": now,
        "exp": now + 3600,
    }
    return jwt.encode({**standard, **claims}, JWT_SECRET, algorithm="HS256")


def as_user(subject: str | None = None, **claims: Any) -> dict[str, str]:
    """Headers of an end user; `stripe_customer_id` among the claims names the customer."""
    return {"Authorization": f"Bearer {user_token(subject, **claims)}"}


def as_service(
    scope: Literal["read", "write", "admin"] = "write", *, acting_for: str | None = None
) -> dict[str, str]:
    """Headers of a service key, clamped to the customer `acting_for` if one is named."""
    headers = {"Authorization": f"Bearer {SERVICE_KEYS[scope]}"}
    return headers if acting_for is None else {**headers, "X-Acting-Customer": acting_for}


@contextmanager
def api_process(
    environment: Mapping[str, str], *, port: int | None = None
) -> Iterator[tuple[str, RunningProcess]]:
    """The base URL and the process of `python -m app serve`, which answers /healthz.

    Without the documentation, unless `environment` asks for it: the document takes 0.6 s of each start.
    """
    listening = port if port is not None else free_port()
    complete = {**inherited(), "DOCS": "false", **environment, "PORT": str(listening)}
    with running("api", [sys.executable, "-m", "app", "serve"], complete) as process:
        base_url = f"http://127.0.0.1:{listening}"
        process.wait_for_answer(f"{base_url}/healthz")
        yield base_url, process


@contextmanager
def worker_process(environment: Mapping[str, str]) -> Iterator[RunningProcess]:
    """A running `python -m app worker`."""
    with running(
        "worker", [sys.executable, "-m", "app", "worker"], {**inherited(), **environment}
    ) as process:
        yield process


@asynccontextmanager
async def in_process(app: Starlette, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `app` in this process, with its lifespan around it."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://testserver", headers=headers) as client,
    ):
        yield client


def inherited() -> dict[str, str]:
    """Return what a process needs of this one's environment: the developer's own configuration must not leak in."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
