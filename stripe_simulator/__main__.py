"""``python -m stripe_simulator``: the command line."""

import argparse
import gc
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from . import request_parameters
from .application import build
from .demo import seed
from .journal import Journal
from .resources.account import new_endpoint
from .server import KEY_PREFIX, Engine
from .world import Transaction, World, Worlds

PARENT_PIPE = "COSEAT_PARENT_PIPE"
SHUTDOWN_SECONDS = 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="stripe_simulator", description="A stateful stand-in for Stripe's API."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=12111, help="0 picks a free port")
    parser.add_argument(
        "--state", type=Path, default=Path(".stripe_simulator"), help="directory of the journal"
    )
    parser.add_argument("--memory", action="store_true", help="keep nothing on disk")
    parser.add_argument("--demo", action="store_true", help="fill an empty account with demonstration data")
    parser.add_argument("--webhook-url", action="append", default=[], help="repeatable, paired with a secret")
    parser.add_argument("--webhook-secret", action="append", default=[])
    parser.add_argument("--api-key", default="sk_test_demo", help="the account of --demo and --webhook-url")
    parser.add_argument("--log-level", default="warning", choices=["debug", "info", "warning", "error"])
    given = parser.parse_args()
    if len(given.webhook_url) != len(given.webhook_secret):
        parser.error("every --webhook-url needs its --webhook-secret")
    if not given.api_key.startswith(KEY_PREFIX) or given.api_key == KEY_PREFIX:
        parser.error(f"--api-key must begin with {KEY_PREFIX}")
    return given


def _watch_parent(descriptor: int) -> None:
    """Ends this process when the other end of the pipe closes, even if the parent was killed."""

    def watch() -> None:
        while True:
            try:
                if not os.read(descriptor, 1024):
                    break
            except OSError:
                break
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _register(engine: Engine, world: World, wanted: list[tuple[str, str]]) -> None:
    """Makes the account's command-line endpoints these: one whose secret stays keeps its undelivered events."""
    tx = Transaction(world, {"type": "dashboard", "request": None, "idempotency_key": None})
    known = {
        endpoint["_secret"]: endpoint
        for endpoint in world.collection("webhook_endpoint").objects.values()
        if endpoint.get("_from_command_line")
    }
    for url, secret in wanted:
        endpoint = known.pop(secret, None)
        if endpoint is None:
            endpoint = new_endpoint(tx, url, ["*"], secret)
        if endpoint["url"] != url or not endpoint.get("_from_command_line"):
            tx.store("webhook_endpoint", {**endpoint, "url": url, "_from_command_line": True})
    for endpoint in known.values():
        tx.remove("webhook_endpoint", endpoint["id"])
    engine.commit(tx)


def _warm_up() -> None:
    """Loads the SDK's parameter types beside the running server; the first write would wait for them otherwise."""
    for name in ("CustomerCreateParams", "CustomerUpdateParams", "SubscriptionUpdateParams"):
        request_parameters.check(name, {})


class Server(uvicorn.Server):
    """Announces the address once connections are accepted."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            print(f"stripe simulator listening on http://{host}:{port}", flush=True)
            threading.Thread(target=_warm_up, daemon=True, name="warm-up").start()


def main() -> int:
    given = _arguments()
    logging.basicConfig(
        level=given.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    pipe = os.environ.get(PARENT_PIPE)
    if pipe is not None:
        _watch_parent(int(pipe))
    # Many small long-lived objects: the default thresholds would scan them all again and again.
    gc.set_threshold(50_000, 50, 100)
    worlds = Worlds(Journal(None if given.memory else given.state))
    worlds.replay()
    engine = Engine(worlds)
    world = worlds.of(given.api_key)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((given.host, given.port))
    config = uvicorn.Config(
        build(engine),
        log_level=given.log_level,
        access_log=False,
        date_header=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_keep_alive=75,
        lifespan="on",
    )
    if given.webhook_url or world.collection("webhook_endpoint").objects:
        _register(engine, world, list(zip(given.webhook_url, given.webhook_secret, strict=True)))
    if given.demo:
        seed(engine, world)
    Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
