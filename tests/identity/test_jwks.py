"""Published keys: rotation, outage and floods, against a real server on loopback and a clock that we turn."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from app.errors import ServiceUnavailable, Unauthenticated
from app.identity import jwks
from app.identity.authenticator import Authenticator
from app.identity.jwks import (
    FETCH_INTERVAL,
    IDLE_LIMIT,
    KEEP_LIMIT,
    MAXIMUM_KEYS,
    MAXIMUM_WAITING,
    JwksKeys,
)
from app.identity.keys import UnusableKey, key_from_jwk
from app.identity.principals import EndUser
from app.identity.refusals import TokenRejected
from app.identity.tokens import TokenVerifier
from testkit.issuing import AUDIENCE, EDDSA, ES256, HS256, ISSUER, RS256, SECRET, Signer, b64, settings
from testkit.key_server import KeyServer, Mode, key_server

pytestmark = pytest.mark.anyio

OTHER_RS256 = Signer("RS256", rsa.generate_private_key(65537, 2048))


@dataclass
class Bench:
    """A verifier, the server that publishes its keys, and the verifier's clock in seconds."""

    server: KeyServer
    now: float = 1000.0
    keys: JwksKeys = field(init=False)
    verifier: TokenVerifier = field(init=False)

    def __post_init__(self) -> None:
        self.keys = JwksKeys(self.server.url, clock=lambda: self.now)
        self.verifier = TokenVerifier(
            self.keys, issuer=ISSUER, audience=AUDIENCE, customer_claim=("customer",)
        )

    async def outcome(self, signer: Signer, kid: str | None = "a") -> str:
        try:
            await self.verifier.verify(signer.token(headers=None if kid is None else {"kid": kid}))
        except TokenRejected as rejected:
            return rejected.reason
        except ServiceUnavailable as unavailable:
            return unavailable.code
        return "accepted"

    async def settled(self) -> None:
        """Let a fetch in the background end."""
        if self.keys._fetch is not None:
            await asyncio.wait([self.keys._fetch])


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with key_server() as server:
        server.keys = [RS256.jwk("a")]
        bench = Bench(server)
        yield bench
        await bench.keys.aclose()


async def test_first_token_fetches_and_the_next_ones_do_not(bench: Bench) -> None:
    assert [await bench.outcome(RS256) for _ in range(20)] == ["accepted"] * 20
    assert bench.server.requests == 1


async def test_authenticator_uses_the_configured_url(bench: Bench) -> None:
    authenticator = Authenticator(settings(AUTH_JWKS_URL=bench.server.url))
    principal = await authenticator.authenticate(f"Bearer {RS256.token(headers={'kid': 'a'})}", None)
    assert isinstance(principal, EndUser)
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(f"Bearer {HS256.token(headers={'kid': 'a'})}", None)
    await authenticator.aclose()


async def test_simultaneous_first_tokens_share_one_fetch(bench: Bench) -> None:
    assert set(await asyncio.gather(*(bench.outcome(RS256) for _ in range(100)))) == {"accepted"}
    assert bench.server.requests == 1


async def test_caller_that_goes_away_does_not_spoil_the_fetch_for_others(bench: Bench) -> None:
    first = asyncio.create_task(bench.outcome(RS256))
    second = asyncio.create_task(bench.outcome(RS256))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "accepted"
    assert bench.server.requests == 1


async def test_new_key_is_accepted_at_once_when_a_fetch_is_due(bench: Bench) -> None:
    assert await bench.outcome(RS256) == "accepted"
    bench.server.keys.append(OTHER_RS256.jwk("b"))
    bench.now += FETCH_INTERVAL - 1
    assert await bench.outcome(OTHER_RS256, "b") == "unknown_key"
    bench.now += 1
    assert await bench.outcome(OTHER_RS256, "b") == "accepted"
    assert bench.server.requests == 2


async def test_revoked_key_is_refused_within_the_interval_under_traffic(bench: Bench) -> None:
    assert await bench.outcome(RS256) == "accepted"
    bench.server.keys = [OTHER_RS256.jwk("b")]
    bench.now += FETCH_INTERVAL + 1
    assert await bench.outcome(RS256) == "accepted"
    await bench.settled()
    assert await bench.outcome(RS256) == "unknown_key"


async def test_revoked_key_is_refused_at_once_after_idleness(bench: Bench) -> None:
    assert await bench.outcome(RS256) == "accepted"
    bench.server.keys = [OTHER_RS256.jwk("b")]
    bench.now += IDLE_LIMIT + 1
    assert await bench.outcome(RS256) == "unknown_key"


