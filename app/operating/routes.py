"""Machines' questions: is the process alive, may it be sent work, what does it count."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi import Response as Given
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from app.context import Context
from app.errors import NotFound, Unauthenticated
from app.http.dependencies import ContextDep, SettingsDep
from app.operating import gauges, readiness
from app.operating.schemas import Liveness, Readiness

router = APIRouter(tags=["machines"])
T = TypeVar("T")
_UNKEPT = {"Cache-Control": "no-store"}


class SingleFlight:
    """One look at a time, whose outcome all who asked meanwhile are told: a flood of probes costs one connection."""

    def __init__(self) -> None:
        self._running: dict[int, asyncio.Task[Any]] = {}

    async def __call__(self, look: Callable[[Context], Coroutine[Any, Any, T]], context: Context) -> T:
        task: asyncio.Task[T] | None = self._running.get(id(context))
        if task is None or task.done():
            task = self._running[id(context)] = asyncio.create_task(look(context))
        # Shielded: the one who began it may go away while others wait for it.
        return await asyncio.shield(task)


_checking, _counting = SingleFlight(), SingleFlight()


@router.get("/healthz")
async def healthz(response: Given) -> Liveness:
    """The process answers; it says nothing of what it depends on."""
    response.headers.update(_UNKEPT)
    return Liveness(status="ok")


@router.get(
    "/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "Not ready"}}
)
async def readyz(context: ContextDep) -> Response:
    """200 when database, migrations, Stripe's credential and the account all hold; else 503 and which does not."""
    checks = await _checking(readiness.check, context)
    ready = all(value == "ok" for value in checks.values())
    found = Readiness(status="ok" if ready else "unavailable", checks=checks)
    return JSONResponse(found.model_dump(), 200 if ready else 503, headers=_UNKEPT)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request, context: ContextDep, settings: SettingsDep) -> Response:
    """As if it were not there where it is off; with `METRICS_TOKEN`, for its bearer alone."""
    if not settings.shows_metrics:
        raise NotFound()
    if (token := settings.metrics_token) is not None:
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {token.get_secret_value()}".encode()):
            raise Unauthenticated()
    return Response(await _counting(_figures, context), media_type=CONTENT_TYPE_LATEST, headers=_UNKEPT)


async def _figures(context: Context) -> bytes:
    # Written out once for all who ask at the same time: with many routes it holds the loop for milliseconds.
    await gauges.update(context)
    return generate_latest()
