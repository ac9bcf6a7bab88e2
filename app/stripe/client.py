"""Call Stripe with a pinned version, a time limit, retries and the rate budget, and return plain data.

By default the SDK retries nothing and waits 80 s, and building its objects takes 50 times as long as parsing the JSON.
So calls use its raw request: same errors and encoding, no objects. See
docs/decisions/0026-send-raw-requests-through-the-official-sdk.md.
"""

from __future__ import annotations

import asyncio
import copy
import email.utils
import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar, cast

import httpx
import stripe

from app.errors import BillingError, Conflict, NotFound, ServiceUnavailable, StripeOutcomeUnknown
from app.stripe import metrics
from app.stripe.attempts import Attempt, Outcome
from app.stripe.breaker import OVERDUE_SECONDS, Breaker, Breakers, Failure, StripeAway
from app.stripe.budget import KIND_OF, Budget, Work, endpoint_of, subject_of
from app.stripe.clock import StripeClock
from app.stripe.rate_refusals import RateRefusals
from app.stripe.translate import (
    attempt_of,
    is_rate_refusal,
    is_retryable,
    outcome_of,
    shows_stripe_away,
    translate,
    write_error,
)
from app.stripe.transport import Transport, read_body

# If STRIPE_LOG is set in the environment, the SDK prints requests and responses regardless of our log settings.
stripe._util.STRIPE_LOG = None

