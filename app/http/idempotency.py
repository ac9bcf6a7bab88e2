"""Store the answer of a write under its `Idempotency-Key`, and replay it.

An answer is stored for 24 h, per principal and route. Answers with 5xx or 401, and those of RateLimited, are not
stored. They decide nothing about the request, so it may be sent again with the same key.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from app.errors import BillingError, Conflict, FieldError, InvalidRequest, RateLimited, ServiceUnavailable
from app.http import absent_bodies, problems
from app.http.dependencies import get_context, principal_of
from app.http.in_flight import WritesInFlight
from app.http.operation_ids import digits_of
from app.http.store import idempotency
from app.http.strict_json import StrictRequest
from app.http.strict_queries import Handler, StrictQueryRoute
from app.identity.principals import Anonymous
from app.postgres.database import Connection, Database

log = structlog.get_logger(__name__)

_LONGEST_KEY = 255
_KEPT_HEADERS = ("content-type", "location", "retry-after", "etag")
_SETTLE_SECONDS = 50.0
"""Less than the minute after which another request may claim the key."""
_SETTLE_PAUSE_SECONDS = 1.0
_DECIDED_NOTHING = "operation_in_progress"
_SERVER_ERROR = 500

_Settling = Callable[[Connection], Coroutine[Any, Any, None]]

_settlings: set[asyncio.Task[None]] = set()
"""Tasks that store the answer of a key, or release it, once the database takes writes again."""


class IdempotentRoute(StrictQueryRoute):
    """The route class of routers that have writes.

    A write's body is parsed by `strict_json`, or refused if the route takes none, and its answer is stored under its
    key. `If-Match` is refused by a write that does not answer 412. A GET is not changed.
    """

    def around(self, handler: Handler) -> Handler:
        """Return the handler, wrapped for a write."""
        methods = sorted(self.methods or ())
        if "GET" in methods:
            return handler
        route = f"{methods[0]} {self.path_format}"

        async def guarded(original: Request) -> Response:
            request = StrictRequest(original.scope, original.receive)
            in_flight: WritesInFlight = original.app.state.in_flight
            try:
                if HTTPStatus.PRECONDITION_FAILED not in self.responses:
                    _refuse_if_match(request)
                if self.body_field is None:
                    await absent_bodies.check(request)
                key = request.headers.get("idempotency-key")
                if key is None:
                    return await handler(request)
                return await _once(request, self, route, _checked(key), handler)
            finally:
                in_flight.end(original.scope)

        return guarded

    def to_store(self, body: bytes) -> bytes:
        """Return what is stored of an answer's body. A route whose answers hold a secret leaves the secret out."""
        return body

    def to_replay(self, request: Request, body: bytes) -> bytes:
        """Return the body that a replay sends, made from what `to_store` returned."""
        return body


def _refuse_if_match(request: Request) -> None:
    """Raise InvalidRequest for an `If-Match`: if it were ignored, its sender would believe that it was judged."""
    if "if-match" in request.headers:
        detail = "This route does not judge If-Match. Leave it out."
        raise InvalidRequest(detail, errors=[FieldError("header/If-Match", "invalid", detail)])


def _checked(key: str) -> str:
    if not 1 <= len(key) <= _LONGEST_KEY or not key.isascii() or not key.isprintable():
        detail = f"Idempotency-Key must be 1 to {_LONGEST_KEY} printable ASCII characters, such as a UUID."
        raise InvalidRequest(detail, errors=[FieldError("header/Idempotency-Key", "invalid", detail)])
    return key


async def _once(request: Request, rules: IdempotentRoute, route: str, key: str, handler: Handler) -> Response:
    caller = await principal_of(request)
    if isinstance(caller, Anonymous):
        # The handler refuses this caller. A caller without a credential must not be able to add rows.
        return await handler(request)
    principal = caller.key
    database = get_context(request).database
    asked = await _hash_of(request)
    digits = await digits_of(request, caller, key)
    async with database.connection() as connection:
        found = await idempotency.claim(connection, principal, route, key, asked, digits=digits)
    if isinstance(found, idempotency.StoredAnswer):
        return _replayed(request, found, asked, rules)
    request.scope["state"]["key_reused_at"] = found.reused_at
    try:
        response = await _answered(request, handler)
    except BaseException:
        await _settle(database, _forgetting(found))
        raise
    is_kept = response.status_code < _SERVER_ERROR and response.status_code != 401
    await _settle(database, _storing(found, response, rules) if is_kept else _forgetting(found))
    return response


async def _hash_of(request: Request) -> bytes:
    """Return the hash of what the key stands for."""
    parts = [request.url.path.encode(), request.url.query.encode(), await request.body()]
    if (match := request.headers.get("if-match")) is not None:
        parts.append(match.encode())
    return hashlib.sha256(b"\n".join(parts)).digest()


def _storing(claim: idempotency.Claim, response: Response, rules: IdempotentRoute) -> _Settling:
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return partial(
        idempotency.store,
        claim=claim,
        status=response.status_code,
        headers=headers,
        body=rules.to_store(bytes(response.body)),
    )


def _forgetting(claim: idempotency.Claim) -> _Settling:
    return partial(idempotency.forget, claim=claim)


async def _settle(database: Database, settling: _Settling) -> None:
    """Store the answer of a key or release it, now or as soon as the database takes writes again.

    Otherwise a request that is sent again would be told that the first one is still running. What was done is answered
    in any case: a caller who is told to send it again would have it done twice.
    """
    try:
        async with database.connection() as connection:
            await settling(connection)
    except ServiceUnavailable:
        task = asyncio.create_task(_settle_later(database, settling))
        _settlings.add(task)
        task.add_done_callback(_settlings.discard)


async def _settle_later(database: Database, settling: _Settling) -> None:
    give_up = asyncio.get_running_loop().time() + _SETTLE_SECONDS
    while asyncio.get_running_loop().time() < give_up:
        await asyncio.sleep(_SETTLE_PAUSE_SECONDS)
        try:
            async with database.connection() as connection:
                await settling(connection)
        except ServiceUnavailable as error:
            log.info("key_not_settled", reason=error.code)
        else:
            return


async def drain() -> None:
    """End the tasks that settle keys; at shutdown. After a minute such a key is free in any case."""
    for task in _settlings:
        task.cancel()
    await asyncio.gather(*_settlings, return_exceptions=True)


async def _answered(request: Request, handler: Handler) -> Response:
    """Return the handler's answer.

    A refusal is rendered here, so that it is stored as well. One that only asks to send the request again is raised.
    """
    try:
        return await handler(request)
    except RateLimited:
        raise
    except BillingError as error:
        if error.code == _DECIDED_NOTHING:
            raise
        return problems.render(error, request)
    except RequestValidationError as error:
        return problems.render(problems.from_validation(error.errors()), request)


def _replayed(
    request: Request, stored: idempotency.StoredAnswer, asked: bytes, rules: IdempotentRoute
) -> Response:
    if stored.request_hash != asked:
        raise InvalidRequest(
            "This Idempotency-Key was used for another request. Use a new key for each request.",
            code="idempotency_key_reused",
        )
    if stored.status is None:
        raise Conflict(
            "The first request with this Idempotency-Key is still running. Send it again after Retry-After.",
            code="request_in_progress",
            retry_after=1,
        )
    headers = {**stored.headers, "Cache-Control": "no-store", "Idempotency-Replayed": "true"}
    return Response(rules.to_replay(request, stored.body), stored.status, headers)
