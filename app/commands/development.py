"""Run the service and all that it needs on one machine (`coseat dev`).

All parts are processes that end together.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import typer
from cryptography.fernet import Fernet

from app.commands.child_processes import ChildProcesses
from app.commands.local_postgres import LocalPostgres, state_directory
from app.commands.postgres_programs import LocalPostgresError
from app.errors import SchemaRefused
from app.identity.development_tokens import sign_development_token
from app.identity.service_keys import generate_service_key
from app.settings import Settings, inherited_environment, load_settings

CHECKOUT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
STRIPE_KEY = "sk_test_demo"
PEOPLE = {
    "owner": ("demo-owner", "owner@example.com"),
    "manager": ("demo-manager", "manager@example.com"),
    "user": ("demo-user", "user@example.com"),
    "stranger": ("demo-stranger", "stranger@example.com"),
}


@dataclass(frozen=True, slots=True)
class DevelopmentSecrets:
    """Secrets that are made at the first start and kept with the state.

    So tokens are valid after a restart.
    """

    jwt_secret: str
    webhook_secret: str
    service_key: str
    invitation_secret: str
    encryption_key: str


class StartFailed(Exception):
    """Raised if a part does not start. The message is for the person at the terminal."""


def run_everything(*, port: int, reset: bool, state: Path | None) -> int:
    """Run until interrupted, and return the exit code.

    The state is kept for the next start, unless `reset`.
    """
    directory = state_directory(CHECKOUT, state) / "dev"
    directory.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with _only_one(directory):
            if reset:
                _delete_state(directory)
            return _run(directory, port, stop)
    except (StartFailed, LocalPostgresError, SchemaRefused) as error:
        typer.echo(f"coseat dev: {error}", err=True)
        return 1


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Hold a file lock, which the kernel releases when the process ends in any way."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartFailed(f"another `coseat dev` uses {directory}") from None
        yield


def _delete_state(directory: Path) -> None:
    LocalPostgres(directory / "postgres").remove()
    for name in ("stripe", "secrets.json"):
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _run(directory: Path, port: int, stop: threading.Event) -> int:
    started = time.monotonic()
    own = _secrets(directory / "secrets.json")
    port, stripe_port = _port(port), _port(0)
    api, stripe = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{stripe_port}"
    postgres = LocalPostgres(directory / "postgres")
    try:
        with ChildProcesses() as children:
            # The stand-in creates its demo account at the first start, and reads it from its journal later.
            command = [sys.executable, "-m", "stripe_simulator", "--port", str(stripe_port), "--demo"]
            command += ["--state", str(directory / "stripe"), "--api-key", STRIPE_KEY]
            command += ["--webhook-url", f"{api}/webhooks/stripe", "--webhook-secret", own.webhook_secret]
            inherited = inherited_environment()
            children.spawn("stripe", command, environment=inherited, on_line=_prefixed("stripe"))
            postgres.start()
            postgres.ensure_database("coseat")
            configured = _environment(own, postgres.url("coseat"), stripe, port)
            settings = load_settings(configured, process="serve")
            if not asyncio.run(_is_prepared(settings)):
                _wait_for(f"{stripe}/_simulator/health", children, stop)
                _prepare(settings)
            modules = {"serve": ["app.commands.development_server"], "worker": ["app", "worker"]}
            for name, module in modules.items():
                children.spawn(
                    name,
                    [sys.executable, "-m", *module],
                    environment={**inherited, **configured},
                    on_line=_prefixed(name),
                )
            _wait_for(f"{api}/readyz", children, stop)
            if not stop.is_set():
                _announce(api, settings, own, time.monotonic() - started)
            return _watch(children, stop)
    finally:
        postgres.stop()


async def _is_prepared(settings: Settings) -> bool:
    """Return True if the schema and the first fill are done.

    A restart then need not load their modules.
    """
    from app.mirror.store import fills
    from app.postgres import schema
    from app.postgres.database import Database

    database = await Database.of(settings, pool_size=1)
    try:
        async with database.connection() as connection:
            return await schema.fits(connection) and await fills.is_filled(connection)
    finally:
        await database.close()


def _prepare(settings: Settings) -> None:
    from app.commands.filling import fill_cache
    from app.commands.migrations import upgrade

    upgrade(settings)
    asyncio.run(fill_cache(settings, quiet=True))


def _secrets(path: Path) -> DevelopmentSecrets:
    """Return the secrets of the state. Those that an older release did not know are made now."""
    made = {
        "jwt_secret": secrets.token_urlsafe(48),
        "webhook_secret": f"whsec_{secrets.token_urlsafe(24)}",
        "service_key": generate_service_key()[0],
        "invitation_secret": secrets.token_urlsafe(48),
        "encryption_key": Fernet.generate_key().decode(),
    }
    kept = json.loads(path.read_text()) if path.exists() else {}
    if kept.keys() != made.keys():
        path.touch(mode=0o600)
        path.write_text(json.dumps({**made, **kept}))
    return DevelopmentSecrets(**{**made, **kept})


def _environment(own: DevelopmentSecrets, database: str, stripe: str, port: int) -> Mapping[str, str]:
    digest = hashlib.sha256(own.service_key.encode()).hexdigest()
    keys = [{"name": "development", "sha256": digest, "scopes": ["read", "write", "admin"]}]
    return {
        "DATABASE_URL": database,
        "STRIPE_API_KEY": STRIPE_KEY,
        "STRIPE_API_BASE": stripe,
        "STRIPE_WEBHOOK_SECRETS": own.webhook_secret,
        "AUTH_JWT_SECRET": own.jwt_secret,
        "AUTH_ISSUER": "https://auth.coseat.localhost",
        "AUTH_AUDIENCE": "coseat-development",
        "SERVICE_KEYS": json.dumps(keys),
        "INVITATION_SECRETS": own.invitation_secret,
        "WEBHOOK_ENCRYPTION_KEYS": own.encryption_key,
        "CORS_ORIGINS": "http://localhost:3000,http://localhost:5173",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DRAIN_SECONDS": "0",
        "LOG_LEVEL": "warning",
    }


def _port(wanted: int) -> int:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", wanted))
        except OSError:
            raise StartFailed(f"port {wanted} is taken: name another with --port, or 0 for any") from None
        return int(listener.getsockname()[1])


def _wait_for(url: str, children: ChildProcesses, stop: threading.Event) -> None:
    give_up = time.monotonic() + START_SECONDS
    while not stop.is_set():
        try:
            with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - the URL is our own
                if response.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > give_up:
                raise StartFailed(f"{url} does not answer after {START_SECONDS:.0f} s") from None
        if ended := children.exited():
            raise StartFailed(f"ended while starting: {ended}")
        stop.wait(0.05)


def _watch(children: ChildProcesses, stop: threading.Event) -> int:
    while not stop.wait(0.2):
        if ended := children.exited():
            typer.echo(f"coseat dev: ended unexpectedly: {ended}; stopping the rest", err=True)
            return 1
    typer.echo("Stopping.")
    return 0


def _prefixed(name: str) -> Callable[[str], None]:
    return lambda line: print(f"{name:>6} | {line.rstrip()}", file=sys.stderr)


def _announce(api: str, settings: Settings, own: DevelopmentSecrets, seconds: float) -> None:
    tokens = {
        person: sign_development_token(settings, subject=subject, email=email, lifetime=12 * 3600)
        for person, (subject, email) in PEOPLE.items()
    }
    lines = [
        f"Coseat is ready ({seconds:.1f} s).",
        "",
        f"  API          {api}/v1",
        f"  docs         {api}/docs",
        f"  Stripe       {settings.stripe_api_base} (stand-in, key {STRIPE_KEY})",
        "",
        "Tokens, good for 12 hours:",
        *(f"  {person.upper()}={value}" for person, value in tokens.items()),
        f"  SERVICE_KEY={own.service_key}",
        "",
        "A first request:",
        f"  curl -s {api}/v1/shared-subscriptions/sub_demoteam/users \\",
        f"    -H 'Authorization: Bearer {tokens['owner']}'",
        "",
        "Every change of seats and access is an event. The newest ones, or all as they come:",
        f"  curl -s '{api}/v1/events?limit=100' -H 'Authorization: Bearer {own.service_key}'",
        f"  curl -sN {api}/v1/shared-subscriptions/sub_demoteam/events -H 'Authorization: Bearer {own.service_key}'",
        "",
        "Ctrl-C stops everything.",
    ]
    typer.echo("\n".join(lines))
    sys.stdout.flush()
