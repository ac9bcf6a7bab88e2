"""The official Stripe CLI against the Stripe stand-in, and what it does seen through Coseat.

It starts a service of its own with `coseat dev`, as the tour does, and sends it nothing but reads: whatever changes is
changed by the CLI at the stand-in and must reach the cache by signed webhooks.

    make stripe-cli
    python examples/stripe_cli.py --cli /usr/local/bin/stripe

Without --cli it takes the binary that `npm install @stripe/cli` has put below .stripe-cli. The exit code is 0 when
everything arrived, 1 when something did not, 2 when the CLI or the service is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from tour import CHECKOUT, NotStarted, Service, running_service

FIXTURES = CHECKOUT / "examples" / "stripe-fixtures.json"
CALL_SECONDS = 60.0
ARRIVAL_SECONDS = 15.0
POLL_SECONDS = 0.05

# The CLI would ask the network for a newer version of itself: calls by TLS end at a port where nobody listens.
OFFLINE = {"HTTPS_PROXY": "http://127.0.0.1:9", "STRIPE_CLI_TELEMETRY_OPTOUT": "1"}


class Missed(AssertionError):
    """The CLI failed, or what it did has not arrived."""


@dataclass(frozen=True, slots=True)
class StripeCli:
    """The CLI with the stand-in's address and key, and a home of its own: no configuration of the user's is read."""

    binary: Path
    service: Service
    home: Path

    def run(self, *arguments: str) -> str:
        """Its output. Raises Missed."""
        target = ["--api-base", self.service.stripe, "--api-key", self.service.stripe_key]
        print(f"   $ stripe {' '.join(arguments)}", flush=True)
        done = subprocess.run(
            [self.binary, *arguments, *target],
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.home), **OFFLINE},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise Missed(f"stripe {arguments[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def get(self, path: str, **query: str) -> Any:
        fields = [part for name, value in query.items() for part in ("-d", f"{name}={value}")]
        return json.loads(self.run("get", path, *fields))


@dataclass(frozen=True, slots=True)
class Api:
    """Coseat's own routes, asked with the development service key."""

    service: Service
    client: httpx.Client

    def get(self, path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.service.tokens['service_key']}"}
        return self.client.get(f"{self.service.api}/v1{path}", headers=headers)

    def await_answer(self, path: str, shown: Callable[[Mapping[str, Any]], bool], what: str) -> Any:
        """The first answer that has it. Raises Missed."""
        started = time.monotonic()
        while True:
            response = self.get(path)
            if response.status_code == httpx.codes.OK and shown(response.json()):
                waited = time.monotonic() - started
                print(f"   GET /v1{path}: {what}, {waited * 1000:.0f} ms after the CLI was done")
                return response.json()
            if time.monotonic() - started > ARRIVAL_SECONDS:
                raise Missed(f"GET /v1{path} does not show {what}: {response.status_code} {response.text}")
            time.sleep(POLL_SECONDS)


def reads(cli: StripeCli) -> None:
    print("\n1. `get` reads the demonstration account")
    owner = cli.get("/v1/customers/cus_demoowner")
    expect(owner["email"] == "owner@example.com", f"the demo's owner, not {owner}")
    found = cli.get("/v1/subscriptions", customer="cus_demoowner", limit="1")
    expect([one["id"] for one in found["data"]] == ["sub_demoteam"], f"sub_demoteam, not {found}")


def fixtures(cli: StripeCli, api: Api) -> None:
    print("\n2. `fixtures` makes a second shared plan, with its people, and then raises its quantity")
    cli.run("fixtures", str(FIXTURES))
    [owner] = cli.get("/v1/customers", email="ada@studio.example")["data"]

    def has_eight_seats(answer: Mapping[str, Any]) -> bool:
        return [plan["shared"]["seats"]["total"] for plan in answer["data"] if plan["shared"]] == [8]

    plans = api.await_answer(
        f"/customers/{owner['id']}/subscriptions", has_eight_seats, "one plan of 8 seats"
    )
    path = f"/shared-subscriptions/{plans['data'][0]['id']}/users"

    def has_three_people(answer: Mapping[str, Any]) -> bool:
        return [row["role"] for row in answer["data"]][:1] == ["owner"] and {
            (row["email"], row["role"]) for row in answer["data"]
        } == {
            ("ada@studio.example", "owner"),
            ("grace@studio.example", "manager"),
            ("linus@studio.example", "user"),
        }

    people = api.await_answer(path, has_three_people, "its owner, manager and user")
    expect(people["seats"]["used"] == 2, f"2 seats used, not {people['seats']}")


def trigger(cli: StripeCli, api: Api) -> None:
    print("\n3. `trigger` makes a subscription and updates it, so that it ends with its period")
    event = "customer.subscription.updated"
    cli.run("trigger", event, "--add", "subscription_updated:cancel_at_period_end=true")
    [made] = cli.get("/v1/subscriptions", limit="1")["data"]
    expect(made["metadata"].get("foo") == "bar", f"the CLI's own subscription, not {made['id']}")
    api.await_answer(
        f"/subscriptions/{made['id']}",
        lambda answer: answer["subscription"]["cancel_at_period_end"] is True,
        "that it will end",
    )
    [latest, *_] = cli.get("/v1/events", type=event, limit="1")["data"]
    expect(latest["data"]["object"]["id"] == made["id"], f"{event} as the newest of its kind")


def expect(condition: bool, rule: str) -> None:
    if not condition:
        raise Missed(f"expected {rule}")


def installed() -> Path | None:
    """The binary of npm's platform package, which needs no node to run."""
    found = sorted((CHECKOUT / ".stripe-cli" / "node_modules" / "@stripe").glob("cli-*/bin/stripe*"))
    return found[0] if found else None


def main() -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cli", type=Path, help="the Stripe CLI's binary")
    given: Path | None = parser.parse_args().cli
    binary = given or installed()
    if binary is None or shutil.which(binary) is None:
        missing = f"{given} is not a program" if given else "there is none below .stripe-cli"
        print(
            f"stripe-cli: no Stripe CLI: {missing}; run `make stripe-cli`, or name one with --cli",
            file=sys.stderr,
        )
        return 2
    signal.signal(signal.SIGTERM, _end)
    started = time.monotonic()
    try:
        with (
            running_service() as service,
            httpx.Client(timeout=20, trust_env=False) as client,
            tempfile.TemporaryDirectory(prefix="coseat-stripe-cli-") as home,
        ):
            cli, api = StripeCli(binary.absolute(), service, Path(home)), Api(service, client)
            print(f"{cli.run('version').splitlines()[0]} against the stand-in at {service.stripe}")
            reads(cli)
            fixtures(cli, api)
            trigger(cli, api)
    except NotStarted as error:
        print(f"stripe-cli: {error}", file=sys.stderr)
        return 2
    except (Missed, httpx.HTTPError, subprocess.TimeoutExpired, KeyError, ValueError) as error:
        print(f"stripe-cli: MISSED {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"\nEverything that the CLI did has reached the cache, {time.monotonic() - started:.1f} s in all.")
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    """So that what was started is ended too."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
