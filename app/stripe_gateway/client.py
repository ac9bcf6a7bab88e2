"""One Stripe client a process: pinned version, bounded time, our own retries, plain data out.

The SDK retries nothing by default and never a bare 429, waits 80 s, and spends 50 times a JSON parse on building its
objects; so calls go through its raw request (same errors, same encoding, no objects) with the rules below.
"""

from __future__ import annotations

import asyncio
import copy
import email.utils
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import httpx
import stripe

from app.errors import BillingError, NotFound, ServiceUnavailable, StripeOutcomeUnknown
from app.stripe_gateway.budget import Budget, Work, endpoint_of
from app.stripe_gateway.translate import is_rate_refusal, is_retryable, translate

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


class StripeClient:
    def __init__(self, api_key: str, *, api_base: str | None, budget: Budget | None = None) -> None:
        """`budget`: shared with every other process that calls the account; None where there is none."""
        self._budget = budget
        self._work: Work = "interactive"
        stripe.enable_telemetry = False
        timeout = httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
        self._http = stripe.HTTPXClient(timeout=timeout)
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

    async def post(self, path: str, params: Mapping[str, Any], *, idempotency_key: str) -> Answer:
        return await self._call("post", path, dict(params), idempotency_key=idempotency_key)

    async def post_safely(self, path: str, params: Mapping[str, Any]) -> Answer:
        """A POST that changes nothing (a preview): retried and reported like a read."""
        return await self._call("post", path, dict(params), idempotency_key=None, is_write=False)

    async def delete(self, path: str, params: Mapping[str, Any], *, idempotency_key: str) -> Answer:
        return await self._call("delete", path, dict(params), idempotency_key=idempotency_key)

    async def _call(
        self,
        method: str,
        path: str,
        params: dict[str, Any],
        *,
        idempotency_key: str | None,
        is_write: bool = True,
    ) -> Answer:
        """Raises the translated error; a write whose answer is lost raises StripeOutcomeUnknown.

        Waiting for the first grant of the budget comes before the clock starts: nothing is sent until then.
        """
        if idempotency_key is not None:
            params["idempotency_key"] = idempotency_key
        endpoint = endpoint_of(method, path)
        attempt = 0
        await self._acquire(endpoint)
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                while True:
                    attempt += 1
                    try:
                        response = await self._client.raw_request_async(method, path, **params)
                        replayed = response.headers.get("idempotent-replayed") == "true"
                        return Answer(response.data, _date(response.headers), replayed)
                    except stripe.StripeError as error:
                        if is_rate_refusal(error):
                            await self._slow_down()
                        refused = error
                        if attempt >= _ATTEMPTS or not is_retryable(error, is_write=is_write):
                            raise _dated(translate(error, is_write=is_write), error) from error
                    await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))  # noqa: S311
                    try:
                        await self._acquire(endpoint)
                    except BillingError:
                        # What the first attempt left open is still open: that is what the caller has to know.
                        raise translate(refused, is_write=is_write) from refused
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


def _dated(translated: BillingError, error: stripe.StripeError) -> BillingError:
    """An absence has its moment as well: what is older does not undo it."""
    if isinstance(translated, NotFound):
        translated.at = _date(error.headers or {})
    return translated


def _date(headers: Mapping[str, str]) -> int:
    """0 where there is none; such an answer is not applied, for older events would pass for newer ones."""
    value = headers.get("date")
    if not value:
        return 0
    try:
        return int(email.utils.parsedate_to_datetime(value).timestamp())
    except ValueError:
        return 0