API_VERSION = "2026-10-28.endive"
CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 7.0
"""Longest time of one call with its retries. It is shorter than `OPERATION_DEADLINE`, so that a caller learns more."""
_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.2
_PROBE = "probe"
_numbers = itertools.count()

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. `at` is the Unix second of its Date header, 0 without one; `data` shows every change before it.

    `replayed` is True if Stripe had stored the response under its idempotency key, so it may show an old state.
    """

    data: Mapping[str, Any]
    at: int
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """The rate budget's permission for one call to an endpoint, which the call has to follow at once.

    `subject`: the object that the call is about, or a name of its own for a call about no single object.
    """

    endpoint: str
    subject: str


@dataclass(frozen=True, slots=True)
class Tried(Generic[Result]):
    """The outcome of one attempt of a write, with its result or with the error for the caller."""

    attempt: Attempt
    result: Result | None = None
    error: BillingError | None = None


@dataclass(frozen=True, slots=True)
class Write(Generic[Result]):
    """A write that is ready to be sent, once or several times with the same key.

    `read` converts Stripe's answer into the result. `absent`, if given, converts the Unix second of a 404.
    """

    client: StripeClient
    method: str
    path: str
    params: Mapping[str, Any]
    read: Callable[[Answer], Result]
    absent: Callable[[int], Result] | None = None

    async def grant(self) -> Grant:
        """Wait for the rate budget; nothing was sent if it raises.

        Raises:
            ServiceUnavailable: No call may begin in time, or Stripe is away.
            Conflict: `operation_expired`: the client was opened to send no write.
        """
        if not self.client.writes:
            raise Conflict("An operator ended the operation, so this is not sent.", code="operation_expired")
        return await self.client.grant(self.method, self.path, self.params)

    async def attempt(self, grant: Grant, key: str) -> Tried[Result]:
        """Send the write with its idempotency key, and return the outcome.

        Raises:
            MalformedObject: `read` cannot convert the answer of an accepted write.
        """
        try:
            answer = await self.client.send(grant, self.method, self.path, self.params, key=key)
        except AttemptFailed as failed:
            if self.absent is None or not isinstance(failed.error, NotFound):
                return Tried(failed.attempt, error=failed.error)
            return Tried(failed.attempt, self.absent(failed.error.at))
        outcome = Outcome.REPLAYED if answer.replayed else Outcome.ACCEPTED
        return Tried(Attempt(outcome, is_replay=answer.replayed), self.read(answer))

    async def now(self, key: str) -> Result:
        """Send a write that is no step of an operation, and return its result.

        Raises:
            BillingError: the budget has no grant, or the attempt failed; see `app.stripe.translate`.
            MalformedObject: `read` cannot convert the answer.
        """
        tried = await self.attempt(await self.grant(), key)
        if tried.error is not None:
            raise tried.error
        return cast("Result", tried.result)


class AttemptFailed(Exception):
    """Raised when a write did not succeed: `attempt` is its outcome, `error` the error for the caller."""

    def __init__(self, attempt: Attempt, error: BillingError) -> None:
        super().__init__(error.detail)
        self.attempt = attempt
        self.error = error


class StripeClient:
    """The process's client of one Stripe account.

    Reads raise NotFound, ServiceUnavailable (also without a grant), PaymentRequired, StripeRejected and further errors
    of `app.stripe.translate.translate`. Writes raise those too, and in addition StripeErrorStored and
    StripeOutcomeUnknown, after which the write may have taken effect.
    """

    def __init__(
        self,
        api_key: str,
        *,
        api_base: str | None,
        budget: Budget | None = None,
        breakers: Breakers | None = None,
        writes: bool = True,
    ) -> None:
        """Create a client for `api_base`, or for Stripe itself.

        `budget` is shared by all processes of the account, `breakers` by all that this process does. Without `writes`
        every write is refused.
        """
        self.writes = writes
        self._budget = budget
        self._breakers = breakers or Breakers()
        self._breakers.probe_by(self._is_answered)
        self._refusals = RateRefusals()
        self.clock = StripeClock()
        self._work: Work = "interactive"
        stripe.enable_telemetry = False
        timeout = httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
        self._http = Transport(timeout=timeout)
        self._client = stripe.StripeClient(
            api_key,
            stripe_version=API_VERSION,
            http_client=self._http,
            max_network_retries=0,
            base_addresses={"api": api_base} if api_base else {},
        )

    def doing(self, work: Work) -> Self:
        """Return the same client with calls that count as `work`, in the budget and for the breakers."""
        other = copy.copy(self)
        other._work = work
        return other

    @property
    def _breaker(self) -> Breaker:
        return self._breakers[KIND_OF[self._work]]

    async def close(self) -> None:
        """Close the connections to Stripe."""
        await self._breakers.stop()
        await self._http.close_async()  # type: ignore[no-untyped-call]  # the SDK leaves it unannotated

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Answer:
        """Read an object or a list."""
        return await self._read_only("get", path, params or {})

    async def post_safely(self, path: str, params: Mapping[str, Any]) -> Answer:
        """Send a POST that changes nothing, such as a preview. It is retried and reported like a read."""
        return await self._read_only("post", path, params)

    async def post(self, path: str, params: Mapping[str, Any], *, idempotency_key: str) -> Answer:
        """Send a write that is no step of an operation."""
        return await Write(self, "post", path, params, read=_as_it_came).now(idempotency_key)

    async def grant(self, method: str, path: str, params: Mapping[str, Any]) -> Grant:
        """Wait for the rate budget's grant for one call. Raises ServiceUnavailable; nothing was sent."""
        self._breaker.admit()
        grant = Grant(endpoint_of(method, path), subject_of(path, params) or f"call {next(_numbers)}")
        await self._acquire(grant)
        return grant

    async def send(
        self, grant: Grant, method: str, path: str, params: Mapping[str, Any], *, key: str
    ) -> Answer:
        """Send a write that has its grant. Raises AttemptFailed, also if the answer is lost."""
        try:
            return await self._call(grant, method, path, {**params, "idempotency_key": key}, is_write=True)
        except TimeoutError as error:
            lost = Attempt(Outcome.NO_ANSWER)
            raise AttemptFailed(lost, StripeOutcomeUnknown(retry_after=2)) from error

    async def _read_only(self, method: str, path: str, params: Mapping[str, Any]) -> Answer:
        grant = await self.grant(method, path, params)
        try:
            return await self._call(grant, method, path, dict(params), is_write=False)
        except TimeoutError as error:
            if self._breaker.is_open:
                raise StripeAway() from error
            raise ServiceUnavailable("Stripe does not answer in time.", retry_after=2) from error

    async def _call(
        self, grant: Grant, method: str, path: str, params: dict[str, Any], *, is_write: bool
    ) -> Answer:
        """Call Stripe, with retries where `is_retryable` allows them.

        The limit of TOTAL_SECONDS starts here, after the wait for the grant. A read ends when the breaker opens. A
        write that was sent does not, because its outcome would not be known.

        Raises:
            BillingError: the translated error of a read.
            AttemptFailed: the outcome of a write that did not succeed.
            TimeoutError: no answer within TOTAL_SECONDS, or a read when the breaker opened.
        """
        tries = 0
        has_open_try = False
        async with asyncio.timeout(TOTAL_SECONDS) as limit:
            with nullcontext() if is_write else self._breaker.ending(limit):
                while True:
                    tries += 1
                    try:
                        return await self._try(grant, method, path, params)
                    except stripe.StripeError as error:
                        if is_rate_refusal(error):
                            await self._refused(grant)
                        refused = error
                        attempt = attempt_of(error, has_open_try=has_open_try)
                        failure = _failure(error, attempt if is_write else None)
                        if tries >= _ATTEMPTS or not is_retryable(error, is_write=is_write):
                            raise failure from error
                        has_open_try = attempt.leaves_unanswered(before=has_open_try)
                    await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2 ** (tries - 1) * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
                    try:
                        self._breaker.admit()
                        await self._acquire(grant)
                    except BillingError:
                        # A request of an earlier try may still run, so its outcome matters more than the missing grant.
                        raise failure from refused

    async def _try(self, grant: Grant, method: str, path: str, params: Mapping[str, Any]) -> Answer:
        """Send one request. Raises StripeError. Its outcome is counted, and a failure is reported to the breaker."""
        with self._watched(grant):
            began = time.time()
            response = await self._client.raw_request_async(method, path, **params)
            data = read_body(response)
        self._refusals.served(grant.subject)
        replayed = response.headers.get("idempotent-replayed") == "true"
        at = _date(response.headers)
        self.clock.note(at, began, time.time())
        return Answer(data, at, replayed)

    @contextmanager
    def _watched(self, grant: Grant) -> Iterator[None]:
        """Measure a request, and report it to the breaker if it fails or is overdue."""
        loop, breaker = asyncio.get_running_loop(), self._breaker
        overdue = loop.call_later(OVERDUE_SECONDS, breaker.failed, Failure(grant.subject, is_certain=True))
        began, outcome = loop.time(), "timeout"
        try:
            yield
            outcome = "ok"
            self._breakers.answered()
        except stripe.StripeError as error:
            outcome = outcome_of(error)
            is_certain = shows_stripe_away(error)
            if is_certain is not None and loop.time() - began < OVERDUE_SECONDS:
                breaker.failed(Failure(grant.subject, is_certain))
            raise
        finally:
            overdue.cancel()
            metrics.CALLS.labels(grant.endpoint, outcome).inc()
            metrics.SECONDS.labels(grant.endpoint).observe(loop.time() - began)

    async def _is_answered(self) -> bool:
        """Ask for the account, and return True if Stripe answers. It is the probe of the breakers."""
        grant = Grant("GET /v1/account", _PROBE)
        try:
            async with asyncio.timeout(OVERDUE_SECONDS):
                await self._acquire(grant)
                with self._watched(grant):
                    read_body(await self._client.raw_request_async("get", "/v1/account"))
        except stripe.StripeError as error:
            return shows_stripe_away(error) is None
        except (TimeoutError, BillingError):
            return False
        return True

    async def _acquire(self, grant: Grant) -> None:
        if pause := self._refusals.pause(grant.subject):
            await asyncio.sleep(pause)
        if self._budget is not None:
            await self._budget.acquire(self._work, grant.endpoint)

    async def _refused(self, grant: Grant) -> None:
        """Note a 429. The rate of all is lowered only if it is not about one object."""
        if not self._refusals.note(grant.subject):
            return
        # Without the database no call gets a grant either, so there is no rate to lower.
        with suppress(BillingError):
            if self._budget is not None:
                await self._budget.slow_down()


def _failure(error: stripe.StripeError, attempt: Attempt | None) -> Exception:
    """Return the error of one try, for a 404 with its date. `attempt` is None for a read."""
    failed = translate(error) if attempt is None else write_error(error, attempt)
    if isinstance(failed, NotFound):
        failed.at = _date({name.lower(): value for name, value in (error.headers or {}).items()})
    return failed if attempt is None else AttemptFailed(attempt, failed)


def _as_it_came(answer: Answer) -> Answer:
    return answer


def _date(headers: Mapping[str, str]) -> int:
    """Return the Unix second of the Date header, or 0 if it is missing or unreadable.

    A snapshot without a date is never applied, because older events would then be applied after it.
    """
    value = headers.get("date")
    if not value:
        return 0
    try:
        return int(email.utils.parsedate_to_datetime(value).timestamp())
    except ValueError:
        return 0
