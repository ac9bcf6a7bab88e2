"""Metrics of operations that are not settled, and of the seats that they reserve."""

import re

from testkit.company import Service, running_service
from testkit.simulator import Simulator


async def shown(service: Service) -> dict[str, float]:
    text = (await service.get("/metrics")).text
    found = re.findall(r"^(coseat_(?:operations|reservations)\S*) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


async def test_operations_are_shown_by_state_and_age(stripe_account: Simulator, database_url: str) -> None:
    """O15, U9: operations that do not end kept seats reserved, and no figure showed it."""
    async with running_service(stripe_account, database_url) as service:
        company = await service.company(seats=5)
        nothing = {
            'coseat_operations{state="running"}': 0,
            'coseat_operations{state="awaiting_payment"}': 0,
            "coseat_operations_oldest_seconds": 0,
            "coseat_reservations": 0,
        }
        assert await shown(service) == nothing
        await service.fetch(
            """insert into operations
                (id, subscription_id, kind, state, principal, source, request, lease_token, lease_until, created_at)
            select 'op_' || n, $1, 'member_change', 'running', 'user:x', 'api', '{}', gen_random_uuid(), now(),
                now() - make_interval(secs => 100 * n)
            from generate_series(1, 3) n returning id""",
            company.subscription_id,
        )
        found = await shown(service)
        assert found.pop("coseat_operations_oldest_seconds") >= 300
        assert found == {
            'coseat_operations{state="running"}': 3,
            'coseat_operations{state="awaiting_payment"}': 0,
            "coseat_reservations": 0,
        }
