"""The long-running processes: API and worker, ended gracefully by SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import signal

import uvicorn

from app import worker
from app.commands.child_processes import watch_parent
from app.commands.logs import configure_logs
from app.main import create_app, open_context
from app.settings import Settings, parent_pipe

GRACE_SECONDS = 15


def serve_api(settings: Settings) -> None:
    """One process of the API; start several behind one address for more cores."""
    watch_parent(parent_pipe())
    configure_logs(settings.log_level)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=32 * 1024,
    )


def run_worker(settings: Settings) -> None:
    watch_parent(parent_pipe())
    configure_logs(settings.log_level)
    asyncio.run(_work_until_stopped(settings))


async def _work_until_stopped(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    async with open_context(settings) as context:
        await worker.work(context, stop)
