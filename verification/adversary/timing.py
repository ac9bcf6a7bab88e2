"""Does the time of an answer tell whether an id exists? Foreign and absent ids, in random order, on each kind of route.

`python -m verification.adversary.timing` takes 2,000 samples of each over one connection and compares the medians.
"""

import argparse
import asyncio
import random
import statistics
import time
from dataclasses import dataclass

import httpx

from testkit.company import Person, running_service
from testkit.service import api_process
from testkit.simulator import Simulator, new_account_key
from verification.adversary.running import finish, parts, tell
from verification.adversary.world import Builder, Plan, World, absent_like, environment_of

SEED = 20261122
BOUND_MS = 2.0
WARM = 20
CONTROL = "control: two absent ids"
"""As far apart as two of these may the others be by chance."""


@dataclass(frozen=True)
class Route:
    """`foreign` is what strangers have, `absent` an id of the same shape."""

    name: str
    method: str
    foreign: str
    absent: str


@dataclass(frozen=True)
class Compared:
    """Medians in milliseconds."""

    foreign: float
    absent: float

    @property
    def apart(self) -> float:
        return self.foreign - self.absent


def routes_to(plan: Plan) -> list[Route]:
    def route(name: str, method: str, path: str, known: str) -> Route:
        return Route(name, method, path.format(known), path.format(absent_like(known)))

    customer = plan.second.customer_id
    nobody = absent_like(customer)
    return [
        Route(CONTROL, "GET", f"/v1/customers/{nobody}", f"/v1/customers/{nobody.replace('0', '1')}"),
        route("subscription", "GET", "/v1/subscriptions/{}", plan.subscription_id),
        route("shared subscription", "GET", "/v1/shared-subscriptions/{}", plan.subscription_id),
        route("users", "GET", "/v1/shared-subscriptions/{}/users", plan.subscription_id),
        route("audit events", "GET", "/v1/shared-subscriptions/{}/audit-events", plan.subscription_id),
        route("customer", "GET", "/v1/customers/{}", customer),
        route("invoice", "GET", "/v1/invoices/{}", plan.invoice_id),
        route("payment method", "DELETE", "/v1/customers/me/payment-methods/{}", plan.payment_method_id),
        Route("operation", "GET", f"/v1/operations/{plan.operation_id}", f"/v1/operations/op_{'0' * 24}"),
    ]


async def compare(api: httpx.AsyncClient, route: Route, who: Person, samples: int) -> Compared:
    """Raises AssertionError for an answer that is no 404."""
    taken: dict[str, list[float]] = {route.foreign: [], route.absent: []}
    chance = random.Random(f"{SEED} {route.name}")
    # Both in each pair, so that a machine that slows down slows both.
    order = [path for _ in range(samples + WARM) for path in chance.sample(sorted(taken), 2)]
    for path in order:
        started = time.perf_counter()
        answer = await api.request(route.method, path, headers=dict(who.headers))
        taken[path].append(time.perf_counter() - started)
        assert answer.status_code == httpx.codes.NOT_FOUND, answer.text
    foreign, absent = (statistics.median(taken[path][WARM:]) * 1000 for path in (route.foreign, route.absent))
    return Compared(foreign, absent)


async def run(stripe_base: str, database_url: str, *, samples: int) -> dict[str, Compared]:
    """By route's name. The asking person has a plan of his own, the strangers' plan has people and a history."""
    async with Simulator(stripe_base, new_account_key()) as stripe:
        environment = environment_of(stripe, database_url)
        async with running_service(stripe, database_url) as service:
            with api_process(environment) as (base_url, _):
                async with httpx.AsyncClient(base_url=base_url, timeout=60.0) as api:
                    world = World(stripe, service, environment)
                    builder = Builder(world)
                    await builder.stock()
                    theirs, mine = await builder.plans(["offered", "owner pays"])
                    await service.fill()
                    await builder.offer(theirs, api)
                    found = {}
                    for route in routes_to(theirs):
                        found[route.name] = await compare(api, route, mine.owner, samples)
                        told = found[route.name]
                        tell(f"{route.name}: {told.foreign:.3f} ms and {told.absent:.3f} ms")
                    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=2000, help="of foreign ids and of absent ones, each")
    given = parser.parse_args()
    with parts() as (stripe_base, database_url):
        found = asyncio.run(run(stripe_base, database_url, samples=given.samples))
    misses = [
        f"{name}: the medians are {one.apart * 1000:.0f} µs apart"
        for name, one in found.items()
        if abs(one.apart) > BOUND_MS
    ]
    report = {
        "check": "timing",
        "samples": given.samples,
        "median_ms": {name: round(one.absent, 3) for name, one in found.items()},
        "apart_us": {name: round(one.apart * 1000) for name, one in found.items()},
    }
    finish(report, misses)


if __name__ == "__main__":
    main()
