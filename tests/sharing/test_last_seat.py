"""Many add somebody to the last seat at once, over HTTP, against a real process."""

import asyncio
import secrets
from collections import Counter

import httpx
import pytest

from testkit.company import Service, running_service
from testkit.service import api_process, as_service, service_environment
from testkit.simulator import Simulator, new_account_key

ROUNDS = 50
RACERS = 32


@pytest.mark.timeout(300)
async def test_one_of_many_gets_the_last_seat_each_time(stripe_simulator: str, database_url: str) -> None:
    async with Simulator(stripe_simulator, new_account_key()) as stripe:
        async with running_service(stripe, database_url) as service:
            company = await service.company(seats=2, users=0)
            environment = service_environment(
                database_url=database_url, stripe_base=stripe.base_url, stripe_key=stripe.api_key
            )
            with api_process(environment) as (url, _):
                limits = httpx.Limits(max_connections=RACERS, max_keepalive_connections=RACERS)
                async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60.0) as client:
                    racing = Service(client, service.context, stripe, database_url)
                    company.service = racing
                    doors = [
                        company.owner.headers,
                        company.manager.headers,
                        as_service("write"),
                        as_service("write", acting_for=company.owner.customer_id),
                    ]
                    assert (
                        await company.change(company.owner.headers, remove=["cus_absent0"])
                    ).status_code == 409
                    for number in range(ROUNDS):
                        mark = secrets.token_hex(4)
                        answers = await asyncio.gather(
                            *(
                                company.change(
                                    doors[racer % len(doors)],
                                    add=[f"racer{racer}.{number}.{mark}@example.com"],
                                )
                                for racer in range(RACERS)
                            )
                        )
                        told = Counter((answer.status_code, answer.json().get("code")) for answer in answers)
                        assert told == {(200, None): 1, (409, "seat_limit_reached"): RACERS - 1}, number
                        winner = next(answer for answer in answers if answer.status_code == 200)
                        result = winner.json()["results"][0]
                        assert result["outcome"] == "applied"
                        members = await company.members()
                        assert members == {
                            company.manager.customer_id: "manager",
                            result["customer_id"]: "user",
                        }
                        freed = await company.change(company.owner.headers, remove=[result["customer_id"]])
                        assert freed.json()["results"][0]["outcome"] == "applied"
                    assert await company.members() == {company.manager.customer_id: "manager"}
        live = await service.fetch("select 1 from reservations where released_at is null")
        assert live == []
