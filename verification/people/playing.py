"""Play orders one after another in this process, and keep what is wrong with each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.postgres.tables import metadata, schema_floor
from testkit.company import Service, running_service
from testkit.logs import quiet_logs
from testkit.seat_world import progress
from testkit.simulator import Simulator, new_account_key, running_simulator
from verification.people.defects import DEFECTS
from verification.people.invariants import verdicts
from verification.people.orders import play
from verification.planting import in_place

_IN_ONE_ACCOUNT = 25
_SECRETS = {"INVITATION_SECRETS": "only-for-orders-and-32-characters-long"}


async def judged(url: str, stripe_base: str, seeds: Sequence[str], letters: str | None) -> list[str]:
    """Play the seeds in an emptied database, and return what is wrong; with `letters`, stop at the first such verdict.

    A seed names the logins of its people, so the same seed must not find what it left in another account.
    """
    found: list[str] = []
    for first in range(0, len(seeds), _IN_ONE_ACCOUNT):
        async with (
            Simulator(stripe_base, new_account_key()) as stripe,
            running_service(stripe, url, **_SECRETS) as service,
        ):
            await _empty(service)
            for seed in seeds[first : first + _IN_ONE_ACCOUNT]:
                order = await play(service, seed)
                wrong = await verdicts(order)
                found += [f"{seed} {verdict}" for verdict in wrong]
                if wrong and letters is None:
                    progress("\n".join([*wrong, *order.log]))
                if letters is not None and any(verdict[0] in letters for verdict in wrong):
                    return found
        if letters is None:
            progress(f"{min(first + _IN_ONE_ACCOUNT, len(seeds))} of {len(seeds)} orders")
    return found


async def _empty(service: Service) -> None:
    tables = ", ".join(table.name for table in metadata.sorted_tables if table is not schema_floor)
    async with service.context.database.connection() as connection:
        await connection.execute(f"truncate {tables} restart identity")


def run(url: str, seeds: Sequence[str]) -> list[str]:
    """Play all seeds beside a stand-in of their own."""
    with quiet_logs(), running_simulator() as stripe_base:
        return asyncio.run(judged(url, stripe_base, seeds, None))


def catch(url: str, names: Sequence[str], *, seeds: Sequence[str]) -> list[tuple[str, str | None]]:
    """Plant one defect after another; the first violation that each led to, None if `seeds` did not show it."""
    caught: list[tuple[str, str | None]] = []
    with quiet_logs(), running_simulator() as stripe_base:
        for name in names:
            letters = DEFECTS[name].breaks
            with in_place(DEFECTS[name].changes()):
                found = asyncio.run(judged(url, stripe_base, seeds, letters))
            first = next((one for one in found if one.split()[1] in letters), None)
            progress(f"{name}: {first or 'NOT CAUGHT'}")
            caught.append((name, first))
    return caught
