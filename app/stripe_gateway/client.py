"""One Stripe client a process: pinned version, bounded time, our own retries, plain data out.

The SDK retries nothing by default and never a bare 429, waits 80 s, and spends 50 times a JSON parse on building its
objects; so calls go through its raw request (same errors, same encoding, no objects) with the rules below.
"""

from __future__ import annotations

import asyncio
import copy
import email.utils
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import httpx
import orjson
import stripe

from app.errors import BillingError, NotFound, ServiceUnavailable, StripeOutcomeUnknown
from app.stripe_gateway.budget import Budget, Work, endpoint_of
from app.stripe_gateway.translate import (
    is_rate_refusal,
    is_retryable,
    is_turned_away,
    is_used_up,
    never_arrived,
    translate,
)

# With STRIPE_LOG in the environment the SDK prints what it sends and gets, whatever this process may log.
stripe._util.STRIPE_LOG = None

API_VERSION = "2026-10-28.endive"
CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 10.0
_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Answer:
    """`at` is the second of the response's Date header: no change after it can be missing from `data` unnoticed.

    `replayed`: Stripe kept this answer under its idempotency key, so it tells of the past and not of now.
    """

    data: Mapping[str, Any]
    at: int
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Once:
    """An idempotency key, and what is looked at when its write is about to leave.

    `leaves` comes after the grant of the rate budget, for which a call may wait for seconds, and before the first try;
    what it raises is raised, and nothing was sent.
    """

    key: str
    leaves: Callable[[], Awaitable[None]]


Key = str | Once


class _Unread(httpx.Headers):
    """The headers of a good answer, and its body as it came."""

    body: bytes


class _Transport(stripe.HTTPXClient):
    """Hides a good answer's body from the SDK, whose ordered dictionaries take it ten times as long to read."""

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        body, status, received = await super().request_async(method, url, headers, post_data)
        if not 200 <= status < 300:
            return body, status, received
        unread = _Unread(received)
        unread.body = body
        return b"{}", status, unread


def _read(answer: stripe.StripeResponse) -> Mapping[str, Any]:
    """Raises what the SDK raises of a body that is not JSON: an answer that got lost on its way."""
    unread = answer.headers
    if not isinstance(unread, _Unread):
        raise TypeError("the SDK answered around its transport")
    try:
        data: Mapping[str, Any] = orjson.loads(unread.body)
    except orjson.JSONDecodeError as error:
        raise stripe.APIError(
            "The body of the answer is not JSON.",
            http_body=unread.body,
            http_status=answer.code,
            headers=dict(unread),
        ) from error
    return data


class StripeClient:
    def __init__(self, api_key: str, *, api_base: str | None, budget: Budget | None = None) -> None:
        """`budget`: shared with every other process that calls the account; None where there is none."""
        self._budget = budget
        self._work: Work = "interactive"
        stripe.enable_telemetry = False
        timeout = httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
        self._http = _Transport(timeout=timeout)
        self._client = stripe.StripeClient(
            api_key,
            stripe_version=API_VERSION,
            http_client=self._http,
            max_network_retries=0,
            base_addresses={"api": api_base} if api_base else {},
        )

    def doing(self, work: Work) -> Self:
        """The same client, whose calls count as `work` in the budget."""
        other = copy.copy(self)
        other._work = work
        return other

    async def close(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]  # the SDK leaves it unannotated

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Answer:
        return await self._call("get", path, dict(params or {}), idempotency_key=None, is_write=False)

    async def post(self, path: str, params: Mapping[str, Any], *, idempotency_key: Key) -> Answer:
        return await self._call("post", path, dict(params), idempotency_key=idempotency_key)

    async def post_safely(self, path: str, params: Mapping[str, Any]) -> Answer:
        """A POST that changes nothing (a preview): retried and reported like a read."""
        return await self._call("post", path, dict(params), idempotency_key=None, is_write=False)

    async def delete(self, path: str, params: Mapping[str, Any], *, idempotency_key: Key) -> Answer:
        return await self._call("delete", path, dict(params), idempotency_key=idempotency_key)

    async def _call(
        self,
        method: str,
        path: str,
        params: dict[str, Any],
        *,
        idempotency_key: Key | None,
        is_write: bool = True,
    ) -> Answer:
        """Raises the translated error; a write whose answer is lost raises StripeOutcomeUnknown.

        Waiting for the first grant of the budget comes before the clock starts: nothing is sent until then. The error
        says whether it is the last word on its key: see `kept`, `tries_open` and `left` of BillingError.
        """
        endpoint = endpoint_of(method, path)
        attempt = 0
        tries_open = False
        await self._acquire(endpoint)
        if isinstance(idempotency_key, Once):
            await idempotency_key.leaves()
            idempotency_key = idempotency_key.key
        if idempotency_key is not None:
            params["idempotency_key"] = idempotency_key
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                while True:
                    attempt += 1
                    try:
                        response = await self._client.raw_request_async(method, path, **params)
                        replayed = response.headers.get("idempotent-replayed") == "true"
                        return Answer(_read(response), _date(response.headers), replayed)
                    except stripe.StripeError as error:
                        if is_rate_refusal(error):
                            await self._slow_down()
                        refused = error
                        failure = _told(error, is_write=is_write, tries_open=tries_open)
                        if attempt >= _ATTEMPTS or not is_retryable(error, is_write=is_write):
                            raise failure from error
                        # A try that was never answered, or one of the same key that is under way (409).
                        tries_open |= isinstance(failure, StripeOutcomeUnknown)
                    await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))  # noqa: S311
                    try:
                        await self._acquire(endpoint)
                    except BillingError:
                        # What the first attempt left open is still open: that is what the caller has to know.
                        raise failure from refused
        except TimeoutError as error:
            if is_write:
                raise StripeOutcomeUnknown(retry_after=2) from error
            raise ServiceUnavailable("Stripe does not answer in time.", retry_after=2) from error

    async def _acquire(self, endpoint: str) -> None:
        if self._budget is not None:
            await self._budget.acquire(self._work, endpoint)

    async def _slow_down(self) -> None:
        # Without the database no call is granted either, so there is no rate to lower.
        with suppress(BillingError):
            if self._budget is not None:
                await self._budget.slow_down()


def _told(error: stripe.StripeError, *, is_write: bool, tries_open: bool) -> BillingError:
    """The error, with what is known of the call's other tries; an absence has its moment as well."""
    told = translate(error, is_write=is_write)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if isinstance(told, NotFound):
        told.at = _date(headers)
    told.kept = is_used_up(error) or headers.get("idempotent-replayed") == "true"
    told.tries_open = tries_open and not told.kept
    told.left = not (is_turned_away(error) or never_arrived(error))
    return told


def _date(headers: Mapping[str, str]) -> int:
    """0 where there is none; such an answer is not applied, for older events would pass for newer ones."""
    value = headers.get("date")
    if not value:
        return 0
    try:
        return int(email.utils.parsedate_to_datetime(value).timestamp())
    except ValueError:
        return 0