async def test_kid_whose_key_was_exchanged(bench: Bench) -> None:
    assert await bench.outcome(RS256) == "accepted"
    bench.server.keys = [OTHER_RS256.jwk("a")]
    bench.now += IDLE_LIMIT + 1
    assert await bench.outcome(RS256) == "signature"
    assert await bench.outcome(OTHER_RS256) == "accepted"


@pytest.mark.parametrize("mode", ["error", "html", "redirect", "too_large", "reset", "empty", "not_found"])
async def test_outage_keeps_the_last_good_set_for_an_hour(bench: Bench, mode: Mode) -> None:
    assert await bench.outcome(RS256) == "accepted"
    bench.server.mode = mode
    for elapsed in (FETCH_INTERVAL + 1, IDLE_LIMIT + 1, KEEP_LIMIT):
        bench.now = 1000.0 + elapsed
        assert await bench.outcome(RS256) == "accepted"
        await bench.settled()
    bench.now = 1000.0 + KEEP_LIMIT + FETCH_INTERVAL
    assert await bench.outcome(RS256) == "identity_provider_unavailable"
    bench.server.mode = "keys"
    assert await bench.outcome(RS256) == "identity_provider_unavailable"
    bench.now += FETCH_INTERVAL
    assert await bench.outcome(RS256) == "accepted"


async def test_no_keys_at_all_is_503_with_the_seconds_to_wait(bench: Bench) -> None:
    bench.server.mode = "error"
    for waiting in (30, 29, 28):
        with pytest.raises(ServiceUnavailable) as failure:
            await bench.verifier.verify(RS256.token(headers={"kid": "a"}))
        assert (failure.value.status, failure.value.retry_after) == (503, waiting)
        bench.now += 1
    assert bench.server.requests == 1


async def test_provider_that_does_not_listen() -> None:
    keys = JwksKeys("http://127.0.0.1:1/keys")
    with pytest.raises(ServiceUnavailable):
        await keys.find("RS256", "a")
    await keys.aclose()


