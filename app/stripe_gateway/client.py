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
from app.operations.lifecycle import Attempt, Outcome
from app.stripe_gateway.budget import Budget, Work, endpoint_of
from app.stripe_gateway.translate import (
    attempt_of,
    is_rate_refusal,
    is_retryable,
    translate,
    write_error,
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


class AttemptFailed(Exception):
    """Raised for a write with `Once` that did not succeed: what became of the attempt, and the error for its caller."""

    def __init__(self, attempt: Attempt, error: BillingError) -> None:
        super().__init__(error.detail)
        self.attempt = attempt
        self.error = error


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
        """Raises the translated error, of a write with `Once` as AttemptFailed.

        Waiting for the first grant of the budget comes before the clock starts: nothing is sent until then.
        """
        endpoint = endpoint_of(method, path)
        tries = 0
        has_open_try = False
        await self._acquire(endpoint)
        is_step = isinstance(idempotency_key, Once)
        if isinstance(idempotency_key, Once):
            await idempotency_key.leaves()
            idempotency_key = idempotency_key.key
        if idempotency_key is not None:
            params["idempotency_key"] = idempotency_key
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                while True:
                    tries += 1
                    try:
                        response = await self._client.raw_request_async(method, path, **params)
                        replayed = response.headers.get("idempotent-replayed") == "true"
                        return Answer(_read(response), _date(response.headers), replayed)
                    except stripe.StripeError as error:
                        if is_rate_refusal(error):
                            await self._slow_down()
                        refused = error
                        attempt = attempt_of(error, has_open_try=has_open_try)
                        failure = _failure(error, attempt if is_write else None, is_step=is_step)
                        if tries >= _ATTEMPTS or not is_retryable(error, is_write=is_write):
                            raise failure from error
                        has_open_try = attempt.leaves_unanswered(before=has_open_try)
                    await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2 ** (tries - 1) * random.uniform(0.5, 1.0))  # noqa: S311
                    try:
                        await self._acquire(endpoint)
                    except BillingError:
                        # What the first try left open is still open: that is what the caller has to know.
                        raise failure from refused
        except TimeoutError as error:
            if not is_write:
                raise ServiceUnavailable("Stripe does not answer in time.", retry_after=2) from error
            unknown = StripeOutcomeUnknown(retry_after=2)
            if is_step:
                raise AttemptFailed(Attempt(Outcome.NO_ANSWER), unknown) from error
            raise unknown from error

    async def _acquire(self, endpoint: str) -> None:
        if self._budget is not None:
            await self._budget.acquire(self._work, endpoint)

    async def _slow_down(self) -> None:
        # Without the database no call is granted either, so there is no rate to lower.
        with suppress(BillingError):
            if self._budget is not None:
                await self._budget.slow_down()


def _failure(error: stripe.StripeError, attempt: Attempt | None, *, is_step: bool) -> Exception:
    """The error of one try; an absence has its moment as well. `attempt` is None for a read."""
    failed = translate(error) if attempt is None else write_error(error, attempt)
    if isinstance(failed, NotFound):
        failed.at = _date({name.lower(): value for name, value in (error.headers or {}).items()})
    return failed if attempt is None or not is_step else AttemptFailed(attempt, failed)


def _date(headers: Mapping[str, str]) -> int:
    """0 where there is none; such an answer is not applied, for older events would pass for newer ones."""
    value = headers.get("date")
    if not value:
        return 0
    try:
        return int(email.utils.parsedate_to_datetime(value).timestamp())
    except ValueError:
        return 0
