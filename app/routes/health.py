"""Machines' questions: is the process alive, may it be sent work, what does it count."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from app.routes.dependencies import ContextDep
from app.schemas.health import Liveness, Readiness
from app.services import gauges, readiness

router = APIRouter(tags=["machines"])


@router.get("/healthz")
async def healthz() -> Liveness:
    """The process answers; it says nothing of what it depends on."""
    return Liveness(status="ok")


@router.get(
    "/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "Not ready"}}
)
async def readyz(context: ContextDep) -> Response:
    """200 when database, migrations, Stripe's credential and the account all hold; else 503 and which does not."""
    checks = await readiness.check(context)
    ready = all(value == "ok" for value in checks.values())
    found = Readiness(status="ok" if ready else "unavailable", checks=checks)
    return JSONResponse(found.model_dump(), 200 if ready else 503)


@router.get("/metrics", include_in_schema=False)
async def metrics(context: ContextDep) -> Response:
    await gauges.update(context)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
