"""The long-running processes, API and worker.

SIGTERM or SIGINT ends them gracefully. Each function imports its own modules, so that a worker loads no web framework:
it starts sooner and takes less memory.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog

from app import tracing
from app.commands.child_processes import watch_parent
from app.commands.contexts import checked_database
from app.commands.logs import configure_logs
from app.context import Context
from app.errors import StartRefused
from app.opening import open_context
from app.settings import Settings, parent_pipe
from app.sharing.rulebooks import RULEBOOKS

_log = structlog.get_logger(__name__)


def serve_api(settings: Settings, around: Callable[[Any], Any] | None = None) -> None:
    """Run one process of the API. To use more cores, start several behind one address.

    `around` returns the application that receives the requests instead, and passes them on to the API.

    Raises:
        SchemaRefused: This release cannot run on the database's schema.
        ServiceUnavailable: `database_unavailable`.
    """
    from app.commands.http_server import serve
    from app.main import create_app

    watch_parent(parent_pipe())
    configure_logs(settings.log_level)
    _warn_of_missing_keys(settings)
    if settings.verifies_every_email:
        _log.warning(
            "every_email_counts_as_verified",
            setting="AUTH_EMAIL_VERIFIED=always",
            detail="A seat that was given to an address goes to the first person who signs in with it. Nobody may be "
            "able to sign in to the identity provider before their address is confirmed.",
        )
    asyncio.run(_require_schema(settings))
    _trace(settings, "serve")
    app = create_app(settings)
    if settings.shows_docs:
        # Made at the first request, it would keep that one, and those beside it, waiting on a busy machine.
        app.state.document.make()
    try:
        serve(around(app) if around else app, settings, draining=app.state.draining)
    finally:
        tracing.shut_down()


def run_worker(settings: Settings) -> None:
    """Run one worker until it is stopped.

    Raises:
        SchemaRefused: This release cannot run on the database's schema.
        ServiceUnavailable: `database_unavailable`.
    """
    watch_parent(parent_pipe())
    configure_logs(settings.log_level)
    _warn_of_missing_keys(settings)
    _trace(settings, "worker")
    try:
        asyncio.run(_work_until_stopped(settings))
    finally:
        tracing.shut_down()


def _warn_of_missing_keys(settings: Settings) -> None:
    """Warn of what this process cannot do. A worker needs the keys as the API does: it sends what the API stored."""
    if not settings.invitation_signing_secrets:
        _log.warning(
            "invitations_unavailable",
            setting="INVITATION_SECRETS",
            detail="Nobody can be invited or accept an invitation until it is set, and a worker sends no invitation.",
        )
    if not settings.encryption_keys:
        _log.warning(
            "webhooks_unavailable",
            setting="WEBHOOK_ENCRYPTION_KEYS",
            detail="No webhook endpoint can be made until it is set, and a worker delivers no event.",
        )


def _trace(settings: Settings, process: str) -> None:
    """Begin to trace if a collector is configured. Raises StartRefused if the packages for it are missing."""
    if settings.otel_exporter_otlp_endpoint is None:
        return
    try:
        tracing.configure(settings.otel_exporter_otlp_endpoint, process=process)
    except tracing.TracingNotInstalled as error:
        raise StartRefused(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and the packages that send traces are missing. "
            "Install the extra `tracing`, or unset it."
        ) from error


async def _require_schema(settings: Settings) -> None:
    async with checked_database(settings):
        return


async def _work_until_stopped(settings: Settings) -> None:
    from app import worker
    from app.events.delivering import Deliverer, Patience
    from app.events.secrets import EndpointSecrets
    from app.events.sending import WebhookSender
    from app.sharing.invitation_tokens import InvitationTokens
    from app.sharing.sent_invitations import renderer

    await _require_schema(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    async with AsyncExitStack() as stack:
        context = await stack.enter_async_context(open_context(settings, RULEBOOKS, reads=1))
        if settings.worker_port is not None:
            await stack.enter_async_context(_worker_port(settings, context, settings.worker_port))
        sender = WebhookSender(live=settings.stripe_livemode, seconds=settings.webhook_timeout)
        await stack.enter_async_context(sender)
        render = renderer(context, InvitationTokens(settings.invitation_signing_secrets))
        secrets = EndpointSecrets(settings.encryption_keys)
        await worker.work(context, stop, Deliverer(context, sender, secrets, Patience.of(settings), render))


@asynccontextmanager
async def _worker_port(settings: Settings, context: Context, port: int) -> AsyncIterator[None]:
    """Answer /healthz and the worker's own metrics. Raises StartRefused."""
    from app.operating import process
    from app.operating.worker_port import WorkerPort

    process.show_build()
    token = None if settings.metrics_token is None else settings.metrics_token.get_secret_value()
    async with WorkerPort(context.database, token=token).open(settings.host, port):
        yield
