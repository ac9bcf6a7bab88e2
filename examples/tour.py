"""A tour of Coseat that checks itself: every step is sent, shown with its answer, and judged.

It starts a service of its own with `coseat dev` (PostgreSQL, the Stripe stand-in with demo data, API, worker) on
free ports and in a temporary directory, and removes all of it at the end; a demo that is running is left alone.
The exit code is 0 when every step answered as it should, 1 when one did not, 2 when the service did not start.

    make tour
    python examples/tour.py --json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import jwt

from app.identity.development_tokens import sign_development_token
from app.settings import Settings, load_settings

CHECKOUT = Path(__file__).resolve().parents[1]
START_SECONDS = 180.0
STOP_SECONDS = 30.0
SYNC_SECONDS = 2.0
"""How soon an edit in the Dashboard must show in the API."""

CALM_SECONDS = 15.0

WIDTH = 110
SHOWN_ROWS = 4
PLAN = "/v1/shared-subscriptions/sub_demoteam"
USERS = f"{PLAN}/users"

# On a terminal the parts of a step differ in weight; in a file they are plain text.
BOLD, DIM, RED, PLAIN = ("\033[1m", "\033[2m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 4


class Missed(AssertionError):
    """An answer is not what the step promises."""


class NotStarted(Exception):
    """The service of the tour did not come up; the message says what it printed."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running `coseat dev`: its addresses, the printed tokens by person, and what signs further ones.

    `directory` has its state, `environment` is what it was started with, and `printed` what it said.
    """

    api: str
    stripe: str
    stripe_key: str
    tokens: dict[str, str]
    settings: Settings
    directory: Path
    environment: dict[str, str]
    printed: str

    def token(self, subject: str, email: str) -> str:
        """A token whose e-mail the identity provider vouches for, as at a first login."""
        return sign_development_token(self.settings, subject=subject, email=email, email_verified=True)


@contextlib.contextmanager
def running_service(**environment: str) -> Iterator[Service]:
    """A fresh service with these variables, ended and removed with the block. Raises NotStarted."""
    directory = _temporary_directory()
    log = directory / "dev.log"
    environment = {**os.environ, **environment}
    try:
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "app", "dev", "--reset", "--port", "0", "--state", str(directory)],
                cwd=CHECKOUT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        try:
            yield _wait_for(process, log, directory, environment)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _temporary_directory() -> Path:
    """Root's PostgreSQL runs as another user, who must be able to pass through to its data."""
    as_root = os.geteuid() == 0
    directory = Path(tempfile.mkdtemp(prefix="coseat-tour-", dir="/var/tmp" if as_root else None))  # noqa: S108 - mkdtemp makes it
    if as_root:
        directory.chmod(0o711)
    return directory


