"""``python -m stripe_simulator``: the command line."""

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from .application import build
from .demo import seed
from .journal import Journal
from .resources.account import new_endpoint
from .server import KEY_PREFIX, Engine
from .world import Transaction, World, Worlds

PARENT_PIPE = "COSEAT_PARENT_PIPE"
SHUTDOWN_SECONDS = 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="stripe_simulator", description="A stateful stand-in for Stripe's API.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=12111, help="0 picks a free port")
    parser.add_argument("--state", type=Path, default=Path(".stripe_simulator"), help="directory of the journal")
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


def _register(engine: Engine, world: World, url: str, secret: str) -> None:
    """Makes sure that an endpoint with this address and secret exists."""
    for endpoint in world.collection("webhook_endpoint").objects.values():
        if endpoint["url"] == url and endpoint["_secret"] == secret:
            return
    tx = Transaction(world, {"type": "dashboard", "request": None, "idempotency_key": None})
    new_endpoint(tx, url, ["*"], secret)
    engine.commit(tx)


class Server(uvicorn.Server):
    """Announces the address once connections are accepted."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            print(f"stripe simulator listening on http://{host}:{port}", flush=True)


def main() -> int:
    given = _arguments()
    logging.basicConfig(level=given.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    pipe = os.environ.get(PARENT_PIPE)
    if pipe is not None:
        _watch_parent(int(pipe))
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
    for url, secret in zip(given.webhook_url, given.webhook_secret, strict=True):
        _register(engine, world, url, secret)
    if given.demo:
        seed(engine, world)
    Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