@pytest.mark.parametrize("mode", ["hang", "trickle"])
@pytest.mark.timed
async def test_slow_provider_is_given_up(bench: Bench, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_DEADLINE", 0.3)
    bench.server.mode = mode
    started = time.perf_counter()
    assert await bench.outcome(RS256) == "identity_provider_unavailable"
    assert time.perf_counter() - started < 1.5


@pytest.mark.timed
async def test_known_key_does_not_wait_for_a_provider_that_failed_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await bench.outcome(RS256) == "accepted"
    monkeypatch.setattr(jwks, "FETCH_DEADLINE", 0.3)
    bench.server.mode = "hang"
    bench.now += FETCH_INTERVAL + 1
    assert await bench.outcome(RS256) == "accepted"
    await bench.settled()
    bench.now += IDLE_LIMIT
    started = time.perf_counter()
    assert await bench.outcome(RS256) == "accepted"
    assert time.perf_counter() - started < 0.1


@pytest.mark.timed
async def test_flood_of_unknown_kids_with_a_hanging_provider_costs_one_fetch(bench: Bench) -> None:
    assert await bench.outcome(RS256) == "accepted"
    bench.server.mode = "hang"
    bench.now += FETCH_INTERVAL + 1
    strangers = [
        asyncio.create_task(bench.outcome(OTHER_RS256, f"unknown-{number}")) for number in range(500)
    ]
    async with asyncio.timeout(5):
        await bench.server.hanging.wait()
    waits = []
    for _ in range(100):
        started = time.perf_counter()
        assert await bench.outcome(RS256) == "accepted"
        waits.append(time.perf_counter() - started)
    assert sorted(waits)[98] < 0.05
    assert bench.server.requests == 2
    for stranger in strangers:
        stranger.cancel()


async def test_few_wait_for_a_key_that_nobody_may_have(bench: Bench) -> None:
    """Each waiting request takes one of the places that a process has: those of known keys need them."""
    assert await bench.outcome(RS256) == "accepted"
    bench.server.mode = "hang"
    bench.now += FETCH_INTERVAL + 1
    strangers = [
        asyncio.create_task(bench.outcome(OTHER_RS256, str(number))) for number in range(MAXIMUM_WAITING + 50)
    ]
    await bench.server.hanging.wait()
    done, waiting = await asyncio.wait(strangers, timeout=1.0)
    assert len(waiting) == MAXIMUM_WAITING
    assert {stranger.result() for stranger in done} == {"unknown_key"}
    for stranger in waiting:
        stranger.cancel()
    await asyncio.wait(waiting)
    assert bench.keys._waiting == 0


async def test_flood_of_unknown_kids_with_a_failing_provider_costs_one_fetch_an_interval(
    bench: Bench,
) -> None:
    assert await bench.outcome(RS256) == "accepted"
    bench.server.mode = "error"
    for second in range(120):
        bench.now = 1000.0 + second
        outcomes = await asyncio.gather(*(bench.outcome(OTHER_RS256, f"{second}-{n}") for n in range(5)))
        assert set(outcomes) == {"unknown_key"}
        assert await bench.outcome(RS256) == "accepted"
        await bench.settled()
    assert bench.server.requests == 1 + 3


async def test_token_without_kid_needs_a_single_fitting_key(bench: Bench) -> None:
    bench.server.keys = [RS256.jwk("a"), ES256.jwk("b")]
    assert await bench.outcome(RS256, None) == "accepted"
    assert await bench.outcome(ES256, None) == "accepted"
    bench.server.keys = [RS256.jwk("a"), OTHER_RS256.jwk("b")]
    bench.now += IDLE_LIMIT + 1
    assert await bench.outcome(RS256, None) == "unknown_key"
    assert await bench.outcome(RS256, "a") == "accepted"


async def test_two_keys_of_one_kid_and_algorithm_are_not_guessed_between(bench: Bench) -> None:
    bench.server.keys = [RS256.jwk("a"), OTHER_RS256.jwk("a")]
    assert await bench.outcome(RS256) == "unknown_key"


async def test_symmetric_token_never_causes_a_fetch(bench: Bench) -> None:
    assert await bench.outcome(HS256) == "algorithm"
    assert bench.server.requests == 0


async def test_unusable_entries_do_not_spoil_the_set(bench: Bench) -> None:
    unusable: list[Any] = [
        None,
        1,
        [],
        {},
        {"kty": "oct", "k": b64(SECRET.encode()), "kid": "a"},
        {"kty": "XYZ"},
    ]
    bench.server.keys = [*unusable, RS256.jwk("a", use="enc"), RS256.jwk("a"), EDDSA.jwk("e")]
    assert await bench.outcome(RS256) == "accepted"
    assert await bench.outcome(EDDSA, "e") == "accepted"
    assert await bench.outcome(HS256) == "algorithm"


async def test_only_the_first_keys_of_an_endless_set_are_read(bench: Bench) -> None:
    bench.server.keys = [ES256.jwk(str(number)) for number in range(MAXIMUM_KEYS)] + [RS256.jwk("a")]
    assert await bench.outcome(RS256) == "unknown_key"
    assert await bench.outcome(ES256, "63") == "accepted"


SMALL_RSA = Signer("RS256", rsa.generate_private_key(65537, 1024))
GOOD = RS256.jwk("a")


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        GOOD | {"kty": "oct"},
        GOOD | {"kty": "EC"},
        GOOD | {"kty": ["RSA"]},
        GOOD | {"alg": "HS256"},
        GOOD | {"alg": "none"},
        GOOD | {"alg": "ES256"},
        GOOD | {"alg": 1},
        GOOD | {"use": "enc"},
        GOOD | {"use": None},
        GOOD | {"key_ops": ["encrypt"]},
        GOOD | {"key_ops": "verify"},
        GOOD | {"kid": 1},
        GOOD | {"d": "AQAB"},
        GOOD | {"n": ""},
        GOOD | {"n": 1},
        GOOD | {"n": "é"},
        GOOD | {"e": "AQ"},
        {name: value for name, value in GOOD.items() if name != "n"},
        SMALL_RSA.jwk("a"),
        ES256.jwk("a", crv="P-384"),
        ES256.jwk("a", crv="secp256k1"),
        ES256.jwk("a", x=b64(bytes(32))),
        ES256.jwk("a", alg="ES384"),
        EDDSA.jwk("a", crv="X25519"),
        EDDSA.jwk("a", crv="Ed448"),
        EDDSA.jwk("a", x="AA"),
    ],
)
def test_unusable_jwk(jwk: dict[str, Any]) -> None:
    with pytest.raises(UnusableKey):
        key_from_jwk(jwk)


def test_jwk_without_alg_allows_its_whole_family_and_with_alg_that_alone() -> None:
    assert key_from_jwk(GOOD).algorithms == {"RS256"}
    without = {name: value for name, value in GOOD.items() if name != "alg"}
    assert key_from_jwk(without).algorithms == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
