"""Routes for machines: liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi import Response as Given
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from app.context import Context
from app.errors import NotFound, Unauthenticated
from app.http import problems
from app.http.dependencies import ContextDep, SettingsDep
from app.operating import gauges, process, readiness
from app.operating.schemas import Liveness, Readiness

router = APIRouter(tags=["machines"])
T = TypeVar("T")
_DOUBLED: dict[int | str, dict[str, Any]] = {400: problems.responses()[400]}
_UNKEPT = {"Cache-Control": "no-store"}


class SingleFlight:
    """Runs one check at a time and shares its result.

    All callers that arrive while it runs get the result. So a flood of probes uses one database connection.
    """

    def __init__(self) -> None:
        self._running: dict[int, asyncio.Task[Any]] = {}

    async def __call__(self, check: Callable[[Context], Coroutine[Any, Any, T]], context: Context) -> T:
        """Return the result of the running check, or start one."""
        task: asyncio.Task[T] | None = self._running.get(id(context))
        if task is None or task.done():
            task = self._running[id(context)] = asyncio.create_task(check(context))
        # `shield`: the caller that began the check may disconnect while others wait for it.
        return await asyncio.shield(task)


_checking, _counting = SingleFlight(), SingleFlight()


@router.get("/healthz", responses=_DOUBLED)
async def healthz(response: Given) -> Liveness:
    """Answer 200 as long as the process runs.

    It does not check the parts that the process depends on.
    """
    response.headers.update(_UNKEPT)
    return Liveness(status="ok")


@router.get(
    "/readyz",
    response_model=Readiness,
    responses={**_DOUBLED, 503: {"model": Readiness, "description": "Not ready"}},
)
async def readyz(request: Request, context: ContextDep) -> Response:
    """Answer 200 if the process can answer reads and accept deliveries, otherwise 503.

    While only Stripe does not answer, that is so: the status is `degraded`, and the answer 200.
    """
    ready: readiness.Readiness = request.app.state.readiness
    # Probes are answered together, except in a process that ends: its balancer has to learn of it at once.
    checks = await (ready.check(context) if ready.is_draining else _checking(ready.check, context))
    states = {check.state for check in checks.values()}
    status = "unavailable" if "failed" in states else "degraded" if "degraded" in states else "ok"
    found = Readiness.model_validate(
        {"status": status, "checks": {name: check._asdict() for name, check in checks.items()}}
    )
    code = 503 if status == "unavailable" else 200
    return JSONResponse(found.model_dump(by_alias=True), code, headers=_UNKEPT)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request, context: ContextDep, settings: SettingsDep) -> Response:
    """Return the metrics in Prometheus' format.

    They need the bearer token METRICS_TOKEN if it is set. If metrics are off, the answer is that of an unknown path.
    """
    if not settings.shows_metrics:
        raise NotFound()
    token = None if settings.metrics_token is None else settings.metrics_token.get_secret_value()
    if not process.may_read_metrics(request.headers.get("authorization", "").encode(), token):
        raise Unauthenticated()
    process.show_build()
    process.show_load(
        context.database, request.app.state.places, deliveries=request.app.state.webhook.working
    )
    return Response(await _counting(_metrics_text, context), media_type=CONTENT_TYPE_LATEST, headers=_UNKEPT)


async def _metrics_text(context: Context) -> bytes:
    # The text is made once for all concurrent callers: with many routes it blocks the event loop for milliseconds.
    await gauges.update(context)
    return generate_latest()
