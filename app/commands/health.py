"""Ask the process of this container or machine whether it lives, for the health check of an image.

An API process answers /healthz on its port. A worker has a port only with WORKER_PORT; otherwise its reports in the
database say whether it works. If the database does not answer, or takes no writes and so no reports, a worker counts
as alive: it waits, and a restart would not help.
"""

from __future__ import annotations

import asyncio
import socket

import httpx

from app.errors import BillingError
from app.operating import workers_store
from app.postgres.database import Database
from app.settings import Settings

_SECONDS = 2.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to ask a process that listens on all addresses


def problem(settings: Settings) -> str | None:
    """Return None if the process lives, otherwise what is wrong."""
    for port in (settings.port, settings.worker_port):
        if port:
            answered = _answers(settings.host, port)
            if answered is not None:
                return None if answered else f"The process at port {port} does not answer /healthz."
    if settings.database_url is None:
        return f"Nothing listens on port {settings.port}, and no DATABASE_URL tells where a worker reports."
    return asyncio.run(_worker_problem(settings))


def _answers(host: str, port: int) -> bool | None:
    """Return whether /healthz is answered, None if nothing listens."""
    address = _EVERYWHERE.get(host, host)
    shown = f"[{address}]" if ":" in address else address
    try:
        with httpx.Client(trust_env=False, timeout=_SECONDS) as client:
            return client.get(f"http://{shown}:{port}/healthz").status_code == httpx.codes.OK
    except httpx.ConnectError:
        return None
    except httpx.HTTPError:
        return False


async def _worker_problem(settings: Settings) -> str | None:
    host = socket.gethostname()
    try:
        database = await Database.of(settings, pool_size=1)
        try:
            async with database.reading() as connection:
                found = await workers_store.workers(connection, host=host)
            if found.number or not await workers_store.can_report(database):
                return None
        finally:
            await database.close()
    except BillingError:
        return None
    if found.last is None:
        return f"Nothing listens on port {settings.port}, and no worker of the host {host} has reported."
    return f"The worker of the host {host} reported {found.last:.0f} seconds ago for the last time."