def _wait_for(
    process: subprocess.Popen[bytes], log: Path, directory: Path, environment: dict[str, str]
) -> Service:
    give_up = time.monotonic() + START_SECONDS
    while "Ctrl-C" not in (printed := log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > give_up:
            raise NotStarted(f"`coseat dev` did not come up; it printed:\n{printed}")
        time.sleep(0.05)
    tokens = {
        name.lower(): value for name, value in re.findall(r"^\s+([A-Z_]+)=(\S+)$", printed, re.MULTILINE)
    }
    kept = json.loads((directory / "dev" / "secrets.json").read_text())
    claims = jwt.decode(tokens["owner"], options={"verify_signature": False})
    stripe = re.search(r"Stripe\s+(http://\S+) .*?(sk_test_\w+)", printed)
    api = re.search(r"API\s+(http://\S+)/v1", printed)
    if stripe is None or api is None:
        raise NotStarted(f"`coseat dev` did not name its addresses; it printed:\n{printed}")
    settings = load_settings(
        {
            "AUTH_JWT_SECRET": environment.get("AUTH_JWT_SECRET") or kept["jwt_secret"],
            "AUTH_ISSUER": claims["iss"],
            "AUTH_AUDIENCE": claims["aud"],
        },
        process="token",
    )
    return Service(api[1], stripe[1], stripe[2], tokens, settings, directory, environment, printed)


@dataclass(slots=True)
class Step:
    """One step's record; `milliseconds` is the whole step, waiting included."""

    title: str
    calls: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missed: str | None = None
    milliseconds: float = 0.0


class Tour:
    """Sends requests as a person, keeps what was said, and prints it unless told to be quiet."""

    def __init__(self, service: Service, client: httpx.Client, *, quiet: bool) -> None:
        self.service = service
        self.steps: list[Step] = []
        self.found: dict[str, Any] = {}
        self._client = client
        self._quiet = quiet

    def run(self, title: str, action: Callable[[Tour], None]) -> None:
        step = Step(title)
        self.steps.append(step)
        self._say(f"\n{BOLD}{len(self.steps)}. {title}{PLAIN}")
        started = time.perf_counter()
        try:
            action(self)
        except (Missed, httpx.HTTPError, KeyError, IndexError, TypeError) as error:
            step.missed = f"{type(error).__name__}: {error}"
            self._say(f"   {RED}MISSED{PLAIN} {step.missed}")
        step.milliseconds = round((time.perf_counter() - started) * 1000, 1)

    def call(
        self,
        person: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        expect: int,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """One request as `person`, shown with its answer. Raises Missed for another status than `expect`.

        `nobody` has no credential.
        """
        credential = "" if person == "nobody" else token or self.service.tokens[person]
        response = self.send(credential, method, path, body, headers)
        answer = response.json()
        record = {"as": person, "method": method, "path": path, "body": body}
        self.steps[-1].calls.append({**record, "status": response.status_code, "answer": answer})
        sent = "" if body is None else f" {json.dumps(body)}"
        self._say(f"   {person}: {method} {path}{sent}")
        self._say(f"   {BOLD}{response.status_code}{PLAIN}")
        self._say(DIM + "\n".join(f"   {line}" for line in rendered(without_nulls(answer))) + PLAIN)
        self.expect(response.status_code == expect, f"status {expect}, not {response.status_code}")
        return answer

    def send(
        self, token: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        sent = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
        return self._client.request(method, self.service.api + path, json=body, headers=sent)

    def edit_in_stripe(self, path: str, fields: dict[str, str]) -> None:
        """What an operator does in the Dashboard, through Stripe's own API; the values are sent untrimmed."""
        headers = {"Authorization": f"Bearer {self.service.stripe_key}"}
        shown = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        self._say(f"   Stripe: POST {path} {shown}")
        self._client.post(self.service.stripe + path, data=fields, headers=headers).raise_for_status()

    def await_calm(self) -> None:
        """Until the events of the demo's creation are delivered and what they caused to be read again is older than
        the margin: an edit that comes sooner is right too, but shows after one more reading.
        """
        headers = {"Authorization": f"Bearer {self.service.stripe_key}"}
        give_up = time.monotonic() + CALM_SECONDS
        while self._client.get(f"{self.service.stripe}/_simulator/deliveries", headers=headers).json()[
            "pending"
        ]:
            self.expect(time.monotonic() < give_up, f"every event delivered within {CALM_SECONDS:.0f} s")
            time.sleep(0.1)
        time.sleep(SYNC_SECONDS + 1.5)

    def note(self, text: str) -> None:
        self.steps[-1].notes.append(text)
        self._say(f"   {text}")

    def expect(self, condition: bool, rule: str) -> None:
        if not condition:
            raise Missed(f"expected {rule}")

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(text, flush=True)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(member) for name, member in value.items() if member is not None}
    return [without_nulls(member) for member in value] if isinstance(value, list) else value


def rendered(value: Any, indent: int = 0) -> list[str]:
    """JSON in few lines: what fits into one is on one, and a long list shows its first rows."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(line) + indent <= WIDTH:
        return [" " * indent + line]
    rows: list[list[str]] = []
    if isinstance(value, dict):
        for name, member in value.items():
            head, *rest = rendered(member, indent + 2)
            rows.append([f"{' ' * (indent + 2)}{json.dumps(name)}: {head.lstrip()}", *rest])
    else:
        rows += [rendered(member, indent + 2) for member in value[:SHOWN_ROWS]]
        if len(value) > SHOWN_ROWS:
            rows.append([" " * (indent + 2) + f"… {len(value) - SHOWN_ROWS} more"])
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    inner = [
        f"{line}," if last and row is not rows[-1] else line for row in rows for last, line in _marked(row)
    ]
    return [" " * indent + opening, *inner, " " * indent + closing]


def _marked(row: list[str]) -> list[tuple[bool, str]]:
    return [(position == len(row) - 1, line) for position, line in enumerate(row)]


def list_members(tour: Tour) -> None:
    people = tour.call("owner", "GET", USERS, expect=200)
    tour.expect(
        [row["role"] for row in people["data"]] == ["owner", "manager", "user"], "three people, owner first"
    )
    tour.expect(people["seats"]["total"] == 5 and people["seats"]["used"] == 2, "2 of 5 seats used")


def owner_adds(tour: Tour) -> None:
    done = tour.call("owner", "PATCH", USERS, {"add": [{"email": "anna@example.com"}]}, expect=200)
    result = done["results"][0]
    tour.expect(result["outcome"] == "applied" and done["seats"]["used"] == 3, "Anna on the third seat")
    tour.found["anna"] = result["customer_id"]


def manager_adds(tour: Tour) -> None:
    done = tour.call("manager", "PATCH", USERS, {"add": [{"email": "ben@example.com"}]}, expect=200)
    tour.expect(done["results"][0]["outcome"] == "applied", "Ben added by the manager")


def fill_up(tour: Tour) -> None:
    """Adds until nothing is free, then one more; the bill must not have moved."""
    seats = tour.call("owner", "GET", PLAN, expect=200)["subscription"]["shared"]["seats"]
    for number in range(seats["available"]):
        body = {"add": [{"email": f"person{number + 1}@example.com"}]}
        seats = tour.call("owner", "PATCH", USERS, body, expect=200)["seats"]
    tour.expect(seats["available"] == 0 and seats["used"] == 5, "every seat taken")


def refuse_beyond(tour: Tour) -> None:
    problem = tour.call("owner", "PATCH", USERS, {"add": [{"email": "late@example.com"}]}, expect=409)
    figures = {name: problem[name] for name in ("code", "total", "used", "required")}
    tour.expect(
        figures == {"code": "seat_limit_reached", "total": 5, "used": 5, "required": 6},
        "seat_limit_reached with total 5, used 5, required 6",
    )
    invoices = tour.send(tour.service.tokens["owner"], "GET", "/v1/customers/me/invoices").json()["data"]
    tour.expect(
        [row["billing_reason"] for row in invoices] == ["subscription_create"], "the first invoice only"
    )
    tour.note("The owner still has one invoice, that of the purchase.")


def refuse_the_user(tour: Tour) -> None:
    problem = tour.call("member", "PATCH", USERS, {"add": [{"email": "friend@example.com"}]}, expect=403)
    tour.expect(problem["code"] == "role_required", "code role_required")


def hide_from_strangers(tour: Tour) -> None:
    foreign = tour.call("stranger", "GET", PLAN, expect=404)
    absent = tour.send(tour.service.tokens["stranger"], "GET", "/v1/shared-subscriptions/sub_absent").json()
    for problem in (foreign, absent):
        del problem["request_id"]
    tour.expect(foreign == absent, "the same answer as for an absent subscription")


def honour_the_dashboard(tour: Tour) -> None:
    """A seat given by hand, stray spaces included: legal beyond capacity, shown as over-allocated, billed to nobody."""
    tour.await_calm()
    keys = {
        "billing_shared_subscription_id": "  sub_demoteam ",
        "billing_shared_subscription_role": " Manager ",
    }
    tour.edit_in_stripe(
        "/v1/customers/cus_demostranger", {f"metadata[{key}]": text for key, text in keys.items()}
    )
    started = time.perf_counter()
    token, waited = tour.service.tokens["stranger"], 0.0
    while tour.send(token, "GET", PLAN).status_code != httpx.codes.OK and waited < 5 * SYNC_SECONDS:
        time.sleep(0.02)
        waited = time.perf_counter() - started
    waited = time.perf_counter() - started
    tour.note(f"The signed webhook arrived and the API shows it after {waited * 1000:.0f} ms.")
    people = tour.call("stranger", "GET", f"{USERS}?role=manager", expect=200)
    tour.expect(
        waited <= SYNC_SECONDS, f"the edit shown within {SYNC_SECONDS:.0f} s, not after {waited:.1f} s"
    )
    tour.expect(
        "cus_demostranger" in [row["customer_id"] for row in people["data"]], "him among the managers"
    )
    tour.expect(people["seats"]["over_allocated"] == 1, "one person more than seats")


def first_login(tour: Tour) -> None:
    token = tour.service.token("anna-at-the-application", "anna@example.com")
    customer = tour.call("anna", "POST", "/v1/customers", {}, expect=200, token=token)["customer"]
    tour.expect(customer["id"] == tour.found["anna"], "the customer that the owner's add created")
    mine = tour.call("anna", "GET", "/v1/customers/me/subscriptions", expect=200, token=token)["data"]
    tour.expect(
        [(row["id"], row["role"]) for row in mine] == [("sub_demoteam", "user")], "her seat as a user"
    )


def invite(tour: Tour) -> None:
    """The back end invites on the owner's behalf and gets the token; the person joins with the login they like."""
    tour.call("owner", "PATCH", USERS, {"remove": ["cus_demouser", "cus_demostranger"]}, expect=200)
    invitations = f"{PLAN}/invitations"
    acting = {"X-Acting-Customer": "cus_demoowner"}
    body = {"email": "kim@example.com", "role": "user"}
    made = tour.call("service_key", "POST", invitations, body, expect=201, headers=acting)
    tour.expect(made["seats"]["reserved"] == 1, "a seat reserved for Kim")
    looked = tour.call("nobody", "POST", "/v1/invitations/lookup", {"token": made["token"]}, expect=200)
    tour.expect(looked["inviter"]["name"] == "Olivia Owner", "the inviter's name, without a login")
    token = tour.service.token("kim-at-the-application", "kim@elsewhere.example")
    accept = {"token": made["token"]}
    done = tour.call("kim", "POST", "/v1/invitations/accept", accept, expect=200, token=token)
    tour.expect(
        done["results"][0]["outcome"] == "applied" and done["seats"] is not None, "Kim on the reserved seat"
    )
    listed = tour.call("owner", "GET", invitations, expect=200)["data"]
    tour.expect([row["state"] for row in listed] == ["accepted"], "the invitation accepted")


def receive_events(tour: Tour) -> None:
    """The application of `coseat dev` is a webhook endpoint, and shows the events that it has received and verified."""
    wanted, give_up = (
        {"invitation.created", "invitation.accepted", "seat.assigned"},
        time.monotonic() + CALM_SECONDS,
    )
    while True:
        received = tour.send("", "GET", "/dev/events?limit=50").json()["data"]
        if wanted <= {event["type"] for event in received} or time.monotonic() > give_up:
            break
        time.sleep(0.05)
    accepted = [event for event in received if event["type"] == "invitation.accepted"]
    tour.expect(len(accepted) == 1, "one signed event of Kim's acceptance")
    tour.note("\n   ".join(rendered(without_nulls(accepted[0]))))
    numbers = sorted(event["sequence"] for event in received if event["subscription_id"] == "sub_demoteam")
    tour.expect(
        numbers == list(range(numbers[0], numbers[-1] + 1)), "numbers of one subscription without a gap"
    )


STEPS: tuple[tuple[str, Callable[[Tour], None]], ...] = (
    ("The owner lists the people of the plan", list_members),
    ("The owner adds a person by e-mail", owner_adds),
    ("The manager adds a person too", manager_adds),
    ("Adding until every seat is taken", fill_up),
    ("The next addition is refused with the figures, and nothing is billed", refuse_beyond),
    ("A user may not add anybody", refuse_the_user),
    ("To a stranger the plan does not exist", hide_from_strangers),
    ("A seat given by hand in the Dashboard is honoured", honour_the_dashboard),
    ("The person added in step 2 logs in for the first time and has the seat", first_login),
    ("A person is invited, and accepts with a login of another address", invite),
    ("The application has received all of it as signed events", receive_events),
)


def main() -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the tour")
    as_json: bool = parser.parse_args().json
    signal.signal(signal.SIGTERM, _end)
    started = time.monotonic()
    try:
        with running_service() as service, httpx.Client(timeout=20, trust_env=False) as client:
            ready = time.monotonic() - started
            tour = Tour(service, client, quiet=as_json)
            if not as_json:
                print(f"A service of its own is ready at {service.api} after {ready:.1f} s.")
                print("Answers are shown without their null members.")
            for title, action in STEPS:
                tour.run(title, action)
    except NotStarted as error:
        print(f"tour: {error}", file=sys.stderr)
        return 2
    missed = [step for step in tour.steps if step.missed]
    seconds = round(time.monotonic() - started, 1)
    if as_json:
        print(json.dumps({"ok": not missed, "seconds": seconds, "steps": [_dumped(s) for s in tour.steps]}))
    else:
        print(
            f"\n{len(tour.steps) - len(missed)} of {len(tour.steps)} steps as promised, {seconds} s in all."
        )
    return 1 if missed else 0


def _dumped(step: Step) -> dict[str, Any]:
    return {name: getattr(step, name) for name in Step.__slots__}


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
