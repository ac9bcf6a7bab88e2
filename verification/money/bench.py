"""What costs time to build and keeps no state of a life: the database, the application, the HTTP connections."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Any, Self
from uuid import uuid4

import asyncpg
import httpx

from app.context import Context
from app.errors import BillingError
from app.identity.authenticator import Authenticator
from app.main import create_app
from app.opening import open_context
from app.operations import lease_store, recovery
from app.operations import runner as running_operations
from app.postgres.database import Database
from app.settings import load_settings
from app.sharing.rulebooks import RULEBOOKS
from app.stripe.billing import BillingCalls
from app.stripe.client import StripeClient
from app.stripe.gateway import StripeGateway
from testkit.asgi import Reply, ask
from testkit.company import signed
from testkit.service import as_user, service_environment
from testkit.simulator import Simulator

CLOCK = """
    create schema money;
    create unlogged table money.clock (at double precision not null);
    insert into money.clock values (0);
    create function money.clock_timestamp() returns timestamptz stable language sql
        as 'select to_timestamp(at) from money.clock';
    create function money.statement_timestamp() returns timestamptz stable language sql
        as 'select money.clock_timestamp()';
    do $$ declare found record; begin
        for found in select table_name, column_name from information_schema.columns
            where table_schema = 'public' and column_default like '%clock_timestamp()%'
        loop
            execute format('alter table public.%I alter %I set default money.clock_timestamp()',
                found.table_name, found.column_name);
        end loop;
        execute format('alter database %I set search_path = money, pg_catalog, public', current_database());
    end $$"""
"""The time is shadowed, so that the service's leases, quotes and dates follow the stand-in's clock."""

HOST, STAYS_SECONDS = "lives.test", 60.0

FAR = 4_000_000_000
"""When tokens expire, in Unix seconds: the lives are played in years to come."""


class StandIn(Simulator):
    """One account of the stand-in over connections that all lives share."""

    def __init__(self, base_url: str, api_key: str, client: httpx.AsyncClient) -> None:
        self.base_url = base_url
        self.api_key = api_key
        self._client = _Keyed(client, base_url, api_key)  # type: ignore[assignment]


class _Keyed:
    """The two methods of a client that `Simulator` uses, with the account's key."""

    def __init__(self, client: httpx.AsyncClient, base_url: str, api_key: str) -> None:
        self._shared = client
        self._base = base_url
        self._headers = {"Authorization": f"Bearer {api_key}"}

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        sent = {**self._headers, **(headers or {})}
        return await self._shared.request(method, self._base + path, headers=sent, **more)

    async def post(self, path: str, **more: Any) -> httpx.Response:
        return await self.request("POST", path, **more)


@contextmanager
def known_randomness(seed: str) -> Iterator[None]:
    """Ids that the service draws from `secrets` are the seed's."""
    rng, original = random.Random(f"{seed} ids"), secrets.token_hex

    def token_hex(nbytes: int | None = None) -> str:
        return rng.randbytes(nbytes or 16).hex()

    secrets.token_hex = token_hex
    try:
        yield
    finally:
        secrets.token_hex = original


class Bench:
    """One database, one application; each life has an account of its own and begins with empty tables."""

    def __init__(
        self, context: Context, app: Any, stripe_base: str, tables: list[str], client: httpx.AsyncClient
    ) -> None:
        self.app = app
        self.stripe_base = stripe_base
        self._opened = context
        self._tables = tables
        self._client = client
        self._tokens: dict[str, dict[str, str]] = {}
        self._stripe: StripeClient | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, database_url: str, stripe_base: str) -> AsyncIterator[Self]:
        """`database_url`: migrated, and used by nobody else."""
        environment = service_environment(
            database_url=database_url,
            stripe_base=stripe_base,
            stripe_key="sk_test_lives",
            LOG_LEVEL="critical",
        )
        settings = load_settings(environment)
        tables = await _prepare(database_url)
        app = create_app(settings)
        authenticator = Authenticator(settings)
        limits = httpx.Limits(max_connections=4)
        async with (
            open_context(settings, RULEBOOKS) as context,
            httpx.AsyncClient(timeout=60.0, limits=limits, trust_env=False, verify=False) as client,
        ):
            app.state.authenticator = authenticator
            yield cls(context, app, stripe_base, tables, client)
            await running_operations.drain(5.0)
        await authenticator.aclose()

    @property
    def database(self) -> Database:
        return self._opened.database

    async def begin(self, api_key: str) -> tuple[Context, StandIn]:
        """Empty tables, and the application in front of a new account."""
        async with self.database.connection() as connection:
            await connection.execute("; ".join(f"delete from public.{name}" for name in self._tables))
        if self._stripe is not None:
            await self._stripe.close()
        # Without a budget: its grants wait for time to pass, and here none does within a request.
        self._stripe = StripeClient(api_key, api_base=self.stripe_base)
        gateway = StripeGateway(self._stripe, livemode=False)
        context = replace(self._opened, stripe=gateway, billing=BillingCalls(self._stripe))
        self.app.state.context = context
        return context, StandIn(self.stripe_base, api_key, self._client)

    async def close_life(self, stand_in: StandIn) -> None:
        """The account is forgotten: a thousand of them would fill the stand-in's memory."""
        await stand_in.control("POST", "reset")
        if self._stripe is not None:
            await self._stripe.close()
            self._stripe = None

    async def work(self, context: Context) -> None:
        """Finish the operations whose lease has run out, as a worker would."""
        token = uuid4()
        async with self.database.connection() as connection:
            found = await lease_store.take_orphaned(
                connection, limit=100, lease_token=token, lease_seconds=30
            )
        for operation_id in found:
            # What cannot be known yet stays open, and the next round comes.
            with suppress(BillingError):
                await recovery.finish(context, operation_id, token)

    async def wind(self, now: float) -> None:
        async with self.database.connection() as connection:
            await connection.execute("update money.clock set at = $1", now)

    def login(self, subject: str, **claims: Any) -> dict[str, str]:
        """Headers of a login; `claims` count at its first use."""
        if subject not in self._tokens:
            self._tokens[subject] = as_user(subject, exp=FAR, **claims)
        return self._tokens[subject]

    async def call(self, method: str, path: str, headers: Mapping[str, str], body: Any = None) -> Reply:
        """One request of the API, straight into the application."""
        content = b"" if body is None else json.dumps(body).encode()
        sent = {**headers} if body is None else {**headers, "content-type": "application/json"}
        return await ask(self.app, method, path, sent, content, host=HOST, stays=STAYS_SECONDS)

    async def deliver(self, event: Mapping[str, Any]) -> Reply:
        content = json.dumps(event).encode()
        return await ask(
            self.app,
            "POST",
            "/webhooks/stripe",
            signed(content),
            content,
            host=HOST,
            stays=STAYS_SECONDS,
        )


async def _prepare(url: str) -> list[str]:
    """The clock, and the names of all tables with rows of a life."""
    connection = await asyncpg.connect(url)
    try:
        if not await connection.fetchval("select 1 from pg_namespace where nspname = 'money'"):
            await connection.execute(CLOCK)
        rows = await connection.fetch(
            "select tablename from pg_tables where schemaname = 'public'"
            " and tablename not in ('alembic_version', 'schema_floor') order by 1"
        )
    finally:
        await connection.close()
    return [row["tablename"] for row in rows]
