"""Fetch the keys that an identity provider publishes at `AUTH_JWKS_URL`.

At most one fetch starts per FETCH_INTERVAL, even if it fails, so callers cannot make the process send more. A caller
whose key is known does not wait while the provider fails; an outage only stops tokens of a key that is not known yet.
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
"""Seconds between the starts of two fetches, also failed ones. A new or revoked key is noticed after that time."""
IDLE_LIMIT = 300.0
"""Seconds of age after which the keys are fetched before they are used, unless the last fetch failed."""
KEEP_LIMIT = 3600.0
"""Seconds for which the last good set is used while the provider does not answer."""
FETCH_DEADLINE = 5.0
"""Seconds that a whole fetch may take."""
MAXIMUM_WAITING = 32
"""Callers with an unknown key that may wait for a fetch at the same time; more would occupy the places of others."""
MAXIMUM_BODY_BYTES = 256 * 1024
MAXIMUM_KEYS = 64

# The set is requested uncompressed, so that MAXIMUM_BODY_BYTES also bounds the memory that it takes.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
_log = structlog.get_logger(__name__)


class JwksKeys:
    """The current key set of one provider. `clock` returns monotonic seconds.

    It belongs to one event loop. Close it with `aclose`.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        # `trust_env=False`: httpx would take proxies and certificates from environment variables.
        self._client = httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=FETCH_DEADLINE)
        self._keys: tuple[VerificationKey, ...] = ()
        self._fetched_at: float | None = None
        self._attempted_at: float | None = None
        self._last_attempt_failed = False
        self._fetch: asyncio.Task[None] | None = None
        self._waiting = 0

    async def find(self, algorithm: str, kid: str | None) -> VerificationKey | None:
        """Return the key for a token's header, or None.

        Without `kid` it is the only key that fits.

        Raises:
            ServiceUnavailable: `identity_provider_unavailable`: there is no set younger than KEEP_LIMIT, and the
                provider does not answer.
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
                "The identity provider's keys cannot be read. Send the request again after Retry-After.",
                code="identity_provider_unavailable",
                retry_after=self._seconds_to_next_fetch(),
            )
        found = self._select(algorithm, kid)
        if not found and kid is not None and await self._refresh_for_unknown_key():
            found = self._select(algorithm, kid)
        # Two keys that fit one header are a mistake of the provider, so neither is used.
        return found[0] if len(found) == 1 else None

    async def aclose(self) -> None:
        """Cancel a running fetch and close the connections."""
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
        """Wait for a fetch if one is running or due. Return True if there was one."""
        if (fetch := self._start_fetch()) is None:
            return False
        # `shield`: the caller who began the fetch may disconnect while others wait for it.
        await asyncio.shield(fetch)
        return True

    async def _refresh_for_unknown_key(self) -> bool:
        """Do as `_refresh`, for at most MAXIMUM_WAITING callers at a time.

        Otherwise a caller who invents key ids could fill the process with waiting requests.
        """
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
                raise UnusableKey(f"the provider answered with status {response.status_code}")
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
        # A set may hold keys of other purposes and types. They are skipped, as RFC 7517 section 5 says.
        try:
            keys.append(key_from_jwk(entry if isinstance(entry, dict) else {}))
        except UnusableKey:
            continue
    if not keys:
        raise UnusableKey("the set holds no usable key")
    return tuple(keys)
