"""The ASGI application: Stripe's API and the simulator's own controls."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Mount

from .control import Control
from .lifecycle import run_due
from .server import Api, Engine

logger = logging.getLogger("stripe_simulator.clock")

TICK_SECONDS = 0.5


async def _tick(engine: Engine) -> None:
    """Does what falls due as an account's clock runs on by itself."""
    while True:
        await asyncio.sleep(TICK_SECONDS)
        for world in list(engine.worlds.by_key.values()):
            try:
                run_due(world, engine.commit, world.clock.now())
            except Exception:
                logger.exception("the clock of %s failed", world.account_id)


def build(engine: Engine) -> Starlette:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        engine.deliveries.start()
        ticking = asyncio.get_running_loop().create_task(_tick(engine))
        yield
        ticking.cancel()
        for task in list(engine.background):
            task.cancel()
        await engine.deliveries.stop()
        engine.worlds.journal.close()

    control, api = Control(engine), Api(engine)
    return Starlette(routes=[Mount("/_simulator", app=control), Mount("/", app=api)], lifespan=lifespan)
