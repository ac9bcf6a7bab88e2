"""Tokens and keys that prove nothing, before real servers of every key family: none opens anything or leaves a row.

`python -m verification.adversary.tokens` sends the whole corpus to four operations each; `--share` sends a part of it.
"""

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.identity.service_keys import generate_service_key
from testkit.issuing import AUDIENCE, HS256, ISSUER, SECRET, public_pem, well_formed
from testkit.service import api_process
from testkit.simulator import Simulator, new_account_key
from tests.identity.test_authenticator import BAD_AUTHORIZATIONS
from tests.identity.test_tokens import BAD, SIGNERS
from verification.adversary.raw import Header, RawAnswer, exchange, row_counts
from verification.adversary.running import finish, parts, tell
from verification.adversary.world import environment_of, in_batches

SEED = 20261122
LEEWAY_SECONDS = 30
ASKED = (
    ("GET", "/v1/shared-subscriptions/sub_hostile", None),
    ("GET", "/v1/products", None),
    ("POST", "/v1/customers", b"{}"),
    ("PATCH", "/v1/shared-subscriptions/sub_hostile/users", b'{"remove": ["cus_hostile"]}'),
)
"""The hot read, the list that needs no credential, the one call that makes an identity, and a change of people."""
JSON_BODY: Header = ("Content-Type", b"application/json")


@dataclass
class Seen:
    credentials: int = 0
    requests: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)


def corpus() -> dict[str, list[tuple[str, bytes]]]:
    """By the family of the server's key: names and whole values of `Authorization`."""
    found: dict[str, list[tuple[str, bytes]]] = {family: [] for family in SIGNERS}
    for name, (family, token) in BAD.items():
        found[family].append((name, b"Bearer " + _encoded(token)))
    for number, value in enumerate(BAD_AUTHORIZATIONS):
        found["hs"].append((f"authorization {number}", _encoded(value)))
    return found


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _judge(seen: Seen, name: str, asked: str, answer: RawAnswer) -> None:
    """401 with its code; what is no HTTP at all the server refuses itself, with another 4xx or by hanging up."""
    seen.requests += 1
    seen.answers[answer.status] += 1
    is_ours = answer.status == 401 and answer.code == "unauthenticated"
    if not is_ours and answer.status not in (0, 400, 431):
        seen.misses.append(f"{name} / {asked}: {answer.status} {answer.body[:200]!r}")


async def _family(
    family: str, cases: list[tuple[str, bytes]], stripe: Simulator, database_url: str, seen: Seen
) -> None:
    key = SIGNERS[family].key
    verifier = (
        {"AUTH_JWT_SECRET": SECRET} if isinstance(key, str) else {"AUTH_JWT_PUBLIC_KEY": public_pem(key)}
    )
    environment = environment_of(stripe, database_url, AUTH_ISSUER=ISSUER, AUTH_AUDIENCE=AUDIENCE, **verifier)
    if family != "hs":
        del environment["AUTH_JWT_SECRET"]
    with api_process(environment) as (base_url, _):
        # Known again or not, a good token must not help a bad one that looks like it.
        good = b"Bearer " + SIGNERS[family].token().encode()
        accepted = await exchange(base_url, "GET", "/v1/products", [("Authorization", good)])
        if accepted.status != 200:
            seen.misses.append(f"{family}: the good token was refused: {accepted.body[:200]!r}")
        before = await row_counts(database_url)

        async def one(name: str, value: bytes) -> None:
            for method, path, body in ASKED:
                headers = [("Authorization", value), *([JSON_BODY] if body is not None else [])]
                answer = await exchange(base_url, method, path, headers, body)
                _judge(seen, f"{family} {name}", f"{method} {path}", answer)

        await in_batches(one(name, value) for name, value in cases)
        seen.credentials += len(cases)
        after = await row_counts(database_url)
        if after != before:
            grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
            seen.misses.append(f"{family}: rows were written: {grown}")


async def _expiring(stripe: Simulator, database_url: str, seen: Seen) -> None:
    """A token that was accepted and has then run out is refused, however well it is remembered."""
    environment = environment_of(
        stripe, database_url, AUTH_ISSUER=ISSUER, AUTH_AUDIENCE=AUDIENCE, AUTH_JWT_SECRET=SECRET
    )
    with api_process(environment) as (base_url, _):
        token = HS256.token(well_formed(exp=int(time.time()) - LEEWAY_SECONDS + 3))
        headers = [("Authorization", b"Bearer " + token.encode())]
        statuses = [(await exchange(base_url, "GET", "/v1/products", headers)).status]
        await asyncio.sleep(3.5)
        statuses.append((await exchange(base_url, "GET", "/v1/products", headers)).status)
        if statuses != [200, 401]:
            seen.misses.append(f"a token before and after its end: {statuses}, not [200, 401]")


async def _two_keys(stripe: Simulator, database_url: str, seen: Seen) -> None:
    """While a service changes its key both are good, of which only hashes are configured; and no third."""
    (old, old_hash), (new, new_hash), (other, _) = (generate_service_key() for _ in range(3))
    keys = [
        {"name": name, "sha256": known, "scopes": ["read"]}
        for name, known in (("backend", old_hash), ("backend-next", new_hash))
    ]
    environment = environment_of(stripe, database_url, SERVICE_KEYS=json.dumps(keys))
    with api_process(environment) as (base_url, _):
        statuses = []
        for credential in (old, new, other, old_hash, f"csk_{old_hash}"):
            headers = [("Authorization", b"Bearer " + credential.encode())]
            statuses.append((await exchange(base_url, "GET", "/v1/products", headers)).status)
        if statuses != [200, 200, 401, 401, 401]:
            seen.misses.append(f"the old key, the new one, another, and hashes: {statuses}")


async def run(
    stripe_base: str, database_url: str, *, share: float = 1.0, families: Sequence[str] = tuple(SIGNERS)
) -> Seen:
    """Sends the corpus, or a `share` of it, to one server for each family."""
    seen = Seen()
    chance = random.Random(SEED)
    async with Simulator(stripe_base, new_account_key()) as stripe:
        for family in families:
            cases = corpus()[family]
            some = cases if share == 1 else chance.sample(cases, int(len(cases) * share))
            tell(f"{len(some)} bad credentials before a server with a key of {family}")
            await _family(family, some, stripe, database_url, seen)
        if set(families) == set(SIGNERS):
            await _expiring(stripe, database_url, seen)
            await _two_keys(stripe, database_url, seen)
        if requests := await stripe.requests():
            seen.misses.append(f"Stripe was asked {len(requests)} times")
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="the share of the corpus that is sent (0-1)")
    given = parser.parse_args()
    with parts() as (stripe_base, database_url):
        seen = asyncio.run(run(stripe_base, database_url, share=given.share))
    report = {
        "check": "tokens",
        "credentials": seen.credentials,
        "requests": seen.requests,
        "accepted": seen.answers[200] + seen.answers[201] + seen.answers[204],
        "server_errors": sum(number for status, number in seen.answers.items() if status >= 500),
        "answers": {str(status): number for status, number in sorted(seen.answers.items())},
    }
    finish(report, seen.misses)


if __name__ == "__main__":
    main()
