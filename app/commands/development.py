"""Run the service and all that it needs on one machine (`coseat dev`).

All parts are processes that end together.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import shutil
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import typer

from app.commands.child_processes import ChildProcesses
from app.commands.development_announcement import announcement
from app.commands.development_endpoint import NotRegistered, register
from app.commands.development_environment import (
    OWN_PARTS,
    STRIPE_KEY,
    DevelopmentSecrets,
    configured,
    kept_secrets,
    token_settings,
)
from app.commands.local_postgres import LocalPostgres, state_directory
from app.commands.postgres_programs import LocalPostgresError
from app.errors import SchemaRefused
from app.operating.dev import ENDPOINT_FILE, RECEIVED_FILE
from app.operating.dev.people import sign_in
from app.settings import Settings, SettingsError, given_settings, inherited_environment, load_settings

CHECKOUT = Path(__file__).resolve().parents[2]
PORTAL = CHECKOUT / "portal" / "dist"
"""Where the portal is built. It is not committed."""
START_SECONDS = 120.0
SECRETS = "secrets.json"
STRIPE_PORT = 12_111
MISCONFIGURED = 2


class StartFailed(Exception):
    """Raised if a part does not start. The message is for the person at the terminal."""


def run_everything(*, port: int | None, stripe_port: int | None, reset: bool, state: Path | None) -> int:
    """Run until interrupted, and return the exit code.

    The state is kept for the next start, unless `reset`. Without `port` the API listens where PORT says, or on 8000.
    """
    directory = state_directory(CHECKOUT, state) / "dev"
    directory.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    given = given_settings()
    try:
        own_port = _own_settings().port
        with _only_one(directory):
            if reset:
                _delete_state(directory)
            wanted = own_port if port is None else port
            stripe_at = _stripe_port(stripe_port, api_is_anywhere=wanted == 0)
            return _run(directory, given, _port(wanted, "--port"), stripe_at, stop)
    except SettingsError as error:
        typer.echo(f"coseat dev: {error}", err=True)
        return MISCONFIGURED
    except (StartFailed, LocalPostgresError, SchemaRefused) as error:
        typer.echo(f"coseat dev: {error}", err=True)
        return 1


def print_token(email: str, state: Path | None) -> int:
    """Print a token for the person with this address, who may be new, and return the exit code."""
    path = state_directory(CHECKOUT, state) / "dev" / SECRETS
    if not path.exists():
        typer.echo("coseat dev: there is no state yet. Start `coseat dev` first.", err=True)
        return 1
    try:
        _own_settings()
        settings = load_settings(token_settings(kept_secrets(path), given_settings()), process="token")
        typer.echo(sign_in(settings, email).token)
    except SettingsError as error:
        typer.echo(f"coseat dev: {error}", err=True)
        return MISCONFIGURED
    return 0


def _own_settings() -> Settings:
    """Return the settings of the environment, in which a misspelt variable is noticed as beside no defaults.

    Raises:
        SettingsError: Also for a live key. The secret beside it signs tokens that production accepts.
    """
    found = load_settings(process="dev")
    if found.stripe_livemode:
        raise SettingsError(
            {"STRIPE_API_KEY": "is a live key, beside which no tokens of a demonstration are signed"}
        )
    return found


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
    for name in ("stripe", SECRETS, ENDPOINT_FILE, RECEIVED_FILE):
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _run(
    directory: Path, given: Mapping[str, str], port: int, stripe_port: int, stop: threading.Event
) -> int:
    started = time.monotonic()
    own = kept_secrets(directory / SECRETS)
    api, stripe = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{stripe_port}"
    postgres = LocalPostgres(directory / "postgres")
    inherited = inherited_environment()
    variables = configured(own, given, database=postgres.url("coseat"), stripe=stripe, port=port)
    settings = load_settings({**inherited, **variables}, process="serve")
    try:
        with ChildProcesses() as children:
            # The stand-in creates its demo account at the first start, and reads it from its journal later.
            command = [sys.executable, "-m", "stripe_simulator", "--port", str(stripe_port), "--demo"]
            command += ["--state", str(directory / "stripe"), "--api-key", STRIPE_KEY]
            command += ["--webhook-url", f"{api}/webhooks/stripe", "--webhook-secret", own.webhook_secret]
            children.spawn("stripe", command, environment=inherited, on_line=_prefixed("stripe"))
            postgres.start()
            postgres.ensure_database("coseat")
            if not asyncio.run(_is_prepared(settings)):
                _wait_for(f"{stripe}/_simulator/health", children, stop)
                _prepare(settings)
            modules = {
                "serve": ["app.commands.development_server", str(directory), str(PORTAL)],
                "worker": ["app", "worker"],
            }
            for name, module in modules.items():
                children.spawn(
                    name,
                    [sys.executable, "-m", *module],
                    environment={**inherited, **variables},
                    on_line=_prefixed(name),
                )
            _wait_for(f"{api}/readyz", children, stop)
            if not stop.is_set():
                _register(api, own, directory)
                typer.echo(f"Coseat is ready ({time.monotonic() - started:.1f} s).")
                _announce(api, settings, own, given)
            return _watch(children, stop)
    finally:
        postgres.stop()


def _announce(api: str, settings: Settings, own: DevelopmentSecrets, given: Mapping[str, str]) -> None:
    lines = announcement(
        api,
        settings,
        own,
        portal_is_built=(PORTAL / "index.html").exists(),
        ignored=[name for name in OWN_PARTS if name in given],
    )
    typer.echo("\n".join(lines))
    sys.stdout.flush()


def _register(api: str, own: DevelopmentSecrets, directory: Path) -> None:
    """Let events arrive at this process. Without them all goes on, so a failure is a warning."""
    try:
        register(api, own.service_key, directory)
    except NotRegistered as error:
        typer.echo(f"coseat dev: no events and no mails will arrive here: {error}", err=True)


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


def _stripe_port(wanted: int | None, *, api_is_anywhere: bool) -> int:
    """Return the port of the stand-in: always the same unless it is taken, or the API takes any port itself."""
    if wanted is not None:
        return _port(wanted, "--stripe-port")
    if api_is_anywhere:
        return _port(0, "--stripe-port")
    try:
        return _port(STRIPE_PORT, "--stripe-port")
    except StartFailed:
        typer.echo(f"coseat dev: port {STRIPE_PORT} is taken, so the stand-in takes another one.", err=True)
        return _port(0, "--stripe-port")


def _port(wanted: int, option: str) -> int:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", wanted))
        except OSError:
            raise StartFailed(f"port {wanted} is taken: name another with {option}, or 0 for any") from None
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
