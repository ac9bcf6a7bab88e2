"""Keys that an identity provider publishes (`AUTH_JWKS_URL`), fetched at our pace and never at a token's.

At most one fetch per `FETCH_INTERVAL`, whatever its outcome, and one at a time. A caller whose key is at hand
does not wait for a provider that fails: an outage is felt only by tokens of a key that is not known yet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import structlog

from app.errors import ServiceUnavailable
from app.identity.keys import ASYMMETRIC_ALGORITHMS, UnusableKey, VerificationKey, key_from_jwk

FETCH_INTERVAL = 30.0
"""Seconds between the starts of two fetches, failed ones too: so late is a new or a revoked key noticed."""
IDLE_LIMIT = 300.0
"""Seconds after which an idle process asks before it trusts its keys, if the provider answered last time."""
KEEP_LIMIT = 3600.0
"""Seconds for which the last good set outlives a provider that does not answer."""
FETCH_DEADLINE = 5.0
"""Seconds for a whole fetch, however slowly the bytes arrive."""
MAXIMUM_WAITING = 32
"""Callers with an unknown key who wait for a fetch. More of them would take the places of those whose key is known."""
MAXIMUM_BODY_BYTES = 256 * 1024
MAXIMUM_KEYS = 64

# Uncompressed, so that the cap on what is read is a cap on what is held.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
_log = structlog.get_logger(__name__)


class JwksKeys:
    """The current key set of one provider. `clock` returns seconds that never go back.

    Belongs to one event loop; close it with `aclose`.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        # No proxy or certificate from an environment variable: only the settings read those.
        self._client = httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=FETCH_DEADLINE)
        self._keys: tuple[VerificationKey, ...] = ()
        self._fetched_at: float | None = None
        self._attempted_at: float | None = None
        self._last_attempt_failed = False
        self._fetch: asyncio.Task[None] | None = None
        self._waiting = 0

    async def find(self, algorithm: str, kid: str | None) -> VerificationKey | None:
        """The key for a token's header; without `kid`, the only one that fits.

        Raises ServiceUnavailable while no set younger than `KEEP_LIMIT` is held and none can be had.
        """
        if algorithm not in ASYMMETRIC_ALGORITHMS:
            return None
        age = self._age()
        if age is None or (age > IDLE_LIMIT and not self._last_attempt_failed):
            await self._refresh()
        elif age > FETCH_INTERVAL:
            self._start_fetch()
        if self._age() is None:
            raise ServiceUnavailable(
                "The identity provider's keys cannot be read.",
                code="identity_provider_unavailable",
                retry_after=self._seconds_to_next_fetch(),
            )
        found = self._select(algorithm, kid)
        if not found and kid is not None and await self._refresh_for_unknown_key():
            found = self._select(algorithm, kid)
        # Two keys for one header are a mistake of the provider's: guessing between them is not ours to do.
        return found[0] if len(found) == 1 else None

    async def aclose(self) -> None:
        """Abandon a fetch under way and close the connections."""
        if self._fetch is not None and not self._fetch.done():
            self._fetch.cancel()
            await asyncio.gather(self._fetch, return_exceptions=True)
        await self._client.aclose()

    def _age(self) -> float | None:
        if self._fetched_at is None:
            return None
        age = self._clock() - self._fetched_at
        return age if age <= KEEP_LIMIT else None

    def _select(self, algorithm: str, kid: str | None) -> list[VerificationKey]:
        return [key for key in self._keys if algorithm in key.algorithms and (kid is None or key.kid == kid)]

    def _seconds_to_next_fetch(self) -> int:
        since = 0.0 if self._attempted_at is None else self._clock() - self._attempted_at
        return max(1, round(FETCH_INTERVAL - since))

    def _start_fetch(self) -> asyncio.Task[None] | None:
        if self._fetch is not None and not self._fetch.done():
            return self._fetch
        now = self._clock()
        if self._attempted_at is not None and now - self._attempted_at < FETCH_INTERVAL:
            return None
        self._attempted_at = now
        self._fetch = asyncio.create_task(self._load(now), name="jwks-fetch")
        return self._fetch

    async def _refresh(self) -> bool:
        """Wait for a fetch, if one is under way or due; whether there was one."""
        if (fetch := self._start_fetch()) is None:
            return False
        # Shielded: the caller who began it may go away while others wait for it.
        await asyncio.shield(fetch)
        return True

    async def _refresh_for_unknown_key(self) -> bool:
        """As `_refresh`, for so many at a time: whoever makes up key ids must not fill the process with waiting."""
        if self._waiting >= MAXIMUM_WAITING:
            return False
        self._waiting += 1
        try:
            return await self._refresh()
        finally:
            self._waiting -= 1

    async def _load(self, started_at: float) -> None:
        succeeded = False
        try:
            async with asyncio.timeout(FETCH_DEADLINE):
                self._keys = _parse(await self._read())
            self._fetched_at = started_at
            succeeded = True
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, UnusableKey) as error:
            _log.warning("jwks_fetch_failed", error=type(error).__name__, reason=str(error))
        finally:
            self._last_attempt_failed = not succeeded

    async def _read(self) -> bytes:
        body = bytearray()
        async with self._client.stream("GET", self._url, headers=_HEADERS) as response:
            if response.status_code != httpx.codes.OK:
                raise UnusableKey(f"the provider answered {response.status_code}")
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAXIMUM_BODY_BYTES:
                    raise UnusableKey("the set is too large")
        return bytes(body)


def _parse(body: bytes) -> tuple[VerificationKey, ...]:
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnusableKey("the set is not JSON") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise UnusableKey("the document is not a JWK set")
    keys = []
    for entry in entries[:MAXIMUM_KEYS]:
        # A set may hold keys of other purposes and types: those are passed over (RFC 7517 section 5).
        try:
            keys.append(key_from_jwk(entry if isinstance(entry, dict) else {}))
        except UnusableKey:
            continue
    if not keys:
        raise UnusableKey("the set holds no usable key")
    return tuple(keys)
