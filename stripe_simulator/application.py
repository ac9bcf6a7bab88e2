"""The ASGI application: Stripe's API and the simulator's own controls."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Mount

from .control import Control
from .server import Api, Engine


def build(engine: Engine) -> Starlette:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        engine.deliveries.start()
        yield
        for task in list(engine.background):
            task.cancel()
        await engine.deliveries.stop()
        engine.worlds.journal.close()

    control, api = Control(engine), Api(engine)
    return Starlette(routes=[Mount("/_simulator", app=control), Mount("/", app=api)], lifespan=lifespan)
