"""One Stripe client a process: pinned version, bounded time, our own retries, plain data out.

The SDK retries nothing by default and never a bare 429, waits 80 s, and spends 50 times a JSON parse on building its
objects; so calls go through its raw request (same errors, same encoding, no objects) with the rules below.
"""

from __future__ import annotations

import asyncio
import copy
import email.utils
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar, cast

import httpx
import orjson
import stripe

from app.errors import BillingError, NotFound, ServiceUnavailable, StripeOutcomeUnknown
from app.stripe.attempts import Attempt, Outcome
from app.stripe.budget import Budget, Work, endpoint_of
from app.stripe.translate import attempt_of, is_rate_refusal, is_retryable, translate, write_error

# With STRIPE_LOG in the environment the SDK prints what it sends and gets, whatever this process may log.
stripe._util.STRIPE_LOG = None

API_VERSION = "2026-10-28.endive"
CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 10.0
_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.2

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Answer:
    """`at` is the second of the response's Date header: no change after it can be missing from `data` unnoticed.

    `replayed`: Stripe kept this answer under its idempotency key, so it tells of the past and not of now.
    """

    data: Mapping[str, Any]
    at: int
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """The rate budget's permission for one call to an endpoint, which the call has to follow at once."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class Tried(Generic[Result]):
    """One attempt of a write: what became of it, and what Stripe answered or the error for the write's caller."""

    attempt: Attempt
    result: Result | None = None
    error: BillingError | None = None


@dataclass(frozen=True, slots=True)
class Write(Generic[Result]):
    """A write that is ready to be sent, as often as its key allows.

    `read` makes the result of Stripe's answer; `absent`, if there is one, makes it of the second of a 404.
    """

    client: StripeClient
    method: str
    path: str
    params: Mapping[str, Any]
    read: Callable[[Answer], Result]
    absent: Callable[[int], Result] | None = None

    async def grant(self) -> Grant:
        """Wait for the rate budget. Raises ServiceUnavailable if it has no place: nothing was sent."""
        return await self.client.grant(self.method, self.path)

    async def attempt(self, grant: Grant, key: str) -> Tried[Result]:
        """Send it with its idempotency key. What Stripe answers, or does not, is returned and never raised."""
        try:
            answer = await self.client.send(grant, self.method, self.path, self.params, key=key)
        except AttemptFailed as failed:
            if self.absent is None or not isinstance(failed.error, NotFound):
                return Tried(failed.attempt, error=failed.error)
            return Tried(failed.attempt, self.absent(failed.error.at))
        outcome = Outcome.REPLAYED if answer.replayed else Outcome.ACCEPTED
        return Tried(Attempt(outcome, is_replay=answer.replayed), self.read(answer))

    async def now(self, key: str) -> Result:
        """Send it as a write that is no step of an operation. Raises BillingError."""
        tried = await self.attempt(await self.grant(), key)
        if tried.error is not None:
            raise tried.error
        return cast("Result", tried.result)


class AttemptFailed(Exception):
    """A write that did not succeed: what became of the attempt, and the error for its caller."""

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
        return await self._read_only("get", path, params or {})

    async def post_safely(self, path: str, params: Mapping[str, Any]) -> Answer:
        """A POST that changes nothing (a preview): retried and reported like a read."""
        return await self._read_only("post", path, params)

    async def post(self, path: str, params: Mapping[str, Any], *, idempotency_key: str) -> Answer:
        return await Write(self, "post", path, params, read=_as_it_came).now(idempotency_key)

    async def grant(self, method: str, path: str) -> Grant:
        endpoint = endpoint_of(method, path)
        await self._acquire(endpoint)
        return Grant(endpoint)

    async def send(
        self, grant: Grant, method: str, path: str, params: Mapping[str, Any], *, key: str
    ) -> Answer:
        """Send a write that has its grant. Raises AttemptFailed, also if its answer is lost."""
        try:
            return await self._call(grant, method, path, {**params, "idempotency_key": key}, is_write=True)
        except TimeoutError as error:
            lost = Attempt(Outcome.NO_ANSWER)
            raise AttemptFailed(lost, StripeOutcomeUnknown(retry_after=2)) from error

    async def _read_only(self, method: str, path: str, params: Mapping[str, Any]) -> Answer:
        grant = await self.grant(method, path)
        try:
            return await self._call(grant, method, path, dict(params), is_write=False)
        except TimeoutError as error:
            raise ServiceUnavailable("Stripe does not answer in time.", retry_after=2) from error

    async def _call(
        self, grant: Grant, method: str, path: str, params: dict[str, Any], *, is_write: bool
    ) -> Answer:
        """Call, and try again what may be. Raises the translated error, for a write as AttemptFailed, or TimeoutError.

        The clock starts here, after the wait for the grant.
        """
        tries = 0
        has_open_try = False
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
                    failure = _failure(error, attempt if is_write else None)
                    if tries >= _ATTEMPTS or not is_retryable(error, is_write=is_write):
                        raise failure from error
                    has_open_try = attempt.leaves_unanswered(before=has_open_try)
                await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2 ** (tries - 1) * random.uniform(0.5, 1.0))  # noqa: S311
                try:
                    await self._acquire(grant.endpoint)
                except BillingError:
                    # What the first try left open is still open: that is what the caller has to know.
                    raise failure from refused

    async def _acquire(self, endpoint: str) -> None:
        if self._budget is not None:
            await self._budget.acquire(self._work, endpoint)

    async def _slow_down(self) -> None:
        # Without the database no call is granted either, so there is no rate to lower.
        with suppress(BillingError):
            if self._budget is not None:
                await self._budget.slow_down()


def _failure(error: stripe.StripeError, attempt: Attempt | None) -> Exception:
    """The error of one try; an absence has its moment as well. `attempt` is None for a read."""
    failed = translate(error) if attempt is None else write_error(error, attempt)
    if isinstance(failed, NotFound):
        failed.at = _date({name.lower(): value for name, value in (error.headers or {}).items()})
    return failed if attempt is None else AttemptFailed(attempt, failed)


def _as_it_came(answer: Answer) -> Answer:
    return answer


def _date(headers: Mapping[str, str]) -> int:
    """0 where there is none; such an answer is not applied, for older events would pass for newer ones."""
    value = headers.get("date")
    if not value:
        return 0
    try:
        return int(email.utils.parsedate_to_datetime(value).timestamp())
    except ValueError:
        return 0
