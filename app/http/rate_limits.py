"""Bound the rate of each caller.

Reads are counted in this process, writes and calls to Stripe in PostgreSQL. Each caller has a bucket that refills at a
steady rate and holds a burst. A bucket is stored as one instant, the time at which it will be full again (the generic
cell rate algorithm, https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm). Anonymous callers are distinguished by
the address of their connection. `X-Forwarded-For` is not used, because any caller can send it. See
docs/decisions/0032-limit-reads-in-each-process-and-writes-in-postgresql.md.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from starlette.types import Scope

from app.errors import RateLimited
from app.http.store import request_rates
from app.http.store.request_rates import Charge
from app.identity.principals import EndUser, Principal, ServiceKey
from app.postgres.database import Database
from app.settings import Settings

READ_BURST_SECONDS: Final = 4
"""Seconds of the rate that a burst may use at once: a page that opens sends about a dozen requests."""
WRITE_BURST_SECONDS: Final = 10
REMEMBERED = 10_000
"""Buckets that are kept for each kind of caller. A caller whose bucket was dropped begins with a full one."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit of `burst` requests at once, and `per_second` on average."""

    per_second: float
    burst: float

    @property
    def interval(self) -> float:
        """Return the seconds after which the room of one request is free again."""
        return 1 / self.per_second


class Buckets:
    """The buckets of one kind of caller in this process.

    `clock` returns monotonic seconds.
    """

    __slots__ = ("_capacity", "_clock", "_full_at", "_interval", "_slack")

    def __init__(
        self, rate: Rate, *, capacity: int = REMEMBERED, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = rate.interval
        # A microsecond more, so that rounding errors of sums never refuse the last request of a burst.
        self._slack = (rate.burst - 1) * rate.interval + 1e-6
        self._capacity = capacity
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def allow(self, caller: str) -> float:
        """Count a request and return 0.0, or return the seconds to wait."""
        now, table = self._clock(), self._full_at
        full_at = table.get(caller, now)
        if full_at <= now:
            full_at = now
        elif full_at > now + self._slack:
            table.move_to_end(caller)
            return full_at - now - self._slack
        table[caller] = full_at + self._interval
        table.move_to_end(caller)
        if len(table) > self._capacity:
            table.popitem(last=False)
        return 0.0


class RequestRates:
    """The limits of this process.

    A service key that acts for a customer counts against that customer's limit and against its own.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        def buckets(per_second: int) -> Buckets:
            return Buckets(Rate(per_second, per_second * READ_BURST_SECONDS), clock=clock)

        self._users = buckets(settings.read_rate_limit)
        self._acting = buckets(settings.read_rate_limit)
        self._keys = buckets(settings.service_read_rate_limit)
        self._addresses = buckets(settings.anonymous_rate_limit)
        self._user_writes = _write_rate(settings.write_rate_limit)
        self._key_writes = _write_rate(settings.service_write_rate_limit)

    def allow(self, principal: Principal, scope: Scope) -> float:
        """Count a read or a write and return 0.0, or return the seconds to wait."""
        if isinstance(principal, EndUser):
            # A process verifies tokens of one issuer only, so the subject identifies the person.
            return self._users.allow(principal.subject)
        if isinstance(principal, ServiceKey):
            if principal.acting_customer is not None and (wait := self._acting.allow(principal.key)):
                return wait
            return self._keys.allow(principal.name)
        return self._addresses.allow(address_of(scope))

    def charges(self, principal: Principal, *, cost: int = 1) -> list[Charge]:
        """Return the buckets that a write or a read from Stripe is counted against."""
        if not isinstance(principal, ServiceKey):
            return [_charge(principal.key, self._user_writes, cost)]
        own = _charge(f"service:{principal.name}", self._key_writes, cost)
        if principal.acting_customer is None:
            return [own]
        return [own, _charge(principal.key, self._user_writes, cost)]

    async def spend(self, database: Database, principal: Principal, *, cost: int = 1) -> None:
        """Count a write as `cost` writes, for all processes together.

        A caller with any room left may spend more than that, and then waits longer for the next write.

        Raises:
            RateLimited: The caller has no room left.
        """
        async with database.connection() as connection:
            wait = await request_rates.spend(connection, self.charges(principal, cost=cost))
        if wait:
            raise too_many(wait)


def address_of(scope: Scope) -> str:
    """Return the client's address.

    For IPv6 it is the /64 network, because one client can use all of its addresses.
    """
    client = scope.get("client")
    if client is None:
        return ""
    host: str = client[0]
    if ":" not in host:
        return host
    address = IPv6Address(host)
    return str(address.ipv4_mapped or int(address) >> 64)


def _write_rate(per_second: int) -> Rate:
    return Rate(per_second, per_second * WRITE_BURST_SECONDS)


def _charge(name: str, rate: Rate, cost: int) -> Charge:
    return Charge(name, cost * rate.interval, (rate.burst - 1) * rate.interval)


def too_many(wait: float) -> RateLimited:
    """Return the error for a caller who has to wait `wait` seconds.

    `Retry-After` is rounded up to whole seconds.
    """
    seconds = int(wait) + 1
    return RateLimited(f"Too many requests. Send the next one in {seconds} s.", retry_after=seconds)
