"""How often one caller may ask: reads are counted in this process, writes and calls to Stripe in Postgres.

Each caller has a bucket that fills at a steady rate and holds a burst; it is kept as one instant, the time at which
it would be full again (the generic cell rate algorithm). Anonymous callers are told apart by the address of their
connection: a forwarded address is a header like any other, and anybody can write one.
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
"""Of the rate: a page that opens asks for a dozen things at once."""
WRITE_BURST_SECONDS: Final = 10
REMEMBERED = 10_000
"""Callers of each kind; one who is forgotten begins with a full bucket."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` requests at once, and then `per_second`."""

    per_second: float
    burst: float

    @property
    def interval(self) -> float:
        """Seconds that one request takes to be given back."""
        return 1 / self.per_second


class Buckets:
    """One kind of callers in this process. `clock` returns seconds that never go back."""

    __slots__ = ("_capacity", "_clock", "_full_at", "_interval", "_slack")

    def __init__(
        self, rate: Rate, *, capacity: int = REMEMBERED, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = rate.interval
        # A microsecond more, so that sums of fractions do not cost the burst its last request.
        self._slack = (rate.burst - 1) * rate.interval + 1e-6
        self._capacity = capacity
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def allow(self, caller: str) -> float:
        """0.0 and one request is taken, or the seconds until there is one."""
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
    """The limits of this process. A key that acts for a customer is held to that customer's limit and to its own."""

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
        """0.0, or the seconds until this caller's next request is taken; every request counts, writes as well."""
        if isinstance(principal, EndUser):
            # One process verifies tokens of one issuer: the subject is the person.
            return self._users.allow(principal.subject)
        if isinstance(principal, ServiceKey):
            if principal.acting_customer is not None and (wait := self._acting.allow(principal.key)):
                return wait
            return self._keys.allow(principal.name)
        return self._addresses.allow(address_of(scope))

    def charges(self, principal: Principal, *, cost: int = 1) -> list[Charge]:
        """What a write of this caller's, or a read that asks Stripe, is counted against."""
        if not isinstance(principal, ServiceKey):
            return [_charge(principal.key, self._user_writes, cost)]
        own = _charge(f"service:{principal.name}", self._key_writes, cost)
        if principal.acting_customer is None:
            return [own]
        return [own, _charge(principal.key, self._user_writes, cost)]

    async def spend(self, database: Database, principal: Principal, *, cost: int = 1) -> None:
        """Counts a write as `cost` of them, all processes together. Raises RateLimited.

        A caller who has anything left may spend more than that, and waits the longer for the next.
        """
        async with database.connection() as connection:
            wait = await request_rates.spend(connection, self.charges(principal, cost=cost))
        if wait:
            raise too_many(wait)


def address_of(scope: Scope) -> str:
    """The other end of the connection; of IPv6 its network of 64 bits, within which one caller chooses freely."""
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
    """`wait` in seconds; a caller is told whole ones, never too few."""
    return RateLimited(retry_after=int(wait) + 1)
